// Package jsontext walks JSON text (RFC 8259) once, without building anything.
//
// It is strict where encoding/json is lenient: text is UTF-8, and an escape is
// no half of a surrogate pair. It does not judge what is a matter of its
// caller: how deep text is nested, keys that stand twice, and what a number may
// be. Errors wrap ErrSyntax and say what is wrong. It copies nothing but text
// with escapes. A Scanner belongs to one goroutine.
package jsontext

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrSyntax is text that is not JSON.
var ErrSyntax = errors.New("not JSON")

func wrong(what string) error { return fmt.Errorf("%w: %s", ErrSyntax, what) }

// Scanner stands at a place of a text. Whoever moves it learns from Peek what
// comes there; after an error it stands where the error was seen.
type Scanner struct {
	text []byte
	pos  int
}

// New stands at the first byte of text that is not space.
func New(text []byte) Scanner {
	s := Scanner{text: text}
	s.space()
	return s
}

// Pos is how many bytes of the text lie behind.
func (s *Scanner) Pos() int { return s.pos }

// Since is the text from an earlier Pos on.
func (s *Scanner) Since(pos int) []byte { return s.text[pos:s.pos:s.pos] }

// Peek is the next byte: the first of a value, where one may stand. It is 0 at
// the end, which begins nothing.
func (s *Scanner) Peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *Scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// End refuses whatever but space is left.
func (s *Scanner) End() error {
	s.space()
	if s.pos != len(s.text) {
		return wrong("something follows the value")
	}
	return nil
}

// Word moves over true, false or null.
func (s *Scanner) Word() error {
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(s.text[s.pos:], []byte(word)) {
			s.pos += len(word)
			return nil
		}
	}
	return wrong("a value is missing")
}

// Number moves over a number and gives it.
func (s *Scanner) Number() ([]byte, error) {
	from := s.pos
	if s.Peek() == '-' {
		s.pos++
	}
	if s.Peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return nil, wrong("digits are missing")
	}
	if s.Peek() == '.' {
		s.pos++
		if !s.digits() {
			return nil, wrong("digits are missing")
		}
	}
	if c := s.Peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.Peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return nil, wrong("digits are missing")
		}
	}
	return s.Since(from), nil
}

func (s *Scanner) digits() bool {
	from := s.pos
	for c := s.Peek(); '0' <= c && c <= '9'; c = s.Peek() {
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

// Quoted moves over a string and gives it as it stands, with its quotes.
func (s *Scanner) Quoted() ([]byte, error) {
	b, from := s.text, s.pos
	if s.Peek() != '"' {
		return nil, wrong("want a string")
	}
	for i := from + 1; i < len(b); {
		c := b[i]
		if plain[c] {
			i++
			continue
		}
		if c == '"' {
			s.pos = i + 1
			return b[from:s.pos:s.pos], nil
		}
		n, what := 0, "a string holds a control character"
		switch {
		case c == '\\':
			n, what = escape(b[i:])
		case c >= utf8.RuneSelf:
			what = "text is not UTF-8"
			if r, size := utf8.DecodeRune(b[i:]); r != utf8.RuneError || size > 1 {
				n = size
			}
		}
		if n == 0 {
			s.pos = i
			return nil, wrong(what)
		}
		i += n
	}
	s.pos = len(b)
	return nil, wrong("string without end")
}

// Object moves over an object. member is called for each, with the key as it
// is meant, and moves over the value.
func (s *Scanner) Object(member func(key []byte) error) error {
	return s.list('}', func() error {
		quoted, err := s.Quoted()
		if err != nil {
			return err
		}
		s.space()
		if s.Peek() != ':' {
			return wrong("want a colon")
		}
		s.pos++
		s.space()
		return member(Unquote(quoted))
	})
}

// Array moves over an array. elem is called for each element and moves over it.
func (s *Scanner) Array(elem func() error) error { return s.list(']', elem) }

// list moves over a bracket, what is within, and the closing one.
func (s *Scanner) list(closing byte, item func() error) error {
	s.pos++
	s.space()
	for more := s.Peek() != closing; more; {
		if err := item(); err != nil {
			return err
		}
		s.space()
		switch s.Peek() {
		case closing:
			more = false
		case ',':
			s.pos++
			s.space()
			if s.Peek() == closing {
				return wrong("comma without a value")
			}
		default:
			return wrong(fmt.Sprintf("want a comma or %q", closing))
		}
	}
	s.pos++
	return nil
}
