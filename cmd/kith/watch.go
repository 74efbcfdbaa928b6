package main

import (
	"fmt"
	"io"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type recordWatchCmd struct {
	Space      string     `arg:"" help:"URI or petname."`
	Repo       space.DID  `help:"Whose records. Standard: everybody's." placeholder:"DID"`
	Collection space.NSID `help:"Which collection. Standard: all." placeholder:"C"`
	All        bool       `help:"Begin with what has happened so far."`
}

// watchEvery is how often a watch looks for new revs.
const watchEvery = 250 * time.Millisecond

// eventView is one change of a record in JSON. Value stands there while the
// record still is what the change made it.
type eventView struct {
	Action string       `json:"action"` // create, update or delete
	URI    space.URI    `json:"uri"`
	CID    string       `json:"cid,omitempty"`
	Rev    space.TID    `json:"rev"`
	Value  space.Record `json:"value,omitempty"`
}

// watcher follows the oplogs of a space. A repo of which seen says nothing is
// new, and read from its beginning.
type watcher struct {
	a    *app
	api  *xrpc.Client
	id   space.ID
	cmd  *recordWatchCmd
	seen map[space.DID]space.TID
}

// Run prints changes as they come, one a line, until it is interrupted.
func (c *recordWatchCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	w := &watcher{a, api, id, c, map[space.DID]space.TID{}}
	if !c.All {
		repos, err := api.Repos(a.ctx, id)
		if err != nil {
			return err
		}
		for _, r := range repos {
			w.seen[r.DID] = r.Rev
		}
	}
	a.say("watching", "%s; ctrl-c ends it", id)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := w.look(); err != nil && a.ctx.Err() == nil {
			return err
		}
		select {
		case <-a.ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look prints what each repo has beyond the rev that was seen.
func (w *watcher) look() error {
	repos, err := w.api.Repos(w.a.ctx, w.id)
	if err != nil {
		return err
	}
	for _, r := range repos {
		if w.cmd.Repo != "" && r.DID != w.cmd.Repo || r.Rev == w.seen[r.DID] {
			continue
		}
		if err := w.follow(r.DID); err != nil {
			return err
		}
	}
	return nil
}

// follow prints one oplog from the rev that was seen to its head.
func (w *watcher) follow(author space.DID) error {
	q := xrpc.OpsQuery{Since: w.seen[author], Limit: pageSize}
	for {
		page, err := w.api.RepoOps(w.a.ctx, w.id, author, q)
		if err != nil {
			return err
		}
		for _, op := range page.Ops {
			if w.cmd.Collection == "" || op.Path.Collection == w.cmd.Collection {
				if err := w.print(author, op); err != nil {
					return err
				}
			}
		}
		if page.State != nil {
			w.seen[author] = page.State.Rev
		}
		if q.Cursor = page.Cursor; q.Cursor == "" {
			return nil
		}
	}
}

func (w *watcher) print(author space.DID, op xrpc.RepoOp) error {
	v := eventView{Action: "update", URI: space.URI{Space: w.id, Author: author, Path: op.Path}, Rev: op.Rev, Value: op.Value}
	switch {
	case op.CID.IsZero():
		v.Action = "delete"
	case op.Prev.IsZero():
		v.Action = "create"
	}
	if !op.CID.IsZero() {
		v.CID = op.CID.String()
	}
	return w.a.answer(v, func(out io.Writer) {
		fmt.Fprintf(out, "%s\t%s", v.Action, v.URI)
		if text, err := v.Value.JSON(); v.Value != nil && err == nil {
			fmt.Fprintf(out, "\t%s", text)
		}
		fmt.Fprintln(out)
	})
}
