package reconcile

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// bending makes a session deviate: change rewrites what it says of type M.
func bending[M Msg](change func(M) []Msg) func(int, Msg) []Msg {
	return func(_ int, m Msg) []Msg {
		if mm, ok := m.(M); ok {
			return change(mm)
		}
		return []Msg{m}
	}
}

// onlyFirst bends the first message of the type.
func onlyFirst[M Msg](change func(M) []Msg) func(int, Msg) []Msg {
	done := false
	return bending(func(m M) []Msg {
		if done {
			return []Msg{m}
		}
		done = true
		return change(m)
	})
}

func manyChains(n, from int, last bool) Frontier {
	f := Frontier{Chains: make([]ChainHead, n), Last: last}
	for i := range f.Chains {
		x := from + i
		f.Chains[i].Chain = envelope.ChainID{0, byte(x >> 16), byte(x >> 8), byte(x)}
	}
	return f
}

func flip(e envelope.Envelope, at int) envelope.Envelope {
	b := slices.Clone(e.Bytes())
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	out, err := envelope.Parse(b)
	if err != nil {
		panic(err)
	}
	return out
}

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

// TestControl: the step before the digests, where it goes wrong.
func TestControl(t *testing.T) {
	w := newWorld("control")
	cases := []struct {
		name  string
		prep  func(a, b *memory)
		bend  func(int, Msg) []Msg
		want  error // of the initiator; nil: both logs are equal
		blame bool
	}{
		{"initiator has none", func(a, b *memory) { a.log = newCtlLog(0) }, nil, nil, false},
		{"responder has none", func(a, b *memory) { b.log = newCtlLog(0) }, nil, nil, false},
		{"nobody has one", func(a, b *memory) { a.log, b.log = newCtlLog(0), newCtlLog(0) }, nil, nil, false},
		{"large pages", func(a, b *memory) { b.log.pad = MaxControlPage - 100; b.log.grow(2, "") }, nil, nil, false},
		{"fork at the head", func(a, b *memory) { b.log = newCtlLog(2).grow(1, "!") }, nil, ErrControlFork, false},
		{"fork below the head", func(a, b *memory) { b.log = newCtlLog(2).grow(1, "!"); a.log.grow(1, "") }, nil, ErrControlFork, false},
		{"garbage", func(a, b *memory) { b.log.grow(1, "") },
			bending(func(m ControlPage) []Msg { m.Chunk = []byte("garbage"); return []Msg{m} }), space.ErrForged, true},
		{"page without end", func(a, b *memory) { b.log.grow(1, "") },
			bending(func(m ControlPage) []Msg {
				return slices.Repeat([]Msg{ControlPage{Chunk: make([]byte, maxChunk), More: true}}, 17)
			}), space.ErrTooLarge, true},
		{"pages without end", func(a, b *memory) { b.log.grow(1, "") },
			bending(func(m ControlPage) []Msg {
				m.Last = false
				return slices.Repeat([]Msg{m}, MaxControlPages+1)
			}), space.ErrTooLarge, true},
		{"empty page", func(a, b *memory) { b.log.grow(1, "") },
			bending(func(m ControlPage) []Msg { return []Msg{ControlPage{Chunk: []byte{}}} }), space.ErrMalformed, true},
		{"promises and sends none", func(a, b *memory) {},
			func(_ int, m Msg) []Msg {
				switch m := m.(type) {
				case Beacon:
					m.Log[0] ^= 1
					return []Msg{m}
				case Control:
					m.Seq++
					return []Msg{m, ControlPage{Chunk: []byte{}, Last: true}}
				}
				return []Msg{m}
			}, nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, b := w.newMemory(), w.newMemory()
			c.prep(a, b)
			x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
			x.bend = func(from int, m Msg) []Msg {
				if from == 0 || c.bend == nil {
					return []Msg{m}
				}
				return c.bend(from, m)
			}
			x.start()
			x.run()
			if !errors.Is(x.errs[0], c.want) || errors.Is(x.errs[0], ErrPeer) != c.blame {
				t.Fatalf("got %v, want %v", x.errs[0], c.want)
			}
			if c.want == nil && (a.log.head() != b.log.head() || !x.done[0] || x.side[0].Result().Ctl != a.log.head()) {
				t.Error("control logs differ")
			}
		})
	}
}

// TestControlInParts: a log longer than a round carries comes in several.
func TestControlInParts(t *testing.T) {
	w := newWorld("parts")
	a, b := w.newMemory(), w.newMemory()
	b.log.grow(MaxControlPages+10, "")
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	ra, _ := x.round()
	if ra.Pages != MaxControlPages || ra.Ctl == ra.PeerCtl {
		t.Errorf("first round: %d pages", ra.Pages)
	}
	if ra, _ = x.round(); ra.Pages != 10 || ra.Ctl != ra.PeerCtl || a.log.head() != b.log.head() {
		t.Errorf("second round: %d pages", ra.Pages)
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

// TestWritesMeanwhile: a writer faster than the session cannot keep it going.
func TestWritesMeanwhile(t *testing.T) {
	w := newWorld("writes")
	one, two, three := w.newChain("one", 40, 100), w.newChain("two", 5, 100), w.newChain("three", 40, 100)
	a, b := w.newMemory().with(one, 1), w.newMemory().with(two, 5)
	a.onQuery = func() { a.with(one, len(a.envs[one.id])+1) }
	b.onQuery = func() { b.with(three, len(b.envs[three.id])+1) }
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	ra, rb := x.round()
	if ra.Equal || rb.Equal || ra.Stalled || rb.Stalled || ra.Passes != maxPasses {
		t.Errorf("%+v, %+v", ra, rb)
	}
	a.onQuery, b.onQuery = nil, nil
	ra, rb = x.round()
	if !ra.Equal || !rb.Equal || ra.Rounds != 2 {
		t.Errorf("when it is quiet: %+v, %+v", ra, rb)
	}
}

// TestFork: a chain with two branches is nobody's fault here; what is on other
// chains moves all the same.
func TestFork(t *testing.T) {
	w := newWorld("fork")
	one, two := w.newChain("one", 6, 100), w.newChain("two", 3, 100)
	branch := one.fork(3, 7)
	a, b := w.newMemory().with(one, 6), w.newMemory().with(branch, 10).with(two, 3)
	b.maxRun = 2
	for round := range 2 {
		x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
		ra, rb := x.round()
		if ra.Equal || rb.Equal || ra.Forked == 0 {
			t.Errorf("round %d: %+v, %+v", round, ra, rb)
		}
		if !slices.Equal(ra.Forks, []envelope.ChainID{one.id}) {
			t.Errorf("round %d: forks %v", round, ra.Forks)
		}
	}
	if len(a.envs[one.id]) != 6 || len(a.envs[two.id]) != 3 {
		t.Error("the other branch taken, or the other chain not")
	}
	// A branch that shows where it parts cuts the chain back.
	if _, err := a.Deliver(nil, branch.envs[3:]); !errors.Is(err, envelope.ErrFork) || len(a.envs[one.id]) != 3 {
		t.Fatal(err)
	}
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	if ra, rb := x.round(); ra.Equal || !slices.Equal(ra.Forks, []envelope.ChainID{one.id}) || ra.Received+rb.Received != 0 {
		t.Errorf("once the fork is known to one: %+v, %+v", ra, rb)
	}
}

// TestOwnFailures are not blamed on the peer.
func TestOwnFailures(t *testing.T) {
	w := newWorld("own")
	one := w.newChain("one", 6, 100)
	broken := errors.New("disk on fire")
	cases := []struct {
		name string
		err  error
		want func(Result, error) bool
	}{
		{"io", broken, func(_ Result, err error) bool { return errors.Is(err, broken) && !errors.Is(err, ErrPeer) }},
		{"forged", space.ErrForged, func(_ Result, err error) bool { return errors.Is(err, ErrPeer) }},
		{"uncertified", envelope.ErrUncertified, func(_ Result, err error) bool { return err != nil && !errors.Is(err, ErrPeer) }},
		{"duplicate", fmt.Errorf("x: %w", envelope.ErrDuplicate), func(r Result, err error) bool { return err == nil && r.Duplicate == 12 }},
		{"gap", envelope.ErrGap{Have: 1, Want: 3}, func(r Result, err error) bool { return err == nil && r.Refused == 12 }},
		{"fork", envelope.ErrFork, func(r Result, err error) bool { return err == nil && r.Refused == 12 }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, b := w.newMemory(), w.newMemory().with(one, 6)
			a.fail = c.err
			x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
			x.start()
			x.run()
			if r := x.side[0].Result(); !c.want(r, x.errs[0]) {
				t.Errorf("%+v, %v", r, x.errs[0])
			}
		})
	}
}

// TestServeLimit: a round sends no more than its share, the next goes on.
func TestServeLimit(t *testing.T) {
	w := newWorld("limit")
	one := w.newChain("one", 20, 100)
	a, b := w.newMemory(), w.newMemory().with(one, 20)
	b.maxRun = 2
	cfg := b.config(w, Responder)
	cfg.MaxServe = 2500
	sb, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x := newWire(t, a.session(t, w, Initiator), sb)
	rounds, had := 0, 0
	for rounds < 10 {
		rounds++
		ra, rb := x.round()
		if ra.Stalled || rb.PayloadBytes > 2*(2500+2*600) {
			t.Fatalf("round %d: %+v, %+v", rounds, ra, rb)
		}
		if ra.Equal {
			break
		}
		if len(a.envs[one.id]) <= had {
			t.Fatal("no progress")
		}
		had = len(a.envs[one.id])
	}
	if rounds < 2 || len(a.envs[one.id]) != 20 {
		t.Errorf("%d rounds, %d envelopes", rounds, len(a.envs[one.id]))
	}
}

// TestLazy: a peer that asks for all and does not read makes us hold a batch
// for each message of its own, not the answer.
func TestLazy(t *testing.T) {
	w := newWorld("lazy")
	one := w.newChain("one", 60, 100)
	a, b := w.newMemory(), w.newMemory().with(one, 60)
	b.maxRun = 1
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	x.start()
	for len(x.ways[0])+len(x.ways[1]) > 0 {
		from := 0
		if len(x.ways[0]) == 0 {
			from = 1
		}
		if _, ok := x.ways[from][0].(Envelopes); ok {
			break
		}
		x.hear(from)
	}
	runs := 0
	for _, m := range x.ways[1] {
		if _, ok := m.(Envelopes); ok {
			runs++
		}
	}
	if runs == 0 || runs > 2*batch { // after its WANT and its SERVED
		t.Errorf("%d runs at once", runs)
	}
}

// TestManyChains: frontiers and wants of several pages.
func TestManyChains(t *testing.T) {
	w := newWorld("pages")
	a, b := w.newMemory(), w.newMemory()
	for i := range MaxPage + 50 {
		c := w.newChain(fmt.Sprint("chain ", i), 1, 100)
		[]*memory{a, b}[i%2].with(c, 1)
		if i < 5 {
			a.with(c, 1)
			b.with(c, 1)
		}
	}
	x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
	if ra, rb := x.round(); !ra.Equal || !rb.Equal || ra.Count != MaxPage+50 {
		t.Errorf("%+v, %+v", ra, rb)
	}
	c := w.newMemory()
	x = newWire(t, a.session(t, w, Initiator), c.session(t, w, Responder))
	pages := 0
	x.tap = func(_ int, m Msg, _ []byte) {
		if m.Kind() == KindWant {
			pages++
		}
	}
	if ra, rb := x.round(); !ra.Equal || !rb.Equal || pages != 3 {
		t.Errorf("%+v, %+v, %d pages", ra, rb, pages)
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

func TestConfig(t *testing.T) {
	w := newWorld("config")
	m := w.newMemory()
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "no role") || !strings.Contains(err.Error(), "nonce is zero") {
		t.Errorf("every problem at once: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"role":     func(c *Config) { c.Role = 3 },
		"opening":  func(c *Config) { c.Opening = Challenge{} },
		"nonce":    func(c *Config) { c.Nonce = [32]byte{} },
		"peer":     func(c *Config) { c.RemotePeer = nil },
		"long":     func(c *Config) { c.RemotePeer = make([]byte, 256) },
		"self":     func(c *Config) { c.RemotePeer = c.LocalPeer },
		"replica":  func(c *Config) { c.Replica = nil },
		"sink":     func(c *Config) { c.Sink = nil },
		"maxserve": func(c *Config) { c.MaxServe = -1 },
	} {
		cfg := m.config(w, Responder)
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	cfg := m.config(w, Initiator)
	cfg.Keys = nil
	if _, err := New(cfg); err == nil {
		t.Error("initiator without keys: accepted")
	}
}

// TestDigestTwice: also while ours still waits behind what is being sent.
func TestDigestTwice(t *testing.T) {
	w := newWorld("twice")
	a := w.newMemory()
	s := a.session(t, w, Initiator)
	if _, err := s.Start(); err != nil {
		t.Fatal(err)
	}
	s.phase = idle
	for _, m := range []Msg{Control{}, Digest{Epoch: a.epoch}} {
		s := *s
		if err := s.consume(Beacon{Log: s.logTag(a.log.head()), Count: 9}); err != nil {
			t.Fatal(err)
		}
		if err := s.consume(m); !errors.Is(err, ErrOrder) {
			t.Errorf("%T: got %v", m, err)
		}
	}
}

// broken is a replica that answers what it must not.
type broken struct {
	*memory
	summary func(Summary) (Summary, error)
	chains  func([]envelope.Chain) ([]envelope.Chain, error)
	run     func(*envelope.Certificate, []envelope.Envelope) (*envelope.Certificate, []envelope.Envelope, error)
}

func (b broken) Summary() (Summary, error) {
	s, err := b.memory.Summary()
	if b.summary != nil {
		return b.summary(s)
	}
	return s, err
}

func (b broken) Chains() iter.Seq2[envelope.Chain, error] {
	return func(yield func(envelope.Chain, error) bool) {
		chains, err := slices.Collect(b.topic.Chains()), error(nil)
		if b.chains != nil {
			chains, err = b.chains(chains)
		}
		for _, c := range chains {
			if !yield(c, nil) {
				return
			}
		}
		if err != nil {
			yield(envelope.Chain{}, err)
		}
	}
}

func (b broken) Run(id envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error) {
	cert, run, err := b.memory.Run(id, from, to, maxBytes)
	if b.run != nil {
		return b.run(cert, run)
	}
	return cert, run, err
}

// TestBrokenReplica: our own replica's mistakes do not reach the peer and are
// not blamed on it.
func TestBrokenReplica(t *testing.T) {
	w := newWorld("broken")
	one, two, big := w.newChain("one", 4, 100), w.newChain("two", 4, 100), w.newChain("big", 3, envelope.MaxPadded)
	disk := errors.New("disk on fire")
	type certificate = *envelope.Certificate
	type envelopes = []envelope.Envelope
	run := func(f func(certificate, envelopes) (certificate, envelopes, error)) broken { return broken{run: f} }
	cases := []struct {
		name string
		b    broken
		want string
	}{
		{"summary fails", broken{summary: func(s Summary) (Summary, error) { return s, disk }}, "disk on fire"},
		{"summary of another topic", broken{summary: func(s Summary) (Summary, error) { s.Topic[0] ^= 1; return s, nil }}, "another topic"},
		{"chains fail", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) { return c, disk }}, "disk on fire"},
		{"chains unsorted", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) {
			slices.Reverse(c)
			return c, nil
		}}, "ascending"},
		{"chains doubled", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) { return append(c, c[len(c)-1]), nil }}, "ascending"},
		{"chains too many", broken{chains: func([]envelope.Chain) ([]envelope.Chain, error) {
			out := make([]envelope.Chain, MaxChains+1)
			for i, h := range manyChains(len(out), 0, true).Chains {
				out[i].ID = h.Chain
			}
			return out, nil
		}}, "too large"},
		{"run fails", run(func(certificate, envelopes) (certificate, envelopes, error) { return nil, nil, disk }), "disk on fire"},
		{"run without certificate", run(func(_ certificate, r envelopes) (certificate, envelopes, error) { return nil, r, nil }), "asked for"},
		{"run from elsewhere", run(func(c certificate, r envelopes) (certificate, envelopes, error) { return c, r[1:], nil }), "asked for"},
		{"run with a hole", run(func(c certificate, r envelopes) (certificate, envelopes, error) {
			return c, append(slices.Clone(r[:1]), r[2]), nil
		}), "asked for"},
		{"run beyond", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) {
			c[0].Head.Seq = 1
			return c, nil
		}, run: func(certificate, envelopes) (certificate, envelopes, error) {
			first := one
			if compareChains(two.id, one.id) < 0 {
				first = two
			}
			return &first.cert, first.envs, nil
		}}, "asked for"},
		{"run too long", run(func(certificate, envelopes) (certificate, envelopes, error) { return &big.cert, big.envs, nil }), "asked for"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := w.newMemory()
			c.b.memory = w.newMemory().with(one, 4).with(two, 4)
			cfg := c.b.config(w, Responder)
			cfg.Replica = c.b
			sb, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			x := newWire(t, a.session(t, w, Initiator), sb)
			x.start()
			x.run()
			if err := x.errs[1]; err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrPeer) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if x.errs[0] != nil {
				t.Errorf("the peer saw it: %v", x.errs[0])
			}
		})
	}

	// A chain that went away, or has no good signature to cut at, is left out.
	for name, f := range map[string]func(certificate, envelopes) (certificate, envelopes, error){
		"gone": func(certificate, envelopes) (certificate, envelopes, error) { return nil, nil, nil },
		"uncovered": func(c certificate, r envelopes) (certificate, envelopes, error) {
			return c, envelopes{flip(r[0], -1)}, nil
		},
	} {
		a, b := w.newMemory(), run(f)
		b.memory = w.newMemory().with(one, 4)
		cfg := b.config(w, Responder)
		cfg.Replica = b
		sb, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		x := newWire(t, a.session(t, w, Initiator), sb)
		if ra, rb := x.round(); ra.Equal || rb.Equal || !ra.Stalled {
			t.Errorf("%s: %+v, %+v", name, ra, rb)
		}
	}
}

// refuser takes no run and counts them.
type refuser struct{ calls int }

func (r *refuser) Deliver(_ *envelope.Certificate, run []envelope.Envelope) (Delivered, error) {
	r.calls++
	return Delivered{Refused: len(run)}, nil
}

// TestRefused: the rest of a chain of which a run was refused is not handed on.
func TestRefused(t *testing.T) {
	w := newWorld("refused")
	one, two := w.newChain("one", 6, 100), w.newChain("two", 6, 100)
	a, b := w.newMemory(), w.newMemory().with(one, 6).with(two, 6)
	b.maxRun = 2
	var sink refuser
	cfg := a.config(w, Initiator)
	cfg.Sink = &sink
	sa, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x := newWire(t, sa, b.session(t, w, Responder))
	if ra, _ := x.round(); ra.Equal || ra.Refused != 2*12 || sink.calls != 2*2 {
		t.Errorf("%+v, %d calls", ra, sink.calls)
	}
}
