package jsontext

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// walk moves over one value and tells text of the strings in it.
func walk(s *Scanner, text func(quoted, unquoted string)) error {
	switch c := s.Peek(); {
	case c == '"':
		quoted, err := s.Quoted()
		if err == nil {
			text(string(quoted), string(Unquote(quoted)))
		}
		return err
	case c == '{':
		return s.Object(func([]byte) error { return walk(s, text) })
	case c == '[':
		return s.Array(func() error { return walk(s, text) })
	case c == '-' || '0' <= c && c <= '9':
		_, err := s.Number()
		return err
	}
	return s.Word()
}

// check compares what is JSON, and what strings mean, with encoding/json.
func check(t interface{ Fatalf(string, ...any) }, b []byte) {
	s := New(b)
	err := walk(&s, func(quoted, unquoted string) {
		var want string
		if err := json.Unmarshal([]byte(quoted), &want); err != nil || unquoted != want {
			t.Fatalf("%s is %q, want %q, %v", quoted, unquoted, want, err)
		}
	})
	if err == nil {
		err = s.End()
	}
	if err != nil && !errors.Is(err, ErrSyntax) {
		t.Fatalf("%q: %v", b, err)
	}
	surrogates := strings.Contains(strings.ToLower(string(b)), `\ud`) // encoding/json takes halves of them
	if want := json.Valid(b) && utf8.Valid(b); (err == nil) != want && (err == nil || !surrogates) {
		t.Fatalf("%q: %v, valid is %v", b, err, want)
	}
}

var pieces = []string{`{`, `}`, `[`, `]`, `,`, `:`, " ", "\n", `"`, `\`, `"a"`, `"\u0061"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ud83d\ue000"`, `"\uDE00x"`, `"\n\/"`, `"\x"`, `"\u00g0"`,
	`1`, `-`, `0`, `-0`, `01`, `.5`, `2.5e1`, `1E+9`, `1e`, `true`, `false`, `fals`, `null`, "\xff", "\x00", "\x1f", "\x7f", "é", `{"a":1}`, `{"a"1}`, `{"a";1}`, `[1,{}]`, `[1;2]`}

// Pieces of JSON one after the other are JSON now and then, and nearly so often.
func TestNaive(t *testing.T) {
	piece := rapid.SampledFrom(pieces)
	rapid.Check(t, func(t *rapid.T) {
		b := ""
		for range rapid.IntRange(0, 8).Draw(t, "pieces") {
			b += piece.Draw(t, "piece")
		}
		check(t, []byte(b))
		check(t, []byte(`{"k":[`+b+`]}`))
		check(t, []byte(`"`+b+`"`))
	})
}

func FuzzScanner(f *testing.F) {
	for _, s := range pieces {
		f.Add([]byte(s))
		f.Add([]byte(`{"k":[` + s + `]}`))
		f.Add([]byte(`[` + s + `,]`))
		f.Add([]byte(`"` + s + `"`))
	}
	f.Fuzz(func(t *testing.T, b []byte) { check(t, b) })
}
