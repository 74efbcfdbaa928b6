package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

var (
	_ xrpc.Invites   = (*Node)(nil)
	_ xrpc.Approvals = (*Node)(nil)
)

// Invite opens a door and returns its link.
func (n *Node) Invite(ctx context.Context, id space.ID, o xrpc.InviteOptions) (xrpc.Invite, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Invite{}, err
	}
	if now := time.Now().UnixMilli(); o.ExpiresMs != 0 && int64(o.ExpiresMs) <= now {
		return xrpc.Invite{}, fmt.Errorf("invite: it would have expired already: %w", space.ErrMalformed)
	}
	link := control.Link{SpaceID: a.sid}
	rand.Read(link.Secret[:])
	inv := control.Invite{
		ID: link.InviteID(), Level: o.Level, MaxUses: o.MaxUses, ExpiresMs: o.ExpiresMs, NeedsApproval: o.Approval,
	}
	copy(inv.Pub[:], link.InviteKey().Public().(ed25519.PublicKey))
	st, err := n.amend(ctx, a, func(*control.State) (control.Kind, any, []store.ObjectRow, error) {
		return control.KindInvite, inv, nil, nil
	})
	if err != nil {
		return xrpc.Invite{}, fmt.Errorf("invite: %w", err)
	}
	link.Head = st.Head.Hash
	link.Addrs = n.doorAddrs(a)
	return xrpc.Invite{
		ID: hex.EncodeToString(inv.ID[:]), Link: link.String(), Level: o.Level, MaxUses: o.MaxUses, ExpiresMs: o.ExpiresMs,
	}, nil
}

// signpost is a link that opens no door: it says where the space is, to who is
// in its roster already or needs no invite.
func (n *Node) signpost(a *actor) string {
	return control.Link{SpaceID: a.sid, Head: a.control().Head.Hash, Addrs: n.doorAddrs(a)}.String()
}

// maxLinkAddrs keeps links short enough for a QR code.
const maxLinkAddrs = 6

// doorAddrs are where a newcomer may ask: this node where it admits itself,
// and the keepers, which are up when it sleeps. The relays of the space travel
// in them: as ways to these nodes.
func (n *Node) doorAddrs(a *actor) []string {
	own := linkAddrs(fullAddrs(n.host), maxLinkAddrs)
	var others []string
	for _, p := range n.keepers(a) {
		var addrs []string
		for _, m := range p.Addrs {
			addrs = append(addrs, m.String()+"/p2p/"+p.ID.String())
		}
		others = append(others, linkAddrs(addrs, 2)...)
		for _, r := range n.relays.of(a.sid)[:min(1, len(n.relays.of(a.sid)))] {
			for _, c := range throughRelay(r)[:1] {
				others = append(others, c.String()+"/p2p/"+p.ID.String())
			}
		}
	}
	if len(others) == 0 {
		return own
	}
	return append(linkAddrs(own, 3), others[:min(len(others), maxLinkAddrs-min(3, len(own)))]...)
}

// linkAddrs picks from addresses of which the loopback ones stand last: the
// last one stays in, so that a second node of this machine can always join.
func linkAddrs(addrs []string, most int) []string {
	if len(addrs) <= most {
		return addrs
	}
	return append(slices.Clone(addrs[:most-1]), addrs[len(addrs)-1])
}

// Invites lists the doors ever opened.
func (n *Node) Invites(_ context.Context, id space.ID) ([]xrpc.InviteInfo, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	st := a.control()
	var out []xrpc.InviteInfo
	for v := range st.Invites() {
		out = append(out, xrpc.InviteInfo{
			ID: hex.EncodeToString(v.ID[:]), Level: v.Level, Uses: v.Uses, MaxUses: v.MaxUses, ExpiresMs: v.ExpiresMs,
			Approval: v.NeedsApproval, Revoked: v.Revoked, CreatedBy: st.Authority.DID, CreatedMs: v.AddedMs,
		})
	}
	return out, nil
}

// RevokeInvite closes a door.
func (n *Node) RevokeInvite(ctx context.Context, id space.ID, invite string) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	b, err := hex.DecodeString(invite)
	if err != nil || len(b) != 16 {
		return fmt.Errorf("invite %q: %w", invite, space.ErrInviteNotFound)
	}
	_, err = n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		v, ok := st.Invite([16]byte(b))
		switch {
		case !ok:
			return 0, nil, nil, space.ErrInviteNotFound
		case v.Revoked:
			return 0, nil, nil, nil
		}
		return control.KindInviteRevoke, control.InviteRevoke{ID: v.ID}, nil, nil
	})
	if err != nil {
		return fmt.Errorf("revoke invite %s: %w", invite, err)
	}
	return nil
}

// Requests lists who waits for an approval at this node.
func (n *Node) Requests(_ context.Context, id space.ID) ([]xrpc.Request, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	st := a.control()
	var out []xrpc.Request
	for _, q := range n.approvals.of(a.sid) {
		v, _ := st.Invite(q.Invite)
		out = append(out, xrpc.Request{
			ID: q.ID, DID: q.Who.DID, Level: v.Level, Invite: hex.EncodeToString(q.Invite[:]), AskedMs: q.At.UnixMilli(),
		})
	}
	return out, nil
}

// Approve lets a newcomer in. It gets its keys when it asks again, which it
// does by itself.
func (n *Node) Approve(ctx context.Context, id space.ID, request string) (xrpc.Member, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Member{}, err
	}
	for _, q := range n.approvals.of(a.sid) {
		if q.ID != request {
			continue
		}
		st, err := n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
			v, ok := st.Invite(q.Invite)
			if _, in := st.Member(q.Who.C); in {
				return 0, nil, nil, nil
			}
			if !ok || !v.Live(time.Now().UnixMilli()) {
				return 0, nil, nil, space.ErrInvite
			}
			return control.KindMemberAdd, control.MemberAdd{
				Slot: st.NextSlot(), C: q.Who.C, DID: q.Who.DID, Level: v.Level, ILHead: q.Who.Head,
				InviteID: v.ID[:], Use: v.Uses + 1,
			}, nil, nil
		})
		if err != nil {
			return xrpc.Member{}, fmt.Errorf("approve %s: %w", request, err)
		}
		n.learn(q.Who.C, q.Who.Head, q.Log)
		if err := n.approvals.decide(a.sid, request, true); err != nil {
			return xrpc.Member{}, err
		}
		return memberOf(st, q.Who.DID)
	}
	return xrpc.Member{}, fmt.Errorf("request %s: %w", request, space.ErrRequestNotFound)
}

// Deny forgets a request.
func (n *Node) Deny(_ context.Context, id space.ID, request string) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	return n.approvals.decide(a.sid, request, false)
}
