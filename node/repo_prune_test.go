package node_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// counted counts the pages that a follower reads.
type counted struct {
	xrpc.Source
	pages int
}

func (c *counted) RepoOps(ctx context.Context, id space.ID, author space.DID, q xrpc.OpsQuery) (xrpc.OpsPage, error) {
	c.pages++
	return c.Source.RepoOps(ctx, id, author, q)
}

// TestPrunedOps: of an oplog the last thousand ops stay, and all that are young.
// Who follows a repo and is within them goes on by ops; who fell behind is told
// so, reads the whole repo and ends with the same one. That is so after a
// restart, and the log goes on growing.
func TestPrunedOps(t *testing.T) {
	home := t.TempDir()
	if _, _, err := node.Init(home, nil); err != nil {
		t.Fatal(err)
	}
	n, api, stop := serveHome(t, home)
	id := create(t, n, "long")
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, n, id, 200, 100)
	asked := &counted{Source: api}
	early := &xrpc.Follower{Source: asked, Repo: repoOf(t, id, st.DID)}
	late := &xrpc.Follower{Source: api, Repo: repoOf(t, id, st.DID)}
	sync := func(fo *xrpc.Follower, recovered int) {
		t.Helper()
		if err := fo.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if fo.Recovered != recovered {
			t.Errorf("the whole repo was read %d times, want %d", fo.Recovered, recovered)
		}
	}
	prune := func(before time.Time, want uint64) {
		t.Helper()
		if err := node.Prune(n, id, before); err != nil {
			t.Fatal(err)
		}
		now, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := now.Counters["opsPruned"]; got != want {
			t.Errorf("%d ops were dropped, want %d", got, want)
		}
	}
	prune(time.Now().Add(time.Hour), 0) // a short one stays, however old
	sync(early, 1)
	fill(t, n, id, 1800, 100)
	sync(late, 1)
	prune(time.Now().Add(-time.Hour), 0) // a young one stays, however long
	prune(time.Now().Add(time.Hour), 1000)
	put(t, n, id, "k0000001", "another")
	sync(late, 1)
	sync(early, 2)
	if asked.pages != 1 {
		t.Errorf("who fell behind read %d pages, want one", asked.pages)
	}
	if early.State.Sum() != late.State.Sum() || early.Rev != late.Rev || len(early.Records) != len(late.Records) {
		t.Errorf("%d records at %s, and %d at %s", len(early.Records), early.Rev, len(late.Records), late.Rev)
	}

	page, err := api.RepoOps(t.Context(), id, st.DID, xrpc.OpsQuery{Limit: 10})
	if err != nil || !page.Pruned || len(page.Ops) != 10 || page.Ops[0].Path.Key != "k0000800" {
		t.Errorf("from the beginning: %+v, %v", page.Ops[:min(1, len(page.Ops))], err)
	}
	first := page.Ops[0].Rev
	if page, err = api.RepoOps(t.Context(), id, st.DID, xrpc.OpsQuery{Since: 1, Limit: 10}); err != nil || !page.Pruned {
		t.Errorf("from within what is gone: %v, %v", page.Pruned, err)
	}
	if page, err = api.RepoOps(t.Context(), id, st.DID, xrpc.OpsQuery{Since: first, Limit: 1000}); err != nil || page.Pruned || len(page.Ops) != 801 || page.State == nil {
		t.Errorf("from the first rev that is kept: %d ops, %v, %v", len(page.Ops), page.Pruned, err)
	}
	if page, err = api.RepoOps(t.Context(), id, st.DID, xrpc.OpsQuery{Cursor: xrpc.FormatOpsCursor(space.TID(1), 3), Limit: 10}); err != nil || !page.Pruned {
		t.Errorf("behind a cursor from before: %v, %v", page.Pruned, err)
	}

	stop()
	n, api, _ = serveHome(t, home)
	early.Source, late.Source = api, api
	for i := range 3 {
		put(t, n, id, fmt.Sprint("after", i), "text")
	}
	sync(early, 2)
	sync(late, 1)
	if d, _, err := verify(t.Context(), api, repoOf(t, id, st.DID)); err != nil || d.State.Sum() != early.State.Sum() || d.State.Sum() != late.State.Sum() {
		t.Errorf("whole %v: not what the followers have", err)
	}
}
