package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type spaceCmd struct {
	Create  spaceCreateCmd  `cmd:"" help:"Make a space."`
	List    spaceListCmd    `cmd:"" help:"List the spaces of this node."`
	Show    spaceShowCmd    `cmd:"" help:"Show one space."`
	Invite  spaceInviteCmd  `cmd:"" help:"Make a link that lets others in."`
	Join    spaceJoinCmd    `cmd:"" help:"Join a space by its link."`
	Members spaceMembersCmd `cmd:"" help:"List who belongs to a space."`
}

type spaceCreateCmd struct {
	Type        space.NSID      `help:"What kind of space, such as com.example.notes." required:"" placeholder:"NSID"`
	Key         space.RecordKey `help:"Last part of its address. Standard: drawn." placeholder:"SKEY"`
	Name        string          `help:"Petname, for this node only." placeholder:"NAME"`
	Mint        string          `help:"Who gets credentials: member-list, public, managing-app." enum:",member-list,public,managing-app" default:"" placeholder:"POLICY"`
	ManagingApp string          `help:"The managing app." placeholder:"DID"`
	AppAccess   string          `help:"Which apps: open, allowList." enum:",open,allowList" default:"" placeholder:"POLICY"`
	Allow       []string        `help:"App that may, again for more." placeholder:"ID" sep:"none"`
	History     string          `help:"What newcomers read: full, from-join." enum:",full,from-join" default:"" placeholder:"POLICY"`
	KeyPolicy   string          `help:"When a reader goes: rotate, static." enum:",rotate,static" default:"" placeholder:"POLICY"`
	Relay       []string        `help:"Relay that carries it, again for more, or none." placeholder:"ADDR" sep:"none"`
	OwnDID      bool            `help:"Give the space a DID of its own." name:"own-did"`
}

// spaceView is a space in JSON.
type spaceView struct {
	URI       space.ID     `json:"uri"`
	SpaceID   string       `json:"spaceId"`
	Name      string       `json:"name,omitempty"`
	Epoch     uint64       `json:"epoch"`
	Role      space.Level  `json:"role"`
	Authority space.DID    `json:"authority"`
	Creator   space.DID    `json:"creator"`
	CreatedAt string       `json:"createdAt"`
	Rev       string       `json:"rev,omitempty"`
	Policy    space.Policy `json:"policy"`
}

func view(s xrpc.SpaceInfo) spaceView {
	v := spaceView{
		URI: s.ID, SpaceID: hex.EncodeToString(s.SpaceID[:]), Name: s.Name, Epoch: s.Epoch, Role: s.Level,
		Authority: s.Authority, Creator: s.Creator, CreatedAt: timestamp(s.CreatedMs), Policy: s.Policy,
	}
	if s.Rev != 0 {
		v.Rev = s.Rev.String()
	}
	return v
}

func timestamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// Run makes a space; the node refuses policies it does not carry out.
func (c *spaceCreateCmd) Run(a *app) error {
	if strings.Contains(c.Name, "://") {
		return usage("choose a name without ://", "--name: %q reads like an address", c.Name)
	}
	if c.OwnDID {
		return notBuilt("--own-did")
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	if len(c.Relay) == 1 && c.Relay[0] == "none" {
		c.Relay = nil
	}
	info, err := api.CreateSpace(a.ctx, xrpc.NewSpace{
		Type: c.Type, Key: c.Key, Name: c.Name, Relays: c.Relay,
		Policy: space.Policy{
			Mint: c.Mint, ManagingApp: c.ManagingApp, AppAccess: c.AppAccess, Allow: c.Allow,
			History: c.History, KeyPolicy: c.KeyPolicy,
		},
	})
	if err != nil {
		return err
	}
	return a.answer(view(info), func(w io.Writer) {
		fmt.Fprintln(w, info.ID)
		a.say("next", "%s", a.kith("space invite %s", called(info.Name, info.ID)))
	})
}

type spaceListCmd struct{}

// Run lists the owner's spaces.
func (*spaceListCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	all, err := api.Spaces(a.ctx)
	if err != nil {
		return err
	}
	views := make([]spaceView, len(all))
	for i, s := range all {
		views[i] = view(s)
	}
	return a.answer(map[string]any{"spaces": views}, func(w io.Writer) {
		if len(views) == 0 {
			a.say("spaces", "none; next: %s", a.kith("space create --type com.example.notes --name NAME"))
			return
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, v := range views {
			name := v.Name
			if name == "" {
				name = "-"
			}
			fmt.Fprintf(t, "%s\t%s\tepoch %d\t%s\n", name, v.Role, v.Epoch, v.URI)
		}
		t.Flush()
	})
}

type spaceShowCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// Run shows one space.
func (c *spaceShowCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	info, err := api.Space(a.ctx, id)
	if err != nil {
		return err
	}
	v := view(info)
	return a.answer(v, func(w io.Writer) {
		line(w, "space", "%s", v.URI)
		if v.Name != "" {
			line(w, "name", "%s", v.Name)
		}
		line(w, "id", "%s", v.SpaceID)
		line(w, "role", "%s", v.Role)
		line(w, "epoch", "%d", v.Epoch)
		line(w, "authority", "%s", v.Authority)
		line(w, "created", "%s", v.CreatedAt)
		line(w, "policy", "mint %s, apps %s, keys %s, history %s", v.Policy.Mint, v.Policy.AppAccess, v.Policy.KeyPolicy, v.Policy.History)
	})
}

type spaceInviteCmd struct {
	Space   string `arg:"" help:"URI or petname."`
	Level   string `help:"What who joins may do: write, read, read_self. Standard: write." enum:"write,read,read_self" default:"write" placeholder:"LEVEL"`
	Uses    uint32 `help:"How many may join by it. Standard: 1." default:"1" placeholder:"N"`
	Expires span   `help:"How long it is good: 7d, 12h, 30m. Standard: 7d." default:"7d" placeholder:"DUR"`
}

// inviteView is an invite in JSON. The link is a secret.
type inviteView struct {
	Link      string      `json:"link"`
	ID        string      `json:"id"`
	Space     space.ID    `json:"space"`
	Level     space.Level `json:"level"`
	Uses      uint32      `json:"uses"`
	ExpiresAt string      `json:"expiresAt"`
}

// Run makes an invite link.
func (c *spaceInviteCmd) Run(a *app) error {
	switch {
	case c.Uses == 0:
		return usage("--uses 1", "--uses: an invite that nobody may use is none")
	case c.Expires <= 0:
		return usage("--expires 7d", "--expires: want a time to come")
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
	inv, err := api.Invite(a.ctx, id, xrpc.InviteOptions{Level: level, MaxUses: c.Uses, ExpiresMs: uint64(until)})
	if err != nil {
		return err
	}
	v := inviteView{inv.Link, inv.ID, id, inv.Level, inv.MaxUses, timestamp(int64(inv.ExpiresMs))}
	return a.answer(v, func(w io.Writer) {
		fmt.Fprintln(w, v.Link)
		a.say("invite", "%s: %s, until %s; whoever has the link can join", v.ID, uses(v), v.ExpiresAt)
		a.say("next", "they: kith space join LINK, while this node runs")
	})
}

func uses(v inviteView) string {
	if v.Uses == 1 {
		return fmt.Sprintf("one may join to %s", v.Level)
	}
	return fmt.Sprintf("%d may join to %s", v.Uses, v.Level)
}

type spaceMembersCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// memberView is a member in JSON.
type memberView struct {
	DID     space.DID   `json:"did"`
	Level   space.Level `json:"level"`
	Via     string      `json:"via"`
	Keeper  bool        `json:"keeper"`
	AddedAt string      `json:"addedAt"`
}

// Run lists the roster.
func (c *spaceMembersCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	all, err := api.Members(a.ctx, id)
	if err != nil {
		return err
	}
	views := make([]memberView, len(all))
	for i, m := range all {
		views[i] = memberView{m.DID, m.Level, m.Via, m.Keeper, timestamp(m.AddedMs)}
	}
	return a.answer(map[string]any{"members": views}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, v := range views {
			via := v.Via
			if via == "" {
				via = "-"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", v.DID, v.Level, via)
		}
		t.Flush()
	})
}
