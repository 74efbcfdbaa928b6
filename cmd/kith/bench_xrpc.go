package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/kithnet/kith/testnet/local"
)

type benchXRPCCmd struct {
	Records     int `help:"Records of the repo that is read. Standard: 50000." default:"50000" placeholder:"N"`
	Subscribers int `help:"Sockets that follow a space. Standard: 1000." default:"1000" placeholder:"N"`
}

// Run measures the HTTP API beside bare handlers.
func (c *benchXRPCCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Records < 200 || c.Subscribers < 1 {
		return usage("--records 50000 --subscribers 1000", "--records %d --subscribers %d: want at least 200 and 1", c.Records, c.Subscribers)
	}
	kith, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	rows, err := local.BenchXRPC(a.ctx, local.XRPCOptions{
		Kith: kith, Records: c.Records, Subscribers: c.Subscribers,
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

type xrpcBareCmd struct {
	Args []string `arg:"" optional:"" passthrough:"all"`
}

// Run serves the bare handlers; the bench starts it.
func (c *xrpcBareCmd) Run(a *app) error {
	return local.XRPCBare(a.ctx, c.Args, a.stdin, a.stdout)
}
