package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// oplogs are the repos of one space, as a node would serve them. Each page
// holds two ops at most.
type oplogs struct {
	logs map[space.DID][]xrpc.RepoOp
	rev  map[space.DID]space.TID
}

func (o *oplogs) Repos(context.Context, space.ID) (all []xrpc.RepoInfo, err error) {
	for did, rev := range o.rev {
		all = append(all, xrpc.RepoInfo{DID: did, Rev: rev, Attribution: "vouched"})
	}
	return all, nil
}

func (o *oplogs) RepoState(context.Context, space.ID, space.DID) (xrpc.RepoState, error) {
	return xrpc.RepoState{}, space.ErrRepoNotFound
}

func (o *oplogs) Oplog(_ context.Context, _ space.ID, author space.DID, q xrpc.OpsQuery) (*xrpc.Oplog, error) {
	var p xrpc.OpsPage
	for _, op := range o.logs[author] {
		if q.Cursor != "" {
			rev, idx, err := xrpc.ParseOpsCursor(q.Cursor)
			if err != nil || op.Rev < rev || op.Rev == rev && op.Idx <= idx {
				continue
			}
		}
		if op.Rev <= q.Since {
			continue
		}
		if len(p.Ops) == 2 {
			last := p.Ops[1]
			p.Cursor = xrpc.FormatOpsCursor(last.Rev, last.Idx)
			return p.Held(), nil
		}
		p.Ops = append(p.Ops, op)
	}
	p.State = &xrpc.RepoState{DID: author, Rev: o.rev[author], State: make([]byte, 2048)}
	return p.Held(), nil
}

// write appends one rev of changes: "+path" creates, "=path" updates, "-path"
// deletes.
func (o *oplogs) write(t *testing.T, author space.DID, changes ...string) {
	t.Helper()
	value, err := space.RecordFromJSON([]byte(`{"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	rev := space.NextTID(1_800_000_000_000_000, 1, o.rev[author])
	for i, c := range changes {
		path, err := space.ParsePath(c[1:])
		if err != nil {
			t.Fatal(err)
		}
		op := xrpc.RepoOp{Rev: rev, Idx: i, Path: path}
		if c[0] != '-' {
			op.CID, op.Value = value.CID(), value
		}
		if c[0] != '+' {
			op.Prev = value.CID()
		}
		o.logs[author] = append(o.logs[author], op)
	}
	o.rev[author] = rev
}

// TestWatch: what a watch prints is each change once, in the order of its
// repo, however pages are cut, and nothing that was seen.
func TestWatch(t *testing.T) {
	const alice, bob space.DID = "did:plc:alice", "did:plc:bob"
	o := &oplogs{map[space.DID][]xrpc.RepoOp{}, map[space.DID]space.TID{}}
	id := space.ID{Authority: alice, Type: "com.example.notes", Key: "home"}
	srv := httptest.NewServer(&xrpc.Server{Repos: o, Owner: alice, Token: "token"})
	defer srv.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := new(bytes.Buffer)
	a := &app{ctx: t.Context(), stdout: out, stderr: out, commands: commands{API: srv.URL, Token: token}}
	api, err := a.client()
	if err != nil {
		t.Fatal(err)
	}
	o.write(t, alice, "+com.example.note/old")
	w := &watcher{a, api, id, &recordWatchCmd{}, map[space.DID]space.TID{alice: o.rev[alice]}}
	look := func(want ...string) {
		t.Helper()
		out.Reset()
		if err := w.look(); err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(strings.TrimSpace(out.String()), id.String()+"/did:plc:", "")
		if got != strings.Join(want, "\n") {
			t.Errorf("printed\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
	look()
	o.write(t, alice, "+com.example.note/a", "+com.example.note/b", "=com.example.note/old", "-com.example.note/a", "+com.example.other/c")
	look("create\talice/com.example.note/a\t{\"n\":1}", "create\talice/com.example.note/b\t{\"n\":1}",
		"update\talice/com.example.note/old\t{\"n\":1}", "delete\talice/com.example.note/a", "create\talice/com.example.other/c\t{\"n\":1}")
	look()
	o.write(t, bob, "+com.example.note/his")
	look("create\tbob/com.example.note/his\t{\"n\":1}")
	w.cmd.Collection = "com.example.note"
	o.write(t, bob, "+com.example.other/x", "-com.example.note/his")
	look("delete\tbob/com.example.note/his")
	w.cmd.Repo = alice
	o.write(t, bob, "+com.example.note/more")
	look()
	a.JSON, w.cmd.Repo = true, ""
	out.Reset()
	if err := w.look(); err != nil || !strings.HasPrefix(out.String(), `{"action":"create","uri":"`+id.String()+`/did:plc:bob/com.example.note/more","cid":"bafy`) ||
		!strings.HasSuffix(out.String(), `"value":{"n":1}}`+"\n") {
		t.Errorf("in JSON: %s %v", out, err)
	}
}
