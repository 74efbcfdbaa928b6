package space

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func record(t testing.TB, s string) Record {
	t.Helper()
	r, err := RecordFromJSON([]byte(s))
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return r
}

func TestRecordJSON(t *testing.T) {
	link := Sum(nil).String()
	for in, want := range map[string]string{
		`{}`:                                `{}`,
		`{"b":1,"a":2,"aa":3}`:              `{"a":2,"b":1,"aa":3}`,
		` { "n" : [ null , true, false ] }`: `{"n":[null,true,false]}`,
		`{"max":9007199254740991,"min":-9007199254740991}`: `{"max":9007199254740991,"min":-9007199254740991}`,
		`{"neg":-1,"zero":-0}`:                             `{"neg":-1,"zero":0}`,
		`{"l":{"$link":"` + link + `"}}`:                   `{"l":{"$link":"` + link + `"}}`,
		`{"b":{"$bytes":"AQID"}}`:                          `{"b":{"$bytes":"AQID"}}`,
		`{"b":{"$bytes":"AQ=="}}`:                          `{"b":{"$bytes":"AQ"}}`,
		`{"b":{"$bytes":""}}`:                              `{"b":{"$bytes":""}}`,
		`{"t":"<\u0041\"\\\/\u00e9\ud83d\ude00\n\u0000>"}`: `{"t":"<A\"\\/é😀\u000a\u0000>"}`,
		`{"\\ud800":"\\ud800"}`:                            `{"\\ud800":"\\ud800"}`,
	} {
		r := record(t, in)
		if out, err := r.JSON(); err != nil || string(out) != want {
			t.Errorf("%s gave %s, %v, want %s", in, out, err, want)
		}
		if _, err := ParseRecord(r); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestRecordJSONRefusals(t *testing.T) {
	link := Sum(nil).String()
	for in, want := range map[string]string{
		``:                                     "not JSON",
		`[]`:                                   "not an object",
		`"x"`:                                  "not an object",
		`{"$link":"` + link + `"}`:             "not an object",
		`{} {}`:                                "follows",
		`{}x`:                                  "follows",
		`{"a":1,}`:                             "not JSON",
		`{"a":`:                                "not JSON",
		`{"a":[1}`:                             "not JSON",
		`{"a":{"b":[0,1.5]}}`:                  "field a.b[1]: 1.5: records hold no floats",
		`{"a":1e3}`:                            "field a: 1e3: records hold no floats",
		`{"a":9007199254740992}`:               "field a: 9007199254740992: integers are within",
		`{"a":-9007199254740992}`:              "integers are within",
		`{"a":99999999999999999999}`:           "integers are within",
		`{"a":1,"a":1}`:                        "field a: stands twice",
		`{"o":{"a":1,"\u0061":2}}`:             "field o.a: stands twice",
		`{"l":{"$link":1}}`:                    "field l: an object with $link",
		`{"l":{"$link":"` + link + `","x":1}}`: "field l: an object with $link",
		`{"l":{"$link":"bafy"}}`:               "field l: $link",
		`{"b":{"$bytes":"A"}}`:                 "field b: $bytes is not base64",
		`{"b":{"$bytes":"AR"}}`:                "not base64", // bits left over
		`{"b":{"$bytes":"A\nQID"}}`:            "not base64",
		`{"b":{"$bytes":"AQ\nID"}}`:            "not base64",
		`{"b":{"$bytes":"AQ\u000aID"}}`:        "not base64",
		`{"b":{"$bytes":"AQ-_"}}`:              "not base64",
		`{"t":"\ud800"}`:                       "surrogate",
		`{"t":"\ud800\u0041"}`:                 "surrogate",
		`{"t":"\udc00"}`:                       "surrogate",
		`{"t":"\\\ud800"}`:                     "surrogate",
		"{\"t\":\"\xff\"}":                     "not UTF-8",
	} {
		r, err := RecordFromJSON([]byte(in))
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want ErrMalformed with %q", in, r, err, want)
		}
	}
}

func TestRecordCaps(t *testing.T) {
	nest := func(n int, inner string) string {
		return strings.Repeat(`{"a":`, n) + inner + strings.Repeat("}", n)
	}
	link := `{"$link":"` + Sum(nil).String() + `"}`
	for name, c := range map[string]struct {
		in string
		ok bool
	}{
		"16 deep":               {nest(16, "1"), true},
		"17 deep":               {nest(17, "1"), false},
		"16 deep, then a link":  {nest(16, link), true},
		"17 deep, then a link":  {nest(17, link), false},
		"16 deep, then a list":  {nest(16, "[]"), false},
		"16 deep, then a map":   {nest(16, "{}"), false},
		"100,000 deep":          {nest(100_000, "1"), false},
		"1 MiB":                 {`{"a":"` + strings.Repeat("x", MaxRecord-8) + `"}`, true},
		"1 MiB and one":         {`{"a":"` + strings.Repeat("x", MaxRecord-7) + `"}`, false},
		"more than 4 MiB":       {`{"a":"` + strings.Repeat("\\u0061", 1<<20) + `"}`, false},
		"a million numbers":     {`{"a":[` + strings.Repeat("0,", 1<<20) + `0]}`, false},
		"many escaped, in caps": {`{"a":"` + strings.Repeat("\\u0061", 1<<19) + `"}`, true},
	} {
		r, err := RecordFromJSON([]byte(c.in))
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok {
			if _, err := ParseRecord(r); err != nil {
				t.Errorf("%s: ParseRecord: %v", name, err)
			}
		}
	}
}

func TestParseRecord(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		want error
	}{
		"empty map":       {"a0", nil},
		"2^53-1":          {"a161611b001fffffffffffff", nil},
		"-(2^53-1)":       {"a161613b001ffffffffffffe", nil},
		"nothing":         {"", ErrMalformed},
		"list":            {"80", ErrMalformed},
		"2^53":            {"a161611b0020000000000000", ErrMalformed},
		"-2^53":           {"a161613b001fffffffffffff", ErrMalformed},
		"float":           {"a16161f90000", ErrMalformed},
		"a $link key":     {"a1652" + "46c696e6b01", ErrMalformed},
		"a $bytes key":    {"a16161a1662462797465730" + "1", ErrMalformed},
		"not canonical":   {"a161611800", ErrNotCanonical},
		"trailing a byte": {"a000", ErrMalformed},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := ParseRecord(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := ParseRecord(append([]byte{0xa1, 0x61, 'a', 0x5a, 0, 0x10, 0, 0}, make([]byte, 1<<20)...)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over a megabyte: %v, want ErrTooLarge", err)
	}
	if _, err := Record("x").JSON(); err == nil {
		t.Error("JSON of what is no record")
	}
}

func TestRecordType(t *testing.T) {
	for in, want := range map[string]string{
		`{"$type":"com.example.note","a":1}`:              "com.example.note",
		`{"a":{"$type":"inner"},"b":[1],"$type":"outer"}`: "outer",
		`{"a":{"$type":"inner"}}`:                         "",
		`{"$type":5}`:                                     "",
		`{"$type":{"$link":"` + Sum(nil).String() + `"}}`: "",
		`{}`: "",
		`{"zzzzzzzz":"after","$type":"com.example.sorted"}`: "com.example.sorted",
	} {
		if got := record(t, in).Type(); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	if Record(nil).Type() != "" || Record("\xa1").Type() != "" {
		t.Error("a type without a record")
	}
}

func TestRecordInStruct(t *testing.T) {
	type body struct {
		R Record `json:"r"`
	}
	var b body
	if err := json.Unmarshal([]byte(`{"r":{"a":1}}`), &b); err != nil || !bytes.Equal(b.R, record(t, `{"a":1}`)) {
		t.Fatalf("%x, %v", b.R, err)
	}
	out, err := json.Marshal([]body{b, {}})
	if err != nil || string(out) != `[{"r":{"a":1}},{"r":null}]` {
		t.Errorf("%s, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"r":null}`), &b); err != nil || b.R != nil {
		t.Errorf("null: %x, %v", b.R, err)
	}
	if err := json.Unmarshal([]byte(`{"r":[]}`), &b); !errors.Is(err, ErrMalformed) {
		t.Errorf("a list: %v", err)
	}
}

// Record to JSON and back is the identity, and encoding/json reads our JSON as
// the tree that was drawn.
func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMap(t, 4)
		r, err := ParseRecord(appendValue(nil, m))
		if err != nil {
			t.Fatal(err)
		}
		j, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		back, err := RecordFromJSON(j)
		if err != nil || !bytes.Equal(back, r) {
			t.Fatalf("%s: %x, %v, want %x", j, []byte(back), err, []byte(r))
		}
		dec := json.NewDecoder(bytes.NewReader(j))
		dec.UseNumber()
		var read any
		if err := dec.Decode(&read); err != nil || !reflect.DeepEqual(read, plainJSON(m)) {
			t.Fatalf("%s: %v, want %v", j, read, plainJSON(m))
		}
	})
}

// plainJSON is the tree encoding/json would build.
func plainJSON(v any) any {
	switch v := v.(type) {
	case int64:
		return json.Number(fmt.Sprint(v))
	case []byte:
		return map[string]any{"$bytes": strings.TrimRight(mustText(json.Marshal(v)), "=")}
	case CID:
		return map[string]any{"$link": v.String()}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plainJSON(v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k := range v {
			out[k] = plainJSON(v[k])
		}
		return out
	default:
		return v
	}
}

func mustText(b []byte, err error) string {
	var s string
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		panic(err)
	}
	return s
}

func FuzzRecordFromJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":[1,-2,"x",null,true,{"b":{}}]}`, `{"b":{"$bytes":"AQID"}}`, `{"a":1.5}`, `{"t":"\ud83d\ude00"}`,
		`{"l":{"$link":"` + Sum(nil).String() + `"}}`, `{"a":1,"a":2}`, `{"t":"\ud800"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkNaive(t, b)
		r, err := RecordFromJSON(b)
		if err != nil {
			return
		}
		if _, err := ParseRecord(r); err != nil {
			t.Fatalf("%q gave %x: %v", b, []byte(r), err)
		}
		j, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := RecordFromJSON(j); err != nil || !bytes.Equal(back, r) {
			t.Fatalf("%q gave %s: %v", b, j, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(record(f, `{"a":[1,-2,"x",null,true,{"b":{}}],"c":{"$bytes":"AQ"}}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			return
		}
		j, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		// JSON may be over its own cap; what it says is the same.
		if back, err := RecordFromJSON(j); len(j) <= MaxRecordJSON && (err != nil || !bytes.Equal(back, r)) {
			t.Fatalf("%x gave %s and that %x, %v", b, j, []byte(back), err)
		}
		_ = r.Type()
	})
}
