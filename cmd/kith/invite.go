package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type spaceInviteCmd struct {
	Space    string `arg:"" help:"URI or petname."`
	Level    string `help:"What who joins may do: write, read, read_self. Standard: write." enum:"write,read,read_self" default:"write" placeholder:"LEVEL"`
	Uses     uint32 `help:"How many may join by it. Standard: 1." default:"1" placeholder:"N"`
	Expires  span   `help:"How long it is good: 7d, 12h, 30m. Standard: 7d." default:"7d" placeholder:"DUR"`
	Approval bool   `help:"Each who comes waits until somebody says yes: kith space approve."`
	QR       bool   `help:"Show the link as a QR code too." name:"qr"`
}

// inviteView is a new invite in JSON. The link is a secret.
type inviteView struct {
	Link      string      `json:"link"`
	ID        string      `json:"id"`
	Space     space.ID    `json:"space"`
	Level     space.Level `json:"level"`
	Uses      uint32      `json:"uses"`
	ExpiresAt string      `json:"expiresAt"`
	Approval  bool        `json:"approval"`
}

// Run makes an invite link.
func (c *spaceInviteCmd) Run(a *app) error {
	switch {
	case c.Uses == 0:
		return usage("--uses 1", "--uses: an invite that nobody may use is none")
	case c.Expires <= 0:
		return usage("--expires 7d", "--expires: want a time to come")
	case c.QR && a.JSON:
		return usage("leave --qr or --json out", "--qr: a picture is no JSON")
	}
	level, err := space.ParseLevel(c.Level)
	if err != nil {
		return usage("--level write", "--level: %s", reason(err))
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	until := time.Now().Add(time.Duration(c.Expires)).UnixMilli()
	inv, err := api.Invite(a.ctx, id, xrpc.InviteOptions{Level: level, MaxUses: c.Uses, ExpiresMs: uint64(until), Approval: c.Approval})
	if err != nil {
		return err
	}
	v := inviteView{inv.Link, inv.ID, id, inv.Level, inv.MaxUses, timestamp(int64(inv.ExpiresMs)), inv.Approval}
	picture := ""
	if c.QR {
		if picture, err = qrCode(v.Link); err != nil {
			return err
		}
	}
	return a.answer(v, func(w io.Writer) {
		fmt.Fprintln(w, v.Link)
		fmt.Fprint(w, picture)
		a.say("invite", "%s: %s, until %s; whoever has the link can join", v.ID, uses(v), v.ExpiresAt)
		if v.Approval {
			a.say("", "after somebody said yes: %s", a.kith("space approve %s", c.Space))
		}
		a.say("next", "they: kith space join LINK, while this node or a keeper runs")
	})
}

func uses(v inviteView) string {
	if v.Uses == 1 {
		return fmt.Sprintf("one may join to %s", v.Level)
	}
	return fmt.Sprintf("%d may join to %s", v.Uses, v.Level)
}

type spaceInvitesCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// doorView is an invite that was made, in JSON: without its link.
type doorView struct {
	ID        string      `json:"id"`
	Level     space.Level `json:"level"`
	Uses      uint32      `json:"uses"`
	MaxUses   *uint32     `json:"maxUses"`
	ExpiresAt *string     `json:"expiresAt"`
	Approval  bool        `json:"approval"`
	Revoked   bool        `json:"revoked"`
	State     string      `json:"state"`
	CreatedBy space.DID   `json:"createdBy"`
	CreatedAt string      `json:"createdAt"`
}

func doorOf(i xrpc.InviteInfo, nowMs int64) doorView {
	v := doorView{
		ID: i.ID, Level: i.Level, Uses: i.Uses, Approval: i.Approval, Revoked: i.Revoked, State: "open",
		CreatedBy: i.CreatedBy, CreatedAt: timestamp(i.CreatedMs),
	}
	if i.MaxUses != 0 {
		v.MaxUses = &i.MaxUses
	}
	if i.ExpiresMs != 0 {
		v.ExpiresAt = new(timestamp(int64(i.ExpiresMs)))
	}
	switch {
	case i.Revoked:
		v.State = "revoked"
	case i.MaxUses != 0 && i.Uses >= i.MaxUses:
		v.State = "spent"
	case i.ExpiresMs != 0 && int64(i.ExpiresMs) <= nowMs:
		v.State = "expired"
	}
	return v
}

// Run lists the invites, the newest first.
func (c *spaceInvitesCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	all, err := api.Invites(a.ctx, id)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	views := make([]doorView, len(all))
	for i, v := range all {
		views[i] = doorOf(v, now)
	}
	return a.answer(map[string]any{"invites": views}, func(w io.Writer) {
		if len(views) == 0 {
			a.say("invites", "none; next: %s", a.kith("space invite %s", c.Space))
			return
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, v := range views {
			most, until := "any", "ever"
			if v.MaxUses != nil {
				most = fmt.Sprint(*v.MaxUses)
			}
			if v.ExpiresAt != nil {
				until = *v.ExpiresAt
			}
			fmt.Fprintf(t, "%s\t%s\t%d of %s\tuntil %s\t%s\n", v.ID, v.Level, v.Uses, most, until, v.State)
		}
		t.Flush()
	})
}

type spaceUninviteCmd struct {
	Space string `arg:"" help:"URI or petname."`
	ID    string `arg:"" help:"The invite's id, as kith space invites lists it." name:"id"`
}

// Run revokes an invite. Who came in by it stays.
func (c *spaceUninviteCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	if err := api.RevokeInvite(a.ctx, id, c.ID); err != nil {
		return err
	}
	return a.answer(map[string]any{"id": c.ID, "revoked": true}, func(w io.Writer) { line(w, "revoked", "%s", c.ID) })
}

type spaceApproveCmd struct {
	Space   string `arg:"" help:"URI or petname."`
	Request string `arg:"" optional:"" help:"Who, as this command lists them without it." name:"request"`
	Deny    bool   `help:"Say no."`
}

// requestView is a newcomer in JSON.
type requestView struct {
	ID      string      `json:"id"`
	DID     space.DID   `json:"did"`
	Level   space.Level `json:"level"`
	Invite  string      `json:"invite"`
	AskedAt string      `json:"askedAt"`
}

// Run lists who waits, or answers one of them.
func (c *spaceApproveCmd) Run(a *app) error {
	if c.Request == "" && c.Deny {
		return usage(a.kith("space approve %s", c.Space)+" lists who waits", "--deny: whom?")
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	switch {
	case c.Request == "":
		return c.list(a, api, id)
	case c.Deny:
		if err := api.Deny(a.ctx, id, c.Request); err != nil {
			return err
		}
		return a.answer(map[string]any{"id": c.Request, "denied": true}, func(w io.Writer) { line(w, "denied", "%s", c.Request) })
	}
	m, err := api.Approve(a.ctx, id, c.Request)
	if err != nil {
		return err
	}
	return a.answer(memberOf(m), func(w io.Writer) { line(w, "member", "%s to %s", m.DID, m.Level) })
}

func (c *spaceApproveCmd) list(a *app, api *xrpc.Client, id space.ID) error {
	all, err := api.Requests(a.ctx, id)
	if err != nil {
		return err
	}
	views := make([]requestView, len(all))
	for i, r := range all {
		views[i] = requestView{r.ID, r.DID, r.Level, r.Invite, timestamp(r.AskedMs)}
	}
	return a.answer(map[string]any{"requests": views}, func(w io.Writer) {
		if len(views) == 0 {
			a.say("requests", "none")
			return
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, v := range views {
			fmt.Fprintf(t, "%s\t%s\tto %s\tsince %s\n", v.ID, v.DID, v.Level, v.AskedAt)
		}
		t.Flush()
	})
}
