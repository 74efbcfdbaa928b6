package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"

	"github.com/kithnet/kith/space"
)

// parseKEMPublic accepts an X-Wing public key whose ML-KEM half is reduced and
// whose X25519 half passes parseDHPublic. Whoever wraps to a key that passed
// here cannot be made to fail by it.
func parseKEMPublic(b []byte) (hpke.PublicKey, error) {
	if len(b) != kemPublicSize {
		return nil, fmt.Errorf("KEM key: %w: %d bytes, want %d", space.ErrMalformed, len(b), kemPublicSize)
	}
	if _, err := parseDHPublic(b[kemPublicSize-32:]); err != nil {
		return nil, fmt.Errorf("KEM key: %w", err)
	}
	k, err := hpke.MLKEM768X25519().NewPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("KEM key: %w: %w", space.ErrMalformed, err)
	}
	return k, nil
}

// fieldPrime is 2^255-19, little-endian.
var fieldPrime = append(append([]byte{0xed}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f)

// anyScalar tells points of small order: an agreement with one is all zero,
// which crypto/ecdh refuses.
var anyScalar = func() *ecdh.PrivateKey {
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		panic(err)
	}
	return k
}()

// parseDHPublic accepts an X25519 public key that is 32 bytes, below the field
// prime and not of small order. RFC 7748 alone would take all of those.
func parseDHPublic(b []byte) (*ecdh.PublicKey, error) {
	if len(b) != 32 {
		return nil, fmt.Errorf("X25519 key: %w: %d bytes, want 32", space.ErrMalformed, len(b))
	}
	if !belowLE(b, fieldPrime) {
		return nil, fmt.Errorf("X25519 key: %w", space.ErrNotCanonical)
	}
	k, err := ecdh.X25519().NewPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("X25519 key: %w: %w", space.ErrMalformed, err)
	}
	if _, err := anyScalar.ECDH(k); err != nil {
		return nil, fmt.Errorf("X25519 key: %w: of small order", space.ErrMalformed)
	}
	return k, nil
}

// belowLE compares little-endian numbers of one length. Public data only.
func belowLE(a, b []byte) bool {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
