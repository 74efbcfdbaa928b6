package main

import (
	"github.com/kithnet/kith/testnet/local"
)

type benchReconcileCmd struct {
	Entries int    `help:"Envelopes in the space. Standard: 10000." default:"10000" placeholder:"N"`
	Diff    int    `help:"How many of them one side lacks. Standard: 1." default:"1" placeholder:"D"`
	Pattern string `help:"Where: recent, in few chains, or scattered, in many." enum:"recent,scattered" default:"recent" placeholder:"PATTERN"`
	First   bool   `help:"The two were never equal before."`
}

// Run measures one round of reconciliation between two processes.
func (c *benchReconcileCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Diff < 0 || c.Entries < 2000 || c.Entries < c.Diff {
		return usage("--entries 10000 --diff 100", "--entries %d --diff %d: want at least 2000, and the difference", c.Entries, c.Diff)
	}
	return a.bench(func(kith string, progress func(string)) ([]local.Row, error) {
		return local.BenchReconcile(a.ctx, local.ReconcileOptions{Kith: kith, Entries: c.Entries, Diff: c.Diff, Pattern: c.Pattern, First: c.First, Progress: progress})
	})
}

type reconcilePeerCmd struct {
	Args []string `arg:"" optional:"" passthrough:"all"`
}

// Run is the other process; the bench starts it.
func (c *reconcilePeerCmd) Run(a *app) error {
	return local.ReconcilePeer(a.ctx, c.Args, a.stdin, a.stdout)
}
