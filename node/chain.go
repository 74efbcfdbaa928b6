package node

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// openChain starts this device's chain, if none runs: at the first write of a
// process, lazily, and after a failed commit. A chain is never resumed.
func (a *actor) openChain(c *change) error {
	if a.writer != nil {
		return nil
	}
	if !a.canSeal() {
		return fmt.Errorf("open a chain in %s: no writer certificate: %w", a.id, space.ErrUnavailable)
	}
	w, err := seal.NewWriter(rand.Reader, *a.now.cred, a.now.id, a.now.keys, a.self.c)
	if err != nil {
		return err
	}
	own, _ := a.out.addrs(a.sid)
	h := seal.Hello{
		Device: a.self.device.ID(), PUKGen: a.self.ownPUK().Gen(), PrevChain: a.lastChain(), Ctl: a.ctl.Head,
		Addrs: own[:min(len(own), seal.MaxAddrs)], Tags: a.tags(w.Chain()), IdentityLog: a.self.ownLog(),
	}
	if m, ok := a.ctl.Member(a.self.c); ok && a.now.cred.Via == ([32]byte{}) && h.PrevChain != nil {
		// The first chain of an epoch carries the whole log, later ones what
		// the roster does not vouch for yet.
		if since, ok := identity.Since(a.self.ownLog(), m.ILHead); ok {
			h.IdentityLog = since
		}
	}
	envs, cert, err := w.Hello(rand.Reader, h)
	if err != nil {
		return err
	}
	a.writer, c.unstated = w, 0
	a.self.twin.opens(w.Chain())
	c.cert, c.sealed = &cert, append(c.sealed, envs...)
	return nil
}

// lastChain is the newest chain of this device that is known here, a lower
// bound that shows when a tail of it is withheld.
func (a *actor) lastChain() *seal.PrevChain {
	var last *seal.PrevChain
	for id, ch := range a.chains {
		if ch.c != a.self.c || ch.device != a.self.device.ID() || ch.epoch != a.now {
			continue
		}
		head, ok := a.now.topic.Chain(id)
		if ok && (last == nil || ch.rev > a.chains[last.Chain].rev) {
			last = &seal.PrevChain{Chain: id, Seq: head.Head.Seq, ID: head.Head.ID}
		}
	}
	return last
}

// tags tell every other member whose log we know, and nobody else, that the
// chain is ours.
func (a *actor) tags(chain envelope.ChainID) []seal.Tag {
	if a.ctl.Len() > seal.MaxTags {
		return nil
	}
	var tags []seal.Tag
	for m := range a.ctl.Members() {
		pair, ok := a.pair(m)
		if !ok {
			continue
		}
		tags = append(tags, seal.Tag{Slot: m.Slot, MAC: seal.PairTag(pair, a.sid, a.now.n, chain)})
	}
	return tags
}

// pair is the key shared with another member.
func (a *actor) pair(m control.Member) (seal.Pair, bool) { return a.pairOf(m, a.self.ownPUK()) }

// pairOf is the key that a generation of our per-user key shares with another
// member, cached by the generations of both.
func (a *actor) pairOf(m control.Member, own identity.PUK) (seal.Pair, bool) {
	if m.C == a.self.c {
		return seal.Pair{}, false
	}
	st, ok := a.out.identity(m.C)
	if !ok {
		return seal.Pair{}, false
	}
	key := pairKey{m.C, st.PUK.Gen, own.Gen()}
	if p, ok := a.pairs[key]; ok {
		return p, true
	}
	p, err := seal.PairKey(a.sid, own, a.self.c, st.PUK, m.C)
	if err != nil {
		a.log.Warn("pair key", "member", m.C, "err", err)
		return seal.Pair{}, false
	}
	a.pairs[key] = p
	return p, true
}

type pairKey struct {
	c        identity.Commitment
	gen, own uint32
}

// outbox is what is committed and not yet handed to gossip.
type outbox struct {
	next    uint64
	pending []outboxItem
	done    []uint64 // published; erased with the next batch
}

type outboxItem struct {
	seq    uint64
	topic  envelope.TopicID
	frames []envelope.Frame
}

// outboxRef is what an outbox row holds: which envelopes are owed. The frames
// are made from the chain again.
type outboxRef struct {
	_           struct{} `cbor:",toarray"`
	Topic       []byte
	Chain       []byte
	First, Last uint64
}

// toOutbox adds our own envelopes to what is owed to gossip, in the same
// batch that makes them durable.
func (c *change) toOutbox(e *epoch, envs []envelope.Envelope) {
	chain := envs[0].Chain()
	ref, err := space.Marshal(outboxRef{
		Topic: e.id[:], Chain: chain[:], First: envs[0].Seq(), Last: envs[len(envs)-1].Seq(),
	})
	if err != nil {
		panic("node: encode an outbox row: " + err.Error())
	}
	o := &c.a.outbox
	c.batch.Outbox = append(c.batch.Outbox, store.OutboxRow{Seq: o.next, Frame: ref})
	c.batch.OutboxDone = append(c.batch.OutboxDone, o.done...)
	c.owes = append(c.owes, outboxItem{seq: o.next, topic: e.id, frames: envelope.Frames(c.cert, envs)})
}

// flushOutbox hands what is owed to gossip. A failure only delays:
// reconciliation brings what gossip lost.
func (a *actor) flushOutbox() {
	for _, it := range a.outbox.pending {
		for _, f := range it.frames {
			a.out.publish(f)
		}
		a.outbox.done = append(a.outbox.done, it.seq)
	}
	a.outbox.pending = nil
}

// stageControl applies one raw control entry to the change. What we have
// already is no error; space.ErrNoKey: the keys of its epoch are not here yet.
func (a *actor) stageControl(c *change, raw []byte) error {
	e, err := control.Parse(raw)
	if err != nil {
		return err
	}
	s := c.control()
	if e.Seq == s.Head.Seq+1 {
		if err := e.Open(c.bodyKey(s, e)); err != nil {
			return err
		}
	}
	next, err := control.Apply(s, e)
	var super control.ErrSuperseded
	switch {
	case isStale(err):
		return nil
	case errors.As(err, &super):
		return newTerm{super, raw}
	case err != nil:
		return err
	}
	c.follow(s, next, e)
	return nil
}

// newTerm: an entry that begins a term where our log has gone on in an earlier
// one.
type newTerm struct {
	control.ErrSuperseded
	raw []byte
}

// follow stages a control entry that was applied and all that it brings.
func (c *change) follow(s, next *control.State, e *control.Entry) {
	c.ctl = next
	c.batch.Control = append(c.batch.Control, store.ControlRow{Seq: e.Seq, Raw: e.Raw()})
	rot := e.Rotation()
	if rot != nil {
		c.adopt(next, rot)
	}
	_, checkpoint := e.Body().(control.Checkpoint)
	c.finals = c.finals || checkpoint || rot != nil
	c.recount(s, next, e.Body(), rot)
	c.takeIssuer(e.Body())
}

func isStale(err error) bool {
	var stale control.ErrStale
	return errors.As(err, &stale)
}

// restoreOutbox makes the frames of what was committed and not published when
// the node last stopped.
func (a *actor) restoreOutbox() error {
	a.outbox = outbox{}
	for row, err := range a.store.Outbox() {
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		a.outbox.next = row.Seq + 1
		var ref outboxRef
		if err := space.Unmarshal(row.Frame, &ref); err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		it, err := a.owed(row.Seq, ref)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		a.outbox.pending = append(a.outbox.pending, it)
	}
	return nil
}

func (a *actor) owed(seq uint64, ref outboxRef) (outboxItem, error) {
	if len(ref.Topic) != 32 || len(ref.Chain) != 32 {
		return outboxItem{}, space.ErrMalformed
	}
	it := outboxItem{seq: seq, topic: envelope.TopicID(ref.Topic)}
	e := a.epochs[it.topic]
	if e == nil {
		return it, nil // of an epoch that is over
	}
	chain := envelope.ChainID(ref.Chain)
	for from := ref.First; from <= ref.Last; {
		envs, err := a.store.Run(it.topic, chain, from, ref.Last, backlogMax)
		if err != nil {
			return it, err
		}
		if len(envs) == 0 {
			break
		}
		from = envs[len(envs)-1].Seq() + 1
		var cert *envelope.Certificate
		if ch, ok := e.topic.Chain(chain); ok && envs[0].Seq() == 0 {
			cert = &ch.Cert
		}
		it.frames = append(it.frames, envelope.Frames(cert, envs)...)
	}
	return it, nil
}
