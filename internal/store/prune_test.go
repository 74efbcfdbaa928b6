package store

import (
	"fmt"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// TestNaivePrune: whatever is written, and however often the beginning of the
// oplog is dropped in between, a scan from any place shows what the whole
// oplog has behind that place, as far as it is kept; and everything adds up,
// after the store was opened again too.
func TestNaivePrune(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := filepath.Join(t.TempDir(), "store")
		s := openDisk(t, dir, Options{})
		sp := s.Space([32]byte{1}, [32]byte{2})
		a := newAuthor(t, testAuthor)
		var all []OpRow
		kept := 0
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			for i := range rapid.IntRange(1, 60).Draw(rt, "batches") {
				var b Batch
				a.write(&b, i%9, rapid.IntRange(1, 9).Draw(rt, "ops"), rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "value"))
				commit(t, sp, Remote, &b)
				for _, p := range b.Ops {
					all = append(all, p.Rows...)
				}
			}
			before := all[rapid.IntRange(0, len(all)-1).Draw(rt, "before")].Rev + space.TID(rapid.IntRange(0, 1).Draw(rt, "or that"))
			keep := rapid.IntRange(0, 200).Draw(rt, "keep")
			n := must[int](t)(sp.PruneOps(testAuthor, before, uint64(keep)))
			kept += n
			wanted := 0 // whole revs before, as far as enough stay
			for wanted < len(all) && all[wanted].Rev < before {
				end := wanted + 1
				for end < len(all) && all[end].Rev == all[wanted].Rev {
					end++
				}
				if len(all)-end < max(keep, foldMost) {
					break
				}
				wanted = end
			}
			if kept != max(wanted, kept-n) {
				rt.Fatalf("%d of %d ops are gone, want %d", kept, len(all), wanted)
			}
			checkPruned(t, rt, sp, all, kept)
		}
		closeStore(t, s)
		s = openDisk(t, dir, Options{})
		defer closeStore(t, s)
		sp = s.Space([32]byte{1}, [32]byte{2})
		checkPruned(t, rt, sp, all, kept)
		row, _, err := sp.Repo(testAuthor)
		if state := a.repo.State(); err != nil || row.OpCount != uint64(len(all)) || !row.State.Equal(&state) {
			rt.Fatalf("repo of %d ops, want %d: %v", row.OpCount, len(all), err)
		}
	})
}

// checkPruned looks from every place of an oplog of which the first ops are
// gone.
func checkPruned(t *testing.T, rt *rapid.T, sp *Space, all []OpRow, gone int) {
	t.Helper()
	v := must[*View](t)(sp.View())
	defer v.Release()
	p := must[Pruned](t)(v.Pruned(testAuthor))
	if p.First != uint64(gone) {
		rt.Fatalf("ops from %d are kept, want %d", p.First, gone)
	}
	for range 12 {
		at := rapid.IntRange(-1, len(all)-1).Draw(rt, "place")
		var rev space.TID
		idx := -1
		if at >= 0 {
			rev, idx = all[at].Rev, all[at].Idx
		}
		if got := p.Before(rev, idx); got != (at+1 < gone) {
			rt.Fatalf("behind op %d of %d gone: pruned is %v", at, gone, got)
		}
		have := must[[]OpRow](t)(v.OpsAfter(testAuthor, rev, idx, uint64(len(all)), 7))
		from := max(at+1, gone)
		if want := all[from:min(from+7, len(all))]; fmt.Sprint(have) != fmt.Sprint(want) {
			rt.Fatalf("behind op %d of %d gone: %v, want %v", at, gone, have, want)
		}
	}
	if found := must[*Audit](t)(sp.Audit(t.Context(), true)); !found.OK() {
		rt.Fatalf("audit: %+v", found)
	}
}

// An oplog that was dropped from more than PruneOps said is damage, and one that
// is drawn again begins at the beginning.
func TestPrunedIsNotLost(t *testing.T) {
	sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
	grow := func() *author {
		a := newAuthor(t, testAuthor)
		for i := range 100 {
			var b Batch
			a.write(&b, i, 2, "x")
			commit(t, sp, Remote, &b)
		}
		return a
	}
	a := grow()
	if n := must[int](t)(sp.PruneOps(testAuthor, a.repo.Rev(), 0)); n != 200-foldMost {
		t.Fatalf("%d ops went", n)
	}
	b := new(batch)
	b.Delete(sp.key(func(b *blinder) []byte { b.author(tableOps, testAuthor, macSize); return b.number(200 - foldMost) }))
	if err := sp.store.write(Own, b); err != nil {
		t.Fatal(err)
	}
	if found := must[*Audit](t)(sp.Audit(t.Context(), false)); len(found.Repos) != 1 {
		t.Errorf("audit of a page too few: %+v", found)
	}
	if err := sp.DropAuthor(testAuthor); err != nil {
		t.Fatal(err)
	}
	grow()
	if found := must[*Audit](t)(sp.Audit(t.Context(), true)); !found.OK() {
		t.Errorf("drawn again: %+v", found)
	}
	if n := len(collect(t, sp.Ops(testAuthor, 0))); n != 100 {
		t.Errorf("%d pages, want all", n)
	}
}
