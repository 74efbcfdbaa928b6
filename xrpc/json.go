package xrpc

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/jsontext"
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
	s := scanner{jsontext.New(b), make([][]byte, 0, 16)}
	if s.Peek() != '{' {
		if err := s.only(); err != nil {
			return object{}, err
		}
		return object{}, faultf(errShape, "body: must be a JSON object")
	}
	o := object{members: make([]member, 0, 8)}
	err := s.object(1, func(key, raw []byte) { o.members = append(o.members, member{key, raw}) })
	if err == nil {
		err = s.End()
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
	return string(jsontext.Unquote(raw)), true, nil
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
	s := scanner{Scanner: jsontext.New(raw)}
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
		out = append(out, string(jsontext.Unquote(e)))
	}
	return out, nil
}

// scanner checks the depth of what it walks over, and that no key stands twice.
type scanner struct {
	jsontext.Scanner
	keys [][]byte // of the objects that are open, outermost first
}

// at turns a scanner's error into the caller's, with the place.
func (s *scanner) at(err error) error {
	if errors.Is(err, space.ErrTooLarge) {
		return faultf(errRequest, "body: JSON is nested more than %d deep", maxJSONDepth)
	}
	return faultf(errRequest, "body: %v at byte %d", err, s.Pos())
}

// only checks a whole text that holds one value of any kind.
func (s *scanner) only() error {
	err := s.value(1)
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return s.at(err)
	}
	return nil
}

// value moves over one value at the given depth.
func (s *scanner) value(depth int) (err error) {
	switch c := s.Peek(); {
	case c == '"':
		_, err = s.Quoted()
	case c == '{':
		err = s.object(depth, nil)
	case c == '[':
		err = s.array(depth, nil)
	case c == '-' || '0' <= c && c <= '9':
		_, err = s.Number()
	default:
		err = s.Word()
	}
	return err
}

// object moves over an object and gives each member to each, if there is one.
func (s *scanner) object(depth int, each func(key, raw []byte)) error {
	if depth > maxJSONDepth {
		return space.ErrTooLarge
	}
	first := len(s.keys)
	seen := map[string]bool(nil)
	err := s.Object(func(key []byte) (err error) {
		if seen, err = s.unique(first, key, seen); err != nil {
			return err
		}
		from := s.Pos()
		if err = s.value(depth + 1); err == nil && each != nil {
			each(key, s.Since(from))
		}
		return err
	})
	s.keys = s.keys[:first]
	return err
}

// unique remembers a key of the object whose keys begin at first: in a list
// while there are few, then in a map.
func (s *scanner) unique(first int, key []byte, seen map[string]bool) (map[string]bool, error) {
	const few = 16
	if seen == nil {
		for _, k := range s.keys[first:] {
			if bytes.Equal(k, key) {
				return nil, twice(key)
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
		return nil, twice(key)
	}
	seen[string(key)] = true
	return seen, nil
}

func twice(key []byte) error {
	return fmt.Errorf("%w: key %q twice", jsontext.ErrSyntax, clip(string(key)))
}

// array moves over an array and gives each element to each, if there is one.
func (s *scanner) array(depth int, each func(elem []byte) error) error {
	if depth > maxJSONDepth {
		return space.ErrTooLarge
	}
	return s.Array(func() error {
		from := s.Pos()
		err := s.value(depth + 1)
		if err == nil && each != nil {
			err = each(s.Since(from))
		}
		return err
	})
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const shown = 80
	if len(s) > shown {
		return s[:shown] + "…"
	}
	return s
}
