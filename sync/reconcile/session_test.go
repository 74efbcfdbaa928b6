package reconcile

import (
	"errors"
	"fmt"
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
