package main

import (
	"context"
	"io"
	"reflect"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type spaceUpdateCmd struct {
	Space string `arg:"" help:"URI or petname."`
	policyFlags
}

// Run changes the policy, in what the flags name.
func (c *spaceUpdateCmd) Run(a *app) error {
	patch, err := c.patch()
	if err != nil {
		return err
	}
	if reflect.DeepEqual(patch, xrpc.PolicyPatch{}) {
		return usage("kith space update --help names what can be changed", "nothing to change was named")
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	info, err := api.UpdateSpace(a.ctx, id, patch)
	if err != nil {
		return err
	}
	v := view(info)
	return a.answer(v, v.show)
}

type spaceDeleteCmd struct {
	Space  string `arg:"" help:"URI or petname."`
	Reason string `help:"What the members are told." placeholder:"TEXT"`
}

// Run writes the tombstone. Every member's node ends the space when it sees
// it; what they kept elsewhere nobody can take back.
func (c *spaceDeleteCmd) Run(a *app) error {
	return a.end(c.Space, "deleted", func(api *xrpc.Client, id space.ID) error { return api.DeleteSpace(a.ctx, id, c.Reason) })
}

type spaceLeaveCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// Run takes the owner off the roster.
func (c *spaceLeaveCmd) Run(a *app) error {
	return a.end(c.Space, "left", func(api *xrpc.Client, id space.ID) error { return api.Leave(a.ctx, id) })
}

type spaceNameCmd struct {
	Space string `arg:"" help:"URI or petname."`
	Name  string `arg:"" optional:"" help:"The new petname; none: take it away."`
}

// Run gives a space another petname.
func (c *spaceNameCmd) Run(a *app) error {
	if err := checkPetname(c.Name); err != nil {
		return err
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	if err := api.SetPetname(a.ctx, id, c.Name); err != nil {
		return err
	}
	return a.answer(map[string]any{"uri": id, "name": c.Name}, func(w io.Writer) { line(w, "named", "%s", called(c.Name, id)) })
}

type spaceForgetCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// Run destroys the node's keys and data of a space.
func (c *spaceForgetCmd) Run(a *app) error {
	return a.end(c.Space, "forgotten", func(api *xrpc.Client, id space.ID) error { return api.Forget(a.ctx, id) })
}

// end carries out one of the ways in which a space ends here.
func (a *app) end(name, what string, do func(*xrpc.Client, space.ID) error) error {
	api, id, err := a.open(name)
	if err != nil {
		return err
	}
	if err := do(api, id); err != nil {
		return err
	}
	return a.answer(map[string]any{"uri": id, what: true}, func(w io.Writer) {
		line(w, what, "%s", id)
		if what != "forgotten" {
			a.say("next", "%s destroys what is still here", a.kith("space forget %s", id))
		}
	})
}

type spaceRotateCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// Run opens a new epoch.
func (c *spaceRotateCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	epoch, err := api.Rotate(a.ctx, id)
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"uri": id, "epoch": epoch}, func(w io.Writer) { line(w, "epoch", "%d", epoch) })
}

type spaceTransferCmd struct {
	Space  string    `arg:"" help:"URI or petname."`
	DID    space.DID `arg:"" optional:"" help:"The member who takes it over." name:"did"`
	Accept bool      `help:"Say that one would take the space over, before it is handed."`
	Wait   span      `help:"How long to wait for their node, up to 10m. Standard: 30s." default:"30s" placeholder:"DUR"`
}

// Run hands a space over, or agrees to have it handed over.
func (c *spaceTransferCmd) Run(a *app) error {
	wait := time.Duration(c.Wait)
	switch {
	case c.Accept == (c.DID != ""):
		return usage("they: kith space transfer SPACE --accept; then you: kith space transfer SPACE DID", "want either a DID or --accept")
	case wait > mostWait:
		return usage("--wait 10m", "--wait: at most %s", "10m")
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	if c.Accept {
		if err := api.AcceptTransfer(a.ctx, id); err != nil {
			return err
		}
		return a.answer(map[string]any{"uri": id, "accepts": true}, func(w io.Writer) {
			line(w, "accepts", "%s, once its authority hands it over while this node runs", id)
		})
	}
	ctx, cancel := context.WithTimeout(a.ctx, wait+2*time.Second)
	defer cancel()
	info, err := api.Transfer(ctx, id, c.DID)
	if err != nil {
		return err
	}
	v := view(info)
	return a.answer(v, func(w io.Writer) { line(w, "authority", "%s of %s", v.Authority, v.URI) })
}
