package space

import "fmt"

// MaxRecord is the length a record may have, in bytes of DRISL.
const MaxRecord = 1 << 20

// Record is the DRISL of a map, at most MaxRecord bytes and MaxDepth levels.
// It is narrower than DRISL so that JSON can say all of it and JavaScript can
// hold it: integers are within ±(2^53-1) and no key is "$link" or "$bytes",
// which mean a link and bytes in JSON. Records are never modified in place.
type Record []byte

// ParseRecord checks b and returns it, not a copy, as a record.
func ParseRecord(b []byte) (Record, error) {
	if err := Record(b).check(); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return b, nil
}

func (r Record) check() error {
	if len(r) > MaxRecord {
		return fmt.Errorf("%d bytes: %w", len(r), ErrTooLarge)
	}
	if len(r) == 0 || r[0]>>5 != majorMap {
		return fmt.Errorf("not a map: %w", ErrMalformed)
	}
	c := checker{b: r, maxDepth: MaxDepth, record: true}
	return c.whole()
}

// CID names the record.
func (r Record) CID() CID { return Sum(r) }

// Type is the record's "$type", or "" if it has none that is text.
func (r Record) Type() string {
	if r.check() != nil {
		return ""
	}
	c := checker{b: r, maxDepth: MaxDepth}
	_, n, _ := c.head()
	for range n {
		key, _ := c.key()
		start := c.off
		if c.item(1) != nil {
			return ""
		}
		if string(key) != "$type" {
			continue
		}
		v := checker{b: r[start:c.off]}
		if major, size, _ := v.head(); major == majorText {
			s, _ := v.take(size)
			return string(s)
		}
		return ""
	}
	return ""
}

// MarshalJSON is JSON, for structs that hold a record; no record is null.
func (r Record) MarshalJSON() ([]byte, error) {
	if r == nil {
		return []byte("null"), nil
	}
	return r.JSON()
}

// UnmarshalJSON is RecordFromJSON; null is no record.
func (r *Record) UnmarshalJSON(b []byte) (err error) {
	if string(b) == "null" {
		*r = nil
		return nil
	}
	*r, err = RecordFromJSON(b)
	return err
}
