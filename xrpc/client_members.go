package xrpc

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/kithnet/kith/space"
)

var (
	_ Roster      = (*Client)(nil)
	_ Delegations = (*Client)(nil)
	_ Invites     = (*Client)(nil)
	_ Approvals   = (*Client)(nil)
	_ Keys        = (*Client)(nil)
	_ Keepers     = (*Client)(nil)
	_ Admin       = (*Client)(nil)
	_ Transfers   = (*Client)(nil)
	_ Exits       = (*Client)(nil)
	_ Devices     = (*Client)(nil)
	_ Backups     = (*Client)(nil)
	_ Relays      = (*Client)(nil)
)

// about is the input of methods that name a space and little more.
func about(id space.ID, more ...string) map[string]any {
	in := map[string]any{"space": id.String()}
	for i := 0; i+1 < len(more); i += 2 {
		in[more[i]] = more[i+1]
	}
	return in
}

// rosterPages asks for the roster page by page.
func (c *Client) rosterPages(ctx context.Context, id space.ID, each func(membersAnswer) error) error {
	v := url.Values{"space": {id.String()}, "limit": {"1000"}}
	for {
		var out membersAnswer
		if err := c.query(ctx, "com.atproto.simplespace.listMembers", v, &out); err != nil {
			return err
		}
		if err := each(out); err != nil || out.Cursor == "" {
			return err
		}
		v.Set("cursor", out.Cursor)
	}
}

// Members lists the roster by DID.
func (c *Client) Members(ctx context.Context, id space.ID) (all []Member, err error) {
	err = c.rosterPages(ctx, id, func(page membersAnswer) error {
		for _, m := range page.Members {
			row, err := m.member()
			if err != nil {
				return err
			}
			all = append(all, row)
		}
		return nil
	})
	return all, err
}

func (m memberObject) member() (Member, error) {
	added, err := millis(m.AddedAt)
	return Member{m.DID, level(m.Level), m.Via, m.Keeper, added, m.Caps, m.Sequencer, m.Authority, m.Public, ""}, err
}

// AddMember adds a person.
func (c *Client) AddMember(ctx context.Context, id space.ID, who space.DID, l space.Level) (Member, error) {
	var out memberAnswer
	in := about(id, "did", string(who), "access", l.String())
	if err := c.procedure(ctx, "dev.happyview.space.addMember", in, &out); err != nil {
		return Member{}, err
	}
	added, err := millis(out.Member.CreatedAt)
	return Member{DID: who, Level: level(out.Member.Access), AddedMs: added, Link: out.Link}, err
}

// changed asks a method that answers with a member.
func (c *Client) changed(ctx context.Context, nsid string, in any) (Member, error) {
	var out memberObject
	if err := c.procedure(ctx, nsid, in, &out); err != nil {
		return Member{}, err
	}
	return out.member()
}

// SetLevel changes what a member may do.
func (c *Client) SetLevel(ctx context.Context, id space.ID, who space.DID, l space.Level) (Member, error) {
	return c.changed(ctx, "dev.kith.space.setLevel", about(id, "did", string(who), "level", l.String()))
}

// RemoveMember removes a person.
func (c *Client) RemoveMember(ctx context.Context, id space.ID, who space.DID) error {
	return c.procedure(ctx, "dev.happyview.space.removeMember", about(id, "did", string(who)), &done{})
}

// Delegations lists the spaces in the roster.
func (c *Client) Delegations(ctx context.Context, id space.ID) ([]Delegation, error) {
	var out membersAnswer
	v := url.Values{"space": {id.String()}, "limit": {"1"}}
	if err := c.query(ctx, "com.atproto.simplespace.listMembers", v, &out); err != nil {
		return nil, err
	}
	var all []Delegation
	for _, d := range out.Delegations {
		row, err := d.delegation()
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}

func (d delegationObject) delegation() (Delegation, error) {
	child, err := space.ParseID(d.Space)
	if err != nil {
		return Delegation{}, fmt.Errorf("answer: %w", err)
	}
	row := Delegation{Child: child, Level: level(d.Level), Depth: d.Depth}
	if row.AddedMs, err = millis(d.AddedAt); err == nil && d.RenewedAt != "" {
		row.RenewedMs, err = millis(d.RenewedAt)
	}
	return row, err
}

// Delegate adds a space to the roster, or changes its level. The answer knows
// nothing of depth and renewal: Delegations does.
func (c *Client) Delegate(ctx context.Context, id, child space.ID, l space.Level) (Delegation, error) {
	var out memberAnswer
	in := about(id, "did", child.String(), "access", l.String())
	in["isDelegation"] = true
	if err := c.procedure(ctx, "dev.happyview.space.addMember", in, &out); err != nil {
		return Delegation{}, err
	}
	added, err := millis(out.Member.CreatedAt)
	return Delegation{Child: child, Level: level(out.Member.Access), AddedMs: added}, err
}

// Undelegate removes a space from the roster.
func (c *Client) Undelegate(ctx context.Context, id, child space.ID) error {
	return c.procedure(ctx, "dev.happyview.space.removeMember", about(id, "did", child.String()), &done{})
}

type inviteBody struct {
	Space    string `json:"space"`
	Access   string `json:"access"`
	MaxUses  uint32 `json:"maxUses,omitempty"`
	Expires  string `json:"expiresAt,omitempty"`
	Approval bool   `json:"approval,omitempty"`
}

// Invite makes an invite.
func (c *Client) Invite(ctx context.Context, id space.ID, o InviteOptions) (Invite, error) {
	in := inviteBody{Space: id.String(), Access: o.Level.String(), MaxUses: o.MaxUses, Approval: o.Approval}
	if o.ExpiresMs != 0 {
		in.Expires = timeText(int64(o.ExpiresMs) * 1000)
	}
	var out inviteAnswer
	if err := c.procedure(ctx, "dev.happyview.space.createInvite", in, &out); err != nil {
		return Invite{}, err
	}
	until, err := untilOf(out.ExpiresAt)
	return Invite{out.InviteID, out.Link, level(out.Access), orZero(out.MaxUses), until, out.Approval}, err
}

func orZero(n *uint32) uint32 {
	if n == nil {
		return 0
	}
	return *n
}

// untilOf is 0 for never.
func untilOf(s *string) (uint64, error) {
	if s == nil {
		return 0, nil
	}
	at, err := millis(*s)
	return uint64(at), err
}

// Invites lists the doors, the newest first.
func (c *Client) Invites(ctx context.Context, id space.ID) ([]InviteInfo, error) {
	var all []InviteInfo
	v := url.Values{"space": {id.String()}, "limit": {"1000"}}
	for {
		var out invitesAnswer
		if err := c.query(ctx, "dev.happyview.space.listInvites", v, &out); err != nil {
			return nil, err
		}
		for _, i := range out.Invites {
			row, err := i.info()
			if err != nil {
				return nil, err
			}
			all = append(all, row)
		}
		if out.Cursor == "" {
			return all, nil
		}
		v.Set("cursor", out.Cursor)
	}
}

func (i inviteObject) info() (InviteInfo, error) {
	until, err := untilOf(i.ExpiresAt)
	if err != nil {
		return InviteInfo{}, err
	}
	created, err := millis(i.CreatedAt)
	return InviteInfo{i.ID, level(i.Access), i.Uses, orZero(i.MaxUses), until, i.Approval, i.Revoked, i.CreatedBy, created}, err
}

// RevokeInvite closes a door.
func (c *Client) RevokeInvite(ctx context.Context, id space.ID, invite string) error {
	return c.procedure(ctx, "dev.happyview.space.revokeInvite", about(id, "inviteId", invite), &done{})
}

type joinBody struct {
	Link string `json:"link"`
	Wait int64  `json:"waitSeconds"`
}

// Join waits until shortly before the deadline of ctx, or for the standard
// time if it has none.
func (c *Client) Join(ctx context.Context, link string) (Joined, error) {
	return c.JoinWait(ctx, link, patienceOf(ctx))
}

// patienceOf is how long a node should wait for somebody else.
func patienceOf(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		const margin = 2 * time.Second
		return max(0, time.Until(deadline)-margin)
	}
	return defaultWait * time.Second
}

// JoinWait waits for the key as long as wait, at most ten minutes, in whole
// seconds. After that it fails with ErrStillWaiting and the node goes on.
func (c *Client) JoinWait(ctx context.Context, link string, wait time.Duration) (Joined, error) {
	var out joinAnswer
	in := joinBody{link, min(int64(wait/time.Second), mostWait)}
	if err := c.procedure(ctx, "dev.kith.space.join", in, &out); err != nil {
		return Joined{}, err
	}
	id, err := space.ParseID(out.URI)
	if err != nil {
		return Joined{}, fmt.Errorf("answer: %w", err)
	}
	return Joined{id, level(out.Role), out.Epoch, out.Asked, out.By, out.Name}, nil
}

// Requests lists who waits for a yes, the first come first.
func (c *Client) Requests(ctx context.Context, id space.ID) ([]Request, error) {
	var all []Request
	v := url.Values{"space": {id.String()}, "limit": {"1000"}}
	for {
		var out requestsAnswer
		if err := c.query(ctx, "dev.kith.space.listRequests", v, &out); err != nil {
			return nil, err
		}
		for _, r := range out.Requests {
			asked, err := millis(r.AskedAt)
			if err != nil {
				return nil, err
			}
			all = append(all, Request{r.ID, r.DID, level(r.Level), r.Invite, asked})
		}
		if out.Cursor == "" {
			return all, nil
		}
		v.Set("cursor", out.Cursor)
	}
}

// Approve lets a newcomer in.
func (c *Client) Approve(ctx context.Context, id space.ID, request string) (Member, error) {
	return c.changed(ctx, "dev.kith.space.approveRequest", about(id, "request", request))
}

// Deny forgets a request.
func (c *Client) Deny(ctx context.Context, id space.ID, request string) error {
	return c.procedure(ctx, "dev.kith.space.denyRequest", about(id, "request", request), &done{})
}

// Rotate opens a new epoch.
func (c *Client) Rotate(ctx context.Context, id space.ID) (uint64, error) {
	var out epochAnswer
	err := c.procedure(ctx, "dev.kith.space.rotate", about(id), &out)
	return out.Epoch, err
}

// SetRelays opens a new epoch that names other relays; none: none.
func (c *Client) SetRelays(ctx context.Context, id space.ID, relays []string) (uint64, error) {
	var out epochAnswer
	err := c.procedure(ctx, "dev.kith.space.rotate", map[string]any{"space": id.String(), "relays": append([]string{}, relays...)}, &out)
	return out.Epoch, err
}
