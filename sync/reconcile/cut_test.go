package reconcile

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// limited is a connection that ends for both after so many bytes, both ways
// together, like one over a relay of libp2p.
type limited struct {
	net.Conn
	left *budget
}

type budget struct {
	mu   sync.Mutex // guards what follows
	n    int
	both [2]net.Conn
}

func (l limited) Write(b []byte) (int, error) {
	l.left.mu.Lock()
	n := min(len(b), l.left.n)
	l.left.n -= n
	l.left.mu.Unlock()
	m, err := l.Conn.Write(b[:n])
	if err == nil && n < len(b) {
		for _, c := range l.left.both {
			c.Close()
		}
		err = io.ErrShortWrite
	}
	return m, err
}

// overLimit runs one session that is cut after n bytes.
func overLimit(w *world, a, b *memory, maxRun, n int) (Result, error) {
	ca, cb := net.Pipe()
	left := &budget{n: n, both: [2]net.Conn{ca, cb}}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		defer cb.Close()
		open, err := ReadOpening(cb)
		if err != nil {
			return
		}
		cfg := b.config(w, Responder)
		cfg.Opening, cfg.MaxRun = open, maxRun
		s, err := New(cfg)
		if err == nil {
			b.tune(s)
			_, _ = Run(context.Background(), limited{cb, left}, s)
		}
	}()
	s := a.mustSession(w, Initiator)
	res, err := Run(context.Background(), limited{ca, left}, s)
	ca.Close()
	<-answered
	return res, err
}

// heavyPool is chains of 300 KB and 1.2 MB.
var heavyPool = sync.OnceValues(func() (*world, []*chain) {
	w := newWorld("heavy")
	return w, []*chain{w.newChain("many", 600, 100), w.newChain("large", 24, 50_000)}
})

// TestCutAfter128KiB: over connections that end after 128 KiB an empty replica
// becomes equal: each brings something, and nothing that was stored comes again.
func TestCutAfter128KiB(t *testing.T) {
	const limit = 128 << 10
	w, chains := heavyPool()
	for _, segment := range []uint64{0, 16} {
		a, b := w.newMemory(), w.newMemory().with(chains[0], 600).with(chains[1], 24)
		a.segment, b.segment = segment, segment
		sessions, had := 0, uint64(0)
		for ; ; sessions++ {
			res, err := overLimit(w, a, b, 16<<10, limit)
			if res.Duplicate > 0 {
				t.Fatalf("session %d: %d envelopes came again", sessions, res.Duplicate)
			}
			if err == nil && res.Equal {
				break
			}
			if a.topic.Count() == had {
				t.Fatalf("session %d brought nothing: %+v, %v", sessions, res, err)
			}
			had = a.topic.Count()
		}
		if a.topic.Digest() != b.topic.Digest() {
			t.Fatal("not equal")
		}
		if sessions < 10 || sessions > 20 {
			t.Errorf("%d sessions of 128 KiB for 1.5 MB", sessions)
		}
	}
}

// crowdPool is many chains of one envelope.
var crowdPool = sync.OnceValues(func() (*world, []*chain) {
	w := newWorld("crowd")
	chains := make([]*chain, 5000)
	for i := range chains {
		chains[i] = w.newChain(fmt.Sprint("one of many ", i), 1, 100)
	}
	return w, chains
})

// TestManyChainsOver128KiB: to name 5,000 chains takes twice what a connection
// carries that ends after 128 KiB. Over such ones an empty replica, and one that
// has every third chain and one of its own, become equal nevertheless: none but
// the last few fail to bring many.
func TestManyChainsOver128KiB(t *testing.T) {
	const limit, most = 128 << 10, 120
	w, chains := crowdPool()
	for _, own := range []int{0, 1700} {
		a, b := w.newMemory(), w.newMemory()
		for i, c := range chains {
			if own > 0 && i%3 == 0 {
				a.with(c, 1)
			}
			if own == 0 || i > 0 {
				b.with(c, 1)
			}
		}
		a.named, b.named = 128, 128
		sessions := 0
		for ; a.topic.Digest() != b.topic.Digest(); sessions++ {
			if sessions == most {
				t.Fatalf("own %d: %d and %d envelopes after %d connections", own, a.topic.Count(), b.topic.Count(), sessions)
			}
			a.nonce, b.nonce = fmt.Sprint(sessions), fmt.Sprint(sessions)
			res, err := overLimit(w, a, b, 16<<10, limit)
			if res.Duplicate > 0 || err == nil && res.Stalled {
				t.Fatalf("connection %d: %+v, %v", sessions, res, err)
			}
		}
		if a.topic.Count() != uint64(len(chains)) {
			t.Fatalf("own %d: equal at %d chains", own, a.topic.Count())
		}
		t.Logf("own %d: equal after %d connections", own, sessions)
	}
}

// TestCutAnywhere: cut after any number of bytes, a session leaves both sides
// with what had come whole, and the next goes on from there.
func TestCutAnywhere(t *testing.T) {
	w, chains := longPool()
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawLong(t, w, chains, "a"), drawLong(t, w, chains, "b")
		a.segment = rapid.SampledFrom([]uint64{0, 5}).Draw(t, "segment")
		b.segment = a.segment
		for range rapid.IntRange(1, 6).Draw(t, "cuts") {
			before := [2]uint64{a.topic.Count(), b.topic.Count()}
			res, err := overLimit(w, a, b, 0, rapid.IntRange(0, 40_000).Draw(t, "bytes"))
			if res.Duplicate > 0 || err == nil && !res.Equal {
				t.Fatalf("%+v, %v", res, err)
			}
			if got := a.topic.Count() - before[0]; got != uint64(res.Received) {
				t.Fatalf("%d envelopes stayed of %d", got, res.Received)
			}
		}
		if res, err := overLimit(w, a, b, 0, 1<<30); err != nil || !res.Equal || a.topic.Digest() != b.topic.Digest() {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}
