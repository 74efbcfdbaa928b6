package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ReadOpening reads the first frame of an incoming stream, so that the
// responder can look up the topic and make its Session. Errors match ErrPeer
// unless reading failed.
func ReadOpening(r io.Reader) (Challenge, error) {
	m, _, err := readFrame(r, KindChallenge)
	if err != nil {
		return Challenge{}, err
	}
	return m.(Challenge), nil
}

// writeSize is how many bytes are gathered for one write.
const writeSize = 64 << 10

// Run drives one round of s over rw: the first, with challenge and
// authentication, or, called again, the next one. It returns when both sides
// have given their verdict, with the stream ready for another round. Deadlines
// are the caller's to set.
//
// When the round fails or ctx ends, Run resets the stream (or closes it, if it
// has no Reset). A Responder whose peer closes the stream between two rounds
// gets io.EOF. Run reads and writes at the same time: rw need not buffer.
func Run(ctx context.Context, rw io.ReadWriter, s *Session) (Result, error) {
	r := &runner{rw: rw, s: s, written: make(chan struct{})}
	r.wake = sync.NewCond(&r.mu)
	stop := context.AfterFunc(ctx, func() { r.fail(context.Cause(ctx)) })
	defer stop()
	rounds := s.res.Rounds
	s.begin()
	go r.write(rounds)
	r.read()
	if r.failed() == nil || abort(rw) {
		<-r.written
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		s.End()
	}
	return s.res, r.err
}

// runner shares a session between the goroutine that reads and the one that
// writes.
type runner struct {
	rw      io.ReadWriter
	written chan struct{} // closed when the writer has ended

	mu   sync.Mutex // guards what follows
	wake *sync.Cond // something to write, or an error
	s    *Session
	err  error
}

// read feeds the session until the round is over.
func (r *runner) read() {
	for {
		m, n, err := ReadFrame(r.rw)
		r.mu.Lock()
		switch {
		case err != nil && r.err == nil:
			r.err = r.ended(err)
		case r.err == nil:
			r.err = r.s.consume(m)
			r.s.weigh(m, n)
		}
		over := r.err != nil || r.s.over()
		r.wake.Signal()
		r.mu.Unlock()
		if over {
			return
		}
	}
}

// ended says what the end of the stream means at this point: between two
// rounds it is the end, within one it is a loss.
func (r *runner) ended(err error) error {
	if errors.Is(err, io.EOF) && !(r.s.phase == idle && r.s.res.Rounds > 0) {
		return fmt.Errorf("stream ended in a round: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// write writes what the session has to say until the round is over.
func (r *runner) write(rounds int) {
	defer close(r.written)
	var buf []byte
	for {
		out, done, err := r.next(rounds)
		if err != nil {
			r.fail(err)
			return
		}
		for i, m := range out {
			if buf, err = r.append(buf, m); err != nil {
				r.fail(err)
				return
			}
			if len(buf) < writeSize && i < len(out)-1 {
				continue
			}
			if _, err := r.rw.Write(buf); err != nil {
				r.fail(fmt.Errorf("write: %w", err))
				return
			}
			buf = buf[:0]
		}
		if done {
			return
		}
	}
}

// next waits for something to write.
func (r *runner) next(rounds int) (out []Msg, done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.err == nil {
		out, done, err = r.s.More()
		done = done && r.s.res.Rounds > rounds
		if len(out) > 0 || done || err != nil {
			return out, done, err
		}
		r.wake.Wait()
	}
	return nil, true, nil
}

func (r *runner) append(buf []byte, m Msg) ([]byte, error) {
	start := len(buf)
	buf, err := AppendFrame(buf, m)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.weigh(m, len(buf)-start)
	return buf, nil
}

// fail keeps the first error and frees whoever is blocked on the stream.
func (r *runner) fail(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.wake.Signal()
	r.mu.Unlock()
	abort(r.rw)
}

func (r *runner) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// weigh counts the bytes of a frame.
func (s *Session) weigh(m Msg, size int) {
	switch m.(type) {
	case Challenge, Auth:
		s.res.AuthBytes += int64(size)
	default:
		s.res.MetaBytes += int64(size - payload(m))
	}
}

// abort ends a stream for both sides and reports whether it could.
func abort(rw io.ReadWriter) bool {
	switch c := rw.(type) {
	case interface{ Reset() error }:
		return c.Reset() == nil
	case io.Closer:
		return c.Close() == nil
	default:
		return false
	}
}
