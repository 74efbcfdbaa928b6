package envelope

import (
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
)

// MaxFrame is the most a gossip frame may be long: the length and the bytes of
// a certificate, and MaxSize bytes of envelopes.
const MaxFrame = 2 + CertificateSize + MaxSize

// Frame is what gossip carries: one run, behind its certificate if it begins
// the chain.
//
//	0    2  length of the certificate: 0, or 203 exactly if the run begins at 0
//	2    c  certificate
//	2+c  …  envelopes, consecutive and of one chain, at most MaxSize bytes
//
// An ephemeral envelope stands alone in its frame, without a certificate. A
// frame may also carry the proof of a fork, and nothing else:
//
//	0    2  65535
//	2    …  the proof, as Fork has it, at most MaxFrame-2 bytes
type Frame struct {
	Cert *Certificate
	Run  []Envelope
	Fork *Fork // set: the frame is a proof, and the others are not
}

// forkMark stands in a frame in the place of a certificate's length.
const forkMark = 0xffff

// ParseFrame checks the form of a frame: sizes, order, links, and that
// sequence 0 names the certificate. It checks no signature. It keeps b.
func ParseFrame(b []byte) (Frame, error) {
	if len(b) > MaxFrame {
		return Frame{}, fmt.Errorf("parse frame: %w: %d bytes", space.ErrTooLarge, len(b))
	}
	if len(b) < 2 {
		return Frame{}, fmt.Errorf("parse frame: %w: %d bytes", space.ErrMalformed, len(b))
	}
	var f Frame
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n == forkMark {
		fork, err := ParseFork(b)
		if err != nil {
			return Frame{}, fmt.Errorf("parse frame: %w", err)
		}
		return Frame{Fork: &fork}, nil
	}
	if n != 0 {
		if n != CertificateSize || len(b) < n {
			return Frame{}, fmt.Errorf("parse frame: %w: certificate of %d bytes", space.ErrMalformed, n)
		}
		c, err := ParseCertificate(b[:n])
		if err != nil {
			return Frame{}, fmt.Errorf("parse frame: %w", err)
		}
		f.Cert, b = &c, b[n:]
	}
	if len(b) > MaxSize {
		return Frame{}, fmt.Errorf("parse frame: %w: run of %d bytes", space.ErrTooLarge, len(b))
	}
	run, err := ParseRun(b)
	if err != nil {
		return Frame{}, fmt.Errorf("parse frame: %w", err)
	}
	f.Run = run
	if err := f.check(); err != nil {
		return Frame{}, fmt.Errorf("parse frame: %w", err)
	}
	return f, nil
}

// check refuses a certificate where none belongs, and the lack of one.
func (f Frame) check() error {
	first := f.Run[0]
	begins := first.Seq() == 0 && !first.Type().Ephemeral()
	if begins != (f.Cert != nil) {
		return fmt.Errorf("%w: a certificate goes with sequence 0 and nothing else", space.ErrMalformed)
	}
	if begins && first.Prev() != f.Cert.ID() {
		return fmt.Errorf("%w: sequence 0 names another certificate", space.ErrForged)
	}
	return nil
}

// Topic is the topic its run was made for.
func (f Frame) Topic() TopicID { return f.any()[0].Topic() }

// Chain is the chain its run claims to stand in.
func (f Frame) Chain() ChainID { return f.any()[0].Chain() }

func (f Frame) any() []Envelope {
	if f.Fork != nil {
		return f.Fork.A
	}
	return f.Run
}

// Last is the last envelope of its run: the one whose signature covers it. A
// proof has none.
func (f Frame) Last() Envelope { return f.Run[len(f.Run)-1] }

// Verify reports whether the signature that covers the run is good, or the
// proof holds, and remembers it if so: a Topic that gets this run does not check
// it again. It is for the one who holds the frame, before it is shared.
func (f Frame) Verify() bool {
	if f.Fork != nil {
		return f.Fork.Verify(f.Topic()) == nil
	}
	last := &f.Run[len(f.Run)-1]
	last.verified = last.verified || last.VerifySignature()
	return last.verified
}

// AppendBinary appends the frame's one encoding to b. It refuses what
// ParseFrame would.
func (f Frame) AppendBinary(b []byte) ([]byte, error) {
	if f.Fork != nil {
		if n := f.Fork.Len(); n > MaxFrame-2 {
			return nil, fmt.Errorf("append frame: %w: proof of %d bytes", space.ErrTooLarge, n)
		}
		return f.Fork.AppendBinary(append(b, 0xff, 0xff))
	}
	if err := linked(f.Run); err != nil {
		return nil, fmt.Errorf("append frame: %w", err)
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("append frame: %w", err)
	}
	if n := runBytes(f.Run); n > MaxSize {
		return nil, fmt.Errorf("append frame: %w: run of %d bytes", space.ErrTooLarge, n)
	}
	if f.Cert == nil {
		b = append(b, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint16(b, CertificateSize)
		b = append(b, f.Cert.raw[:]...)
	}
	for i := range f.Run {
		b = append(b, f.Run[i].raw...)
	}
	return b, nil
}

// Frames cuts a run into as few frames as carry it, the first behind cert if
// the run begins the chain. Each ends in an envelope of the writer's own, so
// it is for runs whose every signature is good: one's own.
func Frames(cert *Certificate, run []Envelope) []Frame {
	var out []Frame
	for len(run) > 0 {
		n, total := 1, run[0].Len()
		for n < len(run) && total+run[n].Len() <= MaxSize {
			total += run[n].Len()
			n++
		}
		f := Frame{Run: run[:n:n]}
		if run[0].Seq() == 0 {
			f.Cert = cert
		}
		out = append(out, f)
		run = run[n:]
	}
	return out
}
