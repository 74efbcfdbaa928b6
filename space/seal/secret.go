package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/kithnet/kith/space"
)

// KeySize is the length of every marshalled key of this package.
const KeySize = 32

var errOpaque = errors.New("seal: secret keys do not marshal by accident: use Marshal")

// secret is 32 key bytes. They are reached through a function, for fmt follows
// pointers in unexported fields without asking any method (for one, when a verb
// does not fit), and can do nothing with a function. It also keeps secrets from
// being compared, and lets one Clear reach every copy.
type secret struct {
	at func() *keyBytes
}

type keyBytes struct {
	k    [KeySize]byte
	priv ed25519.PrivateKey // of a signer, expanded from k
	gone bool               // cleared: 32 zero bytes are no key
}

func secretOf(k *keyBytes) secret { return secret{at: func() *keyBytes { return k }} }

func newSecret(rand io.Reader) (secret, error) {
	k := new(keyBytes)
	if _, err := io.ReadFull(rand, k.k[:]); err != nil {
		return secret{}, fmt.Errorf("draw key: %w", err)
	}
	return secretOf(k), nil
}

// secretFrom copies b, which must be 32 bytes, not all zero.
func secretFrom(b []byte) (secret, error) {
	if len(b) != KeySize {
		return secret{}, fmt.Errorf("%w: key is %d bytes, want %d", space.ErrMalformed, len(b), KeySize)
	}
	if bytes.Equal(b, make([]byte, KeySize)) {
		return secret{}, fmt.Errorf("%w: key is zero", space.ErrMalformed)
	}
	return secretOf(&keyBytes{k: [KeySize]byte(b)}), nil
}

// derive is the child of key under a label.
func derive(key []byte, l space.Label, ctx []byte) secret {
	b := space.KDF(key, l, ctx, KeySize)
	defer clear(b)
	return secretOf(&keyBytes{k: [KeySize]byte(b)})
}

// raw is the key itself; a zero or cleared key panics here, so nothing is ever
// sealed under 32 zero bytes.
func (s secret) raw() []byte {
	if s.IsZero() {
		panic("seal: use of a zero key")
	}
	return s.at().k[:]
}

// IsZero reports whether there is no key, or none any more.
func (s secret) IsZero() bool { return s.at == nil || s.at().gone }

// Marshal gives the 32 key bytes, for the key file.
func (s secret) Marshal() []byte { return bytes.Clone(s.raw()) }

// Clear wipes the key, in every copy of this value.
func (s secret) Clear() {
	if s.at != nil {
		k := s.at()
		clear(k.k[:])
		clear(k.priv)
		k.gone = true
	}
}

func (s secret) equal(o secret) bool {
	return subtle.ConstantTimeCompare(s.raw(), o.raw()) == 1
}

func (s secret) fingerprint() string {
	if s.IsZero() {
		return "key:none"
	}
	m := space.MAC(s.raw(), space.LabelFingerprint)
	return "key:" + hex.EncodeToString(m[:4])
}

// Format prints a fingerprint, whatever the verb.
func (s secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.fingerprint()) }

// LogValue is a fingerprint.
func (s secret) LogValue() slog.Value { return slog.StringValue(s.fingerprint()) }

// MarshalText refuses, and so does encoding/json, which would ask it.
func (s secret) MarshalText() ([]byte, error) { return nil, errOpaque }

// MarshalBinary refuses, and so do gob and CBOR, which would ask it.
func (s secret) MarshalBinary() ([]byte, error) { return nil, errOpaque }

// signer is an Ed25519 private key: its seed and what is expanded from it.
type signer struct{ secret }

func newSigner(rand io.Reader) (signer, error) {
	s, err := newSecret(rand)
	if err != nil {
		return signer{}, err
	}
	return signerOf(s), nil
}

func signerOf(s secret) signer {
	seed := s.raw()
	return signer{secretOf(&keyBytes{k: [KeySize]byte(seed), priv: ed25519.NewKeyFromSeed(seed)})}
}

func (s signer) key() ed25519.PrivateKey {
	if s.IsZero() {
		panic("seal: use of a zero key")
	}
	return s.at().priv
}

// Public is the public half.
func (s signer) Public() ed25519.PublicKey {
	return bytes.Clone(s.key()[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
}
