package node

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/xrpc"
)

// TestDrawnAgainUnseen: while an author's records are drawn again nobody sees
// that some are missing, and after a power cut in the middle of it a node that
// has started has all of them.
func TestDrawnAgainUnseen(t *testing.T) {
	const batches = 12
	home, disk := newHome(t), storetest.NewDisk()
	n := boot(t, home, onDisk(disk))
	id, err := newSpace(n, "club")
	if err != nil {
		t.Fatal(err)
	}
	for i := range batches {
		if _, err := putAll(n, id, "written", fmt.Sprint("key-", i)); err != nil {
			t.Fatal(err)
		}
		if i%4 == 3 { // a chain for each epoch
			if _, err := n.Rotate(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards what follows
	var cuts []*storetest.Disk
	var seen []error
	disk.OnOp = func() {
		mu.Lock()
		defer mu.Unlock()
		cuts = append(cuts, disk.Clone(nil), disk.Clone(func(n int) int { return n }))
		if !a.drawing.TryRLock() {
			return // readers wait
		}
		defer a.drawing.RUnlock()
		if r := a.snapshot(n.self.did)[n.self.did]; r == nil || r.Count() != batches {
			seen = append(seen, fmt.Errorf("at operation %d: %v", len(cuts)/2, r))
		}
	}
	reply := make(chan error, 1)
	err, sendErr := ask(t.Context(), a, errand(func() { reply <- a.drawAgain(n.self.did) }), reply)
	if err = errors.Join(err, sendErr); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	disk.OnOp = nil
	if err := errors.Join(seen...); err != nil {
		t.Errorf("a reader sees records missing: %v", err)
	}
	if len(cuts) < 6 {
		t.Fatalf("%d power cuts", len(cuts))
	}
	for i, left := range cuts {
		again := boot(t, home, onDisk(left))
		recs, _, err := again.Records(t.Context(), id, xrpc.RecordQuery{Limit: 2 * batches})
		if err != nil || len(recs) != batches {
			t.Errorf("started after power cut %d: %d records of %d, %v", i, len(recs), batches, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts", len(cuts))
}
