package node

import (
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
)

// change gathers what one store batch makes true: accepted envelopes, the
// records they carry, control entries, the outbox. Until commit nothing of it
// is visible, and a change that is dropped never was.
type change struct {
	a     *actor
	after *change // being written, and shown before this one; nil: none
	batch store.Batch

	cert   *envelope.Certificate // of a chain of our own opened here
	sealed []envelope.Envelope   // our own new envelopes

	moved   []move
	staged  map[space.DID]*space.Staged
	rows    map[space.DID][]store.OpRow
	stmts   map[space.DID]word
	blobs   map[blobKey]space.Blob // of which the ops speak
	ctl     *control.State         // the control state after, if it moves
	adopted []*epoch               // whose keys came with the control entries
	recut   []space.DID            // authors of whom more is materialised than counts now
	lost    space.DID              // whose chain is cut back
	finals  bool                   // a control entry made more of the chains final
	behind  bool                   // a control entry came that does not fit yet
	early   *[][]byte              // control entries kept after it; nil: as before
	merged  bool                   // an older batch of a sibling device went into the own repo
	applied map[*chain]position
	owes    []outboxItem
	// unstated counts our own entries since our last statement.
	unstated int
}

type move struct {
	epoch *epoch
	adv   envelope.Advance
}

func (a *actor) begin() *change {
	return &change{
		a: a, staged: map[space.DID]*space.Staged{}, rows: map[space.DID][]store.OpRow{},
		stmts: map[space.DID]word{}, applied: map[*chain]position{}, unstated: a.unstated,
	}
}

// control is the control state that holds once the change is committed.
func (c *change) control() *control.State {
	if c.ctl != nil {
		return c.ctl
	}
	return c.a.ctl
}

// stage is the overlay on an author's repo.
func (c *change) stage(author space.DID) *space.Staged {
	s := c.staged[author]
	if s == nil {
		r := c.a.repos[author]
		if r == nil {
			r = &repo{Repo: space.NewRepo()}
			c.a.mu.Lock()
			c.a.repos[author] = r
			c.a.mu.Unlock()
		}
		if c.after != nil && c.after.staged[author] != nil {
			s = c.after.staged[author].Begin()
		} else {
			s = r.Begin()
		}
		c.staged[author] = s
	}
	return s
}

// room makes room for n ops of an author in a change that has none yet. Once it is
// shown and told, free gives back what it took.
func (c *change) room(author space.DID, n int) {
	c.stage(author).Grow(n)
	c.batch.Records = rowsOf[store.RecordRow](&recordRows, n)
	c.rows[author] = rowsOf[store.OpRow](&opRows, n)
}

func (c *change) free() {
	reuse(&recordRows, c.batch.Records)
	for _, rows := range c.rows {
		reuse(&opRows, rows)
	}
	c.batch.Records, c.batch.Ops, c.rows = nil, nil, nil
}

// apply stages the ops of one entry and the rows they make. The oplog is
// numbered here: what comes after a later batch, as from another device of the
// author, is served behind it, under the next rev.
func (c *change) apply(author space.DID, b space.Batch, stamp space.Stamp) {
	c.applyWith(nil, author, b, stamp)
}

// applyWith is apply where the rows of the batch's records may be sealed already.
func (c *change) applyWith(sealed []store.RecordRow, author space.DID, b space.Batch, stamp space.Stamp) {
	repo := c.stage(author)
	before, rev := repo.Rev(), b.Rev
	changes := repo.Apply(b, stamp)
	if len(changes) > 0 && rev <= before {
		rev = before + 1
		repo.Apply(space.Batch{Rev: rev}, stamp)
		c.merged = c.merged || author == c.a.self.did && stamp.Device != c.a.self.device.ID()
	}
	c.batch.Records = slices.Grow(c.batch.Records, len(changes))
	c.rows[author] = slices.Grow(c.rows[author], len(changes))
	if len(sealed) == len(changes) && len(sealed) == len(b.Ops) && len(sealed) > 0 && sealed[0].Author == author && sealed[0].Leaf.Stamp == stamp {
		c.batch.Records = append(c.batch.Records, sealed...)
	} else {
		for _, ch := range changes {
			c.batch.Records = append(c.batch.Records, recordRow(author, ch.Path, ch.New, ch.Stamp, ch.Value))
		}
	}
	for i, ch := range changes {
		c.rows[author] = append(c.rows[author], store.OpRow{Rev: rev, Idx: i, Path: ch.Path, CID: ch.New, Prev: ch.Old})
	}
	for i := range b.Ops {
		c.noteBlobs(author, &b.Ops[i])
	}
	if b.Stmt != nil && b.Rev >= c.word(author).rev {
		c.stmts[author] = word{b.Stmt, b.Rev}
	}
	if author == c.a.self.did && stamp.Device == c.a.self.device.ID() {
		if c.unstated++; b.Stmt != nil {
			c.unstated = 0
		}
	}
}

func recordRow(author space.DID, p space.Path, cid space.CID, stamp space.Stamp, value space.Record) store.RecordRow {
	return store.RecordRow{Author: author, Path: p, Leaf: space.Leaf{CID: cid, Stamp: stamp}, Value: value}
}

// advance adds newly accepted envelopes of one chain, once for a topic.
func (c *change) advance(e *epoch, adv envelope.Advance, sealed *store.SealedRun) {
	c.moved = append(c.moved, move{e, adv})
	c.batch.Run = &store.RunRow{Chain: adv.Chain, Envs: adv.New, Sealed: sealed}
	if len(adv.New) > 0 && adv.New[0].Seq() == 0 {
		c.batch.Run.Cert = adv.Chain.Cert.Bytes()
	}
	c.batch.Topic = &store.TopicRow{ID: e.id, Count: adv.Count, State: adv.State}
}

// fill completes the batch with what the change leads to.
func (c *change) fill() error {
	c.fillRepos()
	for ch, at := range c.applied {
		row, err := c.a.positionRow(ch, at)
		if err != nil {
			return fmt.Errorf("commit: position: %w", err)
		}
		c.batch.Applied = append(c.batch.Applied, row)
	}
	return nil
}

// commit makes the change durable as class asks and then visible.
func (c *change) commit(class store.Class) error {
	if err := c.fill(); err != nil {
		return err
	}
	return c.finish(class)
}

// finish is commit of a change that is filled.
func (c *change) finish(class store.Class) error {
	a := c.a
	if len(c.adopted) > 0 {
		// Keys first: an epoch in the log without its keys is a space that is
		// stuck, keys of an epoch that is not in the log are idle.
		if err := a.out.keepEpochs(a, nil, c.adopted...); err != nil {
			return diskError(err)
		}
	}
	if err := c.land(class); err != nil {
		return diskError(err)
	}
	if c.ctl != nil {
		a.turn(c.adopted)
		a.out.kinMoved(a.sid)
	}
	return nil
}

// land writes the batch and shows it. Between the two the store is ahead of
// what is in memory: who reads both waits.
func (c *change) land(class store.Class) error {
	c.a.still.Lock()
	defer c.a.still.Unlock()
	if err := c.a.store.Commit(class, &c.batch); err != nil {
		return err
	}
	c.show()
	return nil
}

// show makes what is durable visible.
func (c *change) show() {
	a := c.a
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range c.moved {
		m.epoch.topic.Commit(m.adv)
		if a.ahead[m.adv.Chain.ID] <= m.adv.Chain.Length {
			delete(a.ahead, m.adv.Chain.ID)
		}
	}
	if len(c.moved) > 0 && a.checkDue.IsZero() {
		a.checkDue = time.Now().Add(jitter(compareAfter))
	}
	if c.early != nil {
		a.early = *c.early
	}
	c.showBlobs()
	defer c.tell(a.ctl)
	for author, s := range c.staged {
		s.Commit()
		r := a.repos[author]
		r.ops += uint64(len(c.rows[author]))
		r.said = c.word(author)
		a.moved[author] = true
	}
	if len(c.staged) > 0 && a.verifyDue.IsZero() {
		a.verifyDue = time.Now().Add(jitter(verifyAfter))
	}
	if c.ctl != nil {
		a.ctl = c.ctl
	}
	for _, e := range c.adopted {
		a.hold(e)
	}
	a.recut = append(a.recut, c.recut...)
	if len(a.held.rows) == 0 {
		a.held.drawn = true
	}
	a.held.rows = append(a.held.rows, c.batch.Held...)
	a.held.next += uint64(len(c.batch.Held))
	if c.merged {
		a.unstated, a.stmtDue = max(a.unstated, 1), time.Now().Add(statementSilence)
	}
	if len(c.owes) > 0 {
		a.outbox.pending = append(a.outbox.pending, c.owes...)
		a.outbox.next += uint64(len(c.owes))
		a.outbox.done = nil
	}
	for ch, at := range c.applied {
		ch.position = at
		if r := a.repos[at.author]; r != nil {
			r.sure = max(r.sure, at.attribution)
		}
	}
}

// fillRepos adds the row and the oplog page of every repo that was staged.
func (c *change) fillRepos() {
	for author, s := range c.staged {
		ops := c.a.repos[author].ops
		if c.after != nil {
			ops += uint64(len(c.after.rows[author]))
		}
		s.Fold(inParallel)
		row := store.RepoRow{
			Author: author, Rev: s.Rev(), Count: s.Count(), State: s.State(),
			OpCount: ops + uint64(len(c.rows[author])), Stmt: c.word(author).Statement,
		}
		c.batch.Repos = append(c.batch.Repos, row)
		if len(c.rows[author]) > 0 {
			c.batch.Ops = append(c.batch.Ops, store.OpPage{Author: author, First: ops, Rows: c.rows[author]})
		}
	}
}
