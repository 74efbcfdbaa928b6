package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/kithnet/kith/internal/store"
)

// A set hash that went wrong, in memory or on disk, stays wrong: every change
// is added to what was there. So each space is folded again from what it stands
// for within a day, and where two replicas differ without a reason at once.
// What does not add up is an alarm, and is built anew.

const (
	refoldEvery = 19 * time.Hour   // jittered: within a day
	refoldLook  = 10 * time.Minute // how often is looked which spaces are due
	refoldGap   = 10 * time.Minute // between two of one space that differs
)

// refoldMeta is when a space was last folded again, in Unix milliseconds.
const refoldMeta = "refold"

// keepUp starts what looks after the store for as long as the node runs.
func (n *Node) keepUp() {
	n.wg.Go(func() { n.refolder(n.ctx) })
	if n.cfg.CompactAfter > 0 {
		n.wg.Go(func() { n.compactor(n.ctx) })
	}
}

// refolder folds spaces again, one after the other.
func (n *Node) refolder(ctx context.Context) {
	due := map[[32]byte]time.Time{}
	t := time.NewTimer(jitter(refoldLook))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.refolds:
		case <-t.C:
			t.Reset(jitter(refoldLook))
		}
		now := time.Now()
		all := n.all()
		maps.DeleteFunc(due, func(sid [32]byte, _ time.Time) bool { return n.bySpace(sid) == nil })
		for _, r := range all {
			if _, known := due[r.sid]; !known {
				due[r.sid] = r.refoldDue(now)
			}
			asked := r.differs.Load() && now.Sub(r.refolded()) >= refoldGap
			if !asked && now.Before(due[r.sid]) {
				continue
			}
			if err := n.refold(ctx, r.actor); err != nil && ctx.Err() == nil {
				n.log.Warn("fold a space again", "space", fingerprint(r.sid), "err", err)
			}
			due[r.sid] = now.Add(jitter(refoldEvery))
		}
	}
}

// refoldSoon asks for a space whose digest differs from another's although
// nothing is left to exchange.
func (n *Node) refoldSoon(a *actor) {
	a.differs.Store(true)
	select {
	case n.refolds <- struct{}{}:
	default:
	}
}

// refolded is when the space was last folded again; zero: never.
func (a *actor) refolded() time.Time {
	b, ok, err := a.store.Meta(refoldMeta)
	if err != nil || !ok || len(b) != 8 {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b)))
}

// refoldDue is when a space is to be folded again that this process has not
// folded. Those that never were are spread over the time, as if they had been.
func (a *actor) refoldDue(now time.Time) time.Time {
	last := a.refolded()
	if last.IsZero() || last.After(now) {
		return now.Add(rand.N(refoldEvery))
	}
	return last.Add(jitter(refoldEvery))
}

// refold compares what is kept of a space with what it stands for, and lets the
// actor build anew what does not fit. Only that stops the space's writes.
func (n *Node) refold(ctx context.Context, a *actor) error {
	a.differs.Store(false)
	n.stats.Refolds.Add(1)
	found, err := a.store.Audit(ctx, true)
	if err != nil {
		return fmt.Errorf("read the space: %w", err)
	}
	wrong := !found.OK()
	for author, r := range a.snapshot("") {
		if err := r.Check(); err != nil {
			a.log.Error("the records of an author do not add up in memory", "author", fingerprintOf(author), "err", err)
			wrong = true
		}
	}
	m := &refold{ctx: ctx, wrong: wrong, reply: make(chan error, 1)}
	err, sendErr := ask(ctx, a, m, m.reply)
	return errors.Join(err, sendErr)
}

// refold is the part of folding again that must see a space standing still.
type refold struct {
	ctx   context.Context
	wrong bool       // what was read beside it did not add up
	reply chan error // buffered
}

func (m *refold) handle(a *actor) {
	if a.broken != nil {
		m.reply <- a.broken
		return
	}
	err := a.refoldNow(m.ctx, m.wrong)
	if err == nil {
		at := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
		err = a.store.Commit(store.Remote, &store.Batch{Meta: map[string][]byte{refoldMeta: at}})
	}
	m.reply <- err
}

// refoldNow builds anew what does not add up. Damage to what came from others is
// cut off: they bring it again.
func (a *actor) refoldNow(ctx context.Context, wrong bool) error {
	memory, err := a.memoryFits()
	if err != nil {
		return err
	}
	if memory && !wrong {
		return nil
	}
	found, err := a.store.Repair(ctx)
	if err != nil {
		return err
	}
	if found.OK() && memory && !wrong {
		return nil // it moved while it was read
	}
	a.stats.Corrupt.Add(1)
	a.log.Error("what is kept of a space does not add up; it is built anew",
		"chains", len(found.Gaps), "topics", len(found.Topics), "repos", len(found.Repos)+found.Strays,
		"unreadable", found.Unreadable, "memory", !memory)
	a.endChain()
	err = a.rebuildAll(found)
	if err != nil {
		a.fail(err)
		return err
	}
	a.resume()
	a.checkDue = time.Now()
	return nil
}

// rebuildAll reads the space again, its content drawn anew if the store's part
// was wrong. What is lost puts it in doubt until a peer shows that all is back.
func (a *actor) rebuildAll(found *store.Audit) error {
	if !found.OK() {
		if err := a.store.DropContent(); err != nil {
			return err
		}
	}
	if len(found.Gaps)+found.Unreadable > 0 || found.ControlHave != found.ControlWant {
		if err := a.store.Commit(store.Own, &store.Batch{Meta: map[string][]byte{doubtMeta: {1}}}); err != nil {
			return err
		}
	}
	a.out.forgetTalks(a)
	return a.load()
}

// memoryFits compares the topics in memory with those on disk.
func (a *actor) memoryFits() (bool, error) {
	fits := true
	for _, e := range a.epochs {
		row, ok, err := a.store.TopicState(e.id)
		if err != nil && !errors.Is(err, store.ErrDamaged) {
			return false, err
		}
		state := e.topic.State()
		if err != nil || ok && (row.Count != e.topic.Count() || !row.State.Equal(&state)) || !ok && e.topic.Count() > 0 {
			fits = false
		}
	}
	for author, r := range a.repos {
		row, ok, err := a.store.Repo(author)
		if err != nil && !errors.Is(err, store.ErrDamaged) {
			return false, err
		}
		state := r.State()
		if err != nil || ok && (row.Count != r.Count() || !row.State.Equal(&state)) || !ok && r.Rev() != 0 {
			fits = false
		}
	}
	return fits, nil
}

// forgetTalks forgets what was agreed on about a space that was built anew.
func (n *Node) forgetTalks(a *actor) {
	for id := range a.epochs {
		n.talks.forget(id)
	}
}
