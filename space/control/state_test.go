package control

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// A state stays what it was, whatever is applied to it, in whatever order.
func TestApplyIsPure(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := founded(t)
		type point struct {
			s    *State
			text string
		}
		points := []point{{l.s, describe(l.s)}}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			from := rapid.SampledFrom(points).Draw(rt, "from")
			branch := *l
			branch.s, branch.entries = from.s, nil
			branch.rand = fixed(fmt.Sprint("branch", len(points)))
			history(rt, &branch, rapid.IntRange(1, 8).Draw(rt, "length"))
			points = append(points, point{branch.s, describe(branch.s)})
		}
		for i, p := range points {
			if got := describe(p.s); got != p.text {
				rt.Fatalf("state %d was\n%s\nand is\n%s", i, p.text, got)
			}
		}
	})
}

// Goroutines may build on one state at once; -race watches.
func TestApplyInParallel(t *testing.T) {
	l := founded(t)
	for i := range 200 {
		l.add(KindMemberAdd, l.member(i))
	}
	before := describe(l.s)
	results := make([]string, 8)
	var wg sync.WaitGroup
	for g := range results {
		wg.Go(func() {
			b := *l
			b.rand, b.entries = fixed("parallel"), nil
			for i := range 100 {
				b.add(KindMemberAdd, b.member(1000+i))
			}
			results[g] = describe(b.s)
		})
	}
	wg.Wait()
	if slices.ContainsFunc(results, func(s string) bool { return s != results[0] }) || describe(l.s) != before {
		t.Fatal("states built side by side disturb each other")
	}
}

// holdback is the little that a node needs around Apply when entries come in
// any order and more than once.
type holdback struct {
	s       *State
	waiting map[uint64]*Entry
}

func (h *holdback) deliver(e *Entry) error {
	h.waiting[e.Seq] = e
	for {
		var want uint64
		if h.s != nil {
			want = h.s.Head.Seq + 1
		}
		next, ok := h.waiting[want]
		if !ok {
			_, err := Apply(h.s, e)
			if gap := (ErrGap{}); errors.As(err, &gap) && gap.Want != want {
				return fmt.Errorf("wants %d, says %d", want, gap.Want)
			} else if stale := (ErrStale{}); errors.As(err, &gap) || errors.As(err, &stale) {
				return nil
			}
			return fmt.Errorf("entry %d meets %d: %w", e.Seq, want, err)
		}
		s, err := Apply(h.s, next)
		if err != nil {
			return err
		}
		h.s = s
		delete(h.waiting, want)
	}
}

func TestAnyOrderOfDelivery(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := founded(t)
		history(rt, l, rapid.IntRange(0, 12).Draw(rt, "length"))
		order := rapid.Permutation(l.entries).Draw(rt, "order")
		again := rapid.SliceOfN(rapid.SampledFrom(l.entries), 0, 6).Draw(rt, "again")
		h := holdback{waiting: map[uint64]*Entry{}}
		for _, e := range append(slices.Clone(order), again...) {
			if err := h.deliver(l.reparse(e)); err != nil {
				rt.Fatal(err)
			}
		}
		if got, want := describe(h.s), describe(l.s); got != want {
			rt.Fatalf("delivered:\n%s\nwritten:\n%s", got, want)
		}
	})
}

func TestRosterRootCommits(t *testing.T) {
	l := populated(t)
	root := l.s.RosterRoot()
	if founded(t).s.RosterRoot() == root {
		t.Fatal("two rosters, one root")
	}
	for name, edit := range map[string]func(m *Member){
		"slot":       func(m *Member) { m.Slot = 50 },
		"commitment": func(m *Member) { m.C[0] ^= 1 },
		"level":      func(m *Member) { m.Level = space.LevelReadSelf },
		"DID":        func(m *Member) { m.DID += "x" },
	} {
		s := *l.s
		m := must2(s.bySlot.get(1))
		x := *m
		edit(&x)
		s.bySlot = s.bySlot.with(1, &x)
		if s.RosterRoot() == root {
			t.Errorf("%s is not under the root", name)
		}
	}
	other := *l.s
	other.SpaceID[0] ^= 1
	if other.RosterRoot() == root {
		t.Error("space id is not under the root")
	}
	if l.s.RosterRoot() != root {
		t.Error("the root changed")
	}
}

func must2[T any](v T, ok bool) T {
	if !ok {
		panic("not there")
	}
	return v
}

func TestUnknownMember(t *testing.T) {
	s := founded(t).s
	if _, ok := s.Member(identity.Commitment{9}); ok {
		t.Error("unknown commitment found")
	}
	if _, ok := s.MemberByDID("did:web:nobody.example"); ok {
		t.Error("unknown DID found")
	}
	if _, ok := s.Invite([16]byte{9}); ok {
		t.Error("unknown invite found")
	}
	for range s.Members() {
		break
	}
}

// One member-add into a large roster: parse, two signatures, open, apply.
func BenchmarkMemberAdd(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := founded(b)
			for i := range n {
				l.fill(i)
			}
			raw := l.build(KindMemberAdd, l.member(n)).Raw()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Apply(l.s, l.reparse(&Entry{raw: raw})); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fill admits person i without an entry.
func (l *log) fill(i int) {
	m := l.member(i)
	s := *l.s
	s.admit(&Member{Slot: m.Slot, C: m.C, DID: m.DID, Level: m.Level, ILHead: m.ILHead})
	l.s = &s
}

// A log of 10^5 member-adds from its bytes, what is kept being the state.
func BenchmarkReplay(b *testing.B) {
	const n = 100_000
	l := founded(b)
	raws := [][]byte{l.entries[0].Raw(), l.entries[1].Raw()}
	for i := range n {
		raws = append(raws, l.add(KindMemberAdd, l.member(i)).Raw())
		l.entries = nil
	}
	ck := func(uint64) []byte { return l.keys.CK }
	b.ReportAllocs()
	for b.Loop() {
		if s, err := Replay(raws, ck); err != nil || s.Len() != n+1 {
			b.Fatal(err)
		}
	}
}

func BenchmarkRosterRoot(b *testing.B) {
	l := founded(b)
	for i := range 100_000 {
		l.fill(i)
	}
	for b.Loop() {
		l.s.RosterRoot()
	}
}
