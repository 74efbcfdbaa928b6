package store

import (
	"math"
	"time"

	"github.com/kithnet/kith/space/envelope"
)

const (
	// readAhead is how many bytes of envelopes are read at once.
	readAhead = 1 << 20
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
	if err := c.reach(chain, from, to, max(maxBytes, readAhead)); err != nil {
		c.Close()
		return nil, err
	}
	n, size := 0, 0
	for n < min(len(c.ahead), envelope.MaxRun) && c.ahead[n].Seq() <= to {
		if size += c.ahead[n].Len(); size > maxBytes && n > 0 {
			break
		}
		n++
	}
	run := c.ahead[:n:n]
	c.ahead, c.next = c.ahead[n:], c.next+uint64(n)
	return run, nil
}

// reach makes ahead begin at a seq, if that is here.
func (c *Cursor) reach(chain envelope.ChainID, from, to uint64, maxBytes int) error {
	straight := c.chain == chain && c.next == from && from > 0
	if straight && len(c.ahead) > 0 {
		return nil
	}
	if straight && c.coming != nil {
		got := <-c.coming.chunks // closed at the end of what the snapshot has
		c.ahead = got.run
		if got.err != nil || len(c.ahead) > 0 {
			return got.err
		}
	}
	c.Close()
	t := &trail{s: c.s, topic: c.topic, chain: chain, next: from}
	run, err := t.read(to, maxBytes)
	c.chain, c.next, c.ahead = chain, from, run
	if err == nil && len(run) > 0 && (straight || t.next <= to) {
		c.coming = &lookahead{chunks: make(chan chunk), stop: make(chan struct{})}
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
	chunks chan chunk
	stop   chan struct{}
}

type chunk struct {
	run []envelope.Envelope
	err error
}

func (l *lookahead) read(t *trail) {
	defer close(l.chunks)
	defer t.rest()
	for {
		run, err := t.read(math.MaxUint64, readAhead)
		if err == nil && len(run) == 0 {
			return
		}
		if t.s.store.Err() != nil { // it is not for us to hold up what heals it
			t.rest()
		}
		if !l.hand(t, chunk{run, err}) || err != nil {
			return
		}
	}
}

// hand waits until a chunk is wanted; false: it is not.
func (l *lookahead) hand(t *trail, c chunk) bool {
	idle := time.NewTimer(cursorRest)
	defer idle.Stop()
	for {
		select {
		case l.chunks <- c:
			return true
		case <-l.stop:
			return false
		case <-idle.C:
			t.rest()
		}
	}
}
