package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"testing"

	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/lthash"
)

// live connects two replicas by a stream that stays.
func (w *world) live(t testing.TB, a, b *memory) (la, lb *Live, ended func() [2]error) {
	t.Helper()
	ca, cb := net.Pipe()
	opener := a.session(t, w, Initiator)
	la = NewLive(ca, opener, nil, nil)
	answer := b.session(t, w, Responder)
	lb = NewLive(cb, answer, nil, nil)
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = la.Run(t.Context()) })
	wg.Go(func() {
		if _, errs[1] = ReadOpening(cb); errs[1] == nil {
			errs[1] = lb.Run(t.Context())
		}
	})
	return la, lb, func() [2]error { wg.Wait(); return errs }
}

// TestLive: either side begins rounds on one stream, also both at once, and
// each write arrives.
func TestLive(t *testing.T) {
	w := newWorld("live")
	a, b := w.newMemory(), w.newMemory()
	a.past, b.past = new(Memory), new(Memory)
	one, two := w.newChain("one", 60, 100), w.newChain("two", 60, 100)
	la, lb, ended := w.live(t, a, b)
	if _, err := la.Lead(t.Context()); err != nil { // the first round
		t.Fatal(err)
	}
	for n := 1; n <= 30; n++ {
		var wg sync.WaitGroup
		var errs [2]error
		la.mu.Lock()
		a.with(one, n)
		la.mu.Unlock()
		lb.mu.Lock()
		b.with(two, n)
		lb.mu.Unlock()
		for i, l := range []*Live{la, lb} {
			if n%3 != i {
				wg.Go(func() { _, errs[i] = l.Lead(t.Context()) })
			}
		}
		wg.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
	}
	r, err := la.Lead(t.Context())
	if err != nil || !r.Equal || r.Count != 60 {
		t.Fatalf("%+v, %v", r, err)
	}
	la.Close()
	if errs := ended(); !errors.Is(errs[0], errClosed) || !errors.Is(errs[1], io.EOF) {
		t.Errorf("ended with %v", errs)
	}
	if !maps.Equal(a.ids(), b.ids()) {
		t.Error("not equal")
	}
	if _, err := lb.Lead(t.Context()); err == nil {
		t.Error("led on a stream that has ended")
	}
}

// TestLiveMute: waiting for a peer that says nothing ends with the waiter's
// context; the stream stays the caller's to end.
func TestLiveMute(t *testing.T) {
	w := newWorld("mute")
	a := w.newMemory()
	ca, cb := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, cb) }()
	l := NewLive(ca, a.session(t, w, Initiator), nil, nil)
	done := make(chan error, 1)
	go func() { done <- l.Run(t.Context()) }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Lead(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	l.Close()
	if err := <-done; !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}

// cost is what one round on an open stream costs, after an earlier one.
func cost(t *testing.T, w *world, a, b *memory, change func()) (ra, rb Result) {
	t.Helper()
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	bytes := 0
	x.tap = func(_ int, m Msg, frame []byte) { bytes += len(frame) - payload(m) }
	x.round()
	change()
	bytes = 0
	x.lead(1)
	x.run()
	for i := range x.side {
		if r := x.side[i].res; x.errs[i] != nil || !x.done[i] || !r.Equal || r.PeerCtl != r.Ctl {
			t.Fatalf("side %d: %v, %+v", i, x.errs[i], x.side[i].res)
		}
	}
	ra, rb = x.side[0].Result(), x.side[1].Result()
	ra.MetaBytes = int64(bytes)
	return ra, rb
}

// TestCosts: what is promised of rounds with a peer talked to before.
func TestCosts(t *testing.T) {
	w := newWorld("costs")
	var chains []*chain
	for i := range 40 {
		chains = append(chains, w.newChain(fmt.Sprint("chain ", i), 12, 100))
	}
	fill := func(n int) *memory {
		m := w.newMemory()
		m.past = new(Memory)
		long := envelope.Chain{ID: envelope.ChainID{9}, Head: envelope.Head{Seq: 999_999}, Length: 1_000_000}
		topic, err := envelope.RestoreTopic(w.topic, []envelope.Chain{long}, 1_000_000, lthash.State{})
		if err != nil {
			t.Fatal(err)
		}
		m.topic = topic
		for _, c := range chains {
			m.with(c, n)
		}
		return m
	}
	check := func(name string, r Result, bytes int64, trips int) {
		t.Helper()
		t.Logf("%s: %d bytes, %d round trips", name, r.MetaBytes, r.RoundTrips)
		if r.MetaBytes > bytes || r.RoundTrips > trips {
			t.Errorf("%s: %d bytes, %d round trips, want %d and %d", name, r.MetaBytes, r.RoundTrips, bytes, trips)
		}
	}
	a, b := fill(11), fill(11)
	r, _ := cost(t, w, a, b, func() {})
	check("equal", r, 100, 1)
	r, _ = cost(t, w, a, b, func() { b.with(chains[3], 12) })
	check("one missed here", r, 200, 1)
	r, _ = cost(t, w, a, b, func() { a.with(chains[4], 12) })
	check("one missed there", r, 200, 2)
	r, _ = cost(t, w, a, b, func() { a.with(chains[5], 12); b.with(chains[6], 12) })
	check("one missed on either side", r, 250, 2)
}

// TestTreeCosts: 100 chains behind among 10,000, with a peer never met.
func TestTreeCosts(t *testing.T) {
	w := newWorld("tree costs")
	for _, chains := range []int{1_000, 10_000} {
		a, b := w.newMemory(), w.newMemory()
		for i := range chains {
			c := w.newChain(fmt.Sprint("chain ", i), 2, 100)
			b.with(c, 2)
			if i%(chains/100) == 0 {
				a.with(c, 1)
			} else {
				a.with(c, 2)
			}
		}
		for _, leads := range []int{0, 1} {
			a, b := a.clone(), b.clone()
			x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
			if leads == 0 {
				x = newWire(t, b.session(t, w, Initiator), a.session(t, w, Responder))
			}
			bytes := int64(0)
			x.tap = func(_ int, m Msg, frame []byte) {
				if k := m.Kind(); k != KindChallenge && k != KindAuth {
					bytes += int64(len(frame) - payload(m))
				}
			}
			x.round()
			r := x.side[1].Result() // who leads the first round
			t.Logf("%d chains, behind leads %v: %d bytes, %d round trips", chains, leads == 0, bytes, r.RoundTrips)
			if !r.Equal || r.Passes != 1 || bytes > 40<<10 || r.RoundTrips > 4 || !maps.Equal(a.ids(), b.ids()) {
				t.Errorf("%d chains: %d bytes, %+v", chains, bytes, r)
			}
		}
	}
}
