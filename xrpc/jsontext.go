package xrpc

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// escape is the length of the escape at the start of b, surrogate pairs as
// one, 0 if it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, n := unicodeEscape(b); n > 0 {
			return n
		}
	}
	return 0
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

// unquote is the text of a string that str accepted: part of it if nothing is
// escaped there.
func unquote(quoted []byte) ([]byte, error) {
	b := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(b, '\\') < 0 {
		return b, nil
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		if b[0] != '\\' {
			out = append(out, b[0])
			b = b[1:]
			continue
		}
		n := escape(b)
		if n == 0 {
			return nil, fmt.Errorf("%w: bad escape", errJSON)
		}
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
			r, _ := unicodeEscape(b)
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, b[1])
		}
		b = b[n:]
	}
	return out, nil
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const shown = 80
	if len(s) > shown {
		return s[:shown] + "…"
	}
	return s
}
