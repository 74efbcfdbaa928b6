package seal

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/bits"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// The parts of a blob are sealed with ChaCha20-Poly1305 under
// KDF(key, "blob", "") and the nonce of STREAM as age has it:
//
//	nonce = part 11, big-endian ‖ 1 in the last part, else 0
//
// so that parts can be neither reordered nor dropped, nor be of another blob.
// Each key seals one blob and no other.

// SealBlobPart seals part n of a blob. The last part is padded with zeros to a
// length that tells little of its own; the others are full.
func SealBlobPart(key [32]byte, n uint64, last bool, plain []byte) ([]byte, error) {
	if len(plain) > space.BlobPart || !last && len(plain) != space.BlobPart {
		return nil, fmt.Errorf("seal blob: part of %d bytes: %w", len(plain), space.ErrTooLarge)
	}
	aead, err := blobAEAD(key)
	if err != nil {
		return nil, err
	}
	padded := plain
	if last {
		padded = make([]byte, padme(len(plain)))
		copy(padded, plain)
	}
	nonce := blobNonce(n, last)
	return aead.Seal(nil, nonce[:], padded, nil), nil
}

// OpenBlobPart opens part n of b and takes the padding off. What is not that
// part, whole, fails with space.ErrForged.
func OpenBlobPart(b space.Blob, n int, sealed []byte) ([]byte, error) {
	aead, err := blobAEAD(b.Key)
	if err != nil {
		return nil, err
	}
	last := n == len(b.Parts)-1
	nonce := blobNonce(uint64(n), last)
	plain, err := aead.Open(nil, nonce[:], sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("open blob: part %d: %w", n, space.ErrForged)
	}
	size := space.BlobPart
	if last {
		size = int(b.Size - uint64(n)*space.BlobPart)
	}
	if len(plain) < size {
		return nil, fmt.Errorf("open blob: part %d is short: %w", n, space.ErrForged)
	}
	return plain[:size], nil
}

func blobAEAD(key [32]byte) (cipher.AEAD, error) {
	return chacha20poly1305.New(space.KDF(key[:], space.LabelBlob, nil, chacha20poly1305.KeySize))
}

func blobNonce(n uint64, last bool) (nonce [chacha20poly1305.NonceSize]byte) {
	binary.BigEndian.PutUint64(nonce[3:11], n)
	if last {
		nonce[11] = 1
	}
	return nonce
}

// padme is the length n is padded to: at most 12 % more, and of few values
// (PURBs, section 4: the lower bits of the length are zero). At least 256, at
// most a full part.
func padme(n int) int {
	const least = 256
	if n <= least {
		return least
	}
	e := bits.Len(uint(n)) - 1
	drop := e - bits.Len(uint(e))
	mask := 1<<drop - 1
	return min((n+mask)&^mask, space.BlobPart)
}
