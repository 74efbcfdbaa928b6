package seal

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// sealedBlob seals size bytes.
func sealedBlob(t *testing.T, size int) (b space.Blob, parts [][]byte, plain []byte) {
	plain = bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
	b = space.Blob{CID: space.SumRaw(plain), Size: uint64(size), Key: [32]byte{1, 2, 3}}
	for n := 0; n == 0 || n*space.BlobPart < size; n++ {
		end := min(size, (n+1)*space.BlobPart)
		part, err := SealBlobPart(b.Key, uint64(n), end == size, plain[n*space.BlobPart:end])
		if err != nil {
			t.Fatal(err)
		}
		parts, b.Parts = append(parts, part), append(b.Parts, ObjectName(part))
	}
	return b, parts, plain
}

func TestBlobParts(t *testing.T) {
	for _, size := range []int{0, 1, 255, 256, 257, 100_000, space.BlobPart - 1, space.BlobPart, space.BlobPart + 1, 3*space.BlobPart + 70_000} {
		b, parts, plain := sealedBlob(t, size)
		var out []byte
		for n, part := range parts {
			if len(part) > MaxObject {
				t.Errorf("%d bytes: part of %d", size, len(part))
			}
			p, err := OpenBlobPart(b, n, part)
			if err != nil {
				t.Fatalf("%d bytes, part %d: %v", size, n, err)
			}
			out = append(out, p...)
		}
		if !bytes.Equal(out, plain) {
			t.Errorf("%d bytes read back as %d", size, len(out))
		}
	}
}

// B2: no part stands for another, none can go, none can be cut.
func TestB2(t *testing.T) {
	b, parts, _ := sealedBlob(t, 2*space.BlobPart+1000)
	other, _, _ := sealedBlob(t, 2*space.BlobPart+1000)
	other.Key = [32]byte{9}
	forged := func(what string, b space.Blob, n int, part []byte) {
		t.Helper()
		if p, err := OpenBlobPart(b, n, part); !errors.Is(err, space.ErrForged) || p != nil {
			t.Errorf("%s: %d bytes, %v", what, len(p), err)
		}
	}
	forged("swapped", b, 0, parts[1])
	forged("the last put first", b, 0, parts[2])
	forged("truncated", b, 1, parts[1][:len(parts[1])-1])
	forged("cut to nothing", b, 1, nil)
	forged("appended to", b, 1, append(bytes.Clone(parts[1]), 0))
	forged("of another blob", other, 1, parts[1])
	short := b
	short.Parts, short.Size = b.Parts[:2], 2*space.BlobPart
	forged("the last one dropped", short, 1, parts[1])
	long := b
	long.Parts = append(long.Parts[:3:3], [32]byte{1})
	forged("one added", long, 2, parts[2])
	for i := range 40 {
		bad := bytes.Clone(parts[2])
		bad[i*len(bad)/40] ^= 1
		forged("a bit flipped", b, 2, bad)
	}
	bigger := b
	bigger.Size += 100_000
	forged("a size that the last part does not have", bigger, 2, parts[2])
}

func TestPadme(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, space.BlobPart).Draw(t, "n")
		p := padme(n)
		if p < n || p > space.BlobPart || p < 256 || n > 2048 && float64(p) > 1.12*float64(n) {
			t.Fatalf("%d is padded to %d", n, p)
		}
		if n < space.BlobPart && padme(n+1) < p {
			t.Fatalf("%d is padded to more than %d", n, n+1)
		}
	})
}
