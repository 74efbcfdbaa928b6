package space

import (
	"cmp"
	"fmt"
	"strings"
)

// The index of a repo is the DRISL map of "collection/rkey" to a link to the
// record, the second block of its CAR.

// IndexEntry is one entry of a repo's index.
type IndexEntry struct {
	Path Path
	CID  CID
}

// maxIndexHead and MaxIndexEntry bound the bytes of the parts of an index.
const (
	maxIndexHead  = 9
	MaxIndexEntry = 3 + MaxNSID + 1 + MaxRecordKey + len(cidHead) + CIDSize
)

// AppendIndexHead begins the index of n records.
func AppendIndexHead(b []byte, n uint64) []byte { return appendHead(b, majorMap, n) }

// Append appends the entry to an index.
func (e IndexEntry) Append(b []byte) []byte {
	b = appendHead(b, majorText, uint64(e.size()))
	b = append(b, e.Path.Collection...)
	b = append(b, '/')
	b = append(b, e.Path.Key...)
	return appendCID(b, e.CID)
}

// size is the length of the entry's key.
func (e IndexEntry) size() int { return len(e.Path.Collection) + 1 + len(e.Path.Key) }

// CompareIndex orders paths as an index does: the shorter text first, then
// bytewise. It is neither the order of paths nor that of URIs.
func (p Path) CompareIndex(q Path) int {
	if c := cmp.Compare(len(p.Collection)+len(p.Key), len(q.Collection)+len(q.Key)); c != 0 {
		return c
	}
	// The text is compared in pieces: where one collection ends, the other goes
	// on or both keys begin.
	n := min(len(p.Collection), len(q.Collection))
	switch {
	case p.Collection[:n] != q.Collection[:n]:
		return cmp.Compare(p.Collection, q.Collection)
	case len(p.Collection) == len(q.Collection):
		return cmp.Compare(p.Key, q.Key)
	}
	return cmp.Compare(p.String(), q.String())
}

// CutIndexHead reads the head of an index and gives what follows. b may be the
// beginning of the index; nine bytes are enough.
func CutIndexHead(b []byte) (n uint64, rest []byte, err error) {
	c := checker{b: b[:min(len(b), maxIndexHead)]}
	major, n, err := c.head()
	if err == nil && major != majorMap {
		err = c.errorf(ErrMalformed, "not a map")
	}
	if err != nil {
		return 0, nil, fmt.Errorf("index: %w", err)
	}
	return n, b[c.off:], nil
}

// CutIndexEntry reads one entry and gives what follows. b may be the beginning
// of what is left of the index; MaxIndexEntry bytes are enough.
func CutIndexEntry(b []byte) (e IndexEntry, rest []byte, err error) {
	c := checker{b: b}
	text, err := c.key()
	if err != nil {
		return e, nil, fmt.Errorf("index: %w", err)
	}
	collection, key, _ := strings.Cut(string(text), "/")
	if e.Path.Collection, err = ParseNSID(collection); err == nil {
		e.Path.Key, err = ParseRecordKey(key)
	}
	if err != nil {
		return e, nil, fmt.Errorf("index: key %.80q: %w", text, err)
	}
	link, err := c.take(uint64(len(cidHead) + CIDSize))
	if err == nil {
		err = e.CID.UnmarshalCBOR(link)
	}
	if err != nil {
		return e, nil, fmt.Errorf("index: value of %.80q: %w", text, err)
	}
	return e, b[c.off:], nil
}
