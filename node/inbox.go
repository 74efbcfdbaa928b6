package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
)

// message is what an actor's inbox carries; each kind is handled to its end
// before the next is looked at.
type message interface{ handle(*actor) }

// inboxSize bounds what waits for one space. Senders that may not block
// (gossip) drop instead.
const inboxSize = 1024

// inbox is what waits for one space. The goroutine that owns the space runs
// only while something does, or is due: of ten thousand spaces those that are
// quiet cost neither a stack nor a timer.
type inbox struct {
	mu      sync.Mutex    // guards what follows
	waits   []message     // nil: nothing
	room    chan struct{} // closed when something is taken; nil: nobody waits for room
	open    bool          // begin was called
	running bool          // the goroutine is there
	ending  bool
	timer   *time.Timer // wakes the space for what is due; nil: it never had to
}

// begin lets the space handle what waits, once it has resumed.
func (b *inbox) begin(a *actor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = true
	b.waits = slices.Insert(b.waits, 0, message(resumption{}))
	b.rouse(a)
}

// end has the space say what it owes and end; ended tells when it has.
func (b *inbox) end(a *actor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending = true
	b.rouse(a)
}

// rouse makes the owner's goroutine, if there is none. mu is held.
func (b *inbox) rouse(a *actor) {
	if b.open && !b.running {
		b.running = true
		go a.run()
	}
}

// put adds a message if there is room. Otherwise full is closed when there may
// be.
func (b *inbox) put(a *actor, m message) (full <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waits) >= inboxSize {
		if b.room == nil {
			b.room = make(chan struct{})
		}
		return b.room
	}
	b.waits = append(b.waits, m)
	b.rouse(a)
	return nil
}

// take is the next message, if there is one by now.
func (b *inbox) take() (message, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waits) == 0 {
		return nil, false
	}
	m := b.waits[0]
	b.waits[0] = nil
	if b.waits = b.waits[1:]; len(b.waits) == 0 {
		b.waits = nil
	}
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
	return m, true
}

// rest reports whether the owner may go: nothing waits. It is there again when
// something is put in, or when due has come; zero: nothing is due.
func (b *inbox) rest(a *actor, due time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waits) > 0 || b.ending {
		return false
	}
	b.running = false
	switch wait := max(0, time.Until(due)); {
	case due.IsZero(): // a timer that runs still wakes us once for nothing
	case b.timer == nil:
		b.timer = time.AfterFunc(wait, func() { b.wake(a) })
	default:
		b.timer.Reset(wait)
	}
	return true
}

// wake has the owner look what is due.
func (b *inbox) wake(a *actor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rouse(a)
}

// ends reports whether the space is to end, and stops its timer if so.
func (b *inbox) ends() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ending && b.timer != nil {
		b.timer.Stop()
	}
	return b.ending
}

// run handles what waits and what is due until nothing is left. When the space
// ends it says what is still owed, and stays what it was for who reads it.
func (a *actor) run() {
	a.heal()
	for !a.inbox.ends() {
		if now, due := time.Now(), a.due(); !due.IsZero() && !now.Before(due) {
			a.touchDown()
			a.tick(now) // does not wait for what comes in without end
		}
		if m, ok := a.take(); ok {
			switch m.(type) {
			case *runIn, *runGroup:
			default:
				a.touchDown()
			}
			a.heal()
			m.handle(a)
			continue
		}
		a.touchDown()
		if a.inbox.rest(a, a.due()) {
			return
		}
	}
	a.touchDown()
	a.tick(a.stmtDue) // a statement that is owed leaves with us
	a.endChain()
	close(a.ended)
}

// due is when the next thing is; zero: nothing is. Only the owner asks.
func (a *actor) due() (next time.Time) {
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	sooner(a.stmtDue)
	sooner(a.checkDue)
	sooner(a.verifyDue)
	for _, ch := range a.chains {
		sooner(ch.parked)
	}
	if a.broken != nil {
		sooner(time.Now().Add(healEvery))
	}
	return next
}

// take is the next message, if there is one by now.
func (a *actor) take() (message, bool) {
	if len(a.taken) == 0 {
		return a.inbox.take()
	}
	m := a.taken[0]
	a.taken = slices.Delete(a.taken, 0, 1)
	return m, true
}

// push gives back a message that was taken.
func (a *actor) push(m message) { a.taken = slices.Insert(a.taken, 0, m) }

// send puts m into the inbox and waits for room.
func (a *actor) send(ctx context.Context, m message) error {
	for {
		full := a.inbox.put(a, m)
		if full == nil {
			return nil
		}
		select {
		case <-full:
		case <-a.ended:
			return space.ErrUnavailable
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// offer puts m into the inbox if there is room.
func (a *actor) offer(m message) bool { return a.inbox.put(a, m) == nil }

// resumption is the first that a space handles.
type resumption struct{}

func (resumption) handle(a *actor) { a.resume() }
