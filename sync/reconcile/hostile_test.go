package reconcile

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// TestBadPeer: the responder deviates; the initiator, who lacks and has
// envelopes, ends with the error, blames the peer and keeps its replica sound.
func TestBadPeer(t *testing.T) {
	w, other := newWorld("adversary"), newWorld("elsewhere")
	one, two := w.newChain("one", 6, 100), w.newChain("two", 6, 100)
	alien := other.newChain("two", 5, 100)
	ids := []envelope.ChainID{one.id, two.id}
	slices.SortFunc(ids, compareChains)
	again := func(m Msg) []Msg { return []Msg{m, m} }
	cases := []struct {
		name string
		bend func(int, Msg) []Msg
		want error
	}{
		{"auth twice", bending(func(m Auth) []Msg { return again(m) }), ErrOrder},
		{"beacon twice", bending(func(m Beacon) []Msg { return again(m) }), ErrOrder},
		{"control instead", bending(func(m Beacon) []Msg { return []Msg{Control{}} }), ErrOrder},
		{"vector instead", bending(func(m Beacon) []Msg {
			return []Msg{Vector{Digest: []byte{}, Changes: []Change{}, Fresh: []FreshChain{}}}
		}), ErrOrder},
		{"tree instead", onlyFirst(func(m Frontier) []Msg { return []Msg{Tree{Depth: 2, Mask: []byte{1, 0}, Tags: []byte{}, Last: true}} }), ErrOrder},
		{"frontier twice", onlyFirst(func(m Frontier) []Msg { return again(m) }), ErrOrder},
		{"want twice", onlyFirst(func(m Want) []Msg { return again(m) }), ErrOrder},
		{"served twice", onlyFirst(func(m Served) []Msg { return again(m) }), ErrOrder},
		{"done early", onlyFirst(func(m Frontier) []Msg { return []Msg{m, Done{}} }), ErrOrder},
		{"no auth", bending(func(m Auth) []Msg { return []Msg{Control{}} }), ErrOrder},
		{"digest before served", onlyFirst(func(m Want) []Msg { return []Msg{m, Digest{Epoch: 7}} }), ErrOrder},
		{"digest before our served", func(_ int, m Msg) []Msg {
			switch m.(type) {
			case Want: // so that we cannot have served
				return nil
			case Served:
				return []Msg{m, Digest{Epoch: 7}}
			}
			return []Msg{m}
		}, ErrOrder},
		{"served before frontier", onlyFirst(func(m Frontier) []Msg { return []Msg{Served{}} }), ErrOrder},
		{"page unannounced", bending(func(m Beacon) []Msg { return []Msg{m, ControlPage{Chunk: []byte{1}, Last: true}} }), ErrOrder},

		{"another topic", bending(func(m Challenge) []Msg { m.Topic[0] ^= 1; return []Msg{m} }), ErrAuth},
		{"another version", bending(func(m Challenge) []Msg { m.Version = 1; return []Msg{m} }), space.ErrUnsupported},
		{"another epoch", bending(func(m Digest) []Msg { m.Epoch++; return []Msg{m} }), space.ErrMalformed},

		{"frontier unsorted", bending(func(m Frontier) []Msg { slices.Reverse(m.Chains); return []Msg{m} }), ErrFrontier},
		{"frontier doubled", bending(func(m Frontier) []Msg {
			m.Chains = append(m.Chains, m.Chains[len(m.Chains)-1])
			return []Msg{m}
		}), ErrFrontier},
		{"frontier doubled over pages", bending(func(m Frontier) []Msg {
			first := Frontier{Chains: m.Chains}
			return []Msg{first, m}
		}), ErrFrontier},
		{"frontier without end", bending(func(Frontier) []Msg {
			var out []Msg
			for i := range MaxChains/MaxPage + 1 {
				out = append(out, manyChains(MaxPage, i*MaxPage, false))
			}
			return out
		}), ErrFrontier},
		{"frontier of empty pages", bending(func(Frontier) []Msg { return []Msg{Frontier{Chains: []ChainHead{}}} }), space.ErrMalformed},
		{"frontier page too long", bending(func(Frontier) []Msg { return []Msg{manyChains(MaxPage+1, 0, true)} }), space.ErrTooLarge},

		{"want beyond", bending(func(m Want) []Msg { m.Ranges[0].To = 6; return []Msg{m} }), ErrWant},
		{"want everything", bending(func(m Want) []Msg { m.Ranges[0].From, m.Ranges[0].To = 0, 1<<63-1; return []Msg{m} }), ErrWant},
		{"want backwards", bending(func(m Want) []Msg { m.Ranges[0].From, m.Ranges[0].To = 4, 3; return []Msg{m} }), ErrWant},
		{"want unknown chain", bending(func(m Want) []Msg { m.Ranges[0].Chain[5] ^= 1; return []Msg{m} }), ErrWant},
		{"want doubled", bending(func(m Want) []Msg { m.Ranges = append(m.Ranges, m.Ranges...); return []Msg{m} }), ErrWant},
		{"want unsorted", bending(func(Want) []Msg {
			return []Msg{Want{Ranges: []Range{{Chain: ids[1]}, {Chain: ids[0]}}, Last: true}}
		}), ErrWant},

		{"run of another chain", onlyFirst(func(Envelopes) []Msg { return []Msg{Envelopes{Cert: &one.cert, Run: one.envs[:2]}} }), ErrUnasked},
		{"run of another topic", onlyFirst(func(Envelopes) []Msg { return []Msg{Envelopes{Run: alien.envs[3:]}} }), ErrUnasked},
		{"run below what was asked", onlyFirst(func(Envelopes) []Msg { return []Msg{Envelopes{Run: two.envs[2:5]}} }), ErrUnasked},
		{"run with a hole", onlyFirst(func(Envelopes) []Msg { return []Msg{Envelopes{Run: two.envs[4:]}} }), ErrUnasked},
		{"run beyond what was stated", onlyFirst(func(Envelopes) []Msg { return []Msg{Envelopes{Run: two.envs[3:]}} }), ErrUnasked},
		{"run twice", onlyFirst(func(m Envelopes) []Msg { return again(m) }), ErrUnasked},
		{"run after served", onlyFirst(func(m Served) []Msg { return []Msg{m, Envelopes{Run: two.envs[3:5]}} }), ErrUnasked},
		{"run after an early served", onlyFirst(func(m Envelopes) []Msg { return []Msg{Served{}, m} }), ErrUnasked},
		{"run before frontier", onlyFirst(func(m Frontier) []Msg { return []Msg{Envelopes{Run: two.envs[3:5]}} }), ErrUnasked},
		{"run signed badly", onlyFirst(func(m Envelopes) []Msg {
			return []Msg{Envelopes{Run: []envelope.Envelope{m.Run[0], flip(m.Run[1], -1)}}}
		}), space.ErrForged},
		{"run linked badly", onlyFirst(func(m Envelopes) []Msg {
			return []Msg{Envelopes{Run: []envelope.Envelope{flip(m.Run[0], 200), m.Run[1]}}}
		}), space.ErrForged},

		{"done after runs", bending(func(m Digest) []Msg { return []Msg{Done{}} }), ErrOrder},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, b := w.newMemory().with(one, 6).with(two, 3), w.newMemory().with(one, 2).with(two, 5)
			before := a.ids()
			x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
			bend := c.bend
			x.bend = func(from int, m Msg) []Msg {
				if from == 0 {
					return []Msg{m}
				}
				return bend(from, m)
			}
			x.start()
			x.run()
			if !errors.Is(x.errs[0], c.want) || !errors.Is(x.errs[0], ErrPeer) {
				t.Fatalf("got %v, want %v by the peer", x.errs[0], c.want)
			}
			if x.done[0] || x.side[0].Result().Equal {
				t.Error("done all the same")
			}
			for id := range before {
				if !a.ids()[id] {
					t.Error("lost an envelope")
				}
			}
			if x.side[0].err == nil {
				return // refused as a frame
			}
			if _, _, err := x.side[0].Step(Served{}); !errors.Is(err, c.want) {
				t.Errorf("after the error: %v", err)
			}
		})
	}
}

// TestStrangers: whoever lacks the fetch key hears a nonce and nothing else,
// and cannot tell a topic that is not here from one that is.
func TestStrangers(t *testing.T) {
	w := newWorld("auth")
	one := w.newChain("one", 3, 100)
	stranger := NewFetchKey(ed25519.NewKeyFromSeed(seed("stranger")))
	type change struct {
		name       string
		a, b       func(*Config)
		bend       func(int, Msg) []Msg
		refusing   int
		refusedHas int // messages the refused side has heard
	}
	none := func(*Config) {}
	var echo Msg
	cases := []change{
		{"opener has another key", func(c *Config) { c.Keys = stranger }, none, nil, 1, 1},
		{"topic unknown", none, func(c *Config) { c.Keys, c.Replica, c.Sink, c.Control = nil, nil, nil, nil }, nil, 1, 1},
		{"responder has another key", none, func(c *Config) { c.Keys = liar{stranger} }, nil, 0, 1},
		{"answer made for another peer", func(c *Config) { c.LocalPeer = []byte("peer C") }, none, nil, 1, 1},
		{"answer meant for another peer", func(c *Config) { c.RemotePeer = []byte("peer C") }, none, nil, 1, 1},
		{"answer to another nonce", none, none, func(from int, m Msg) []Msg {
			if c, ok := m.(Challenge); ok && from == 1 {
				c.Nonce[0] ^= 1
				return []Msg{c}
			}
			return []Msg{m}
		}, 1, 1},
		{"answer reflected", none, func(c *Config) { c.Keys = liar{stranger} }, func(from int, m Msg) []Msg {
			if _, ok := m.(Auth); ok && from == 0 {
				echo = m
			} else if ok {
				return []Msg{echo}
			}
			return []Msg{m}
		}, 0, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, b := w.newMemory().with(one, 3), w.newMemory().with(one, 3)
			ca, cb := a.config(w, Initiator), b.config(w, Responder)
			c.a(&ca)
			c.b(&cb)
			sa, err := New(ca)
			if err != nil {
				t.Fatal(err)
			}
			sb, err := New(cb)
			if err != nil {
				t.Fatal(err)
			}
			x := newWire(t, sa, sb)
			x.bend = c.bend
			x.start()
			x.run()
			if err := x.errs[c.refusing]; !errors.Is(err, ErrAuth) || !errors.Is(err, ErrPeer) {
				t.Fatalf("refused with %v", err)
			}
			// The opener proves itself first: CHALLENGE, AUTH. A refused opener
			// has heard a CHALLENGE.
			if c.refusing == 1 && x.said[1] != c.refusedHas {
				t.Errorf("the refused side heard %d messages, want %d", x.said[1], c.refusedHas)
			}
			if c.refusing == 0 && x.said[0] != 2 {
				t.Errorf("the initiator said %d messages, want 2", x.said[0])
			}
		})
	}
}

// TestDigestLies: a false digest never makes the session longer than two
// passes, and never equal.
func TestDigestLies(t *testing.T) {
	w := newWorld("lies")
	one := w.newChain("one", 6, 100)
	a, b := w.newMemory().with(one, 6), w.newMemory().with(one, 6)
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	x.bend = func(from int, m Msg) []Msg {
		switch m := m.(type) {
		case Beacon:
			if from == 1 {
				m.Digest[0] ^= 1
				return []Msg{m}
			}
		case Done, Frontier, Want, Served:
			if from == 1 && x.side[1].pass == nil { // the liar's own session is out of step
				return nil
			}
		}
		return []Msg{m}
	}
	x.start()
	x.run()
	// The liar's session takes the digests for equal and says so; we do not.
	if x.side[0].Result().Equal || x.done[0] {
		t.Errorf("equal by a lie: %+v", x.side[0].Result())
	}

	// Both state what is not so, all the way.
	x = newWire(t, a.session(t, w, Initiator), w.newMemory().with(one, 5).session(t, w, Responder))
	x.bend = bending(func(m Want) []Msg { m.Ranges = []Range{}; return []Msg{m} })
	ra, rb := x.round()
	if ra.Equal || rb.Equal || ra.Passes != maxPasses || !ra.Stalled || !rb.Stalled {
		t.Errorf("%+v, %+v", ra, rb)
	}
}

// TestOrder feeds every kind of message at every point of an honest session:
// what is out of turn is refused, and nothing panics.
func TestOrder(t *testing.T) {
	w := newWorld("order")
	one := w.newChain("one", 3, 100)
	intruders := []Msg{
		Challenge{Version: Version, Topic: w.topic}, Auth{}, Control{Term: 9}, ControlPage{Chunk: []byte{1}, Last: true},
		Digest{Epoch: 7}, Beacon{Count: 9, Base: []byte{}, Changes: []Change{}, Fresh: []FreshChain{}},
		Vector{Digest: []byte{}, Changes: []Change{}, Fresh: []FreshChain{}}, Tree{Depth: 2, Mask: []byte{255, 255}, Tags: make([]byte, 16*16*8), Last: true}, Frontier{Chains: []ChainHead{}, Last: true}, Want{Ranges: []Range{}, Last: true},
		Envelopes{Cert: &one.cert, Run: one.envs}, Served{}, Done{Past: PastEqual},
		Segments{Ranges: []Range{{Chain: one.id}}}, Manifest{Chain: one.id, Heads: []byte{}, Last: true},
	}
	allowed := map[string]bool{}
	for at := range 24 {
		for _, m := range intruders {
			a, b := w.newMemory().with(one, 1), w.newMemory().with(one, 3)
			x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
			x.start()
			for range at {
				for i := range x.side {
					if len(x.ways[i]) > 0 {
						x.hear(i)
						break
					}
				}
			}
			for i, s := range x.side {
				at := fmt.Sprint(s.phase)
				if s.pass != nil {
					at += fmt.Sprintf(" frontier %v want %v served %v %v", s.pass.frontierHeard, s.pass.wantsHeard, s.pass.servedSaid, s.pass.servedHeard)
				}
				if _, _, err := s.Step(m); err == nil {
					allowed[at+": "+m.Kind().String()] = true
				} else if !errors.Is(err, ErrPeer) {
					t.Errorf("side %d, phase %s, %s: %v", i, at, m.Kind(), err)
				}
			}
		}
	}
	var got []string
	for k := range allowed {
		got = append(got, k)
	}
	slices.Sort(got)
	const served = "10 frontier true want true served true "
	want := []string{
		"10 frontier false want false served false false: frontier",
		"10 frontier false want false served false false: want",
		"10 frontier true want false served false false: served",
		"10 frontier true want false served false false: want",
		served + "false: served",
		served + "true: digest",
		"11 frontier true want true served true true: digest",
		"11 frontier true want true served true true: done",
		"1: challenge", "3: beacon", "4: control", "4: digest", "4: done", "8: frontier", "8: tree",
	}
	if !slices.Equal(got, want) {
		t.Errorf("allowed: %q, want %q", got, want)
	}
}
