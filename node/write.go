package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/xrpc"
)

// writeRequest asks for one batch of the owner's own writes.
type writeRequest struct {
	writes []xrpc.Write
	opts   xrpc.WriteOptions
	blobs  map[space.CID]space.Blob // to which the writes refer
	quota  [2]uint64                // of blobs: the owner's bytes, and all in the space
	reply  chan writeReply          // buffered
}

type writeReply struct {
	written xrpc.Written
	err     error
}

// groupMax bounds how many waiting requests share one store batch, and so one
// fsync.
const groupMax = 64

func (a *actor) write(ctx context.Context, m *writeRequest) (xrpc.Written, error) {
	m.reply = make(chan writeReply, 1)
	r, err := ask(ctx, a, m, m.reply)
	if err != nil {
		return xrpc.Written{}, err
	}
	return r.written, r.err
}

// handle takes the request and the write requests that wait right behind it
// as one group. Another message met on the way is handled after the group.
func (m *writeRequest) handle(a *actor) {
	group := []*writeRequest{m}
	var next message
	for next == nil && len(group) < groupMax {
		n, ok := a.take()
		if !ok {
			break
		}
		if w, ok := n.(*writeRequest); ok {
			group = append(group, w)
		} else {
			next = n
		}
	}
	if next != nil {
		a.push(next)
	}
	a.writeGroup(group)
}

// writeGroup seals each request that is valid as one entry and commits all of
// them in one batch. The answers are given once the batch is durable.
func (a *actor) writeGroup(group []*writeRequest) {
	if err := a.mayWrite(); err != nil {
		answerAll(group, err)
		return
	}
	c := a.begin()
	own := c.stage(a.self.did)
	replies := make([]writeReply, len(group))
	for i, m := range group {
		replies[i] = a.writeOne(c, own, m)
	}
	if err := a.commitWrites(c); err != nil {
		answerAll(group, err)
		return
	}
	for i, m := range group {
		m.reply <- replies[i]
	}
	a.flushOutbox()
}

// commitWrites makes a group durable: sealed, or held until it can be.
func (a *actor) commitWrites(c *change) error {
	if len(c.sealed) > 0 {
		return a.commitOwn(c)
	}
	if len(c.batch.Held) == 0 {
		return nil
	}
	err := c.commit(store.Own)
	if err != nil {
		a.fail(err)
	}
	return err
}

func answerAll(group []*writeRequest, err error) {
	for _, m := range group {
		m.reply <- writeReply{err: err}
	}
}

func (a *actor) mayWrite() error {
	if a.broken != nil {
		return fmt.Errorf("write to %s: %w", a.id, a.broken)
	}
	level, ok := a.standing(a.ctl)
	switch {
	case a.ctl.Deleted:
		return fmt.Errorf("write to %s: %w", a.id, space.ErrSpaceDeleted)
	case !ok:
		return fmt.Errorf("write to %s: %w", a.id, space.ErrSpaceNotFound)
	case a.proof != nil:
		return fmt.Errorf("write to %s: %w", a.id, space.ErrFrozen)
	case !a.writes():
		return fmt.Errorf("write to %s at level %s: %w", a.id, level, space.ErrForbidden)
	case a.now == nil:
		return fmt.Errorf("write to %s: no epoch yet: %w", a.id, space.ErrUnavailable)
	}
	return nil
}

// writeOne plans one request against the staged repo and seals it.
func (a *actor) writeOne(c *change, own *space.Staged, m *writeRequest) writeReply {
	rev := space.NextTID(time.Now().UnixMicro(), a.self.clock, own.Rev())
	p := plan{id: a.id, author: a.self.did, repo: own, rev: rev, ahead: make(map[space.Path]space.CID, len(m.writes))}
	ops, err := p.ops(m.writes, m.opts)
	if err != nil {
		return writeReply{err: err}
	}
	if len(ops) == 0 {
		return writeReply{written: xrpc.Written{Records: p.refs}}
	}
	if err := a.attachBlobs(ops, m.blobs, m.quota[0], m.quota[1]); err != nil {
		return writeReply{err: err}
	}
	b := space.Batch{Rev: rev, Ops: ops}
	if a.canSeal() {
		err = a.sealBatch(c, b, c.unstated+1 >= statementEvery)
	} else {
		err = a.holdBatch(c, b)
	}
	if err != nil {
		return writeReply{err: err}
	}
	return writeReply{written: xrpc.Written{Rev: rev, Records: p.refs}}
}

// plan turns writes into the ops of one batch: at most one op for each path,
// in the order of its last write. It changes nothing.
type plan struct {
	id     space.ID
	author space.DID
	repo   interface {
		Leaf(space.Path) (space.Leaf, bool)
		Rev() space.TID
	}
	rev   space.TID
	ahead map[space.Path]space.CID // what earlier writes of this batch left
	refs  []xrpc.RecordRef
	drawn int
}

func (p *plan) ops(writes []xrpc.Write, o xrpc.WriteOptions) ([]space.Op, error) {
	if o.SwapCommit != nil {
		have := ""
		if r := p.repo.Rev(); r != 0 {
			have = r.String()
		}
		if have != *o.SwapCommit {
			return nil, fmt.Errorf("swapCommit %q, the repo is at %q: %w", *o.SwapCommit, have, space.ErrSwap)
		}
	}
	ops := make([]space.Op, 0, len(writes))
	p.refs = make([]xrpc.RecordRef, 0, len(writes))
	for i, w := range writes {
		var err error
		if ops, err = p.add(ops, w); err != nil {
			return nil, fmt.Errorf("write %d: %w", i, err)
		}
	}
	return ops, nil
}

// add puts the op of a write behind ops. An earlier op on its path is dropped,
// and both are where the record was absent before the batch and is so after it.
func (p *plan) add(ops []space.Op, w xrpc.Write) ([]space.Op, error) {
	if w.Path.Key == "" {
		// Drawn keys of one batch follow each other from its rev on.
		w.Path.Key = space.RecordKey(space.TID(uint64(p.rev) + uint64(p.drawn)<<10).String())
		p.drawn++
	}
	uri := space.URI{Space: p.id, Author: p.author, Path: w.Path}
	leaf, _ := p.repo.Leaf(w.Path)
	have, again := p.ahead[w.Path]
	if !again {
		have = leaf.CID
	}
	live := !have.IsZero()
	switch {
	case w.Swap != nil && !live:
		return nil, fmt.Errorf("swapRecord of %s: %w", w.Path, space.ErrRecordNotFound)
	case w.Swap != nil && *w.Swap != have:
		return nil, fmt.Errorf("swapRecord of %s names %s, the record is %s: %w", w.Path, w.Swap, have, space.ErrSwap)
	case w.Action == xrpc.ActionCreate && live:
		return nil, fmt.Errorf("%s: %w", uri, space.ErrRecordExists)
	case w.Action == xrpc.ActionUpdate && !live, w.Action == xrpc.ActionDelete && !live && !w.IfExists:
		return nil, fmt.Errorf("%s: %w", uri, space.ErrRecordNotFound)
	}
	op := space.Op{Path: w.Path, Prev: leaf.CID}
	if w.Action != xrpc.ActionDelete {
		op.Value, op.Sum = w.Value, w.Value.CID()
	}
	p.ahead[w.Path] = op.Sum
	p.refs = append(p.refs, xrpc.RecordRef{URI: uri, CID: op.Sum})
	if again {
		ops = slices.DeleteFunc(ops, func(o space.Op) bool { return o.Path == w.Path })
	}
	if op.Value == nil && leaf.CID.IsZero() {
		return ops, nil
	}
	return append(ops, op), nil
}

// sealBatch makes b an entry of this device's chain and stages what it does.
// A chain is opened at the first entry: its hello goes in front.
func (a *actor) sealBatch(c *change, b space.Batch, withStatement bool) error {
	if err := a.openChain(c); err != nil {
		return err
	}
	if withStatement {
		// The statement is about the repo as this very batch leaves it.
		count, hash := c.stage(a.self.did).Preview(b.Ops)
		s, err := a.statement(count, hash, b.Rev)
		if err != nil {
			return err
		}
		b.Stmt = s
	}
	body, err := b.Encode()
	if err != nil {
		return err
	}
	envs, err := a.writer.Seal(rand.Reader, envelope.Entry, body)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	c.sealed = append(c.sealed, envs...)
	c.apply(a.self.did, b, space.Stamp{Rev: b.Rev, Device: a.self.device.ID(), Entry: envs[len(envs)-1].ID()})
	return nil
}

// commitOwn makes the sealed entries durable, with everything they changed.
func (a *actor) commitOwn(c *change) error {
	adv, err := a.now.topic.Check(c.cert, c.sealed)
	if err != nil {
		a.fail(err)
		return fmt.Errorf("extend own chain: %w", err)
	}
	c.advance(a.now, adv, nil)
	a.ownChain(c, adv.Chain)
	c.toOutbox(a.now, c.sealed)
	if err := c.commit(store.Own); err != nil {
		a.fail(err)
		return err
	}
	a.afterOwn(c)
	a.leftover(c)
	return nil
}

// ownChain keeps the position of our own chain at its end: what we wrote is
// staged as it is sealed. A peer may have to bring an end that a damaged disk
// lost, so a reader can go on from there.
func (a *actor) ownChain(c *change, head envelope.Chain) {
	ch := a.chainOf(a.now, head)
	via := ch.via
	if ch.next == 0 {
		via = a.now.cred.Via
	}
	c.applied[ch] = position{
		next: head.Length, reader: a.ownReader(head.Length, via), via: via,
		author: a.self.did, c: a.self.c, device: a.self.device.ID(),
		rev: c.stage(a.self.did).Rev(), attribution: verified,
	}
}

// afterOwn keeps count of what has to be stated.
func (a *actor) afterOwn(c *change) {
	a.unstated, a.stmtDue = c.unstated, time.Time{}
	if c.unstated > 0 {
		a.stmtDue = time.Now().Add(statementSilence)
	}
}

// state says in an entry without ops what the own repo is now, so that any
// member's node can serve a commit for it.
func (a *actor) state() {
	a.stmtDue = time.Time{}
	if a.mayWrite() != nil || !a.canSeal() {
		return
	}
	c := a.begin()
	own := c.stage(a.self.did)
	if own.Rev() == 0 {
		return
	}
	if err := a.sealBatch(c, space.Batch{Rev: own.Rev()}, true); err != nil {
		a.log.Error("state the own repo", "err", err)
		return
	}
	hash := own.Digest()
	if a.commitOwn(c) == nil {
		a.saidLast = hash
		a.flushOutbox()
	}
}

// statement signs what the own repo is at rev, in the form of a 0016 commit.
func (a *actor) statement(count uint64, hash [32]byte, rev space.TID) (*space.Statement, error) {
	var ikm [32]byte
	rand.Read(ikm[:])
	signed, err := commit.Sign(a.self.didKey, ikm, a.id, a.self.did, rev, hash)
	if err != nil {
		return nil, fmt.Errorf("sign a statement: %w", err)
	}
	return &space.Statement{
		Count: count, Hash: hash, IKM: ikm, Sig: signed.Sig,
		View: space.View{Count: a.now.topic.Count(), Digest: a.now.topic.Digest()},
		Ctl:  a.ctl.Head,
	}, nil
}
