package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/xrpc"
)

type relayCmd struct {
	Status relayStatusCmd `cmd:"" help:"Show what this node does as a relay."`
	Lease  relayLeaseCmd  `cmd:"" help:"Leases that this relay gave, and one that you pay for elsewhere."`
}

type relayStatusCmd struct{}

// Run shows the relay that this node is.
func (*relayStatusCmd) Run(a *app) error {
	r, err := a.relayRole()
	if err != nil {
		return err
	}
	return a.answer(r, func(w io.Writer) {
		if !r.Relay {
			line(w, "relay", "no; to carry sealed envelopes for others: %s", a.kith("run --relay"))
			return
		}
		line(w, "relay", "%s", r.PeerID)
		for i, addr := range r.Addrs {
			line(w, first(i, "addrs"), "%s", addr)
		}
		line(w, "topics", "%d, %d of %d MiB", r.Topics, mib(r.Held), mib(r.MaxBytes))
		if !r.Open {
			line(w, "closed", "no lease without an access code")
		}
		if r.Failing != "" {
			line(w, "failing", "%s", r.Failing)
		}
		if r.Topics == 0 && len(r.Addrs) > 0 {
			a.say("next", "%s", a.kith("space relay add SPACE %s", r.Addrs[0]))
		}
	})
}

// relayRole is what the node does as a relay.
func (a *app) relayRole() (xrpc.RelayRole, error) {
	api, err := a.client()
	if err != nil {
		return xrpc.RelayRole{}, err
	}
	return api.RelayRole(a.ctx)
}

func mib(bytes uint64) uint64 { return (bytes + 1<<20 - 1) >> 20 }

type relayLeaseCmd struct {
	List relayLeaseListCmd `cmd:"" help:"List the leases that this relay gave."`
	Take relayLeaseTakeCmd `cmd:"" help:"Lease at a relay of a space with an access code of its operator."`
}

type relayLeaseListCmd struct{}

// Run lists the leases that this relay gave, the fullest first. No line is
// about a person.
func (*relayLeaseListCmd) Run(a *app) error {
	r, err := a.relayRole()
	if err != nil {
		return err
	}
	if !r.Relay {
		return usage(a.kith("run --relay"), "this node is no relay")
	}
	return a.answer(map[string]any{"leases": r.Leases, "topics": r.Topics}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, l := range r.Leases {
			fmt.Fprintf(t, "%s\t%s\t%d taken\t%d refused\n", l.Topic, lease(l.Held, l.Bytes, l.ExpiresAt), l.Envelopes, l.Refused)
		}
		t.Flush()
		if len(r.Leases) == 0 {
			a.say("leases", "none")
		}
		if more := r.Topics - len(r.Leases); more > 0 {
			a.say("more", "%d, which hold less", more)
		}
	})
}

// lease is how full a lease is and until when it runs.
func lease(used, bytes uint64, expiresMs int64) string {
	if time.Now().UnixMilli() > expiresMs {
		return fmt.Sprintf("%d KiB, ran out %s", (used+1023)/1024, timestamp(expiresMs))
	}
	return fmt.Sprintf("%d of %d KiB until %s", (used+1023)/1024, bytes/1024, timestamp(expiresMs))
}

type relayLeaseTakeCmd struct {
	Space string `arg:"" help:"URI or petname."`
	Relay string `arg:"" help:"Peer id of one of its relays."`
	Code  string `arg:"" help:"The access code. It is good for the space's keys of today: new keys want a new one."`
}

// Run takes a lease.
func (c *relayLeaseTakeCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	rows, err := a.relaysOf(api, id)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(r xrpc.RelayStatus) bool { return r.PeerID == c.Relay }) {
		return usage(a.kith("space relay list %s", c.Space), "%s is none of the relays of %s", c.Relay, c.Space)
	}
	r, err := api.LeaseRelay(a.ctx, id, c.Relay, c.Code)
	if err != nil {
		return err
	}
	return a.answer(r, func(w io.Writer) { line(w, "lease", "%s", leased(r)) })
}
