package node

import (
	"sync"
	"time"

	"github.com/kithnet/kith/space"
)

// sending is by way of which child space this node's person takes part in a
// space, beside what the roster gives. The zero sending is none.
type sending struct {
	via   [32]byte
	level space.Level // of this person in the child
}

// parentsEvery is how often a member asks for new parents of a space; a nudge
// is faster.
const parentsEvery = 5 * time.Minute

// kin is what a node remembers of the spaces around its own while it runs. The
// zero kin is ready.
type kin struct {
	mu    sync.Mutex             // guards what follows
	stirC chan struct{}          // a log moved; made when first needed, as lookC
	lookC chan struct{}          // parents are to be looked for
	moved map[[32]byte]bool      // spaces whose logs moved since the last round
	look  map[[32]byte]time.Time // when the parents of a space are to be asked for next
	tries map[[32]byte]entering  // parents that did not let us in yet
	heard map[[64]byte]time.Time // parent ‖ child -> when the child's descriptor last came
}

// entering is when a parent is tried next, and the pause after that.
type entering struct {
	next time.Time
	wait time.Duration
}

// stirs is signalled when a log moved.
func (k *kin) stirs() chan struct{} { return k.signal(&k.stirC) }

// looks is signalled when parents are to be looked for.
func (k *kin) looks() chan struct{} { return k.signal(&k.lookC) }

func (k *kin) signal(c *chan struct{}) chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if *c == nil {
		*c = make(chan struct{}, 1)
	}
	return *c
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// stir notes that a space's log moved.
func (k *kin) stir(sid [32]byte) {
	k.mu.Lock()
	if k.moved == nil {
		k.moved = map[[32]byte]bool{}
	}
	k.moved[sid] = true
	k.mu.Unlock()
	poke(k.stirs())
}

// stirred gives the spaces whose logs moved since it was last asked.
func (k *kin) stirred() map[[32]byte]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	moved := k.moved
	k.moved = nil
	return moved
}

// lookUp has the parents of a space asked for in the next round, which is now.
func (k *kin) lookUp(sid [32]byte) {
	k.mu.Lock()
	delete(k.look, sid)
	k.mu.Unlock()
	poke(k.looks())
}

// due reports whether the parents of a space are to be asked for, and puts off
// the next time.
func (k *kin) due(sid [32]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.look == nil {
		k.look = map[[32]byte]time.Time{}
	}
	if time.Now().Before(k.look[sid]) {
		return false
	}
	k.look[sid] = time.Now().Add(jitter(parentsEvery))
	return true
}

// mayEnter reports whether a parent is to be tried now.
func (k *kin) mayEnter(parent [32]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !time.Now().Before(k.tries[parent].next)
}

// notLetIn puts off the next try of a parent, each time longer. A child learns
// of a parent a moment before the parent's log does.
func (k *kin) notLetIn(parent [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tries == nil {
		k.tries = map[[32]byte]entering{}
	}
	wait := min(max(time.Second, 2*k.tries[parent].wait), time.Hour)
	k.tries[parent] = entering{time.Now().Add(wait), wait}
	time.AfterFunc(wait, func() { poke(k.looks()) })
}

// silent is since when nothing was heard of a child; it begins to count when
// it is first asked about.
func (k *kin) silent(parent, child [32]byte) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.heard == nil {
		k.heard = map[[64]byte]time.Time{}
	}
	p := betweenOf(parent, child)
	if _, ok := k.heard[p]; !ok {
		k.heard[p] = time.Now()
	}
	return k.heard[p]
}

func (k *kin) hear(parent, child [32]byte) {
	k.silent(parent, child)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard[betweenOf(parent, child)] = time.Now()
}

func betweenOf(parent, child [32]byte) [64]byte {
	return [64]byte(append(parent[:], child[:]...))
}
