package envelope

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

func TestPaddedSize(t *testing.T) {
	for _, c := range []struct{ n, want int }{
		{-1, 256}, {0, 256}, {15, 256}, {256, 256}, {257, 272}, {272, 272}, {273, 288},
		{511, 512}, {512, 512}, {513, 544}, {1000, 1024}, {1025, 1088}, {4097, 4352}, {5000, 5120}, {63488, 63488}, {63489, 65536},
	} {
		if got := PaddedSize(c.n); got != c.want {
			t.Errorf("PaddedSize(%d) = %d, want %d", c.n, got, c.want)
		}
	}
	largest := 0
	for n := 0; n <= MaxSize; n++ {
		p := PaddedSize(n)
		if p < n || PaddedSize(p) != p {
			t.Fatalf("PaddedSize(%d) = %d", n, p)
		}
		if n > MinPadded && float64(p) > 1.12*float64(n) {
			t.Fatalf("PaddedSize(%d) = %d is more than 12 %% over", n, p)
		}
		if p == n && HeaderSize+p+TagSize+SignatureSize <= MaxSize {
			largest = p
		}
		if ok, want := CiphertextOK(n+TagSize), p == n && n <= MaxPadded; ok != want {
			t.Fatalf("CiphertextOK(%d) = %v, want %v", n+TagSize, ok, want)
		}
	}
	if largest != MaxPadded {
		t.Errorf("the largest padded size that fits is %d, not %d", largest, MaxPadded)
	}
}

func TestParseRefuses(t *testing.T) {
	good := vectorEnvelope(t).Bytes()
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	set := func(at int, v ...byte) []byte {
		return edit(func(b []byte) []byte { copy(b[at:], v); return b })
	}
	length := func(n uint32) []byte {
		return edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[offLength:], n); return b })
	}
	seq := func(typ Type, n uint64) []byte {
		return edit(func(b []byte) []byte {
			b[offType] = byte(typ)
			binary.BigEndian.PutUint64(b[offSeq:], n)
			return b
		})
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"the vector", good, nil},
		{"nothing", nil, space.ErrMalformed},
		{"one byte", []byte{1}, space.ErrMalformed},
		{"cut", good[:len(good)-1], space.ErrMalformed},
		{"trailing byte", append(bytes.Clone(good), 0), space.ErrMalformed},
		{"version 0", set(0, 0), space.ErrMalformed},
		{"version 2", set(0, 2), space.ErrMalformed},
		{"type 0", set(offType, 0), space.ErrMalformed},
		{"type 6", set(offType, 6), space.ErrMalformed},
		{"flags", set(offFlags, 0, 1), space.ErrMalformed},
		{"high flags", set(offFlags, 128, 0), space.ErrMalformed},
		{"length not padded", length(273), space.ErrMalformed},
		{"length below the least", length(255 + TagSize), space.ErrMalformed},
		{"length beyond the bytes", length(288), space.ErrMalformed},
		{"length beyond the largest", length(65536 + TagSize), space.ErrTooLarge},
		{"length 2^32-1", length(math.MaxUint32), space.ErrTooLarge},
		{"entry at 0", seq(Entry, 0), space.ErrMalformed},
		{"control at 0", seq(Control, 0), space.ErrMalformed},
		{"hello at 0", seq(Hello, 0), nil},
		{"hello goes on", seq(Hello, 63), nil},
		{"hello too late", seq(Hello, 64), space.ErrMalformed},
		{"control at 1", seq(Control, 1), nil},
		{"ephemeral at 0", seq(Sealed, 0), nil},
		{"clear at 9", seq(Clear, 9), nil},
		{"last sequence", seq(Entry, MaxSeq), nil},
		{"beyond the last", seq(Entry, MaxSeq+1), space.ErrMalformed},
	} {
		if _, err := Parse(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	h := Header{Type: Entry, Seq: 1}
	sign := func([]byte) []byte { return make([]byte, SignatureSize) }
	for _, c := range []struct {
		name string
		h    Header
		ct   int
		sign func([]byte) []byte
		want error
	}{
		{"well formed", h, 272, sign, nil},
		{"largest", h, MaxPadded + TagSize, sign, nil},
		{"entry at 0", Header{Type: Entry}, 272, sign, space.ErrMalformed},
		{"unpadded", h, 271, sign, space.ErrMalformed},
		{"too large", h, 65536 + TagSize, sign, space.ErrTooLarge},
		{"short signature", h, 272, func([]byte) []byte { return nil }, space.ErrMalformed},
	} {
		b, err := Build(c.h, [24]byte{}, make([]byte, c.ct), c.sign)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && len(b) > MaxSize {
			t.Errorf("%s: %d bytes", c.name, len(b))
		}
	}
}

// What is built is what is parsed, field by field.
func TestBuildParse(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		chainKey := key(rapid.Byte().Draw(r, "key"))
		h := Header{
			Type: Type(rapid.IntRange(1, 5).Draw(r, "type")),
			Seq:  rapid.Uint64Range(1, 63).Draw(r, "seq"),
		}
		copy(h.Chain[:], public(chainKey))
		copy(h.Topic[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(r, "topic"))
		copy(h.Prev[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(r, "prev"))
		nonce := [24]byte(rapid.SliceOfN(rapid.Byte(), 24, 24).Draw(r, "nonce"))
		ct := make([]byte, PaddedSize(rapid.IntRange(0, 4096).Draw(r, "size"))+TagSize)
		raw, err := Build(h, nonce, ct, func(m []byte) []byte { return ed25519.Sign(chainKey, m) })
		if err != nil {
			r.Fatal(err)
		}
		e, err := Parse(raw)
		if err != nil {
			r.Fatal(err)
		}
		got := Header{Type: e.Type(), Topic: e.Topic(), Chain: e.Chain(), Seq: e.Seq(), Prev: e.Prev()}
		if got != h || e.Nonce() != nonce || !bytes.Equal(e.Ciphertext(), ct) {
			r.Fatalf("built %+v, parsed %+v", h, got)
		}
		if !bytes.Equal(e.AAD(), h.AAD(nonce, len(ct))) || !bytes.Equal(e.AAD(), raw[:HeaderSize]) {
			r.Fatal("associated data differs")
		}
		if !e.VerifySignature() {
			r.Fatal("signature refused")
		}
		at := rapid.IntRange(0, len(raw)-1).Draw(r, "flip")
		raw[at] ^= 1 << rapid.IntRange(0, 7).Draw(r, "bit")
		if e, err := Parse(raw); err == nil && e.VerifySignature() {
			r.Fatalf("bit flipped in byte %d is not noticed", at)
		}
	})
}
