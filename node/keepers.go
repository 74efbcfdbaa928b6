package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

var _ xrpc.Keepers = (*Node)(nil)

// capWords pairs the capabilities of the log with their names in the API.
var capWords = []struct {
	cap  control.Caps
	word xrpc.Cap
}{
	{control.CapAdmit, xrpc.CapAdmit},
	{control.CapSequence, xrpc.CapSequence},
	{control.CapCredential, xrpc.CapCredential},
	{control.CapServe, xrpc.CapServe},
}

func capNames(c control.Caps) (out []xrpc.Cap) {
	for _, w := range capWords {
		if c.Has(w.cap) {
			out = append(out, w.word)
		}
	}
	return out
}

func capsOf(words []xrpc.Cap) (c control.Caps, err error) {
	for _, name := range words {
		i := slices.IndexFunc(capWords, func(w struct {
			cap  control.Caps
			word xrpc.Cap
		}) bool {
			return w.word == name
		})
		if i < 0 {
			return 0, fmt.Errorf("capability %q: %w", name, space.ErrMalformed)
		}
		c |= capWords[i].cap
	}
	return c, nil
}

// SetKeeper says what a member may do for the space with its live devices.
func (n *Node) SetKeeper(ctx context.Context, id space.ID, who space.DID, caps []xrpc.Cap) (xrpc.Member, error) {
	want, err := capsOf(caps)
	if err != nil {
		return xrpc.Member{}, err
	}
	st, err := n.setKeeper(ctx, id, who, func(m control.Member, old control.Keeper) (control.Keeper, error) {
		devices, err := n.liveDevices(m)
		return control.Keeper{Slot: m.Slot, Caps: want, Devices: devices}, err
	})
	if err != nil {
		return xrpc.Member{}, fmt.Errorf("make %s a keeper: %w", who, err)
	}
	return memberOf(st, who)
}

// RemoveKeeper takes all capabilities of a keeper away.
func (n *Node) RemoveKeeper(ctx context.Context, id space.ID, who space.DID) error {
	_, err := n.setKeeper(ctx, id, who, func(m control.Member, old control.Keeper) (control.Keeper, error) {
		if old.Caps == 0 {
			return old, fmt.Errorf("no keeper: %w", space.ErrMemberNotFound)
		}
		return control.Keeper{Slot: m.Slot}, nil
	})
	if err != nil {
		return fmt.Errorf("remove keeper %s: %w", who, err)
	}
	return nil
}

// setKeeper brings a keeper's row to what want makes of it. A sequencer that
// is to lose its place gives it back to this node first.
func (n *Node) setKeeper(ctx context.Context, id space.ID, who space.DID, want func(control.Member, control.Keeper) (control.Keeper, error)) (*control.State, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	st := a.control()
	m, ok := st.MemberByDID(who)
	if !ok {
		return nil, fmt.Errorf("%s: %w", who, space.ErrMemberNotFound)
	}
	old, _ := st.Keeper(m.Slot)
	k, err := want(m, old)
	if err != nil {
		return nil, err
	}
	ordering := m.Slot == st.SequencerSlot && m.Slot != st.AuthoritySlot
	if ordering && !(k.Caps.Has(control.CapSequence) && slices.Contains(k.Devices, [32]byte(st.SequencerPub))) {
		if err := n.takeBack(ctx, a); err != nil {
			return nil, err
		}
	}
	return n.amend(ctx, a, named(who, func(st *control.State, m control.Member) (control.Kind, any, []store.ObjectRow, error) {
		old, _ := st.Keeper(m.Slot)
		k, err := want(m, old)
		if err != nil {
			return 0, nil, nil, err
		}
		return a.keeperSet(st, m, old, k)
	}))
}

// keeperSet is the entry that makes old k. Who newly admits gets the issuer,
// who ceases to, or loses a device, costs a new epoch.
func (a *actor) keeperSet(st *control.State, m control.Member, old, k control.Keeper) (control.Kind, any, []store.ObjectRow, error) {
	if old.Caps == k.Caps && slices.Equal(old.Devices, k.Devices) {
		return 0, nil, nil, nil
	}
	body := control.KeeperSet{Slot: m.Slot, C: m.C, Caps: k.Caps, Devices: k.Devices}
	lost := old.Caps.Has(control.CapAdmit) && !k.Caps.Has(control.CapAdmit)
	for _, d := range old.Devices {
		lost = lost || !slices.Contains(k.Devices, d)
	}
	switch {
	case lost && st.Policy.KeyPolicy != space.KeysStatic:
		// Who admitted holds the issuer of the epochs that are over and could
		// certify chains in anybody's name there for ever: everybody's end.
		rot, err := a.rotate(st, control.KindKeeperSet, body, everybody(st))
		if errors.Is(err, space.ErrTooLarge) {
			rot, err = a.rotate(st, control.KindKeeperSet, body, nil)
		}
		if err != nil {
			return 0, nil, nil, err
		}
		body.Rotation = rot.body
		return control.KindKeeperSet, body, rot.pages, nil
	case k.Caps.Has(control.CapAdmit) && !old.Caps.Has(control.CapAdmit):
		e := a.current()
		if e.iss == nil {
			return 0, nil, nil, fmt.Errorf("hand on the issuer: %w", space.ErrNoKey)
		}
		w, err := a.wrapIssuerTo(m, e.n, *e.iss)
		if err != nil {
			return 0, nil, nil, err
		}
		body.Issuer = w.Sealed
	}
	return control.KindKeeperSet, body, nil, nil
}

// everybody is the roster, ascending; nobody if there are too many to name.
func everybody(st *control.State) []identity.Commitment {
	if st.Len() > control.MaxEnded {
		return nil
	}
	var out []identity.Commitment
	for m := range st.Members() {
		out = append(out, m.C)
	}
	slices.SortFunc(out, func(x, y identity.Commitment) int { return bytes.Compare(x[:], y[:]) })
	return out
}

// liveDevices are the devices with which a member may act as a keeper.
func (n *Node) liveDevices(m control.Member) ([][32]byte, error) {
	who, ok := n.identity(m.C)
	if !ok {
		return nil, fmt.Errorf("its identity log is not here: %w", space.ErrUnavailable)
	}
	var out [][32]byte
	for d := range who.Devices {
		out = append(out, d)
	}
	slices.SortFunc(out, func(x, y [32]byte) int { return bytes.Compare(x[:], y[:]) })
	return out[:min(len(out), control.MaxKeeperDevices)], nil
}

// AppointSequencer has a keeper order the log, or the authority again.
func (n *Node) AppointSequencer(ctx context.Context, id space.ID, who space.DID) (xrpc.Member, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Member{}, err
	}
	if who == n.self.did {
		if err := n.takeBack(ctx, a); err != nil {
			return xrpc.Member{}, fmt.Errorf("appoint a sequencer: %w", err)
		}
		return memberOf(a.control(), who)
	}
	st, err := n.amend(ctx, a, named(who, func(st *control.State, m control.Member) (control.Kind, any, []store.ObjectRow, error) {
		k, ok := st.Keeper(m.Slot)
		switch {
		case !ok || !k.Caps.Has(control.CapSequence) || len(k.Devices) == 0:
			return 0, nil, nil, fmt.Errorf("%s may not order the log; make it a keeper with that capability first: %w", who, space.ErrForbidden)
		case slices.Contains(k.Devices, [32]byte(st.SequencerPub)):
			return 0, nil, nil, nil
		}
		return control.KindSequencer, control.Sequencer{Slot: m.Slot, Device: n.runningDevice(a, k)}, nil, nil
	}))
	if err != nil {
		return xrpc.Member{}, fmt.Errorf("appoint a sequencer: %w", err)
	}
	return memberOf(st, who)
}

// runningDevice is the device of a keeper that was seen to run somewhere, or
// else its first.
func (n *Node) runningDevice(a *actor, k control.Keeper) [32]byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, d := range k.Devices {
		if _, ok := a.homes[identity.DeviceID(d)]; ok {
			return d
		}
	}
	return k.Devices[0]
}

// takeBack makes this device the sequencer. Where the log forked, the term
// that begins accepts what stood before the fork.
func (n *Node) takeBack(ctx context.Context, a *actor) error {
	if proof := a.frozen(); proof != nil {
		return a.endFork(ctx, proof)
	}
	_, err := n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		if identity.DeviceID(st.SequencerPub) == n.self.device.ID() {
			return 0, nil, nil, nil
		}
		return control.KindSequencer, control.Sequencer{Slot: st.AuthoritySlot, Device: n.self.device.ID()}, nil, nil
	})
	return err
}

func (a *actor) frozen() *forkProof {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.proof
}

// thaw begins a new term before a fork.
type thaw struct {
	proof *forkProof
	reply chan error // buffered
}

func (a *actor) endFork(ctx context.Context, proof *forkProof) error {
	m := &thaw{proof: proof, reply: make(chan error, 1)}
	err, sendErr := ask(ctx, a, m, m.reply)
	if sendErr != nil {
		return sendErr
	}
	return err
}

func (m *thaw) handle(a *actor) { m.reply <- a.thaw(m.proof) }

func (a *actor) thaw(proof *forkProof) error {
	e, err := control.Parse(proof.A)
	if err != nil {
		return err
	}
	before, err := a.stateBefore(e.Seq)
	if err != nil {
		return err
	}
	body := control.Sequencer{Slot: before.AuthoritySlot, Device: a.self.device.ID()}
	entry, err := a.buildTerm(before, body)
	if err != nil {
		return err
	}
	a.supersede(newTerm{control.ErrSuperseded{Accept: before.Head, Known: true}, entry.Raw()})
	if a.ctl.Head.Hash != entry.Hash() {
		return fmt.Errorf("begin a new term of %s: %w", a.id, space.ErrUnavailable)
	}
	a.out.compare(a.sid)
	return nil
}

// stateBefore replays the log up to an entry, which is left out.
func (a *actor) stateBefore(seq uint64) (*control.State, error) {
	var s *control.State
	for row, err := range a.store.Control() {
		if err != nil {
			return nil, err
		}
		if row.Seq == seq {
			break
		}
		e, err := control.Parse(row.Raw)
		if err == nil {
			err = e.Open(a.keyAfter(s, e))
		}
		if err == nil {
			s, err = control.Apply(s, e)
		}
		if err != nil {
			return nil, err
		}
	}
	if s == nil {
		return nil, fmt.Errorf("the log before entry %d: %w", seq, space.ErrUnavailable)
	}
	return s, nil
}

// keeperWarnings tell an owner whose keeper has nothing to keep.
func (n *Node) keeperWarnings() []string {
	if !n.cfg.Keeper {
		return nil
	}
	for _, r := range n.all() {
		if r.admits() {
			return nil
		}
	}
	return []string{"this node runs as a keeper and no space has made it one yet: kith space keeper add SPACE " + string(n.self.did)}
}
