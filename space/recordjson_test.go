package space

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// naiveRecord is RecordFromJSON by way of the tree that encoding/json builds.
func naiveRecord(b []byte) (Record, error) {
	if len(b) > MaxRecordJSON {
		return nil, fmt.Errorf("record: %d bytes of JSON: %w", len(b), ErrTooLarge)
	}
	if err := checkUnicode(b); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	p := naiveParser{dec: json.NewDecoder(bytes.NewReader(b))}
	p.dec.UseNumber()
	v, err := p.value(0)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if _, err := p.dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("record: something follows the object: %w", ErrMalformed)
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, fmt.Errorf("record: not an object: %w", ErrMalformed)
	}
	r := Record(appendValue(nil, v))
	if len(r) > MaxRecord {
		return nil, fmt.Errorf("record: %d bytes: %w", len(r), ErrTooLarge)
	}
	return r, nil
}

// checkUnicode refuses what encoding/json would quietly replace: bytes that
// are not UTF-8 and escapes of half a surrogate pair.
func checkUnicode(b []byte) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("text is not UTF-8: %w", ErrMalformed)
	}
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return nil
		}
		b = b[i:]
		unit, ok := escapedUnit(b)
		switch {
		case !ok:
			b = b[min(2, len(b)):]
		case 0xd800 <= unit && unit < 0xdc00:
			if low, _ := escapedUnit(b[6:]); low < 0xdc00 || low > 0xdfff {
				return fmt.Errorf(`text holds half a surrogate pair, \u%04x: %w`, unit, ErrMalformed)
			}
			b = b[12:]
		case 0xdc00 <= unit && unit <= 0xdfff:
			return fmt.Errorf(`text holds half a surrogate pair, \u%04x: %w`, unit, ErrMalformed)
		default:
			b = b[6:]
		}
	}
}

// escapedUnit reads the UTF-16 unit of \uXXXX at the beginning of b.
func escapedUnit(b []byte) (uint64, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return v, err == nil
}

// naiveParser builds a tree of map[string]any, []any, string, int64, bool, nil,
// []byte and CID.
type naiveParser struct {
	dec   *json.Decoder
	path  []string // where it stands: ".field" and "[3]"
	items int
}

func (p *naiveParser) errorf(kind error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if len(p.path) == 0 {
		return fmt.Errorf("%s: %w", what, kind)
	}
	field := strings.TrimPrefix(strings.Join(p.path, ""), ".")
	return fmt.Errorf("field %s: %s: %w", field, what, kind)
}

func (p *naiveParser) token() (json.Token, error) {
	t, err := p.dec.Token()
	if err != nil {
		return nil, p.errorf(ErrMalformed, "not JSON: %v", err)
	}
	return t, nil
}

func (p *naiveParser) value(depth int) (any, error) {
	if p.items++; p.items > MaxRecord {
		return nil, p.errorf(ErrTooLarge, "too many values")
	}
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return p.integer(string(t))
	case json.Delim:
		// One level more than a record may have, for a link down there.
		if depth > MaxDepth {
			return nil, p.errorf(ErrTooLarge, "nested more than %d deep", MaxDepth)
		}
		if t == '[' {
			return p.array(depth + 1)
		}
		return p.object(depth + 1)
	default:
		return t, nil // string, bool, nil
	}
}

func (p *naiveParser) integer(s string) (any, error) {
	if strings.ContainsAny(s, ".eE") {
		return nil, p.errorf(ErrMalformed, "%.40s: records hold no floats", s)
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v > maxSafeInt || v < -maxSafeInt {
		return nil, p.errorf(ErrMalformed, "%.40s: integers are within ±(2^53-1)", s)
	}
	return v, nil
}

func (p *naiveParser) array(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, p.errorf(ErrTooLarge, "nested more than %d deep", MaxDepth)
	}
	list := []any{}
	for p.dec.More() {
		p.path = append(p.path, "["+strconv.Itoa(len(list))+"]")
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		p.path = p.path[:len(p.path)-1]
		list = append(list, v)
	}
	_, err := p.token() // the closing bracket
	return list, err
}

func (p *naiveParser) object(depth int) (any, error) {
	m := map[string]any{}
	notation := ""
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		key := t.(string) // the decoder lets nothing else stand here
		p.path = append(p.path, "."+key)
		if _, twice := m[key]; twice {
			return nil, p.errorf(ErrMalformed, "stands twice")
		}
		if m[key], err = p.value(depth); err != nil {
			return nil, err
		}
		p.path = p.path[:len(p.path)-1]
		if isNotation(key) {
			notation = key
		}
	}
	if _, err := p.token(); err != nil { // the closing brace
		return nil, err
	}
	if notation != "" {
		return p.notation(notation, m)
	}
	if depth > MaxDepth {
		return nil, p.errorf(ErrTooLarge, "nested more than %d deep", MaxDepth)
	}
	return m, nil
}

// notation reads {"$link": text} or {"$bytes": text}.
func (p *naiveParser) notation(key string, m map[string]any) (any, error) {
	s, ok := m[key].(string)
	if !ok || len(m) != 1 {
		return nil, p.errorf(ErrMalformed, "an object with %s holds that one text and nothing else", key)
	}
	if key == "$link" {
		c, err := ParseCID(s)
		if err != nil {
			return nil, p.errorf(err, "$link")
		}
		return c, nil
	}
	enc := base64.RawStdEncoding
	if strings.HasSuffix(s, "=") {
		enc = base64.StdEncoding
	}
	if strings.ContainsAny(s, "\r\n") { // the decoder would skip them
		return nil, p.errorf(ErrMalformed, "$bytes is not base64")
	}
	b, err := enc.Strict().DecodeString(s)
	if err != nil {
		return nil, p.errorf(ErrMalformed, "$bytes is not base64")
	}
	return b, nil
}

// appendValue writes a tree of naiveParser as DRISL.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, simpleNull)
	case bool:
		if v {
			return append(b, simpleTrue)
		}
		return append(b, simpleFalse)
	case int64:
		return appendInt(b, v)
	case string:
		return appendText(b, v)
	case []byte:
		return appendBytes(b, v)
	case CID:
		return appendCID(b, v)
	case []any:
		b = appendHead(b, majorArray, uint64(len(v)))
		for _, item := range v {
			b = appendValue(b, item)
		}
		return b
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, compareKeyStrings)
		b = appendHead(b, majorMap, uint64(len(keys)))
		for _, k := range keys {
			b = appendValue(appendText(b, k), v[k])
		}
		return b
	default:
		panic(fmt.Sprintf("space: %T in a JSON tree", v))
	}
}

// compareKeyStrings is compareKeys for strings.
func compareKeyStrings(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// checkNaive compares what RecordFromJSON and naiveRecord make of a text, and
// why they refuse it. Where two things are wrong, either may be named.
func checkNaive(t interface{ Fatalf(string, ...any) }, b []byte) {
	got, err := RecordFromJSON(b)
	want, wantErr := naiveRecord(b)
	if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
		t.Fatalf("%.200q: %x, %v, want %x, %v", b, []byte(got), err, []byte(want), wantErr)
	}
	if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
		t.Fatalf("%.200q: %v is of no kind", b, err)
	}
}

// Texts that are records, nearly records or nearly JSON.
func TestNaiveRecordJSON(t *testing.T) {
	part := rapid.SampledFrom([]string{`{`, `}`, `[`, `]`, `,`, `:`, " ", "\n", `"`, `\`, `"a"`, `"b"`, `"bb"`, `"\u0061"`, `"\ud83d\ude00"`, `"\ud83d"`,
		`"\n"`, `1`, `-0`, `2.5e1`, `9007199254740993`, `true`, `fals`, `null`, `"$link"`, `{"$bytes":"AQID"}`, `{"$bytes":"AQ=="}`, "\xff",
		`{"$link":"` + Sum(nil).String() + `"}`})
	rapid.Check(t, func(t *rapid.T) {
		b := jsonOf(drawMap(t, 4), func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "next") })
		for range rapid.IntRange(0, 3).Draw(t, "damage") {
			at := rapid.IntRange(0, len(b)).Draw(t, "at")
			to := min(len(b), at+rapid.IntRange(0, 3).Draw(t, "cut"))
			b = slices.Concat(b[:at], []byte(part.Draw(t, "part")), b[to:])
		}
		checkNaive(t, b)
	})
}

// jsonOf writes a tree with the keys of its maps in any order and some more
// than 24 in a map now and then.
func jsonOf(v any, draw func(n int) int) []byte {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if draw(4) == 0 {
			for i := range 30 {
				keys = append(keys, fmt.Sprintf("more %d", i))
			}
		}
		out := []byte("{")
		for len(keys) > 0 {
			i := draw(len(keys))
			name, _ := json.Marshal(keys[i])
			out = append(append(out, name...), ':')
			out = append(append(out, jsonOf(v[keys[i]], draw)...), ',')
			keys = slices.Delete(keys, i, i+1)
		}
		return append(bytes.TrimSuffix(out, []byte(",")), '}')
	case []any:
		out := []byte("[")
		for _, x := range v {
			out = append(append(out, jsonOf(x, draw)...), ',')
		}
		return append(bytes.TrimSuffix(out, []byte(",")), ']')
	default:
		out, _ := json.Marshal(plainJSON(v))
		return out
	}
}
