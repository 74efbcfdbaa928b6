package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// S1: who lacks the fetch key gets nothing but an error, and an answer to one
// nonce is worth nothing elsewhere. TestStrangers has every variant.
func TestS1NothingWithoutTheKey(t *testing.T) {
	w := newWorld("s1")
	a, b := w.newMemory(), w.newMemory().with(w.newChain("one", 3, 100), 3)
	var replay Msg
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	x.tap = func(from int, m Msg, _ []byte) {
		if from == 0 && m.Kind() == KindAuth {
			replay = m
		}
	}
	x.round()
	cfg := b.config(w, Responder)
	cfg.Nonce[0] ^= 1
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(); err != nil {
		t.Fatal(err)
	}
	out, _, err := s.Step(replay)
	if !errors.Is(err, ErrAuth) || len(out) > 0 {
		t.Errorf("replayed answer: %v, said %d messages", err, len(out))
	}
}

// S2: a peer that echoes our digest is believed about itself and nobody else:
// the next peer's digest differs and brings what it hid.
func TestS2EchoedDigest(t *testing.T) {
	w := newWorld("s2")
	one := w.newChain("one", 20, 100)
	a, liar, honest := w.newMemory().with(one, 10), w.newMemory().with(one, 20), w.newMemory().with(one, 20)
	a.past = new(Memory)
	x := newWire(t, liar.session(t, w, Initiator), a.session(t, w, Responder))
	x.bend = func(from int, m Msg) []Msg {
		if from == 0 && m.Kind() != KindAuth && m.Kind() != KindChallenge {
			return nil
		}
		if m.Kind() == KindBeacon {
			x.ways[0] = append(x.ways[0], Done{Past: PastNone})
			return nil
		}
		return []Msg{m}
	}
	x.start()
	x.run()
	if r := x.side[1].Result(); !r.Equal || r.Count != 10 {
		t.Fatalf("the lie did not pass: %+v, %v", r, x.errs)
	}
	x = newWire(t, a.session(t, w, Initiator), honest.session(t, w, Responder))
	if r, _ := x.round(); !r.Equal || r.Count != 20 || r.Received != 10 {
		t.Errorf("%+v", r)
	}
}

// S4: a frontier of 10^7 chains, or with doubled or unsorted ones, is an error
// after at most 100,000.
func TestS4Frontiers(t *testing.T) {
	w := newWorld("s4")
	for name, pages := range map[string]func(i int) Frontier{
		"10^7":     func(i int) Frontier { return manyChains(MaxPage, i*MaxPage, false) },
		"doubled":  func(i int) Frontier { return manyChains(2, 0, false) },
		"unsorted": func(i int) Frontier { return manyChains(1, 10-i, false) },
	} {
		s := w.newMemory().session(t, w, Initiator)
		if _, err := s.Start(); err != nil {
			t.Fatal(err)
		}
		s.phase = idle
		if err := s.consume(Beacon{Log: s.logTag(newCtlLog(3).head()), Count: 9}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for s.err == nil && n < 10_000 {
			_ = s.consume(pages(n))
			n++
		}
		if !errors.Is(s.err, ErrFrontier) || !errors.Is(s.err, ErrPeer) || n > MaxChains/MaxPage+1 {
			t.Errorf("%s: %v after %d pages", name, s.err, n)
		}
	}
}

// S5: who asks for everything gets what a round serves, and asks again.
func TestS5WantsAll(t *testing.T) {
	w := newWorld("s5")
	one := w.newChain("one", 30, 100)
	a, b := w.newMemory(), w.newMemory().with(one, 30)
	b.maxRun = 1
	cfg := b.config(w, Responder)
	cfg.MaxServe = 2_000
	sb, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x := newWire(t, a.session(t, w, Initiator), sb)
	_, rb := x.round()
	if max := int64(maxPasses * (2_000 + 1_000)); rb.Equal || rb.PayloadBytes > max {
		t.Errorf("served %d bytes in one round, at most %d", rb.PayloadBytes, max)
	}
	x = newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	x.bend = bending(func(m Want) []Msg {
		if len(m.Ranges) > 0 {
			m.Ranges[0].To = 1<<63 - 1
		}
		return []Msg{m}
	})
	x.start()
	x.run()
	if !errors.Is(x.errs[1], ErrWant) {
		t.Errorf("beyond the head: %v", x.errs[1])
	}
}

// S7: a peer that leaves out the middle of a chain gives a beginning; the next
// one gives the rest.
func TestS7Withheld(t *testing.T) {
	w := newWorld("s7")
	one := w.newChain("one", 20, 100)
	a, b, c := w.newMemory(), w.newMemory().with(one, 20), w.newMemory().with(one, 20)
	b.maxRun = 5
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	x.bend = func(from int, m Msg) []Msg {
		if run, ok := m.(Envelopes); ok && from == 1 && run.Run[0].Seq() >= 5 && run.Run[0].Seq() < 10 {
			return nil
		}
		return []Msg{m}
	}
	x.start()
	x.run()
	if len(a.envs[one.id]) != 5 || x.side[0].Result().Equal {
		t.Fatalf("holds %d, %+v", len(a.envs[one.id]), x.side[0].Result())
	}
	x = newWire(t, a.session(t, w, Initiator), c.session(t, w, Responder))
	if r, _ := x.round(); !r.Equal || !maps.Equal(a.ids(), c.ids()) {
		t.Errorf("%+v", r)
	}
}

// TestBadSteps: what a peer can do wrong in a vector and in a descent.
func TestBadSteps(t *testing.T) {
	w := newWorld("bad steps")
	one, two := w.newChain("one", 6, 100), w.newChain("two", 6, 100)
	var more []*chain
	for i := range 30 {
		more = append(more, w.newChain(fmt.Sprint("more ", i), 2, 100))
	}
	tree := func(change func(m *Tree)) func(int, Msg) []Msg {
		return bending(func(m Tree) []Msg { change(&m); return []Msg{m} })
	}
	vector := func(change func(m *Vector)) func(int, Msg) []Msg {
		return bending(func(m Vector) []Msg { change(&m); return []Msg{m} })
	}
	for _, c := range []struct {
		name string
		bend func(int, Msg) []Msg
		want error
	}{
		{"index beyond the base", vector(func(m *Vector) { m.Changes[0].Index = 99 }), ErrFrontier},
		{"fresh chain of the base", vector(func(m *Vector) { m.Fresh = []FreshChain{{Chain: one.id}} }), ErrFrontier},
		{"changes doubled", vector(func(m *Vector) { m.Changes = append(m.Changes, m.Changes...) }), ErrFrontier},
		{"too many changes", vector(func(m *Vector) { m.Changes = make([]Change, MaxChanges+1) }), space.ErrTooLarge},
		{"a digest cut short", vector(func(m *Vector) { m.Digest = m.Digest[:8] }), space.ErrMalformed},
		{"equal and yet a vector", vector(func(m *Vector) { m.Count, m.Digest = 0, []byte{}; m.Changes = []Change{} }), ErrVerdict},
		{"vector twice", bending(func(m Vector) []Msg { return []Msg{m, m} }), ErrOrder},
		{"runs not owed", bending(func(m Vector) []Msg { return []Msg{m, Envelopes{Cert: &two.cert, Run: two.envs[:1]}} }), ErrUnasked},
		{"want in a vector pass", bending(func(m Vector) []Msg { return []Msg{m, Want{Ranges: []Range{}, Last: true}} }), ErrOrder},
		{"tree without a mask", tree(func(m *Tree) { m.Mask = []byte{} }), space.ErrMalformed},
		{"tree with a long mask", tree(func(m *Tree) { m.Mask = append(m.Mask, 0) }), space.ErrMalformed},
		{"tree too deep", tree(func(m *Tree) { m.Depth = maxDepth + 1 }), space.ErrMalformed},
		{"tree without tags", tree(func(m *Tree) { m.Tags = []byte{} }), space.ErrMalformed},
		{"tree with a tag missing", tree(func(m *Tree) { m.Tags = m.Tags[8:] }), space.ErrMalformed},
		{"tree of pages without end", tree(func(m *Tree) { m.Last = false }), space.ErrMalformed},
		{"tree twice", bending(func(m Tree) []Msg { return []Msg{m, m} }), ErrOrder},
		{"frontier elsewhere", nil, ErrFrontier},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := w.newMemory().with(one, 3), w.newMemory().with(one, 3)
			for i, m := range more {
				a.with(m, 2)
				b.with(m, 1+i%2)
			}
			descends := c.name[:4] == "tree" || c.bend == nil
			if descends {
				a.minTree, b.minTree = 3, 3
			} else {
				a, b = w.newMemory().with(one, 3), w.newMemory().with(one, 3)
				a.past, b.past = new(Memory), new(Memory)
			}
			// a leads; b is bent.
			x := newWire(t, b.session(t, w, Initiator), a.session(t, w, Responder))
			if !descends {
				x.round()
				b.with(one, 6)
			}
			bend := c.bend
			if bend == nil {
				bend = bending(func(m Frontier) []Msg {
					return []Msg{Frontier{Chains: []ChainHead{{Chain: envelope.ChainID{1}}}, Last: true}}
				})
			}
			x.bend = func(from int, m Msg) []Msg {
				if from == 1 {
					return []Msg{m}
				}
				return bend(from, m)
			}
			if descends {
				x.start()
			} else {
				x.lead(2)
			}
			x.run()
			if !errors.Is(x.errs[1], c.want) || !errors.Is(x.errs[1], ErrPeer) {
				t.Errorf("got %v, want %v", x.errs[1], c.want)
			}
		})
	}
}
