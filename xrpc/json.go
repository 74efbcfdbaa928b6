package xrpc

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/kithnet/kith/space"
)

// maxJSONDepth bounds nesting: a record has 16 levels, a batch adds three.
const maxJSONDepth = 32

// object is a JSON object split into its members, which are still text. Keys
// are unique, here and in every object below.
type object struct {
	members []member
}

type member struct {
	key, raw []byte // within the text given to parseObject, but for keys with escapes
}

// parseObject checks that b is one JSON object (RFC 8259, UTF-8, no key twice
// in any object, no lone surrogate, maxJSONDepth deep) and splits it.
func parseObject(b []byte) (object, error) {
	s := scanner{b: b, keys: make([][]byte, 0, 16)}
	s.space()
	if s.peek() != '{' {
		if err := s.only(); err != nil {
			return object{}, err
		}
		return object{}, faultf(errShape, "body: must be a JSON object")
	}
	o := object{members: make([]member, 0, 8)}
	err := s.object(1, func(key, raw []byte) { o.members = append(o.members, member{key, raw}) })
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return object{}, s.at(err)
	}
	return o, nil
}

// raw is the text of a member; a JSON null counts as absent.
func (o object) raw(key string) ([]byte, bool) {
	for i := range o.members {
		if string(o.members[i].key) == key {
			return o.members[i].raw, string(o.members[i].raw) != "null"
		}
	}
	return nil, false
}

// has reports whether a member is there, even as null.
func (o object) has(key string) bool {
	for i := range o.members {
		if string(o.members[i].key) == key {
			return true
		}
	}
	return false
}

func (o object) text(key string) (string, bool, error) {
	raw, ok := o.raw(key)
	if !ok {
		return "", false, nil
	}
	if raw[0] != '"' {
		return "", false, faultf(errShape, "%s: must be a string", key)
	}
	s, err := unquote(raw)
	if err != nil {
		return "", false, faultf(errRequest, "%s: %v", key, err)
	}
	return string(s), true, nil
}

func (o object) boolean(key string) (v, ok bool, err error) {
	raw, ok := o.raw(key)
	if !ok {
		return false, false, nil
	}
	switch string(raw) {
	case "true":
		return true, true, nil
	case "false":
		return false, true, nil
	}
	return false, false, faultf(errShape, "%s: must be true or false", key)
}

func (o object) number(key string, lo, hi int64) (v int64, ok bool, err error) {
	raw, ok := o.raw(key)
	if !ok {
		return 0, false, nil
	}
	if raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false, faultf(errShape, "%s: must be an integer", key)
	}
	v, err = strconv.ParseInt(string(raw), 10, 64)
	if err != nil || v < lo || v > hi {
		return 0, false, faultf(errRequest, "%s: must be an integer from %d to %d", key, lo, hi)
	}
	return v, true, nil
}

func (o object) object(key string) (object, bool, error) {
	raw, ok := o.raw(key)
	if !ok {
		return object{}, false, nil
	}
	if raw[0] != '{' {
		return object{}, false, faultf(errShape, "%s: must be an object", key)
	}
	sub, err := parseObject(raw)
	return sub, true, err
}

// array splits an array member of at most most elements.
func (o object) array(key string, most int) (elems [][]byte, ok bool, err error) {
	raw, ok := o.raw(key)
	if !ok {
		return nil, false, nil
	}
	if raw[0] != '[' {
		return nil, false, faultf(errShape, "%s: must be an array", key)
	}
	s := scanner{b: raw}
	over := errors.New("too many")
	err = s.array(1, func(elem []byte) error {
		if len(elems) == most {
			return over
		}
		elems = append(elems, elem)
		return nil
	})
	if err == over {
		return nil, false, faultf(errRequest, "Too many %s. Max: %d", key, most)
	}
	return elems, true, err
}

// texts is an array of strings.
func (o object) texts(key string, most int) ([]string, error) {
	elems, _, err := o.array(key, most)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range elems {
		if e[0] != '"' {
			return nil, faultf(errShape, "%s: must be an array of strings", key)
		}
		s, err := unquote(e)
		if err != nil {
			return nil, faultf(errRequest, "%s: %v", key, err)
		}
		out = append(out, string(s))
	}
	return out, nil
}

// scanner walks JSON text once.
type scanner struct {
	b    []byte
	pos  int
	keys [][]byte // of the objects that are open, outermost first
}

var errJSON = errors.New("not JSON")

// at turns a scanner's error into the caller's, with the place.
func (s *scanner) at(err error) error {
	if errors.Is(err, space.ErrTooLarge) {
		return faultf(errRequest, "body: JSON is nested more than %d deep", maxJSONDepth)
	}
	return faultf(errRequest, "body: %v at byte %d", err, s.pos)
}

// only checks a whole text that holds one value of any kind.
func (s *scanner) only() error {
	err := s.value(1)
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return s.at(err)
	}
	return nil
}

func (s *scanner) end() error {
	s.space()
	if s.pos != len(s.b) {
		return fmt.Errorf("%w: text after the value", errJSON)
	}
	return nil
}

// peek is the byte at pos, 0 at the end: no JSON token begins with 0.
func (s *scanner) peek() byte {
	if s.pos < len(s.b) {
		return s.b[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// value moves over one value at the given depth.
func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{':
		return s.object(depth, nil)
	case c == '[':
		return s.array(depth, nil)
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	return fmt.Errorf("%w: a value is missing", errJSON)
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.b[s.pos:], []byte(word)) {
		return fmt.Errorf("%w: want %s", errJSON, word)
	}
	s.pos += len(word)
	return nil
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return fmt.Errorf("%w: digits are missing", errJSON)
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return fmt.Errorf("%w: digits are missing", errJSON)
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return fmt.Errorf("%w: digits are missing", errJSON)
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	from := s.pos
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > from
}

// plain are the bytes of a string that stand for themselves.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str moves over a string and returns it with its quotes.
func (s *scanner) str() ([]byte, error) {
	b, from := s.b, s.pos
	for i := from + 1; i < len(b); {
		c := b[i]
		if plain[c] {
			i++
			continue
		}
		n := 0
		switch {
		case c == '"':
			s.pos = i + 1
			return b[from:s.pos], nil
		case c == '\\':
			n = escape(b[i:])
		case c >= utf8.RuneSelf:
			if r, size := utf8.DecodeRune(b[i:]); r != utf8.RuneError || size > 1 {
				n = size
			}
		}
		if n == 0 {
			s.pos = i
			return nil, fmt.Errorf("%w: a string has a control character, a bad escape or no UTF-8", errJSON)
		}
		i += n
	}
	s.pos = len(b)
	return nil, fmt.Errorf("%w: string without end", errJSON)
}

// object moves over an object and gives each member to each, if there is one.
func (s *scanner) object(depth int, each func(key, raw []byte)) error {
	if depth > maxJSONDepth {
		return space.ErrTooLarge
	}
	s.pos++
	first := len(s.keys)
	seen := map[string]bool(nil)
	s.space()
	for s.peek() != '}' {
		if s.peek() != '"' {
			return fmt.Errorf("%w: want a key", errJSON)
		}
		quoted, err := s.str()
		if err != nil {
			return err
		}
		key, err := unquote(quoted)
		if err != nil {
			return err
		}
		if seen, err = s.unique(first, key, seen); err != nil {
			return err
		}
		s.space()
		if s.peek() != ':' {
			return fmt.Errorf("%w: want a colon", errJSON)
		}
		s.pos++
		s.space()
		from := s.pos
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if each != nil {
			each(key, s.b[from:s.pos])
		}
		if more, err := s.comma('}'); err != nil {
			return err
		} else if !more {
			break
		}
	}
	s.keys = s.keys[:first]
	s.pos++
	return nil
}

// unique remembers a key of the object whose keys begin at first: in a list
// while there are few, then in a map.
func (s *scanner) unique(first int, key []byte, seen map[string]bool) (map[string]bool, error) {
	const few = 16
	if seen == nil {
		for _, k := range s.keys[first:] {
			if bytes.Equal(k, key) {
				return nil, fmt.Errorf("%w: key %q twice", errJSON, clip(string(key)))
			}
		}
		s.keys = append(s.keys, key)
		if len(s.keys)-first < few {
			return nil, nil
		}
		seen = make(map[string]bool, 2*few)
		for _, k := range s.keys[first:] {
			seen[string(k)] = true
		}
		return seen, nil
	}
	if seen[string(key)] {
		return nil, fmt.Errorf("%w: key %q twice", errJSON, clip(string(key)))
	}
	seen[string(key)] = true
	return seen, nil
}

// array moves over an array and gives each element to each, if there is one.
func (s *scanner) array(depth int, each func(elem []byte) error) error {
	if depth > maxJSONDepth {
		return space.ErrTooLarge
	}
	s.pos++
	s.space()
	for s.peek() != ']' {
		from := s.pos
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if each != nil {
			if err := each(s.b[from:s.pos]); err != nil {
				return err
			}
		}
		if more, err := s.comma(']'); err != nil {
			return err
		} else if !more {
			break
		}
	}
	s.pos++
	return nil
}

// comma moves over a comma that another member must follow, or stops at the
// closing bracket.
func (s *scanner) comma(closing byte) (more bool, err error) {
	s.space()
	if s.peek() == closing {
		return false, nil
	}
	if s.peek() != ',' {
		return false, fmt.Errorf("%w: want a comma or %q", errJSON, closing)
	}
	s.pos++
	s.space()
	if s.peek() == closing {
		return false, fmt.Errorf("%w: comma without a value", errJSON)
	}
	return true, nil
}
