package lthash

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
	"pgregory.net/rapid"
)

// naive is the hash as it is defined: 1,024 lanes and the library's own XOF.
type naive [1024]uint16

func (n *naive) apply(element []byte, sign uint16) {
	h := blake3.New(32, nil)
	h.Write(element)
	var b [Size]byte
	if _, err := h.XOF().Read(b[:]); err != nil {
		panic(err)
	}
	for i := range n {
		n[i] += sign * binary.LittleEndian.Uint16(b[2*i:])
	}
}

func (n *naive) bytes() []byte {
	var b []byte
	for _, lane := range n {
		b = binary.LittleEndian.AppendUint16(b, lane)
	}
	return b
}

func TestNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fast State
		var slow naive
		for range rapid.IntRange(0, 6).Draw(t, "ops") {
			// Lengths around the borders of blocks (64) and chunks (1,024).
			n := rapid.IntRange(0, 5).Draw(t, "chunks")*1024 + rapid.SampledFrom([]int{0, 1, 63, 64, 65, 80, 1023}).Draw(t, "length")
			element := slices.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
			if rapid.Bool().Draw(t, "add") {
				fast.Add(element)
				slow.apply(element, 1)
			} else {
				fast.Remove(element)
				slow.apply(element, 1<<16-1)
			}
		}
		b, err := fast.AppendBinary(nil)
		if err != nil || !slices.Equal(b, slow.bytes()) {
			t.Fatal("the states differ")
		}
		if fast.Sum() != sha256.Sum256(slow.bytes()) {
			t.Fatal("the digests differ")
		}
	})
}

// Every pair of lane values, carries and borrows included.
func TestLanes(t *testing.T) {
	values := []uint16{0, 1, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff}
	for _, a := range values {
		for _, b := range values {
			// Neighbours that would carry or borrow into the lane.
			for _, n := range values {
				in := [4]uint16{n, a, n, a}
				with := [4]uint16{n, b, 0xffff, b}
				var w [blockWords]uint64
				var out [blockBytes]byte
				for i := range in {
					w[0] |= uint64(in[i]) << (16 * i)
					binary.LittleEndian.PutUint16(out[2*i:], with[i])
				}
				sum, diff := w, w
				addLanes(&sum, &out)
				subLanes(&diff, &out)
				for i := range in {
					if got := uint16(sum[0] >> (16 * i)); got != in[i]+with[i] {
						t.Fatalf("%#x + %#x = %#x", in[i], with[i], got)
					}
					if got := uint16(diff[0] >> (16 * i)); got != in[i]-with[i] {
						t.Fatalf("%#x - %#x = %#x", in[i], with[i], got)
					}
				}
			}
		}
	}
}

func TestOrderLeavesNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		elements := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 0, 8).Draw(t, "elements")
		var a, b State
		for _, e := range elements {
			a.Add(e)
		}
		for _, e := range rapid.Permutation(elements).Draw(t, "order") {
			b.Add(e)
		}
		if a.Sum() != b.Sum() || !a.Equal(&b) {
			t.Fatal("order matters")
		}
		for _, e := range elements {
			a.Remove(e)
		}
		if !a.IsEmpty() {
			t.Fatal("removing everything leaves something")
		}
	})
}

func TestUnmarshalBinaryLength(t *testing.T) {
	var s State
	s.Add([]byte("x"))
	before := s
	for _, n := range []int{0, 1, Size - 1, Size + 1, 2 * Size} {
		if err := s.UnmarshalBinary(make([]byte, n)); err == nil {
			t.Errorf("%d bytes accepted", n)
		}
	}
	if s != before {
		t.Error("a refused state was taken over")
	}
}

func TestAllocations(t *testing.T) {
	var s State
	buf := make([]byte, 0, Size)
	for _, n := range []int{0, 60, 80, 1024, 5000} {
		element := make([]byte, n)
		if allocs := testing.AllocsPerRun(20, func() { s.Add(element); s.Remove(element) }); allocs != 0 {
			t.Errorf("%v allocations to add and remove %d bytes", allocs, n)
		}
	}
	if allocs := testing.AllocsPerRun(20, func() { s.Sum(); _, _ = s.AppendBinary(buf) }); allocs != 0 {
		t.Errorf("%v allocations to sum and serialise", allocs)
	}
}

func FuzzUnmarshalBinary(f *testing.F) {
	f.Add(make([]byte, Size))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s State
		if (s.UnmarshalBinary(b) == nil) != (len(b) == Size) {
			t.Fatalf("%d bytes", len(b))
		}
		if len(b) != Size {
			return
		}
		if again, err := s.AppendBinary(nil); err != nil || string(again) != string(b) {
			t.Fatal("the state does not come back")
		}
	})
}

// bareXOF is the floor: 2,048 bytes of BLAKE3 output, added to nothing.
func bareXOF(out *[2][blockBytes]byte, element []byte) {
	n := guts.CompressChunk(element, &guts.IV, 0, 0)
	n.Flags |= guts.FlagRoot
	n.Counter = 0
	guts.CompressBlocks(&out[0], n)
	n.Counter = guts.MaxSIMD
	guts.CompressBlocks(&out[1], n)
}

// BenchmarkAdd80 adds elements of 80 bytes and, taking turns with that, makes
// the bare output; "ratio" is the quotient of the median turns.
func BenchmarkAdd80(b *testing.B) { benchmarkRatio(b, 80) }

// BenchmarkAdd126 is for elements of the usual length of a record's.
func BenchmarkAdd126(b *testing.B) { benchmarkRatio(b, 126) }

func benchmarkRatio(b *testing.B, size int) {
	const turn = 256
	element := make([]byte, size)
	var s State
	var out [2][blockBytes]byte
	var adds, bare []time.Duration
	for b.Loop() {
		start := time.Now()
		for range turn {
			bareXOF(&out, element)
		}
		middle := time.Now()
		for range turn {
			s.Add(element)
		}
		adds = append(adds, time.Since(middle))
		bare = append(bare, middle.Sub(start))
	}
	slices.Sort(adds)
	slices.Sort(bare)
	add, floor := adds[len(adds)/2], bare[len(bare)/2]
	b.ReportMetric(float64(add)/float64(floor), "ratio")
	b.ReportMetric(float64(add.Nanoseconds())/turn, "ns/add")
	b.ReportMetric(float64(floor.Nanoseconds())/turn, "ns/bare-xof")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkRemove80(b *testing.B) {
	element := make([]byte, 80)
	var s State
	b.ReportAllocs()
	for b.Loop() {
		s.Remove(element)
	}
}

// BenchmarkSHA256AfterAdd is the hash of a record right after an Add: it costs
// what it costs alone, or Add left the vector registers dirty.
func BenchmarkSHA256AfterAdd(b *testing.B) {
	const turns = 64
	element, record := make([]byte, 126), make([]byte, 280)
	var s State
	var alone, after []time.Duration
	for b.Loop() {
		clearUpper()
		start := time.Now()
		for range turns {
			sha256.Sum256(record)
		}
		alone = append(alone, time.Since(start)/turns)
		s.Add(element)
		start = time.Now()
		for range turns {
			sha256.Sum256(record)
		}
		after = append(after, time.Since(start)/turns)
	}
	slices.Sort(alone)
	slices.Sort(after)
	b.ReportMetric(float64(after[len(after)/2])/float64(alone[len(alone)/2]), "ratio")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkSum(b *testing.B) {
	var s State
	for b.Loop() {
		s.Sum()
	}
}

func Example() {
	var s State
	s.Add([]byte("one"))
	s.Add([]byte("two"))
	fmt.Printf("%x\n", s.Sum())
	// Output: ae05cb6d224379d9710c290c8529945c5b0e0fde9ead30b9699057ce701c63e7
}
