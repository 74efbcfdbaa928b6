package main

import (
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
	return a.bench(func(kith string, progress func(string)) ([]local.Row, error) {
		return local.BenchXRPC(a.ctx, local.XRPCOptions{Kith: kith, Records: c.Records, Subscribers: c.Subscribers, Progress: progress})
	})
}

type xrpcBareCmd struct {
	Args []string `arg:"" optional:"" passthrough:"all"`
}

// Run serves the bare handlers; the bench starts it.
func (c *xrpcBareCmd) Run(a *app) error {
	return local.XRPCBare(a.ctx, c.Args, a.stdin, a.stdout)
}
