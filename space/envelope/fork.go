package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kithnet/kith/space"
)

// MaxFork is the most bytes that a proof of a fork has.
const MaxFork = CertificateSize + 4 + 2*MaxRunBytes

// ErrUnheld: a chain has to be cut back, and what it lost is not here to be
// taken out of the set hash.
var ErrUnheld = errors.New("envelopes of the chain are not here")

// ErrParted: authentic, but it follows another envelope than the one held at
// sequence At. Where the two branches part is not in it: it has to be asked
// for. It is an ErrFork.
type ErrParted struct{ At uint64 }

func (e ErrParted) Error() string {
	return fmt.Sprintf("chain has forked at sequence %d or below", e.At)
}

// Is makes it an ErrFork.
func (e ErrParted) Is(target error) bool { return target == ErrFork }

// Fork proves that the key of a chain vouches for two envelopes at one
// sequence: two runs that begin there, each up to the first envelope on which
// a good signature stands. The one whose first envelope has the lower id comes
// first, so two branches make one proof. Whoever knows the topic id can check
// it.
//
//	0      203  certificate of the chain
//	203    4    length of the first run
//	207    …    first run, then the second
type Fork struct {
	Cert Certificate
	A, B []Envelope
}

// newFork makes a proof of two runs that begin at one sequence, each with a
// good signature at its last envelope.
func newFork(cert Certificate, a, b []Envelope) Fork {
	f := Fork{Cert: cert, A: toSignature(a), B: toSignature(b)}
	if bytes.Compare(f.A[0].id[:], f.B[0].id[:]) > 0 {
		f.A, f.B = f.B, f.A
	}
	return f
}

// toSignature is the beginning of a covered run up to the first good signature.
func toSignature(run []Envelope) []Envelope {
	for i := range run {
		if run[i].verified || run[i].VerifySignature() {
			return run[: i+1 : i+1]
		}
	}
	return run
}

// Seq is the sequence at which the chain forked.
func (f *Fork) Seq() uint64 { return f.A[0].Seq() }

// Chain is the chain that forked.
func (f *Fork) Chain() ChainID { return f.A[0].Chain() }

// Topic is the topic of the chain.
func (f *Fork) Topic() TopicID { return f.A[0].Topic() }

// Parent is the envelope that both branches follow; false if they follow
// different ones, so that they parted below.
func (f *Fork) Parent() (ID, bool) { return f.A[0].Prev(), f.A[0].Prev() == f.B[0].Prev() }

// ParseFork checks the form of a proof, not its signatures. It keeps b.
func ParseFork(b []byte) (Fork, error) {
	f, err := parseFork(b)
	if err != nil {
		return Fork{}, fmt.Errorf("parse fork: %w", err)
	}
	return f, nil
}

func parseFork(b []byte) (f Fork, err error) {
	if len(b) > MaxFork {
		return f, fmt.Errorf("%w: %d bytes", space.ErrTooLarge, len(b))
	}
	if len(b) < CertificateSize+4 {
		return f, fmt.Errorf("%w: %d bytes", space.ErrMalformed, len(b))
	}
	if f.Cert, err = ParseCertificate(b[:CertificateSize]); err != nil {
		return f, err
	}
	n := binary.BigEndian.Uint32(b[CertificateSize:])
	if b = b[CertificateSize+4:]; uint64(n) > uint64(len(b)) {
		return f, fmt.Errorf("%w: run of %d bytes", space.ErrMalformed, n)
	}
	if f.A, err = ParseRun(b[:n:n]); err != nil {
		return f, err
	}
	if f.B, err = ParseRun(b[n:]); err != nil {
		return f, err
	}
	return f, f.form()
}

// form refuses two runs that prove nothing.
func (f *Fork) form() error {
	for _, run := range [][]Envelope{f.A, f.B} {
		if err := shape(run); err != nil {
			return err
		}
	}
	a, b := f.A[0], f.B[0]
	if a.Chain() != b.Chain() || a.Topic() != b.Topic() || a.Seq() != b.Seq() {
		return fmt.Errorf("%w: not two envelopes of one place", space.ErrMalformed)
	}
	if bytes.Compare(a.id[:], b.id[:]) >= 0 {
		return fmt.Errorf("%w: branches are not ascending", space.ErrMalformed)
	}
	return nil
}

// Verify refuses a proof that does not hold in a topic: the certificate is not
// the chain's, or a branch is not signed.
func (f *Fork) Verify(topic TopicID) error {
	if f.Topic() != topic {
		return fmt.Errorf("verify fork: %w: of another topic", space.ErrMalformed)
	}
	if err := f.Cert.Verify(topic, f.Chain()); err != nil {
		return fmt.Errorf("verify fork: %w", err)
	}
	for _, run := range [][]Envelope{f.A, f.B} {
		if err := signed(run); err != nil {
			return fmt.Errorf("verify fork: %w", err)
		}
		run[len(run)-1].verified = true
	}
	return nil
}

// Len is the length of its encoding.
func (f *Fork) Len() int { return CertificateSize + 4 + runBytes(f.A) + runBytes(f.B) }

// AppendBinary appends the proof's one encoding to b. It refuses what
// ParseFork would.
func (f *Fork) AppendBinary(b []byte) ([]byte, error) {
	if err := f.form(); err != nil {
		return nil, fmt.Errorf("append fork: %w", err)
	}
	b = append(b, f.Cert.raw[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(runBytes(f.A)))
	for _, run := range [][]Envelope{f.A, f.B} {
		for i := range run {
			b = append(b, run[i].raw...)
		}
	}
	return b, nil
}
