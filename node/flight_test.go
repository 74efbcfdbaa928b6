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
	"github.com/kithnet/kith/space/envelope"
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

// TestBeginsLong: the first runs of a chain are taken whole, as one that comes
// long after, and so they are where only what follows the hello is well signed.
func TestBeginsLong(t *testing.T) {
	for _, badly := range []bool{false, true} {
		a, b, id := pairOf(t)
		onA, onB := actorOf(t, a, id), actorOf(t, b, id)
		f := newForger(t, onB.current())
		f.badly = badly
		run := []envelope.Envelope{f.hello(t, b.self.c, b.self.device.ID(), onB.control().Head)}
		f.badly = false
		const first, all = 4 * openShare, 12 * openShare
		for i := 1; i < all; i++ {
			rev := space.NextTID(time.Now().UnixMicro(), 1, 0) + space.TID(i)
			run = append(run, f.entry(t, b.self.c, batch(t, rev, fmt.Sprint("r", i))))
		}
		r := &replica{ctx: t.Context(), a: onA, e: onA.current(), with: b.host.ID()}
		r.Submit(&f.cert, run[:first])
		r.Submit(nil, run[first:])
		taken := 0
		for _, o := range r.Outcomes(true) {
			if taken += o.Accepted; o.Err != nil || o.Duplicate > 0 {
				t.Fatalf("badly %v: %+v", badly, o)
			}
		}
		if taken != all {
			t.Errorf("badly %v: %d of %d envelopes were taken", badly, taken, all)
		}
		for i := 1; i < all; i++ {
			if _, err := a.Record(t.Context(), id, b.self.did, testPath(fmt.Sprint("r", i))); err != nil {
				t.Fatalf("badly %v: %v", badly, err)
			}
		}
		found, err := onA.store.Audit(t.Context(), true)
		if err != nil || !found.OK() {
			t.Errorf("badly %v: %+v, %v", badly, found, err)
		}
	}
}
