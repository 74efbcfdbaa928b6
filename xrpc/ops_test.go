package xrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// opsSlowly is a page of ops as encoding/json writes it.
func opsSlowly(t *rapid.T, uri string, did space.DID, ops []RepoOp, tail opsTail) []byte {
	out := make([]opObject, len(ops))
	for i, op := range ops {
		at := timeText(op.Rev.Micros())
		o := opObject{
			Rev: op.Rev.String(), Idx: op.Idx, ID: FormatOpsCursor(op.Rev, op.Idx), Action: op.action(),
			DID: did, Author: did, SpaceID: uri, Collection: op.Path.Collection, Key: op.Path.Key,
			CreatedAt: at, CreatedAt2: at,
		}
		if !op.Prev.IsZero() {
			o.Prev = &ops[i].Prev
		}
		if !op.CID.IsZero() {
			o.CID = &ops[i].CID
		}
		if op.Value != nil {
			var err error
			if o.Value, err = op.Value.JSON(); err != nil {
				t.Fatal(err)
			}
		}
		out[i] = o
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(opsAnswer{out, tail}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func drawOps(t *rapid.T) []RepoOp {
	var ops []RepoOp
	for i := range rapid.IntRange(0, 300).Draw(t, "ops") {
		op := RepoOp{
			Rev: space.TID(rapid.Uint64Range(1, 1<<50).Draw(t, "rev")), Idx: i % 7,
			Path: space.Path{Collection: notes, Key: space.RecordKey(rapid.StringMatching(`[a-zA-Z0-9_~.:-]{1,9}`).Draw(t, "key"))},
		}
		if rapid.Bool().Draw(t, "prev") {
			op.Prev = space.Sum([]byte{byte(i)})
		}
		if rapid.Bool().Draw(t, "put") {
			op.CID = space.Sum([]byte{byte(i), 1})
			text, _ := json.Marshal(map[string]string{"text": rapid.String().Draw(t, "text")})
			value, err := space.RecordFromJSON(text)
			if err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "value") {
				op.Value = value
			}
		}
		ops = append(ops, op)
	}
	return ops
}

// The quick writer of a page writes what encoding/json does, byte for byte.
func TestNaiveOps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		uri := rapid.SampledFrom([]string{home.String(), home.AT()}).Draw(t, "uri")
		tail := opsTail{Cursor: rapid.SampledFrom([]string{"", "3jzfcijpj2z2a/7"}).Draw(t, "cursor"), Pruned: rapid.Bool().Draw(t, "pruned")}
		ops := drawOps(t)
		w := httptest.NewRecorder()
		if err := newOpsPage(uri, owner, OpsPage{Ops: ops}.Held()).send(w, tail); err != nil {
			t.Fatal(err)
		}
		if want := opsSlowly(t, uri, owner, ops, tail); !bytes.Equal(w.Body.Bytes(), want) {
			t.Fatalf("%s\nwant %s", w.Body, want)
		}
	})
}

// counted counts the pages that are open, and may have no values to read.
type counted struct {
	*fake
	open   *int
	broken bool
}

func (c counted) Oplog(ctx context.Context, id space.ID, author space.DID, q OpsQuery) (*Oplog, error) {
	page, err := c.fake.Oplog(ctx, id, author, q)
	if err != nil {
		return nil, err
	}
	if c.broken {
		page.Values = func(int, int, func(int, space.Record)) error { return space.ErrUnavailable }
	}
	*c.open++
	page.Close = func() { *c.open-- }
	return page, nil
}

// A page is closed whatever became of it.
func TestOpsClose(t *testing.T) {
	f := newFake(t)
	f.put(owner, "com.example.note/a", `{"n":1}`)
	s := newServer(f)
	for _, c := range []struct {
		verb   string
		broken bool
		status int
	}{{get, false, 200}, {http.MethodHead, false, 200}, {get, true, 503}} {
		open := 0
		s.Repos = counted{f, &open, c.broken}
		w := ask(s, c.verb, "com.atproto.space.listRepoOps?space="+home.AT(), "space="+home.AT())
		if w.Code != c.status || c.broken && !strings.Contains(w.Body.String(), `"error"`) {
			t.Errorf("%+v: status %d, %s", c, w.Code, w.Body)
		}
		if open != 0 {
			t.Errorf("%+v: %d pages are open", c, open)
		}
	}
}

// Values that cannot be read are an error where nothing was sent yet, and break
// the answer off where something was; nothing is read on for it.
func TestOpsFail(t *testing.T) {
	f := newFake(t)
	for range 10 * opsPiece {
		f.put(owner, "com.example.note/a", `{"n":1}`)
	}
	lost := errors.New("broken disk")
	for _, from := range []int{0, opsPiece} {
		page, err := f.Oplog(t.Context(), home, owner, OpsQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		page.Values = func(at, _ int, _ func(int, space.Record)) error {
			if at >= from {
				return lost
			}
			return nil
		}
		w := httptest.NewRecorder()
		err = newOpsPage(home.AT(), owner, page).send(w, opsTail{})
		none, unsent := err.(notSent)
		switch text := w.Body.String(); {
		case !errors.Is(err, lost):
			t.Errorf("values fail from %d on: %v", from, err)
		case from == 0 && (!unsent || none.error != lost || text != "" || len(w.Header()) > 0):
			t.Errorf("nothing should be sent: %v, %q, %v", err, text, w.Header())
		case from > 0 && (unsent || strings.Count(text, `"rev"`) != opsPiece || json.Valid(w.Body.Bytes())):
			t.Errorf("one piece should be sent: %v, %s", err, text)
		}
	}
}
