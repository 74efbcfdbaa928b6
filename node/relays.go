package node

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
)

// ownRelays are the relays that the spaces of this node name in their logs,
// and the further hosts of these relays. It is a leaf.
type ownRelays struct {
	mu    sync.RWMutex // guards what follows
	named map[[32]byte][]peer.AddrInfo
	used  map[peer.ID]*usedRelay
	hosts map[peer.ID]relayHost
}

// relayHost is a host that a relay named in a lease.
type relayHost struct {
	of   peer.ID // the relay
	info peer.AddrInfo
}

// usedRelay is a relay and how many spaces name it.
type usedRelay struct {
	info   peer.AddrInfo
	spaces int
}

func newOwnRelays() *ownRelays {
	return &ownRelays{
		named: map[[32]byte][]peer.AddrInfo{}, used: map[peer.ID]*usedRelay{}, hosts: map[peer.ID]relayHost{},
	}
}

// set notes which relays a space names now; none forgets it. It reports
// whether that is news.
func (o *ownRelays) set(sid [32]byte, addrs []string) bool {
	now := parsePeers(addrs)
	slices.SortFunc(now, func(a, b peer.AddrInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.EqualFunc(o.named[sid], now, sameAddrInfo) {
		return false
	}
	for _, r := range o.named[sid] {
		if u := o.used[r.ID]; u.spaces > 1 {
			u.spaces--
		} else {
			delete(o.used, r.ID)
		}
	}
	for _, r := range now {
		u := o.used[r.ID]
		if u == nil {
			u = &usedRelay{}
			o.used[r.ID] = u
		}
		u.info, u.spaces = r, u.spaces+1
	}
	if o.named[sid] = now; len(now) == 0 {
		delete(o.named, sid)
	}
	return true
}

func sameAddrInfo(a, b peer.AddrInfo) bool {
	return a.ID == b.ID && slices.EqualFunc(a.Addrs, b.Addrs, multiaddr.Multiaddr.Equal)
}

// all are the relays of all spaces, those that serve most of them first.
func (o *ownRelays) all() []peer.AddrInfo {
	o.mu.RLock()
	defer o.mu.RUnlock()
	used := make([]*usedRelay, 0, len(o.used))
	for _, u := range o.used {
		used = append(used, u)
	}
	slices.SortFunc(used, func(a, b *usedRelay) int {
		if a.spaces != b.spaces {
			return b.spaces - a.spaces
		}
		return strings.Compare(string(a.info.ID), string(b.info.ID))
	})
	out := make([]peer.AddrInfo, len(used))
	for i, u := range used {
		out[i] = u.info
	}
	return out
}

// of are the relays that a space names.
func (o *ownRelays) of(sid [32]byte) []peer.AddrInfo {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return slices.Clone(o.named[sid])
}

// host notes that a relay named a host of its own.
func (o *ownRelays) host(of peer.ID, host peer.AddrInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if of != host.ID {
		o.hosts[host.ID] = relayHost{of, host}
	}
}

// dialled are the relays and those of their hosts that serve something here.
func (o *ownRelays) dialled() []peer.AddrInfo {
	out := o.all()
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, h := range o.hosts {
		if o.used[h.of] != nil {
			out = append(out, h.info)
		}
	}
	return out
}

// serving is the relay of a space that a peer is, or is a host of.
func (o *ownRelays) serving(sid [32]byte, p peer.ID) (peer.ID, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	named := p
	if h, ok := o.hosts[p]; ok {
		named = h.of
	}
	return named, slices.ContainsFunc(o.named[sid], func(r peer.AddrInfo) bool { return r.ID == named })
}

// relays are the addresses of relays that the epoch in force names.
func (a *actor) relays(st *control.State) ([]string, error) {
	e := a.current()
	if e == nil {
		return nil, space.ErrNoKey
	}
	inner, err := a.inner(st, e)
	return inner.Relays, err
}

// maxSpaceRelays is how many relays a space may name.
const maxSpaceRelays = 8

// serve are the peers that may serve a space: its relays and their hosts.
func (o *ownRelays) serve(sid [32]byte) []peer.ID {
	o.mu.RLock()
	defer o.mu.RUnlock()
	var out []peer.ID
	for _, r := range o.named[sid] {
		out = append(out, r.ID)
		for id, h := range o.hosts {
			if h.of == r.ID {
				out = append(out, id)
			}
		}
	}
	return out
}

// checkRelays refuses addresses that members could not use: each has to end in
// /p2p/PEERID, of a peer whose key signs what it says it holds.
func checkRelays(addrs []string) error {
	if len(addrs) > maxSpaceRelays {
		return fmt.Errorf("%d relays, at most %d: %w", len(addrs), maxSpaceRelays, space.ErrTooLarge)
	}
	for _, a := range addrs {
		p, err := parsePeer(a)
		if err == nil {
			_, err = relay.KeyOf(p.ID)
		}
		if err != nil {
			return fmt.Errorf("relay: %w: %w", err, space.ErrMalformed)
		}
	}
	return nil
}

// noteRelays takes up what a space's epoch in force says of relays.
func (n *Node) noteRelays(a *actor) {
	addrs, err := a.relays(a.control())
	if err != nil {
		n.log.Debug("the relays of a space are not known yet", "space", fingerprint(a.sid), "err", err)
		return
	}
	n.relays.set(a.sid, addrs)
	for _, r := range n.relays.of(a.sid) {
		n.book.learn(a.sid, r)
	}
	n.redial.poke()
	n.outside.poke()
	n.relayed.took(a)
}
