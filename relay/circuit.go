package relay

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"
)

// The limits of circuits. A circuit is for meeting: a join, a proposal, the
// signalling of a hole punch. What is to be kept goes through the relay's store.
const (
	circuitTime     = 10 * time.Minute // a circuit is cut after this
	circuitBytes    = 16 << 20         // and after this many bytes in a direction
	circuitSlots    = 4096             // peers that can be reached through the relay at one time
	circuitsOfPeer  = 32               // open to one of them at one time
	circuitSlotsIP  = 64               // of peers with one IP address
	circuitSlotTime = time.Hour        // a reservation ends unless it is renewed
)

// ServeCircuits lets peers reach each other through h (circuit relay v2,
// https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md) until it is
// closed. Only a peer that known vouches for, such as one that holds a lease,
// can be reached; anybody can be the one who reaches, for a newcomer is known
// to nobody. known is called from many goroutines.
func ServeCircuits(h host.Host, known func(peer.ID) bool) (io.Closer, error) {
	limits := circuit.DefaultResources()
	limits.Limit = &circuit.RelayLimit{Duration: circuitTime, Data: circuitBytes}
	limits.ReservationTTL, limits.MaxReservations, limits.MaxCircuits = circuitSlotTime, circuitSlots, circuitsOfPeer
	limits.MaxReservationsPerIP, limits.MaxReservationsPerASN = circuitSlotsIP, circuitSlots
	r, err := circuit.New(h, circuit.WithACL(acl(known)), circuit.WithResources(limits))
	if err != nil {
		return nil, fmt.Errorf("serve circuits: %w", err)
	}
	return r, nil
}

// acl lets those be reached whom known vouches for.
type acl func(peer.ID) bool

var _ circuit.ACLFilter = acl(nil)

func (known acl) AllowReserve(p peer.ID, _ multiaddr.Multiaddr) bool { return known(p) }

func (known acl) AllowConnect(peer.ID, multiaddr.Multiaddr, peer.ID) bool { return true }

// maxGuests is how many peers are remembered for having leased something.
const maxGuests = 65536

// guests are the peers that have proved since the start that they hold a key
// of some leased topic; which one is forgotten. A leaf, safe for concurrent use.
type guests struct {
	mu   *sync.Mutex // guards what follows
	seen *simplelru.LRU[peer.ID, struct{}]
}

func newGuests() guests {
	l, err := simplelru.NewLRU[peer.ID, struct{}](maxGuests, nil)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	return guests{mu: new(sync.Mutex), seen: l}
}

func (g guests) add(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen.Add(p, struct{}{})
}

func (g guests) has(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.seen.Get(p)
	return ok
}
