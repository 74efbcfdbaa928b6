package relay

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Requests from one peer or address: so many at once, then so many a second.
const (
	requestBurst = 4096
	requestRate  = 500
	maxKnown     = 65536 // addresses remembered
)

// doors bound what one address may ask for. A leaf, safe for concurrent use.
type doors struct {
	leaseRate  rate.Limit
	leaseBurst int

	mu       sync.Mutex // guards what follows
	leases   *simplelru.LRU[string, *rate.Limiter]
	requests *simplelru.LRU[string, *rate.Limiter]
}

func newDoors(c Config) doors {
	return doors{
		leaseRate: rate.Limit(c.LeaseRate), leaseBurst: c.LeaseBurst,
		leases: newLRU(), requests: newLRU(),
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
	return d.take(d.requests, from, requestRate, requestBurst, now)
}

func (d *doors) take(l *simplelru.LRU[string, *rate.Limiter], from string, perSecond rate.Limit, most int, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := l.Get(from)
	if !ok {
		b = rate.NewLimiter(perSecond, most)
		l.Add(from, b)
	}
	return b.AllowN(now, 1)
}
