package xrpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
	"github.com/kithnet/kith/space/commit"
)

func (f *fake) Snapshot(ctx context.Context, id space.ID, author space.DID) (*Snapshot, error) {
	st, err := f.RepoState(ctx, id, author)
	if err != nil {
		return nil, err
	}
	r := f.spaces[id].repos[author]
	f.open++
	return &Snapshot{
		Commit: *st.Commit, Index: car.IndexOf(r.repo.Ascend(space.Path{}, ""), st.Count).Block(),
		Values: func(x car.Index, give func(space.Record) error) error {
			for _, e := range x {
				if err := give(r.records[e.Path].Value); err != nil {
					return err
				}
			}
			return f.lost
		},
		Close: func() { f.open-- },
	}, nil
}

func (f *fake) Commit(ctx context.Context, id space.ID, author space.DID) (commit.Commit, error) {
	st, err := f.RepoState(ctx, id, author)
	if err != nil {
		return commit.Commit{}, err
	}
	return *st.Commit, nil
}

func (f *fake) repo(t testing.TB, author space.DID, indexOnly bool) car.Repo {
	pub, err := f.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return car.Repo{Space: home, Author: author, Key: pub, IndexOnly: indexOnly}
}

// readRepo reads a snapshot to its end.
func readRepo(t testing.TB, r io.Reader, of car.Repo) (*car.Reader, map[space.Path]space.Record) {
	t.Helper()
	d, err := car.NewReader(r, of)
	if err != nil {
		t.Fatal(err)
	}
	records := map[space.Path]space.Record{}
	for {
		e, rec, err := d.Next()
		if err == io.EOF {
			return d, records
		}
		if err != nil {
			t.Fatal(err)
		}
		records[e.Path] = rec
	}
}

func TestGetRepo(t *testing.T) {
	f := seeded(t)
	s := newServer(f)
	for _, indexOnly := range []bool{false, true} {
		in := "space=" + home.AT() + "&repo=" + string(other)
		if indexOnly {
			in += "&excludeValues=true"
		}
		w := ask(s, get, "com.atproto.space.getRepo", in)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/vnd.ipld.car" || w.Header().Get("Accept-Ranges") != "none" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
		d, records := readRepo(t, w.Body, f.repo(t, other, indexOnly))
		have := f.spaces[home].repos[other]
		if d.State.Sum() != have.repo.Digest() || len(d.Index) != len(have.records) || indexOnly != (len(records) == 0) {
			t.Errorf("%d entries, %d records", len(d.Index), len(records))
		}
	}
	if f.open != 0 || s.snapshots.Load() != 0 {
		t.Errorf("%d snapshots are left open", f.open)
	}
}

func TestGetRepoRefuses(t *testing.T) {
	f := seeded(t)
	s := newServer(f)
	at := "space=" + home.AT()
	for _, c := range []struct {
		in, name string
		code     int
	}{
		{at + "&repo=did:plc:silent", "RepoNotFound", 400},
		{"space=" + home.String() + "&repo=did:plc:silent", "RepoNotFound", 404},
		{"space=at://did:plc:nobody/space/com.example.notes/none", "SpaceNotFound", 400},
		{at + "&excludeValues=1", "InvalidRequest", 400},
		{at + "&repo=alice.example", "InvalidRequest", 400},
		{at + "&repo=" + string(owner) + "&repo=" + string(other), "InvalidRequest", 400},
		{"", "InvalidRequest", 400},
	} {
		for _, nsid := range []string{"com.atproto.space.getRepo", "com.atproto.space.getLatestCommit"} {
			if strings.Contains(c.in, "excludeValues") && nsid != "com.atproto.space.getRepo" {
				continue
			}
			w := ask(s, get, nsid, c.in)
			if name := errorName(t, w); w.Code != c.code && !(c.in == "" && w.Code == 422) || name != c.name {
				t.Errorf("%s?%s: %d %s", nsid, c.in, w.Code, w.Body)
			}
		}
	}
	s.snapshots.Store(maxSnapshots)
	if w := ask(s, get, "com.atproto.space.getRepo", at); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d %s", w.Code, w.Body)
	}
	if s.snapshots.Load() != maxSnapshots || f.open != 0 {
		t.Error("a refused reader is counted")
	}
}

func errorName(t *testing.T, w *httptest.ResponseRecorder) string {
	name, _ := at(decoded(t, w), "error").(string)
	return name
}

// A repo that cannot be read to its end breaks off, and never looks whole.
func TestGetRepoBreaksOff(t *testing.T) {
	f := seeded(t)
	f.lost = errors.New("the disk is gone")
	srv := httptest.NewServer(newServer(f))
	defer srv.Close()
	api := &Client{Base: srv.URL, Token: apiToken}
	body, err := api.Repo(t.Context(), home, owner, false)
	if err == nil { // else it broke before the first piece was sent
		defer body.Close()
		_, err = io.Copy(io.Discard, body)
	}
	if err == nil {
		t.Error("the stream ends as if it were whole")
	}
}

func TestGetLatestCommit(t *testing.T) {
	f := seeded(t)
	srv := httptest.NewServer(newServer(f))
	defer srv.Close()
	api := &Client{Base: srv.URL, Token: apiToken}
	c, err := api.Commit(t.Context(), home, owner)
	if err != nil {
		t.Fatal(err)
	}
	if c.Hash != f.spaces[home].repos[owner].repo.Digest() || c.Verify(f.repo(t, owner, false).Key, home, owner) != nil {
		t.Errorf("%+v", c)
	}
	if _, err := api.Commit(t.Context(), home, "did:plc:silent"); !errors.Is(err, space.ErrRepoNotFound) {
		t.Error(err)
	}
	if _, err := api.Repo(t.Context(), home, "did:plc:silent", false); !errors.Is(err, space.ErrRepoNotFound) {
		t.Error(err)
	}
}

func TestGetRepoHead(t *testing.T) {
	f := seeded(t)
	r := httptest.NewRequest(http.MethodHead, "http://localhost/xrpc/com.atproto.space.getRepo?space="+home.AT(), nil)
	r.Header.Set("Authorization", "Bearer "+apiToken)
	w := httptest.NewRecorder()
	newServer(f).ServeHTTP(w, r)
	if w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Type") != carType || f.open != 0 {
		t.Errorf("%d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
}
