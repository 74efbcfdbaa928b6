package node

import (
	"container/heap"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// budget is what reconciliations may take together.
type budget struct {
	total    int           // sessions led at one time
	perPeer  int           // with one peer
	unproven int           // with peers of which none has succeeded yet, or not since one failed
	doubtful int           // with peers whose last one failed, one each
	gap      time.Duration // between two sessions of one exchange
	retry    time.Duration // pause after a session that failed, doubled by each
	maxRetry time.Duration // the longest
	waiting  int           // exchanges that may wait; what comes beyond is asked for again by the next round
	parties  int           // peers remembered for not answering that are gone
}

// agenda decides which exchange runs next. Peers take turns, so one with ten
// thousand spaces does not hold up one with a single space; those that do not
// answer share a few places, so that any number of them leaves room for the
// rest. It starts nothing and takes the time as an argument.
type agenda struct {
	budget
	jitter func(time.Duration) time.Duration

	peers    map[peer.ID]*party
	turn     []*party // those with something to do, in the order of their turns
	waits    int      // exchanges that wait, in all
	running  int
	unproved int    // of running: with unproven peers
	doubted  int    // of running: with doubtful ones
	dropped  uint64 // not taken: too many waited
	waited   uint64 // times that something was due and had no room
}

// party is a peer in the agenda. It is there while it has exchanges or faults.
type party struct {
	peer     peer.ID
	due      dueHeap // what waits
	all      map[[32]byte]*meeting
	running  int
	proven   bool
	failures int
	until    time.Time // of a doubtful one: no session before
	inTurn   bool
}

// meeting is an exchange in the agenda.
type meeting struct {
	space    [32]byte
	at       time.Time // due
	place    int       // in the heap; -1: not in it
	running  bool
	standing standing // of its party when it began
	again    bool     // asked for while running
	anew     bool     // the peer connected while running
	held     bool     // was due when there was no room
	failures int
	last     time.Time // end of the last session
}

// standing is how far a peer is trusted to answer.
type standing uint8

const (
	proven standing = iota
	unproven
	doubtful
)

func (p *party) standing() standing {
	switch {
	case p.failures > 0:
		return doubtful
	case !p.proven:
		return unproven
	}
	return proven
}

func newAgenda(b budget, jitter func(time.Duration) time.Duration) *agenda {
	return &agenda{budget: b, jitter: jitter, peers: map[peer.ID]*party{}}
}

func (g *agenda) party(p peer.ID) *party {
	y := g.peers[p]
	if y == nil {
		y = &party{peer: p, all: map[[32]byte]*meeting{}}
		g.peers[p] = y
	}
	return y
}

// want asks for a session as soon as the gap allows. It is false if too many
// wait.
func (g *agenda) want(e exchange, now time.Time) bool {
	y := g.party(e.peer)
	a := y.all[e.space]
	if a == nil {
		if g.waits >= g.waiting {
			g.dropped++
			g.forget(y)
			return false
		}
		a = &meeting{space: e.space, place: -1}
		y.all[e.space] = a
	}
	if a.running {
		a.again = true
		return true
	}
	at := now
	if soonest := a.last.Add(g.gap); !a.last.IsZero() && soonest.After(now) {
		at = soonest
	}
	g.put(y, a, at)
	return true
}

// put sets a meeting for a time, if it is not due sooner.
func (g *agenda) put(y *party, a *meeting, at time.Time) {
	switch {
	case a.place < 0:
		a.at = at
		heap.Push(&y.due, a)
		g.waits++
	case at.Before(a.at):
		a.at = at
		heap.Fix(&y.due, a.place)
	}
	if !y.inTurn {
		y.inTurn = true
		g.turn = append(g.turn, y)
	}
}

// welcome says that a peer has connected: it is tried once, whatever was, and
// whatever becomes of the sessions on a connection from before.
func (g *agenda) welcome(p peer.ID, now time.Time) {
	y := g.peers[p]
	if y == nil {
		return
	}
	if y.until.After(now) {
		y.until = now
	}
	for _, a := range y.all {
		a.anew = a.running
	}
}

// room reports whether a session with a party may begin now.
func (g *agenda) room(y *party) bool {
	if g.running >= g.total {
		return false
	}
	switch y.standing() {
	case doubtful:
		return y.running < 1 && g.doubted < g.doubtful && g.unproved < g.unproven
	case unproven:
		return y.running < max(1, g.perPeer/4) && g.unproved < g.unproven
	}
	return y.running < g.perPeer
}

// next begins the exchange whose turn it is. Without one, wake is when there
// may be one by the passing of time alone; zero: not before something ends or
// is asked for.
func (g *agenda) next(now time.Time) (e exchange, ok bool, wake time.Time) {
	for i := 0; i < len(g.turn); i++ {
		y := g.turn[i]
		if len(y.due) == 0 {
			y.inTurn = false
			g.turn = append(g.turn[:i], g.turn[i+1:]...)
			g.forget(y)
			i--
			continue
		}
		if !g.room(y) {
			if !y.due[0].at.After(now) && !y.due[0].held {
				y.due[0].held = true
				g.waited++
			}
			continue
		}
		at := y.due[0].at
		if y.until.After(at) {
			at = y.until
		}
		if at.After(now) {
			if wake.IsZero() || at.Before(wake) {
				wake = at
			}
			continue
		}
		g.turn = append(append(g.turn[:i], g.turn[i+1:]...), y) // the others come first
		return g.begin(y), true, time.Time{}
	}
	return exchange{}, false, wake
}

func (g *agenda) begin(y *party) exchange {
	a := heap.Pop(&y.due).(*meeting)
	a.running, a.held, a.standing = true, false, y.standing()
	y.running++
	g.waits--
	g.running++
	g.count(a.standing, 1)
	return exchange{a.space, y.peer}
}

func (g *agenda) count(s standing, n int) {
	if s != proven {
		g.unproved += n
	}
	if s == doubtful {
		g.doubted += n
	}
}

// ending is how a session ended.
type ending uint8

const (
	wentWell    ending = iota // equal, or nothing to do
	wentUnequal               // the peer answers, but this exchange needs time
	wasCut                    // it moved something and broke: it goes on
	tookLong                  // it had its time and was not done
	wasRefused                // the peer answers, and has nothing to say about this space
	gotNothing                // the peer does not answer
)

// done ends the session of an exchange. It tells how many sessions in a row the
// peer has not answered.
func (g *agenda) done(e exchange, how ending, now time.Time) (silent int) {
	y := g.peers[e.peer]
	a := y.all[e.space]
	y.running--
	g.running--
	g.count(a.standing, -1)
	a.running, a.last = false, now
	again, anew := a.again, a.anew
	a.again, a.anew = false, false
	switch how {
	case gotNothing, wasRefused:
		if anew { // of the connection before
			g.put(y, a, now.Add(g.gap))
			break
		}
		if a.failures++; how == gotNothing {
			y.failures++
			y.until = now.Add(g.pause(y.failures))
		}
		g.put(y, a, now.Add(g.pause(a.failures)))
	case wentUnequal:
		y.proven, y.failures = true, 0
		a.failures++
		if again { // what was compared is not what is here now
			g.put(y, a, now.Add(g.gap))
			break
		}
		g.put(y, a, now.Add(g.pause(a.failures)))
	case tookLong:
		y.proven, y.failures = false, 0
		g.put(y, a, now.Add(g.gap))
	case wasCut:
		y.proven, y.failures, a.failures = true, 0, 0
		g.put(y, a, now.Add(g.gap))
	case wentWell:
		y.proven, y.failures, a.failures = true, 0, 0
		if again {
			g.put(y, a, now.Add(g.gap))
		} else {
			delete(y.all, e.space)
		}
	}
	g.forget(y)
	return y.failures
}

// forget drops a party of which there is nothing to remember.
func (g *agenda) forget(y *party) {
	if len(y.all) == 0 && y.running == 0 && !y.inTurn && !y.proven && y.failures == 0 {
		delete(g.peers, y.peer)
	}
}

// leave drops what waits for a peer that is gone: when it connects again every
// space that it is known from is asked for.
func (g *agenda) leave(p peer.ID) {
	y := g.peers[p]
	if y == nil {
		return
	}
	for s, a := range y.all {
		if !a.running {
			delete(y.all, s)
		}
	}
	g.waits -= len(y.due)
	y.due = nil
	y.proven = false
	if len(g.peers) > g.parties {
		y.failures = 0
	}
	g.forget(y)
}

// pause is how long to wait after the n-th failure in a row.
func (g *agenda) pause(n int) time.Duration {
	return g.jitter(min(g.maxRetry, g.retry<<min(n-1, 10)))
}

// dueHeap has the meeting that is due first on top.
type dueHeap []*meeting

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *dueHeap) Push(x any) {
	a := x.(*meeting)
	a.place = len(*h)
	*h = append(*h, a)
}

func (h *dueHeap) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	a.place = -1
	return a
}
