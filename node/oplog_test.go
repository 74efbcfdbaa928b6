package node_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// written are batches: "+key" puts a record, "-key" deletes it.
var written = []string{"+a +b +a", "+x -x +c", "-b", "+d +e +f", "-a +a", "-d +g -g -e"}

// TestOplogPages: the oplog has one op for each path of a batch, in the order of
// the last writes, and none for a record that was made and deleted in it. However
// it is paged through, nothing is lost or told twice; a page of whole revs ends
// with one.
func TestOplogPages(t *testing.T) {
	n, _ := serve(t)
	info, err := n.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	for _, batch := range written {
		writeAll(t, n, info.ID, batch)
	}
	const want = "b+ a+ c+ b- d+ e+ f+ a+ d- e-"
	for limit := 1; limit <= 11; limit++ {
		for _, whole := range []bool{false, true} {
			var got []string
			var last space.TID
			for cursor, first := "", true; first || cursor != ""; first = false {
				page, err := n.Oplog(t.Context(), info.ID, info.ID.Authority, xrpc.OpsQuery{Limit: limit, Cursor: cursor, WholeRevs: whole})
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, told(t, page)...)
				if len(page.Ops) > 0 {
					if whole && page.Ops[0].Rev == last {
						t.Errorf("whole pages of %d part rev %s", limit, last)
					}
					last = page.Ops[len(page.Ops)-1].Rev
				}
				if (page.Cursor == "") != (page.State != nil) {
					t.Errorf("pages of %d: cursor %q, state %v", limit, page.Cursor, page.State)
				}
				cursor = page.Cursor
			}
			if strings.Join(got, " ") != want {
				t.Errorf("pages of %d, whole %v: %v, want %s", limit, whole, got, want)
			}
		}
	}
	if open := node.OpenViews(n); open > 0 {
		t.Errorf("%d views are open", open)
	}
}

// writeAll writes a batch, each value saying which write it is.
func writeAll(t *testing.T, n *node.Node, id space.ID, batch string) {
	t.Helper()
	var writes []xrpc.Write
	for i, w := range strings.Fields(batch) {
		write := xrpc.Write{Action: xrpc.ActionDelete, Path: space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(w[1:])}}
		if w[0] == '+' {
			value, err := space.RecordFromJSON(fmt.Appendf(nil, `{"batch":%q,"n":%d}`, batch, i))
			if err != nil {
				t.Fatal(err)
			}
			write.Action, write.Value = xrpc.ActionPut, value
		}
		writes = append(writes, write)
	}
	if _, err := n.Write(t.Context(), id, writes, xrpc.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// told are the ops of a page, which is closed. A value that is given must be of
// the op, and the last of a record must be given.
func told(t *testing.T, page *xrpc.Oplog) []string {
	t.Helper()
	defer page.Close()
	var out, valued []string
	for _, op := range page.Ops {
		kind := "+"
		if op.CID.IsZero() {
			kind = "-"
		}
		out = append(out, string(op.Path.Key)+kind)
	}
	err := page.Values(0, len(page.Ops), func(i int, value space.Record) {
		if value.CID() != page.Ops[i].CID {
			t.Errorf("op %d has another value", i)
		}
		valued = append(valued, out[i])
	})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(valued, "b+") || slices.Contains(out, "f+") && !slices.Contains(valued, "f+") {
		t.Errorf("values of %v in %v", valued, out)
	}
	return out
}
