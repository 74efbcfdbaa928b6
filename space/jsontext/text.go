package jsontext

import (
	"bytes"
	"unicode/utf8"
)

// escape is the length of the escape at the start of b, surrogate pairs as
// one. It is 0 if there is something else, and what says what.
func escape(b []byte) (n int, what string) {
	if len(b) < 2 {
		return 0, "string without end"
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, ""
	case 'u':
		if _, n := unicodeEscape(b); n > 0 {
			return n, ""
		}
		if _, ok := hex4(b); ok {
			return 0, "text holds half a surrogate pair"
		}
	}
	return 0, "a string holds a bad escape"
}

// unicodeEscape reads \uXXXX or a surrogate pair; n is 0 if it is neither.
func unicodeEscape(b []byte) (r rune, n int) {
	hi, ok := hex4(b)
	switch {
	case !ok || 0xDC00 <= hi && hi < 0xE000:
		return 0, 0
	case hi < 0xD800 || hi >= 0xE000:
		return hi, 6
	}
	lo, ok := hex4(b[6:])
	if !ok || lo < 0xDC00 || lo >= 0xE000 {
		return 0, 0
	}
	return (hi-0xD800)<<10 + (lo - 0xDC00) + 0x10000, 12
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// Unquote is the text of a string that Quoted gave: a part of it if nothing is
// escaped there.
func Unquote(quoted []byte) []byte {
	b := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return append(out, b...)
		}
		out = append(out, b[:i]...)
		b = b[i:]
		n := 2
		switch b[1] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			var r rune
			r, n = unicodeEscape(b)
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, b[1])
		}
		b = b[n:]
	}
}
