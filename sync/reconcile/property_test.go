package reconcile

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/kithnet/kith/space/envelope"
	"pgregory.net/rapid"
)

// pool is chains to draw prefixes of. In the last two some envelopes are
// signed badly and covered by the next.
var pool = sync.OnceValues(func() (*world, []*chain) {
	w := newWorld("pool")
	var chains []*chain
	for i := range 6 {
		chains = append(chains, w.newChain(string(rune('a'+i)), 20, 100))
	}
	chains = append(chains, w.newChain("g", 20, 100, 0, 3, 5, 12), w.newChain("h", 20, 100, 1, 2, 17))
	return w, chains
})

// covered is the length of the longest beginning of a chain up to n that can
// be held.
func covered(c *chain, n int) int { return envelope.Covered(c.envs[:n]) }

func drawMemory(t *rapid.T, w *world, chains []*chain, name string) *memory {
	m := w.newMemory()
	for _, c := range chains {
		if n := rapid.IntRange(-5, len(c.envs)).Draw(t, name+" length"); n > 0 {
			m.with(c, covered(c, n))
		}
	}
	m.log = newCtlLog(rapid.IntRange(0, 5).Draw(t, name+" control"))
	m.maxRun = rapid.IntRange(4, 25).Draw(t, name+" run")
	m.minTree = rapid.SampledFrom([]int{0, 3, minTree}).Draw(t, name+" tree")
	if rapid.Bool().Draw(t, name+" remembers") {
		m.past = new(Memory)
	}
	return m
}

// TestNaive: after sessions that broke anywhere, with writes in between, one
// whole session leaves both replicas with what a full exchange would; and so
// does every further round on its stream, whoever leads it, however little it
// states. Some sessions remember, some descend, some fetch segments.
func TestNaive(t *testing.T) {
	w, chains := pool()
	for i := range shards {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { naive(t, w, chains) })
		})
	}
}

func naive(t *rapid.T, w *world, chains []*chain) {
	a, b := drawMemory(t, w, chains, "a"), drawMemory(t, w, chains, "b")
	a.segment = rapid.SampledFrom([]uint64{0, 5}).Draw(t, "segment") // whose last envelopes are signed well
	b.segment = a.segment
	want := a.ids()
	maps.Copy(want, b.ids())
	write := func() {
		c := chains[rapid.IntRange(0, len(chains)-1).Draw(t, "written")]
		m := []*memory{a, b}[rapid.IntRange(0, 1).Draw(t, "writer")]
		if n := covered(c, min(len(c.envs), len(m.envs[c.id])+3)); n > len(m.envs[c.id]) {
			m.with(c, n)
		}
		maps.Copy(want, m.ids())
	}
	for range rapid.IntRange(0, 3).Draw(t, "faults") {
		breakOff(t, w, a, b, write)
	}
	x := newWire(t, a.mustSession(w, Initiator), b.mustSession(w, Responder))
	x.start()
	for round := rapid.IntRange(0, 3).Draw(t, "rounds"); ; round-- {
		shuffle(t, x, -1)
		checkEqual(t, x, [2]*memory{a, b}, want)
		if round <= 0 {
			return
		}
		for range rapid.IntRange(0, 2).Draw(t, "writes") {
			write()
		}
		a.log.grow(rapid.IntRange(0, 1).Draw(t, "control"), "")
		x.lead(rapid.IntRange(1, 3).Draw(t, "leads"))
	}
}

func checkEqual(t *rapid.T, x *wire, sides [2]*memory, want map[envelope.ID]bool) {
	t.Helper()
	for i, m := range sides {
		if x.errs[i] != nil || !x.done[i] {
			t.Fatalf("side %d: done %v, phase %d, %v", i, x.done[i], x.side[i].phase, x.errs[i])
		}
		r := x.side[i].Result()
		if r.Passes > 1 {
			t.Fatalf("side %d: the second pass had to mend the first: %+v", i, r)
		}
		if !r.Equal || r.Digest != m.topic.Digest() || r.Count != uint64(len(want)) {
			t.Fatalf("side %d: %+v, want %d", i, r, len(want))
		}
		if !maps.Equal(m.ids(), want) {
			t.Fatalf("side %d holds %d, want %d", i, len(m.ids()), len(want))
		}
		if r.Ctl != m.log.head() {
			t.Fatalf("control heads: %+v", r)
		}
		if r.Led == x.side[1-i].Result().Led || r.Rounds != x.side[1-i].Result().Rounds {
			t.Fatalf("who leads: %+v", r)
		}
	}
	if sides[0].log.head() != sides[1].log.head() {
		t.Fatal("control logs differ")
	}
}

// breakOff runs a session that is cut after some messages, with writes landing
// meanwhile. It may end whole; then its verdict is checked.
func breakOff(t *rapid.T, w *world, a, b *memory, write func()) {
	x := newWire(t, a.mustSession(w, Initiator), b.mustSession(w, Responder))
	x.start()
	limit := rapid.IntRange(0, 60).Draw(t, "messages")
	writes := rapid.IntRange(0, 2).Draw(t, "writes")
	for writes > 0 {
		writes--
		n := rapid.IntRange(0, 20).Draw(t, "until write")
		shuffle(t, x, min(n, limit))
		limit -= min(n, limit)
		write()
	}
	shuffle(t, x, limit)
	for i := range x.side {
		if x.errs[i] != nil {
			t.Fatalf("side %d: %v", i, x.errs[i])
		}
	}
	if x.done[0] && x.done[1] {
		ra, rb := x.side[0].Result(), x.side[1].Result()
		if ra.Equal != rb.Equal || ra.Equal && (ra.Digest != rb.Digest || ra.Count != rb.Count) {
			t.Fatalf("verdicts differ: %+v, %+v", ra, rb)
		}
	}
}

// shuffle delivers up to n messages (all, if negative), drawing whose is next.
func shuffle(t *rapid.T, x *wire, n int) {
	for ; n != 0; n-- {
		var can []func()
		for i := range x.side {
			if len(x.ways[i]) > 0 {
				can = append(can, func() { x.hear(i) })
			}
			if len(x.side[i].out) > 0 && x.errs[i] == nil {
				can = append(can, func() { x.pull(i) })
			}
		}
		if len(can) == 0 {
			return
		}
		k := 0
		if len(can) > 1 {
			k = rapid.IntRange(0, len(can)-1).Draw(t, "next")
		}
		can[k]()
	}
}

func (m *memory) mustSession(w *world, role Role) *Session {
	s, err := New(m.config(w, role))
	if err != nil {
		panic(err)
	}
	m.tune(s)
	return s
}
