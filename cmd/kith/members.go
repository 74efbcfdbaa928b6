package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type spaceMembersCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// memberView is a member in JSON.
type memberView struct {
	DID       space.DID   `json:"did"`
	Level     space.Level `json:"level"`
	Via       string      `json:"via"`
	Keeper    bool        `json:"keeper"`
	Caps      []xrpc.Cap  `json:"caps,omitempty"`
	Sequencer bool        `json:"sequencer,omitempty"`
	Authority bool        `json:"authority,omitempty"`
	AddedAt   string      `json:"addedAt"`
	Epoch     uint64      `json:"epoch,omitempty"` // of the space, after a change
}

func memberOf(m xrpc.Member) memberView {
	return memberView{m.DID, m.Level, m.Via, m.Keeper, m.Caps, m.Sequencer, m.Authority, timestamp(m.AddedMs), 0}
}

// delegationView is a space in the roster, in JSON.
type delegationView struct {
	Space     space.ID    `json:"space"`
	Level     space.Level `json:"level"`
	AddedAt   string      `json:"addedAt"`
	RenewedAt string      `json:"renewedAt,omitempty"`
	Epoch     uint64      `json:"epoch,omitempty"`
}

func delegationOf(d xrpc.Delegation) delegationView {
	v := delegationView{Space: d.Child, Level: d.Level, AddedAt: timestamp(d.AddedMs)}
	if d.RenewedMs != 0 {
		v.RenewedAt = timestamp(d.RenewedMs)
	}
	return v
}

// notes are the columns after did and level.
func (v memberView) notes() string {
	var notes []string
	if v.Authority {
		notes = append(notes, "authority")
	}
	if v.Keeper && !v.Authority {
		notes = append(notes, strings.TrimSuffix("keeper: "+strings.Join(capNames(v.Caps), " "), ": "))
	}
	if v.Sequencer {
		notes = append(notes, "sequencer")
	}
	if v.Via != "" {
		notes = append(notes, v.Via)
	}
	if len(notes) == 0 {
		return "-"
	}
	return strings.Join(notes, ", ")
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
	children, err := api.Delegations(a.ctx, id)
	if err != nil {
		return err
	}
	info, err := api.Space(a.ctx, id)
	if err != nil {
		return err
	}
	out := struct {
		Members     []memberView     `json:"members"`
		Delegations []delegationView `json:"delegations"`
		Unverified  bool             `json:"unverifiedHead,omitempty"`
	}{make([]memberView, len(all)), make([]delegationView, len(children)), info.UnverifiedHead}
	for i, m := range all {
		out.Members[i] = memberOf(m)
	}
	for i, d := range children {
		out.Delegations[i] = delegationOf(d)
	}
	return a.answer(out, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, v := range out.Members {
			fmt.Fprintf(t, "%s\t%s\t%s\n", v.DID, v.Level, v.notes())
		}
		for _, v := range out.Delegations {
			fmt.Fprintf(t, "%s\t%s\tits members\n", v.Space, v.Level)
		}
		t.Flush()
		if out.Unverified {
			line(w, "note", "unverified-head: one node alone has shown this list; it may be older than it says")
		}
	})
}

// epoch is the space's epoch after a change.
func (a *app) epoch(api *xrpc.Client, id space.ID) (uint64, error) {
	info, err := api.Space(a.ctx, id)
	return info.Epoch, err
}

// changed answers for one member after a change.
func (a *app) changed(api *xrpc.Client, id space.ID, m xrpc.Member) error {
	v := memberOf(m)
	var err error
	if v.Epoch, err = a.epoch(api, id); err != nil {
		return err
	}
	return a.answer(v, func(w io.Writer) {
		line(w, "member", "%s to %s, %s", v.DID, v.Level, v.notes())
		line(w, "epoch", "%d", v.Epoch)
	})
}

type spaceAddCmd struct {
	Space      string      `arg:"" help:"URI or petname."`
	DID        string      `arg:"" help:"Whom: a DID, or with --delegation a space." name:"did"`
	Level      space.Level `help:"What they may do: write, read, read_self." required:"" placeholder:"LEVEL"`
	Delegation bool        `help:"The members of another space; DID is its URI or petname."`
}

// Run adds a person or a space.
func (c *spaceAddCmd) Run(a *app) error {
	if !c.Delegation {
		did, err := parseDID(c.DID, "with --delegation a space is added")
		if err != nil {
			return err
		}
		api, id, err := a.open(c.Space)
		if err != nil {
			return err
		}
		m, err := api.AddMember(a.ctx, id, did, c.Level)
		if err != nil {
			return err
		}
		return a.changed(api, id, m)
	}
	if c.Level == space.LevelReadSelf {
		return usage("--level read", "--level: a space reads or writes as a whole")
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	child, err := a.space(api, c.DID)
	if err != nil {
		return err
	}
	a.named = c.Space
	d, err := api.Delegate(a.ctx, id, child, c.Level)
	if err != nil {
		return err
	}
	v := delegationOf(d)
	if v.Epoch, err = a.epoch(api, id); err != nil {
		return err
	}
	return a.answer(v, func(w io.Writer) {
		line(w, "member", "%s to %s, with all its members", v.Space, v.Level)
		line(w, "epoch", "%d", v.Epoch)
	})
}

func parseDID(text, hint string) (space.DID, error) {
	did, err := space.ParseDID(text)
	if err != nil {
		return "", usage(hint, "%s", reason(err))
	}
	return did, nil
}

type spaceLevelCmd struct {
	Space string      `arg:"" help:"URI or petname."`
	DID   space.DID   `arg:"" help:"The member." name:"did"`
	Level space.Level `arg:"" help:"write, read or read_self." name:"level"`
}

// Run changes what a member may do. To lower it makes new keys.
func (c *spaceLevelCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	m, err := api.SetLevel(a.ctx, id, c.DID, c.Level)
	if err != nil {
		return err
	}
	return a.changed(api, id, m)
}

type spaceRemoveCmd struct {
	Space      string `arg:"" help:"URI or petname."`
	DID        string `arg:"" help:"The member, or a space that is one." name:"did"`
	Delegation bool   `help:"DID is a space, by its URI or petname."`
}

// Run removes a person or a space, which makes new keys.
func (c *spaceRemoveCmd) Run(a *app) error {
	var did space.DID
	child := c.Delegation || strings.Contains(c.DID, "://")
	if !child {
		var err error
		if did, err = parseDID(c.DID, "kith space members lists them; with --delegation a space is removed"); err != nil {
			return err
		}
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	who := c.DID
	if child {
		kid, err := a.space(api, c.DID)
		if err != nil {
			return err
		}
		a.named, who = c.Space, kid.String()
		err = api.Undelegate(a.ctx, id, kid)
		if err != nil {
			return err
		}
	} else if err := api.RemoveMember(a.ctx, id, did); err != nil {
		return err
	}
	epoch, err := a.epoch(api, id)
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"did": who, "removed": true, "epoch": epoch}, func(w io.Writer) {
		line(w, "removed", "%s", who)
		line(w, "epoch", "%d", epoch)
	})
}

type spaceKeeperCmd struct {
	Add    keeperAddCmd    `cmd:"" help:"Make a member a keeper, or change what it may do as one."`
	Remove keeperRemoveCmd `cmd:"" help:"Take it back; new keys for all."`
}

type keeperAddCmd struct {
	Space string     `arg:"" help:"URI or petname."`
	DID   space.DID  `arg:"" help:"The member." name:"did"`
	Caps  []xrpc.Cap `help:"What it may do, of admit, sequence, credential, serve. Standard: all." placeholder:"CAP,..."`
}

// Run makes a member a keeper.
func (c *keeperAddCmd) Run(a *app) error {
	caps := xrpc.AllCaps
	if len(c.Caps) > 0 {
		var err error
		if caps, err = xrpc.ParseCaps(capNames(c.Caps)); err != nil {
			return usage("--caps admit,serve", "--%s", err)
		}
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	m, err := api.SetKeeper(a.ctx, id, c.DID, caps)
	if err != nil {
		return err
	}
	a.say("next", "they: kith run --keeper, and leave it running")
	return a.changed(api, id, m)
}

type keeperRemoveCmd struct {
	Space string    `arg:"" help:"URI or petname."`
	DID   space.DID `arg:"" help:"The keeper." name:"did"`
}

// Run takes a keeper's capabilities. It stays a member.
func (c *keeperRemoveCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	if err := api.RemoveKeeper(a.ctx, id, c.DID); err != nil {
		return err
	}
	epoch, err := a.epoch(api, id)
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"did": c.DID, "keeper": false, "epoch": epoch}, func(w io.Writer) {
		line(w, "removed", "%s as a keeper; it stays a member", c.DID)
		line(w, "epoch", "%d", epoch)
	})
}

type spaceSequencerCmd struct {
	Space string    `arg:"" help:"URI or petname."`
	DID   space.DID `arg:"" optional:"" help:"The authority, or a keeper that may sequence." name:"did"`
}

// Run shows who orders the log, or appoints another.
func (c *spaceSequencerCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	if c.DID != "" {
		m, err := api.AppointSequencer(a.ctx, id, c.DID)
		if err != nil {
			return err
		}
		return a.changed(api, id, m)
	}
	all, err := api.Members(a.ctx, id)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Sequencer {
			return a.changed(api, id, m)
		}
	}
	return &failure{
		code: exitFailed, name: "NotAvailable", message: "this node does not know who orders the log now",
		hint: "try again later; kith status shows the peers",
	}
}
