package xrpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kithnet/kith/space"
)

// inviteAnswer is HappyView's, with the link beside. The token is the link:
// whoever takes a token takes any text.
type inviteAnswer struct {
	InviteID  string  `json:"inviteId"`
	Token     string  `json:"token"`
	Link      string  `json:"link"`
	Access    string  `json:"access"`
	MaxUses   *uint32 `json:"maxUses"`
	ExpiresAt *string `json:"expiresAt"`
	Approval  bool    `json:"approval"`
}

func createInvite(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	o := InviteOptions{}
	if o.Level, err = c.inviteLevel(); err != nil {
		return nil, err
	}
	uses, _, err := c.body.number("maxUses", 1, math.MaxUint32)
	if err != nil {
		return nil, err
	}
	o.MaxUses = uint32(uses)
	if at, ok, err := optional(c.in, "expiresAt", parseTime); err != nil {
		return nil, err
	} else if ok {
		o.ExpiresMs = at
	}
	if o.Approval, _, err = c.body.boolean("approval"); err != nil {
		return nil, err
	}
	inv, err := c.s.Invites.Invite(c.ctx(), id, o)
	if err != nil {
		return nil, err
	}
	return made{inviteAnswer{
		inv.ID, inv.Link, inv.Link, inv.Level.String(), usesOrNull(inv.MaxUses), msOrNull(inv.ExpiresMs), inv.Approval,
	}}, nil
}

// inviteLevel is read unless the request says otherwise: the method is
// HappyView's in every dialect.
func (c *call) inviteLevel() (space.Level, error) {
	level, ok, err := optional(c.in, "access", space.ParseLevel)
	if err == nil && !ok {
		level = space.LevelRead
	}
	return level, err
}

func usesOrNull(n uint32) *uint32 {
	if n == 0 {
		return nil
	}
	return &n
}

func msOrNull(ms uint64) *string {
	if ms == 0 || ms > math.MaxInt64/1000 {
		return nil
	}
	return new(timeText(int64(ms) * 1000))
}

// parseTime reads RFC 3339 with any offset, as unix milliseconds.
func parseTime(s string) (uint64, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UnixMilli() <= 0 {
		return 0, errors.New("want a time such as 2027-01-31T12:00:00Z")
	}
	return uint64(t.UnixMilli()), nil
}

// inviteObject is a row of listInvites.
type inviteObject struct {
	ID        string    `json:"id"`
	Access    string    `json:"access"`
	MaxUses   *uint32   `json:"maxUses"`
	Uses      uint32    `json:"uses"`
	ExpiresAt *string   `json:"expiresAt"`
	Revoked   bool      `json:"revoked"`
	Approval  bool      `json:"approval"`
	CreatedBy space.DID `json:"createdBy"`
	CreatedAt string    `json:"createdAt"`
}

type invitesAnswer struct {
	Invites []inviteObject `json:"invites"`
	Cursor  string         `json:"cursor,omitempty"`
}

// listInvites lists doors, the newest first: all of them unless the caller
// asks for pages. Nothing in it opens a door.
func listInvites(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	limit, err := c.limit(0, 1000)
	if err != nil {
		return nil, err
	}
	all, err := c.s.Invites.Invites(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	newest := func(i InviteInfo) string {
		return fmt.Sprintf("%s%016x.%s", rowCursor, uint64(math.MaxInt64-max(i.CreatedMs, 0)), i.ID)
	}
	all, next, err := page(c, sorted(all, newest), limit, newest)
	if err != nil {
		return nil, err
	}
	out := invitesAnswer{make([]inviteObject, len(all)), next}
	for i, v := range all {
		out.Invites[i] = inviteObject{
			v.ID, v.Level.String(), usesOrNull(v.MaxUses), v.Uses, msOrNull(v.ExpiresMs), v.Revoked, v.Approval,
			v.CreatedBy, timeText(v.CreatedMs * 1000),
		}
	}
	return out, nil
}

// revokeInvite closes a door of the space that is named, of no other.
func revokeInvite(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	invite, err := c.hexID("inviteId")
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Invites.RevokeInvite(c.ctx(), id, invite)
}

// hexID reads an id as this API writes them.
func (c *call) hexID(name string) (string, error) {
	text, err := c.required(name)
	if err != nil {
		return "", err
	}
	if b, err := hex.DecodeString(text); err != nil || len(b) == 0 || len(b) > 32 || hex.EncodeToString(b) != text {
		return "", faultf(errRequest, "%s: want an id as the list gives it, in lower-case hex", name)
	}
	return text, nil
}

// The waits of a join, in seconds.
const (
	defaultWait = 30
	mostWait    = 600
)

type joinAnswer struct {
	URI    string `json:"uri"`
	Access string `json:"access"`
	Role   string `json:"role"`
	Epoch  uint64 `json:"epoch"`
	Asked  string `json:"asked"`
	By     string `json:"by"`
	Name   string `json:"name,omitempty"`
}

// joinSpace waits for the key as long as the caller asks; 0 only asks.
func joinSpace(c *call) (any, error) {
	link, err := c.required("link")
	if err != nil {
		return nil, err
	}
	return c.join(link)
}

// acceptInvite is HappyView's way to join: who is in already is told so.
func acceptInvite(c *call) (any, error) {
	link, err := c.required("token")
	if err != nil {
		return nil, err
	}
	out, err := c.join(link)
	if err != nil {
		return nil, err
	}
	if out.Asked == "" {
		return nil, faultf(space.ErrMemberExists, "You are already a member of this space")
	}
	return made{out}, nil
}

func (c *call) join(link string) (joinAnswer, error) {
	wait, given, err := c.body.number("waitSeconds", 0, mostWait)
	if err != nil {
		return joinAnswer{}, err
	}
	if !given {
		wait = defaultWait
	}
	patience := time.Duration(wait) * time.Second
	c.extend(patience)
	ctx, cancel := context.WithTimeout(c.ctx(), patience)
	defer cancel()
	j, err := c.s.Invites.Join(ctx, link)
	if errors.Is(err, context.DeadlineExceeded) {
		err = faultf(ErrStillWaiting, "still waiting for a keeper to grant the key after %d s; the node goes on asking, see status", wait)
	}
	if err != nil {
		return joinAnswer{}, err
	}
	return joinAnswer{c.d.spaceURI(j.ID), j.Level.String(), j.Level.String(), j.Epoch, j.Asked, j.By, j.Name}, nil
}

type requestObject struct {
	ID      string    `json:"id"`
	DID     space.DID `json:"did"`
	Level   string    `json:"level"`
	Invite  string    `json:"inviteId"`
	AskedAt string    `json:"askedAt"`
}

type requestsAnswer struct {
	Requests []requestObject `json:"requests"`
	Cursor   string          `json:"cursor,omitempty"`
}

// listRequests lists who waits for a yes, the first come first.
func listRequests(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	limit, err := c.limit(100, 1000)
	if err != nil {
		return nil, err
	}
	all, err := c.s.Approvals.Requests(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	first := func(r Request) string { return fmt.Sprintf("%s%016x.%s", rowCursor, uint64(max(r.AskedMs, 0)), r.ID) }
	all, next, err := page(c, sorted(all, first), limit, first)
	if err != nil {
		return nil, err
	}
	out := requestsAnswer{make([]requestObject, len(all)), next}
	for i, r := range all {
		out.Requests[i] = requestObject{r.ID, r.DID, r.Level.String(), r.Invite, timeText(r.AskedMs * 1000)}
	}
	return out, nil
}

func approveRequest(c *call) (any, error) {
	id, request, err := c.spaceAndRequest()
	if err != nil {
		return nil, err
	}
	m, err := c.s.Approvals.Approve(c.ctx(), id, request)
	return objectOf(m), err
}

func denyRequest(c *call) (any, error) {
	id, request, err := c.spaceAndRequest()
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Approvals.Deny(c.ctx(), id, request)
}

func (c *call) spaceAndRequest() (space.ID, string, error) {
	id, err := c.spaceID()
	if err != nil {
		return id, "", err
	}
	request, err := c.hexID("request")
	return id, request, err
}
