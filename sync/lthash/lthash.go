// Package lthash is a commutative hash of a multiset: 1,024 lanes of 16 bits
// to which every element is added, or from which it is subtracted, as 2,048
// bytes of BLAKE3 output. Two replicas hold the same elements exactly when
// their states are equal; the order of arrival leaves no trace.
//
// It promises constant work per change, no allocation, and the digests that
// atproto's permissioned spaces use. It refuses to import a state of any
// length but 2,048 bytes. It cannot tell a set from a multiset: adding twice
// counts twice, removing what is absent wraps around unnoticed, and 65,536
// additions of one element are none. Callers keep a set by knowing what they
// added.
//
// It keeps no slice it is given. A State is a plain value: assignment copies
// it, and one goroutine owns each copy.
package lthash

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"lukechampine.com/blake3/guts"
)

// Size is the length of a serialised state: 1,024 lanes, 16-bit little-endian.
const Size = 2048

const (
	wordCount  = Size / 8
	blockBytes = guts.MaxSIMD * guts.BlockSize // what one CompressBlocks yields
	blockWords = blockBytes / 8
)

// State is the hash of a multiset. The zero value is the empty one.
type State struct {
	// Word i holds lanes 4i to 4i+3, the first one lowest: the serialised
	// bytes read as little-endian words.
	words [wordCount]uint64
}

// Add adds one element.
func (s *State) Add(element []byte) {
	n := outputNode(element)
	lo, hi := s.halves()
	var out [blockBytes]byte
	guts.CompressBlocks(&out, n)
	addLanes(lo, &out)
	n.Counter = guts.MaxSIMD
	guts.CompressBlocks(&out, n)
	clearUpper()
	addLanes(hi, &out)
}

// Remove takes one element away. That it was there is the caller's knowledge.
func (s *State) Remove(element []byte) {
	n := outputNode(element)
	lo, hi := s.halves()
	var out [blockBytes]byte
	guts.CompressBlocks(&out, n)
	subLanes(lo, &out)
	n.Counter = guts.MaxSIMD
	guts.CompressBlocks(&out, n)
	clearUpper()
	subLanes(hi, &out)
}

// Merge adds all that t is of: a set hashed in parts is the sum of theirs.
func (s *State) Merge(t *State) {
	for i := range s.words {
		s.words[i] = addWord(s.words[i], t.words[i])
	}
}

// Spread runs f(0) to f(n-1), at once or one after the other, and returns when
// all have. It is how who owns goroutines lends them.
type Spread func(n int, f func(i int))

// foldParts is the most pieces of a Fold.
const foldParts = 16

var foldSums = sync.Pool{New: func() any { return new([foldParts]State) }}

// Fold lets fold change the state for each of n elements, in pieces of at least
// share of them, each in a state of its own: s is their sum. A nil spread does
// them one after the other.
func (s *State) Fold(spread Spread, n, share int, fold func(part *State, i int)) {
	parts := min(n/share, foldParts)
	if spread == nil || parts < 2 {
		for i := range n {
			fold(s, i)
		}
		return
	}
	sums := foldSums.Get().(*[foldParts]State)
	defer foldSums.Put(sums)
	clear(sums[:parts])
	spread(parts, func(p int) {
		for i := p * n / parts; i < (p+1)*n/parts; i++ {
			fold(&sums[p], i)
		}
	})
	for p := range parts {
		s.Merge(&sums[p])
	}
}

// halves are the lanes each of the two CompressBlocks of an element feeds.
func (s *State) halves() (lo, hi *[blockWords]uint64) {
	return (*[blockWords]uint64)(s.words[:]), (*[blockWords]uint64)(s.words[blockWords:])
}

// Sum is the digest of the multiset: SHA-256 of the serialised state.
func (s *State) Sum() [32]byte {
	var b [Size]byte
	s.put(&b)
	return sha256.Sum256(b[:])
}

// AppendBinary appends the 2,048 bytes of the state. It never fails.
func (s *State) AppendBinary(b []byte) ([]byte, error) {
	var out [Size]byte
	s.put(&out)
	return append(b, out[:]...), nil
}

// UnmarshalBinary sets the state from exactly 2,048 bytes.
func (s *State) UnmarshalBinary(b []byte) error {
	if len(b) != Size {
		return fmt.Errorf("set hash state of %d bytes, want %d", len(b), Size)
	}
	for i := range s.words {
		s.words[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}

// IsEmpty reports whether s is the state of the empty multiset.
func (s *State) IsEmpty() bool { return s.words == [wordCount]uint64{} }

// Equal reports whether s and t are the same state.
func (s *State) Equal(t *State) bool { return s.words == t.words }

func (s *State) put(b *[Size]byte) {
	for i, w := range s.words {
		binary.LittleEndian.PutUint64(b[8*i:], w)
	}
}

// high has the top bit of each of the four lanes of a word.
const high = 0x8000_8000_8000_8000

// addLanes adds four lanes at a time: the low 15 bits of each cannot carry
// out of their lane, and the top bits are added without carry by xor. Four
// words a turn, so that the loop itself costs little.
func addLanes(w *[blockWords]uint64, out *[blockBytes]byte) {
	for i := 0; i < blockWords; i += 4 {
		v, o := (*[4]uint64)(w[i:]), (*[32]byte)(out[8*i:])
		v[0] = addWord(v[0], binary.LittleEndian.Uint64(o[0:]))
		v[1] = addWord(v[1], binary.LittleEndian.Uint64(o[8:]))
		v[2] = addWord(v[2], binary.LittleEndian.Uint64(o[16:]))
		v[3] = addWord(v[3], binary.LittleEndian.Uint64(o[24:]))
	}
}

func addWord(a, b uint64) uint64 { return (a&^high + b&^high) ^ (a^b)&high }

// subLanes subtracts likewise: the top bit set in every minuend keeps a borrow
// inside its lane.
func subLanes(w *[blockWords]uint64, out *[blockBytes]byte) {
	for i := 0; i < blockWords; i += 4 {
		v, o := (*[4]uint64)(w[i:]), (*[32]byte)(out[8*i:])
		v[0] = subWord(v[0], binary.LittleEndian.Uint64(o[0:]))
		v[1] = subWord(v[1], binary.LittleEndian.Uint64(o[8:]))
		v[2] = subWord(v[2], binary.LittleEndian.Uint64(o[16:]))
		v[3] = subWord(v[3], binary.LittleEndian.Uint64(o[24:]))
	}
}

func subWord(a, b uint64) uint64 { return (a | high - b&^high) ^ (a^^b)&high }

// outputNode is the node whose compressions, counted from 0, are the output.
func outputNode(element []byte) guts.Node {
	n := rootNode(element, 0)
	n.Flags |= guts.FlagRoot
	return n
}

// rootNode is the last node of the BLAKE3 tree over b, the first chunk of
// which has the index chunk. All our elements fit in one chunk of 1,024 bytes;
// longer ones are a left subtree of the largest power of two of chunks that
// leaves something over, and the rest.
func rootNode(b []byte, chunk uint64) guts.Node {
	if len(b) <= guts.ChunkSize {
		return guts.CompressChunk(b, &guts.IV, chunk, 0)
	}
	left := uint64(1) << (bits.Len64(uint64(len(b)-1)/guts.ChunkSize) - 1)
	return guts.ParentNode(
		guts.ChainingValue(rootNode(b[:left*guts.ChunkSize], chunk)),
		guts.ChainingValue(rootNode(b[left*guts.ChunkSize:], chunk+left)),
		&guts.IV, 0)
}
