package node

import (
	"errors"
	"slices"
	"testing"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// TestControlEntriesInAnyOrder: who reads the control log out of the chains of
// those who ordered it, with none to ask for the rest of it, has all of it in the
// end, whatever the order and though the space is read anew in between.
func TestControlEntriesInAnyOrder(t *testing.T) {
	a, b, id := pairOf(t)
	var log [][]byte
	before, x := headOf(t, b, id).Seq, actorOf(t, b, id)
	for range 4 {
		if _, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite}); err != nil {
			t.Fatal(err)
		}
	}
	for row, err := range actorOf(t, a, id).store.Control() {
		if err != nil {
			t.Fatal(err)
		}
		if row.Seq > before {
			log = append(log, row.Raw)
		}
	}
	if len(log) < 4 {
		t.Fatalf("%d entries", len(log))
	}
	want := headOf(t, a, id)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := inside(t, x, func() error { return errors.Join(x.store.TruncateControl(before), x.load()) }); err != nil {
		t.Fatal(err)
	}
	read := func(raw []byte) {
		t.Helper()
		err := inside(t, x, func() error {
			c := x.begin()
			x.controlEntry(c, new(position), raw)
			err := c.commit(store.Remote)
			x.settle(c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, raw := range slices.Backward(log[1:]) {
		read(raw)
		read(raw) // twice
		if got := headOf(t, b, id).Seq; got != before {
			t.Fatalf("entry %d was taken before its turn", i)
		}
	}
	if err := inside(t, x, x.load); err != nil {
		t.Fatal(err)
	}
	read(log[0])
	if got := headOf(t, b, id); got != want {
		t.Fatalf("log at %+v, want %+v", got, want)
	}
	if _, ok, err := x.store.Meta(earlyMeta); err != nil || ok {
		t.Fatalf("entries stay behind: %v, %v", ok, err)
	}
}

func headOf(t *testing.T, n *Node, id space.ID) space.Head {
	t.Helper()
	a := actorOf(t, n, id)
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.ctl.Head
}
