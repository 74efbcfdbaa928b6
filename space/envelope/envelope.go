package envelope

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/bits"

	"github.com/kithnet/kith/space"
)

// The layout of an envelope (docs/protocol.md, "Envelope"):
//
//	0     1   version
//	1     1   type
//	2     2   flags, zero
//	4     32  topic id
//	36    32  chain id: the chain's Ed25519 public key
//	68    8   sequence
//	76    32  prev: id of sequence-1; at sequence 0 the certificate's SHA-256
//	108   4   length n of the ciphertext: a padded size and the 16-byte tag
//	112   24  nonce
//	136   n   ciphertext ‖ tag
//	136+n 64  signature by the chain key over "sp/v1/env" 0x00 ‖ all before
//
// Its id is the SHA-256 of all its bytes; bytes 0 to 136 are the AEAD's
// associated data.
const (
	// Version is the only version there is.
	Version = 1
	// HeaderSize is the length of everything before the ciphertext.
	HeaderSize = 136
	// SignatureSize is the length of the signature at the end.
	SignatureSize = 64
	// TagSize is the length of the AEAD's tag, the end of the ciphertext.
	TagSize = 16
	// MaxSize is the most an envelope may be long.
	MaxSize = 65536
	// MinPadded is the least padded plaintext.
	MinPadded = 256
	// MaxPadded is the largest padded plaintext that fits an envelope.
	MaxPadded = 63488
	// MaxHelloParts bounds the sequences at which a hello may stand: a body is
	// at most 2 MiB, so 34 full envelopes hold it.
	MaxHelloParts = 64
	// MaxSeq is the last sequence of a chain.
	MaxSeq = math.MaxInt64

	offType   = 1
	offFlags  = 2
	offTopic  = 4
	offChain  = 36
	offSeq    = 68
	offPrev   = 76
	offLength = 108
	offNonce  = 112

	minSize = HeaderSize + MinPadded + TagSize + SignatureSize
)

// What stands in the way of a run that is not itself wrong.
var (
	// ErrDuplicate: nothing in it is new.
	ErrDuplicate = errors.New("nothing new")
	// ErrUncertified: no certificate is known for its chain.
	ErrUncertified = errors.New("chain is not certified")
	// ErrFork: authentic, but the chain stands differently here.
	ErrFork = errors.New("chain has forked")
	// ErrCrowded: authentic, but the topic holds MaxChains chains already.
	ErrCrowded = errors.New("topic holds too many chains")
)

// ErrGap: authentic, but envelopes are missing between what is held and what
// came. Have is the first missing sequence, Want the first that came; Kept
// tells whether it waits here for the gap to close.
type ErrGap struct {
	Have, Want uint64
	Kept       bool
}

func (e ErrGap) Error() string {
	return fmt.Sprintf("gap before sequence %d: %d is missing", e.Want, e.Have)
}

// Type says what an envelope carries.
type Type byte

const (
	Entry   Type = 1 // a batch of ops
	Hello   Type = 2 // who writes this chain; its first envelopes
	Control Type = 3 // a control log entry
	Sealed  Type = 4 // ephemeral, sealed; outside the chain
	Clear   Type = 5 // ephemeral, in clear; outside the chain
)

// Ephemeral reports whether envelopes of the type stand outside the chain:
// they are passed on and never stored.
func (t Type) Ephemeral() bool { return t == Sealed || t == Clear }

func (t Type) String() string {
	switch t {
	case Entry:
		return "entry"
	case Hello:
		return "hello"
	case Control:
		return "control"
	case Sealed:
		return "sealed"
	case Clear:
		return "clear"
	}
	return fmt.Sprintf("type %d", byte(t))
}

// ID names an envelope: the SHA-256 of all its bytes, signature included.
type ID [32]byte

// TopicID names a topic: the hash of its issuer's public key.
type TopicID [32]byte

// ChainID names a chain: its Ed25519 public key, a pseudonym.
type ChainID [32]byte

// Name is the topic's name in pubsub.
func (t TopicID) Name() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// LogValue prints a fingerprint.
func (t TopicID) LogValue() slog.Value { return fingerprint(t[:]) }

// LogValue prints a fingerprint.
func (c ChainID) LogValue() slog.Value { return fingerprint(c[:]) }

// LogValue prints a fingerprint.
func (i ID) LogValue() slog.Value { return fingerprint(i[:]) }

func fingerprint(b []byte) slog.Value { return slog.StringValue(hex.EncodeToString(b[:6])) }

// TopicOf is the topic of which issuer certifies the writers.
func TopicOf(issuer ed25519.PublicKey) TopicID { return space.Hash(space.LabelTopic, issuer) }

// Header is what an envelope says in clear, nonce and length apart.
type Header struct {
	Type  Type
	Topic TopicID
	Chain ChainID
	Seq   uint64
	Prev  ID
}

// AAD is the first HeaderSize bytes of the envelope: what the AEAD that makes
// a ciphertext of ctLen bytes (tag included) must bind.
func (h Header) AAD(nonce [24]byte, ctLen int) []byte {
	return h.appendTo(make([]byte, 0, HeaderSize), nonce, ctLen)
}

func (h Header) appendTo(b []byte, nonce [24]byte, ctLen int) []byte {
	b = append(b, Version, byte(h.Type), 0, 0)
	b = append(b, h.Topic[:]...)
	b = append(b, h.Chain[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	b = append(b, h.Prev[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(ctLen))
	return append(b, nonce[:]...)
}

// place refuses a type at a sequence where it may not stand.
func (t Type) place(seq uint64) error {
	if seq > MaxSeq {
		return fmt.Errorf("%w: sequence %d", space.ErrMalformed, seq)
	}
	switch t {
	case Hello:
		if seq >= MaxHelloParts {
			return fmt.Errorf("%w: hello at sequence %d", space.ErrMalformed, seq)
		}
	case Entry, Control:
		if seq == 0 {
			return fmt.Errorf("%w: %v at sequence 0", space.ErrMalformed, t)
		}
	case Sealed, Clear:
	default:
		return fmt.Errorf("%w: envelope of %v", space.ErrMalformed, t)
	}
	return nil
}

// Build assembles an envelope. sign gets the message to sign, domain prefix
// included, and returns the chain key's 64-byte signature over it.
func Build(h Header, nonce [24]byte, ciphertext []byte, sign func(msg []byte) []byte) ([]byte, error) {
	if err := h.Type.place(h.Seq); err != nil {
		return nil, fmt.Errorf("build envelope: %w", err)
	}
	if err := checkLength(len(ciphertext)); err != nil {
		return nil, fmt.Errorf("build envelope: %w", err)
	}
	b := make([]byte, 0, HeaderSize+len(ciphertext)+SignatureSize)
	b = h.appendTo(b, nonce, len(ciphertext))
	b = append(b, ciphertext...)
	sig := sign(space.LabelEnvelope.Message(b))
	if len(sig) != SignatureSize {
		return nil, fmt.Errorf("build envelope: %w: signature is %d bytes", space.ErrMalformed, len(sig))
	}
	return append(b, sig...), nil
}

// Sign is Build for a chain of one's own: the envelope it returns counts as
// checked, so that extending one's own replica costs no verification.
func Sign(h Header, nonce [24]byte, ciphertext []byte, sign func(msg []byte) []byte) (Envelope, error) {
	raw, err := Build(h, nonce, ciphertext, sign)
	if err != nil {
		return Envelope{}, err
	}
	e, err := Parse(raw)
	if err == nil {
		e.verified = true
	}
	return e, err
}

// PaddedSize is the length to which n bytes of plaintext are padded: at least
// MinPadded, then Padmé, which keeps the log2(log2 n) leading bits.
func PaddedSize(n int) int {
	if n <= MinPadded {
		return MinPadded
	}
	e := bits.Len(uint(n)) - 1
	s := bits.Len(uint(e))
	mask := 1<<(e-s) - 1
	return (n + mask) &^ mask
}

// CiphertextOK reports whether n, tag included, is the length of a padded
// plaintext's ciphertext that fits an envelope.
func CiphertextOK(n int) bool { return checkLength(n) == nil }

func checkLength(n int) error {
	if n > MaxPadded+TagSize {
		return fmt.Errorf("%w: ciphertext of %d bytes", space.ErrTooLarge, n)
	}
	if n < MinPadded+TagSize || PaddedSize(n-TagSize) != n-TagSize {
		return fmt.Errorf("%w: ciphertext of %d bytes is not padded", space.ErrMalformed, n)
	}
	return nil
}

// Envelope is a parsed envelope: an immutable view of its bytes. The methods
// of the zero value, which only IsZero may ask, panic.
type Envelope struct {
	raw      []byte
	id       ID
	verified bool // by Frame.Verify or Sign: the signature is good
}

// Parse checks the form of an envelope, not its signature. It keeps b.
func Parse(b []byte) (Envelope, error) {
	n, err := size(b)
	if err != nil {
		return Envelope{}, fmt.Errorf("parse envelope: %w", err)
	}
	if n != len(b) {
		return Envelope{}, fmt.Errorf("parse envelope: %w: %d bytes follow it", space.ErrMalformed, len(b)-n)
	}
	return Envelope{raw: b[:n:n], id: sha256.Sum256(b)}, nil
}

// size checks the form of the envelope b begins with and returns its length,
// which is never more than b holds.
func size(b []byte) (int, error) {
	if len(b) < minSize {
		return 0, fmt.Errorf("%w: %d bytes are no envelope", space.ErrMalformed, len(b))
	}
	if b[0] != Version {
		return 0, fmt.Errorf("%w: envelope version %d", space.ErrMalformed, b[0])
	}
	if b[offFlags] != 0 || b[offFlags+1] != 0 {
		return 0, fmt.Errorf("%w: envelope flags are set", space.ErrMalformed)
	}
	if err := Type(b[offType]).place(binary.BigEndian.Uint64(b[offSeq:])); err != nil {
		return 0, err
	}
	ct := binary.BigEndian.Uint32(b[offLength:])
	if ct > MaxSize {
		return 0, fmt.Errorf("%w: ciphertext of %d bytes", space.ErrTooLarge, ct)
	}
	if err := checkLength(int(ct)); err != nil {
		return 0, err
	}
	n := HeaderSize + int(ct) + SignatureSize
	if n > len(b) {
		return 0, fmt.Errorf("%w: envelope of %d bytes is cut at %d", space.ErrMalformed, n, len(b))
	}
	return n, nil
}

// IsZero reports whether e is no envelope at all.
func (e Envelope) IsZero() bool { return e.raw == nil }

// Type says what it carries.
func (e Envelope) Type() Type { return Type(e.raw[offType]) }

// Topic is the topic it was made for.
func (e Envelope) Topic() TopicID { return TopicID(e.raw[offTopic:offChain]) }

// Chain is the chain it claims to stand in.
func (e Envelope) Chain() ChainID { return ChainID(e.raw[offChain:offSeq]) }

// Seq is its place in the chain.
func (e Envelope) Seq() uint64 { return binary.BigEndian.Uint64(e.raw[offSeq:]) }

// Prev is the id of the envelope before it, or of the chain's certificate.
func (e Envelope) Prev() ID { return ID(e.raw[offPrev:offLength]) }

// Nonce is the AEAD's nonce.
func (e Envelope) Nonce() [24]byte { return [24]byte(e.raw[offNonce:HeaderSize]) }

// AAD is what the AEAD binds: the bytes before the ciphertext.
func (e Envelope) AAD() []byte { return e.raw[:HeaderSize:HeaderSize] }

// Ciphertext is the sealed body, tag included.
func (e Envelope) Ciphertext() []byte {
	end := len(e.raw) - SignatureSize
	return e.raw[HeaderSize:end:end]
}

// Bytes is the whole envelope.
func (e Envelope) Bytes() []byte { return e.raw }

// Len is the length of the whole envelope.
func (e Envelope) Len() int { return len(e.raw) }

// ID is its name, computed when it was parsed.
func (e Envelope) ID() ID { return e.id }

// Head is the chain head it would be.
func (e Envelope) Head() Head { return Head{Seq: e.Seq(), ID: e.id} }

// VerifySignature reports whether its signature is that of its chain key. That
// the key is worth anything is the certificate's matter.
func (e Envelope) VerifySignature() bool {
	end := len(e.raw) - SignatureSize
	return space.Verify(e.raw[offChain:offSeq], space.LabelEnvelope, e.raw[end:], e.raw[:end])
}
