package node

import (
	"bytes"
	"context"
	"fmt"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

// UpdateSpace changes the policy. Closing a space that was public puts out who
// came by the public door, and opens a new epoch with it.
func (n *Node) UpdateSpace(ctx context.Context, id space.ID, patch xrpc.PolicyPatch) (xrpc.SpaceInfo, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.SpaceInfo{}, err
	}
	_, err = n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		next, err := patch.Apply(st.Policy)
		if err != nil {
			return 0, nil, nil, err
		}
		if err := next.Validate(); err != nil {
			return 0, nil, nil, err
		}
		if samePolicy(next, st.Policy) {
			return 0, nil, nil, nil
		}
		body := control.PolicyChange{Policy: next}
		closing := st.Policy.Mint == space.MintPublic && next.Mint != space.MintPublic
		if !closing || next.KeyPolicy == space.KeysStatic {
			return control.KindPolicy, body, nil, nil
		}
		rot, err := a.rotate(st, control.KindPolicy, body, nil)
		if err != nil {
			return 0, nil, nil, err
		}
		body.Rotation = rot.body
		return control.KindPolicy, body, rot.pages, nil
	})
	if err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("update %s: %w", id, err)
	}
	return a.info(), nil
}

// DeleteSpace writes the tombstone: nothing follows it in the log.
func (n *Node) DeleteSpace(ctx context.Context, id space.ID, reason string) error {
	a := n.anyByID(id)
	if a == nil {
		return fmt.Errorf("%s: %w", id, space.ErrSpaceNotFound)
	}
	if a.control().Deleted {
		return nil
	}
	if !a.takesPart() {
		return fmt.Errorf("%s: %w", id, space.ErrSpaceNotFound)
	}
	_, err := n.amend(ctx, a, func(*control.State) (control.Kind, any, []store.ObjectRow, error) {
		return control.KindDelete, control.Delete{Reason: reason}, nil, nil
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}

// samePolicy compares what would stand in the log.
func samePolicy(x, y space.Policy) bool {
	a, errA := space.Marshal(x)
	b, errB := space.Marshal(y)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
