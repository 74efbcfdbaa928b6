package store

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Records and runs sealed before their commit read back as those sealed in it:
// of a path that comes twice in a batch the last, in whatever part of the batch
// is sealed.
func TestSealedAhead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sp := openMemory(t).Space(historyID, historyDEK)
		want := map[int]string{}
		var b Batch
		for part := range rapid.IntRange(1, 5).Draw(rt, "parts") {
			var rows []RecordRow
			for range rapid.IntRange(1, 80).Draw(rt, "records") {
				i := rapid.IntRange(0, 30).Draw(rt, "path")
				want[i] = fmt.Sprint(part, len(rows))
				rows = append(rows, RecordRow{Author: testAuthor, Path: testPath(i), Value: testRecord(t, want[i])})
			}
			if rapid.IntRange(0, 3).Draw(rt, "sealed") > 0 {
				if err := sp.SealRecords(rows); err != nil {
					rt.Fatal(err)
				}
			}
			b.Records = append(b.Records, rows...)
		}
		commit(t, sp, Derived, &b)
		n := 0
		for r, err := range sp.Records(testAuthor) {
			if err != nil {
				rt.Fatal(err)
			}
			n++
			var i int
			if _, err := fmt.Sscanf(string(r.Path.Key), "key-%d", &i); err != nil {
				rt.Fatal(err)
			}
			if string(r.Value) != string(testRecord(t, want[i])) {
				rt.Fatalf("%s is %q, not %q", r.Path.Key, r.Value, want[i])
			}
		}
		equal(t, "records", n, len(want))
	})
}

// The rows of sealed records are of one use: whatever lies in their memory later,
// and however often copies of them are committed, what they say is stored.
func TestSealedRecordsAreUsedOnce(t *testing.T) {
	sp := openMemory(t).Space(historyID, historyDEK)
	const n = 50
	make := func(from int) (rows []RecordRow) {
		for i := range n {
			rows = append(rows, RecordRow{Author: testAuthor, Path: testPath(from + i), Value: testRecord(t, fmt.Sprint(from+i))})
		}
		if err := sp.SealRecords(rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	first := make(0)
	commit(t, sp, Derived, &Batch{Records: first[:n/2]})
	commit(t, sp, Derived, &Batch{Records: first[:n/2]}) // counts for the second half
	second := make(n)
	commit(t, sp, Derived, &Batch{Records: first})
	commit(t, sp, Derived, &Batch{Records: second})
	for i := range 2 * n {
		r, ok, err := sp.Record(testAuthor, testPath(i))
		if err != nil || !ok || string(r.Value) != string(testRecord(t, fmt.Sprint(i))) {
			t.Fatalf("record %d: %v, %v, %q", i, ok, err, r.Value)
		}
	}
}

// The rows of a sealed run are of one use: what lies in their memory later is no
// part of a run that is committed again.
func TestSealedRunIsUsedOnce(t *testing.T) {
	sp := openMemory(t).Space(historyID, historyDEK)
	a, b := newChain(t, 1, 2), newChain(t, 1, 3)
	first, second := a.next(20), b.next(20)
	for _, r := range []*RunRow{first, second} {
		sealed, err := sp.SealRun(r.Envs)
		if err != nil {
			t.Fatal(err)
		}
		r.Sealed = sealed
		commit(t, sp, Derived, &Batch{Run: r})
	}
	// The second took the memory of the first.
	commit(t, sp, Derived, &Batch{Run: &RunRow{Chain: first.Chain, Envs: first.Envs, Sealed: first.Sealed}})
	for _, c := range []struct {
		of  *chainMaker
		run *RunRow
	}{{a, first}, {b, second}} {
		got, err := sp.Run(c.of.topic, c.of.chain.ID, 0, 100, 1<<20)
		if err != nil || len(got) != 20 {
			t.Fatalf("%d envelopes, %v", len(got), err)
		}
		for i, e := range got {
			equal(t, "envelope", e.ID(), c.run.Envs[i].ID())
		}
	}
	if first.Sealed.of(first.Envs) {
		t.Error("a run that was committed counts as sealed")
	}
}
