package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
)

// Every change of a control log is a proposal by a device that may make it and
// a commit by the sequencer. Where both are this node, nothing travels.

// amendment makes the body of an entry for the state it is to follow. A nil
// body means that there is nothing to do. It may take long and runs outside of
// the actor.
type amendment func(*control.State) (control.Kind, any, []store.ObjectRow, error)

// amendTries bounds how often an amendment is made again because the log moved
// meanwhile.
const amendTries = 8

// amend brings a change into the space's log and gives the state after it.
func (n *Node) amend(ctx context.Context, a *actor, make amendment) (*control.State, error) {
	for try := 0; ; try++ {
		st, err := n.amendOnce(ctx, a, make)
		if !errors.Is(err, errMoved) || try == amendTries {
			return st, err
		}
	}
}

// errMoved: the log is not where the proposal was made for.
var errMoved = fmt.Errorf("the log moved on: %w", space.ErrUnavailable)

func (n *Node) amendOnce(ctx context.Context, a *actor, make amendment) (*control.State, error) {
	st := a.control()
	if st.Deleted {
		return nil, fmt.Errorf("change %s: %w", a.id, space.ErrSpaceDeleted)
	}
	kind, body, pages, err := make(st)
	if err != nil || body == nil {
		return st, err
	}
	if b, ok := body.(control.Sequencer); ok {
		return a.appoint(ctx, b) // the authority's own act
	}
	p, err := control.Propose(st, kind, body, n.self.device.Sig(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("change %s: %w", a.id, err)
	}
	if a.sequences() {
		return a.commitProposal(ctx, p, pages)
	}
	return n.proposeTo(ctx, a, p, pages)
}

// sequencerID is the device that orders the log.
func (a *actor) sequencerID() identity.DeviceID { return identity.DeviceID(a.ctl.SequencerPub) }

// sequences reports whether this node orders the log.
func (a *actor) sequences() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.sequencerID() == a.self.device.ID()
}

// appointment begins a new term. Only a device of the authority's can.
type appointment struct {
	body  control.Sequencer
	reply chan sequenced // buffered
}

func (a *actor) appoint(ctx context.Context, b control.Sequencer) (*control.State, error) {
	m := &appointment{body: b, reply: make(chan sequenced, 1)}
	r, err := ask(ctx, a, m, m.reply)
	if err != nil {
		return nil, err
	}
	return r.state, r.err
}

func (m *appointment) handle(a *actor) {
	e, err := a.buildTerm(a.ctl, m.body)
	var st *control.State
	if err == nil {
		st, err = a.append(e, nil)
	}
	m.reply <- sequenced{st, err}
	a.flushOutbox()
}

// buildTerm makes the entry that begins a term after a state of the log.
func (a *actor) buildTerm(after *control.State, b control.Sequencer) (*control.Entry, error) {
	sk := a.self.device.Sig()
	return control.Build(after, control.KindSequencer, b, control.BuildKeys{Proposer: sk, Sequencer: sk}, time.Now().UnixMilli(), rand.Reader)
}

// sequence appends a proposal to the log. This node must be the sequencer.
type sequence struct {
	proposal control.Proposal
	pages    []store.ObjectRow
	reply    chan sequenced // buffered
}

type sequenced struct {
	state *control.State
	err   error
}

func (a *actor) commitProposal(ctx context.Context, p control.Proposal, pages []store.ObjectRow) (*control.State, error) {
	m := &sequence{proposal: p, pages: pages, reply: make(chan sequenced, 1)}
	r, err := ask(ctx, a, m, m.reply)
	if err != nil {
		return nil, err
	}
	return r.state, r.err
}

func (m *sequence) handle(a *actor) {
	e, err := a.order(m.proposal)
	var st *control.State
	if err == nil {
		st, err = a.append(e, m.pages)
	}
	m.reply <- sequenced{st, err}
	a.flushOutbox()
}

// order makes a proposal the next entry of the log.
func (a *actor) order(p control.Proposal) (*control.Entry, error) {
	switch {
	case a.proof != nil:
		return nil, fmt.Errorf("change %s: %w", a.id, space.ErrFrozen)
	case a.now == nil || a.now.n < a.ctl.Epoch:
		return nil, fmt.Errorf("change %s: the keys of epoch %d are not here: %w", a.id, a.ctl.Epoch, space.ErrUnavailable)
	}
	e, err := control.Commit(a.ctl, p, a.self.device.Sig(), a.now.keys.Control().Bytes(), time.Now().UnixMilli(), rand.Reader)
	if err != nil {
		if p.BaseHead() != a.ctl.Head.Hash {
			err = fmt.Errorf("%w: %w", errMoved, err)
		}
		return nil, err
	}
	return e, nil
}

// append makes an entry the log's last: durable, visible and said to others.
func (a *actor) append(e *control.Entry, pages []store.ObjectRow) (*control.State, error) {
	if a.broken != nil {
		return nil, a.broken
	}
	if err := a.maySequence(); err != nil {
		return nil, err
	}
	next, err := control.Apply(a.ctl, e)
	if err != nil {
		return nil, err
	}
	c := a.begin()
	c.batch.Objects = pages
	a.layOut(pages)
	defer a.layOut(nil)
	c.follow(a.ctl, next, e)
	if e.Rotation() != nil && len(c.adopted) == 0 && next.Epoch > a.ctl.Epoch {
		return nil, fmt.Errorf("change %s: the new epoch is not wrapped to its sequencer: %w", a.id, space.ErrMalformed)
	}
	if err := a.commitEntry(c, e); err != nil {
		return nil, err
	}
	a.settle(c)
	return next, nil
}

// commitEntry makes an entry durable, in our own chain where there can be one:
// gossip is then a hint of it.
func (a *actor) commitEntry(c *change, e *control.Entry) error {
	if a.now == nil || a.now.cred == nil {
		if err := c.commit(store.Own); err != nil {
			a.fail(err)
			return err
		}
		a.out.compare(a.sid)
		return nil
	}
	if err := a.sealControl(c, e); err != nil {
		return err
	}
	return a.commitOwn(c)
}
