package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// The wrap auditor runs wherever somebody may admit. It holds the roster
// against the per-user keys that the epoch is wrapped to, and rotates where a
// device that could read is revoked: nobody has to remember it.

const (
	auditEvery = 10 * time.Minute
	// auditSoon is the wait after an identity changed; who is not the sequencer
	// waits as long again, so that mostly one of them acts.
	auditSoon   = time.Second
	maxEpochAge = 30 * 24 * time.Hour
)

// auditor wakes the audits of spaces.
func (n *Node) auditor(ctx context.Context) {
	t := time.NewTimer(jitter(auditSoon))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.audits:
			t.Reset(jitter(auditSoon))
			continue
		case <-t.C:
			t.Reset(jitter(auditEvery))
		}
		for _, r := range n.all() {
			if !r.admits() {
				continue
			}
			if err := n.auditWraps(ctx, r.actor); err != nil && ctx.Err() == nil {
				n.log.Warn("the keys of a space are stale and could not be renewed", "space", fingerprint(r.sid), "err", err)
				t.Reset(jitter(auditSoon * 10))
			}
		}
	}
}

// auditNow asks for an audit soon.
func (n *Node) auditNow() {
	select {
	case n.audits <- struct{}{}:
	default:
	}
}

// auditWraps rotates a space whose keys a revoked device can read, or whose
// epoch is old.
func (n *Node) auditWraps(ctx context.Context, a *actor) error {
	if err := n.auditKeepers(ctx, a); err != nil {
		return err
	}
	stale, err := n.staleMembers(ctx, a)
	if err != nil {
		return err
	}
	if len(stale) == 0 && !a.epochIsOld() {
		return n.makeFinal(ctx, a)
	}
	if !a.sequences() {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jitter(auditSoon)):
		}
		if again, err := n.staleMembers(ctx, a); err == nil && len(again) == 0 && !a.epochIsOld() {
			return nil
		}
	}
	n.log.Info("a new epoch for a space", "space", fingerprint(a.sid), "stale", len(stale))
	_, err = n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		stale, err := n.staleMembers(ctx, a) // another auditor may have been faster
		if err != nil || len(stale) == 0 && !a.epochIsOld() {
			return 0, nil, nil, err
		}
		return a.renewal(stale)(st)
	})
	return err
}

// checkFresh refuses an identity log that is behind the one to which the epoch
// in force was wrapped: whoever opened it knew of a revocation that this node
// has not heard of.
func (n *Node) checkFresh(ctx context.Context, a *actor, st *control.State, who identity.State) error {
	rot, err := a.rotationOfEpoch(st)
	if err != nil || rot == nil {
		return err
	}
	w, err := a.lockedWrapOf(st, rot, who.C)
	if errors.Is(err, errNoPage) {
		page, _ := ownPage(st, rot, who.C)
		if before := a.numbered(st.Epoch - 1); before != nil {
			err = n.fetchObject(ctx, a, before, page)
		}
		if err == nil {
			w, err = a.lockedWrapOf(st, rot, who.C)
		}
	}
	switch {
	case errors.Is(err, space.ErrNotMember), errors.Is(err, errNoWrap):
		return nil // a member since
	case err != nil:
		return err
	case who.PUK.Gen < w.PUKGen:
		return fmt.Errorf("claim: an identity log from before a revocation: %w", errLater)
	}
	return nil
}

func (a *actor) lockedWrapOf(st *control.State, rot *control.Rotation, c identity.Commitment) (control.Wrap, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.wrapOf(st, rot, c)
}

// makeFinal writes a checkpoint once a day, where this node orders the log.
func (n *Node) makeFinal(ctx context.Context, a *actor) error {
	if !a.sequences() {
		return nil
	}
	e, mark, err := a.checkpointDue(time.Now())
	if err != nil || e == nil {
		return err
	}
	if _, err := n.amend(ctx, a, a.checkpoint(e)); err != nil {
		return err
	}
	m := &setMeta{name: checkpointMeta, value: mark, reply: make(chan error, 1)}
	err, sendErr := ask(ctx, a, m, m.reply)
	return errors.Join(err, sendErr)
}

func (a *actor) epochIsOld() bool {
	st := a.control()
	if st.Policy.KeyPolicy == space.KeysStatic {
		return false
	}
	at, ok := st.Opened(st.Epoch)
	if !ok {
		return false
	}
	raw, ok, err := a.rawControl(at.Seq)
	if err != nil || !ok {
		return false
	}
	return time.Since(time.UnixMilli(control.TimeOf(raw))) > maxEpochAge
}

// auditKeepers drops devices of keepers that are revoked.
func (n *Node) auditKeepers(ctx context.Context, a *actor) error {
	st := a.control()
	for k := range st.Keepers() {
		m, ok := st.AtSlot(k.Slot)
		who, known := n.identity(m.C)
		if !ok || !known {
			continue
		}
		live := slices.DeleteFunc(slices.Clone(k.Devices), func(d [32]byte) bool { return who.Revoked(identity.DeviceID(d)) })
		if len(live) == len(k.Devices) {
			continue
		}
		_, err := n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
			now, _ := st.Keeper(k.Slot)
			next := control.Keeper{Slot: k.Slot, Caps: now.Caps, Devices: live}
			if len(live) == 0 {
				next.Caps = 0
			}
			return a.keeperSet(st, m, now, next)
		})
		if err != nil {
			return fmt.Errorf("drop a revoked device of a keeper: %w", err)
		}
	}
	return nil
}

// staleMembers are those with a revoked device that had the keys of the epoch.
func (n *Node) staleMembers(ctx context.Context, a *actor) ([]identity.Commitment, error) {
	st := a.control()
	var gens map[identity.Commitment]uint32
	var out []identity.Commitment
	for m := range st.Members() {
		who, known := n.identity(m.C)
		if !known || !who.Stale(0) {
			continue // nothing of theirs was ever revoked
		}
		if gens == nil {
			var err error
			if gens, err = n.wrappedTo(ctx, a, st); err != nil {
				return nil, err
			}
		}
		gen, wrapped := gens[m.C]
		if !wrapped {
			gen = n.admittedAt(m)
		}
		if who.Stale(gen) {
			out = append(out, m.C)
		}
	}
	slices.SortFunc(out, func(x, y identity.Commitment) int { return slices.Compare(x[:], y[:]) })
	return out, nil
}

// admittedAt is the generation of the per-user key with which a member came in.
func (n *Node) admittedAt(m control.Member) uint32 {
	log := n.identityLog(m.C)
	since, ok := identity.Since(log, m.ILHead)
	if !ok {
		return 0
	}
	st, err := identity.Verify(log[:len(log)-len(since)])
	if err != nil {
		return 0
	}
	return st.PUK.Gen
}

// wrappedTo are the generations to which the epoch in force was wrapped.
func (n *Node) wrappedTo(ctx context.Context, a *actor, st *control.State) (map[identity.Commitment]uint32, error) {
	out := map[identity.Commitment]uint32{}
	rot, err := a.rotationOfEpoch(st)
	if err != nil || rot == nil {
		return out, err
	}
	wraps := rot.Epoch.Wraps
	before := a.numbered(st.Epoch - 1)
	for _, hash := range rot.Epoch.Pages {
		box, ok, err := a.store.Object(hash)
		if err == nil && !ok && before != nil {
			if err = n.fetchObject(ctx, a, before, hash); err == nil {
				box, ok, err = a.store.Object(hash)
			}
		}
		if err != nil || !ok {
			return out, errors.Join(err, errNoPage)
		}
		plain, err := seal.OpenObject(a.lockedControlKey(st.Epoch-1), a.sid, st.Epoch, box)
		if err != nil {
			return out, err
		}
		page, err := control.DecodePage(plain)
		if err != nil {
			return out, err
		}
		wraps = append(wraps, page...)
	}
	for _, w := range wraps {
		out[w.C] = w.PUKGen
	}
	return out, nil
}

// rotationOfEpoch reads the entry that opened the epoch in force; nil for the
// first.
func (a *actor) rotationOfEpoch(st *control.State) (*control.Rotation, error) {
	at, ok := st.Opened(st.Epoch)
	if !ok || st.Epoch < 2 {
		return nil, nil
	}
	raw, ok, err := a.rawControl(at.Seq)
	if err != nil || !ok {
		return nil, errors.Join(err, space.ErrUnavailable)
	}
	e, err := control.Parse(raw)
	if err == nil {
		err = e.Open(bytesOf(a.lockedControlKey(st.Epoch - 1)))
	}
	if err != nil {
		return nil, err
	}
	return e.Rotation(), nil
}
