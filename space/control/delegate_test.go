package control

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// testDescriptor is of a space that stands below and has nothing below itself.
func testDescriptor(child [32]byte, nowMs int64) Descriptor {
	return signedDescriptor(Descriptor{
		Space: child, URI: fmt.Sprintf("at://did:web:c%x.example/space/com.example.forum/self", child[:4]), Epoch: 1,
		Delegate: []byte("delegate key of epoch 1"), Head: space.Head{Seq: 5, Hash: [32]byte{5}},
		NotAfterMs: uint64(nowMs + DescriptorLifeMs),
	})
}

func signedDescriptor(d Descriptor) Descriptor {
	k := fixedKey(fmt.Sprintf("sequencer %x", d.Space))
	d.Sequencer = pub(k)
	return must(d.Sign(k))
}

// delegation is the body that makes a space a member next, or refreshes it.
func (l *log) delegation(child byte, level space.Level, edit ...func(*Descriptor)) Delegation {
	id := [32]byte{child}
	d := testDescriptor(id, l.now+1000)
	b := Delegation{Slot: l.s.NextSlot(), Child: id, Level: level}
	if old, ok := l.s.Delegation(id); ok {
		b.Slot, d.Head.Seq = old.Slot, old.Descriptor.Head.Seq+1
	}
	for _, f := range edit {
		f(&d)
	}
	b.Descriptor = must(signedDescriptor(d).Encode())
	return b
}

func TestDelegation(t *testing.T) {
	l := settled(t)
	root := l.s.RosterRoot()
	l.add(KindDelegationSet, l.delegation(9, space.LevelWrite))
	if l.s.RosterRoot() == root || l.s.NextSlot() != 6 || l.s.Len() != 5 || l.s.ReaderCount() != 6 {
		t.Fatalf("after a delegation:\n%s", describe(l.s))
	}
	l.add(KindMemberAdd, l.member(30))
	readers := slices.Collect(l.s.Readers())
	if r := readers[5]; !r.Delegation || r.Child != [32]byte{9} || r.C != [32]byte{9} || r.Slot != 5 || readers[6].Slot != 6 {
		t.Fatalf("readers are %+v", readers)
	}
	l.add(KindEpoch, l.rotation()) // one wrap more
	l.add(KindDelegationSet, l.rotated(KindDelegationSet, l.delegation(9, space.LevelRead, func(d *Descriptor) {
		d.Epoch, d.Delegate = 2, []byte("delegate key of epoch 2")
	})))
	if d := must2(l.s.Delegation([32]byte{9})); d.Slot != 5 || d.Level != space.LevelRead || d.Descriptor.Epoch != 2 {
		t.Fatalf("refreshed it is %+v", d)
	}
	l.add(KindDelegationSet, l.rotated(KindDelegationSet, Delegation{Slot: 5, Child: [32]byte{9}}))
	if _, ok := l.s.Delegation([32]byte{9}); ok || l.s.ReaderCount() != 6 || l.s.Epoch != 4 {
		t.Fatalf("after its end:\n%s", describe(l.s))
	}
	l.add(KindDelegationSet, l.delegation(9, space.LevelRead))
	if d := must2(l.s.Delegation([32]byte{9})); d.Slot != 7 {
		t.Fatalf("slot %d again", d.Slot)
	}
	for range l.s.Readers() {
		break
	}
}

// C14: a space in itself is refused, directly and by way of another.
func TestC14CycleRefused(t *testing.T) {
	with := func(level space.Level, edit func(*log, *Delegation, *Descriptor)) func(*log) any {
		return func(l *log) any {
			b := l.delegation(8, level)
			d := must(ParseDescriptor(b.Descriptor))
			edit(l, &b, &d)
			b.Descriptor = must(signedDescriptor(d).Encode())
			return b
		}
	}
	below := func(n int) [][32]byte {
		out := make([][32]byte, n)
		for i := range out {
			out[i] = [32]byte{0xf0, byte(i >> 8), byte(i)}
		}
		return out
	}
	start := func(tb testing.TB) *log {
		l := settled(tb)
		l.add(KindDelegationSet, l.delegation(9, space.LevelRead, func(d *Descriptor) { d.Epoch = 3 }))
		return l
	}
	again := func(edit func(*Descriptor)) func(*log) any {
		return func(l *log) any { return l.rotated(KindDelegationSet, l.delegation(9, space.LevelRead, edit)) }
	}
	bare := func(edit func(*Descriptor)) func(*log) any {
		return func(l *log) any { return WithRotation(l.delegation(9, space.LevelRead, edit), l.rotation()) }
	}
	plain := func(edit func(*log, *Delegation)) func(*log) any {
		return func(l *log) any {
			b := l.delegation(8, space.LevelRead)
			edit(l, &b)
			return b
		}
	}
	runRefusals(t, start, []refusal{
		{"itself", KindDelegationSet, with(space.LevelRead, func(l *log, b *Delegation, d *Descriptor) { b.Child, d.Space = l.s.SpaceID, l.s.SpaceID }), nil, space.ErrDelegationCycle},
		{"by way of another", KindDelegationSet, with(space.LevelRead, func(l *log, _ *Delegation, d *Descriptor) { d.Depth, d.Descendants = 1, [][32]byte{l.s.SpaceID} }), nil, space.ErrDelegationCycle},
		{"refreshed into a cycle", KindDelegationSet, func(l *log) any {
			return bare(func(d *Descriptor) { d.Depth, d.Descendants = 1, [][32]byte{l.s.SpaceID} })(l)
		}, nil, space.ErrDelegationCycle},
		{"too deep", KindDelegationSet, with(space.LevelRead, func(_ *log, _ *Delegation, d *Descriptor) { d.Depth, d.Descendants = 8, below(8) }), nil, ErrDepth},
		{"too deep, by its own error", KindDelegationSet, with(space.LevelRead, func(_ *log, _ *Delegation, d *Descriptor) { d.Depth, d.Descendants = 8, below(8) }), nil, space.ErrDelegationDepth},
		{"too many below", KindDelegationSet, with(space.LevelRead, func(_ *log, _ *Delegation, d *Descriptor) { d.Depth, d.Descendants = 2, below(MaxDescendants) }), nil, space.ErrTooLarge},
		{"read_self", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Level = space.LevelReadSelf }), nil, space.ErrMalformed},
		{"descriptor of another", KindDelegationSet, with(space.LevelRead, func(_ *log, _ *Delegation, d *Descriptor) { d.Space = [32]byte{7} }), nil, space.ErrForged},
		{"slot taken", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Slot-- }), nil, space.ErrMalformed},
		{"slot left out", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Slot++ }), nil, space.ErrMalformed},
		{"no descriptor", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Descriptor = nil }), nil, space.ErrMalformed},
		{"a broken descriptor", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Descriptor[len(b.Descriptor)-1] ^= 1 }), nil, space.ErrForged},
		{"a huge descriptor", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Descriptor = make([]byte, MaxDescriptor+1) }), nil, space.ErrTooLarge},
		{"no space", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Child = [32]byte{} }), nil, space.ErrMalformed},
		{"end of none", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Level, b.Descriptor = space.LevelNone, nil }), nil, space.ErrMemberNotFound},
		{"end without an epoch", KindDelegationSet, func(*log) any { return Delegation{Slot: 5, Child: [32]byte{9}} }, nil, space.ErrMalformed},
		{"end with a descriptor", KindDelegationSet, plain(func(_ *log, b *Delegation) { b.Level = space.LevelNone }), nil, space.ErrMalformed},
		{"run out", KindDelegationSet, with(space.LevelRead, func(l *log, _ *Delegation, d *Descriptor) { d.NotAfterMs = uint64(l.now) }), nil, space.ErrStaleDescriptor},
		{"good for too long", KindDelegationSet, with(space.LevelRead, func(l *log, _ *Delegation, d *Descriptor) {
			d.NotAfterMs = uint64(l.now + DescriptorLifeMs + descriptorSkewMs + 1)
		}), nil, space.ErrMalformed},
		{"fresh without an epoch", KindDelegationSet, func(l *log) any {
			return l.delegation(9, space.LevelRead, func(d *Descriptor) { d.Epoch = 3 })
		}, nil, space.ErrMalformed},
		{"at another slot", KindDelegationSet, func(l *log) any {
			b := l.delegation(9, space.LevelRead)
			b.Slot = l.s.NextSlot()
			return b
		}, nil, space.ErrMalformed},
		{"older than known", KindDelegationSet, bare(func(d *Descriptor) { d.Head.Seq, d.Epoch = 4, 3 }), nil, space.ErrStaleDescriptor},
		{"of an epoch before the known", KindDelegationSet, bare(func(d *Descriptor) { d.Epoch = 2 }), nil, space.ErrStaleDescriptor},
		{"another of one head", KindDelegationSet, bare(func(d *Descriptor) { d.Head, d.Epoch = space.Head{Seq: 5, Hash: [32]byte{6}}, 3 }), nil, space.ErrForged},
		{"another key of one epoch", KindDelegationSet, bare(func(d *Descriptor) { d.Epoch, d.Delegate = 3, []byte("another") }), nil, space.ErrForged},
	})
	l := start(t)
	l.add(KindDelegationSet, again(func(d *Descriptor) { d.Epoch = 3; d.Depth, d.Descendants = 7, below(7) })(l))
	if depth, all := l.s.below(); depth != 8 || len(all) != 8 {
		t.Fatalf("depth %d, %d below", depth, len(all))
	}
}

func TestDescribe(t *testing.T) {
	l := settled(t)
	d, err := l.s.Describe([]byte("delegate"), l.keys.Sequencer, l.now)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Keepers) != 2 || d.Depth != 0 || d.Head != l.s.Head || d.Verify(l.now) != nil {
		t.Fatalf("descriptor is %+v", d)
	}
	back, err := ParseDescriptor(must(d.Encode()))
	if err != nil || fmt.Sprint(back) != fmt.Sprint(d) {
		t.Fatalf("parsed it is %+v, %v", back, err)
	}
	if _, err := l.s.Describe([]byte("delegate"), fixedKey("keeper"), l.now); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("by another than the sequencer: %v", err)
	}
	l.add(KindDelegationSet, l.delegation(9, space.LevelRead, func(d *Descriptor) { d.Depth, d.Descendants = 1, [][32]byte{{1}} }))
	d = must(l.s.Describe([]byte("delegate"), l.keys.Sequencer, l.now))
	if d.Depth != 2 || !slices.Equal(d.Descendants, [][32]byte{{1}, {9}}) {
		t.Fatalf("with a space below: %+v", d)
	}
	for name, tt := range map[string]struct {
		edit func(*Descriptor)
		want error
	}{
		"no delegate key":    {func(d *Descriptor) { d.Delegate = nil }, space.ErrMalformed},
		"huge delegate key":  {func(d *Descriptor) { d.Delegate = make([]byte, maxDelegateKey+1) }, space.ErrMalformed},
		"no space":           {func(d *Descriptor) { d.Space = [32]byte{} }, space.ErrMalformed},
		"epoch 0":            {func(d *Descriptor) { d.Epoch = 0 }, space.ErrMalformed},
		"uri of nothing":     {func(d *Descriptor) { d.URI = "at://x" }, space.ErrMalformed},
		"sequencer no key":   {func(d *Descriptor) { d.Sequencer = [32]byte{1} }, space.ErrMalformed},
		"out of time":        {func(d *Descriptor) { d.NotAfterMs = MaxTime + 1 }, space.ErrMalformed},
		"keepers disordered": {func(d *Descriptor) { slices.Reverse(d.Keepers) }, space.ErrMalformed},
		"below disordered":   {func(d *Descriptor) { d.Descendants = [][32]byte{{2}, {1}} }, space.ErrMalformed},
		"deep with nothing":  {func(d *Descriptor) { d.Descendants = nil }, space.ErrMalformed},
		"flat with spaces":   {func(d *Descriptor) { d.Depth = 0 }, space.ErrMalformed},
		"crowd":              {func(d *Descriptor) { d.Descendants = make([][32]byte, MaxDescendants+1) }, space.ErrTooLarge},
	} {
		bad := d
		bad.Keepers = slices.Clone(d.Keepers)
		tt.edit(&bad)
		if _, err := bad.Sign(l.keys.Sequencer); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if _, err := ParseDescriptor(must(space.Marshal(bad))); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	d.Sig[0] ^= 1
	if _, err := ParseDescriptor(must(d.Encode())); !errors.Is(err, space.ErrForged) {
		t.Errorf("signature: %v", err)
	}
}

// graph is who is in what, for Resolve.
type graph map[byte]Node

func (g graph) look(id [32]byte) (Node, error) {
	n, ok := g[id[0]]
	if !ok {
		return Node{}, space.ErrUnavailable
	}
	return n, nil
}

func edges(pairs ...any) []Edge {
	var out []Edge
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, Edge{[32]byte{byte(pairs[i].(int))}, pairs[i+1].(space.Level)})
	}
	return out
}

func TestPathLevel(t *testing.T) {
	const self, read, write = space.LevelReadSelf, space.LevelRead, space.LevelWrite
	for _, tt := range []struct {
		edges []space.Level
		want  space.Level
	}{
		{nil, write}, {[]space.Level{write}, write}, {[]space.Level{write, read}, read}, {[]space.Level{read, write}, read},
		{[]space.Level{read, self, write}, self}, {[]space.Level{write, space.LevelNone}, space.LevelNone},
	} {
		if got := PathLevel(tt.edges...); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.edges, got, tt.want)
		}
	}
}

// C14: the highest over all paths of the lowest on each, in either order.
func TestC14Diamond(t *testing.T) {
	const read, write = space.LevelRead, space.LevelWrite
	for name, top := range map[string][]Edge{"one order": edges(2, read, 3, write), "the other": edges(3, write, 2, read)} {
		g := graph{1: {Edges: top}, 2: {Edges: edges(4, write)}, 3: {Edges: edges(4, write)}, 4: {Level: write}}
		if got, err := Resolve([32]byte{1}, g.look); err != nil || got != write {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		g[3] = Node{Edges: edges(4, read)}
		if got, err := Resolve([32]byte{1}, g.look); err != nil || got != read {
			t.Errorf("%s, both low: %v, %v", name, got, err)
		}
		g[2] = Node{Level: space.LevelReadSelf}
		g[3] = Node{}
		if got, err := Resolve([32]byte{1}, g.look); err != nil || got != space.LevelReadSelf {
			t.Errorf("%s, direct: %v, %v", name, got, err)
		}
		g[2] = Node{}
		if got, err := Resolve([32]byte{1}, g.look); err != nil || got != space.LevelNone {
			t.Errorf("%s, nowhere: %v, %v", name, got, err)
		}
	}
}

// chainOf is n spaces one within the other, the person in the last.
func chainOf(n int) graph {
	g := graph{}
	for i := range n {
		g[byte(i+1)] = Node{Edges: edges(i+2, space.LevelWrite)}
	}
	g[byte(n+1)] = Node{Level: space.LevelWrite}
	return g
}

func TestC13DepthIsAnError(t *testing.T) {
	if got, err := Resolve([32]byte{1}, chainOf(MaxDelegationDepth).look); err != nil || got != space.LevelWrite {
		t.Fatalf("depth %d: %v, %v", MaxDelegationDepth, got, err)
	}
	for _, n := range []int{9, 20} {
		got, err := Resolve([32]byte{1}, chainOf(n).look)
		if !errors.Is(err, ErrDepth) || !errors.Is(err, space.ErrDelegationDepth) || got != space.LevelNone {
			t.Fatalf("depth %d: %v, %v", n, got, err)
		}
	}
	// A long way to where a short one leads as high changes nothing.
	g := chainOf(9)
	g[1] = Node{Edges: append(edges(10, space.LevelWrite), g[1].Edges...)}
	if got, err := Resolve([32]byte{1}, g.look); err != nil || got != space.LevelWrite {
		t.Fatalf("with a short cut: %v, %v", got, err)
	}
	// Where it would lead higher, it is an error and not a lower level.
	g[1] = Node{Edges: append(edges(10, space.LevelRead), g[1].Edges[1:]...)}
	if got, err := Resolve([32]byte{1}, g.look); !errors.Is(err, ErrDepth) {
		t.Fatalf("with a low short cut: %v, %v", got, err)
	}
	loop := graph{1: {Edges: edges(2, space.LevelWrite)}, 2: {Level: space.LevelRead, Edges: edges(1, space.LevelWrite)}}
	if got, err := Resolve([32]byte{1}, loop.look); err != nil || got != space.LevelRead {
		t.Fatalf("a loop: %v, %v", got, err)
	}
	delete(loop, 2)
	if _, err := Resolve([32]byte{1}, loop.look); !errors.Is(err, space.ErrUnavailable) {
		t.Fatalf("a space that does not answer: %v", err)
	}
	wide := func(id [32]byte) (Node, error) {
		var n Node
		for i := range 200 {
			e := Edge{Child: id, Level: space.LevelWrite}
			e.Child[0]++
			e.Child[e.Child[0]] = byte(i)
			n.Edges = append(n.Edges, e)
		}
		return n, nil
	}
	if _, err := Resolve([32]byte{1}, wide); !errors.Is(err, space.ErrTooLarge) {
		t.Fatalf("a crowd: %v", err)
	}
}

// Resolve against every simple path, walked one by one.
func TestResolveNaive(t *testing.T) {
	levels := []space.Level{space.LevelNone, space.LevelReadSelf, space.LevelRead, space.LevelWrite}
	rapid.Check(t, func(rt *rapid.T) {
		g := graph{}
		n := rapid.IntRange(1, 7).Draw(rt, "spaces")
		for i := range n {
			node := Node{Level: rapid.SampledFrom(levels).Draw(rt, "direct")}
			for _, c := range rapid.SliceOfNDistinct(rapid.IntRange(1, n), 0, 3, rapid.ID).Draw(rt, "children") {
				node.Edges = append(node.Edges, Edge{[32]byte{byte(c)}, rapid.SampledFrom(levels[2:]).Draw(rt, "edge")})
			}
			g[byte(i+1)] = node
		}
		var walk func(id byte, left space.Level, on map[byte]bool) space.Level
		walk = func(id byte, left space.Level, on map[byte]bool) space.Level {
			if on[id] {
				return space.LevelNone
			}
			on[id] = true
			defer delete(on, id)
			best := min(left, g[id].Level)
			for _, e := range g[id].Edges {
				best = max(best, walk(e.Child[0], min(left, e.Level), on))
			}
			return best
		}
		want := walk(1, space.LevelWrite, map[byte]bool{})
		if got, err := Resolve([32]byte{1}, g.look); err != nil || got != want {
			rt.Fatalf("%v, %v, want %v in %v", got, err, want, g)
		}
	})
}
