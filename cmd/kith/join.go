package main

import (
	"errors"
	"io"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type spaceJoinCmd struct {
	Link string `arg:"" help:"The invite link."`
	Name string `help:"Petname, for this node only." placeholder:"NAME"`
	Wait span   `help:"How long to wait for the key, up to 10m. Standard: 30s." default:"30s" placeholder:"DUR"`
}

const (
	mostWait  = 10 * time.Minute
	syncWait  = 5 * time.Second // a join waits this much longer for the records that are there
	pollEvery = 20 * time.Millisecond
)

// joinView is a join in JSON. Records is what is here now; Synced says that
// this is all the peer had that was asked.
type joinView struct {
	URI     space.ID    `json:"uri"`
	Role    space.Level `json:"role"`
	Epoch   uint64      `json:"epoch"`
	Name    string      `json:"name,omitempty"`
	Asked   string      `json:"asked,omitempty"`
	By      string      `json:"by,omitempty"`
	Records uint64      `json:"records"`
	Digest  string      `json:"digest,omitempty"`
	Synced  bool        `json:"synced"`
}

// Run joins a space: it waits for the key, then a moment for the records.
func (c *spaceJoinCmd) Run(a *app) error {
	wait := time.Duration(c.Wait)
	if wait > mostWait {
		return usage("--wait 10m; the node goes on asking after that", "--wait: at most %s", "10m")
	}
	if err := checkPetname(c.Name); err != nil {
		return err
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	a.say("waiting", "for a key from whoever invited you, up to %s", wait)
	begin := time.Now()
	// The node counts whole seconds: rather one too many.
	j, err := api.JoinWait(a.ctx, c.Link, wait+time.Second-1)
	if errors.Is(err, space.ErrInvite) {
		return &failure{
			code: exitDenied, name: "InvalidInvite",
			message: "the link was refused: it may be spent, expired or revoked",
			hint:    "ask whoever invited you for a new one",
		}
	}
	if err != nil {
		return err
	}
	granted := time.Since(begin)
	if c.Name != "" {
		if err := api.SetPetname(a.ctx, j.ID, c.Name); err != nil {
			a.say("joined", "%s; without the name: %s gives it one", j.ID, a.kith("space name %s NAME", j.ID))
			return err
		}
		j.Name = c.Name
	}
	v := joinView{URI: j.ID, Role: j.Level, Epoch: j.Epoch, Name: j.Name, Asked: j.Asked, By: j.By}
	begin = time.Now()
	patience := syncWait
	if v.Asked == "" { // nothing was joined, so nothing is on its way
		patience = 0
	}
	if err := a.settleIn(api, &v, patience); err != nil {
		return err
	}
	return a.answer(v, func(w io.Writer) {
		line(w, "joined", "%s as %s, epoch %d", v.URI, v.Role, v.Epoch)
		if v.Asked != "" {
			line(w, "asked", "%s", v.Asked)
		}
		if v.By != "" {
			line(w, "granted", "by %s after %s", v.By, seconds(granted))
		}
		if v.Asked == "" {
			line(w, "note", "this node was in the space already; the link was not used")
		} else if v.Synced {
			line(w, "synced", "%d records, digest %s in %s", v.Records, short(v.Digest), seconds(time.Since(begin)))
		} else {
			line(w, "syncing", "%d records so far", v.Records)
		}
		line(w, "next", "%s", a.kith("record list %s", called(v.Name, v.URI)))
	})
}

// settleIn watches the new space until it is in sync with a peer, for a moment
// only: a join is done when the key is here.
func (a *app) settleIn(api *xrpc.Client, v *joinView, patience time.Duration) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		st, err := api.Status(a.ctx)
		if err != nil {
			return err
		}
		for _, s := range st.Spaces {
			if s.URI == v.URI.String() {
				v.Records, v.Digest, v.Synced = s.Records, s.Digest, len(s.InSyncWith) > 0 && s.Behind == 0
			}
		}
		if v.Synced {
			return nil
		}
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-deadline.C:
			return nil
		case <-tick.C:
		}
	}
}

func seconds(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }
