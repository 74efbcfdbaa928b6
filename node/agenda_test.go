package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

func sameDelay(d time.Duration) time.Duration { return d }

func testAgenda(waiting int) *agenda {
	return newAgenda(budget{
		total: 6, perPeer: 4, unproven: 4, doubtful: 2, gap: time.Second,
		retry: 2 * time.Second, maxRetry: time.Minute, waiting: waiting, parties: 12,
	}, sameDelay)
}

func exchangeOf(space, p int) exchange {
	return exchange{space: [32]byte{byte(space), byte(space >> 8)}, peer: peer.ID(fmt.Sprint("peer ", p))}
}

// check holds an agenda against itself and its budget.
func (g *agenda) check(under map[exchange]bool) error {
	running, waits, doubted, unproved := 0, 0, 0, 0
	for id, y := range g.peers {
		n := 0
		for s, a := range y.all {
			if a.running != under[exchange{s, id}] {
				return fmt.Errorf("running is %v", a.running)
			}
			if a.running {
				n++
				if a.standing != proven {
					unproved++
				}
				if a.standing == doubtful {
					doubted++
				}
			}
			if a.running == (a.place >= 0) {
				return errors.New("neither running nor waiting, or both")
			}
		}
		if n != y.running || n > g.perPeer {
			return fmt.Errorf("%d run with a peer, noted %d", n, y.running)
		}
		running, waits = running+n, waits+len(y.due)
		if len(y.due) > 0 && !y.inTurn {
			return errors.New("something waits and has no turn")
		}
	}
	if running != g.running || running != len(under) || waits != g.waits || doubted != g.doubted || unproved != g.unproved {
		return fmt.Errorf("%d run, %d wait, %d doubted, %d unproved; noted %d, %d, %d, %d",
			running, waits, doubted, unproved, g.running, g.waits, g.doubted, g.unproved)
	}
	if running > g.total || doubted > g.doubtful || unproved > g.unproven ||
		waits > g.waiting+g.total { // what runs and goes on had its place
		return errors.New("over the budget")
	}
	return nil
}

// Whatever is asked for, and however sessions end: the budget holds, and what
// was wanted of peers that stay and answer is run.
func TestAgenda(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		g := testAgenda(rapid.SampledFrom([]int{5, 1000}).Draw(r, "waiting"))
		now := time.Unix(1e9, 0)
		under := map[exchange]bool{}
		owed := map[exchange]bool{} // wanted since it last began
		begin := func() {
			for {
				e, ok, wake := g.next(now)
				if !ok {
					if !wake.IsZero() && !wake.After(now) {
						r.Fatalf("wakes at %v, it is %v", wake, now)
					}
					return
				}
				if under[e] {
					r.Fatal("an exchange runs twice")
				}
				under[e] = true
				delete(owed, e)
			}
		}
		pick := func() (e exchange, ok bool) {
			if len(under) == 0 {
				return e, false
			}
			var all []exchange
			for x := range 40 {
				if e := exchangeOf(x%8, x/8); under[e] {
					all = append(all, e)
				}
			}
			return rapid.SampledFrom(all).Draw(r, "which"), true
		}
		r.Repeat(map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				if err := g.check(under); err != nil {
					r.Fatal(err)
				}
			},
			"want": func(r *rapid.T) {
				e := exchangeOf(rapid.IntRange(0, 7).Draw(r, "space"), rapid.IntRange(0, 4).Draw(r, "peer"))
				if g.want(e, now) {
					owed[e] = true
				}
				begin()
			},
			"done": func(r *rapid.T) {
				if e, ok := pick(); ok {
					how := ending(rapid.IntRange(0, int(wasRefused)).Draw(r, "how"))
					delete(under, e)
					g.done(e, how, now)
					begin()
				}
			},
			"leave": func(r *rapid.T) {
				p := rapid.IntRange(0, 4).Draw(r, "peer")
				g.leave(exchangeOf(0, p).peer)
				for s := range 8 {
					if e := exchangeOf(s, p); !under[e] {
						delete(owed, e)
					}
				}
				begin()
			},
			"welcome": func(r *rapid.T) { g.welcome(exchangeOf(0, rapid.IntRange(0, 4).Draw(r, "peer")).peer, now); begin() },
			"time": func(r *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 90_000).Draw(r, "ms")) * time.Millisecond)
				begin()
			},
		})
		// From here on everybody answers: what is owed is run.
		for range 10_000 {
			if e, ok := pick(); ok {
				delete(under, e)
				g.done(e, wentWell, now)
			} else {
				now = now.Add(time.Second)
			}
			begin()
			if len(owed) == 0 && len(under) == 0 && g.waits == 0 {
				return
			}
		}
		r.Fatalf("%d never run, %d wait", len(owed), g.waits)
	})
}

// A peer with a thousand spaces does not hold up one with one.
func TestAgendaTurns(t *testing.T) {
	g := testAgenda(10_000)
	now := time.Unix(1e9, 0)
	for s := range 1000 {
		g.want(exchangeOf(s, 1), now)
	}
	g.want(exchangeOf(0, 2), now)
	for i := range 3 {
		e, ok, _ := g.next(now)
		if ok && e.peer == exchangeOf(0, 2).peer {
			return
		}
		t.Logf("%d: %v %v", i, e.peer, ok)
	}
	t.Error("the second peer waits behind the first")
}

// One peer that answers gets its part of the places, and an exchange that
// failed is not repeated within the gap, whoever asks.
func TestAgendaShare(t *testing.T) {
	g := testAgenda(1000)
	now := time.Unix(1e9, 0)
	begin := func() (n int) {
		for _, ok, _ := g.next(now); ok; _, ok, _ = g.next(now) {
			n++
		}
		return n
	}
	for s := range 9 {
		g.want(exchangeOf(s, 1), now)
	}
	if n := begin(); n != 1 {
		t.Errorf("%d sessions with a stranger", n)
	}
	g.done(exchangeOf(0, 1), wentWell, now)
	if n := begin(); n != 4 {
		t.Errorf("%d sessions with one peer", n)
	}
	g = testAgenda(1000)
	g.want(exchangeOf(0, 1), now)
	begin()
	g.done(exchangeOf(0, 1), wentUnequal, now)
	g.want(exchangeOf(0, 1), now.Add(g.gap/2))
	if _, ok, wake := g.next(now.Add(g.gap / 2)); ok || !wake.Equal(now.Add(g.gap)) {
		t.Errorf("runs again: %v, wakes after %v", ok, wake.Sub(now))
	}
}

// Peers that failed share two places, one each; one of which nothing is known
// finds a place beside them, and one that answered finds more.
func TestAgendaDoubtful(t *testing.T) {
	g := testAgenda(1000)
	now := time.Unix(1e9, 0)
	for p := range 10 {
		e := exchangeOf(0, p)
		g.want(e, now)
		if got, ok, _ := g.next(now); !ok || got != e {
			t.Fatal("it does not run")
		}
		how := gotNothing
		if p == 9 {
			how = wentWell
		}
		g.done(e, how, now)
		g.want(exchangeOf(1, p), now)
	}
	if e, ok, _ := g.next(now); !ok || e != exchangeOf(1, 9) {
		t.Error("the one that answered waits")
	}
	now = now.Add(time.Minute)
	g.want(exchangeOf(5, 20), now)
	g.want(exchangeOf(2, 9), now)
	begun := map[peer.ID]int{}
	for {
		e, ok, _ := g.next(now)
		if !ok {
			break
		}
		begun[e.peer]++
	}
	if len(begun) != 4 || begun[exchangeOf(0, 20).peer] != 1 || begun[exchangeOf(0, 9).peer] != 1 {
		t.Errorf("begun %v", begun)
	}
	e := exchangeOf(0, 3)
	g.leave(e.peer)
	g.welcome(e.peer, now)
	if g.peers[e.peer].standing() != doubtful {
		t.Error("coming back is enough to be trusted")
	}
}

// A session on a connection from before fails when its peer has connected anew;
// that says nothing of the peer, and the next follows after the gap.
func TestAgendaConnectedAnew(t *testing.T) {
	g := testAgenda(1000)
	now := time.Unix(1e9, 0)
	e := exchangeOf(0, 0)
	for _, how := range []ending{gotNothing, wasRefused} {
		for _, anew := range []bool{false, true, true, false} {
			g.want(e, now)
			if _, ok, _ := g.next(now); !ok {
				t.Fatal("it does not run")
			}
			if anew {
				g.welcome(e.peer, now)
			}
			g.done(e, how, now)
			_, _, wake := g.next(now)
			if soon := wake.Sub(now) == g.gap; soon != anew {
				t.Errorf("ending %d, connected anew %t: the next after %v", how, anew, wake.Sub(now))
			}
			now = now.Add(time.Hour)
		}
	}
}

// An exchange that was asked for while its session ran, and ended unequal, is not
// put off as one in which nothing has changed.
func TestAgendaMovedMeanwhile(t *testing.T) {
	g := testAgenda(1000)
	now := time.Unix(1e9, 0)
	e := exchangeOf(0, 0)
	for _, moved := range []bool{false, false, true, false} {
		g.want(e, now)
		if _, ok, _ := g.next(now); !ok {
			t.Fatal("it does not run")
		}
		if moved {
			g.want(e, now)
		}
		g.done(e, wentUnequal, now)
		_, _, wake := g.next(now)
		if soon := wake.Sub(now) == g.gap; soon != moved {
			t.Errorf("moved meanwhile %t: the next after %v", moved, wake.Sub(now))
		}
		now = now.Add(time.Hour)
	}
}

// crowd is peers of all sorts, as a scheduler runs sessions with them.
type crowd struct {
	mu   sync.Mutex
	went map[peer.ID]traffic
	runs map[exchange]int
	lead func(context.Context, *crowd, exchange) error
}

func (c *crowd) moved(p peer.ID) traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.went[p]
}

func (c *crowd) move(p peer.ID, in uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.went[p]
	t.in += in
	c.went[p] = t
}

func (c *crowd) run(ctx context.Context, e exchange) error {
	c.mu.Lock()
	c.runs[e]++
	c.mu.Unlock()
	return c.lead(ctx, c, e)
}

func (c *crowd) ran(e exchange) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs[e]
}

func newCrowd(lead func(context.Context, *crowd, exchange) error) *crowd {
	return &crowd{went: map[peer.ID]traffic{}, runs: map[exchange]int{}, lead: lead}
}

// Two hundred peers connect at once, each with fifty spaces; half of them
// never answer, some trickle. Who answers is served in seconds, before and
// after, and mute ones are asked ever more rarely.
func TestReconnectStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers, spaces = 200, 50
		answers := func(p peer.ID) (n int) { fmt.Sscanf(string(p), "peer %d", &n); return n % 2 }
		c := newCrowd(func(ctx context.Context, c *crowd, e exchange) error {
			if answers(e.peer) == 0 {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			<-time.After(10 * time.Millisecond)
			c.move(e.peer, 500)
			return nil
		})
		s := newScheduler(c.run, c.moved)
		ctx, cancel := context.WithCancel(t.Context())
		s.start(ctx)
		honest := exchangeOf(0, 1)
		s.want(honest)
		synctest.Wait()
		<-time.After(time.Second)
		for p := range peers {
			for sp := range spaces {
				s.want(exchangeOf(sp, p))
			}
		}
		began := time.Now()
		synctest.Wait()
		for c.ran(honest) < 5 { // one that answered before keeps being served
			s.want(honest)
			<-time.After(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a proven peer waited %v", took)
		}
		<-time.After(5 * time.Minute)
		for p := 1; p < peers; p += 2 {
			for sp := range spaces {
				if e := exchangeOf(sp, p); c.ran(e) == 0 {
					t.Fatalf("space %d of peer %d was never asked for", sp, p)
				}
			}
		}
		mute := 0
		for p := 0; p < peers; p += 2 {
			for sp := range spaces {
				mute += c.ran(exchangeOf(sp, p))
			}
		}
		n := s.counters()
		t.Logf("%+v, %d sessions with mute peers", n, mute)
		if n.Stalled == 0 || mute > 5*60/20*12+12 {
			t.Errorf("%d sessions with mute peers", mute)
		}
		cancel()
		s.wait()
	})
}

// A peer that trickles has its time and goes to the end of the line; one that
// was cut off in the middle goes on at once, one that is refused later.
func TestSessionEndings(t *testing.T) {
	for name, c := range map[string]struct {
		lead func(context.Context, *crowd, exchange) error
		runs int // within 100 s
		want func(schedulerCounts) uint64
		left standing // of the peer
	}{
		"trickles": {func(ctx context.Context, c *crowd, e exchange) error {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			for ctx.Err() == nil {
				<-time.After(time.Second)
				c.move(e.peer, 100)
			}
			return ctx.Err()
		}, 4, func(n schedulerCounts) uint64 { return n.Slow }, unproven},
		"is cut off": {func(ctx context.Context, c *crowd, e exchange) error {
			<-time.After(time.Second)
			c.move(e.peer, 100_000)
			return errors.New("stream reset")
		}, 50, func(n schedulerCounts) uint64 { return n.Cut }, proven},
		"refuses": {func(ctx context.Context, c *crowd, e exchange) error {
			c.move(e.peer, 100)
			return errors.New("no such topic")
		}, 6, func(n schedulerCounts) uint64 { return n.Refused }, unproven},
		"is unequal": {func(ctx context.Context, c *crowd, e exchange) error {
			c.move(e.peer, 100)
			return fmt.Errorf("x: %w", errUnequal)
		}, 6, func(n schedulerCounts) uint64 { return n.Unequal }, proven},
		"is mute": {func(ctx context.Context, c *crowd, e exchange) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}, 4, func(n schedulerCounts) uint64 { return n.Stalled }, doubtful},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCrowd(c.lead)
				s := newScheduler(k.run, k.moved)
				ctx, cancel := context.WithCancel(t.Context())
				s.start(ctx)
				s.want(exchangeOf(1, 1))
				<-time.After(100 * time.Second)
				if got := k.ran(exchangeOf(1, 1)); got < c.runs-1 || got > c.runs+1 {
					t.Errorf("%d sessions, want %d", got, c.runs)
				}
				s.mu.Lock()
				left := s.agenda.peers["peer 1"].standing()
				s.mu.Unlock()
				if left != c.left {
					t.Errorf("the peer is left as %d, want %d", left, c.left)
				}
				if c.want(s.counters()) == 0 {
					t.Errorf("%+v", s.counters())
				}
				cancel()
				s.wait()
			})
		})
	}
}

// Nobody is asked before start, and nothing runs after the end.
func TestSchedulerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCrowd(func(ctx context.Context, _ *crowd, _ exchange) error { <-ctx.Done(); return context.Cause(ctx) })
		s := newScheduler(k.run, k.moved)
		s.want(exchangeOf(1, 1))
		<-time.After(time.Minute)
		if k.ran(exchangeOf(1, 1)) > 0 {
			t.Error("a session before the start")
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.start(ctx)
		synctest.Wait()
		cancel()
		s.wait()
		s.want(exchangeOf(2, 1))
		<-time.After(time.Minute)
		if k.ran(exchangeOf(1, 1)) != 1 || k.ran(exchangeOf(2, 1)) != 0 {
			t.Errorf("%d and %d sessions", k.ran(exchangeOf(1, 1)), k.ran(exchangeOf(2, 1)))
		}
	})
}
