package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// The inside of an envelope (docs/protocol.md, "Envelope"):
// u32 length ‖ part of the body ‖ zeros up to envelope.PaddedSize(4+length).
// Bit 31 of the length says that the body goes on in seq+1; every part but the
// last is full, so that a body has one encoding.
const (
	lenSize  = 4
	moreBit  = 1 << 31
	nonceLen = chacha20poly1305.NonceSizeX
	// maxPart is the largest part of a body in one envelope.
	maxPart = envelope.MaxPadded - lenSize
	// MaxBody is the largest body, whatever the number of its parts.
	MaxBody = 2 << 20
)

// entryKeys derives the one-use keys of a chain's envelopes: KDF(parent, label,
// chain_id ‖ u64 seq, 32). It keeps the HMAC state of the parent, and so does in
// two hash blocks and no allocation what space.KDF does in many.
type entryKeys struct {
	mac hash.Hash
	msg []byte // info ‖ 0x01: HKDF-Expand's first and only block
	out [sha256.Size]byte
}

func newEntryKeys(parent secret, l space.Label, chain envelope.ChainID) *entryKeys {
	msg := l.Message(chain[:], make([]byte, 8), []byte{1})
	return &entryKeys{mac: hmac.New(sha256.New, parent.raw()), msg: msg}
}

// at is the key of one envelope, good until the next call.
func (k *entryKeys) at(seq uint64) []byte {
	binary.BigEndian.PutUint64(k.msg[len(k.msg)-9:], seq)
	k.mac.Reset()
	k.mac.Write(k.msg)
	return k.mac.Sum(k.out[:0])
}

// forget clears what can be cleared.
func (k *entryKeys) forget() {
	if k != nil {
		k.mac = nil
		clear(k.out[:])
	}
}

// sealPart seals one part of a body at the place h names.
func sealPart(rand io.Reader, key []byte, h envelope.Header, part []byte, more bool, sign func([]byte) []byte) (envelope.Envelope, error) {
	var nonce [nonceLen]byte
	if _, err := io.ReadFull(rand, nonce[:]); err != nil {
		return envelope.Envelope{}, fmt.Errorf("draw nonce: %w", err)
	}
	plain := joinPart(part, more)
	defer clear(plain)
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return envelope.Envelope{}, err
	}
	aad := h.AAD(nonce, len(plain)+chacha20poly1305.Overhead)
	return envelope.Sign(h, nonce, aead.Seal(nil, nonce[:], plain, aad), sign)
}

// openPart opens one envelope; part is newly allocated.
func openPart(key []byte, e envelope.Envelope) (part []byte, more bool, err error) {
	return openInto(make([]byte, 0, len(e.Ciphertext())), key, e)
}

// openInto is openPart into the memory of to.
func openInto(to, key []byte, e envelope.Envelope) (part []byte, more bool, err error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, false, err
	}
	nonce := e.Nonce()
	ct := e.Ciphertext()
	plain, err := aead.Open(to, nonce[:], ct, e.AAD())
	if err != nil {
		return nil, false, fmt.Errorf("%w: seal does not fit", space.ErrForged)
	}
	return splitPart(plain)
}

// joinPart puts the length before a part and the padding behind it.
func joinPart(part []byte, more bool) []byte {
	plain := make([]byte, envelope.PaddedSize(lenSize+len(part)))
	n := uint32(len(part))
	if more {
		n |= moreBit
	}
	binary.BigEndian.PutUint32(plain, n)
	copy(plain[lenSize:], part)
	return plain
}

// splitPart takes the padding off, having checked that it is the only one.
func splitPart(plain []byte) (part []byte, more bool, err error) {
	if len(plain) < lenSize {
		return nil, false, fmt.Errorf("%w: part of %d bytes", space.ErrMalformed, len(plain))
	}
	n := binary.BigEndian.Uint32(plain)
	more = n&moreBit != 0
	n &^= moreBit
	switch {
	case uint64(n) > uint64(len(plain)-lenSize) || envelope.PaddedSize(lenSize+int(n)) != len(plain):
		return nil, false, fmt.Errorf("%w: length %d in %d bytes", space.ErrMalformed, n, len(plain))
	case n == 0:
		return nil, false, fmt.Errorf("%w: empty part", space.ErrMalformed)
	case more && n != maxPart:
		return nil, false, fmt.Errorf("%w: a part that is not the last is not full", space.ErrNotCanonical)
	}
	end := lenSize + int(n)
	var acc byte
	for _, b := range plain[end:] {
		acc |= b
	}
	if acc != 0 {
		return nil, false, fmt.Errorf("%w: padding is not zero", space.ErrNotCanonical)
	}
	return plain[lenSize:end:end], more, nil
}
