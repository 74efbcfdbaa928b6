package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// TestCatchUpInFlight: a member that catches up with a long chain, group upon
// group while the one before is written, holds what the author does, on disk too,
// with values that the last write to a path left there.
func TestCatchUpInFlight(t *testing.T) {
	a := freshNode(t)
	info, err := a.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	id := info.ID
	const writers, writes, paths = 16, 200, 700
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range writes {
				n := w*writes + i
				rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"com.example.forum.post","text":"number %d"}`, n))
				if err == nil {
					_, err = a.Write(t.Context(), id, []xrpc.Write{{Action: xrpc.ActionPut, Path: testPath(fmt.Sprint("p", n%paths)), Value: rec}}, xrpc.WriteOptions{})
				}
				errs[w] = errors.Join(errs[w], err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	b := freshNode(t)
	if _, err := b.Join(t.Context(), inv.Link); err != nil {
		t.Fatal(err)
	}
	from, x := actorOf(t, a, id), actorOf(t, b, id)
	author := from.self.did
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		want, have := from.snapshot(author)[author], x.snapshot(author)[author]
		if have != nil && want.Digest() == have.Digest() && have.Count() == paths {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("the records do not come")
		case <-time.After(10 * time.Millisecond):
		}
	}
	compare := func() error {
		for i := range paths {
			p := testPath(fmt.Sprint("p", i))
			mine, _, err := x.store.Record(author, p)
			theirs, _, err2 := from.store.Record(author, p)
			if err = errors.Join(err, err2); err != nil || mine.Leaf != theirs.Leaf || string(mine.Value) != string(theirs.Value) {
				return fmt.Errorf("%s: %v, want %v: %w", p, mine.Leaf, theirs.Leaf, err)
			}
		}
		var ops int
		for page, err := range x.store.Ops(author, 0) {
			if err != nil || int(page.First) != ops {
				return fmt.Errorf("ops from %d, want %d: %w", page.First, ops, err)
			}
			ops += len(page.Rows)
		}
		row, _, err := x.store.Repo(author)
		if err != nil || int(row.OpCount) != ops || row.Count != paths {
			return fmt.Errorf("%d records of %d ops, %d are there: %w", row.Count, row.OpCount, ops, err)
		}
		return nil
	}
	if err := errors.Join(inside(t, x, compare), inside(t, x, x.load), inside(t, x, compare)); err != nil {
		t.Fatal(err)
	}
	var found *store.Audit
	err = inside(t, x, func() (err error) { found, err = x.store.Audit(t.Context(), true); return err })
	if err != nil || !found.OK() {
		t.Fatalf("%+v, %v", found, err)
	}
}
