package xrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// dumbObject is parseObject by way of encoding/json: what is an object, with
// no key twice and not too deep. It cannot see half surrogate pairs.
func dumbObject(b []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(b) || !json.Valid(b) {
		return nil, errors.New("not json")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dumbWalk(dec, 1); err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil || m == nil {
		return nil, errors.New("no object")
	}
	return m, nil
}

func dumbWalk(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > maxJSONDepth {
		return errors.New("deep")
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			if seen[key.(string)] {
				return errors.New("twice")
			}
			seen[key.(string)] = true
		}
		if err := dumbWalk(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// checkObject compares parseObject with dumbObject.
func checkObject(t interface{ Fatalf(string, ...any) }, b []byte) {
	got, err := parseObject(b)
	want, wantErr := dumbObject(b)
	surrogates := strings.Contains(strings.ToLower(string(b)), `\ud`)
	if (err == nil) != (wantErr == nil) && !(surrogates && err != nil) {
		t.Fatalf("%q: parsed with %v, want %v", b, err, wantErr)
	}
	if err != nil {
		if !errors.Is(err, errRequest) && !errors.Is(err, errShape) {
			t.Fatalf("%q: %v is no fault", b, err)
		}
		return
	}
	if len(got.members) != len(want) {
		t.Fatalf("%q: %d members, want %d", b, len(got.members), len(want))
	}
	for _, m := range got.members {
		if !bytes.Equal(bytes.TrimSpace(want[string(m.key)]), m.raw) {
			t.Fatalf("%q: %s is %q, want %q", b, m.key, m.raw, want[string(m.key)])
		}
		text, ok, err := got.text(string(m.key))
		var s *string
		if wantErr := json.Unmarshal(m.raw, &s); (wantErr == nil) != (err == nil) || ok != (s != nil && err == nil) || ok && text != *s {
			t.Fatalf("%q: text %q %v %v, want %v", m.raw, text, ok, err, wantErr)
		}
	}
}

var objectSeeds = []string{
	`{}`, `{"a":1,"b":[true,false,null,{"c":-0.5e+3}],"d":"\"\\\/\b\f\n\r\té😀"}`, ` { "a" : 1 } `, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`,
	`{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":{"b":{"b":1,"b":2}}}`, `[]`, `null`, `{"a":01}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":-}`,
	`{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1 "b":2}`, `{"a":tru}`, `{"a":[1,]}`, `{"a":"` + "\x00" + `"}`, `{"a":"\x"}`, `{"a":"\u00g0"}`, "{\"\xff\":1}",
	`{"a":`, `{"a":"`, `{"a":"\`, `{`, ``, `{"a":{}}}`, `{"":""}`, `{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
	`{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, `{"a":"\ud83d\u0041"}`, `{"a":"\ude00\ude00"}`,
	strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32), strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33),
}

func FuzzObject(f *testing.F) {
	for _, s := range objectSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkObject(t, b) })
}

// The fuzz target's check on texts that are nearly JSON.
func TestNaiveObject(t *testing.T) {
	piece := rapid.SampledFrom([]string{`{`, `}`, `[`, `]`, `,`, `:`, ` `, `"a"`, `"b"`, `"\u0061"`, `"\n"`, `1`, `-2.5e1`, `true`, `null`, `"`, `\`, `0`})
	value := rapid.Custom(func(t *rapid.T) string { return drawJSON(t, 3) })
	rapid.Check(t, func(t *rapid.T) {
		s := value.Draw(t, "value")
		switch rapid.IntRange(0, 3).Draw(t, "damage") {
		case 0:
			s = strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), "")
		case 1:
			at := rapid.IntRange(0, len(s)).Draw(t, "at")
			s = s[:at] + piece.Draw(t, "piece") + s[at:]
		case 2:
			s = s[:rapid.IntRange(0, len(s)).Draw(t, "cut")]
		}
		checkObject(t, []byte(s))
	})
}

func drawJSON(t *rapid.T, depth int) string {
	key := rapid.SampledFrom([]string{"a", "b", "c", `\u0061`, "é", ""})
	switch kind := rapid.IntRange(0, 4).Draw(t, "kind"); {
	case kind <= 1 && depth > 0:
		var parts []string
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			parts = append(parts, `"`+key.Draw(t, "key")+`": `+drawJSON(t, depth-1))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case kind == 2 && depth > 0:
		var parts []string
		for range rapid.IntRange(0, 4).Draw(t, "elements") {
			parts = append(parts, drawJSON(t, depth-1))
		}
		return "[" + strings.Join(parts, ",") + "]"
	default:
		return rapid.SampledFrom([]string{`1`, `-0`, `2.5`, `1e9`, `true`, `false`, `null`, `"x"`, `"\\"`, `"\u00e9"`, `""`}).Draw(t, "scalar")
	}
}

// postMethods are those that are built, in a fixed order.
func postMethods(verb string) []string {
	var all []string
	for _, nsid := range slices.Sorted(maps.Keys(methods)) {
		if m := methods[nsid]; m.handle != nil && m.verb == verb {
			all = append(all, nsid)
		}
	}
	return all
}

// checkAnswer holds for every answer to every input.
func checkAnswer(t *testing.T, f *fake, verb, nsid, in string) (code int) {
	s := newServer(f)
	log := logTo(s)
	w := ask(s, verb, nsid, in)
	if kind := w.Header().Get("Content-Type"); w.Code == 200 && kind != "" && kind != "application/json" {
		return w.Code // bytes, which have tests of their own
	}
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s %q: %d %q", nsid, in, w.Code, w.Body)
	}
	if w.Code >= 500 && w.Code != 503 || w.Code >= 400 && (body["error"] == nil || body["message"] == "") {
		t.Fatalf("%s %q: %d %s, log %s", nsid, in, w.Code, w.Body, log)
	}
	return w.Code
}

// text is all that a node keeps, to be compared.
func (f *fake) text() string {
	var b strings.Builder
	for _, id := range slices.SortedFunc(maps.Keys(f.spaces), func(a, b space.ID) int { return strings.Compare(a.String(), b.String()) }) {
		s := f.spaces[id]
		fmt.Fprintf(&b, "%+v\n%+v\n%+v\n%+v\n%+v %t %d\n", s.info, s.members, s.children, s.doors, s.waiting, s.accepted, len(s.repos))
	}
	fmt.Fprintf(&b, "%+v %d %q %d\n", f.devices, f.updates, f.reason, len(f.peers))
	return b.String()
}

// No body makes a handler fail, and what was written reads back the same.
func FuzzBodies(f *testing.F) {
	names := postMethods(post)
	seed := func(nsid, body string) {
		f.Add(uint8(slices.Index(names, nsid)), []byte(strings.ReplaceAll(body, "$S", home.String())))
		f.Add(uint8(slices.Index(names, nsid)), []byte(strings.ReplaceAll(body, "$S", home.AT())))
	}
	for _, rows := range [][]endpoint{spaceEndpoints, memberEndpoints, inviteEndpoints, adminEndpoints} {
		for _, e := range rows {
			if e.verb == post && built(e.nsid) {
				seed(e.nsid, e.in)
			}
		}
	}
	seed("com.atproto.space.createRecord", `{"space":"$S","collection":"com.example.note","record":{"a":[1,"é",{"$bytes":"AAEC"},null]}}`)
	seed("com.atproto.space.putRecord", `{"space":"$S","collection":"com.example.note","rkey":"a","swapRecord":null,"record":{}}`)
	seed("com.atproto.space.deleteRecord", `{"space":"$S","collection":"com.example.note","rkey":"a"}`)
	seed("com.atproto.space.applyWrites", `{"space":"$S","swapCommit":"","writes":[{"action":"create","collection":"com.example.note","value":{"a":1}},{"$type":"#delete","collection":"com.example.note","rkey":"a"}]}`)
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		node := newFake(t)
		before := node.text()
		code := checkAnswer(t, node, post, names[int(which)%len(names)], string(body))
		if after := node.text(); code >= 400 && after != before {
			t.Fatalf("%s %q failed with %d and changed\n%s\nto\n%s", names[int(which)%len(names)], body, code, before, after)
		}
		for _, s := range node.spaces {
			if err := s.info.Policy.Validate(); err != nil {
				t.Fatalf("%s %q: a policy that no node carries out: %v", names[int(which)%len(names)], body, err)
			}
			for _, r := range s.repos {
				for _, rec := range r.records {
					text, err := rec.Value.JSON()
					again, err2 := space.RecordFromJSON(text)
					if err != nil || err2 != nil || !bytes.Equal(again, rec.Value) {
						t.Fatalf("%s reads back as %x: %v %v", text, again, err, err2)
					}
				}
			}
		}
	})
}

// No query makes a handler fail.
func FuzzQueries(f *testing.F) {
	names := postMethods(get)
	for _, rows := range [][]endpoint{spaceEndpoints, memberEndpoints, inviteEndpoints, adminEndpoints} {
		for _, e := range rows {
			if i := slices.Index(names, e.nsid); i >= 0 {
				f.Add(uint8(i), strings.ReplaceAll(e.in, "$S", home.String()))
			}
		}
	}
	for i := range names {
		f.Add(uint8(i), "space="+home.AT()+"&collection=com.example.note&rkey=a&repo="+string(owner)+"&limit=5&cursor=3jzfcijpj2z2a/1&reverse=true&since=3jzfcijpj2z2a")
	}
	f.Fuzz(func(t *testing.T, which uint8, query string) {
		checkAnswer(t, seeded(t), get, names[int(which)%len(names)], query)
	})
}

// No answer makes the client fail.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"uri":"x","rev":"3jzfcijpj2z2a","hash":{"$bytes":"AA"},"commit":{"ver":1},"ops":[{"rev":"x"}],"records":[{}],"space":{},"spaces":[{}],"members":[{"did":"x"}],"repos":[{}]}`))
	f.Add([]byte(`{"ops":[],"state":{"rev":"3jzfcijpj2z2a","hash":"AA"}}`))
	f.Add([]byte(`{"delegations":[{"space":"ats://a/b/c"}],"invites":[{"expiresAt":"x"}],"requests":[{"askedAt":""}],"devices":[{}],"member":{},"did":"x","caps":["x"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, out := range []any{&invitesAnswer{}, &memberObject{}, &requestsAnswer{}, &devicesAnswer{}, &inviteAnswer{}, &spaceAnswer{}, &spacesAnswer{}, &membersAnswer{}, &recordAnswer{}, &recordsAnswer{}, &stateAnswer{}, &opsAnswer{}, &reposAnswer{}} {
			if json.Unmarshal(body, out) != nil {
				continue
			}
			switch out := out.(type) {
			case *spaceAnswer:
				_, _ = out.Space.info()
			case *membersAnswer:
				for _, m := range out.Members {
					_, _ = m.member()
				}
				for _, d := range out.Delegations {
					_, _ = d.delegation()
				}
			case *invitesAnswer:
				for _, i := range out.Invites {
					_, _ = i.info()
				}
			case *inviteAnswer:
				_, _ = untilOf(out.ExpiresAt)
			case *memberObject:
				_, _ = out.member()
			case *recordAnswer:
				_, _ = out.record()
			case *stateAnswer:
				var hash [32]byte
				_ = fillBytes(hash[:], out.Hash)
				_, _ = out.Commit.commit()
			case *opsAnswer:
				for _, o := range out.Ops {
					_, _ = o.op()
				}
				_, _ = out.Commit.commit()
			}
		}
		_ = fmt.Sprint(errorOf(400, body))
	})
}
