package node

import (
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// A writer that signs two envelopes for one place of a chain parts those who
// saw one from those who saw the other. What stands of such a chain is what
// stands below that place, whichever branch came first: the rest is taken back,
// with the records that were drawn from it, and the proof goes to everybody.
// What the log made final stays.

// Envelopes gives accepted envelopes, as a topic needs them to cut a chain back.
func (x ids) Envelopes(chain envelope.ChainID, from, to uint64) []envelope.Envelope {
	envs, err := x.store.Run(x.topic, chain, from, to, backlogMax)
	if err != nil {
		return nil
	}
	return envs
}

// finalOf is the envelope of a chain that the log made final.
func (a *actor) finalOf(chain envelope.ChainID) (envelope.Head, bool) {
	final, ok := a.ctl.Final(chain)
	return envelope.Head{Seq: final.Seq, ID: final.ID}, ok
}

// watch gives a topic what it asks of its space.
func (a *actor) watch(t *envelope.Topic) {
	t.SetIDs(ids{a.store, t.ID()})
	t.SetFinal(a.finalOf)
}

// prove takes the proof that a chain forked.
func (a *actor) prove(e *epoch, m *runIn) error {
	chain, at := m.fork.Chain(), m.fork.Seq()
	var below envelope.ID
	held := false
	if at > 0 {
		below, held = ids{a.store, e.id}.IDAt(chain, at-1)
	}
	adv, err := e.topic.Prove(*m.fork)
	if err != nil {
		return err
	}
	if err := a.rollback(e, adv, m.from); err != nil {
		return err
	}
	if held && (m.fork.A[0].Prev() != below || m.fork.B[0].Prev() != below) {
		a.out.settleFork(a, e.id, chain, m.from) // a branch parted from ours below
	}
	return nil
}

// leaves takes up a run that leaves its chain.
func (a *actor) leaves(e *epoch, adv envelope.Advance, m *runIn) error {
	chain := m.run[0].Chain()
	if !adv.IsZero() {
		if err := a.rollback(e, adv, m.from); err != nil {
			return err
		}
		if adv.Fork == nil {
			return nil
		}
		if _, same := adv.Fork.Parent(); same {
			return nil
		}
	}
	// Where the two branches part, or that ours is known to end before, has to
	// be traded.
	a.out.settleFork(a, e.id, chain, m.from)
	return nil
}

// rollback makes an advance so that cuts a chain back, marks it or takes its
// mark away.
func (a *actor) rollback(e *epoch, adv envelope.Advance, from peer.ID) error {
	if err := a.cutBack(e, adv); err != nil {
		a.fail(err)
		a.miss(from)
		return err
	}
	if adv.Fork != nil {
		a.out.publish(envelope.Frame{Fork: adv.Fork})
	}
	a.rebuildOwed()
	a.retry()
	a.release()
	a.flushOutbox()
	return nil
}

// cutBack makes the advance durable, with what it owes: a restart goes on from
// there.
func (a *actor) cutBack(e *epoch, adv envelope.Advance) error {
	c := a.begin()
	err := c.rollback(e, adv)
	var held []store.HeldRow
	if err == nil {
		held, err = a.takeBack(c, e, adv)
	}
	if err == nil {
		err = c.commit(store.Own)
	}
	if err != nil {
		return err
	}
	id := adv.Chain.ID
	a.mu.Lock()
	delete(a.ahead, id)
	a.unclaim(e.n)
	if held != nil {
		a.held.rows = held
	}
	if ch := a.chains[id]; ch != nil {
		if ch.reader = nil; adv.Chain.Length == 0 {
			delete(a.chains, id)
		}
	}
	a.mu.Unlock()
	if adv.Fork != nil {
		a.log.Warn("a chain forked: what stands of it ends below", "chain", id, "seq", adv.Chain.Fork, "author", c.lost)
	}
	return nil
}

// rollback stages the rows of such an advance.
func (c *change) rollback(e *epoch, adv envelope.Advance) error {
	c.moved = append(c.moved, move{e, adv})
	c.batch.Topic = &store.TopicRow{ID: e.id, Count: adv.Count, State: adv.State}
	row := &store.CutRow{Topic: e.id, Chain: adv.Chain}
	c.batch.Cut = row
	switch {
	case !adv.Chain.Forked:
		return nil
	case adv.Fork != nil:
		b, err := adv.Fork.AppendBinary(nil)
		row.Proof = b
		return err
	}
	proof, ok, err := c.a.store.Fork(e.id, adv.Chain.ID)
	if err == nil && !ok {
		err = fmt.Errorf("the proof of a fork is not here: %w", space.ErrUnavailable)
	}
	row.Proof = proof
	return err
}

// takeBack stages what a cut does to what was drawn from the chain: its author's
// records are to be drawn again, and what this device itself had written there
// it keeps to write again. It returns everything that is then held.
func (a *actor) takeBack(c *change, e *epoch, adv envelope.Advance) ([]store.HeldRow, error) {
	ch := a.chains[adv.Chain.ID]
	if !adv.Cut || ch == nil {
		return nil, nil
	}
	c.lost = ch.author
	own := ch.c == a.self.c && ch.device == a.self.device.ID()
	if own {
		a.endChain()
	}
	var held []store.HeldRow
	if own && a.stillWrites() {
		var err error
		if held, err = a.keepLost(c, e, ch, adv.Chain.Length); err != nil {
			return nil, err
		}
	}
	if ch.next > adv.Chain.Length {
		if ch.rev != 0 && ch.author != "" && !slices.Contains(a.recut, ch.author) {
			c.recut = append(c.recut, ch.author)
			c.owe(append(slices.Clone(a.recut), ch.author))
		}
		c.applied[ch] = position{}
	}
	return held, nil
}

// keepLost holds this device's batches that a chain loses from seq on, among
// what is held already: in the order in which they were written, for so they
// are sealed.
func (a *actor) keepLost(c *change, e *epoch, ch *chain, from uint64) ([]store.HeldRow, error) {
	head, ok := e.topic.Chain(ch.id)
	if !ok {
		return nil, nil
	}
	b := boundOf(a.ctl, &ch.position, e.n, ch.id)
	var all []space.Batch
	err := a.batches(ch, head, func(seq uint64, batch space.Batch) {
		counts := !b.Bounded || !b.None && seq <= b.Seq
		if seq >= from && counts && len(batch.Ops) > 0 {
			batch.Stmt = nil
			all = append(all, batch)
		}
	})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	for _, row := range a.held.rows {
		batch, err := space.DecodeBatch(row.Body)
		if err != nil {
			return nil, err
		}
		all = append(all, batch)
		c.batch.HeldDone = append(c.batch.HeldDone, row.Seq)
	}
	slices.SortStableFunc(all, func(x, y space.Batch) int {
		switch {
		case x.Rev < y.Rev:
			return -1
		case x.Rev > y.Rev:
			return 1
		}
		return 0
	})
	for _, batch := range all {
		if err := a.holdBatch(c, batch); err != nil {
			return nil, err
		}
	}
	return c.batch.Held, nil
}

// resolveForks looks at the chains again once the log made more of them final.
func (a *actor) resolveForks() {
	for _, e := range a.epochs {
		var look []envelope.ChainID
		for id := range e.topic.Forks() {
			look = append(look, id)
		}
		for head := range e.topic.Chains() {
			if final, ok := a.finalOf(head.ID); ok && final.Seq < head.Length && final != head.Head && !head.Forked {
				look = append(look, head.ID)
			}
		}
		for _, id := range look {
			adv, err := e.topic.Resolve(id)
			if err == nil && !adv.IsZero() {
				err = a.rollback(e, adv, "")
			}
			if err != nil {
				a.log.Error("settle a fork by the log", "chain", id, "err", err)
			}
		}
	}
}

// leftover judges runs that waited for a gap and turned out to leave the chain.
func (a *actor) leftover(c *change) {
	for _, m := range c.moved {
		for _, run := range m.adv.Left {
			if a.broken != nil {
				return
			}
			in := &runIn{topic: m.epoch.id, run: run}
			if _, err := a.ingest(in); err != nil && !errors.Is(err, envelope.ErrFork) {
				a.log.Debug("a run that waited", "chain", run[0].Chain(), "err", err)
			}
		}
	}
}
