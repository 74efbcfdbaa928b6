package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kithnet/kith/space"
)

// A view shows what was there when it was taken, and from any place of the
// oplog what a scan of all of it shows.
func TestView(t *testing.T) {
	s := openMemory(t).Space([32]byte{1}, [32]byte{2})
	a := newAuthor(t, testAuthor)
	var all []OpRow
	for i := range 40 {
		var b Batch
		a.write(&b, i*3, 1+i%5, fmt.Sprint("v", i))
		commit(t, s, Remote, &b)
		for _, p := range b.Ops {
			all = append(all, p.Rows...)
		}
	}
	v := must[*View](t)(s.View())
	var b Batch
	a.write(&b, 0, 1, "") // deleted after the view
	commit(t, s, Own, &b)

	row, ok, err := v.Record(testAuthor, testPath(0))
	if err != nil || !ok || row.Leaf.CID.IsZero() {
		t.Errorf("the view shows %+v, %v, %v", row, ok, err)
	}
	if row, _, _ := s.Record(testAuthor, testPath(0)); !row.Leaf.CID.IsZero() {
		t.Error("the record was not deleted")
	}
	for at := -1; at < len(all); at++ {
		var rev space.TID
		idx := -1
		if at >= 0 {
			rev, idx = all[at].Rev, all[at].Idx
		}
		have := must[[]OpRow](t)(v.OpsAfter(testAuthor, rev, idx, uint64(len(all)), 7))
		want := all[at+1 : min(at+8, len(all))]
		if fmt.Sprint(have) != fmt.Sprint(want) {
			t.Fatalf("behind op %d: %v, want %v", at, have, want)
		}
	}
	if ops := must[[]OpRow](t)(v.OpsAfter("did:key:zNobody", 0, -1, 0, 7)); len(ops) > 0 {
		t.Errorf("of nobody: %v", ops)
	}
	v.Release()
	if _, _, err := v.Record(testAuthor, testPath(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("a released view reads: %v", err)
	}
}
