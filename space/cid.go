package space

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
)

// CIDSize is the length of a CID's binary form:
//
//	01 | codec: 71 DRISL, 55 raw bytes | 12 20 | SHA-256, 32 bytes
const CIDSize = 36

const (
	codecRaw   = 0x55
	codecDRISL = 0x71
)

// CID names bytes by their hash. It is comparable; the zero value names none.
type CID struct{ b [CIDSize]byte }

var cidBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// cidTextSize is the length of a CID's text form: "b" and 58 characters.
var cidTextSize = 1 + cidBase32.EncodedLen(CIDSize)

// Sum is the CID of a DRISL block.
func Sum(drisl []byte) CID { return newCID(codecDRISL, drisl) }

// SumRaw is the CID of plain bytes, such as a blob's.
func SumRaw(b []byte) CID { return newCID(codecRaw, b) }

func newCID(codec byte, data []byte) CID {
	h := sha256.Sum256(data)
	c := CID{[CIDSize]byte{1, codec, 0x12, 0x20}}
	copy(c.b[4:], h[:])
	return c
}

// CIDFromBytes reads the binary form.
func CIDFromBytes(b []byte) (CID, error) {
	if err := checkCID(b); err != nil {
		return CID{}, err
	}
	return CID{[CIDSize]byte(b)}, nil
}

func checkCID(b []byte) error {
	if len(b) != CIDSize || b[0] != 1 || b[1] != codecDRISL && b[1] != codecRaw || b[2] != 0x12 || b[3] != 0x20 {
		return fmt.Errorf("cid: want version 1, codec dag-cbor or raw, SHA-256: %w", ErrMalformed)
	}
	return nil
}

// ParseCID reads the base32 text form.
func ParseCID(s string) (CID, error) {
	if len(s) != cidTextSize || s[0] != 'b' {
		return CID{}, malformed("cid", s, `want "b" and 58 characters of base32`)
	}
	var b [CIDSize]byte
	if _, err := cidBase32.Decode(b[:], []byte(s[1:])); err != nil {
		return CID{}, malformed("cid", s, "not base32")
	}
	c, err := CIDFromBytes(b[:])
	if err != nil || c.String() != s {
		return CID{}, malformed("cid", s, "want version 1, codec dag-cbor or raw, SHA-256")
	}
	return c, nil
}

// Bytes is the binary form, nil for the zero value.
func (c CID) Bytes() []byte {
	if c.IsZero() {
		return nil
	}
	return c.b[:]
}

// String is the base32 text form, "" for the zero value.
func (c CID) String() string {
	if c.IsZero() {
		return ""
	}
	return string(c.appendText(nil))
}

func (c CID) appendText(b []byte) []byte { return cidBase32.AppendEncode(append(b, 'b'), c.b[:]) }

// AppendText appends the text form, nothing for the zero value. It never fails.
func (c CID) AppendText(b []byte) ([]byte, error) {
	if c.IsZero() {
		return b, nil
	}
	return c.appendText(b), nil
}

// IsZero reports whether c names nothing.
func (c CID) IsZero() bool { return c == CID{} }

// MarshalText gives the text form.
func (c CID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the text form; the empty text is the zero value.
func (c *CID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*c = CID{}
		return nil
	}
	*c, err = ParseCID(string(b))
	return err
}

// MarshalCBOR gives tag 42, or null for the zero value.
func (c CID) MarshalCBOR() ([]byte, error) { return appendCID(nil, c), nil }

// UnmarshalCBOR reads tag 42 or null.
func (c *CID) UnmarshalCBOR(b []byte) error {
	if len(b) == 1 && b[0] == simpleNull {
		*c = CID{}
		return nil
	}
	if len(b) != len(cidHead)+CIDSize || string(b[:len(cidHead)]) != cidHead {
		return fmt.Errorf("cid: want tag 42 or null: %w", ErrMalformed)
	}
	v, err := CIDFromBytes(b[len(cidHead):])
	if err == nil {
		*c = v
	}
	return err
}
