package node

import (
	"context"
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
	exchangesAtOnce = 16              // sessions a node leads at one time
	exchangeGap     = time.Second     // between two sessions of one exchange
	retryBase       = 2 * time.Second // after a session that failed or ended unequal
	retryMax        = time.Minute
)

// scheduler decides when reconciliations run. Asking is cheap and never
// blocks: an exchange that is under way runs once more after it ends, one that
// just ran waits for its gap, one that failed comes back by itself with a
// jittered, growing delay. At most exchangesAtOnce run together, so neither a
// reconnect storm nor a mute peer stalls the rest.
type scheduler struct {
	run   func(context.Context, exchange) error
	slots chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex // guards what follows
	state map[exchange]*exchangeState
	ctx   context.Context // nil before start, done after stop
}

type exchangeState struct {
	timer    *time.Timer // set: due
	running  bool
	again    bool // asked for while running
	failures int
	last     time.Time // end of the last session
}

func newScheduler(run func(context.Context, exchange) error) *scheduler {
	return &scheduler{
		run: run, slots: make(chan struct{}, exchangesAtOnce), state: map[exchange]*exchangeState{},
	}
}

// start lets sessions run until ctx is done.
func (s *scheduler) start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
}

// wait returns when no session runs any more; the context of start is done.
func (s *scheduler) wait() {
	s.mu.Lock()
	for _, st := range s.state {
		if st.timer != nil {
			st.timer.Stop()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// want asks for a session as soon as the gap allows.
func (s *scheduler) want(e exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state[e]
	if st == nil {
		st = &exchangeState{}
		s.state[e] = st
	}
	if st.running {
		st.again = true
		return
	}
	s.arm(e, st, max(0, exchangeGap-time.Since(st.last)))
}

// arm sets the exchange's timer if it is not due sooner. mu is held.
func (s *scheduler) arm(e exchange, st *exchangeState, after time.Duration) {
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	if st.timer != nil && !st.timer.Stop() {
		return // it fired: begin is waiting for mu
	}
	st.timer = time.AfterFunc(after, func() { s.begin(e) })
}

func (s *scheduler) begin(e exchange) {
	s.mu.Lock()
	st := s.state[e]
	st.timer = nil
	if st.running || s.ctx.Err() != nil {
		s.mu.Unlock()
		return
	}
	st.running = true
	ctx := s.ctx
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()

	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	err := s.run(ctx, e)
	<-s.slots

	s.mu.Lock()
	defer s.mu.Unlock()
	st.running, st.last = false, time.Now()
	switch {
	case err != nil:
		st.failures++
		s.arm(e, st, jitter(min(retryMax, retryBase<<min(st.failures-1, 5))))
	case st.again:
		st.failures = 0
		s.arm(e, st, exchangeGap)
	default:
		delete(s.state, e)
	}
	st.again = false
}

// jitter spreads d over ±25 %, so that nodes that failed together do not
// return together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
