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
	Create    spaceCreateCmd    `cmd:"" help:"Make a space."`
	List      spaceListCmd      `cmd:"" help:"List the spaces of this node."`
	Show      spaceShowCmd      `cmd:"" help:"Show one space."`
	Update    spaceUpdateCmd    `cmd:"" help:"Change how a space is run."`
	Delete    spaceDeleteCmd    `cmd:"" help:"End a space for all its members."`
	Invite    spaceInviteCmd    `cmd:"" help:"Make a link that lets others in."`
	Invites   spaceInvitesCmd   `cmd:"" help:"List the invites of a space."`
	Uninvite  spaceUninviteCmd  `cmd:"" help:"Revoke an invite."`
	Approve   spaceApproveCmd   `cmd:"" help:"List who waits for a yes, and say it."`
	Join      spaceJoinCmd      `cmd:"" help:"Join a space by its link."`
	Members   spaceMembersCmd   `cmd:"" help:"List who belongs to a space."`
	Add       spaceAddCmd       `cmd:"" help:"Add a member, or another space."`
	Level     spaceLevelCmd     `cmd:"" help:"Change what a member may do."`
	Remove    spaceRemoveCmd    `cmd:"" help:"Remove a member; new keys for the others."`
	Rotate    spaceRotateCmd    `cmd:"" help:"Make new keys."`
	Relay     spaceRelayCmd     `cmd:"" help:"Relays that carry a space while its members sleep."`
	Keeper    spaceKeeperCmd    `cmd:"" help:"Members whose nodes let others in."`
	Sequencer spaceSequencerCmd `cmd:"" help:"Show or appoint who orders the log."`
	Transfer  spaceTransferCmd  `cmd:"" help:"Hand a space with a DID of its own to another member."`
	Name      spaceNameCmd      `cmd:"" help:"Call a space by a petname, on this node."`
	Leave     spaceLeaveCmd     `cmd:"" help:"Leave a space."`
	Forget    spaceForgetCmd    `cmd:"" help:"Destroy this node's keys and data of a space."`
}

type spaceCreateCmd struct {
	Type   space.NSID      `help:"What kind of space, such as com.example.notes." required:"" placeholder:"NSID"`
	Key    space.RecordKey `help:"Last part of its address. Standard: drawn." placeholder:"SKEY"`
	Name   string          `help:"Petname, for this node only." placeholder:"NAME"`
	Relay  []string        `help:"Relay that carries it, again for more, or none." placeholder:"ADDR" sep:"none"`
	OwnDID bool            `help:"Give the space a DID of its own, so that it can change hands." name:"own-did"`
	policyFlags
}

// spaceView is a space in JSON.
type spaceView struct {
	URI        space.ID     `json:"uri"`
	SpaceID    string       `json:"spaceId"`
	Name       string       `json:"name,omitempty"`
	Epoch      uint64       `json:"epoch"`
	Role       space.Level  `json:"role"`
	Authority  space.DID    `json:"authority"`
	Creator    space.DID    `json:"creator"`
	CreatedAt  string       `json:"createdAt"`
	Rev        string       `json:"rev,omitempty"`
	Policy     space.Policy `json:"policy"`
	Frozen     bool         `json:"frozen,omitempty"`
	Unverified bool         `json:"unverifiedHead,omitempty"`
}

func view(s xrpc.SpaceInfo) spaceView {
	v := spaceView{
		URI: s.ID, SpaceID: hex.EncodeToString(s.SpaceID[:]), Name: s.Name, Epoch: s.Epoch, Role: s.Level,
		Authority: s.Authority, Creator: s.Creator, CreatedAt: timestamp(s.CreatedMs), Policy: s.Policy,
		Frozen: s.Frozen, Unverified: s.UnverifiedHead,
	}
	if s.Rev != 0 {
		v.Rev = s.Rev.String()
	}
	return v
}

func timestamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// checkPetname refuses a name that commands would take for an address.
func checkPetname(name string) error {
	if strings.Contains(name, "://") {
		return usage("choose a name without ://", "name: %q reads like an address", name)
	}
	return nil
}

// Run makes a space; the node refuses policies it does not carry out.
func (c *spaceCreateCmd) Run(a *app) error {
	if err := checkPetname(c.Name); err != nil {
		return err
	}
	patch, err := c.patch()
	if err != nil {
		return err
	}
	policy, err := patch.Apply(space.Policy{})
	if err != nil {
		return usage("--config '{}'", "--config: %s", reason(err))
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	if len(c.Relay) == 1 && c.Relay[0] == "none" {
		c.Relay = nil
	}
	info, err := api.CreateSpace(a.ctx, xrpc.NewSpace{
		Type: c.Type, Key: c.Key, Name: c.Name, Relays: c.Relay, Policy: policy, OwnDID: c.OwnDID,
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
			fmt.Fprintf(t, "%s\t%s\tepoch %d\t%s%s\n", name, v.Role, v.Epoch, v.URI, v.ends())
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
	return a.answer(v, v.show)
}

// ends says what became of a space that takes no more, or may be older than it
// shows.
func (v spaceView) ends() string {
	if v.Frozen {
		return "  frozen"
	}
	if v.Unverified {
		return "  unverified-head"
	}
	return ""
}

// show prints a space for people.
func (v spaceView) show(w io.Writer) {
	line(w, "space", "%s%s", v.URI, v.ends())
	if v.Name != "" {
		line(w, "name", "%s", v.Name)
	}
	p := v.Policy
	if p.DisplayName != "" {
		line(w, "title", "%s", p.DisplayName)
	}
	if p.Description != "" {
		line(w, "about", "%s", p.Description)
	}
	line(w, "id", "%s", v.SpaceID)
	line(w, "role", "%s", v.Role)
	line(w, "epoch", "%d", v.Epoch)
	line(w, "authority", "%s", v.Authority)
	line(w, "created", "%s", v.CreatedAt)
	line(w, "policy", "mint %s, apps %s, keys %s, history %s", p.Mint, p.AppAccess, p.KeyPolicy, p.History)
	if p.ManagingApp != "" {
		line(w, "", "managed by %s", p.ManagingApp)
	}
	for _, app := range p.Allow {
		line(w, "", "for %s", app)
	}
	if p.MaxEpochLagSeconds != 0 {
		line(w, "", "writers follow a new epoch within %s", time.Duration(p.MaxEpochLagSeconds)*time.Second)
	}
	if text, err := p.Config.JSON(); p.Config != nil && err == nil {
		line(w, "config", "%s", text)
	}
}
