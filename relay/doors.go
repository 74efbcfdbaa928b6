package relay

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"

	"github.com/kithnet/kith/space/envelope"
)

// Requests from one peer or address: so many at once, then so many a second.
const (
	requestBurst = 4096
	requestRate  = 500
	maxKnown     = 65536 // addresses remembered
)

const (
	// shareOf is what part of a lease's rate each writer key has for itself,
	// whatever others do.
	shareOf = 20
	// maxShares is how many writer keys of a topic are told apart.
	maxShares = 1024
)

// shares are the writers' own parts of a lease's rate. A leaf, safe for
// concurrent use; the zero value is empty.
type shares struct {
	mu  sync.Mutex // guards what follows
	own *simplelru.LRU[[32]byte, *rate.Limiter]
}

// of is a writer's bucket within all.
func (s *shares) of(writer [32]byte, all *rate.Limiter) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil {
		own, err := simplelru.NewLRU[[32]byte, *rate.Limiter](maxShares, nil)
		if err != nil {
			panic(err) // of a size that is not positive
		}
		s.own = own
	}
	b, ok := s.own.Get(writer)
	if !ok {
		b = rate.NewLimiter(all.Limit()/shareOf, max(1, all.Burst()/shareOf))
		s.own.Add(writer, b)
	}
	return b
}

// doors bound what one address may ask for. A leaf, safe for concurrent use.
type doors struct {
	leaseRate  rate.Limit
	leaseBurst int

	mu       sync.Mutex // guards what follows
	leases   *simplelru.LRU[string, *rate.Limiter]
	requests *simplelru.LRU[string, *rate.Limiter]
	writers  *simplelru.LRU[string, *rate.Limiter]
	readers  int
}

func newDoors(c Config) doors {
	return doors{
		leaseRate: rate.Limit(c.LeaseRate), leaseBurst: c.LeaseBurst,
		leases: newLRU(), requests: newLRU(), writers: newLRU(),
	}
}

func newLRU() *simplelru.LRU[string, *rate.Limiter] {
	l, err := simplelru.NewLRU[string, *rate.Limiter](maxKnown, nil)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	return l
}

// lease takes one new lease from an address.
func (d *doors) lease(from string, now time.Time) bool {
	return d.take(d.leases, from, d.leaseRate, d.leaseBurst, now)
}

// request takes one request from an address or peer.
func (d *doors) request(from string, now time.Time) bool {
	ok, _ := d.paced(from, now)
	return ok
}

// paced is request, and how many more may follow at once.
func (d *doors) paced(from string, now time.Time) (ok bool, left int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.bucket(d.requests, from, requestRate, requestBurst)
	ok = b.AllowN(now, 1)
	return ok, int(max(0, b.TokensAt(now)))
}

// write takes n envelopes from the quota of a writer key: so many a second, ten
// times that at once.
func (d *doors) write(c *envelope.Certificate, perSecond float64, n int, now time.Time) bool {
	key := c.WriterKey()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bucket(d.writers, string(key[:]), rate.Limit(perSecond), max(1, int(burst*perSecond))).AllowN(now, n)
}

// reader counts who has a subscription open; false: too many.
func (d *doors) reader(n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers+n > maxReaders {
		return false
	}
	d.readers += n
	return true
}

func (d *doors) take(l *simplelru.LRU[string, *rate.Limiter], from string, perSecond rate.Limit, most int, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bucket(l, from, perSecond, most).AllowN(now, 1)
}

// bucket needs the lock.
func (d *doors) bucket(l *simplelru.LRU[string, *rate.Limiter], from string, perSecond rate.Limit, most int) *rate.Limiter {
	b, ok := l.Get(from)
	if !ok {
		b = rate.NewLimiter(perSecond, most)
		l.Add(from, b)
	}
	return b
}
