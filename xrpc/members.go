package xrpc

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/kithnet/kith/space"
)

type membersAnswer struct {
	Members []memberObject `json:"members"`
	Cursor  string         `json:"cursor,omitempty"`
}

type memberObject struct {
	DID     space.DID `json:"did"`
	Access  string    `json:"access"`
	Level   string    `json:"level"`
	Via     string    `json:"via,omitempty"`
	Keeper  bool      `json:"keeper"`
	AddedAt string    `json:"addedAt"`
}

// listMembers lists the roster.
func listMembers(c *call) (any, error) {
	all, next, err := pageByDID(c, c.s.Membership.Members, func(m Member) space.DID { return m.DID })
	if err != nil {
		return nil, err
	}
	out := membersAnswer{make([]memberObject, len(all)), next}
	for i, m := range all {
		out.Members[i] = memberObject{m.DID, m.Level.String(), m.Level.String(), m.Via, m.Keeper, timeText(m.AddedMs * 1000)}
	}
	return out, nil
}

// inviteAnswer is HappyView's, with the link beside. The token is the link:
// whoever takes a token takes any text.
type inviteAnswer struct {
	InviteID  string  `json:"inviteId"`
	Token     string  `json:"token"`
	Link      string  `json:"link"`
	Access    string  `json:"access"`
	MaxUses   *uint32 `json:"maxUses"`
	ExpiresAt *string `json:"expiresAt"`
}

func createInvite(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	o := InviteOptions{Level: space.LevelRead}
	if level, ok, err := optional(c.in, "access", space.ParseLevel); err != nil {
		return nil, err
	} else if ok {
		o.Level = level
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
	inv, err := c.s.Membership.Invite(c.ctx(), id, o)
	if err != nil {
		return nil, err
	}
	out := inviteAnswer{InviteID: inv.ID, Token: inv.Link, Link: inv.Link, Access: inv.Level.String()}
	if inv.MaxUses != 0 {
		out.MaxUses = &inv.MaxUses
	}
	if inv.ExpiresMs != 0 {
		out.ExpiresAt = new(timeText(int64(inv.ExpiresMs) * 1000))
	}
	return made{out}, nil
}

// parseTime reads RFC 3339 with any offset, as unix milliseconds.
func parseTime(s string) (uint64, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UnixMilli() <= 0 {
		return 0, errors.New("want a time such as 2027-01-31T12:00:00Z")
	}
	return uint64(t.UnixMilli()), nil
}

// The waits of a join, in seconds.
const (
	defaultWait = 30
	mostWait    = 600
)

type joinAnswer struct {
	URI   string `json:"uri"`
	Role  string `json:"role"`
	Epoch uint64 `json:"epoch"`
	Asked string `json:"asked"`
	By    string `json:"by"`
	Name  string `json:"name,omitempty"`
}

// joinSpace waits for the key as long as the caller asks; 0 only asks.
func joinSpace(c *call) (any, error) {
	link, err := c.required("link")
	if err != nil {
		return nil, err
	}
	wait, given, err := c.body.number("waitSeconds", 0, mostWait)
	if err != nil {
		return nil, err
	}
	if !given {
		wait = defaultWait
	}
	patience := time.Duration(wait) * time.Second
	c.extend(patience)
	ctx, cancel := context.WithTimeout(c.ctx(), patience)
	defer cancel()
	j, err := c.s.Membership.Join(ctx, link)
	if errors.Is(err, context.DeadlineExceeded) {
		err = faultf(ErrStillWaiting, "still waiting for a keeper to grant the key after %d s; the node goes on asking, see status", wait)
	}
	if err != nil {
		return nil, err
	}
	return joinAnswer{c.d.spaceURI(j.ID), j.Level.String(), j.Epoch, j.Asked, j.By, j.Name}, nil
}
