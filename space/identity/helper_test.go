package identity

import (
	"bytes"
	"crypto/ed25519"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/kithnet/kith/space"
)

const now = 1_700_000_000_000

func testRand(b byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{b}) }

func testSeed(b byte) Seed { return seedOf([32]byte(bytes.Repeat([]byte{b}, 32))) }

// alice is one identity for all tests that only read it.
var alice = sync.OnceValue(func() Created {
	c, err := New(testRand(1), testSeed(0x11), now)
	if err != nil {
		panic(err)
	}
	return c
})

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// forge is an entry after s that is right in everything but what change does
// to it before it is signed by key.
func forge(t testing.TB, s State, key ed25519.PrivateKey, kind Kind, body any, change func(*entry)) []byte {
	t.Helper()
	b, ok := body.([]byte)
	if !ok {
		b = must[[]byte](t)(space.Marshal(body))
	}
	e := &entry{
		Ver: version, C: s.C, Seq: s.Seq + 1, Prev: s.Head, Kind: kind, Body: b,
		TimeMs: now, Signer: [32]byte(key.Public().(ed25519.PublicKey)),
	}
	if change != nil {
		change(e)
	}
	return must[[]byte](t)(encodeEntry(e, key))
}

// newDeviceBody is a valid add-device body for dev.
func newDeviceBody(s State, dev Device, caps Caps) *deviceBody {
	b := &deviceBody{Sig: dev.ID(), KEM: dev.KEMPublic(), DH: dev.DH().PublicKey().Bytes(), Caps: caps}
	prove(s, b, dev.Sig())
	return b
}

func prove(s State, b *deviceBody, key ed25519.PrivateKey) {
	copy(b.Pop[:], space.Sign(key, space.LabelDevicePop, popParts(s.C, b)...))
}

// withDevice is alice's log with one more device.
func withDevice(t testing.TB, b byte, caps Caps) (State, Device) {
	t.Helper()
	dev := must[Device](t)(NewDevice(testRand(b)))
	_, s, err := alice().State.AddDevice(testSeed(0x11), dev, caps, now)
	if err != nil {
		t.Fatal(err)
	}
	return s, dev
}
