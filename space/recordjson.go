package space

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxRecordJSON is the length of JSON that is looked at for a record.
const MaxRecordJSON = 4 << 20

// isNotation reports whether a map key says "link" or "bytes" in JSON.
func isNotation(key string) bool { return key == "$link" || key == "$bytes" }

// RecordFromJSON reads the JSON form of a record: {"$link": "bafy…"} is a link
// and {"$bytes": "base64"} is bytes. Floats, integers beyond ±(2^53-1), keys
// that stand twice and text that is not Unicode are refused; errors name the
// field.
func RecordFromJSON(b []byte) (Record, error) {
	if len(b) > MaxRecordJSON {
		return nil, fmt.Errorf("record: %d bytes of JSON: %w", len(b), ErrTooLarge)
	}
	if err := checkUnicode(b); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	p := jsonParser{dec: json.NewDecoder(bytes.NewReader(b))}
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

// jsonParser builds a tree of map[string]any, []any, string, int64, bool, nil,
// []byte and CID.
type jsonParser struct {
	dec   *json.Decoder
	path  []string // where it stands: ".field" and "[3]"
	items int
}

func (p *jsonParser) errorf(kind error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if len(p.path) == 0 {
		return fmt.Errorf("%s: %w", what, kind)
	}
	field := strings.TrimPrefix(strings.Join(p.path, ""), ".")
	return fmt.Errorf("field %s: %s: %w", field, what, kind)
}

func (p *jsonParser) token() (json.Token, error) {
	t, err := p.dec.Token()
	if err != nil {
		return nil, p.errorf(ErrMalformed, "not JSON: %v", err)
	}
	return t, nil
}

func (p *jsonParser) value(depth int) (any, error) {
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

func (p *jsonParser) integer(s string) (any, error) {
	if strings.ContainsAny(s, ".eE") {
		return nil, p.errorf(ErrMalformed, "%.40s: records hold no floats", s)
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v > maxSafeInt || v < -maxSafeInt {
		return nil, p.errorf(ErrMalformed, "%.40s: integers are within ±(2^53-1)", s)
	}
	return v, nil
}

func (p *jsonParser) array(depth int) (any, error) {
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

func (p *jsonParser) object(depth int) (any, error) {
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
func (p *jsonParser) notation(key string, m map[string]any) (any, error) {
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

// appendValue writes a tree of jsonParser as DRISL.
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

// JSON is the record as JSON, keys in the order they have in the record, no
// spaces: one text for one record.
func (r Record) JSON() ([]byte, error) { return r.AppendJSON(make([]byte, 0, len(r)+len(r)/4)) }

// AppendJSON appends the text of JSON to b. Where it fails it appends nothing.
func (r Record) AppendJSON(b []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return b, fmt.Errorf("record: %w", err)
	}
	w := jsonWriter{checker: checker{b: r}, out: b}
	w.value()
	return w.out, nil
}

// jsonWriter walks a record that has been checked: nothing in it can fail.
type jsonWriter struct {
	checker
	out []byte
}

func (w *jsonWriter) value() {
	first := w.b[w.off]
	major, arg, _ := w.head()
	switch major {
	case majorUint:
		w.out = strconv.AppendUint(w.out, arg, 10)
	case majorInt:
		w.out = strconv.AppendInt(w.out, -1-int64(arg), 10)
	case majorBytes:
		s, _ := w.take(arg)
		w.out = append(w.out, `{"$bytes":"`...)
		w.out = base64.RawStdEncoding.AppendEncode(w.out, s)
		w.out = append(w.out, `"}`...)
	case majorText:
		s, _ := w.take(arg)
		w.text(s)
	case majorArray:
		w.list('[', ']', arg, w.value)
	case majorMap:
		w.list('{', '}', arg, func() {
			key, _ := w.key()
			w.text(key)
			w.out = append(w.out, ':')
			w.value()
		})
	case majorTag:
		b, _ := w.take(uint64(len(cidHead) - 2 + CIDSize))
		w.out = append(w.out, `{"$link":"`...)
		w.out = CID{[CIDSize]byte(b[len(cidHead)-2:])}.appendText(w.out)
		w.out = append(w.out, `"}`...)
	default:
		w.out = append(w.out, simpleText(first)...)
	}
}

func (w *jsonWriter) list(open, end byte, n uint64, item func()) {
	w.out = append(w.out, open)
	for i := range n {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		item()
	}
	w.out = append(w.out, end)
}

// text escapes what JSON demands and nothing else.
func (w *jsonWriter) text(s []byte) {
	const hexDigits = "0123456789abcdef"
	w.out = append(w.out, '"')
	plain := 0 // where what stands for itself begins
	for i, c := range s {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		w.out = append(append(w.out, s[plain:i]...), '\\')
		plain = i + 1
		if c >= 0x20 {
			w.out = append(w.out, c)
		} else {
			w.out = append(w.out, 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	w.out = append(append(w.out, s[plain:]...), '"')
}

func simpleText(b byte) string {
	switch b {
	case simpleFalse:
		return "false"
	case simpleTrue:
		return "true"
	default:
		return "null"
	}
}
