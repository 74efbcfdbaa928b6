package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kithnet/kith/space"
)

// still is a node that has nothing to say to a space, and counts who compares.
type still struct {
	outlet
	compared atomic.Int32
}

func (s *still) mend() error      { return nil }
func (s *still) compare([32]byte) { s.compared.Add(1) }

// quiet is an actor of no space whose owner is away.
func quiet() (*actor, *still) {
	out := &still{}
	a := &actor{out: out, ended: make(chan struct{})}
	a.inbox.open = true
	return a, out
}

func (b *inbox) owned() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running
}

// act is a message that does what it says.
type act func(*actor)

func (f act) handle(a *actor) { f(a) }

// TestInboxInTurn: many senders, with pauses in which the owner goes: nothing is
// lost, each sender's messages keep their order, and no two are handled at once.
func TestInboxInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := quiet()
		const senders, each = 16, 400
		last := [senders]int{}
		busy, handled := 0, 0
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for i := 1; i <= each; i++ {
					if i%97 == 0 {
						<-time.After(time.Duration(s) * time.Millisecond)
					}
					err := a.send(t.Context(), act(func(*actor) {
						if busy++; busy != 1 || last[s] != i-1 {
							t.Errorf("message %d of %d after %d, %d at once", i, s, last[s], busy)
						}
						last[s], handled, busy = i, handled+1, busy-1
					}))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if handled != senders*each || a.inbox.owned() {
			t.Errorf("%d of %d handled, owned: %t", handled, senders*each, a.inbox.owned())
		}
	})
}

// TestInboxFull: an offer to a busy space with a full inbox is refused, a send
// waits until something is taken, its context is done, or the space ends.
func TestInboxFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := quiet()
		gate := make(chan struct{})
		if !a.offer(act(func(*actor) { <-gate })) {
			t.Fatal("an empty inbox is full")
		}
		synctest.Wait()
		handled := 0
		for i := range inboxSize {
			if !a.offer(act(func(*actor) { handled++ })) {
				t.Fatalf("full after %d", i)
			}
		}
		if a.offer(act(func(*actor) {})) {
			t.Fatal("no end to an inbox")
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.send(short, act(func(*actor) {})); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("sent to a full inbox: %v", err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := a.send(t.Context(), act(func(*actor) { handled++ })); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		synctest.Wait()
		if handled != inboxSize+3 {
			t.Errorf("%d of %d handled", handled, inboxSize+3)
		}
	})
}

// TestInboxRest: the owner stays for what came in since it looked, and for the
// end.
func TestInboxRest(t *testing.T) {
	a, _ := quiet()
	a.inbox.open = false // nobody comes for it
	if a.offer(act(func(*actor) {})); a.inbox.rest(a, time.Time{}) {
		t.Error("the owner went while a message waited")
	}
	a, _ = quiet()
	a.inbox.open, a.inbox.running = false, true
	if a.inbox.end(a); a.inbox.rest(a, time.Time{}) {
		t.Error("the owner went before the end")
	}
	a, _ = quiet()
	a.inbox.running = true
	if !a.inbox.rest(a, time.Time{}) || a.inbox.owned() {
		t.Error("the owner stays for nothing")
	}
}

// TestInboxDue: what is due wakes a space whose owner went, once, also if it was
// put off or brought forward meanwhile.
func TestInboxDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, out := quiet()
		in := func(d time.Duration) {
			a.offer(act(func(a *actor) { a.checkDue = time.Now().Add(d) }))
			synctest.Wait()
		}
		after := func(d time.Duration, want int32) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			if got := out.compared.Load(); got != want || a.inbox.owned() {
				t.Errorf("after %v: %d times, want %d; owned: %t", d, got, want, a.inbox.owned())
			}
		}
		in(time.Hour)
		after(59*time.Minute, 0)
		after(time.Minute, 1)
		after(24*time.Hour, 1)
		in(time.Hour)
		in(time.Minute)
		after(time.Minute, 2)
		in(time.Minute)
		in(time.Hour)
		after(time.Minute, 2)
		after(time.Hour, 3)
		in(time.Minute)
		a.offer(act(func(a *actor) { a.checkDue = time.Time{} }))
		after(time.Hour, 3)
	})
}

// TestInboxBusyAndDue: what is due does not wait until a busy space is quiet.
func TestInboxBusyAndDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, out := quiet()
		var left atomic.Int32
		left.Store(100)
		var again act
		again = func(a *actor) {
			if left.Add(-1) > 0 {
				<-time.After(time.Second)
				a.offer(again)
			}
		}
		a.offer(act(func(a *actor) { a.checkDue = time.Now().Add(10 * time.Second) }))
		a.offer(again)
		<-time.After(12 * time.Second)
		if out.compared.Load() != 1 || left.Load() < 50 {
			t.Errorf("compared %d times with %d messages left", out.compared.Load(), left.Load())
		}
		<-time.After(time.Hour)
	})
}

// TestInboxEnds: a space that ends, busy or not, tells everybody who waits.
func TestInboxEnds(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := quiet()
				gate := make(chan struct{})
				if busy {
					a.offer(act(func(*actor) { <-gate }))
					synctest.Wait()
				}
				a.inbox.end(a)
				close(gate)
				<-a.ended
				reply := make(chan int)
				if _, err := ask(t.Context(), a, act(func(*actor) { t.Error("handled behind the end") }), reply); !errors.Is(err, space.ErrUnavailable) {
					t.Errorf("asked a space that ended: %v", err)
				}
				synctest.Wait()
			})
		})
	}
}
