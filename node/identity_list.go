package node

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// accountName is the record of the owner's list in the key file.
const accountName = "account"

// accountRecord is what a device keeps of the owner's list.
type accountRecord struct {
	_       struct{} `cbor:",toarray"`
	List    []byte   // sealed, the newest one known
	Skipped [][]byte // space ids that this device forgot and does not want back
}

// account is the list of the owner's spaces as this device knows it.
type account struct {
	wake chan struct{} // 1: look now
	keys *keyfile.Store
	self *self

	mu      sync.Mutex // guards what follows
	plain   identity.Account
	raw     []byte
	list    identity.List
	skipped map[[32]byte]bool
	stale   bool     // the list must be sealed anew whatever is in it
	shape   [32]byte // of what the list was made from
	unfit   [32]byte // the shape of a list that is too large to be sealed
	heard   map[peer.ID]time.Time
}

// openAccount reads the list of the home, if there is one.
func openAccount(keys *keyfile.Store, s *self) (*account, error) {
	a := &account{
		wake: make(chan struct{}, 1), keys: keys, self: s,
		skipped: map[[32]byte]bool{}, heard: map[peer.ID]time.Time{},
	}
	b, err := keys.Read(accountName)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of spaces: %w", err)
	}
	var rec accountRecord
	if err := space.Unmarshal(b, &rec); err != nil {
		return nil, fmt.Errorf("read the list of spaces: %w", err)
	}
	for _, id := range rec.Skipped {
		if len(id) == 32 {
			a.skipped[[32]byte(id)] = true
		}
	}
	if len(rec.List) == 0 {
		return a, nil
	}
	l, err := identity.ParseList(rec.List)
	if err != nil {
		return nil, fmt.Errorf("read the list of spaces: %w", err)
	}
	plain, err := l.Open(s.ownState(), s.ownPUK())
	if err != nil {
		return a, nil // of a key that this device never had: other devices have another list
	}
	a.raw, a.list, a.plain = rec.List, l, plain
	return a, nil
}

// sealed is the list for other nodes.
func (a *account) sealed() ([]byte, identity.List, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.raw, a.list, a.raw != nil
}

// mark names what there is to tell: the log up to head, and the list.
func (a *account) mark(head [32]byte) [32]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return sha256.Sum256(append(head[:], a.raw...))
}

// poke has the loop look now.
func (a *account) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// renew has the list sealed anew: the per-user key or the devices changed.
func (a *account) renew() {
	a.mu.Lock()
	a.stale = true
	a.mu.Unlock()
	a.poke()
}

// confirmed notes that a node has what there is to tell.
func (a *account) confirmed(p peer.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard[p] = time.Now()
}

// isConfirmed reports whether any node was told since this one started.
func (a *account) isConfirmed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.heard) > 0
}

// save makes the record durable. mu is held.
func (a *account) save(raw []byte) error {
	rec := accountRecord{List: raw, Skipped: [][]byte{}}
	if raw == nil {
		rec.List = []byte{}
	}
	for id := range a.skipped {
		rec.Skipped = append(rec.Skipped, id[:])
	}
	slices.SortFunc(rec.Skipped, bytes.Compare)
	b, err := space.Marshal(rec)
	if err != nil {
		return err
	}
	return a.keys.Put(accountName, b)
}

// take puts a newer list of another device in the place of ours. What only
// ours had goes into the next one.
func (a *account) take(raw []byte, l identity.List) error {
	plain, err := l.Open(a.self.ownState(), a.self.ownPUK())
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.raw != nil && !l.Newer(a.list) {
		return nil
	}
	merged := mergeAccounts(plain, a.plain)
	if err := a.save(raw); err != nil {
		return err
	}
	a.stale = a.stale || !sameAccount(merged, plain)
	a.raw, a.list, a.plain = raw, l, merged
	a.poke()
	return nil
}

// mergeAccounts is a, the newer one, with what only b knows.
func mergeAccounts(a, b identity.Account) identity.Account {
	spaces, devices := map[[32]byte]bool{}, map[identity.DeviceID]bool{}
	for _, s := range a.Spaces {
		spaces[s.Space] = true
	}
	for _, d := range a.Devices {
		devices[d.ID] = true
	}
	for _, s := range b.Spaces {
		if !spaces[s.Space] {
			a.Spaces = append(a.Spaces, s)
		}
	}
	for _, d := range b.Devices {
		if !devices[d.ID] {
			a.Devices = append(a.Devices, d)
		}
	}
	slices.SortFunc(a.Spaces, func(x, y identity.AccountSpace) int { return bytes.Compare(x.Space[:], y.Space[:]) })
	slices.SortFunc(a.Devices, func(x, y identity.AccountDevice) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	return a
}

func sameAccount(a, b identity.Account) bool {
	x, err := space.Marshal(&a)
	y, err2 := space.Marshal(&b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// skip keeps a space that this device forgot from coming back. gone: the
// person left it, and no other device should go back either.
func (n *Node) skipSpace(sid [32]byte, gone bool) error {
	a := n.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.skipped[sid] = true
	for i := range a.plain.Spaces {
		if s := &a.plain.Spaces[i]; s.Space == sid && gone && !s.Gone {
			s.Gone, a.stale = true, true
		}
	}
	if err := a.save(a.raw); err != nil {
		return fmt.Errorf("keep that the space is forgotten: %w", err)
	}
	a.poke()
	return nil
}

// unskip is for a space that the owner joins again.
func (a *account) unskip(sid [32]byte) {
	if a.skipped[sid] {
		delete(a.skipped, sid)
		a.stale = true
	}
}

// refreshAccount seals the list anew if it says something else than what is
// so: spaces came or went, the node moved, the per-user key is a new one.
func (n *Node) refreshAccount() error {
	st, puk := n.self.ownState(), n.self.ownPUK()
	if !puk.Public().Equal(st.PUK) || !st.Can(n.self.device.ID(), 0) {
		return nil // revoked, or a key that is not here yet
	}
	a := n.account
	a.mu.Lock()
	defer a.mu.Unlock()
	shape := n.shape(st)
	if shape == a.unfit || !a.stale && a.raw != nil && a.list.Gen == puk.Gen() && a.shape == shape {
		return nil // what is dear to look at has not changed
	}
	next := n.compose(st)
	if !a.stale && a.raw != nil && a.list.Gen == puk.Gen() && settled(a.plain, next) {
		a.shape = shape
		return nil
	}
	version := uint64(max(time.Now().UnixMilli(), 0))
	if a.list.Gen == puk.Gen() {
		version = max(version, a.list.Version+1)
	}
	raw, err := sealFitting(&next, func(x identity.Account) ([]byte, error) {
		return st.SealList(rand.Reader, n.self.device, puk, version, x)
	})
	if errors.Is(err, space.ErrTooLarge) {
		a.unfit = shape // said once: the list stays what it was
	}
	if err != nil {
		return err
	}
	l, err := identity.ParseList(raw)
	if err != nil {
		return err
	}
	if err := a.save(raw); err != nil {
		return err
	}
	a.raw, a.list, a.plain, a.stale, a.shape = raw, l, next, false, shape
	return nil
}

// sealFitting seals an account with fewer and fewer of its spaces' addresses
// until it fits: they can be found again, in the end from the owner's other
// devices.
func sealFitting(a *identity.Account, seal func(identity.Account) ([]byte, error)) (raw []byte, err error) {
	for _, most := range []int{identity.MaxListAddrs, 1, 0} {
		for i := range a.Spaces {
			a.Spaces[i].Addrs = a.Spaces[i].Addrs[:min(most, len(a.Spaces[i].Addrs))]
		}
		if raw, err = seal(*a); !errors.Is(err, space.ErrTooLarge) {
			break
		}
	}
	return raw, err
}

// shape is a hash of what makes a new list: the spaces with their names, and
// whether the owner is in them; where this node is.
func (n *Node) shape(st identity.State) [32]byte {
	h := sha256.New()
	h.Write(st.Head[:])
	for _, a := range fullAddrs(n.host) {
		h.Write([]byte(a + "\n"))
	}
	var line []byte
	for _, r := range n.all() { // of many spaces, every few seconds: without a word to the heap
		ctl := r.control()
		_, in := ctl.Member(n.self.c)
		line = append(append(line[:0], r.sid[:]...), r.petname()...)
		for _, yes := range []bool{in, ctl.Deleted, n.book.any(r.sid)} {
			line = strconv.AppendBool(append(line, 0), yes)
		}
		h.Write(append(line, '\n'))
	}
	return [32]byte(h.Sum(nil))
}

// compose is the account as it should be. The account's mu is held.
func (n *Node) compose(st identity.State) identity.Account {
	a := n.account
	out := identity.Account{Ver: 1, LogSeq: st.Seq, DIDKey: n.didKeyBytes(), Devices: []identity.AccountDevice{}, Spaces: []identity.AccountSpace{}}
	own := fullAddrs(n.host)
	own = own[:min(len(own), identity.MaxListAddrs)]
	me := identity.AccountDevice{ID: n.self.device.ID(), Name: deviceName(), Addrs: own}
	for _, d := range a.plain.Devices {
		switch {
		case d.ID == me.ID:
			me.Name = d.Name
		case st.Can(d.ID, 0):
			out.Devices = append(out.Devices, d)
		case st.Revoked(d.ID) && len(a.plain.Devices) < identity.MaxListDevices:
			d.Addrs = []string{}
			out.Devices = append(out.Devices, d)
		}
	}
	out.Devices = append(out.Devices, me)
	running := map[[32]byte]bool{}
	for _, r := range n.all() {
		ctl := r.control()
		_, in := ctl.Member(n.self.c)
		running[r.sid] = true
		if in {
			a.unskip(r.sid)
		} else if r.takesPart() {
			continue // by another space, which brings it to each device
		}
		out.Spaces = append(out.Spaces, identity.AccountSpace{
			Space: r.sid, URI: r.id.AT(), Name: r.petname(), Addrs: n.waysTo(r.actor), HeadSeq: ctl.Head.Seq, Head: ctl.Head.Hash, Gone: !in || ctl.Deleted,
		})
	}
	for _, s := range a.plain.Spaces {
		if !running[s.Space] {
			out.Spaces = append(out.Spaces, s)
		}
	}
	return mergeAccounts(out, identity.Account{})
}

// settled reports whether the account before says what the one after does, but
// for what moves all the time: heads, and the addresses of others.
func settled(before, after identity.Account) bool {
	if len(before.Spaces) != len(after.Spaces) || len(before.Devices) != len(after.Devices) {
		return false
	}
	for i, s := range after.Spaces {
		b := before.Spaces[i]
		if b.Space != s.Space || b.Name != s.Name || b.Gone != s.Gone || len(b.Addrs) == 0 && len(s.Addrs) > 0 {
			return false
		}
	}
	for i, d := range after.Devices {
		b := before.Devices[i]
		if b.ID != d.ID || b.Name != d.Name || !slices.Equal(b.Addrs, d.Addrs) {
			return false
		}
	}
	return true
}

// waysTo are addresses at which a space was reached, of those who may admit
// first. The device's own are in the account already.
func (n *Node) waysTo(a *actor) []string {
	out := []string{}
	for _, p := range append(n.keepers(a), n.book.of(a.sid)...) {
		for i, m := range p.Addrs {
			text := m.String() + "/p2p/" + p.ID.String()
			if i < 2 && len(out) < identity.MaxListAddrs && !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	return out
}

// didKeyBytes is the DID's key as it stands in the account.
func (n *Node) didKeyBytes() []byte {
	if k, ok := n.self.didKey.(interface{ Bytes() []byte }); ok {
		return k.Bytes()
	}
	return nil
}

// deviceName is what a device is called until somebody says otherwise.
func deviceName() string {
	name, err := os.Hostname()
	if err != nil || len(name) > 64 {
		return ""
	}
	return name
}

// siblings are the nodes of the owner's other devices.
func (a *account) siblings() []peer.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	me := a.self.device.ID()
	var out []peer.ID
	for _, d := range a.plain.Devices {
		if d.ID == me {
			continue
		}
		for _, p := range parsePeers(d.Addrs) {
			out = append(out, p.ID)
		}
	}
	return out
}

// ways are the addresses of the owner's other devices.
func (a *account) ways() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	me := a.self.device.ID()
	var out []string
	for _, d := range a.plain.Devices {
		if d.ID != me {
			out = append(out, d.Addrs...)
		}
	}
	return out
}
