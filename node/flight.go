package node

import (
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space/envelope"
)

// To write a batch takes as long as to work out the next one. So while a chain
// is caught up with, the change that the next group of runs makes is built on
// top of the one that is being written. Nothing else is: whatever is no such
// group finds everything written and shown.

// flight is a change that is being written.
type flight struct {
	c       *change
	g       *runGroup
	written chan error // buffered
}

// takeOff begins to write what a group makes and returns while that goes on,
// having waited for the group before. False: nothing was done, the group is to be
// taken by itself when nothing is being written.
func (a *actor) takeOff(g *runGroup) bool {
	m := g.whole()
	if a.broken != nil || m.ahead == nil {
		return false
	}
	e, ch := a.epochs[m.topic], a.chains[m.run[0].Chain()]
	if e == nil || ch == nil || ch.epoch != e || ch.reader == nil || ch.author == a.self.did {
		return false
	}
	c := a.begin()
	var before *envelope.Advance
	if a.flight != nil {
		c.after = a.flight.c
		if before = &c.after.moved[0].adv; c.after.moved[0].epoch != e {
			return false
		}
	}
	adv, ok := e.topic.CheckNext(before, m.run, m.sum)
	if !ok {
		return false
	}
	c.advance(e, adv, m.sealed)
	ops := 0
	for i := range m.ahead {
		ops += len(m.ahead[i].batch.Ops)
	}
	if ops > 0 {
		c.room(ch.author, ops)
	}
	a.materialise(c, ch, adv.New, m.ahead)
	err := c.fill()
	a.touchDown()
	c.after = nil
	switch {
	case err != nil:
	case a.broken != nil:
		err = a.broken
	case c.ctl != nil || c.behind || c.finals || len(c.adopted)+len(c.recut) > 0:
		err = c.finish(store.Remote)
	default:
		a.flight = &flight{c: c, g: g, written: make(chan error, 1)}
		a.still.Lock()
		go func(written chan<- error) { written <- a.store.Commit(store.Remote, &c.batch) }(a.flight.written)
		a.draft(c)
		return true
	}
	a.landed(c, g, err)
	return true
}

// draft makes what a change that is being written will show, as far as that
// takes long.
func (a *actor) draft(c *change) {
	drafts := make([]func(), 0, len(c.staged))
	a.mu.Lock()
	for _, s := range c.staged {
		drafts = append(drafts, s.Draft())
	}
	a.mu.Unlock()
	for _, draft := range drafts {
		draft()
	}
}

// touchDown waits until what is being written is, and shows it.
func (a *actor) touchDown() {
	f := a.flight
	if f == nil {
		return
	}
	a.flight = nil
	err := diskError(<-f.written)
	if err == nil {
		f.c.show()
	}
	a.still.Unlock()
	a.landed(f.c, f.g, err)
}

// landed says what became of a group.
func (a *actor) landed(c *change, g *runGroup, err error) {
	var added []envelope.Envelope
	if err != nil {
		if a.broken == nil {
			a.fail(err)
		}
		a.miss(g.runs[0].from)
	} else {
		a.settle(c)
		added = c.moved[0].adv.New
	}
	for _, m := range g.runs {
		m.answer(added, err)
	}
	c.free()
	g.whole().free()
}
