package identity

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// Sizes of the per-user key's public parts and seals.
const (
	kemPublicSize = 1216           // ML-KEM-768 1184 ‖ X25519 32
	wrapSize      = 1120 + 32 + 16 // X-Wing enc ‖ secret ‖ tag
	prevSize      = 24 + 32 + 16   // nonce ‖ secret ‖ tag
	pukSize       = 1 + 4 + 32     // a marshalled PUK: ver 1 ‖ gen ‖ secret
	pukVersion    = 1
	maxGeneration = uint32(MaxEntries) // no log can hold more
)

// PUKPublic is the public half of a per-user key: what others wrap to. Gen 0
// means that there is none yet.
type PUKPublic struct {
	Gen uint32
	KEM []byte // X-Wing public key, 1,216 bytes
	DH  []byte // X25519 public key
}

// Equal reports whether both are the same generation of the same key.
func (p PUKPublic) Equal(o PUKPublic) bool {
	return p.Gen == o.Gen && bytes.Equal(p.KEM, o.KEM) && bytes.Equal(p.DH, o.DH)
}

// KEMKey is the X-Wing key to seal to.
func (p PUKPublic) KEMKey() (hpke.PublicKey, error) { return parseKEMPublic(p.KEM) }

// DHKey is the X25519 key to agree with.
func (p PUKPublic) DHKey() (*ecdh.PublicKey, error) { return parseDHPublic(p.DH) }

// PUK is one generation of the per-user key, the private half that all devices
// of a person share. It is opaque; the zero PUK panics on use.
type PUK struct {
	// k is behind a function, which no verb of fmt looks through.
	k func() *pukKeys
}

type pukKeys struct {
	gen    uint32
	secret [32]byte
	kem    hpke.PrivateKey
	dh     *ecdh.PrivateKey
}

func newPUK(rand io.Reader, gen uint32) (PUK, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return PUK{}, fmt.Errorf("draw per-user key: %w", err)
	}
	return pukOf(gen, b), nil
}

func pukOf(gen uint32, secret [32]byte) PUK {
	k := &pukKeys{gen: gen, secret: secret}
	k.kem = deriveKEM(space.KDF(secret[:], space.LabelPUKKEM, nil, 32))
	dh, err := ecdh.X25519().NewPrivateKey(space.KDF(secret[:], space.LabelPUKDH, nil, 32))
	if err != nil {
		panic(fmt.Sprintf("identity: derive X25519 key: %v", err)) // any 32 bytes are one
	}
	k.dh = dh
	return PUK{k: func() *pukKeys { return k }}
}

// UnmarshalPUK reads what Marshal wrote. It keeps nothing of b.
func UnmarshalPUK(b []byte) (PUK, error) {
	if len(b) != pukSize || b[0] != pukVersion {
		return PUK{}, fmt.Errorf("per-user key: %w", space.ErrMalformed)
	}
	gen := binary.BigEndian.Uint32(b[1:])
	if gen == 0 || gen > maxGeneration {
		return PUK{}, fmt.Errorf("per-user key: %w: generation %d", space.ErrMalformed, gen)
	}
	return pukOf(gen, [32]byte(b[5:])), nil
}

// Marshal is the secret, for the key file and nothing else.
func (p PUK) Marshal() []byte {
	k := p.keys()
	b := append(make([]byte, 0, pukSize), pukVersion)
	b = binary.BigEndian.AppendUint32(b, k.gen)
	return append(b, k.secret[:]...)
}

func (p PUK) keys() *pukKeys {
	if p.k == nil {
		panic("identity: use of a zero PUK")
	}
	return p.k()
}

// IsZero reports whether p holds no key.
func (p PUK) IsZero() bool { return p.k == nil }

// Gen is the generation, 1 for the first.
func (p PUK) Gen() uint32 { return p.keys().gen }

// KEM is the X-Wing key that opens what others wrapped to Public.
func (p PUK) KEM() hpke.PrivateKey { return p.keys().kem }

// DH is the X25519 key.
func (p PUK) DH() *ecdh.PrivateKey { return p.keys().dh }

// Public is what the identity log announces.
func (p PUK) Public() PUKPublic {
	k := p.keys()
	return PUKPublic{Gen: k.gen, KEM: k.kem.PublicKey().Bytes(), DH: k.dh.PublicKey().Bytes()}
}

// Equal compares in constant time.
func (p PUK) Equal(o PUK) bool {
	return subtle.ConstantTimeCompare(p.Marshal(), o.Marshal()) == 1
}

// LogValue shows which key it is.
func (p PUK) LogValue() slog.Value {
	if p.k == nil {
		return slog.StringValue("puk:none")
	}
	return slog.StringValue(fmt.Sprintf("puk:%d:%s", p.Gen(), hex.EncodeToString(p.k().dh.PublicKey().Bytes()[:4])))
}

// recipient of a wrap: the root, whose id is C, or a device. The two kinds are
// told apart by a byte of their own, not by the look of the id.
type recipient struct {
	root bool
	id   [32]byte
}

// wrapInfo is the HPKE info of a wrap:
// "sp/v1/puk/wrap" 0x00 ‖ C ‖ u32 gen ‖ u8 kind (0 root, 1 device) ‖ id.
func wrapInfo(c Commitment, gen uint32, to recipient) []byte {
	kind := []byte{1}
	if to.root {
		kind[0] = 0
	}
	return space.LabelPUKWrap.Message(c[:], binary.BigEndian.AppendUint32(nil, gen), kind, to.id[:])
}

func (p PUK) wrapTo(c Commitment, to recipient, kemPub []byte) ([]byte, error) {
	k := p.keys()
	kem, err := parseKEMPublic(kemPub)
	if err != nil {
		return nil, fmt.Errorf("wrap per-user key: %w", err)
	}
	b, err := hpke.Seal(kem, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), wrapInfo(c, k.gen, to), k.secret[:])
	if err != nil {
		return nil, fmt.Errorf("wrap per-user key: %w", err)
	}
	return b, nil
}

// UnwrapPUK opens the current per-user key with a live device's key or the
// seed's, and checks that it is the one the log announced. space.ErrNoKey: it
// is not wrapped to k; space.ErrForged: the wrap does not hold that key.
func UnwrapPUK(k Key, s State) (PUK, error) {
	to, kem := k.wrapping()
	sealed := s.rootWrap
	if !to.root {
		sealed = s.wraps[to.id]
	} else if to.id != s.C {
		return PUK{}, fmt.Errorf("unwrap per-user key: %w: the log is another seed's", space.ErrNoKey)
	}
	if sealed == nil {
		return PUK{}, fmt.Errorf("unwrap per-user key: %w: generation %d is not wrapped to this key", space.ErrNoKey, s.PUK.Gen)
	}
	b, err := hpke.Open(kem, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), wrapInfo(s.C, s.PUK.Gen, to), sealed)
	if err != nil || len(b) != 32 {
		return PUK{}, fmt.Errorf("unwrap per-user key: %w", space.ErrForged)
	}
	return s.announced(pukOf(s.PUK.Gen, [32]byte(b)), s.PUK)
}

// Previous opens the generation before p, which p's entry sealed under it.
// space.ErrNoKey: p is the first, or the log does not know it.
func (p PUK) Previous(s State) (PUK, error) {
	k := p.keys()
	g, ok := s.generation(k.gen)
	if !ok || k.gen == 1 {
		return PUK{}, fmt.Errorf("previous per-user key: %w", space.ErrNoKey)
	}
	if !g.public.Equal(p.Public()) {
		return PUK{}, fmt.Errorf("previous per-user key: %w: not this log's generation %d", space.ErrNoKey, k.gen)
	}
	b, err := k.prevAEAD().Open(nil, g.prev[:24], g.prev[24:], prevAAD(s.C, k.gen))
	if err != nil {
		return PUK{}, fmt.Errorf("previous per-user key: %w", space.ErrForged)
	}
	before, _ := s.generation(k.gen - 1)
	return s.announced(pukOf(k.gen-1, [32]byte(b)), before.public)
}

func (s State) announced(p PUK, want PUKPublic) (PUK, error) {
	if !p.Public().Equal(want) {
		return PUK{}, fmt.Errorf("per-user key: %w: generation %d opens to another key than announced", space.ErrForged, want.Gen)
	}
	return p, nil
}

// sealPrevious seals the generation before p: nonce 24 ‖ XChaCha20-Poly1305
// under KDF(PUK_g, "puk/prev"), AAD = C ‖ u32 g.
func (p PUK) sealPrevious(rand io.Reader, c Commitment, before PUK) ([]byte, error) {
	k := p.keys()
	b := make([]byte, 24, prevSize)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("seal previous per-user key: %w", err)
	}
	return k.prevAEAD().Seal(b, b, before.keys().secret[:], prevAAD(c, k.gen)), nil
}

func (k *pukKeys) prevAEAD() cipher.AEAD {
	a, err := chacha20poly1305.NewX(space.KDF(k.secret[:], space.LabelPUKPrev, nil, 32))
	if err != nil {
		panic(fmt.Sprintf("identity: %v", err)) // the key is 32 bytes
	}
	return a
}

func prevAAD(c Commitment, gen uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(nil), c[:]...), gen)
}
