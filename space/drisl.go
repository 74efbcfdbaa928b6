package space

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// The bytes DRISL is made of. A head is major type << 5 | argument; arguments
// of 24 and more follow in 1, 2, 4 or 8 bytes.
const (
	majorUint  = 0
	majorInt   = 1 // of -1-argument
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6

	simpleFalse = 0xf4
	simpleTrue  = 0xf5
	simpleNull  = 0xf6

	// cidHead stands before a CID's 36 bytes: tag 42, 37 bytes, a zero byte.
	cidHead = "\xd8\x2a\x58\x25\x00"

	maxSafeInt = 1<<53 - 1
)

// CheckDRISL reports whether b is one data item in its only encoding: lengths
// definite and minimal, map keys text, unique, sorted by length and then
// bytewise, text valid UTF-8, integers of 64 bits with sign, no tag but 42
// around a CID, no floats and no simple values but false, true and null. An
// array or map is one level deep, one inside it two. It allocates nothing.
func CheckDRISL(b []byte, maxDepth int) error {
	c := checker{b: b, maxDepth: maxDepth}
	return c.whole()
}

// checker walks one item. For records it is narrower: see Record.
type checker struct {
	b        []byte
	off      int
	maxDepth int
	record   bool
	linked   func(CID) // told of every link, unless nil
}

func (c *checker) whole() error {
	if err := c.item(0); err != nil {
		return err
	}
	if c.off != len(c.b) {
		return c.errorf(ErrMalformed, "%d bytes after the item", len(c.b)-c.off)
	}
	return nil
}

func (c *checker) errorf(kind error, format string, args ...any) error {
	return fmt.Errorf("drisl: byte %d: %s: %w", c.off, fmt.Sprintf(format, args...), kind)
}

func (c *checker) item(depth int) error {
	major, arg, err := c.head()
	if err != nil {
		return err
	}
	switch major {
	case majorUint, majorInt:
		return c.integer(major, arg)
	case majorBytes:
		_, err := c.take(arg)
		return err
	case majorText:
		return c.text(arg)
	case majorArray:
		return c.array(arg, depth+1)
	case majorMap:
		return c.dict(arg, depth+1)
	case majorTag:
		return c.link(arg)
	default:
		return nil // head let false, true and null pass and nothing else
	}
}

// head reads a head and refuses the longer ones of those that say the same.
func (c *checker) head() (major byte, arg uint64, err error) {
	if c.off >= len(c.b) {
		return 0, 0, c.errorf(ErrMalformed, "cut short")
	}
	first := c.b[c.off]
	major, info := first>>5, first&31
	if major == 7 {
		if first < simpleFalse || first > simpleNull {
			return 0, 0, c.errorf(ErrMalformed, "%#x is a float or an unknown simple value", first)
		}
		c.off++
		return major, 0, nil
	}
	if info < 24 {
		c.off++
		return major, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, c.errorf(ErrMalformed, "length is not definite")
	}
	size := 1 << (info - 24)
	if len(c.b)-c.off-1 < size {
		return 0, 0, c.errorf(ErrMalformed, "cut short")
	}
	for _, x := range c.b[c.off+1 : c.off+1+size] {
		arg = arg<<8 | uint64(x)
	}
	if size == 1 && arg < 24 || size > 1 && arg>>(4*size) == 0 {
		return 0, 0, c.errorf(ErrNotCanonical, "%d is not written in the fewest bytes", arg)
	}
	c.off += 1 + size
	return major, arg, nil
}

// integer checks the range of arg, or of -1-arg in the negative major type.
func (c *checker) integer(major byte, arg uint64) error {
	if arg > 1<<63-1 {
		return c.errorf(ErrMalformed, "integer needs more than 64 bits with sign")
	}
	if c.record && arg > maxSafeInt-uint64(major) {
		return c.errorf(ErrMalformed, "integer beyond ±(2^53-1)")
	}
	return nil
}

func (c *checker) take(n uint64) ([]byte, error) {
	if n > uint64(len(c.b)-c.off) {
		return nil, c.errorf(ErrMalformed, "%d bytes promised, %d left", n, len(c.b)-c.off)
	}
	s := c.b[c.off : c.off+int(n)]
	c.off += int(n)
	return s, nil
}

func (c *checker) text(n uint64) error {
	s, err := c.take(n)
	if err != nil {
		return err
	}
	if !utf8.Valid(s) {
		return c.errorf(ErrMalformed, "text is not UTF-8")
	}
	return nil
}

func (c *checker) enter(n uint64, perItem int, depth int) error {
	if depth > c.maxDepth {
		return c.errorf(ErrTooLarge, "nested more than %d deep", c.maxDepth)
	}
	if n > uint64(len(c.b)-c.off)/uint64(perItem) {
		return c.errorf(ErrMalformed, "%d items promised, %d bytes left", n, len(c.b)-c.off)
	}
	return nil
}

func (c *checker) array(n uint64, depth int) error {
	if err := c.enter(n, 1, depth); err != nil {
		return err
	}
	for range n {
		if err := c.item(depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) dict(n uint64, depth int) error {
	if err := c.enter(n, 2, depth); err != nil {
		return err
	}
	var last []byte
	for i := range n {
		key, err := c.key()
		if err != nil {
			return err
		}
		if i > 0 {
			switch order := compareKeys(last, key); {
			case order == 0:
				return c.errorf(ErrMalformed, "key %q stands twice", key)
			case order > 0:
				return c.errorf(ErrNotCanonical, "key %q is out of order", key)
			}
		}
		last = key
		if err := c.item(depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) key() ([]byte, error) {
	major, n, err := c.head()
	if err != nil {
		return nil, err
	}
	if major != majorText {
		return nil, c.errorf(ErrMalformed, "map key is not text")
	}
	key, err := c.take(n)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(key) {
		return nil, c.errorf(ErrMalformed, "text is not UTF-8")
	}
	if c.record && isNotation(string(key)) {
		return nil, c.errorf(ErrMalformed, "key %q is notation of JSON, not data", key)
	}
	return key, nil
}

func (c *checker) link(tag uint64) error {
	if tag != 42 {
		return c.errorf(ErrMalformed, "tag %d: only 42, a link, is known", tag)
	}
	start := c.off - 2
	b, err := c.take(uint64(len(cidHead) - 2 + CIDSize))
	if err != nil {
		return err
	}
	if string(c.b[start:start+len(cidHead)]) != cidHead || checkCID(b[len(cidHead)-2:]) != nil {
		return c.errorf(ErrMalformed, "tag 42 does not hold a CID")
	}
	if c.linked != nil {
		c.linked(CID{[CIDSize]byte(b[len(cidHead)-2:])})
	}
	return nil
}

// compareKeys is the order of map keys: the shorter first, then bytewise.
func compareKeys(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// appendHead writes a head in the fewest bytes.
func appendHead(b []byte, major byte, arg uint64) []byte {
	m := major << 5
	switch {
	case arg < 24:
		return append(b, m|byte(arg))
	case arg < 1<<8:
		return append(b, m|24, byte(arg))
	case arg < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, m|25), uint16(arg))
	case arg < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, m|26), uint32(arg))
	default:
		return binary.BigEndian.AppendUint64(append(b, m|27), arg)
	}
}

func appendUint(b []byte, v uint64) []byte { return appendHead(b, majorUint, v) }

func appendInt(b []byte, v int64) []byte {
	if v < 0 {
		return appendHead(b, majorInt, uint64(-1-v))
	}
	return appendHead(b, majorUint, uint64(v))
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

func appendCID(b []byte, c CID) []byte {
	if c.IsZero() {
		return append(b, simpleNull)
	}
	return append(append(b, cidHead...), c.b[:]...)
}
