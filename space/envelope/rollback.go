package envelope

import (
	"fmt"

	"github.com/kithnet/kith/space"
)

// ErrNotFinal: a branch of a chain other than the one that is final. Whoever
// got hold of a chain's key cannot put another history in its place.
var ErrNotFinal = fmt.Errorf("another branch than the one that is final: %w", space.ErrForged)

func (t *Topic) finalOf(id ChainID) (Head, bool) {
	if t.final == nil {
		return Head{}, false
	}
	return t.final(id)
}

// settled reports whether c leads to the envelope of it that is final.
func (t *Topic) settled(c *Chain, final Head) bool {
	id, ok := t.idAt(c, final.Seq)
	return ok && id == final.ID
}

// fork judges a run whose first envelope stands in the place of another one
// that is held.
func (t *Topic) fork(c *Chain, run []Envelope) (Advance, error) {
	if err := signed(run); err != nil {
		return Advance{}, err
	}
	at := run[0].Seq()
	if f, ok := t.finalOf(c.ID); ok && at <= f.Seq {
		return t.yield(c, f, at)
	}
	held, ok := t.ids.(Held)
	if !ok {
		return Advance{}, ErrFork
	}
	own := signedFrom(held, c, at)
	adv, ok := t.cut(c, at)
	if own == nil || !ok {
		return Advance{}, fmt.Errorf("fork at sequence %d: %w", at, ErrUnheld)
	}
	f := newFork(c.Cert, own, run)
	adv.Chain.Forked, adv.Chain.Fork, adv.Fork = true, at, &f
	return adv, ErrFork
}

// yield decides between two branches that part at or below what is final. The
// one that leads there stays. Where ours is not known to, it ends below: the
// final one comes by reconciliation.
func (t *Topic) yield(c *Chain, final Head, at uint64) (Advance, error) {
	if t.settled(c, final) {
		return Advance{}, ErrFork
	}
	adv, ok := t.cut(c, at)
	if !ok {
		return Advance{}, fmt.Errorf("fork at sequence %d: %w", at, ErrUnheld)
	}
	adv.Chain.Forked, adv.Chain.Fork = false, 0
	return adv, ErrFork
}

// signedFrom is what is held of a chain from a sequence on to the next good
// signature.
func signedFrom(held Held, c *Chain, from uint64) (run []Envelope) {
	for next := from; next < c.Length && len(run) < MaxRun; {
		envs := held.Envelopes(c.ID, next, c.Head.Seq)
		if len(envs) == 0 {
			return nil
		}
		for i := range envs {
			if run = append(run, envs[i]); envs[i].VerifySignature() {
				return run
			}
		}
		next += uint64(len(envs))
	}
	return nil
}

// cut ends a chain below a sequence, in an envelope with a good signature; ok
// is false if what goes is not here.
func (t *Topic) cut(c *Chain, at uint64) (adv Advance, ok bool) {
	held, ok := t.ids.(Held)
	if !ok {
		return Advance{}, false
	}
	adv = Advance{Chain: *c, Count: t.count, State: t.state, Cut: true, base: t.commits + 1}
	adv.Chain.Head, adv.Chain.Length = Head{}, 0
	for at > 0 && adv.Chain.Length == 0 {
		envs := held.Envelopes(c.ID, at-1, at-1)
		if len(envs) != 1 {
			return Advance{}, false
		}
		if envs[0].VerifySignature() {
			adv.Chain.Head, adv.Chain.Length = envs[0].Head(), at
			break
		}
		at--
	}
	for next := at; next < c.Length; {
		envs := held.Envelopes(c.ID, next, c.Head.Seq)
		if len(envs) == 0 {
			return Advance{}, false
		}
		for i := range envs {
			adv.State.Remove(envs[i].id[:])
		}
		adv.Count -= uint64(len(envs))
		next += uint64(len(envs))
	}
	return adv, true
}

// Prove judges a proof that a chain forked, as Check does a run: an Advance
// without an error cuts the chain back, or marks it before anything of it is
// here. ErrDuplicate: the chain is known to fork there or below, or the branch
// that is held is final.
func (t *Topic) Prove(f Fork) (Advance, error) {
	adv, err := t.prove(f)
	if err != nil {
		return Advance{}, fmt.Errorf("check fork: %w", err)
	}
	return adv, nil
}

func (t *Topic) prove(f Fork) (Advance, error) {
	if err := f.Verify(t.id); err != nil {
		return Advance{}, err
	}
	c, at := t.chains[f.Chain()], f.Seq()
	if c == nil {
		if len(t.chains) >= MaxChains {
			return Advance{}, ErrCrowded
		}
		c = &Chain{ID: f.Chain(), Cert: f.Cert}
	}
	if final, ok := t.finalOf(c.ID); ok && at <= final.Seq {
		if c.Length <= at || t.settled(c, final) {
			return Advance{}, ErrDuplicate
		}
		adv, ok := t.cut(c, at)
		if !ok {
			return Advance{}, ErrUnheld
		}
		adv.Chain.Forked, adv.Chain.Fork = false, 0
		return adv, nil
	}
	if c.Forked && c.Fork <= at {
		return Advance{}, ErrDuplicate
	}
	adv := Advance{Chain: *c, Count: t.count, State: t.state, base: t.commits + 1}
	if c.Length > at {
		var ok bool
		if adv, ok = t.cut(c, at); !ok {
			return Advance{}, ErrUnheld
		}
	}
	adv.Chain.Forked, adv.Chain.Fork, adv.Fork = true, at, &f
	return adv, nil
}

// Resolve looks at a chain again after another envelope of it became final: a
// mark at or below that falls, and a branch that does not lead there is cut. It
// returns a zero Advance if the chain stays as it is.
func (t *Topic) Resolve(id ChainID) (Advance, error) {
	c := t.chains[id]
	final, ok := t.finalOf(id)
	if c == nil || !ok {
		return Advance{}, nil
	}
	other := c.Length > final.Seq && !t.settled(c, final)
	marked := c.Forked && c.Fork <= final.Seq
	if !other && !marked {
		return Advance{}, nil
	}
	adv := Advance{Chain: *c, Count: t.count, State: t.state, base: t.commits + 1}
	if other {
		if adv, ok = t.cut(c, final.Seq); !ok {
			return Advance{}, fmt.Errorf("resolve a fork: %w", ErrUnheld)
		}
	}
	if marked {
		adv.Chain.Forked, adv.Chain.Fork = false, 0
	}
	return adv, nil
}
