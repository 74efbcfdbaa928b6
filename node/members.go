package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

var (
	_ xrpc.Roster = (*Node)(nil)
	_ xrpc.Keys   = (*Node)(nil)
)

// Members lists the roster.
func (n *Node) Members(_ context.Context, id space.ID) ([]xrpc.Member, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	st := a.control()
	var out []xrpc.Member
	for m := range st.Members() {
		out = append(out, memberRow(st, m))
	}
	return out, nil
}

func memberRow(st *control.State, m control.Member) xrpc.Member {
	row := xrpc.Member{DID: m.DID, Level: m.Level, AddedMs: m.AddedMs, Public: m.Public}
	row.Authority = m.C == st.Authority.C
	if len(m.Invite) > 0 && !m.Public {
		row.Via = "invite:" + hex.EncodeToString(m.Invite)
	}
	if k, ok := st.Keeper(m.Slot); ok {
		row.Keeper, row.Caps = !row.Authority, capNames(k.Caps)
		row.Sequencer = slices.Contains(k.Devices, [32]byte(st.SequencerPub))
	}
	return row
}

// memberOf is the roster's line of somebody after a change.
func memberOf(st *control.State, who space.DID) (xrpc.Member, error) {
	m, ok := st.MemberByDID(who)
	if !ok {
		return xrpc.Member{}, fmt.Errorf("%s: %w", who, space.ErrMemberNotFound)
	}
	return memberRow(st, m), nil
}

// named is an amendment about one member, by DID.
func named(who space.DID, make func(*control.State, control.Member) (control.Kind, any, []store.ObjectRow, error)) amendment {
	return func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		m, ok := st.MemberByDID(who)
		if !ok {
			return 0, nil, nil, fmt.Errorf("%s: %w", who, space.ErrMemberNotFound)
		}
		return make(st, m)
	}
}

// AddMember adds somebody whose identity log is known here.
func (n *Node) AddMember(ctx context.Context, id space.ID, who space.DID, level space.Level) (xrpc.Member, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Member{}, err
	}
	known, ok := n.whoIs(who)
	if !ok {
		return xrpc.Member{}, fmt.Errorf("add %s: %w", who, space.ErrUnknownDID)
	}
	st, err := n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		if _, in := st.MemberByDID(who); in {
			return 0, nil, nil, fmt.Errorf("add %s: %w", who, space.ErrMemberExists)
		}
		add := control.MemberAdd{Slot: st.NextSlot(), C: known.C, DID: who, Level: level, ILHead: known.Head}
		return control.KindMemberAdd, add, nil, nil
	})
	if err != nil {
		return xrpc.Member{}, err
	}
	m, err := memberOf(st, who)
	m.Link = n.signpost(a)
	return m, err
}

// whoIs finds the identity that a DID is bound to, among those known here.
func (n *Node) whoIs(did space.DID) (identity.State, bool) {
	n.people.mu.RLock()
	defer n.people.mu.RUnlock()
	for _, st := range n.people.states {
		if st.DID == did {
			return st, true
		}
	}
	return identity.State{}, false
}

// SetLevel raises or lowers a member. Lowering opens a new epoch.
func (n *Node) SetLevel(ctx context.Context, id space.ID, who space.DID, level space.Level) (xrpc.Member, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Member{}, err
	}
	st, err := n.amend(ctx, a, named(who, func(st *control.State, m control.Member) (control.Kind, any, []store.ObjectRow, error) {
		switch {
		case m.Level == level:
			return 0, nil, nil, nil
		case m.C == st.Authority.C:
			return 0, nil, nil, space.ErrLastAuthority
		}
		body := control.MemberLevel{Slot: m.Slot, C: m.C, Level: level}
		if level > m.Level || st.Policy.KeyPolicy == space.KeysStatic {
			return control.KindMemberLevel, body, nil, nil
		}
		rot, err := a.rotate(st, control.KindMemberLevel, body, nil)
		if err != nil {
			return 0, nil, nil, err
		}
		body.Rotation = rot.body
		return control.KindMemberLevel, body, rot.pages, nil
	}))
	if err != nil {
		return xrpc.Member{}, fmt.Errorf("set the level of %s: %w", who, err)
	}
	return memberOf(st, who)
}

// RemoveMember takes a member out and opens a new epoch in the same entry.
func (n *Node) RemoveMember(ctx context.Context, id space.ID, who space.DID) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	if st := a.control(); st.SequencerSlot != st.AuthoritySlot {
		if m, in := st.MemberByDID(who); in && m.Slot == st.SequencerSlot {
			if err := n.takeBack(ctx, a); err != nil {
				return fmt.Errorf("remove %s, which orders the log: %w", who, err)
			}
		}
	}
	_, err = n.amend(ctx, a, named(who, func(st *control.State, m control.Member) (control.Kind, any, []store.ObjectRow, error) {
		return a.removal(st, m, nil)
	}))
	if err != nil {
		return fmt.Errorf("remove %s: %w", who, err)
	}
	return nil
}

// removal is the entry that takes a member out; leave is its own statement, if
// it goes by itself.
func (a *actor) removal(st *control.State, m control.Member, leave []byte) (control.Kind, any, []store.ObjectRow, error) {
	if m.C == st.Authority.C {
		return 0, nil, nil, space.ErrLastAuthority
	}
	body := control.MemberRemove{Slot: m.Slot, C: m.C, Leave: leave}
	if st.Policy.KeyPolicy == space.KeysStatic {
		return control.KindMemberRemove, body, nil, nil
	}
	var ended []identity.Commitment
	if k, ok := st.Keeper(m.Slot); ok && k.Caps.Has(control.CapAdmit) {
		ended = slices.DeleteFunc(everybody(st), func(c identity.Commitment) bool { return c == m.C })
	}
	rot, err := a.rotate(st, control.KindMemberRemove, body, ended)
	if err != nil {
		return 0, nil, nil, err
	}
	body.Rotation = rot.body
	return control.KindMemberRemove, body, rot.pages, nil
}

// Rotate opens a new epoch.
func (n *Node) Rotate(ctx context.Context, id space.ID) (uint64, error) {
	a, err := n.byID(id)
	if err != nil {
		return 0, err
	}
	st, err := n.amend(ctx, a, a.renewal(nil))
	if err != nil {
		return 0, fmt.Errorf("rotate %s: %w", id, err)
	}
	return st.Epoch, nil
}

// renewal opens a new epoch for the same members; the chains of those named
// end with the old one.
func (a *actor) renewal(ended []identity.Commitment) amendment {
	return func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		rot, err := a.rotate(st, control.KindEpoch, control.Rotation{}, ended)
		if err != nil {
			return 0, nil, nil, err
		}
		return control.KindEpoch, *rot.body, rot.pages, nil
	}
}
