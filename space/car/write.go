package car

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
)

// Index is the records of one state of a repo in the order of its index. It
// holds some 70 bytes for each.
type Index []space.IndexEntry

// IndexOf sorts the live records of a repo, of which there are about count.
func IndexOf(live iter.Seq2[space.Path, space.Leaf], count uint64) Index {
	entries := make(Index, 0, count)
	for p, l := range live {
		entries = append(entries, space.IndexEntry{Path: p, CID: l.CID})
	}
	// Live records come by collection and key: those of one length are nearly
	// or wholly in order already, so counting lengths does most of the work.
	var ends [space.MaxNSID + space.MaxRecordKey + 1]int
	for _, e := range entries {
		ends[length(e)]++
	}
	sum := 0
	for i, n := range ends {
		ends[i], sum = sum, sum+n
	}
	sorted := make(Index, len(entries))
	for _, e := range entries {
		at := &ends[length(e)]
		sorted[*at] = e
		*at++
	}
	from := 0
	for _, end := range ends {
		if run := sorted[from:end]; !slices.IsSortedFunc(run, byIndex) {
			slices.SortFunc(run, byIndex)
		}
		from = end
	}
	return sorted
}

func length(e space.IndexEntry) int { return len(e.Path.Collection) + len(e.Path.Key) }

func byIndex(a, b space.IndexEntry) int { return a.Path.CompareIndex(b.Path) }

// Block is an index with the CID and the size of its block: all of it has been
// hashed. It does not change, and any number of writers may share it.
type Block struct {
	Index
	cid  space.CID
	size int
}

// Block hashes the index.
func (x Index) Block() *Block {
	h := sha256.New()
	size := 0
	_ = x.encode(func(b []byte) error { // a hash takes everything
		size += len(b)
		_, err := h.Write(b)
		return err
	})
	return &Block{x, cidOf(h), size}
}

// encode gives the index block to put in pieces, which live until put returns.
func (x Index) encode(put func([]byte) error) error {
	const piece = 32 << 10
	b := space.AppendIndexHead(make([]byte, 0, piece+space.MaxIndexEntry), uint64(len(x)))
	for _, e := range x {
		if b = e.Append(b); len(b) >= piece {
			if err := put(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	return put(b)
}

// cidOf is the CID of the DRISL block that h has read.
func cidOf(h hash.Hash) space.CID {
	c, err := space.CIDFromBytes(h.Sum([]byte{1, 0x71, 0x12, 0x20}))
	if err != nil {
		panic(err) // of the right form
	}
	return c
}

// Values gives the record at each entry of an index, in its order. It is
// called with a function that must be given each of them.
type Values func(x Index, give func(space.Record) error) error

// Write writes the snapshot that c commits to, whose records are x. Without
// values it ends after the index. Everything before the first value is written
// before values is called. It is the caller's that each value is what x says.
func Write(w io.Writer, c commit.Commit, b *Block, values Values) error {
	block, err := c.CBOR()
	if err != nil {
		return fmt.Errorf("car: %w", err)
	}
	x := b.Index
	out := bufio.NewWriterSize(w, 64<<10)
	var buf []byte
	head := func(of space.CID, size int) {
		buf = appendBlockHead(buf[:0], of, size)
		out.Write(buf) // a failure shows at Flush
	}
	out.WriteByte(byte(headSize)) // as a varint: it is below 128
	out.Write(appendHeader(nil, space.Sum(block), b.cid))
	head(space.Sum(block), len(block))
	out.Write(block)
	head(b.cid, b.size)
	err = x.encode(func(b []byte) error { _, err := out.Write(b); return err })
	if err == nil {
		err = out.Flush()
	}
	if err != nil || values == nil {
		return wrap(err)
	}
	n := 0
	err = values(x, func(r space.Record) error {
		if n == len(x) {
			return errors.New("more values than the index has")
		}
		head(x[n].CID, len(r))
		n++
		_, err := out.Write(r)
		return err
	})
	if err == nil && n < len(x) {
		err = fmt.Errorf("%d values, the index has %d", n, len(x))
	}
	if err == nil {
		err = out.Flush()
	}
	return wrap(err)
}

func wrap(err error) error {
	if err != nil {
		err = fmt.Errorf("car: %w", err)
	}
	return err
}
