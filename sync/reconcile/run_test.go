package reconcile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

type ended struct {
	res Result
	err error
}

// respond runs the responder as a node does: it reads the opening, makes the
// session and serves rounds until the stream ends.
func respond(ctx context.Context, w *world, m *memory, rw io.ReadWriter) <-chan ended {
	out := make(chan ended, 16)
	go func() {
		defer close(out)
		opening, err := ReadOpening(rw)
		if err != nil {
			out <- ended{err: err}
			return
		}
		cfg := m.config(w, Responder)
		cfg.Opening = opening
		s, err := New(cfg)
		for err == nil {
			var res Result
			res, err = Run(ctx, rw, s)
			out <- ended{res, err}
		}
	}()
	return out
}

// TestRun: both sides have megabytes for each other and the stream buffers
// nothing; then a second round on the same stream, then the end.
func TestRun(t *testing.T) {
	w := newWorld("run")
	one, two := w.newChain("one", 40, 60_000), w.newChain("two", 40, 60_000)
	more := w.newChain("more", 3, 100)
	a, b := w.newMemory().with(one, 40), w.newMemory().with(two, 40)
	a.log.grow(3, "")
	ca, cb := net.Pipe()
	answers := respond(t.Context(), w, b, cb)
	s := a.session(t, w, Initiator)
	ra, err := Run(t.Context(), ca, s)
	if err != nil {
		t.Fatal(err)
	}
	rb := <-answers
	if !ra.Equal || !rb.res.Equal || rb.err != nil || ra.Count != 80 || !maps.Equal(a.ids(), b.ids()) || a.log.head() != b.log.head() {
		t.Errorf("%+v, %+v", ra, rb)
	}
	if ra.PayloadBytes != rb.res.PayloadBytes || ra.MetaBytes != rb.res.MetaBytes || ra.MetaBytes > 10_000 {
		t.Errorf("bytes: %+v, %+v", ra, rb.res)
	}

	b.with(more, 3)
	ra, err = Run(t.Context(), ca, s)
	rb = <-answers
	if err != nil || !ra.Equal || !rb.res.Equal || ra.Received != 3 || ra.Rounds != 2 || rb.res.Rounds != 2 || ra.MetaBytes != rb.res.MetaBytes {
		t.Errorf("second round: %+v, %+v, %v", ra, rb, err)
	}
	if err := ca.Close(); err != nil {
		t.Fatal(err)
	}
	if rb = <-answers; !errors.Is(rb.err, io.EOF) {
		t.Errorf("after the end: %v", rb.err)
	}
}

// TestRunRefused: whoever is refused finds the stream ended.
func TestRunRefused(t *testing.T) {
	w := newWorld("refused")
	a, b := w.newMemory(), w.newMemory()
	cfg := a.config(w, Initiator)
	cfg.Keys = NewFetchKey(ed25519.NewKeyFromSeed(seed("stranger")))
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ca, cb := net.Pipe()
	answers := respond(t.Context(), w, b, cb)
	if _, err := Run(t.Context(), ca, s); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("refused side: %v", err)
	}
	if rb := <-answers; !errors.Is(rb.err, ErrAuth) || !errors.Is(rb.err, ErrPeer) {
		t.Errorf("refusing side: %v", rb.err)
	}
}

// TestRunSilence: a peer that says nothing is the caller's deadline to end,
// and is not blamed; one that does not read neither.
func TestRunSilence(t *testing.T) {
	w := newWorld("silence")
	one := w.newChain("one", 3, 100)
	for name, peer := range map[string]func(net.Conn){
		"says nothing": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"does nothing": func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			ca, cb := net.Pipe()
			defer cb.Close()
			go peer(cb)
			if err := ca.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			_, err := Run(t.Context(), ca, w.newMemory().with(one, 3).session(t, w, Initiator))
			if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrPeer) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRunCancelled(t *testing.T) {
	w := newWorld("cancel")
	ca, cb := net.Pipe()
	defer cb.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("shutting down")
	go func() {
		_, _ = ReadOpening(cb)
		cancel(reason)
	}()
	if _, err := Run(ctx, ca, w.newMemory().session(t, w, Initiator)); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	if _, err := ca.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("stream is still open: %v", err)
	}
}

// TestRunOwnFailure: an error while we serve ends the session on both sides.
func TestRunOwnFailure(t *testing.T) {
	w := newWorld("failure")
	one := w.newChain("one", 30, 60_000)
	a, b := w.newMemory().with(one, 30), w.newMemory()
	b.fail = errors.New("disk on fire")
	ca, cb := net.Pipe()
	answers := respond(t.Context(), w, b, cb)
	if _, err := Run(t.Context(), ca, a.session(t, w, Initiator)); err == nil || errors.Is(err, ErrPeer) {
		t.Errorf("the other side: %v", err)
	}
	if rb := <-answers; !errors.Is(rb.err, b.fail) || errors.Is(rb.err, ErrPeer) {
		t.Errorf("the failing side: %v", rb.err)
	}
}

// TestRunGarbage: what is no frame is the peer's fault.
func TestRunGarbage(t *testing.T) {
	w := newWorld("garbage")
	ca, cb := net.Pipe()
	go func() {
		_, _ = ReadOpening(cb)
		_, _ = cb.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	}()
	if _, err := Run(t.Context(), ca, w.newMemory().session(t, w, Initiator)); !errors.Is(err, ErrPeer) || !errors.Is(err, space.ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestReadOpening(t *testing.T) {
	w := newWorld("opening")
	opening := Challenge{Version: Version, Topic: w.topic, Nonce: [32]byte{1}}
	frame, err := AppendFrame(nil, opening)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(append(frame, "next"...))
	if got, err := ReadOpening(r); err != nil || got != opening || r.Len() != len("next") {
		t.Errorf("%+v, %v, %d left", got, err, r.Len())
	}
	served, err := AppendFrame(nil, Served{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadOpening(bytes.NewReader(served)); !errors.Is(err, ErrOrder) || !errors.Is(err, ErrPeer) {
		t.Errorf("another message: %v", err)
	}
	long := binary.BigEndian.AppendUint32(nil, 1<<31)
	if _, err := ReadOpening(bytes.NewReader(append(long, byte(KindChallenge)))); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("length: %v", err)
	}
	if _, err := ReadOpening(bytes.NewReader(nil)); !errors.Is(err, io.EOF) || errors.Is(err, ErrPeer) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := ReadOpening(bytes.NewReader(frame[:20])); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrPeer) {
		t.Errorf("cut: %v", err)
	}
}

// BenchmarkReconcile fills an empty replica with 10,000 entries of 256 bytes
// over an unbuffered pipe, checked and counted, in memory.
func BenchmarkReconcile(b *testing.B) {
	const chains, each = 4, 2_500
	w := newWorld("bench")
	from := w.newMemory()
	for i := range chains {
		from.with(w.newChain(string(rune('a'+i)), each, 256), each)
	}
	b.ReportAllocs()
	for b.Loop() {
		to := w.newMemory()
		ca, cb := net.Pipe()
		answers := respond(b.Context(), w, from, cb)
		res, err := Run(b.Context(), ca, to.session(b, w, Initiator))
		if err != nil || !res.Equal || res.Received != chains*each {
			b.Fatalf("%+v, %v", res, err)
		}
		<-answers
		_ = ca.Close()
		b.ReportMetric(float64(res.PayloadBytes+res.MetaBytes)/(chains*each), "wire-B/entry")
		b.ReportMetric(float64(res.MetaBytes)/(chains*each), "meta-B/entry")
	}
	b.ReportMetric(chains*each*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkEqual is one round of two equal replicas on an open stream.
func BenchmarkEqual(b *testing.B) {
	w := newWorld("bench equal")
	one := w.newChain("one", 10, 256)
	ca, cb := net.Pipe()
	answers := respond(b.Context(), w, w.newMemory().with(one, 10), cb)
	s := w.newMemory().with(one, 10).session(b, w, Initiator)
	b.ReportAllocs()
	for b.Loop() {
		res, err := Run(b.Context(), ca, s)
		if err != nil || !res.Equal {
			b.Fatalf("%+v, %v", res, err)
		}
		<-answers
		b.ReportMetric(float64(res.MetaBytes), "wire-B")
	}
	_ = ca.Close()
}

// blackhole takes runs and keeps none.
type blackhole struct{}

func (blackhole) Deliver(_ *envelope.Certificate, run []envelope.Envelope) (Delivered, error) {
	return Delivered{Refused: len(run)}, nil
}

// BenchmarkFrontier is a round that exchanges 10,000 chains twice and one run.
func BenchmarkFrontier(b *testing.B) {
	const chains = 10_000
	w := newWorld("bench frontier")
	from, to := w.newMemory(), w.newMemory()
	for i := range chains {
		c := w.newChain(string(rune('a'+i)), 1, 256)
		from.with(c, 1)
		if i > 0 {
			to.with(c, 1)
		}
	}
	cfg := to.config(w, Initiator)
	cfg.Sink = blackhole{}
	b.ReportAllocs()
	for b.Loop() {
		s, err := New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		ca, cb := net.Pipe()
		answers := respond(b.Context(), w, from, cb)
		res, err := Run(b.Context(), ca, s)
		if err != nil || res.Equal || res.Refused != 2 {
			b.Fatalf("%+v, %v", res, err)
		}
		<-answers
		_ = ca.Close()
		b.ReportMetric(float64(res.MetaBytes), "meta-B")
	}
}
