package xrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
)

// liar is a node that shows what bend makes of each page.
type liar struct {
	*Client
	bend func(*OpsPage)
}

func (l *liar) RepoOps(ctx context.Context, id space.ID, author space.DID, q OpsQuery) (OpsPage, error) {
	q.Limit = 4 // so that there are pages
	p, err := l.Client.RepoOps(ctx, id, author, q)
	if err == nil && l.bend != nil {
		l.bend(&p)
	}
	return p, err
}

// follower follows the owner's repo of a fake over HTTP.
func follower(t *testing.T) (*fake, *Follower, *liar) {
	f := seeded(t)
	srv := httptest.NewServer(newServer(f))
	t.Cleanup(srv.Close)
	l := &liar{Client: &Client{Base: srv.URL, Token: apiToken}}
	return f, &Follower{Source: l, Repo: f.repo(t, owner, false)}, l
}

// history writes n batches of up to three ops: new records, other versions and
// deletions.
func history(t *testing.T, f *fake, from, n int) {
	for i := from; i < from+n; i++ {
		path := func(k int) space.Path { return space.Path{Collection: notes, Key: space.RecordKey(fmt.Sprint("h", k))} }
		value := func(k int) space.Record {
			r, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"com.example.note","n":%d}`, k))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		writes := []Write{
			{Action: ActionPut, Path: path(i), Value: value(i)},
			{Action: ActionPut, Path: path(i / 2), Value: value(100 + i)},
		}
		if i%3 == 2 {
			writes = append(writes, Write{Action: ActionDelete, Path: path(i - 2), IfExists: true})
		}
		if _, err := f.Write(t.Context(), home, writes, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// sameRepo compares a follower with the node's own repo.
func sameRepo(t *testing.T, f *fake, fo *Follower) {
	t.Helper()
	r := f.spaces[home].repos[owner]
	if fo.State.Sum() != r.repo.Digest() || fo.Rev != r.repo.Rev() || len(fo.Records) != len(r.records) {
		t.Fatalf("%d records at %s, the node has %d at %s", len(fo.Records), fo.Rev, len(r.records), r.repo.Rev())
	}
	for p, v := range fo.Records {
		if have := r.records[p]; have.CID != v.CID || string(have.Value) != string(v.Value) {
			t.Errorf("%s differs", p)
		}
	}
}

// A repo fetched whole and one fetched op by op are the same.
func TestFollow(t *testing.T) {
	f, fo, _ := follower(t)
	if err := fo.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameRepo(t, f, fo)
	for i := range 5 {
		history(t, f, i*6, 6)
		if err := fo.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		sameRepo(t, f, fo)
	}
	if fo.Recovered != 1 {
		t.Errorf("the whole repo was read %d times, want once", fo.Recovered)
	}
}

// S11: whatever is done to the pages, it is noticed, and reading the whole repo
// ends equal.
func TestS11(t *testing.T) {
	drop := func(p *OpsPage) {
		if len(p.Ops) > 1 {
			p.Ops = slices.Delete(p.Ops, 1, 2)
		}
	}
	for name, bend := range map[string]func(*OpsPage){
		"an op is dropped": drop,
		"ops of a rev change places": func(p *OpsPage) {
			for i := 1; i < len(p.Ops); i++ {
				if p.Ops[i].Rev == p.Ops[i-1].Rev {
					p.Ops[i], p.Ops[i-1] = p.Ops[i-1], p.Ops[i]
					return
				}
			}
		},
		"ops change places and numbers": func(p *OpsPage) {
			if len(p.Ops) > 1 {
				p.Ops[0].Path, p.Ops[1].Path = p.Ops[1].Path, p.Ops[0].Path
			}
		},
		"an op is told twice":    func(p *OpsPage) { p.Ops = append(p.Ops, p.Ops...) },
		"the commit is withheld": func(p *OpsPage) { p.State = nil },
		"the commit is another's": func(p *OpsPage) {
			if p.State != nil {
				p.State.Commit.Sig[5] ^= 1
			}
		},
		"the head comes early": func(p *OpsPage) { p.Cursor = "" },
		"all is withheld":      func(p *OpsPage) { p.Ops, p.Cursor = nil, "" },
		"an empty page leads on": func(p *OpsPage) {
			p.Ops, p.State, p.Cursor = nil, nil, FormatOpsCursor(1<<40, 1)
		},
		"a value is another": func(p *OpsPage) {
			for i := range p.Ops {
				if p.Ops[i].Value != nil {
					p.Ops[i].Value = space.Record{0xa0}
				}
			}
		},
		"values are missing": func(p *OpsPage) {
			for i := range p.Ops {
				p.Ops[i].Value = nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, fo, l := follower(t)
			history(t, f, 0, 3)
			if err := fo.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			history(t, f, 3, 6)
			l.bend = bend
			if err := fo.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if fo.Recovered != 2 {
				t.Error("nothing was noticed")
			}
			sameRepo(t, f, fo)
			l.bend = nil
			history(t, f, 9, 3)
			if err := fo.Sync(t.Context()); err != nil || fo.Recovered != 2 {
				t.Errorf("afterwards: %v, %d", err, fo.Recovered)
			}
			sameRepo(t, f, fo)
		})
	}
}

// S11: ops that leave no trace when they are withheld, since nothing follows on
// them, are missed by what the commit says.
func TestS11Withheld(t *testing.T) {
	f, fo, l := follower(t)
	if err := fo.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.put(owner, "com.example.note/new", `{"$type":"com.example.note","text":"nobody shall see"}`)
	l.bend = func(p *OpsPage) { p.Ops = nil }
	if err := fo.Sync(t.Context()); err != nil || fo.Recovered != 2 {
		t.Errorf("%v, the whole repo was read %d times", err, fo.Recovered)
	}
	sameRepo(t, f, fo)
}

// S11: a cursor that was not issued is refused; a since that is not known is no
// error, and what follows does not lead to the commit.
func TestS11Cursors(t *testing.T) {
	f, _, l := follower(t)
	history(t, f, 0, 4)
	for _, cursor := range []string{"x", "/5", "3jzfcijpj2z2a/", "3jzfcijpj2z2a/0junk", "3jzfcijpj2z2a/-1", "3jzfcijpj2z2a/01", "3jzfcijpj2z2a/1/1"} {
		if _, err := l.Client.RepoOps(t.Context(), home, owner, OpsQuery{Limit: 10, Cursor: cursor}); !errors.Is(err, ErrCursor) {
			t.Errorf("%q: %v", cursor, err)
		}
	}
	fo := &Follower{Source: l, Repo: f.repo(t, owner, false), Records: map[space.Path]Version{}, Rev: 1}
	if err := fo.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameRepo(t, f, fo)
}

// X20: what was seen is never taken back.
func TestX20(t *testing.T) {
	f, fo, l := follower(t)
	history(t, f, 0, 4)
	old := f.spaces[home].repos[owner].repo.Clone()
	oldRecords := map[space.Path]Record{}
	for p, r := range f.spaces[home].repos[owner].records {
		oldRecords[p] = r
	}
	history(t, f, 4, 4)
	if err := fo.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := fo.State.Sum()
	r := f.spaces[home].repos[owner]
	r.repo, r.records = old, oldRecords
	check := func(what string) {
		t.Helper()
		if err := fo.Sync(t.Context()); !errors.Is(err, ErrRevRollback) {
			t.Errorf("%s: %v", what, err)
		}
		if fo.State.Sum() != before {
			t.Errorf("%s: the copy went back", what)
		}
	}
	check("an older commit behind the ops")
	l.bend = func(p *OpsPage) { p.State = nil }
	check("an older snapshot")
	// As young as the last, and not the same.
	record, err := space.RecordFromJSON([]byte(`{"$type":"com.example.note","n":0}`))
	if err != nil {
		t.Fatal(err)
	}
	staged := r.repo.Begin()
	path := space.Path{Collection: notes, Key: "other"}
	staged.Apply(space.Batch{Rev: fo.Rev, Ops: []space.Op{{Path: path, Value: record}}}, space.Stamp{Rev: fo.Rev})
	staged.Commit()
	r.records[path] = Record{CID: record.CID(), Value: record}
	check("another snapshot of the same rev")
	l.bend = nil
	check("another commit of the same rev")
}

// A repo that hangs together nowhere leaves the copy as it was.
func TestFollowBroken(t *testing.T) {
	f, fo, l := follower(t)
	if err := fo.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, rev := fo.State.Sum(), fo.Rev
	history(t, f, 0, 2)
	l.bend = func(p *OpsPage) { p.State = nil }
	for p := range f.spaces[home].repos[owner].records {
		rec := f.spaces[home].repos[owner].records[p]
		rec.Value = space.Record{0xa0}
		f.spaces[home].repos[owner].records[p] = rec
	}
	if err := fo.Sync(t.Context()); !errors.Is(err, space.ErrForged) {
		t.Errorf("%v, want %v", err, space.ErrForged)
	}
	if fo.State.Sum() != before || fo.Rev != rev {
		t.Error("the copy changed")
	}
}
