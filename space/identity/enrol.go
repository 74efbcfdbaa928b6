package identity

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// Code is what a person carries from a new device to one they have: 80 random
// bits and 20 that check them, in five groups of four characters. Whoever
// knows it, and nobody between the two, can take part in the enrolment. It is
// opaque; the zero Code panics on use.
type Code struct {
	// k is behind a function, which no verb of fmt looks through.
	k func() *[codeBytes]byte
}

// codeBytes are secret; codeChars stand for them and for the check.
const (
	codeBytes = 10
	codeChars = 20
)

// NewCode draws a code.
func NewCode(rand io.Reader) (Code, error) {
	var b [codeBytes]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return Code{}, fmt.Errorf("draw a code: %w", err)
	}
	return Code{k: func() *[codeBytes]byte { return &b }}, nil
}

// ParseCode reads what String wrote, in any case, with or without hyphens, and
// with the letters people put for digits. Its errors hold nothing of the code.
func ParseCode(text string) (Code, error) {
	if len(text) > 4*codeChars {
		return Code{}, fmt.Errorf("device code: %w: %d characters", space.ErrTooLarge, len(text))
	}
	var b [codeBytes + 3]byte
	n := 0
	for _, r := range strings.ToUpper(text) {
		switch r {
		case '-', ' ', '\n', '\r', '\t':
			continue
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		v := strings.IndexRune(fingerprintAlphabet, r)
		if v < 0 || n == codeChars {
			return Code{}, fmt.Errorf("device code: %w: it has five groups of four letters and digits", space.ErrMalformed)
		}
		putBits5(b[:], 5*n, byte(v))
		n++
	}
	secret := [codeBytes]byte(b[:codeBytes])
	if n != codeChars || checkOf(secret) != [3]byte(b[codeBytes:]) {
		return Code{}, fmt.Errorf("device code: %w: a character is missing or was mistaken for another", space.ErrMalformed)
	}
	return Code{k: func() *[codeBytes]byte { return &secret }}, nil
}

// String is the code for people.
func (c Code) String() string {
	s := *c.secret()
	check := checkOf(s)
	b := append(s[:], check[:]...)
	out := make([]byte, 0, codeChars+codeChars/4)
	for i := range codeChars {
		if i > 0 && i%4 == 0 {
			out = append(out, '-')
		}
		out = append(out, fingerprintAlphabet[bits5(b, 5*i)])
	}
	return string(out)
}

// LogValue shows nothing of it.
func (c Code) LogValue() slog.Value { return slog.StringValue("device-code") }

// IsZero reports whether c is no code.
func (c Code) IsZero() bool { return c.k == nil }

func (c Code) secret() *[codeBytes]byte {
	if c.k == nil {
		panic("identity: use of a zero Code")
	}
	return c.k()
}

// checkOf are 20 bits that a mistaken character changes; the last four of the
// three bytes are zero.
func checkOf(secret [codeBytes]byte) [3]byte {
	h := space.Hash(space.LabelDeviceCode, []byte("check"), secret[:])
	return [3]byte{h[0], h[1], h[2] & 0xf0}
}

// putBits5 writes five bits at bit offset at, most significant first.
func putBits5(b []byte, at int, v byte) {
	w := uint16(v) << (11 - at%8)
	b[at/8] |= byte(w >> 8)
	if at/8+1 < len(b) {
		b[at/8+1] |= byte(w)
	}
}

// Meeting is what both ends of an enrolment know before they trust each
// other: the nonces they drew and the names of the ends of the connection.
// Whoever sits between two connections has two meetings.
type Meeting struct {
	ApproverNonce, NewNonce [32]byte
	ApproverEnd, NewEnd     []byte // at most 65,535 bytes each
}

// Step numbers the messages of an enrolment; each has a key of its own.
type Step uint8

// The messages of an enrolment, in their order.
const (
	StepWho     Step = 1 // approver: C and the capabilities to be had
	StepRequest Step = 2 // new device: its keys and the proof of them
	StepGranted Step = 3 // approver: the identity log and the sealed list
	StepDone    Step = 4 // new device: it is all kept
)

// Seal seals one message of an enrolment: nonce 24 ‖ XChaCha20-Poly1305 under
// KDF(H("device/code", secret), "device/seal", nonces ‖ ends ‖ u8 step).
func (c Code) Seal(rand io.Reader, m Meeting, s Step, plain []byte) ([]byte, error) {
	box := make([]byte, chacha20poly1305.NonceSizeX)
	if _, err := io.ReadFull(rand, box); err != nil {
		return nil, fmt.Errorf("seal enrolment: %w", err)
	}
	return c.aead(m, s).Seal(box, box, plain, nil), nil
}

// Open opens one. space.ErrForged: the other end does not know the code, or is
// not the other end.
func (c Code) Open(m Meeting, s Step, box []byte) ([]byte, error) {
	n := chacha20poly1305.NonceSizeX
	if len(box) < n {
		return nil, fmt.Errorf("open enrolment: %w", space.ErrMalformed)
	}
	plain, err := c.aead(m, s).Open(nil, box[:n], box[n:], nil)
	if err != nil {
		return nil, fmt.Errorf("open enrolment: %w", space.ErrForged)
	}
	return plain, nil
}

func (c Code) aead(m Meeting, s Step) cipher.AEAD {
	k := space.Hash(space.LabelDeviceCode, []byte("key"), c.secret()[:])
	ctx := append(append([]byte(nil), m.ApproverNonce[:]...), m.NewNonce[:]...)
	for _, end := range [][]byte{m.ApproverEnd, m.NewEnd} {
		ctx = append(binary.BigEndian.AppendUint16(ctx, uint16(len(end))), end...)
	}
	a, err := chacha20poly1305.NewX(space.KDF(k[:], space.LabelDeviceSeal, append(ctx, byte(s)), 32))
	if err != nil {
		panic(fmt.Sprintf("identity: %v", err)) // the key is 32 bytes
	}
	return a
}

// Request is what a device asks to be enrolled as, with the proof that it
// holds the keys it names: the body of an add-device entry.
func (d Device) Request(c Commitment, caps Caps) ([]byte, error) {
	b := &deviceBody{Sig: d.ID(), KEM: d.KEMPublic(), DH: d.DH().PublicKey().Bytes(), Caps: caps}
	copy(b.Pop[:], space.Sign(d.Sig(), space.LabelDevicePop, popParts(c, b)...))
	return space.Marshal(b)
}

// RequestedBy is the device that a request would enrol.
func RequestedBy(request []byte) (DeviceID, error) {
	var b deviceBody
	if err := space.Unmarshal(request, &b); err != nil {
		return DeviceID{}, fmt.Errorf("device request: %w", err)
	}
	return b.Sig, nil
}

// Enrol makes the entries that take a device in and bring it the per-user key,
// and the state after them. caps is what the request must ask for.
func (s State) Enrol(rand io.Reader, by Key, request []byte, caps Caps, before PUK, nowMillis int64) (entries [][]byte, puk PUK, next State, err error) {
	var b deviceBody
	if err := space.Unmarshal(request, &b); err != nil {
		return nil, PUK{}, State{}, fmt.Errorf("device request: %w", err)
	}
	if b.Caps != caps {
		return nil, PUK{}, State{}, fmt.Errorf("device request: %w: it asks for other capabilities", space.ErrForbidden)
	}
	added, next, err := s.next(by, KindAddDevice, &b, nowMillis)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	rotated, puk, next, err := next.RotatePUK(rand, by, before, nowMillis)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	return [][]byte{added, rotated}, puk, next, nil
}
