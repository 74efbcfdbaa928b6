package gossip

import (
	"math"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Tuning of what faults cost. A fault is a frame that was rejected, a message
// that names an author, a message beyond the size limit, or what the node
// blames a peer for.
const (
	// faultHalf is how long it takes to forget half of a peer's faults.
	faultHalf = 10 * time.Minute
	// maxFaults is the most that is held against a peer: after the last fault
	// it is graylisted for half an hour.
	maxFaults = 24
	// faultWeight is the price of n faults: faultWeight · n².
	faultWeight = -10
	// minFaults is what is forgotten altogether.
	minFaults = 0.01
	maxPeers  = 4096

	streamsPerSecond = 1  // pubsub streams that a peer may open
	streamsAtOnce    = 30 // and how many of them at once
)

// conduct is what peers did wrong, in all topics together: a peer that spreads
// its faults over many topics, or comes back under the same name, is no better
// for it. There is nothing that a peer could earn. The zero value is not
// usable; safe for concurrent use.
type conduct struct {
	demoted func(peer.ID) // of a peer that gets graylisted; called without mu

	mu      sync.Mutex // guards what follows
	records *simplelru.LRU[peer.ID, fault]
	streams *simplelru.LRU[peer.ID, tokens]
}

// fault is how many faults a peer had at a time.
type fault struct {
	faults float64
	at     time.Time
}

func (r fault) now(now time.Time) float64 {
	f := r.faults * math.Exp2(-max(0, now.Sub(r.at).Seconds())/faultHalf.Seconds())
	if f < minFaults {
		return 0
	}
	return f
}

// price is the score of a number of faults: 0 or less.
func price(faults float64) float64 {
	if faults <= 0 {
		return 0 // and not minus zero
	}
	return faultWeight * faults * faults
}

// tokens is a token bucket.
type tokens struct {
	used float64
	at   time.Time
}

func newConduct(demoted func(peer.ID)) *conduct {
	if demoted == nil {
		demoted = func(peer.ID) {}
	}
	return &conduct{
		demoted: demoted, records: newLRU[peer.ID, fault](maxPeers), streams: newLRU[peer.ID, tokens](maxPeers),
	}
}

// blame notes faults of a peer.
func (c *conduct) blame(p peer.ID, faults float64, now time.Time) {
	c.mu.Lock()
	r, _ := c.records.Get(p)
	before := r.now(now)
	after := min(maxFaults, before+faults)
	c.records.Add(p, fault{after, now})
	c.mu.Unlock()
	if price(before) >= graylist && price(after) < graylist {
		c.demoted(p)
	}
}

// score is 0 for who did nothing wrong, and less for others.
func (c *conduct) score(p peer.ID, now time.Time) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records.Len() == 0 {
		return 0
	}
	r, ok := c.records.Get(p)
	if !ok {
		return 0
	}
	return price(r.now(now))
}

// shunned reports whether nothing of a peer is read any more.
func (c *conduct) shunned(p peer.ID, now time.Time) bool { return c.score(p, now) < graylist }

// opens reports whether a peer may open one more pubsub stream.
func (c *conduct) opens(p peer.ID, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, _ := c.streams.Get(p)
	t.used = max(0, t.used-streamsPerSecond*now.Sub(t.at).Seconds())
	t.at = now
	ok := t.used+1 <= streamsAtOnce
	if ok {
		t.used++
	}
	c.streams.Add(p, t)
	return ok
}
