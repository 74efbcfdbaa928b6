package car

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
	"github.com/kithnet/kith/sync/lthash"
)

// Repo is whose snapshot is read. With a nil Key the commit's signature and MAC
// are not checked: then only its hash binds the index, and nobody vouches.
type Repo struct {
	Space  space.ID
	Author space.DID
	Key    atcrypto.PublicKey // the author's #atproto key

	IndexOnly bool // the values may be left out, all of them
}

// Reader verifies a snapshot as it reads it.
type Reader struct {
	Commit commit.Commit
	Index  Index
	State  lthash.State // of the index: its digest is the commit's hash

	in        *bufio.Reader
	next      int // index entry whose record comes next
	indexOnly bool
}

// NewReader reads and verifies everything before the records. It fails with
// space.ErrMalformed, ErrNotCanonical, ErrTooLarge or ErrForged; a stream that
// ends early is malformed.
func NewReader(r io.Reader, of Repo) (*Reader, error) {
	d := &Reader{in: bufio.NewReaderSize(r, 64<<10), indexOnly: of.IndexOnly}
	if err := d.front(of); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Reader) front(of Repo) error {
	size, err := d.varint()
	if err == io.EOF {
		err = errShort
	}
	if err != nil {
		return fmt.Errorf("car: header: %w", err)
	}
	if size != uint64(headSize) {
		return fmt.Errorf("car: header of %d bytes: want two roots, commit and index, and version 1: %w", size, space.ErrMalformed)
	}
	head := make([]byte, headSize)
	if err := d.fill(head); err != nil {
		return fmt.Errorf("car: header: %w", err)
	}
	roots := [2]space.CID{}
	if roots[0], roots[1], err = parseHeader(head); err != nil {
		return err
	}
	block, err := d.block(roots[0], maxCommit)
	if err != nil {
		return fmt.Errorf("car: commit block: %w", err)
	}
	if d.Commit, err = commit.ParseCBOR(block); err != nil {
		return fmt.Errorf("car: %w", err)
	}
	if of.Key != nil {
		if err := d.Commit.Verify(of.Key, of.Space, of.Author); err != nil {
			return fmt.Errorf("car: %w", err)
		}
	}
	if err := d.index(roots[1]); err != nil {
		return fmt.Errorf("car: index block: %w", err)
	}
	return nil
}

// index reads the index, folds it and compares it with the commit.
func (d *Reader) index(root space.CID) error {
	size, err := d.blockHead(root, MaxIndex)
	if err != nil {
		return err
	}
	h := sha256.New()
	in := bufio.NewReaderSize(io.TeeReader(&exactly{d.in, size}, h), 64<<10)
	left, err := next(in, func(b []byte) (uint64, []byte, error) { return space.CutIndexHead(b) })
	if err != nil {
		return err
	}
	var element []byte
	for ; left > 0; left-- {
		e, err := next(in, space.CutIndexEntry)
		if err != nil {
			return err
		}
		if n := len(d.Index); n > 0 {
			switch order := d.Index[n-1].Path.CompareIndex(e.Path); {
			case order == 0:
				return fmt.Errorf("%s stands twice: %w", e.Path, space.ErrMalformed)
			case order > 0:
				return fmt.Errorf("%s is out of order: %w", e.Path, space.ErrNotCanonical)
			}
		}
		if n := len(d.Index); n > 0 && d.Index[n-1].Path.Collection == e.Path.Collection {
			e.Path.Collection = d.Index[n-1].Path.Collection // hold the text once
		}
		d.Index = append(d.Index, e)
		element = space.AppendElement(element[:0], e.Path, e.CID)
		d.State.Add(element)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return fmt.Errorf("bytes after the last entry: %w", space.ErrMalformed)
	}
	if cidOf(h) != root {
		return fmt.Errorf("it is not %s: %w", root, space.ErrForged)
	}
	if d.State.Sum() != d.Commit.Hash {
		return fmt.Errorf("it does not match the commit's hash: %w", space.ErrForged)
	}
	return nil
}

// next cuts one item off the front of what in holds.
func next[T any](in *bufio.Reader, cut func([]byte) (T, []byte, error)) (T, error) {
	b, err := in.Peek(space.MaxIndexEntry)
	if err != nil && err != io.EOF {
		var none T
		return none, err
	}
	item, rest, err := cut(b)
	if err == nil {
		_, err = in.Discard(len(b) - len(rest))
	}
	return item, err
}

// exactly reads left bytes and then ends; if there are fewer, that is an error.
type exactly struct {
	r    io.Reader
	left int
}

func (e *exactly) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(len(b), e.left)])
	e.left -= n
	if err == io.EOF {
		err = errShort
	}
	return n, err
}

// Next gives the next record and where it stands; io.EOF after the last, when
// nothing follows it, and at once where the values may be left out and are.
func (d *Reader) Next() (space.IndexEntry, space.Record, error) {
	if d.next == len(d.Index) {
		if _, err := d.in.ReadByte(); err != io.EOF {
			return space.IndexEntry{}, nil, fmt.Errorf("car: more blocks than the index has: %w", space.ErrMalformed)
		}
		return space.IndexEntry{}, nil, io.EOF
	}
	e := d.Index[d.next]
	if _, err := d.in.Peek(1); err == io.EOF {
		if d.next == 0 && d.indexOnly {
			return space.IndexEntry{}, nil, io.EOF
		}
		return space.IndexEntry{}, nil, fmt.Errorf("car: %d records of the index are missing: %w", len(d.Index)-d.next, space.ErrMalformed)
	}
	block, err := d.block(e.CID, space.MaxRecord)
	if err != nil {
		return space.IndexEntry{}, nil, fmt.Errorf("car: record %s: %w", e.Path, err)
	}
	r, err := space.ParseRecord(block)
	if err != nil {
		return space.IndexEntry{}, nil, fmt.Errorf("car: record %s: %w", e.Path, err)
	}
	d.next++
	return e, r, nil
}

// block reads the next block, which must be the one of that CID.
func (d *Reader) block(want space.CID, most int) ([]byte, error) {
	size, err := d.blockHead(want, most)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if err := d.fill(b); err != nil {
		return nil, err
	}
	if space.Sum(b) != want {
		return nil, fmt.Errorf("it is not %s: %w", want, space.ErrForged)
	}
	return b, nil
}

// blockHead reads the size and the CID of the next block.
func (d *Reader) blockHead(want space.CID, most int) (size int, err error) {
	n, err := d.varint()
	if err == io.EOF {
		err = errShort
	}
	if err != nil {
		return 0, err
	}
	if n < space.CIDSize || n-space.CIDSize > uint64(most) {
		return 0, fmt.Errorf("of %d bytes: %w", n, space.ErrTooLarge)
	}
	var cid [space.CIDSize]byte
	if err := d.fill(cid[:]); err != nil {
		return 0, err
	}
	if string(cid[:]) != string(want.Bytes()) {
		return 0, fmt.Errorf("another block stands where %s belongs: %w", want, space.ErrForged)
	}
	return int(n) - space.CIDSize, nil
}

var errShort = fmt.Errorf("cut short: %w", space.ErrMalformed)

func (d *Reader) fill(b []byte) error {
	_, err := io.ReadFull(d.in, b)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return err
}

// varint reads an unsigned varint in its fewest bytes; io.EOF if there is
// nothing.
func (d *Reader) varint() (n uint64, err error) {
	for shift := 0; shift < 35; shift += 7 {
		c, err := d.in.ReadByte()
		switch {
		case err == io.EOF && shift > 0:
			return 0, errShort
		case err != nil:
			return 0, err
		case c == 0 && shift > 0:
			return 0, fmt.Errorf("length: %w", space.ErrNotCanonical)
		}
		if n |= uint64(c&0x7f) << shift; c < 0x80 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("length of more than 35 bits: %w", space.ErrTooLarge)
}
