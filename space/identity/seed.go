package identity

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
)

// Commitment is C, 32 bytes: Hash("commit", id_sig_pub ‖ SHA-256(id_kem_pub)).
// It names a person on the wire, whatever DID they go by.
type Commitment [32]byte

func commitmentOf(sigPub ed25519.PublicKey, kemPub []byte) Commitment {
	k := sha256.Sum256(kemPub)
	return space.Hash(space.LabelCommit, sigPub, k[:])
}

// Key is what can act for an identity: the Seed, which is its root, or one of
// its devices. Only the two types of this package are Keys.
type Key interface {
	signing() ed25519.PrivateKey
	wrapping() (recipient, hpke.PrivateKey)
}

var _, _ Key = Seed{}, Device{}

// Seed is the 32 random bytes everything about an identity but its devices is
// derived from. It is opaque and is never stored: the words are the only form
// it takes outside memory. The zero Seed panics on use.
type Seed struct {
	// k is behind a function, which no verb of fmt looks through.
	k func() *seedKeys
}

type seedKeys struct {
	secret [32]byte
	sig    ed25519.PrivateKey
	kem    hpke.PrivateKey
	c      Commitment
}

// NewSeed draws a seed.
func NewSeed(rand io.Reader) (Seed, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return Seed{}, fmt.Errorf("draw seed: %w", err)
	}
	return seedOf(b), nil
}

func seedOf(b [32]byte) Seed {
	k := &seedKeys{secret: b}
	k.sig = ed25519.NewKeyFromSeed(space.KDF(b[:], space.LabelIDSig, nil, 32))
	k.kem = deriveKEM(space.KDF(b[:], space.LabelIDKEM, nil, 32))
	k.c = commitmentOf(k.sig.Public().(ed25519.PublicKey), k.kem.PublicKey().Bytes())
	return Seed{k: func() *seedKeys { return k }}
}

func (s Seed) keys() *seedKeys {
	if s.k == nil {
		panic("identity: use of a zero Seed")
	}
	return s.k()
}

// Commitment is the C of this seed.
func (s Seed) Commitment() Commitment { return s.keys().c }

// Equal compares in constant time.
func (s Seed) Equal(o Seed) bool {
	return subtle.ConstantTimeCompare(s.keys().secret[:], o.keys().secret[:]) == 1
}

// Clear overwrites the secret and the signing key; the Seed is unusable after
// it. Copies that the libraries made are out of reach.
func (s Seed) Clear() {
	k := s.keys()
	clear(k.secret[:])
	clear(k.sig)
	k.kem = nil
}

// LogValue shows which seed it is, never what it is.
func (s Seed) LogValue() slog.Value {
	if s.k == nil {
		return slog.StringValue("seed:none")
	}
	return slog.StringValue("seed:" + hex.EncodeToString(s.k().c[:4]))
}

func (s Seed) signing() ed25519.PrivateKey { return s.keys().sig }

func (s Seed) wrapping() (recipient, hpke.PrivateKey) {
	k := s.keys()
	return recipient{root: true, id: k.c}, k.kem
}

// DIDKey is the K-256 key of the seed's default DID.
func DIDKey(s Seed) *atcrypto.PrivateKeyK256 {
	for ctx := []byte(nil); ; ctx = append(ctx, 0) {
		// One try in 2^128 is no scalar; then the next one is.
		k, err := atcrypto.ParsePrivateBytesK256(space.KDF(s.keys().secret[:], space.LabelIDAtproto, ctx, 32))
		if err == nil {
			return k
		}
	}
}

// deriveKEM is X-Wing's DeriveKeyPair (MLKEM768-X25519), which cannot fail.
func deriveKEM(ikm []byte) hpke.PrivateKey {
	k, err := hpke.MLKEM768X25519().DeriveKeyPair(ikm)
	if err != nil {
		panic(fmt.Sprintf("identity: derive KEM key: %v", err))
	}
	return k
}
