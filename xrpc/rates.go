package xrpc

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// Rate is how many requests a caller may make in a window of time. The
// owner's own token is not counted.
type Rate struct {
	Limit  int
	Window time.Duration
}

// The standards: of one token, and of one address that shows none.
const (
	tokenLimit   = 3000
	tokenWindow  = 5 * time.Minute
	nobodyLimit  = 600
	nobodyWindow = time.Minute
)

// maxCounted bounds the callers that are counted one by one. Those beyond
// share one count.
const maxCounted = 10_000

// or is r, or the standard where it says nothing.
func (r Rate) or(limit int, window time.Duration) Rate {
	if r.Limit == 0 {
		return Rate{limit, window}
	}
	return r
}

// rates counts requests by caller. The zero value counts from nothing.
type rates struct {
	mu     sync.Mutex // guards what follows
	counts map[string]*count
	swept  time.Time
}

// count is the window that a caller is in.
type count struct {
	used  int
	until time.Time
}

// take counts one request: how many are left, and when the window ends. It
// refuses those beyond the limit, which count for nothing.
func (rs *rates) take(key string, r Rate, now time.Time) (left int, until time.Time, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.counts == nil {
		rs.counts = map[string]*count{}
	}
	c := rs.counts[key]
	if c == nil {
		if len(rs.counts) >= maxCounted && now.Sub(rs.swept) >= time.Second {
			rs.sweep(now)
		}
		if len(rs.counts) >= maxCounted {
			key = ""
			c = rs.counts[key]
		}
	}
	if c == nil {
		c = &count{}
		rs.counts[key] = c
	}
	if !now.Before(c.until) {
		c.used, c.until = 0, now.Add(r.Window)
	}
	if c.used >= r.Limit {
		return 0, c.until, false
	}
	c.used++
	return r.Limit - c.used, c.until, true
}

// sweep forgets the windows that are over.
func (rs *rates) sweep(now time.Time) {
	rs.swept = now
	for key, c := range rs.counts {
		if !now.Before(c.until) {
			delete(rs.counts, key)
		}
	}
}

// rate counts the request and says so in the answer's head.
func (c *call) rate(nobody bool) error {
	if c.caller.full {
		return nil
	}
	r, key := c.s.TokenRate.or(tokenLimit, tokenWindow), "token "+c.caller.ID
	if nobody {
		r, key = c.s.NobodyRate.or(nobodyLimit, nobodyWindow), "address "+addressOf(c.r.RemoteAddr)
	}
	now := time.Now()
	left, until, ok := c.s.rates.take(key, r, now)
	wait := max(1, int(until.Sub(now).Seconds()+0.999))
	h := c.w.Header()
	h.Set("RateLimit-Limit", strconv.Itoa(r.Limit))
	h.Set("RateLimit-Remaining", strconv.Itoa(left))
	h.Set("RateLimit-Reset", strconv.FormatInt(until.Unix(), 10))
	h.Set("RateLimit-Policy", fmt.Sprintf("%d;w=%d", r.Limit, int(r.Window.Seconds())))
	if !ok {
		h.Set("Retry-After", strconv.Itoa(wait))
		return faultf(errRate, "more than %d requests in %s; go on in %d s", r.Limit, r.Window, wait)
	}
	return nil
}

// addressOf is the address without its port; IPv6 by its network of 64 bits,
// all of which one person has.
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.To4() != nil {
		return host
	}
	return ip.Mask(net.CIDRMask(64, 128)).String()
}
