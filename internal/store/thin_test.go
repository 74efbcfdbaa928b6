package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space/envelope"
)

// gappy is a line of which envelopes were dropped, as a list of what is left.
type gappy struct {
	*line
	gone map[uint64]bool
}

// check compares all that can be read of the line with the list.
func (l *gappy) check(t testing.TB, sp *Space) {
	t.Helper()
	for i, e := range l.envs {
		id, ok, err := sp.IDAt(l.c.topic, l.c.chain.ID, uint64(i))
		if err != nil || !ok || id != e.ID() {
			t.Fatalf("id at %d: %v, %v", i, ok, err)
		}
	}
	for at := uint64(0); at < uint64(len(l.envs)); {
		end := at
		for end < uint64(len(l.envs)) && !l.gone[end] {
			end++
		}
		run, err := sp.Run(l.c.topic, l.c.chain.ID, at, 1<<40, 1<<40)
		if err != nil || !slices.EqualFunc(run, l.envs[at:end], func(a, b envelope.Envelope) bool { return a.ID() == b.ID() }) {
			t.Fatalf("run from %d: %d envelopes, want %d: %v", at, len(run), end-at, err)
		}
		at = end
		for end < uint64(len(l.envs)) && l.gone[end] {
			end++
		}
		next, gone, err := sp.Thinned(l.c.topic, l.c.chain.ID, at)
		if err != nil || next != end || gone != (end > at) {
			t.Fatalf("thinned at %d: to %d, %v, want %d: %v", at, next, gone, end, err)
		}
		if end > at+1 {
			if run, err := sp.Run(l.c.topic, l.c.chain.ID, at+1, 1<<40, 1<<40); err != nil || len(run) != 0 {
				t.Fatalf("run from a dropped one: %d envelopes, %v", len(run), err)
			}
		}
		at = end
	}
	row, ok, err := sp.TopicState(l.c.topic)
	if err != nil || !ok || row.Count != uint64(len(l.envs)) || !row.State.Equal(&l.topic.State) {
		t.Fatalf("topic of %d: %v, %v", row.Count, ok, err)
	}
	if found := must[*Audit](t)(sp.Audit(t.Context(), true)); !found.OK() {
		t.Fatalf("audit: %+v", found)
	}
}

func (l *gappy) thin(t testing.TB, sp *Space, seqs []uint64) {
	t.Helper()
	want := 0
	for _, seq := range seqs {
		if seq < uint64(len(l.envs)) && !l.gone[seq] {
			want++
			l.gone[seq] = true
		}
	}
	n, size, err := sp.Thin(l.c.topic, l.c.chain.ID, seqs)
	if err != nil || n != want || (size > 0) != (want > 0) {
		t.Fatalf("dropped %d of %d bytes, want %d: %v", n, size, want, err)
	}
}

// TestNaiveThin: whatever is dropped, in whatever order, of rows of whatever
// size, what is left reads back as from a list, ids and digests as if nothing
// had been dropped, and the chain grows on.
func TestNaiveThin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := storetest.NewDisk()
		st := openFaulty(t, f)
		l := &gappy{newLine(t), map[uint64]bool{}}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			sp := st.Space(historyID, historyDEK)
			for range rapid.IntRange(0, 4).Draw(rt, "pages") {
				l.grow(t, sp, rapid.SampledFrom([]int{1, 1, 1, 2, 7, 40, 300}).Draw(rt, "envelopes"))
			}
			if len(l.envs) == 0 {
				continue
			}
			last := uint64(len(l.envs))
			seqs := rapid.SliceOfNDistinct(rapid.Uint64Range(0, last), 0, 60, rapid.ID[uint64]).Draw(rt, "seqs")
			if rapid.Bool().Draw(rt, "range") {
				from := rapid.Uint64Range(0, last-1).Draw(rt, "from")
				for seq := from; seq < min(last, from+400); seq++ {
					seqs = append(seqs, seq)
				}
			}
			slices.Sort(seqs)
			l.thin(t, sp, slices.Compact(seqs))
			l.check(t, sp)
			if rapid.IntRange(0, 3).Draw(rt, "reopen") == 0 {
				closeStore(t, st)
				st = openFaulty(t, f)
			}
		}
		if len(l.envs) > 0 {
			l.check(t, st.Space(historyID, historyDEK))
		}
		closeStore(t, st)
	})
}

// TestCrashWhileThinning: wherever the power is cut, the chain reads well, and
// thinning it again ends the work.
func TestCrashWhileThinning(t *testing.T) {
	f := storetest.NewDisk()
	power := cutsOf(f)
	st := openFaulty(t, f)
	l := &gappy{newLine(t), map[uint64]bool{}}
	l.c.size = envelope.PaddedSize(12_000) // several batches
	sp := st.Space(historyID, historyDEK)
	l.grow(t, sp, 1, 1, 200, 1, 1, 90, 1)
	if err := st.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	for seq := uint64(1); seq < 290; seq++ {
		if seq%3 != 0 {
			seqs = append(seqs, seq)
		}
	}
	cuts := power.during(func() {
		l.thin(t, sp, seqs)
		if err := st.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	l.check(t, sp)
	closeStore(t, st)
	partly := 0
	for _, disk := range cuts {
		st := openFaulty(t, disk)
		sp := st.Space(historyID, historyDEK)
		left := &gappy{l.line, map[uint64]bool{}}
		for seq := range uint64(len(l.envs)) {
			if _, gone, err := sp.Thinned(l.c.topic, l.c.chain.ID, seq); err != nil {
				t.Fatal(err)
			} else if gone {
				left.gone[seq] = true
			}
		}
		if n := len(left.gone); n > 0 && n < len(seqs) {
			partly++
		}
		left.check(t, sp)
		left.thin(t, sp, seqs)
		left.check(t, sp)
		if len(left.gone) != len(seqs) {
			t.Fatalf("%d are gone, want %d", len(left.gone), len(seqs))
		}
		closeStore(t, st)
	}
	if partly == 0 {
		t.Errorf("no cut of %d left a part", len(cuts))
	}
}

// TestThinnedRowsAreTold: rows that are lost are told from rows that were
// dropped, and a repair keeps the latter.
func TestThinnedRowsAreTold(t *testing.T) {
	st := openMemory(t)
	sp := st.Space(historyID, historyDEK)
	l := &gappy{newLine(t), map[uint64]bool{}}
	l.grow(t, sp, 1, 1, 40, 1)
	l.thin(t, sp, []uint64{1, 5, 6, 7})
	l.check(t, sp)
	// A segment that is gone without having been dropped is a gap.
	b := newBatch()
	b.Delete(sp.key(func(b *blinder) []byte { b.run(tableSegment, l.c.topic, l.c.chain.ID); return b.number(8) }))
	if err := st.write(Own, b); err != nil {
		t.Fatal(err)
	}
	found := must[*Audit](t)(sp.Audit(t.Context(), true))
	if len(found.Gaps) != 1 || found.Gaps[0].Have != 8 {
		t.Fatalf("audit: %+v", found)
	}
	if _, err := sp.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := must[*Audit](t)(sp.Audit(t.Context(), true)); !found.OK() {
		t.Errorf("repaired: %+v", found)
	}
	if next, gone, err := sp.Thinned(l.c.topic, l.c.chain.ID, 5); err != nil || !gone || next != 8 {
		t.Errorf("dropped from 5 to %d, %v, %v", next, gone, err)
	}
}

// TestOldFormat: stores of the formats before open as they were, are raised,
// and can drop what they hold.
func TestOldFormat(t *testing.T) {
	if *writeFixture {
		keepStore(t)
	}
	for _, version := range []string{"2", "3"} {
		t.Run(version, func(t *testing.T) { opensOld(t, version) })
	}
}

func opensOld(t *testing.T, version string) {
	dir := unpackStore(t, version)
	if b := must[[]byte](t)(os.ReadFile(filepath.Join(dir, formatFile))); !strings.HasPrefix(string(b), "kith store "+version+"\n") {
		t.Fatalf("the kept store is of %q", b)
	}
	s := openDisk(t, dir, Options{})
	defer closeStore(t, s)
	sp := s.Space([32]byte{1}, [32]byte{2})
	if s.Recovered() {
		t.Error("taken for damage")
	}
	fresh := openMemory(t).Space([32]byte{1}, [32]byte{2})
	l := &gappy{keptRows(t, fresh), map[uint64]bool{}}
	l.check(t, sp)
	for _, pair := range [][2]any{
		{collect(t, sp.Repos()), collect(t, fresh.Repos())},
		{collect(t, sp.Control()), collect(t, fresh.Control())},
		{len(collect(t, sp.Records(testAuthor))), len(collect(t, fresh.Records(testAuthor)))},
	} {
		equal(t, "rows", fmt.Sprint(pair[0]), fmt.Sprint(pair[1]))
	}
	l.thin(t, sp, []uint64{2, 3, 9})
	l.check(t, sp)
	if n := must[int](t)(sp.PruneOps(testAuthor, 1<<62, 0)); n != 0 {
		t.Errorf("%d of 60 ops went", n)
	}
	b := must[[]byte](t)(os.ReadFile(filepath.Join(dir, formatFile)))
	equal(t, "format", strings.HasPrefix(string(b), fmt.Sprintf("kith store %d\n", FormatVersion)), true)
}
