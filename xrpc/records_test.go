package xrpc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kithnet/kith/space"
)

// The CIDs of the values in the tables.
func cidOf(t testing.TB, json string) string {
	t.Helper()
	r, err := space.RecordFromJSON([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return r.CID().String()
}

func recordEndpoints(t *testing.T) []endpoint {
	mineA, x := cidOf(t, `{"text":"mine a"}`), cidOf(t, `{"$type":"com.example.note","x":1}`)
	const noCID = "bafyreib2rxk3rybk3aobmv5cjuql3bm2twh4jo5uxgf5kpqcsgz7soitae"
	const create, put, del = "com.atproto.space.createRecord", "com.atproto.space.putRecord", "com.atproto.space.deleteRecord"
	const read = "com.atproto.space.getRecord"
	return []endpoint{
		{"with key", post, create, `{"space":"$S","collection":"com.example.note","rkey":"n","record":{"$type":"com.example.note","x":1}}`, 201, 200, "",
			map[string]any{"uri": "$S/did:key:zQ3showner/com.example.note/n", "cid": x, "validationStatus": "unknown", "rev": "*"}},
		{"draws key", post, create, `{"space":"$S","collection":"com.example.note","record":{"x":1}}`, 201, 200, "", map[string]any{"uri": "*"}},
		{"own repo", post, create, `{"space":"$S","repo":"did:key:zQ3showner","collection":"com.example.note","record":{"x":1},"validate":false}`, 201, 200, "",
			map[string]any{"validationStatus": nil}},
		{"other repo", post, create, `{"space":"$S","repo":"did:key:zQ3shother","collection":"com.example.note","record":{"x":1}}`, 403, 403, "Forbidden",
			map[string]any{"message": "repo: you can only write to your own repo, did:key:zQ3showner"}},
		{"exists", post, create, `{"space":"$S","collection":"com.example.note","rkey":"a","record":{"x":1}}`, 409, 400, "RecordAlreadyExists",
			map[string]any{"message": "Record already exists: write com.example.note/a"}},
		{"no space", post, create, `{"collection":"com.example.note","record":{}}`, 422, 400, "InvalidRequest", map[string]any{"message": "space: is required"}},
		{"unknown space", post, create, `{"space":"$Sx","collection":"com.example.note","record":{}}`, 404, 400, "SpaceNotFound", nil},
		{"no collection", post, create, `{"space":"$S","record":{}}`, 422, 400, "InvalidRequest", map[string]any{"message": "collection: is required"}},
		{"bad collection", post, create, `{"space":"$S","collection":"note","record":{}}`, 400, 400, "InvalidRequest", nil},
		{"bad key", post, create, `{"space":"$S","collection":"com.example.note","rkey":"a/b","record":{}}`, 400, 400, "InvalidRequest", nil},
		{"dots for a key", post, create, `{"space":"$S","collection":"com.example.note","rkey":"..","record":{}}`, 400, 400, "InvalidRequest", nil},
		{"long key", post, create, `{"space":"$S","collection":"com.example.note","rkey":"` + strings.Repeat("k", 513) + `","record":{}}`, 400, 400, "InvalidRequest", nil},
		{"no record", post, create, `{"space":"$S","collection":"com.example.note"}`, 422, 400, "InvalidRequest", nil},
		{"null record", post, create, `{"space":"$S","collection":"com.example.note","record":null}`, 422, 400, "InvalidRequest", nil},
		{"record is a list", post, create, `{"space":"$S","collection":"com.example.note","record":[]}`, 422, 400, "InvalidRequest", nil},
		{"other type", post, create, `{"space":"$S","collection":"com.example.note","record":{"$type":"com.example.other"}}`, 400, 400, "InvalidRequest", nil},
		{"typed with a number", post, create, `{"space":"$S","collection":"com.example.note","record":{"$type":1}}`, 201, 400, "InvalidRequest", nil},
		{"float", post, create, `{"space":"$S","collection":"com.example.note","record":{"a":{"b":[1.5]}}}`, 400, 400, "InvalidRequest",
			map[string]any{"message": "record: field a.b[0]: 1.5: records hold no floats"}},
		{"large integer", post, create, `{"space":"$S","collection":"com.example.note","record":{"a":9007199254740992}}`, 400, 400, "InvalidRequest", nil},
		{"key twice", post, create, `{"space":"$S","collection":"com.example.note","record":{"a":{"b":1,"\u0062":2}}}`, 400, 400, "InvalidRequest", nil},
		{"too large", post, create, `{"space":"$S","collection":"com.example.note","record":{"a":"` + strings.Repeat("x", space.MaxRecord) + `"}}`, 413, 413, "PayloadTooLarge", nil},
		{"validate", post, create, `{"space":"$S","collection":"com.example.note","record":{},"validate":true}`, 400, 400, "InvalidRequest", nil},
		{"validate text", post, create, `{"space":"$S","collection":"com.example.note","record":{},"validate":"true"}`, 422, 400, "InvalidRequest", nil},

		{"new", post, put, `{"space":"$S","collection":"com.example.note","rkey":"n","record":{"$type":"com.example.note","x":1}}`, 201, 200, "", map[string]any{"cid": x}},
		{"over", post, put, `{"space":"$S","collection":"com.example.note","rkey":"a","record":{"$type":"com.example.note","x":1}}`, 201, 200, "", map[string]any{"cid": x}},
		{"no key", post, put, `{"space":"$S","collection":"com.example.note","record":{}}`, 422, 400, "InvalidRequest", nil},
		{"swap", post, put, `{"space":"$S","collection":"com.example.note","rkey":"a","swapRecord":"` + mineA + `","record":{}}`, 201, 200, "", nil},
		{"null swap", post, put, `{"space":"$S","collection":"com.example.note","rkey":"n","swapRecord":null,"record":{}}`, 201, 200, "", nil},
		{"other swap", post, put, `{"space":"$S","collection":"com.example.note","rkey":"a","swapRecord":"` + noCID + `","record":{}}`, 409, 400, "InvalidSwap", nil},
		{"absent swap", post, put, `{"space":"$S","collection":"com.example.note","rkey":"n","swapRecord":"` + mineA + `","record":{}}`, 404, 400, "RecordNotFound", nil},
		{"no cid", post, put, `{"space":"$S","collection":"com.example.note","rkey":"a","swapRecord":"bafy","record":{}}`, 400, 400, "InvalidRequest", nil},
		{"other repo", post, put, `{"space":"$S","repo":"did:key:zQ3shother","collection":"com.example.note","rkey":"a","record":{}}`, 403, 403, "Forbidden", nil},

		{"there", post, del, `{"space":"$S","collection":"com.example.note","rkey":"a"}`, 200, 200, "", map[string]any{"success": true, "rev": "*"}},
		{"absent", post, del, `{"space":"$S","collection":"com.example.note","rkey":"n"}`, 404, 200, "RecordNotFound", nil},
		{"another's", post, del, `{"space":"$S","collection":"com.example.note","rkey":"theirs"}`, 404, 200, "RecordNotFound", nil},
		{"other repo", post, del, `{"space":"$S","repo":"did:key:zQ3shother","collection":"com.example.note","rkey":"theirs"}`, 403, 403, "Forbidden", nil},
		{"other swap", post, del, `{"space":"$S","collection":"com.example.note","rkey":"a","swapRecord":"` + noCID + `"}`, 409, 400, "InvalidSwap", nil},

		{"own", get, read, "space=$S&collection=com.example.note&rkey=a", 200, 200, "",
			map[string]any{"uri": "$S/did:key:zQ3showner/com.example.note/a", "cid": mineA, "value.text": "mine a"}},
		{"own before theirs", get, read, "space=$S&collection=com.example.note&rkey=both", 200, 200, "", map[string]any{"value.text": "mine both"}},
		{"theirs", get, read, "space=$S&repo=did:key:zQ3shother&collection=com.example.note&rkey=both", 200, 200, "", map[string]any{"value.text": "theirs both"}},
		{"theirs by author", get, read, "space=$S&author=did:key:zQ3shother&collection=com.example.note&rkey=both", 200, 200, "", map[string]any{"value.text": "theirs both"}},
		{"theirs by did", get, read, "space=$S&did=did:key:zQ3shother&collection=com.example.note&rkey=both", 200, 200, "", map[string]any{"value.text": "theirs both"}},
		{"the only one", get, read, "space=$S&collection=com.example.note&rkey=theirs", 200, 200, "", map[string]any{"value.text": "theirs"}},
		{"two repos", get, read, "space=$S&repo=did:key:zQ3shother&did=did:key:zQ3showner&collection=com.example.note&rkey=both", 400, 400, "InvalidRequest", nil},
		{"a handle", get, read, "space=$S&repo=alice.example&collection=com.example.note&rkey=both", 400, 400, "InvalidRequest", nil},
		{"absent", get, read, "space=$S&collection=com.example.note&rkey=n", 404, 400, "RecordNotFound", map[string]any{"message": "Record not found: record"}},
		{"no key", get, read, "space=$S&collection=com.example.note", 422, 400, "InvalidRequest", nil},
	}
}

func TestRecordEndpoints(t *testing.T) { runTable(t, recordEndpoints(t)) }

func writeEndpoints(t *testing.T) []endpoint {
	mineA := cidOf(t, `{"text":"mine a"}`)
	const apply = "com.atproto.space.applyWrites"
	many := `{"action":"create","collection":"com.example.note","value":{}}` + strings.Repeat(`,{"action":"create","collection":"com.example.note","value":{}}`, MaxWrites)
	rows := []endpoint{
		{"actions", post, apply, `{"space":"$S","writes":[
			{"action":"create","collection":"com.example.note","value":{}},
			{"action":"update","collection":"com.example.note","rkey":"new","value":{}},
			{"action":"delete","collection":"com.example.note","rkey":"absent"},
			{"action":"delete","collection":"com.example.note","rkey":"a","swapRecord":"` + mineA + `"}]}`, 200, 200, "", map[string]any{
			"results.0.uri": "*", "results.0.cid": "*", "results.0.$type": "com.atproto.space.applyWrites#createResult",
			"results.1.uri": "$S/did:key:zQ3showner/com.example.note/new", "results.1.$type": "com.atproto.space.applyWrites#updateResult",
			"results.2.$type": "com.atproto.space.applyWrites#deleteResult", "results.2.uri": nil, "results.3.cid": nil, "rev": "*",
		}},
		{"types", post, apply, `{"space":"$S","writes":[
			{"$type":"com.atproto.space.applyWrites#create","collection":"com.example.note","rkey":"n","value":{}},
			{"$type":"#update","collection":"com.example.note","rkey":"n","value":{"x":1}},
			{"$type":"com.atproto.space.applyWrites#delete","collection":"com.example.note","rkey":"n"}]}`, 200, 200, "", map[string]any{
			"results.0.uri": "$S/did:key:zQ3showner/com.example.note/n", "results.0.validationStatus": "unknown",
		}},
		{"typed update of absent", post, apply, `{"space":"$S","writes":[{"$type":"#update","collection":"com.example.note","rkey":"n","value":{}}]}`, 404, 400, "RecordNotFound", nil},
		{"typed delete of absent", post, apply, `{"space":"$S","writes":[{"$type":"#delete","collection":"com.example.note","rkey":"n"}]}`, 404, 400, "RecordNotFound", nil},
		{"swap of absent", post, apply, `{"space":"$S","writes":[{"action":"delete","collection":"com.example.note","rkey":"n","swapRecord":"` + mineA + `"}]}`, 404, 400, "RecordNotFound", nil},
		{"create twice", post, apply, `{"space":"$S","writes":[{"$type":"#create","collection":"com.example.note","rkey":"n","value":{}},{"$type":"#create","collection":"com.example.note","rkey":"n","value":{}}]}`, 409, 400, "RecordAlreadyExists", nil},
		{"none", post, apply, `{"space":"$S","writes":[]}`, 200, 200, "", map[string]any{"results": "*", "rev": nil}},
		{"missing", post, apply, `{"space":"$S"}`, 422, 400, "InvalidRequest", map[string]any{"message": "writes: is required"}},
		{"no list", post, apply, `{"space":"$S","writes":{}}`, 422, 400, "InvalidRequest", nil},
		{"not objects", post, apply, `{"space":"$S","writes":[1]}`, 422, 400, "InvalidRequest", nil},
		{"too many", post, apply, `{"space":"$S","writes":[` + many + `]}`, 400, 400, "InvalidRequest", map[string]any{"message": "Too many writes. Max: 200"}},
		{"no action", post, apply, `{"space":"$S","writes":[{"collection":"com.example.note","value":{}}]}`, 422, 400, "InvalidRequest", map[string]any{"message": "writes[0].action: is required"}},
		{"unknown action", post, apply, `{"space":"$S","writes":[{"action":"upsert","collection":"com.example.note","value":{}}]}`, 422, 400, "InvalidRequest", nil},
		{"unknown type", post, apply, `{"space":"$S","writes":[{"$type":"x#create","collection":"com.example.note","value":{}}]}`, 422, 400, "InvalidRequest", nil},
		{"both differ", post, apply, `{"space":"$S","writes":[{"action":"create","$type":"#delete","collection":"com.example.note","rkey":"a"}]}`, 400, 400, "InvalidRequest", nil},
		{"float", post, apply, `{"space":"$S","writes":[{"action":"delete","collection":"com.example.note","rkey":"n"},{"action":"create","collection":"com.example.note","value":{"x":0.5}}]}`, 400, 400, "InvalidRequest",
			map[string]any{"message": "writes[1].value: field x: 0.5: records hold no floats"}},
		{"other repo", post, apply, `{"space":"$S","repo":"did:key:zQ3shother","writes":[]}`, 403, 403, "Forbidden", nil},
		{"other head", post, apply, `{"space":"$S","swapCommit":"3jzfcijpj2z2a","writes":[]}`, 409, 400, "InvalidSwap", nil},
		{"no head", post, apply, `{"space":"$S","swapCommit":"","writes":[{"action":"create","collection":"com.example.note","value":{}}]}`, 409, 400, "InvalidSwap", nil},
	}
	return rows
}

func TestApplyWrites(t *testing.T) { runTable(t, writeEndpoints(t)) }

// A batch that fails at its last write has done nothing.
func TestApplyWritesIsAllOrNothing(t *testing.T) {
	f := seeded(t)
	before := len(f.spaces[home].repos[owner].ops)
	w := ask(newServer(f), post, "com.atproto.space.applyWrites", `{"space":"`+home.String()+`","writes":[
		{"action":"create","collection":"com.example.note","value":{}},{"action":"create","collection":"com.example.note","rkey":"a","value":{}}]}`)
	if w.Code != 409 || len(f.spaces[home].repos[owner].ops) != before {
		t.Errorf("status %d, %d ops", w.Code, len(f.spaces[home].repos[owner].ops)-before)
	}
}

// In atproto a record without a type gets its collection's, in HappyView it
// stays as it is.
func TestRecordType(t *testing.T) {
	for name, d := range both {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			for i, record := range []string{`{}`, ` { "x" : 1 }`} {
				in := fmt.Sprintf(`{"space":"$S","collection":"com.example.note","rkey":"n%d","record":%s}`, i, record)
				if w := ask(newServer(f), post, "com.atproto.space.putRecord", spelled(d, post, in)); w.Code/100 != 2 {
					t.Fatal(w.Body)
				}
				p := space.Path{Collection: notes, Key: space.RecordKey(fmt.Sprint("n", i))}
				got := f.spaces[home].repos[owner].records[p].Value.Type()
				if want := map[Dialect]string{HappyView: "", ATProto: "com.example.note"}[d]; got != want {
					t.Errorf("%s: type %q, want %q", record, got, want)
				}
			}
		})
	}
}

// listed walks a listing page by page and returns the values of a field.
func listed(t *testing.T, s *Server, nsid, in, list, field string) []string {
	t.Helper()
	var all []string
	cursor := ""
	for range 50 {
		w := ask(s, get, nsid, in+cursor)
		body := decoded(t, w)
		if w.Code != 200 {
			t.Fatalf("%s: %s", in+cursor, w.Body)
		}
		for _, row := range body[list].([]any) {
			all = append(all, fmt.Sprint(at(row, field)))
		}
		next, more := body["cursor"].(string)
		if !more {
			return all
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
	t.Fatal("the pages have no end")
	return nil
}

func TestListRecords(t *testing.T) {
	f := seeded(t)
	f.put(owner, "com.example.other/z", `{"n":1}`)
	s := newServer(f)
	const nsid = "com.atproto.space.listRecords"
	up := "theirs both,theirs,mine a,mine both,<nil>"
	down := "<nil>,mine both,mine a,theirs,theirs both"
	for _, c := range []struct {
		name, in           string
		happyview, atproto string
	}{
		{"all", "", up, down},
		{"small pages", "&limit=2", up, down},
		{"one by one", "&limit=1", up, down},
		{"reverse", "&reverse=true&limit=3", down, up},
		{"not reverse", "&reverse=false", up, down},
		{"a repo", "&repo=did:key:zQ3shother", "theirs both,theirs", "theirs,theirs both"},
		{"a collection", "&collection=com.example.other", "<nil>", "<nil>"},
		{"an unknown repo", "&repo=did:key:zQ3shstranger", "", ""},
		{"no values", "&excludeValues=true&repo=did:key:zQ3shother", "<nil>,<nil>", "<nil>,<nil>"},
	} {
		for name, d := range both {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				got := strings.Join(listed(t, s, nsid, spelled(d, get, "space=$S")+c.in, "records", "value.text"), ",")
				if want := map[Dialect]string{HappyView: c.happyview, ATProto: c.atproto}[d]; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
	}
	runTable(t, []endpoint{
		{"superset", get, nsid, "space=$S&repo=did:key:zQ3showner&collection=com.example.note&limit=1", 200, 200, "", map[string]any{
			"records.0.uri": "*", "records.0.did": "did:key:zQ3showner", "records.0.collection": "com.example.note", "records.0.rkey": "*",
			"records.0.cid": "*", "records.0.value.text": "*", "records.0.rev": "*",
		}},
		{"over both limits", get, nsid, "space=$S&limit=1001", 200, 400, "InvalidRequest", nil},
		{"over one limit", get, nsid, "space=$S&limit=101", 200, 200, "", nil},
		{"limit 0", get, nsid, "space=$S&limit=0", 400, 400, "InvalidRequest", nil},
		{"limit -1", get, nsid, "space=$S&limit=-1", 400, 400, "InvalidRequest", nil},
		{"limit text", get, nsid, "space=$S&limit=ten", 400, 400, "InvalidRequest", nil},
		{"bad cursor", get, nsid, "space=$S&cursor=1e9", 400, 400, "InvalidCursor", nil},
		{"bad boolean", get, nsid, "space=$S&reverse=1", 400, 400, "InvalidRequest", map[string]any{"message": "reverse: must be true or false"}},
		{"bad collection", get, nsid, "space=$S&collection=x", 400, 400, "InvalidRequest", nil},
		{"bad escape", get, nsid, "space=$S&collection=%zz", 400, 400, "InvalidRequest", nil},
		{"unknown", get, nsid, "space=$Sx", 404, 400, "SpaceNotFound", nil},
	})
}

func TestAmbiguousRecordNamesTheAuthors(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("record: %w", ErrAmbiguous{[]space.DID{other, stranger}}),
		&ErrAmbiguous{[]space.DID{other, stranger}},
	} {
		f := newFake(t)
		f.fail = err
		w := ask(newServer(f), get, "com.atproto.space.getRecord", "space="+home.String()+"&collection=com.example.note&rkey=a")
		body := decoded(t, w)
		if w.Code != 409 || body["error"] != "AmbiguousRepo" || at(body, "authors.1") != string(stranger) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		if !strings.Contains(body["message"].(string), string(other)) {
			t.Errorf("message %q names no author", body["message"])
		}
	}
}

func TestRepoState(t *testing.T) {
	const nsid = "com.atproto.space.getRepoState"
	runTable(t, []endpoint{
		{"written", get, nsid, "space=$S&did=did:key:zQ3shother", 200, 200, "", map[string]any{
			"did": "did:key:zQ3shother", "rev": "*", "count": 2.0, "state": "*", "hash": "*", "commit.ver": 1.0, "commit.rev": "*",
		}},
		{"as repo", get, nsid, "space=$S&repo=did:key:zQ3shother", 200, 200, "", map[string]any{"count": 2.0}},
		{"own", get, nsid, "space=$S", 200, 200, "", map[string]any{"did": "did:key:zQ3showner"}},
		{"never written", get, nsid, "space=$S&did=did:key:zQ3shstranger", 200, 200, "", map[string]any{"rev": nil, "commit": nil, "state": nil}},
		{"unknown", get, nsid, "space=$Sx&did=did:key:zQ3shother", 404, 400, "SpaceNotFound", nil},
	})
	f := seeded(t)
	for name, d := range both {
		body := decoded(t, ask(newServer(f), get, nsid, spelled(d, get, "space=$S")))
		for field, size := range map[string]int{"hash": 32, "commit.hash": 32, "commit.ikm": 32, "commit.mac": 32, "commit.sig": 64} {
			enc, path := base64.RawURLEncoding, field
			if d == ATProto {
				enc, path = base64.RawStdEncoding, field+".$bytes"
			}
			text, _ := at(body, path).(string)
			if b, err := enc.DecodeString(text); err != nil || len(b) != size {
				t.Errorf("%s: %s is %v, %d bytes", name, path, at(body, field), len(b))
			}
		}
		state, err := base64.StdEncoding.DecodeString(body["state"].(string))
		if err != nil || len(state) != 2048 {
			t.Errorf("%s: state: %d bytes, %v", name, len(state), err)
		}
	}
	w := ask(newServer(f), get, nsid, "space="+home.String()+"&did="+string(stranger))
	for _, null := range []string{`"rev":null`, `"commit":null`} {
		if !strings.Contains(w.Body.String(), null) {
			t.Errorf("%s has no %s", w.Body, null)
		}
	}
}

// batched has the ops 1 | 2 3 4 | 5 of the owner, by their number in text.
func batched(t *testing.T) *fake {
	f := newFake(t)
	n := 0
	for _, size := range []int{1, 3, 1} {
		var ws []Write
		for range size {
			n++
			rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"n":%d}`, n))
			if err != nil {
				t.Fatal(err)
			}
			ws = append(ws, Write{Action: ActionPut, Path: space.Path{Collection: notes, Key: space.RecordKey(fmt.Sprint("k", n))}, Value: rec})
		}
		if _, err := f.Write(t.Context(), home, ws, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestListRepoOps(t *testing.T) {
	f := batched(t)
	s := newServer(f)
	const nsid = "com.atproto.space.listRepoOps"
	ops := f.spaces[home].repos[owner].ops
	rev := func(i int) string { return ops[i].Rev.String() }
	for _, c := range []struct {
		name, in           string
		happyview, atproto string // op numbers, then + for a cursor or . for the commit
	}{
		{"all", "", "12345.", "12345."},
		{"whole rev", "&limit=2", "1234+", "12+"},
		{"up to the head", "&limit=5", "12345.", "12345+"},
		{"inside the rev", "&limit=2&cursor=" + rev(1) + "/0", "34+", "34+"},
		{"after the rev", "&limit=2&cursor=" + rev(1) + "/2", "5.", "5."},
		{"bare rev", "&limit=1&cursor=" + rev(0), "234+", "234+"},
		{"since", "&since=" + rev(1), "5.", "5."},
		{"since and cursor", "&limit=2&since=" + rev(0) + "&cursor=" + rev(1) + "/0", "34+", "34+"},
		{"since and an earlier bare rev", "&since=" + rev(1) + "&cursor=" + rev(0), "5.", "5."},
		{"at the head", "&since=" + rev(4), ".", "."},
		{"never written", "&did=did:key:zQ3shstranger", "", ""},
		{"by did", "&did=did:key:zQ3showner", "12345.", "12345."},
		{"by repo", "&repo=did:key:zQ3showner&excludeValues=true", "xxxxx.", "xxxxx."},
	} {
		for name, d := range both {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				w := ask(s, get, nsid, spelled(d, get, "space=$S")+c.in)
				body := decoded(t, w)
				got := ""
				for _, op := range body["ops"].([]any) {
					if n := at(op, "value.n"); n != nil {
						got += fmt.Sprint(n)
					} else {
						got += "x"
					}
				}
				if body["cursor"] != nil {
					got += "+"
				}
				if body["commit"] != nil {
					got += "."
				}
				if want := map[Dialect]string{HappyView: c.happyview, ATProto: c.atproto}[d]; got != want {
					t.Errorf("got %s, want %s: %s", got, want, w.Body)
				}
			})
		}
	}
	for name, d := range both {
		for limit := range 6 {
			in := fmt.Sprintf("%s&limit=%d", spelled(d, get, "space=$S"), limit+1)
			if got := strings.Join(listed(t, s, nsid, in, "ops", "value.n"), ""); got != "12345" {
				t.Errorf("%s: pages of %d hold %s", name, limit+1, got)
			}
		}
	}
	bad := []endpoint{}
	for _, cursor := range []string{"x", rev(0) + "/", rev(0) + "/-1", rev(0) + "/0junk", rev(0) + "/00", "/5", "junk/5", "3jzfcijpj2z2"} {
		bad = append(bad, endpoint{"cursor " + url.QueryEscape(cursor), get, nsid, "space=$S&cursor=" + url.QueryEscape(cursor), 400, 400, "InvalidCursor", nil})
	}
	runTable(t, append(bad,
		endpoint{"since", get, nsid, "space=$S&since=yesterday", 400, 400, "InvalidRequest", nil},
		endpoint{"superset", get, nsid, "space=$S&limit=1&did=did:key:zQ3shother", 200, 200, "", map[string]any{
			"ops.0.rev": "*", "ops.0.idx": 0.0, "ops.0.action": "create", "ops.0.cid": "*", "ops.0.prev": nil, "ops.0.did": "did:key:zQ3shother",
			"ops.0.author_did": "did:key:zQ3shother", "ops.0.created_at": "*", "ops.0.createdAt": "*", "ops.0.collection": "com.example.note", "ops.0.rkey": "both",
			"cursor": "*", "commit": nil,
		}}))
}

// Updates and deletes name what was there, in nulls that are there.
func TestListRepoOpsActions(t *testing.T) {
	f := newFake(t)
	f.put(owner, "com.example.note/a", `{"n":1}`)
	f.put(owner, "com.example.note/a", `{"n":2}`)
	p := space.Path{Collection: notes, Key: "a"}
	if _, err := f.Write(t.Context(), home, []Write{{Action: ActionDelete, Path: p}}, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	s := newServer(f)
	got := strings.Join(listed(t, s, "com.atproto.space.listRepoOps", "space="+home.AT()+"&limit=1", "ops", "action"), ",")
	if got != "create,update,delete" {
		t.Errorf("actions %s", got)
	}
	text := ask(s, get, "com.atproto.space.listRepoOps", "space="+home.AT()).Body.String()
	if strings.Count(text, `"prev":null`) != 1 || strings.Count(text, `"cid":null`) != 1 {
		t.Errorf("nulls are missing: %s", text)
	}
}

func TestListRepos(t *testing.T) {
	const nsid = "com.atproto.space.listRepos"
	runTable(t, []endpoint{
		{"all", get, nsid, "space=$S", 200, 200, "", map[string]any{
			"repos.0.did": "did:key:zQ3shother", "repos.1.did": "did:key:zQ3showner", "repos.0.rev": "*", "repos.0.hash": "*", "cursor": nil,
		}},
		{"page", get, nsid, "space=$S&limit=1", 200, 200, "", map[string]any{"repos.1": nil, "cursor": "*"}},
		{"unknown", get, nsid, "space=$Sx", 404, 400, "SpaceNotFound", nil},
	})
	got := listed(t, newServer(seeded(t)), nsid, "limit=1&space="+home.AT(), "repos", "did")
	if len(got) != 2 {
		t.Errorf("pages hold %v", got)
	}
}

func TestOpsCursor(t *testing.T) {
	rev, idx, err := ParseOpsCursor(FormatOpsCursor(1<<60, 7))
	if rev != 1<<60 || idx != 7 || err != nil {
		t.Errorf("got %v %d %v", rev, idx, err)
	}
	if _, _, err := ParseOpsCursor("3jzfcijpj2z2a"); !errors.Is(err, ErrCursor) {
		t.Errorf("bare rev: %v", err)
	}
}

// Records are held to the lexicons that are known, unless the request says no.
func TestValidate(t *testing.T) {
	l := readLexicons(t, fstest.MapFS{"note.json": {Data: []byte(`{"lexicon":1,"id":"com.example.note","defs":{"main":{"type":"record",
		"record":{"type":"object","required":["text"],"properties":{"text":{"type":"string"}}}}}}`)}})
	for _, c := range []struct {
		collection, validate, record string
		status                       any // or the name of the error
		err                          string
	}{
		{"com.example.note", "", `{"text":"x"}`, "valid", ""},
		{"com.example.note", `"validate":true,`, `{"text":"x"}`, "valid", ""},
		{"com.example.note", `"validate":false,`, `{"text":1}`, nil, ""},
		{"com.example.note", `"validate":null,`, `{"text":1}`, nil, "text: must be a string"},
		{"com.example.note", "", `{}`, nil, "record.text: is required"},
		{"com.example.other", "", `{}`, "unknown", ""},
		{"com.example.other", `"validate":true,`, `{}`, nil, "no lexicon of com.example.other"},
	} {
		for _, d := range both {
			f := seeded(t)
			s := newServer(f)
			s.Lexicons = l
			before := f.text()
			for nsid, body := range map[string]string{
				"com.atproto.space.createRecord": `"collection":"` + c.collection + `","record":` + c.record + `}`,
				"com.atproto.space.applyWrites":  `"writes":[{"$type":"#create","collection":"` + c.collection + `","value":` + c.record + `}]}`,
			} {
				got := decoded(t, ask(s, post, nsid, `{"space":"`+d.spaceURI(home)+`",`+c.validate+body))
				message, _ := got["message"].(string)
				status := got["validationStatus"]
				if nsid == "com.atproto.space.applyWrites" && c.err == "" {
					status = at(got, "results.0.validationStatus")
				}
				if status != c.status || (c.err == "") != (message == "") || !strings.Contains(message, c.err) {
					t.Errorf("%s %s%s: %v", nsid, c.validate, c.record, got)
				}
			}
			if c.err != "" && f.text() != before {
				t.Error("something was written")
			}
		}
	}
}
