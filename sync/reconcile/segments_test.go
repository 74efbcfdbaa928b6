package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"pgregory.net/rapid"
)

// longPool is chains of several segments of four.
var longPool = sync.OnceValues(func() (*world, []*chain) {
	w := newWorld("long")
	return w, []*chain{w.newChain("la", 39, 100), w.newChain("lb", 64, 100), w.newChain("lc", 20, 100, 3, 7, 8), w.newChain("ld", 3, 100)}
})

// small makes segments of four out of what tests have.
func (m *memory) small(w *world, role Role, peer string, board *Board) *Session {
	cfg := m.config(w, role)
	cfg.Board = board
	if role == Initiator {
		cfg.RemotePeer = []byte(peer)
	} else {
		cfg.LocalPeer = []byte(peer)
	}
	s, err := New(cfg)
	if err != nil {
		panic(err)
	}
	s.segment, s.minCold = 4, 2
	return s
}

// join connects a newcomer to a peer that it shares its board with.
func (m *memory) join(t failer, w *world, from *memory, name string, board *Board) *wire {
	x := newWire(t, m.small(w, Initiator, name, board), from.small(w, Responder, name, NewBoard()))
	x.start()
	return x
}

func (b *Board) idle() bool { return len(b.chains) == 0 && b.ahead == 0 && b.claims == 0 }

// step delivers one message of one of the wires; false: nothing moves.
func step(wires []*wire, draw func(n int) int) bool {
	var can []func()
	for _, x := range wires {
		for i := range x.side {
			if len(x.ways[i]) > 0 {
				can = append(can, func() { x.hear(i) })
			}
			if len(x.side[i].out) > 0 && x.errs[i] == nil {
				can = append(can, func() { x.pull(i) })
			}
		}
	}
	if len(can) == 0 {
		return false
	}
	can[draw(len(can))]()
	return true
}

// anyOf draws the same each time.
func anyOf() func(int) int { return rand.New(rand.NewPCG(1, 2)).IntN }

// TestColdShared: two peers bring a chain together, each a good part of it, and
// neither brings what the other did, but for the last segments: in whatever order
// messages arrive, these are two on average.
func TestColdShared(t *testing.T) {
	const orders, envelopes = 30, 64
	var sent [2]int
	for order := range uint64(orders) {
		w, chains := longPool()
		full := func() *memory { return w.newMemory().with(chains[1], envelopes) }
		a, board := w.newMemory(), NewBoard()
		wires := []*wire{a.join(t, w, full(), "one", board), a.join(t, w, full(), "two", board)}
		for draw := rand.New(rand.NewPCG(order, 2)).IntN; step(wires, draw); {
		}
		for i, x := range wires {
			if r := x.side[0].Result(); !x.done[0] || !r.Equal || x.errs[0] != nil {
				t.Fatalf("order %d, peer %d: %+v, %v", order, i, r, x.errs[0])
			}
			sent[i] += x.side[1].Result().Sent
		}
		if !board.idle() {
			t.Errorf("order %d: left on the board: %+v", order, board)
		}
	}
	if all := orders * envelopes; sent[0]+sent[1] > orders*(envelopes+12) || min(sent[0], sent[1]) < all/4 {
		t.Errorf("%d envelopes were sent to bring %d", sent, all)
	}
}

// TestColdAlone: of one peer two segments are asked for at once, of each of two
// one until it has brought it.
func TestColdAlone(t *testing.T) {
	w, chains := longPool()
	full := func() *memory { return w.newMemory().with(chains[1], 64) }
	a, board := w.newMemory(), NewBoard()
	asked := func(x *wire) int {
		x.bend = func(_ int, m Msg) []Msg {
			if _, run := m.(Envelopes); run {
				return nil
			}
			return []Msg{m}
		}
		for draw := anyOf(); step([]*wire{x}, draw); {
		}
		return x.side[0].pass.claimed
	}
	if n := asked(a.join(t, w, full(), "one", board)); n != 2 {
		t.Errorf("%d segments are asked of one peer at first, want 2", n)
	}
	if n := asked(a.join(t, w, full(), "two", board)); n != 1 {
		t.Errorf("%d segments are asked of another at first, want 1", n)
	}
}

// TestColdMute: a peer that is silent after it promised segments is waited for
// by nobody.
func TestColdMute(t *testing.T) {
	w, chains := longPool()
	full := func() *memory { return w.newMemory().with(chains[0], 39).with(chains[1], 64) }
	a, board := w.newMemory(), NewBoard()
	mute := a.join(t, w, full(), "mute", board)
	mute.bend = func(from int, m Msg) []Msg {
		if _, run := m.(Envelopes); run {
			return nil
		}
		return []Msg{m}
	}
	for draw := anyOf(); step([]*wire{mute}, draw); {
	}
	if len(mute.side[0].pass.asked) == 0 {
		t.Fatal("nothing was asked of the mute peer")
	}
	good := a.join(t, w, full(), "good", board)
	for draw := anyOf(); step([]*wire{good}, draw); {
	}
	if r := good.side[0].Result(); !r.Equal || r.Count != 39+64 || r.Passes != 1 {
		t.Fatalf("%+v, %v", r, good.errs[0])
	}
	mute.side[0].End()
	if !board.idle() {
		t.Errorf("left on the board: %+v", board)
	}
}

// TestColdLies: what is not what the manifest names, not linked to it or not
// signed is blamed on who sent it, and comes from another.
func TestColdLies(t *testing.T) {
	w, chains := longPool()
	full := func() *memory { return w.newMemory().with(chains[1], 64) }
	onRun := func(at uint64, change func(Envelopes) Envelopes) func(int, Msg) []Msg {
		return func(from int, m Msg) []Msg {
			if r, ok := m.(Envelopes); ok && from == 1 && r.Run[0].Seq() == at {
				m = change(r)
			}
			return []Msg{m}
		}
	}
	for name, bend := range map[string]func(int, Msg) []Msg{
		"a signature": onRun(8, func(m Envelopes) Envelopes {
			m.Run = slices.Clone(m.Run)
			last := len(m.Run) - 1
			m.Run[last] = flip(m.Run[last], m.Run[last].Len()-1)
			return m
		}),
		"a signature within": onRun(12, func(m Envelopes) Envelopes {
			m.Run = slices.Clone(m.Run)
			m.Run = append(m.Run[:1], flip(m.Run[1], m.Run[1].Len()-1))
			return m
		}),
		"a head": func(from int, m Msg) []Msg {
			if mm, ok := m.(Manifest); ok {
				mm.Heads = slices.Clone(mm.Heads)
				mm.Heads[5*32] ^= 1
				m = mm
			}
			return []Msg{m}
		},
		"a head that was not asked for": func(from int, m Msg) []Msg {
			if mm, ok := m.(Manifest); ok {
				mm.Heads = append(slices.Clone(mm.Heads), make([]byte, 32)...)
				m = mm
			}
			return []Msg{m}
		},
		"another segment": onRun(8, func(m Envelopes) Envelopes { m.Run = chains[1].envs[12:16]; return m }),
	} {
		t.Run(name, func(t *testing.T) {
			a, board := w.newMemory(), NewBoard()
			liar := a.join(t, w, full(), "liar", board)
			liar.bend = bend
			for draw := anyOf(); step([]*wire{liar}, draw); {
			}
			if !errors.Is(liar.errs[0], ErrPeer) {
				t.Fatalf("not blamed: %v, %+v", liar.errs[0], liar.side[0].Result())
			}
			liar.side[0].End()
			if !board.idle() {
				t.Fatalf("left on the board: %+v", board)
			}
			good := a.join(t, w, full(), "good", board)
			for draw := anyOf(); step([]*wire{good}, draw); {
			}
			if r := good.side[0].Result(); !r.Equal || r.Count != 64 {
				t.Fatalf("%+v, %v", r, good.errs[0])
			}
		})
	}
}

// TestColdUnsigned: what waits is signed, or whoever brings what it waits for
// would be blamed for it.
func TestColdUnsigned(t *testing.T) {
	w, _ := longPool()
	c := w.newChain("unsigned", 12, 100, 4, 5, 6, 7)
	s := w.newMemory().small(w, Initiator, "liar", NewBoard())
	s.pass = &pass{}
	of := s.board.attach(s, c.id, 0, 4, []envelope.ID{c.envs[3].ID(), c.envs[7].ID(), c.envs[11].ID()})
	for range 2 {
		if got, _, _ := s.board.claim(s, []*cold{of}, true); got != of {
			t.Fatal("no claim")
		}
	}
	err := s.onPiece(&asked{of: of, piece: of.pieces[1]}, Envelopes{Run: c.envs[4:8]})
	if !errors.Is(err, space.ErrForged) || !errors.Is(err, ErrPeer) {
		t.Error(err)
	}

	// Nor does one run of another branch stand between the others.
	c = w.newChain("parted", 12, 100)
	s = w.newMemory().small(w, Initiator, "liar", NewBoard())
	s.pass = &pass{}
	of = s.board.attach(s, c.id, 0, 4, []envelope.ID{c.envs[3].ID(), c.envs[7].ID(), c.envs[11].ID()})
	for range 2 {
		s.board.claim(s, []*cold{of}, true)
	}
	at := &asked{of: of, piece: of.pieces[1]}
	if err := s.onPiece(at, Envelopes{Run: c.fork(4, 4).envs[4:6]}); err != nil {
		t.Fatal(err)
	}
	if err := s.onPiece(at, Envelopes{Run: c.envs[6:8]}); !errors.Is(err, space.ErrForged) || !errors.Is(err, ErrPeer) {
		t.Error(err)
	}
}

// TestColdBranches: peers that hold different branches do not share; each is
// heard, and the fork is seen.
func TestColdBranches(t *testing.T) {
	w, chains := longPool()
	other := chains[1].fork(30, 20)
	a, board := w.newMemory(), NewBoard()
	wires := []*wire{
		a.join(t, w, w.newMemory().with(chains[1], 64), "one", board),
		a.join(t, w, w.newMemory().with(other, 50), "two", board),
	}
	for draw := anyOf(); step(wires, draw); {
	}
	forked := 0
	for i, x := range wires {
		if x.errs[0] != nil {
			t.Errorf("peer %d: %v", i, x.errs[0])
		}
		forked += x.side[0].Result().Forked
	}
	if forked == 0 || !board.idle() {
		t.Errorf("forks seen: %d; board %+v", forked, board)
	}
	if _, forked := a.topic.Fork(chains[1].id); forked && len(a.envs[chains[1].id]) > 30 {
		t.Errorf("%d held of a chain that forked at 30", len(a.envs[chains[1].id]))
	}
}

// TestColdBudget: of segments that wait for another no more is kept than the
// bound, and they come all the same.
func TestColdBudget(t *testing.T) {
	w, chains := longPool()
	board := NewBoard()
	board.ahead = maxAhead // all of it is in use elsewhere
	a := w.newMemory()
	x := a.join(t, w, w.newMemory().with(chains[1], 64), "one", board)
	for draw := anyOf(); step([]*wire{x}, draw); {
		if n := board.claims; n > 0 {
			t.Fatalf("%d segments are asked for before their turn", n)
		}
	}
	if r := x.side[0].Result(); !r.Equal || r.Count != 64 {
		t.Fatalf("%+v, %v", r, x.errs[0])
	}

	// What was asked for and does not fit is given up, and comes later.
	board.ahead = 0
	a = w.newMemory()
	x = a.join(t, w, w.newMemory().with(chains[1], 64), "two", board)
	used := false
	for draw := anyOf(); step([]*wire{x}, draw); {
		if board.claims > 3 && !used {
			used = true
			board.ahead += 2 * maxAhead
		}
	}
	if r := x.side[0].Result(); !used || !r.Equal || r.Count != 64 || board.ahead != 2*maxAhead || board.claims != 0 {
		t.Fatalf("%+v, %v; %d bytes, %d claims", r, x.errs[0], board.ahead, board.claims)
	}
}

// TestColdJoins: a newcomer that holds anything joins by several peers that
// hold anything. Some are cut off, some are silent, some lie about what they
// send or what there is; writes land meanwhile. In the end one whole session
// with each honest peer leaves it with all there is, and nothing waits.
func TestColdJoins(t *testing.T) {
	w, chains := longPool()
	for i := range shards {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { coldJoins(t, w, chains) })
		})
	}
}

func drawLong(t *rapid.T, w *world, chains []*chain, name string) *memory {
	m := w.newMemory()
	for _, c := range chains {
		if n := rapid.IntRange(-10, len(c.envs)).Draw(t, name+" length"); n > 0 {
			m.with(c, covered(c, n))
		}
	}
	m.maxRun = rapid.IntRange(4, 25).Draw(t, name+" run")
	return m
}

func coldJoins(t *rapid.T, w *world, chains []*chain) {
	a, board := w.newMemory(), NewBoard()
	if rapid.Bool().Draw(t, "has some") {
		a = drawLong(t, w, chains, "newcomer")
	}
	var peers []*memory
	var wires []*wire
	var bad []bool
	for i := range rapid.IntRange(1, 4).Draw(t, "peers") {
		p := drawLong(t, w, chains, fmt.Sprint("peer ", i))
		x := a.join(t, w, p, fmt.Sprint("peer ", i), board)
		lie := rapid.SampledFrom([]func(int, Msg) []Msg{nil, nil, forging, misnaming, silent}).Draw(t, "lie")
		x.bend = lie
		if rapid.Bool().Draw(t, "limited") {
			x.side[1].cfg.MaxServe = int64(rapid.IntRange(1, 20_000).Draw(t, "limit"))
		}
		peers, wires, bad = append(peers, p), append(wires, x), append(bad, lie != nil)
	}
	draw := func(n int) int {
		if n == 1 {
			return 0
		}
		return rapid.IntRange(0, n-1).Draw(t, "next")
	}
	for n := rapid.IntRange(0, 400).Draw(t, "messages"); n > 0 && step(wires, draw); n-- {
		if rapid.IntRange(0, 60).Draw(t, "cut") == 0 { // a stream breaks
			i := draw(len(wires))
			wires[i].errs = [2]error{errClosed, errClosed}
			wires[i].ways = [2][]Msg{}
			wires[i].side[0].End()
		}
	}
	for i, x := range wires {
		if err := x.errs[0]; err != nil && !errors.Is(err, errClosed) && (!bad[i] || !errors.Is(err, ErrPeer)) {
			t.Fatalf("peer %d: bad %v: %v", i, bad[i], err)
		}
		x.side[0].End()
	}
	if !board.idle() {
		t.Fatalf("left on the board: %+v", board)
	}
	want := a.ids()
	for _, p := range peers {
		maps.Copy(want, p.ids())
	}
	for i, p := range peers { // the last round brings what the others did not have
		x := a.join(t, w, p, fmt.Sprint("again ", i), board)
		for step([]*wire{x}, draw) {
		}
		if r := x.side[0].Result(); x.errs[0] != nil || !r.Equal {
			t.Fatalf("again with %d: %+v, %v", i, r, x.errs)
		}
	}
	if got := a.ids(); !maps.Equal(got, want) || !board.idle() {
		t.Fatalf("%d held, want %d; board %+v", len(got), len(want), board)
	}
}

// forging breaks signatures now and then.
func forging(from int, m Msg) []Msg {
	if r, ok := m.(Envelopes); ok && from == 1 && r.Run[0].Seq()%3 == 0 {
		r.Run = slices.Clone(r.Run)
		last := len(r.Run) - 1
		r.Run[last] = flip(r.Run[last], r.Run[last].Len()-1)
		return []Msg{r}
	}
	return []Msg{m}
}

// misnaming names heads that there are not.
func misnaming(from int, m Msg) []Msg {
	if mm, ok := m.(Manifest); ok && from == 1 && len(mm.Heads) > 0 {
		mm.Heads = slices.Clone(mm.Heads)
		mm.Heads[len(mm.Heads)/64*32] ^= 1
		return []Msg{mm}
	}
	return []Msg{m}
}

// silent sends no runs.
func silent(from int, m Msg) []Msg {
	if _, ok := m.(Envelopes); ok && from == 1 {
		return nil
	}
	return []Msg{m}
}

var _ envelope.IDs = (*memory)(nil)
