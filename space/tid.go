package space

import "fmt"

// TID is a revision: 53 bits of microseconds since the Unix epoch, then 10
// bits that keep clocks apart. The top bit is never set. Zero means none.
type TID uint64

const maxTID TID = 1<<63 - 1

// sortAlphabet is base32 in the order of its characters, so that TIDs sort as
// text as they do as numbers.
const sortAlphabet = "234567abcdefghijklmnopqrstuvwxyz"

// ParseTID reads the 13 characters of a TID.
func ParseTID(s string) (TID, error) {
	if len(s) != 13 {
		return 0, malformed("tid", s, "a TID has 13 characters")
	}
	var t TID
	for i := range len(s) {
		c := s[i]
		switch {
		case '2' <= c && c <= '7':
			c -= '2'
		case isLower(c):
			c -= 'a' - 6
		default:
			return 0, malformed("tid", s, "a TID is made of 2-7 and a-z")
		}
		if i == 0 && c > 15 {
			return 0, malformed("tid", s, "a TID begins with 2-7 or a-j")
		}
		t = t<<5 | TID(c)
	}
	return t, nil
}

// NextTID is the revision to write at nowMicros: the clock's, or after + 1 if
// that is later, so that revisions grow whatever the clock does. It is not
// after its argument only if after is the last TID there is, in the year 2255;
// callers park revisions from the future long before.
func NextTID(nowMicros int64, clockID uint16, after TID) TID {
	now := TID(max(nowMicros, 0))<<10&maxTID | TID(clockID&0x3ff)
	return max(now, min(after, maxTID-1)+1)
}

// String is the 13 characters of t.
func (t TID) String() string {
	var b [13]byte
	for i := 12; i >= 0; i-- {
		b[i] = sortAlphabet[t&31]
		t >>= 5
	}
	return string(b[:])
}

// Micros is the time of t in microseconds since the Unix epoch.
func (t TID) Micros() int64 { return int64(t >> 10) }

// MarshalText gives the 13 characters.
func (t TID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText parses the 13 characters.
func (t *TID) UnmarshalText(b []byte) (err error) { *t, err = ParseTID(string(b)); return err }

// MarshalCBOR gives an integer: TIDs travel as numbers between nodes.
func (t TID) MarshalCBOR() ([]byte, error) {
	if t > maxTID {
		return nil, fmt.Errorf("tid %d: the top bit is set: %w", uint64(t), ErrMalformed)
	}
	return appendUint(nil, uint64(t)), nil
}

// UnmarshalCBOR reads an integer of at most 63 bits.
func (t *TID) UnmarshalCBOR(b []byte) error {
	var v uint64
	if err := decMode.Unmarshal(b, &v); err != nil || v > uint64(maxTID) {
		return fmt.Errorf("tid: want an integer of 63 bits: %w", ErrMalformed)
	}
	*t = TID(v)
	return nil
}
