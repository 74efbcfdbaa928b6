package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet/local"
)

type benchReplicateCmd struct {
	Entries int `help:"Records in the space. Standard: 10000." default:"10000" placeholder:"N"`
	Batch   int `help:"Records of one entry. Standard: 1." default:"1" placeholder:"B"`
	Rounds  int `help:"Empty nodes to fill, one after the other. Standard: 3." default:"3" placeholder:"R"`
}

// Run measures how an empty node is filled, beside a bare loop.
func (c *benchReplicateCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Batch < 1 || c.Batch > space.MaxOps || c.Entries < c.Batch || c.Entries%c.Batch != 0 || c.Rounds < 1 {
		return usage("--entries 10000 --batch 200", "--entries %d --batch %d: want batches of 1 to %d that divide the entries, and a round",
			c.Entries, c.Batch, space.MaxOps)
	}
	kith, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	rows, err := local.BenchReplicate(a.ctx, local.ReplicateOptions{
		Kith: kith, Entries: c.Entries, Batch: c.Batch, Rounds: c.Rounds,
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

type replicatePeerCmd struct {
	Args []string `arg:"" optional:"" passthrough:"all"`
}

// Run sends what the bare loop receives; the bench starts it.
func (c *replicatePeerCmd) Run(a *app) error {
	return local.ReplicatePeer(a.ctx, c.Args)
}
