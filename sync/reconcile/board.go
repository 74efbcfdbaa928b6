package reconcile

import (
	"slices"

	"github.com/kithnet/kith/space/envelope"
)

// Segment is how many sequences of a chain a segment has: number n is from
// n·Segment on. It is sealed when the chain goes on behind it or ends with it.
const Segment = 1024

// Bounds of a Board.
const (
	maxAhead   = 24 << 20  // bytes kept of segments whose turn has not come
	pieceGuess = 576 << 10 // bytes of a segment, until some have come
	maxClaims  = 8         // segments that one session asks for at once
)

// Board is where sessions about one topic, each with its peer, share out the
// sealed segments that the replica lacks: each is asked of one peer, as many of
// each peer as it is quick, and two at first of one that is alone, so that one
// comes while the next is read; and handed on in the order of the chain, whoever
// brought it. What comes before its turn waits here, within bounds, once it is
// known to be what the manifest names and signed by the chain: nobody can be
// blamed later. A session that has nothing left to claim asks for the segment
// that all wait for, though another may bring it: no silent peer is waited for.
// Nothing is kept when no session is left.
type Board struct {
	mu     gate // guards what follows and all that hangs on it; held while the replica takes runs
	chains map[envelope.ChainID]*cold
	ahead  int // bytes that wait
	claims int // segments asked for, of those whose turn has not come
}

// NewBoard is an empty one.
func NewBoard() *Board {
	return &Board{mu: make(gate, 1), chains: make(map[envelope.ChainID]*cold)}
}

// cold is a chain of which sealed segments are fetched.
type cold struct {
	chain  envelope.ChainID
	pieces []*piece // ascending, without a gap
	turn   int      // the first that is not handed on whole
	users  []*Session
	dead   bool // the replica takes nothing more of it
	bytes  int  // of those that were handed on
}

// piece is one segment, or what is lacking of it.
type piece struct {
	to     uint64
	head   envelope.ID // of the envelope at to
	next   uint64      // the first seq that was not handed on
	before envelope.ID // of the envelope before next; zero: unknown
	owner  *Session    // who asked for it
	wait   []Envelopes // that came before the piece's turn, from next on
	bytes  int         // of wait
	whole  bool        // wait reaches to
}

// attach makes s one of those that fetch the segments of a chain from the one
// with seq from on; heads are those its peer names. Nil: another peer named
// others.
func (b *Board) attach(s *Session, chain envelope.ChainID, from, size uint64, heads []envelope.ID) *cold {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.chains[chain]
	if c == nil {
		c = &cold{chain: chain}
	}
	number := from / size
	for i, head := range heads {
		p := &piece{to: (number+uint64(i)+1)*size - 1, head: head}
		p.next = max(from, p.to+1-size)
		at := c.place(p.to, size)
		switch {
		case at < 0: // handed on before
		case at < len(c.pieces) && c.pieces[at].head != head, at > len(c.pieces):
			return nil
		case at == len(c.pieces):
			if at > 0 {
				p.before = c.pieces[at-1].head
			}
			c.pieces = append(c.pieces, p)
		}
	}
	if len(c.pieces) == 0 {
		return nil
	}
	b.chains[chain] = c
	c.users = append(c.users, s)
	return c
}

// place is where the segment that ends at to stands among the pieces.
func (c *cold) place(to, size uint64) int {
	if len(c.pieces) == 0 {
		return 0
	}
	return (int(to) - int(c.pieces[0].to)) / int(size)
}

// budget reports whether one more segment may be asked for before its turn.
func (b *Board) budget(c *cold) bool {
	guess := pieceGuess
	if c.turn > 0 {
		guess = c.bytes / c.turn
	}
	return b.ahead+(b.claims+1)*guess <= maxAhead
}

// most is how many segments a session may have asked for at once, of whom so
// many came.
func (b *Board) most(chains []*cold, came int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.ContainsFunc(chains, func(c *cold) bool { return len(c.users) > 1 }) {
		came = max(1, came)
	}
	return min(maxClaims, 1+came)
}

// claim gives s the next segment to ask for. busy: it waits for others that it
// asked for. The range is what is lacking of it.
func (b *Board) claim(s *Session, chains []*cold, busy bool) (*cold, *piece, Range) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range chains {
		if c.dead {
			continue
		}
		for i := c.turn; i < len(c.pieces); i++ {
			p := c.pieces[i]
			if i > c.turn && !b.budget(c) {
				break
			}
			if p.owner == nil && !p.whole {
				p.owner = s
				if i > c.turn {
					b.claims++
				}
				return c, p, Range{Chain: c.chain, From: p.next, To: p.to}
			}
		}
	}
	for _, c := range chains {
		if p := c.first(); p != nil && !busy {
			return c, p, Range{Chain: c.chain, From: p.next, To: p.to}
		}
	}
	return nil, nil, Range{}
}

// first is the segment whose turn it is.
func (c *cold) first() *piece {
	if c.dead || c.turn == len(c.pieces) {
		return nil
	}
	return c.pieces[c.turn]
}

// link is what an envelope at seq of a segment has to follow, if it is known.
func (b *Board) link(p *piece, seq uint64) envelope.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.next == seq && len(p.wait) == 0 {
		return p.before
	}
	return envelope.ID{}
}

// take takes a run of a segment that s asked for, and hands on whatever has its
// turn. fresh is false if the run had come before.
func (b *Board) take(s *Session, c *cold, p *piece, m Envelopes, hand func(Envelopes) error) (fresh bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := m.Run[len(m.Run)-1]
	switch {
	case c.dead:
		return false, nil
	case c.first() != p:
		if p.owner != s || p.whole { // handed on, or given up
			return false, nil
		}
		size := payload(m)
		if b.ahead+size > 2*maxAhead { // segments larger than was guessed
			b.drop(c, p)
			return true, nil
		}
		p.wait = append(p.wait, m)
		p.bytes += size
		b.ahead += size
		if last.Seq() == p.to {
			p.whole, p.owner = true, nil
			b.claims--
		}
		return true, nil
	case last.Seq() < p.next, m.Run[0].Seq() > p.next:
		return false, nil
	}
	return true, b.hand(c, p, m, hand)
}

// hand hands on a run whose turn it is, and what waited for it.
func (b *Board) hand(c *cold, p *piece, m Envelopes, hand func(Envelopes) error) error {
	for runs := []Envelopes{m}; ; {
		for _, m := range runs {
			if err := hand(m); err != nil {
				return err
			}
			last := m.Run[len(m.Run)-1]
			p.next, p.before = last.Seq()+1, last.ID()
			c.bytes += payload(m)
		}
		if p.next <= p.to {
			return nil
		}
		p.owner = nil
		c.turn++
		if p = c.first(); p == nil {
			return nil
		}
		if p.owner != nil {
			b.claims--
		}
		b.ahead -= p.bytes
		runs, p.wait, p.bytes, p.whole = p.wait, nil, 0, false
	}
}

// drop gives up what came of a segment before its turn: it is asked for again.
func (b *Board) drop(c *cold, p *piece) {
	if i := slices.Index(c.pieces, p); i > c.turn && p.owner != nil {
		b.claims--
	}
	b.ahead -= p.bytes
	p.owner, p.wait, p.bytes, p.whole = nil, nil, 0, false
}

// kill ends fetching a chain of which the replica takes nothing more.
func (b *Board) kill(c *cold) {
	for _, p := range c.pieces[c.turn:] {
		b.drop(c, p)
	}
	c.dead = true
}

// end is kill.
func (b *Board) end(c *cold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kill(c)
}

// reach is the first seq of a chain that was not handed on; not ok: the replica
// takes nothing more of it.
func (b *Board) reach(c *cold) (seq uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := c.first(); p != nil {
		return p.next, true
	}
	return c.pieces[len(c.pieces)-1].to + 1, !c.dead
}

// leave takes s off the board: what it asked for is others' to ask for.
func (b *Board) leave(s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, c := range b.chains {
		i := slices.Index(c.users, s)
		if i < 0 {
			continue
		}
		for _, p := range c.pieces[c.turn:] {
			if p.owner == s && !p.whole {
				b.drop(c, p)
			}
		}
		if c.users = slices.Delete(c.users, i, i+1); len(c.users) == 0 {
			b.kill(c)
			delete(b.chains, id)
		}
	}
}
