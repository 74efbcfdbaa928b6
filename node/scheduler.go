package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// exchange names one reconciliation: a space with a peer.
type exchange struct {
	space [32]byte
	peer  peer.ID
}

const (
	// stallTime is how long a session may go without stallBytes moving between
	// the two nodes. Then its peer counts as mute, and the session ends.
	stallTime  = 20 * time.Second
	stallBytes = 1024
	// cutBytes moved mean that a session that broke was worth it: it goes on
	// at once. A relayed connection ends after two minutes or 128 KiB.
	cutBytes = 8 << 10
	// muteAfter is after how many sessions without an answer a peer is named.
	muteAfter = 3
)

var errStalled = errors.New("the peer stopped answering")

// scheduler runs what the agenda says. Asking is cheap and never blocks; what
// waits costs no goroutine.
type scheduler struct {
	run   func(context.Context, exchange) error
	moved func(peer.ID) traffic
	mute  func(peer.ID) // told of a peer that has not answered muteAfter times in a row; nil: nobody is
	wg    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	agenda *agenda
	timer  *time.Timer     // set: the agenda is looked at again
	ctx    context.Context // nil before start, done after stop
	counts schedulerCounts
}

// schedulerCounts count what became of sessions since the start. They only
// rise, but for Waiting and Running.
type schedulerCounts struct {
	Waiting, Running                           int    // now
	Ended, Unequal, Cut, Slow, Refused, Failed uint64 // sessions
	Stalled                                    uint64 // of Failed: the peer stopped answering
	Dropped                                    uint64 // exchanges not taken: too many waited
	Waited                                     uint64 // sessions that found no room when they were due
}

func newScheduler(run func(context.Context, exchange) error, moved func(peer.ID) traffic) *scheduler {
	return &scheduler{run: run, moved: moved, agenda: newAgenda(budget{
		total: 16, perPeer: 8, unproven: 12, doubtful: 4,
		gap: time.Second, retry: 2 * time.Second, maxRetry: time.Minute,
		waiting: 1 << 16, parties: 4096,
	}, jitter)}
}

// start lets sessions run until ctx is done.
func (s *scheduler) start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
	s.look()
}

// wait returns when no session runs any more; the context of start is done.
func (s *scheduler) wait() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// counters are what they are now.
func (s *scheduler) counters() schedulerCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Waiting, c.Running, c.Dropped, c.Waited = s.agenda.waits, s.agenda.running, s.agenda.dropped, s.agenda.waited
	return c
}

// want asks for a session as soon as the budget allows.
func (s *scheduler) want(e exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agenda.want(e, time.Now())
	s.look()
}

// welcome says that a peer has connected, and leave that it is gone.
func (s *scheduler) welcome(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agenda.welcome(p, time.Now())
	s.look()
}

func (s *scheduler) leave(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agenda.leave(p)
}

// look begins what may begin, and sets the timer for what may later. mu is
// held.
func (s *scheduler) look() {
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	for {
		e, ok, wake := s.agenda.next(time.Now())
		if ok {
			s.wg.Go(func() { s.session(e) })
			continue
		}
		if s.timer != nil {
			s.timer.Stop()
			s.timer = nil
		}
		if !wake.IsZero() {
			s.timer = time.AfterFunc(time.Until(wake), s.tick)
		}
		return
	}
}

func (s *scheduler) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
}

// session runs one exchange and notes how it ended.
func (s *scheduler) session(e exchange) {
	s.mu.Lock()
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.mu.Unlock()
	before := s.moved(e.peer)
	stop := s.watch(e.peer, before.sum(), cancel)
	err := s.run(ctx, e)
	stop()
	stalled := errors.Is(context.Cause(ctx), errStalled)
	cancel(nil)

	s.mu.Lock()
	defer s.mu.Unlock()
	how := wentWell
	switch {
	case err == nil:
		s.counts.Ended++
	case errors.Is(err, errUnequal):
		how = wentUnequal
		s.counts.Unequal++
	case errors.Is(err, context.DeadlineExceeded):
		how = tookLong
		s.counts.Slow++
	case !stalled && s.moved(e.peer).sum()-before.sum() >= cutBytes:
		how = wasCut
		s.counts.Cut++
	case !stalled && s.moved(e.peer).in > before.in:
		how = wasRefused
		s.counts.Refused++
	default:
		how = gotNothing
		s.counts.Failed++
		if stalled {
			s.counts.Stalled++
		}
	}
	if silent := s.agenda.done(e, how, time.Now()); how == gotNothing && silent == muteAfter && s.mute != nil {
		s.mute(e.peer)
	}
	s.look()
}

// watch ends a session through cancel when nothing moves any more.
func (s *scheduler) watch(p peer.ID, last uint64, cancel context.CancelCauseFunc) (stop func()) {
	var mu sync.Mutex // guards what follows
	var timer *time.Timer
	stopped := false
	check := func() {
		mu.Lock()
		defer mu.Unlock()
		now := s.moved(p).sum()
		if stopped {
			return
		}
		if now-last < stallBytes {
			cancel(errStalled)
			return
		}
		last = now
		timer.Reset(stallTime)
	}
	mu.Lock()
	timer = time.AfterFunc(stallTime, check)
	mu.Unlock()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// jitter spreads d over ±25 %, so that nodes that failed together do not
// return together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
