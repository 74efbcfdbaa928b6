package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Live drives a session for as long as its stream lives: any number of rounds,
// begun by either side. An authenticated stream is worth keeping: what a round
// of equal replicas costs on it is a beacon and an answer.
type Live struct {
	rw io.ReadWriter
	// moved is called when a round begins (true) and when it has ended, so that
	// the caller can set deadlines. It must not block.
	moved func(busy bool)
	// told is called with the outcome of each round, one at a time.
	told func(Result)

	mu    gate       // guards what follows; held while the replica takes what came
	wake  *sync.Cond // something changed
	s     *Session
	ended int // rounds whose outcome was told
	last  Result
	busy  bool
	err   error
}

// NewLive is a live stream that Run drives. moved and told may be nil.
func NewLive(rw io.ReadWriter, s *Session, moved func(busy bool), told func(Result)) *Live {
	l := &Live{rw: rw, s: s, moved: moved, told: told, mu: make(gate, 1)}
	if moved == nil {
		l.moved = func(bool) {}
	}
	if told == nil {
		l.told = func(Result) {}
	}
	l.wake = sync.NewCond(l.mu)
	return l
}

// gate is a lock that may be held for long. To wait for a channel counts as
// waiting in a bubble of testing/synctest, to wait for a mutex does not: time
// would stand still for a replica that needs some.
type gate chan struct{}

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

// Run returns when the stream has ended: io.EOF if the other side closed it
// between two rounds, then it is the caller's to close; else why, and Run has
// reset it, or closed it if it has no Reset.
func (l *Live) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })
	defer stop()
	defer l.s.End()
	l.mu.Lock()
	l.s.begin()
	l.shift()
	l.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(l.write)
	l.read()
	wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Lead begins a round, or joins the one that is under way, and waits for its
// outcome.
func (l *Live) Lead(ctx context.Context) (Result, error) {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.wake.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for target := 0; ; l.wake.Wait() {
		switch {
		case target > 0 && l.ended >= target:
			return l.last, nil
		case l.err != nil:
			return Result{}, l.err
		case ctx.Err() != nil:
			return Result{}, context.Cause(ctx)
		case target > 0:
		case l.ended > 0 && l.s.over() && l.s.res.Rounds == l.ended:
			if l.err = l.s.Lead(); l.err == nil {
				l.shift()
				l.wake.Broadcast()
			}
			target = l.ended + 1
		default:
			target = l.ended + 1
		}
		if l.err != nil {
			return Result{}, l.err
		}
	}
}

// Close ends the stream.
func (l *Live) Close() { l.fail(errClosed) }

var errClosed = errors.New("stream closed")

// shift tells when a round has begun or ended. mu is held.
func (l *Live) shift() {
	if busy := !l.s.over(); busy != l.busy {
		l.busy = busy
		l.moved(busy)
	}
}

// read feeds the session until the stream ends.
func (l *Live) read() {
	for {
		m, n, err := ReadFrame(l.rw)
		l.mu.Lock()
		for (err == nil || errors.Is(err, io.EOF)) && l.err == nil && l.s.over() && l.s.res.Rounds > l.ended {
			l.wake.Wait() // the outcome is still to be told
		}
		switch {
		case l.err != nil:
		case err != nil:
			l.err = err
			if errors.Is(err, io.EOF) && !l.s.over() {
				l.err = fmt.Errorf("stream ended in a round: %w", io.ErrUnexpectedEOF)
			}
		default:
			if l.err = l.s.consume(m); l.err == nil {
				l.s.weigh(m, n)
				l.shift()
			}
		}
		ended := l.err
		l.wake.Broadcast()
		l.mu.Unlock()
		if ended == nil {
			continue
		}
		if !errors.Is(ended, io.EOF) { // what was written last may still be under way
			abort(l.rw)
		}
		return
	}
}

// write writes what the session has to say and tells outcomes.
func (l *Live) write() {
	var buf []byte
	for {
		b, res, err := l.next(buf[:0])
		if err == nil && len(b) > 0 {
			_, err = l.rw.Write(b)
		}
		if err != nil {
			l.fail(fmt.Errorf("write: %w", err))
			return
		}
		if buf = b; res == nil {
			continue
		}
		l.told(*res)
		l.mu.Lock()
		l.ended, l.last = res.Rounds, *res
		l.wake.Broadcast()
		l.mu.Unlock()
	}
}

// next waits for frames to write, or for the end of a round of which
// everything has been written.
func (l *Live) next(buf []byte) ([]byte, *Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil {
		out, _, err := l.s.More()
		for _, m := range out {
			if err != nil {
				break
			}
			start := len(buf)
			if buf, err = AppendFrame(buf, m); err == nil {
				l.s.weigh(m, len(buf)-start)
			}
		}
		switch {
		case err != nil:
			l.err = err
		case len(buf) > 0:
			return buf, nil, nil
		case l.s.over() && l.s.res.Rounds > l.ended:
			l.shift()
			res := l.s.res
			return buf, &res, nil
		default:
			l.wake.Wait()
		}
	}
	return nil, nil, l.err
}

// fail keeps the first error and frees whoever waits.
func (l *Live) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.wake.Broadcast()
	l.mu.Unlock()
	abort(l.rw)
}
