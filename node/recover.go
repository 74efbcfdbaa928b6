package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
)

// Recovered tells what a recovery found.
type Recovered struct {
	Identity
	Asked   int      `json:"asked"`            // nodes that answered
	Spaces  []string `json:"spaces"`           // that the list names, by URI
	Others  int      `json:"otherDevices"`     // still live in the log
	Missing string   `json:"notice,omitempty"` // what could not be recovered, and why
}

// ErrNoSource: recovery needs a node that knows the identity's log.
var ErrNoSource = fmt.Errorf("no node that knows this identity could be asked: %w", space.ErrUnavailable)

// How a recovery asks.
const (
	recoverWait  = 20 * time.Second // for all the addresses that were named
	recoverMore  = 3 * time.Second  // for those that the list names, of which many may be gone
	recoverPeers = 24               // nodes asked at most
)

// Recover makes this machine a device of the identity whose seed it is. from
// are addresses of nodes that may know it, or links that name some. The log is
// fetched before it is extended: a device that extends a part of it would part
// it.
func (m Machine) Recover(ctx context.Context, seed identity.Seed, from []string) (Recovered, error) {
	if err := m.vacant(); err != nil {
		return Recovered{}, err
	}
	first, err := sources(from)
	if err != nil {
		return Recovered{}, err
	}
	h, key, err := m.host()
	if err != nil {
		return Recovered{}, err
	}
	defer h.Close()
	f := &finding{h: h, c: seed.Commitment(), asked: map[peer.ID]bool{}}
	f.ask(ctx, first, recoverWait)
	if f.log == nil {
		return Recovered{}, fmt.Errorf("%w (%d asked)", ErrNoSource, len(first))
	}
	acct, notice, err := f.account(seed)
	if err != nil {
		return Recovered{}, err
	}
	f.ask(ctx, acctPeers(acct), recoverMore) // who may know more
	if again, n, err := f.account(seed); err == nil {
		acct, notice = again, n
	}
	if st, err := identity.Verify(f.log); err == nil && st.Seq < acct.LogSeq {
		return Recovered{}, fmt.Errorf(
			"the nodes that were asked know an older log (entry %d) than your devices had (entry %d): name a node that is up to date: %w",
			st.Seq, acct.LogSeq, space.ErrUnavailable)
	}
	created, err := identity.Recover(rand.Reader, seed, f.log, time.Now().UnixMilli())
	if err != nil {
		return Recovered{}, err
	}
	list, err := f.newList(created, seed, acct, m)
	if err != nil {
		return Recovered{}, err
	}
	id, err := furnish(m.Home, furniture{created: created, hostKey: key, passphrase: m.Passphrase, list: list})
	if err != nil {
		return Recovered{}, err
	}
	f.announce(ctx, created, list)
	r := Recovered{Identity: id, Asked: f.answers, Others: len(created.State.Devices) - 1, Missing: notice, Spaces: []string{}}
	for _, s := range acct.Spaces {
		if !s.Gone {
			r.Spaces = append(r.Spaces, s.URI)
		}
	}
	return r, nil
}

// sources reads the addresses to ask out of multiaddrs and invite links.
func sources(from []string) ([]peer.AddrInfo, error) {
	var addrs []string
	for _, text := range from {
		if link, err := control.ParseLink(text); err == nil {
			addrs = append(addrs, link.Addrs...)
			continue
		}
		if _, err := parsePeer(text); err != nil {
			return nil, fmt.Errorf("neither a link nor an address: %w: %w", err, space.ErrMalformed)
		}
		addrs = append(addrs, text)
	}
	out := parsePeers(addrs)
	if len(out) == 0 {
		return nil, fmt.Errorf("no address to ask: %w", space.ErrMalformed)
	}
	return out, nil
}

// finding is what was found of an identity so far.
type finding struct {
	h     host.Host
	c     identity.Commitment
	asked map[peer.ID]bool

	mu      sync.Mutex // guards what follows while nodes are asked
	reached []peer.ID
	answers int
	log     [][]byte // nil: none yet
	lists   []identity.List
}

// ask asks nodes, all at once, and keeps the best of what they say.
func (f *finding) ask(ctx context.Context, peers []peer.AddrInfo, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range peers {
		if f.asked[p.ID] || len(f.asked) >= recoverPeers || p.ID == f.h.ID() {
			continue
		}
		f.asked[p.ID] = true
		wg.Go(func() {
			a, err := f.askOne(ctx, p)
			f.take(p.ID, a, err)
		})
	}
	wg.Wait()
}

// source is what one node knows.
type source struct {
	reached bool
	log     [][]byte
	list    []byte
}

func (f *finding) askOne(ctx context.Context, p peer.AddrInfo) (source, error) {
	var a source
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := dial(dctx, f.h, p); err != nil {
		return a, err
	}
	a.reached = true
	var err error
	if a.log, a.list, err = fetchIdentity(ctx, f.h, p.ID, f.c); err != nil {
		return a, err
	}
	st, err := identity.Verify(a.log)
	if err == nil && st.C != f.c {
		err = fmt.Errorf("another identity's log: %w", space.ErrForged)
	}
	return a, err
}

func (f *finding) take(from peer.ID, a source, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.reached {
		f.reached = append(f.reached, from)
	}
	if err != nil {
		return
	}
	f.answers++
	if f.log == nil {
		f.log = a.log
	} else {
		f.log = identity.Choose(f.log, a.log)
	}
	if l, err := identity.ParseList(a.list); err == nil {
		f.lists = append(f.lists, l)
	}
}

// account opens the newest list that is the identity's, or says that there is
// none: then the DID's key still comes from the seed.
func (f *finding) account(seed identity.Seed) (identity.Account, string, error) {
	st, err := identity.Verify(f.log)
	if err != nil {
		return identity.Account{}, "", err
	}
	bare := identity.Account{Ver: 1, DIDKey: identity.DIDKey(seed).Bytes(), Devices: []identity.AccountDevice{}, Spaces: []identity.AccountSpace{}}
	if st.PUK.Gen == 0 {
		return bare, "the identity never had a device: there is no list of spaces", nil
	}
	puk, err := identity.UnwrapPUK(seed, st)
	if err != nil {
		return bare, "", err
	}
	slices.SortFunc(f.lists, func(a, b identity.List) int {
		if a.Newer(b) {
			return -1
		}
		return 1
	})
	for _, l := range f.lists {
		// A list of a device that was revoked since names spaces as well as
		// any: whoever makes it up can only send us to nodes that refuse us.
		if l.C != st.C || !l.Signed() {
			continue
		}
		if a, err := l.Open(st, puk); err == nil {
			return a, "", nil
		}
	}
	return bare, "no node that was asked holds the list of your spaces: join them again by a link, or start the node and let other devices bring it", nil
}

// acctPeers are all nodes that an account names.
func acctPeers(a identity.Account) []peer.AddrInfo {
	var addrs []string
	for _, d := range a.Devices {
		addrs = append(addrs, d.Addrs...)
	}
	for _, s := range a.Spaces {
		addrs = append(addrs, s.Addrs...)
	}
	return parsePeers(addrs)
}

// newList is the list with this machine in it, under the new per-user key.
func (f *finding) newList(c identity.Created, seed identity.Seed, a identity.Account, m Machine) ([]byte, error) {
	a.LogSeq, a.DIDKey = c.State.Seq, identity.DIDKey(seed).Bytes()
	name := m.Name
	if name == "" {
		name = deviceName()
	}
	addrs := fullAddrs(f.h)
	a.Devices = append(slices.Clone(a.Devices), identity.AccountDevice{
		ID: c.Device.ID(), Name: name, Addrs: addrs[:min(len(addrs), identity.MaxListAddrs)],
	})
	return c.State.SealList(rand.Reader, c.Device, c.PUK, uint64(time.Now().UnixMilli()), mergeAccounts(a, identity.Account{}))
}

// announce tells the nodes that were reached. What they do not hear now they
// hear from the node when it runs.
func (f *finding) announce(ctx context.Context, c identity.Created, list []byte) {
	id := c.Device.ID()
	for _, p := range f.reached {
		log, _ := part(c.Log)
		_, _ = askIdentity(ctx, f.h, p, identityAsk{
			Ver: identityVersion, C: c.State.C[:], Head: c.State.Head[:], Log: log, List: list, Device: id[:],
			Proof: space.Sign(c.Device.Sig(), space.LabelIdentityAsk, twinParts(c.State.C, f.h.ID(), p)...),
		})
	}
}
