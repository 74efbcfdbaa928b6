package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/multiformats/go-multiaddr"
)

// Reachability is what others' dial-backs (AutoNAT v2) have shown.
type Reachability string

const (
	ReachUnknown Reachability = "unknown" // nobody has tried yet
	ReachPublic  Reachability = "public"  // some address of this node can be dialled from outside
	ReachPrivate Reachability = "private" // every address that was tried cannot
)

const (
	slotEvery  = 30 * time.Second // a look at the reservations
	slotRenew  = 15 * time.Minute // before its end a reservation is renewed
	slotTime   = 20 * time.Second // one attempt
	slotsAtAll = 4                // relays at which a node can be reached
)

// reach keeps the node reachable where nobody can dial it: it holds
// reservations at its own relays, and at no others, and tells the addresses
// that lead through them. Neither a topic nor a peer is ever asked of or told
// to a DHT; there is none.
type reach struct {
	relays   func() []peer.AddrInfo // own relays
	announce []multiaddr.Multiaddr  // told in place of the addresses listened on; none: those
	log      *slog.Logger
	wake     chan struct{}
	punch    *puncher

	mu    sync.Mutex // guards what follows
	state Reachability
	slots map[peer.ID]slot
}

// slot is a reservation at a relay.
type slot struct {
	at    peer.AddrInfo
	until time.Time
}

func newReach(relays func() []peer.AddrInfo, announce []multiaddr.Multiaddr, log *slog.Logger) *reach {
	return &reach{
		relays: relays, announce: announce, log: log, wake: make(chan struct{}, 1), state: ReachUnknown,
		punch: &puncher{log: log, tries: map[peer.ID]*dialBackoff{}}, slots: map[peer.ID]slot{},
	}
}

// addrs are what the host tells others, of the addresses it listens on.
func (r *reach) addrs(listened []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	if len(r.announce) > 0 {
		listened = r.announce
	}
	return append(slices.Clone(listened), r.circuits()...)
}

// circuits are the addresses that lead here through relays, without this
// node's own id.
func (r *reach) circuits() []multiaddr.Multiaddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []multiaddr.Multiaddr
	for _, s := range r.slots {
		out = append(out, throughRelay(s.at)...)
	}
	slices.SortFunc(out, func(a, b multiaddr.Multiaddr) int { return a.Compare(b) })
	return out
}

// addrsOfSlot bounds the addresses told of one relay.
const addrsOfSlot = 2

// throughRelay are addresses that lead through a relay.
func throughRelay(at peer.AddrInfo) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for _, a := range at.Addrs {
		c, err := multiaddr.NewMultiaddr(fmt.Sprintf("%s/p2p/%s/p2p-circuit", a, at.ID))
		if err == nil && len(out) < addrsOfSlot {
			out = append(out, c)
		}
	}
	return out
}

// seen is what is known of this node's reachability.
func (r *reach) seen() Reachability {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// poke makes the next look happen now: a relay was connected, or became ours.
func (r *reach) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run keeps reservations until ctx is done.
func (r *reach) run(ctx context.Context, h host.Host) {
	sub, err := h.EventBus().Subscribe(new(event.EvtHostReachableAddrsChanged), eventbus.Name("kith"))
	if err != nil {
		r.log.Error("learn how reachable this node is", "err", err)
		return
	}
	defer sub.Close()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			r.learn(e.(event.EvtHostReachableAddrsChanged))
		case <-r.wake:
		case <-t.C:
		}
		r.round(ctx, h)
		t.Reset(jitter(slotEvery))
	}
}

// learn takes what dial-backs have shown.
func (r *reach) learn(e event.EvtHostReachableAddrsChanged) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(e.Reachable) > 0:
		r.state = ReachPublic
	case len(e.Unreachable) > 0:
		r.state = ReachPrivate
	default:
		r.state = ReachUnknown
	}
}

// round reserves where a reservation is missing or about to end. Who can be
// dialled lets them end.
func (r *reach) round(ctx context.Context, h host.Host) {
	own := r.relays()
	r.prune(time.Now(), own)
	if r.seen() == ReachPublic {
		return
	}
	for _, at := range own[:min(len(own), slotsAtAll)] {
		if at.ID == h.ID() || !r.due(at.ID) || h.Network().Connectedness(at.ID) != network.Connected {
			continue
		}
		if err := r.reserve(ctx, h, at); err != nil {
			r.log.Debug("no way through a relay", "relay", at.ID, "err", err)
		}
	}
}

// prune forgets reservations that ended, and those at relays that are not ours
// any more.
func (r *reach) prune(now time.Time, own []peer.AddrInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range r.slots {
		ours := slices.ContainsFunc(own, func(p peer.AddrInfo) bool { return p.ID == id })
		if !ours || !now.Before(s.until) {
			delete(r.slots, id)
		}
	}
}

// dropped forgets the reservation at a relay that went away: it ended with the
// connection.
func (r *reach) dropped(p peer.ID) {
	r.mu.Lock()
	delete(r.slots, p)
	r.mu.Unlock()
}

func (r *reach) due(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.slots[p].until) < slotRenew
}

func (r *reach) reserve(ctx context.Context, h host.Host, at peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "reserve"), slotTime)
	defer cancel()
	got, err := circuit.Reserve(ctx, h, at)
	if err != nil {
		return fmt.Errorf("reserve at %s: %w", at.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slots[at.ID] = slot{at: at, until: got.Expiration}
	return nil
}

// overCircuit is for a stream on a connection that is there already, also on
// one through a relay: that is limited in time and bytes, and enough to meet.
func overCircuit(ctx context.Context, why string) context.Context {
	return network.WithAllowLimitedConn(network.WithNoDial(ctx, why), why)
}

// connectedTo reports whether there is a connection to a peer, through a relay or
// not.
func connectedTo(h host.Host, p peer.ID) bool {
	c := h.Network().Connectedness(p)
	return c == network.Connected || c == network.Limited
}
