package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kithnet/kith/testnet/local"
)

type testnetCmd struct {
	Demo     demoCmd            `cmd:"" help:"Walk the whole story with real nodes on this machine."`
	Up       testnetUpCmd       `cmd:"" help:"Start a network that stays up, with a public space."`
	Status   testnetStatusCmd   `cmd:"" help:"Show the network that is up."`
	Down     testnetDownCmd     `cmd:"" help:"Stop it; its homes stay."`
	Manifest testnetManifestCmd `cmd:"" help:"Print what others need to join it, signed."`
	Join     testnetJoinCmd     `cmd:"" help:"Join a network run by others, with a node of its own."`
	Leave    testnetLeaveCmd    `cmd:"" help:"Stop the node that joined; its home stays."`
}

type demoCmd struct {
	Import string `help:"Records to import, as JSON lines." placeholder:"FILE"`
	Story  string `help:"Which story: spaces." enum:"spaces" default:"spaces" placeholder:"STORY"`
}

// Run walks the story; it is done only if every step held.
func (c *demoCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Import != "" {
		if _, err := os.Stat(c.Import); err != nil {
			return usage("name a file of JSON lines, or leave --import out", "--import: %v", err)
		}
	}
	kith, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	o := local.DemoOptions{Kith: kith, Import: c.Import, Progress: func(local.Step) {}}
	if !a.JSON {
		o.Progress = func(s local.Step) { showStep(a.stdout, s) }
	}
	report, err := local.Demo(a.ctx, o)
	if err != nil {
		return err
	}
	if a.JSON {
		if err := a.answer(report, nil); err != nil {
			return err
		}
	}
	if report.OK {
		return nil
	}
	if !a.JSON {
		line(a.stderr, "failed", "at least one step did not hold")
	}
	return &failure{code: exitFailed, name: reported}
}

func showStep(w io.Writer, s local.Step) {
	mark := "ok"
	if !s.OK {
		mark = "FAILED"
	}
	took := time.Duration(s.MS) * time.Millisecond
	fmt.Fprintf(w, "%-8s%8s  %-24s %s\n", mark, took, s.Name, s.Detail)
}

type benchCmd struct {
	Propagate  benchPropagateCmd `cmd:"" help:"How fast a write reaches other nodes."`
	Reconcile  benchReconcileCmd `cmd:"" help:"What one reconciliation costs."`
	XRPC       benchXRPCCmd      `cmd:"" name:"xrpc" help:"The HTTP API beside bare handlers."`
	Replicate  benchReplicateCmd `cmd:"" help:"How fast an empty node is filled."`
	GossipPeer gossipPeerCmd     `cmd:"" hidden:"" help:"One bare peer of the baseline."`

	ReconcilePeer reconcilePeerCmd `cmd:"" hidden:"" help:"The other side of a reconciliation."`
	XRPCBare      xrpcBareCmd      `cmd:"" hidden:"" name:"xrpc-bare" help:"The bare handlers."`
	ReplicatePeer replicatePeerCmd `cmd:"" hidden:"" help:"The sender of the bare loop."`
}

type benchPropagateCmd struct {
	Entries int  `help:"How many writes. Standard: 200." default:"200" placeholder:"N"`
	Pace    span `help:"Time between two writes. Standard: 50ms." default:"50ms" placeholder:"DUR"`
}

// Run measures propagation beside bare gossip.
func (c *benchPropagateCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Entries < 1 {
		return usage("--entries 200", "--entries: want at least one")
	}
	return a.bench(func(kith string, progress func(string)) ([]local.Row, error) {
		return local.BenchPropagate(a.ctx, local.BenchOptions{Kith: kith, N: c.Entries, Pace: time.Duration(c.Pace), Progress: progress})
	})
}

type gossipPeerCmd struct {
	Args []string `arg:"" optional:"" passthrough:"all"`
}

// Run is one peer of the baseline; the bench starts it.
func (c *gossipPeerCmd) Run(a *app) error {
	return local.GossipPeer(a.ctx, c.Args, a.stdin, a.stdout)
}
