package store

import (
	"math"
	"time"

	"github.com/kithnet/kith/space/envelope"
)

const (
	// readAhead is how many bytes of envelopes are read at once; at first fewer,
	// since somebody waits for them.
	readAhead = 1 << 20
	readFirst = readAhead / 4
	// cursorRest is how long a cursor that nobody asks keeps its snapshot: the
	// store can not heal meanwhile.
	cursorRest = time.Second
)

// Cursor reads the envelopes of a topic for somebody who sends them: chain after
// chain, each from some seq on. It reads on while what it gave is being sent. It
// is used by one goroutine at a time, and is to be closed. What was committed
// since it began with a chain it sees when it has come to the end of what it knew.
type Cursor struct {
	s      *Space
	topic  envelope.TopicID
	chain  envelope.ChainID
	next   uint64              // of chain: the first seq that was not given
	ahead  []envelope.Envelope // from next on
	coming *lookahead          // what follows them; nil: nothing is being read
}

// Cursor makes one. It holds nothing until it is asked.
func (s *Space) Cursor(topic envelope.TopicID) *Cursor { return &Cursor{s: s, topic: topic} }

// Run is Space.Run, of at most envelope.MaxRun envelopes.
func (c *Cursor) Run(chain envelope.ChainID, from, to uint64, maxBytes int) ([]envelope.Envelope, error) {
	if err := c.reach(chain, from, to, max(maxBytes, readFirst)); err != nil {
		c.Close()
		return nil, err
	}
	n := c.fits(to, maxBytes)
	for n == len(c.ahead) && n > 0 && n < envelope.MaxRun && c.ahead[n-1].Seq() < to && c.more() {
		n = c.fits(to, maxBytes)
	}
	run := c.ahead[:n:n]
	c.ahead, c.next = c.ahead[n:], c.next+uint64(n)
	return run, nil
}

// fits is how many of the envelopes ahead make a run.
func (c *Cursor) fits(to uint64, maxBytes int) (n int) {
	for size := 0; n < min(len(c.ahead), envelope.MaxRun) && c.ahead[n].Seq() <= to; n++ {
		if size += c.ahead[n].Len(); size > maxBytes && n > 0 {
			break
		}
	}
	return n
}

// more waits for envelopes behind those ahead; false: there are none, or why not
// shows when they are asked for again.
func (c *Cursor) more() bool {
	if c.coming == nil {
		return false
	}
	got := <-c.coming.chunks // closed at the end of what the snapshot has
	c.ahead = append(c.ahead[:len(c.ahead):len(c.ahead)], got...)
	return len(got) > 0
}

// reach makes ahead begin at a seq, if that is here.
func (c *Cursor) reach(chain envelope.ChainID, from, to uint64, maxBytes int) error {
	straight := c.chain == chain && c.next == from && from > 0
	if straight && (len(c.ahead) > 0 || c.more()) {
		return nil
	}
	c.Close()
	t := &trail{s: c.s, topic: c.topic, chain: chain, next: from}
	run, err := t.read(to, maxBytes)
	c.chain, c.next, c.ahead = chain, from, run
	if err == nil && len(run) > 0 && (straight || t.next <= to) {
		c.coming = &lookahead{chunks: make(chan []envelope.Envelope), stop: make(chan struct{})}
		go c.coming.read(t)
		return nil
	}
	t.rest()
	return err
}

// Close ends reading. The cursor can be asked again.
func (c *Cursor) Close() {
	if c.coming != nil {
		close(c.coming.stop)
	}
	c.coming, c.ahead, c.next = nil, nil, 0
}

// lookahead is a trail that is read, a chunk ahead, while what came of it before
// is used.
type lookahead struct {
	chunks chan []envelope.Envelope
	stop   chan struct{}
}

func (l *lookahead) read(t *trail) {
	defer close(l.chunks)
	defer t.rest()
	for size := 2 * readFirst; ; size = min(2*size, readAhead) {
		run, err := t.read(math.MaxUint64, size)
		if err != nil || len(run) == 0 {
			return
		}
		if t.s.store.Err() != nil { // it is not for us to hold up what heals it
			t.rest()
		}
		if !l.hand(t, run) {
			return
		}
	}
}

// hand waits until a chunk is wanted; false: it is not.
func (l *lookahead) hand(t *trail, chunk []envelope.Envelope) bool {
	idle := time.NewTimer(cursorRest)
	defer idle.Stop()
	for {
		select {
		case l.chunks <- chunk:
			return true
		case <-l.stop:
			return false
		case <-idle.C:
			t.rest()
		}
	}
}
