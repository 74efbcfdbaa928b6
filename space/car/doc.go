// Package car writes and verifies the snapshot of one author's repo that
// com.atproto.space.getRepo serves: a CARv1 file that holds the signed commit,
// the index and one block for each record.
//
// It promises the reference's bytes for the same repo and commit, in one pass
// over the values and without keeping any; and that what a Reader hands out
// hangs together: the commit is the author's for this space, the index is what
// its hash says, each record is what the index says at its place. It refuses
// every second encoding, an index out of order, blocks that are missing, too
// many or swapped, and stops at the caps below before it allocates.
//
// A verified snapshot proves its author only if it came from the author's own
// node: commits are deniable, see package commit. It says nothing of blobs,
// which a snapshot never holds.
//
// A Writer or Reader belongs to one goroutine. Slices handed out are the
// caller's.
package car

import (
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
)

// The file (CARv1, https://ipld.io/specs/transport/car/carv1/): each part
// behind its length as an unsigned varint.
//
//	header   {"roots": [commit, index], "version": 1} in DRISL
//	block    CID 36 ‖ bytes: first the commit, then the index, then the value
//	         of each index entry in the order of the index
//
// A value that stands at two paths is there twice.
const (
	headHead  = "\xa2\x65roots\x82"
	headTail  = "\x67version\x01"
	linkSize  = 5 + space.CIDSize // tag 42, 37 bytes, a zero byte, the CID
	headSize  = len(headHead) + 2*linkSize + len(headTail)
	maxCommit = 1 << 10
)

// MaxIndex is the size of the largest index a Reader takes, some five million
// records; a Reader holds the index.
const MaxIndex = 512 << 20

func appendHeader(b []byte, commit, index space.CID) []byte {
	b = append(b, headHead...)
	for _, c := range []space.CID{commit, index} {
		link, _ := c.MarshalCBOR() // never fails
		b = append(b, link...)
	}
	return append(b, headTail...)
}

// parseHeader reads the two roots. One encoding is taken: that of appendHeader.
func parseHeader(b []byte) (commit, index space.CID, err error) {
	if len(b) != headSize {
		return commit, index, fmt.Errorf("car: header of %d bytes: want two roots, commit and index, and version 1: %w", len(b), space.ErrMalformed)
	}
	at := len(headHead)
	for _, c := range []*space.CID{&commit, &index} {
		if err := c.UnmarshalCBOR(b[at:][:linkSize]); err != nil {
			return commit, index, fmt.Errorf("car: root: %w", err)
		}
		at += linkSize
	}
	if string(appendHeader(nil, commit, index)) != string(b) {
		return commit, index, fmt.Errorf("car: header: %w", space.ErrNotCanonical)
	}
	return commit, index, nil
}

// appendBlockHead begins a block of size bytes.
func appendBlockHead(b []byte, c space.CID, size int) []byte {
	return append(binary.AppendUvarint(b, uint64(space.CIDSize+size)), c.Bytes()...)
}
