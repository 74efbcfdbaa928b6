package envelope

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kithnet/kith/space"
)

func encode(t testing.TB, f Frame) []byte {
	t.Helper()
	b, err := f.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// join concatenates without asking: what a forger sends.
func join(cert []byte, run ...Envelope) []byte {
	b := []byte{0, byte(len(cert))}
	b = append(b, cert...)
	for _, e := range run {
		b = append(b, e.Bytes()...)
	}
	return b
}

func TestFrame(t *testing.T) {
	iss := newIssuer(0x33)
	c := iss.chain(t, 0x55, 0x44).grow(t, 5)
	other := iss.chain(t, 0x55, 0x45).grow(t, 5)
	branch := c.fork(2).grow(t, 2, 'b')
	elsewhere := newIssuer(0x34).chain(t, 0x55, 0x44).grow(t, 2)
	cert := c.cert.Bytes()
	second := iss.certify(t, key(0x55), c.id, 2, 2_000_000_001).Bytes()
	ephemeral := c.build(t, Header{Type: Clear, Topic: c.top, Chain: c.id, Seq: 0}, 256, nil)
	full := iss.chain(t, 0x55, 0x46)
	full.add(t, Entry, MaxPadded)
	full.add(t, Entry, 1664) // 48 bytes over, and yet less than MaxFrame

	for _, f := range []struct {
		name string
		b    []byte
		n    int // envelopes
		want error
	}{
		{"hello alone", join(cert, c.run[0]), 1, nil},
		{"from the hello", join(cert, c.run...), 6, nil},
		{"one entry", join(nil, c.run[3]), 1, nil},
		{"a run", join(nil, c.run[1:4]...), 3, nil},
		{"spoilt signature", join(nil, spoil(t, c.run[3])), 1, nil},
		{"ephemeral", join(nil, ephemeral), 1, nil},
		{"nothing", nil, 0, space.ErrMalformed},
		{"one byte", []byte{0}, 0, space.ErrMalformed},
		{"no envelope", []byte{0, 0}, 0, space.ErrMalformed},
		{"certificate alone", join(cert), 0, space.ErrMalformed},
		{"certificate of 139 bytes", join(cert[:GrantSize], c.run[0]), 0, space.ErrMalformed},
		{"certificate cut", append([]byte{0, CertificateSize}, cert[:99]...), 0, space.ErrMalformed},
		{"hello without", join(nil, c.run[0]), 0, space.ErrMalformed},
		{"entry with", join(cert, c.run[1]), 0, space.ErrMalformed},
		{"ephemeral with", join(cert, ephemeral), 0, space.ErrMalformed},
		{"ephemeral in a run", join(nil, ephemeral, c.run[1]), 0, space.ErrMalformed},
		{"another good certificate", join(second, c.run[0]), 0, space.ErrForged},
		{"hole", join(nil, c.run[1], c.run[3]), 0, space.ErrMalformed},
		{"backwards", join(nil, c.run[2], c.run[1]), 0, space.ErrMalformed},
		{"twice", join(nil, c.run[1], c.run[1]), 0, space.ErrMalformed},
		{"two chains", join(nil, c.run[1], other.run[2]), 0, space.ErrMalformed},
		{"two topics", join(cert, c.run[0], elsewhere.run[1]), 0, space.ErrMalformed},
		{"re-linked", join(nil, c.run[1], c.run[2], c.run[3], branch.run[4]), 0, space.ErrForged},
		{"spoilt inside", join(nil, c.run[1], spoil(t, c.run[2]), c.run[3]), 0, space.ErrForged},
		{"cut inside", join(nil, c.run[1:3]...)[:2+472+471], 0, space.ErrMalformed},
		{"trailing byte", append(join(nil, c.run[1]), 0), 0, space.ErrMalformed},
		{"over 64 KiB", join(nil, full.run[1:]...), 0, space.ErrTooLarge},
		{"over MaxFrame", make([]byte, MaxFrame+1), 0, space.ErrTooLarge},
	} {
		got, err := ParseFrame(f.b)
		if !errors.Is(err, f.want) || len(got.Run) != f.n {
			t.Errorf("%s: %d envelopes, %v, want %d, %v", f.name, len(got.Run), err, f.n, f.want)
		}
		if err != nil {
			continue
		}
		if got.Topic() != c.top || got.Chain() != c.id || got.Last().ID() != got.Run[f.n-1].ID() {
			t.Errorf("%s: topic, chain or last envelope differs", f.name)
		}
		if !bytes.Equal(encode(t, got), f.b) {
			t.Errorf("%s: encodes differently", f.name)
		}
	}
}

func TestFrameAppendRefuses(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 3)
	big := newIssuer(0x33).chain(t, 0x55, 0x45)
	big.add(t, Entry, MaxPadded)
	big.add(t, Entry, 2048)
	for _, f := range []struct {
		name string
		f    Frame
		want error
	}{
		{"empty", Frame{}, space.ErrMalformed},
		{"hello without certificate", Frame{Run: c.run[:1]}, space.ErrMalformed},
		{"entry with certificate", Frame{Cert: &c.cert, Run: c.run[1:]}, space.ErrMalformed},
		{"hole", Frame{Run: []Envelope{c.run[1], c.run[3]}}, space.ErrMalformed},
		{"too large", Frame{Run: big.run[1:]}, space.ErrTooLarge},
	} {
		if _, err := f.f.AppendBinary(nil); !errors.Is(err, f.want) {
			t.Errorf("%s: %v, want %v", f.name, err, f.want)
		}
	}
}

func TestFrames(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 300)
	c.add(t, Entry, MaxPadded)
	frames := Frames(&c.cert, c.run)
	if len(frames) != 4 { // 138 envelopes of 472 bytes fill one
		t.Errorf("%d frames, want 4", len(frames))
	}
	topic := NewTopic(c.top)
	for _, f := range frames {
		b := encode(t, f)
		if len(b) > MaxFrame {
			t.Fatalf("frame of %d bytes", len(b))
		}
		parsed, err := ParseFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		accept(t, topic, parsed.Cert, parsed.Run)
	}
	if topic.Count() != 302 || topic.Digest() != naive(idsOf(c.run)) {
		t.Errorf("%d envelopes arrived, want 302", topic.Count())
	}
}

func TestFrameVerify(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 3)
	good, err := ParseFrame(encode(t, Frame{Cert: &c.cert, Run: c.run}))
	if err != nil {
		t.Fatal(err)
	}
	if good.Last().verified || !good.Verify() || !good.Last().verified || !good.Verify() {
		t.Error("a good signature is not remembered")
	}
	topic := NewTopic(c.top)
	accept(t, topic, good.Cert, good.Run)
	if got, _ := topic.Chain(c.id); got.Length != 4 {
		t.Errorf("%d entered", got.Length)
	}
	bad, err := ParseFrame(join(c.cert.Bytes(), c.run[0], c.run[1], spoil(t, c.run[2])))
	if err != nil {
		t.Fatal(err)
	}
	if bad.Verify() || bad.Last().verified {
		t.Error("a bad signature is remembered as good")
	}
	refuse(t, NewTopic(c.top), bad.Cert, bad.Run, space.ErrForged)
	// What is remembered is the last envelope's alone.
	refuse(t, NewTopic(c.top), good.Cert, append(good.Run[:3:3], spoil(t, c.run[3])), space.ErrForged)
}
