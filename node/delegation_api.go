package node

import (
	"context"
	"fmt"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

var _ xrpc.Delegations = (*Node)(nil)

// Delegations lists the spaces that are members of a space.
func (n *Node) Delegations(_ context.Context, id space.ID) ([]xrpc.Delegation, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	out := []xrpc.Delegation{}
	for d := range a.control().Delegations() {
		row, err := delegationRow(d)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

func delegationRow(d control.DelegationState) (xrpc.Delegation, error) {
	child, err := space.ParseID(d.Descriptor.URI)
	return xrpc.Delegation{
		Child: child, Level: d.Level, AddedMs: d.AddedMs, Depth: int(d.Descriptor.Depth) + 1,
		RenewedMs: int64(d.Descriptor.NotAfterMs) - control.DescriptorLifeMs,
	}, err
}

// Delegate makes a space that the owner belongs to a member of another one,
// changes its level, or brings what has changed in it.
func (n *Node) Delegate(ctx context.Context, id, child space.ID, level space.Level) (xrpc.Delegation, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Delegation{}, err
	}
	c, err := n.byID(child)
	if err != nil || c.ownLevel() == space.LevelNone {
		return xrpc.Delegation{}, fmt.Errorf("delegate to %s: %w", child, space.ErrSpaceNotFound)
	}
	if level != space.LevelRead && level != space.LevelWrite {
		return xrpc.Delegation{}, fmt.Errorf("delegate at %v: a space is a member at read or write: %w", level, space.ErrMalformed)
	}
	if c.control().Policy.KeyPolicy == space.KeysStatic {
		return xrpc.Delegation{}, fmt.Errorf("delegate to %s: its keys never change, who leaves it would read on here: %w", child, space.ErrUnsupported)
	}
	if c.sid == a.sid {
		return xrpc.Delegation{}, fmt.Errorf("delegate to %s: %w", child, space.ErrDelegationCycle)
	}
	d, err := n.fetchDescriptor(ctx, a, c.sid, [32]byte{})
	if err != nil {
		return xrpc.Delegation{}, fmt.Errorf("delegate to %s: %w", child, err)
	}
	st, err := n.amend(ctx, a, a.delegate(d, func(*control.State) space.Level { return level }))
	if err != nil {
		return xrpc.Delegation{}, fmt.Errorf("delegate to %s: %w", child, err)
	}
	n.kin.hear(a.sid, c.sid)
	now, ok := st.Delegation(c.sid)
	if !ok {
		return xrpc.Delegation{}, fmt.Errorf("delegate to %s: %w", child, space.ErrMemberNotFound)
	}
	return delegationRow(now)
}

// Undelegate takes a child out and opens a new epoch in the same entry. The
// child need not be known here.
func (n *Node) Undelegate(ctx context.Context, id, child space.ID) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	for d := range a.control().Delegations() {
		if d.Descriptor.URI != child.AT() {
			continue
		}
		if _, err := n.amend(ctx, a, a.undelegate(d.Child)); err != nil {
			return fmt.Errorf("take %s out: %w", child, err)
		}
		if c := n.bySpace(d.Child); c != nil && c.sequences() {
			return n.dropParent(c.sid, a.sid[:])
		}
		return nil
	}
	return fmt.Errorf("take %s out: %w", child, space.ErrMemberNotFound)
}

// delegationWarnings name children that have been silent for long: who left
// them since may still read here.
func (n *Node) delegationWarnings() (out []string) {
	for _, r := range n.all() {
		if !r.admits() {
			continue
		}
		for d := range r.control().Delegations() {
			if time.Since(n.kin.silent(r.sid, d.Child)) > delegateStale {
				out = append(out, fmt.Sprintf("%s: nothing was heard of its member space %s for an hour: who left that one may still read here", r.id, d.Descriptor.URI))
			}
		}
	}
	return out
}
