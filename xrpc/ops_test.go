package xrpc

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// opsSlowly is a page of ops as encoding/json writes it.
func opsSlowly(t *rapid.T, uri string, did space.DID, ops []RepoOp) []opObject {
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
	return out
}

// The quick writer of ops writes what encoding/json does.
func TestNaiveOps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		uri := rapid.SampledFrom([]string{home.String(), home.AT()}).Draw(t, "uri")
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
		pieces, err := encodeOps(uri, owner, ops)
		if err != nil {
			t.Fatal(err)
		}
		text := append(append([]byte("["), bytes.Join(pieces, nil)...), ']')
		want, err := json.Marshal(opsSlowly(t, uri, owner, ops))
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := json.Unmarshal(text, &a); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := json.Unmarshal(want, &b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("%s\nwant %s", text, want)
		}
	})
}
