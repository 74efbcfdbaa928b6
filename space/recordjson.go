package space

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/kithnet/kith/space/jsontext"
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
	p := jsonParser{s: jsontext.New(b), out: make([]byte, 0, len(b)), path: make([]step, 0, 4), entries: make([]entry, 0, 8)}
	err := p.value(0)
	if err == nil {
		err = p.syntax(p.s.End())
	}
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if p.out[0]>>5 != majorMap {
		return nil, fmt.Errorf("record: not an object: %w", ErrMalformed)
	}
	if len(p.out) > MaxRecord {
		return nil, fmt.Errorf("record: %d bytes: %w", len(p.out), ErrTooLarge)
	}
	return p.out, nil
}

// jsonParser writes DRISL while it walks over JSON. What stands in another
// order there is put right when its end is reached.
type jsonParser struct {
	s       jsontext.Scanner
	out     []byte
	path    []step
	entries []entry // of the maps that are open, outermost first
	sorted  []byte  // scratch
	items   int
}

// step is a key, or a place in a list if key is nil.
type step struct {
	key []byte
	n   int
}

// entry is where a key and its value stand in the output: head from, text key,
// value val, end to.
type entry struct{ from, key, val, to int }

func (p *jsonParser) errorf(kind error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if len(p.path) == 0 {
		return fmt.Errorf("%s: %w", what, kind)
	}
	var field []byte
	for _, at := range p.path {
		if at.key == nil {
			field = fmt.Appendf(field, "[%d]", at.n)
			continue
		}
		if len(field) > 0 {
			field = append(field, '.')
		}
		field = append(field, at.key...)
	}
	return fmt.Errorf("field %s: %s: %w", field, what, kind)
}

// syntax is the scanner's error, if it is one, with the place.
func (p *jsonParser) syntax(err error) error {
	if errors.Is(err, jsontext.ErrSyntax) {
		return p.errorf(ErrMalformed, "%v", err)
	}
	return err
}

func (p *jsonParser) tooDeep() error {
	return p.errorf(ErrTooLarge, "nested more than %d deep", MaxDepth)
}

func (p *jsonParser) value(depth int) error {
	if p.items++; p.items > MaxRecord {
		return p.errorf(ErrTooLarge, "too many values")
	}
	switch c := p.s.Peek(); {
	case c == '"':
		quoted, err := p.s.Quoted()
		if err != nil {
			return p.syntax(err)
		}
		p.out = appendText(p.out, jsontext.Unquote(quoted))
	case c == '{' || c == '[':
		// One level more than a record may have, for a link down there.
		if depth > MaxDepth {
			return p.tooDeep()
		}
		if c == '[' {
			return p.array(depth + 1)
		}
		return p.object(depth + 1)
	case c == '-' || '0' <= c && c <= '9':
		number, err := p.s.Number()
		if err != nil {
			return p.syntax(err)
		}
		return p.integer(number)
	default:
		if err := p.s.Word(); err != nil {
			return p.syntax(err)
		}
		p.out = append(p.out, simpleOf(c))
	}
	return nil
}

// simpleOf is true, false or null, by how it begins.
func simpleOf(c byte) byte {
	switch c {
	case 't':
		return simpleTrue
	case 'f':
		return simpleFalse
	}
	return simpleNull
}

func (p *jsonParser) integer(s []byte) error {
	if bytes.ContainsAny(s, ".eE") {
		return p.errorf(ErrMalformed, "%.40s: records hold no floats", s)
	}
	v, err := strconv.ParseInt(string(s), 10, 64)
	if err != nil || v > maxSafeInt || v < -maxSafeInt {
		return p.errorf(ErrMalformed, "%.40s: integers are within ±(2^53-1)", s)
	}
	p.out = appendInt(p.out, v)
	return nil
}

// within reads a value at a place below where the parser is.
func (p *jsonParser) within(at step, depth int) error {
	p.path = append(p.path, at)
	if err := p.value(depth); err != nil {
		return err
	}
	p.path = p.path[:len(p.path)-1]
	return nil
}

// head fills in the head of a list or map that was begun at start with a byte
// for it, now that it is known how long it is.
func (p *jsonParser) head(start int, major byte, n int) {
	var buf [9]byte
	head := appendHead(buf[:0], major, uint64(n))
	p.out = slices.Insert(p.out, start+1, head[1:]...)
	p.out[start] = head[0]
}

func (p *jsonParser) array(depth int) error {
	if depth > MaxDepth {
		return p.tooDeep()
	}
	start, n := len(p.out), 0
	p.out = append(p.out, 0)
	err := p.s.Array(func() error {
		n++
		return p.within(step{n: n - 1}, depth)
	})
	p.head(start, majorArray, n)
	return p.syntax(err)
}

func (p *jsonParser) object(depth int) error {
	start, first := len(p.out), len(p.entries)
	p.out = append(p.out, 0)
	err := p.s.Object(func(key []byte) error {
		e := entry{from: len(p.out)}
		p.out = appendText(p.out, key)
		e.val = len(p.out)
		e.key = e.val - len(key)
		if err := p.within(step{key: key}, depth); err != nil {
			return err
		}
		e.to = len(p.out)
		p.entries = append(p.entries, e)
		return nil
	})
	if err != nil {
		return p.syntax(err)
	}
	all := p.entries[first:]
	p.entries = p.entries[:first]
	for _, e := range all {
		if key := p.out[e.key:e.val]; isNotation(string(key)) {
			return p.notation(start, string(key), all)
		}
	}
	if depth > MaxDepth {
		return p.tooDeep()
	}
	if err := p.sort(start, all); err != nil {
		return err
	}
	p.head(start, majorMap, len(all))
	return nil
}

// sort puts the entries of a map into their order and refuses a key that stands
// twice.
func (p *jsonParser) sort(start int, all []entry) error {
	key := func(e entry) []byte { return p.out[e.key:e.val] }
	order := func(x, y entry) int { return compareKeys(key(x), key(y)) }
	moved := !slices.IsSortedFunc(all, order)
	p.sorted = p.sorted[:0]
	if moved {
		slices.SortFunc(all, order)
		p.sorted = slices.Grow(p.sorted, len(p.out)-start)
	}
	for i, e := range all {
		if i > 0 && bytes.Equal(key(all[i-1]), key(e)) {
			p.path = append(p.path, step{key: key(e)})
			return p.errorf(ErrMalformed, "stands twice")
		}
		if moved {
			p.sorted = append(p.sorted, p.out[e.from:e.to]...)
		}
	}
	copy(p.out[start+1:], p.sorted)
	return nil
}

// notation reads {"$link": text} or {"$bytes": text}, which stands in the output
// as a map yet.
func (p *jsonParser) notation(start int, key string, all []entry) error {
	if e := all[0]; len(all) != 1 || p.out[e.val]>>5 != majorText {
		return p.errorf(ErrMalformed, "an object with %s holds that one text and nothing else", key)
	}
	c := checker{b: p.out, off: all[0].val}
	_, n, _ := c.head()
	text, _ := c.take(n)
	if key == "$link" {
		cid, err := ParseCID(string(text))
		if err != nil {
			return p.errorf(err, "$link")
		}
		p.out = appendCID(p.out[:start], cid)
		return nil
	}
	enc := base64.RawStdEncoding
	if bytes.HasSuffix(text, []byte("=")) {
		enc = base64.StdEncoding
	}
	if bytes.ContainsAny(text, "\r\n") { // the decoder would skip them
		return p.errorf(ErrMalformed, "$bytes is not base64")
	}
	b, err := enc.Strict().AppendDecode(nil, text)
	if err != nil {
		return p.errorf(ErrMalformed, "$bytes is not base64")
	}
	p.out = appendBytes(p.out[:start], b)
	return nil
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
