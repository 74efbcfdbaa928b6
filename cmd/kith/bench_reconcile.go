package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

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
	kith, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	rows, err := local.BenchReconcile(a.ctx, local.ReconcileOptions{
		Kith: kith, Entries: c.Entries, Diff: c.Diff, Pattern: c.Pattern, First: c.First,
		Progress: func(s string) { a.say("bench", "%s", s) },
	})
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"rows": rows}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%.6g\t%s\tn=%d\n", r.Name, r.Value, r.Unit, r.N)
		}
		t.Flush()
	})
}

type reconcilePeerCmd struct {
	Args []string `arg:"" optional:"" passthrough:"all"`
}

// Run is the other process; the bench starts it.
func (c *reconcilePeerCmd) Run(a *app) error {
	return local.ReconcilePeer(a.ctx, c.Args, a.stdin, a.stdout)
}
