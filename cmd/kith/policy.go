package main

import (
	"math"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// policyFlags are how a space is run, as create and update take them.
type policyFlags struct {
	DisplayName      *string      `help:"Name that the members see; empty: none." placeholder:"TEXT"`
	Description      *string      `help:"What it is about; empty: nothing." placeholder:"TEXT"`
	Mint             string       `help:"Who gets credentials: member-list, public, managing-app." enum:",member-list,public,managing-app" default:"" placeholder:"POLICY"`
	ManagingApp      *string      `help:"The managing app, as DID#SERVICE; empty: none." placeholder:"DID"`
	AppAccess        string       `help:"Which apps: open, allowList." enum:",open,allowList" default:"" placeholder:"POLICY"`
	Allow            []string     `help:"App that may, again for more." placeholder:"ID" sep:"none"`
	History          string       `help:"What newcomers read: full, from-join." enum:",full,from-join" default:"" placeholder:"POLICY"`
	KeyPolicy        string       `help:"When a reader goes: rotate, static." enum:",rotate,static" default:"" placeholder:"POLICY"`
	NoRevocation     bool         `help:"For static keys: I know that who was removed goes on reading." name:"acknowledge-no-revocation"`
	SelfWrite        *bool        `help:"Members at read_self write records of their own." negatable:""`
	MaxEpochLag      *span        `help:"How long a writer may go on in an old epoch; 0s: no limit." placeholder:"DUR"`
	MembershipPublic *bool        `help:"Everybody may know the members." negatable:""`
	RecordsPublic    *bool        `help:"Everybody may read the records; with --mint public." negatable:""`
	Config           *configField `help:"Free fields of applications, as a JSON object; replaces all of them." placeholder:"JSON"`
}

// configField is a JSON object on the command line; {} is none.
type configField struct{ record space.Record }

// UnmarshalText reads a record.
func (c *configField) UnmarshalText(b []byte) error {
	r, err := space.RecordFromJSON(b)
	if err != nil {
		return err
	}
	if text, err := r.JSON(); err == nil && string(text) == "{}" {
		r = nil
	}
	c.record = r
	return nil
}

// patch is what the flags say.
func (f *policyFlags) patch() (xrpc.PolicyPatch, error) {
	u := xrpc.PolicyPatch{
		DisplayName: f.DisplayName, Description: f.Description, ManagingApp: f.ManagingApp, SelfWrite: f.SelfWrite,
		Mint: orNil(f.Mint), AppAccess: orNil(f.AppAccess), History: orNil(f.History), KeyPolicy: orNil(f.KeyPolicy),
	}
	if len(f.Allow) > 0 {
		u.Allow = &f.Allow
		if u.AppAccess == nil {
			u.AppAccess = new(space.AccessAllowList)
		}
	}
	if f.MaxEpochLag != nil {
		lag := time.Duration(*f.MaxEpochLag)
		if lag%time.Second != 0 || lag/time.Second > math.MaxInt32 {
			return u, usage("--max-epoch-lag 1d", "--max-epoch-lag: want whole seconds, fewer than 2147483648")
		}
		u.MaxEpochLagSeconds = new(uint32(lag / time.Second))
	}
	if f.Config != nil {
		u.Config = &f.Config.record
	}
	for name, on := range map[string]*bool{xrpc.FlagMembershipPublic: f.MembershipPublic, xrpc.FlagRecordsPublic: f.RecordsPublic} {
		if on != nil {
			u.Flags = append(u.Flags, xrpc.Flag{Name: name, On: *on})
		}
	}
	if f.NoRevocation {
		u.Flags = append(u.Flags, xrpc.Flag{Name: xrpc.FlagNoRevocation, On: true})
	}
	return u, nil
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
