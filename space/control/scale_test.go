package control

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
)

var full = flag.Bool("full", false, "run the scale tests at their full size")

// longLog writes a log of n entries about a roster of people: adds, removals
// and level changes both ways, with at most rotations epochs after the first.
func longLog(tb testing.TB, people, n, rotations int) ([][]byte, *State) {
	l := founded(tb)
	out := raws(l.entries)
	add := func(kind Kind, body any) {
		out = append(out, l.add(kind, body).Raw())
		l.entries = nil
	}
	for i := range people {
		b := l.member(i)
		b.Level = space.LevelReadSelf
		add(KindMemberAdd, b)
	}
	rotating := l.s.Policy
	static := rotating
	static.Mint, static.KeyPolicy = space.MintPublic, space.KeysStatic
	add(KindPolicy, static)
	every := max(1, (n-people)/max(1, rotations/2))
	for i := 0; len(out) < n; i++ {
		m, ok := l.s.Member(l.member(i % people).C)
		switch {
		case !ok:
			b := l.member(i % people)
			b.Level = space.LevelRead
			add(KindMemberAdd, b)
		case i%every == every-1 && int(l.s.Epoch)+1 < rotations:
			add(KindPolicy, l.rotated(KindPolicy, PolicyChange{Policy: rotating}))
			add(KindMemberRemove, l.removal(m.Slot, func(r *Rotation) { r.Epoch.Cuts = manyCuts(100) }))
			add(KindPolicy, static)
		case i%17 == 0:
			add(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C})
		default:
			add(KindMemberLevel, MemberLevel{Slot: m.Slot, C: m.C, Level: 1 + m.Level%3})
		}
	}
	return out, l.s
}

func TestC19LongLog(t *testing.T) {
	people, n := 300, 3000
	if *full {
		people, n = 10_000, 100_000
	}
	log, want := longLog(t, people, n, 100)
	if want.Epoch < 10 || want.Epoch > 101 {
		t.Fatalf("%d epochs", want.Epoch)
	}
	ck := drafted(t).keys.CK
	runtime.GC()
	start := time.Now()
	s, err := Replay(log, func(uint64) []byte { return ck })
	took := time.Since(start)
	if err != nil || s.RosterRoot() != want.RosterRoot() || s.Head != want.Head {
		t.Fatal(err)
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	t.Logf("%d entries, %d members, epoch %d: applied in %v, %d MB in use, %d MB of the system", len(log), s.Len(), s.Epoch, took, mem.HeapAlloc>>20, mem.Sys>>20)
	if took > 60*time.Second || mem.Sys > 500<<20 {
		t.Fatalf("took %v and %d MB", took, mem.Sys>>20)
	}
}

// largeRoster is a log whose n members came in without entries.
func largeRoster(tb testing.TB, n int) *log {
	l := founded(tb)
	for i := range n - 1 {
		l.fill(i)
	}
	return l
}

// Building and applying a removal, the wraps being there already.
func BenchmarkRemoval(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		l := largeRoster(b, n)
		m := l.memberAt(7)
		body := MemberRemove{Slot: m.Slot, C: m.C}
		next := must(Preview(l.s, KindMemberRemove, body))
		whole := WithRotation(body, rotationFor(next))
		raw := l.build(KindMemberRemove, whole).Raw()
		b.Run(fmt.Sprint("preview/", n), func(b *testing.B) {
			for b.Loop() {
				must(Preview(l.s, KindMemberRemove, body)).RosterRoot()
			}
		})
		b.Run(fmt.Sprint("build/", n), func(b *testing.B) {
			for b.Loop() {
				p := must(Propose(l.s, KindMemberRemove, whole, l.keys.Proposer, l.rand))
				must(Commit(l.s, p, l.keys.Sequencer, l.keys.CK, l.now, l.rand))
			}
		})
		b.Run(fmt.Sprint("apply/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(Apply(l.s, l.reparse(&Entry{raw: raw})))
			}
		})
	}
}

func BenchmarkPages(b *testing.B) {
	l := largeRoster(b, 10_000)
	var page []Wrap
	for r := range l.s.Readers() {
		if len(page) < PageSlots {
			page = append(page, Wrap{Slot: r.Slot, C: r.C, PUKGen: 1, Sealed: make([]byte, 1168)})
		}
	}
	raw := must(EncodePage(page))
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			must(EncodePage(page))
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			must(DecodePage(raw))
		}
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := l.s.CheckPage(0, page); err != nil {
				b.Fatal(err)
			}
		}
	})
}
