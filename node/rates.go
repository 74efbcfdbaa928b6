package node

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Rates bound what a node spends on the sync streams of its peers, in bytes a
// second, both ways. Zero fields take the value documented.
type Rates struct {
	// PerPeer is one peer's share: 256 MiB/s.
	PerPeer int64
	// Total is what all peers share, in equal parts among those that move
	// something at the time: 512 MiB/s.
	Total int64
}

func (r Rates) withDefaults() Rates {
	if r.PerPeer == 0 {
		r.PerPeer = 256 << 20
	}
	if r.Total == 0 {
		r.Total = 512 << 20
	}
	return r
}

const (
	// rateBurst is how long a peer that was idle may go at any speed.
	rateBurst = time.Second / 4
	// maxDebt is how far a share runs ahead. A stream that would have to wait
	// longer ends.
	maxDebt = 10 * time.Second
	// openBytes is what a stream costs its opener beyond its bytes: two
	// signatures and some hashing.
	openBytes = 32 << 10
	// activeFor is how long a peer counts as active after its last byte.
	activeFor = time.Second
	// maxShares is from how many peers on idle ones are forgotten.
	maxShares = 1024
)

var errOverShare = errors.New("more streams at once than the peer's share of the node's bandwidth serves")

// rates are the shares of all peers: token buckets that run ahead, so that who
// takes more waits longer, up to maxDebt. However many streams a peer
// has, they draw on its one share. A leaf; the time is an argument.
type rates struct {
	limit Rates

	mu     sync.Mutex // guards what follows
	peers  map[peer.ID]*share
	active int       // peers that moved something within activeFor, as of
	as     time.Time // this time
	counts rateCounts
}

// share is one peer's.
type share struct {
	paid time.Time // until then its share is used
	last time.Time
	traffic
}

// traffic is how many bytes ever came from a peer and went to it.
type traffic struct{ in, out uint64 }

func (t traffic) sum() uint64 { return t.in + t.out }

func newRates(limit Rates) *rates {
	return &rates{limit: limit.withDefaults(), peers: map[peer.ID]*share{}}
}

// take uses cost bytes of a peer's share, and notes what went over the wire.
// It says how long to wait: before what is sent, after what was read. The error
// is errOverShare.
func (r *rates) take(p peer.ID, cost int, went traffic, now time.Time) (time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[p]
	if s == nil {
		if len(r.peers) >= maxShares {
			r.prune(now)
		}
		s = &share{}
		r.peers[p] = s
	}
	if now.Sub(s.last) >= activeFor && now.Sub(r.as) < activeFor {
		r.active++
	}
	s.last = now
	s.in += went.in
	s.out += went.out
	if idle := now.Add(-rateBurst); s.paid.Before(idle) {
		s.paid = idle
	}
	if s.paid.Sub(now) > maxDebt {
		r.counts.Refused++
		return 0, errOverShare
	}
	s.paid = s.paid.Add(time.Duration(float64(cost) / r.rate(now) * float64(time.Second)))
	wait := max(0, s.paid.Sub(now))
	if wait > 0 {
		r.counts.Waits++
		r.counts.Waited += wait
	}
	return wait, nil
}

// rate is what one peer may use now, in bytes a second. mu is held.
func (r *rates) rate(now time.Time) float64 {
	if now.Sub(r.as) >= activeFor || r.active < 1 {
		r.as, r.active = now, 0
		for _, s := range r.peers {
			if now.Sub(s.last) < activeFor {
				r.active++
			}
		}
	}
	return min(float64(r.limit.PerPeer), float64(r.limit.Total)/float64(max(1, r.active)))
}

// prune forgets peers that are idle. mu is held.
func (r *rates) prune(now time.Time) {
	for p, s := range r.peers {
		if now.Sub(s.last) > time.Minute {
			delete(r.peers, p)
		}
	}
}

// moved is what went between a peer and here, while it is remembered.
func (r *rates) moved(p peer.ID) traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.peers[p]; s != nil {
		return s.traffic
	}
	return traffic{}
}

// rateCounts count what the shares did to streams. They only rise.
type rateCounts struct {
	Waits   uint64
	Waited  time.Duration
	Refused uint64 // ended: too far ahead of their peer's share
}

func (r *rates) counters() rateCounts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// paced is a stream that keeps to its peer's share.
type paced struct {
	network.Stream
	rates *rates
	peer  peer.ID
}

// pace puts a stream under its peer's share.
func (r *rates) pace(s network.Stream) *paced {
	return &paced{Stream: s, rates: r, peer: s.Conn().RemotePeer()}
}

// opened charges a peer for a stream that it opened.
func (p *paced) opened() error { return p.pay(openBytes, traffic{}) }

// pay waits until the share allows what something costs.
func (p *paced) pay(cost int, went traffic) error {
	d, err := p.rates.take(p.peer, cost, went, time.Now())
	if d > 0 {
		<-time.After(d)
	}
	return err
}

func (p *paced) Write(b []byte) (int, error) {
	if err := p.pay(len(b), traffic{out: uint64(len(b))}); err != nil {
		return 0, err
	}
	return p.Stream.Write(b)
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.Stream.Read(b)
	return n, cmp.Or(err, p.pay(n, traffic{in: uint64(n)}))
}
