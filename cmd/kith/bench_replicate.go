package main

import (
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
	return a.bench(func(kith string, progress func(string)) ([]local.Row, error) {
		return local.BenchReplicate(a.ctx, local.ReplicateOptions{Kith: kith, Entries: c.Entries, Batch: c.Batch, Rounds: c.Rounds, Progress: progress})
	})
}

type replicatePeerCmd struct {
	Args []string `arg:"" optional:"" passthrough:"all"`
}

// Run sends what the bare loop receives; the bench starts it.
func (c *replicatePeerCmd) Run(a *app) error {
	return local.ReplicatePeer(a.ctx, c.Args)
}
