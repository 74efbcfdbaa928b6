package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type spaceRelayCmd struct {
	Add    spaceRelayAddCmd    `cmd:"" help:"Let a relay carry the space too; opens an epoch."`
	Remove spaceRelayRemoveCmd `cmd:"" help:"Carry on without a relay; opens an epoch."`
	List   spaceRelayListCmd   `cmd:"" help:"Show the relays of a space, and what they have signed for."`
}

type spaceRelayAddCmd struct {
	Space string `arg:"" help:"URI or petname."`
	Addr  string `arg:"" help:"Its address, ending in /p2p/PEERID."`
}

// Run adds a relay to those of the space.
func (c *spaceRelayAddCmd) Run(a *app) error {
	return a.moveRelays(c.Space, func(now []string) ([]string, error) {
		if slices.Contains(now, c.Addr) {
			return nil, fmt.Errorf("%s: %w: it is one of the space's relays already", c.Addr, space.ErrMalformed)
		}
		return append(now, c.Addr), nil
	})
}

type spaceRelayRemoveCmd struct {
	Space string `arg:"" help:"URI or petname."`
	Relay string `arg:"" help:"Its address or peer id."`
}

// Run takes a relay from those of the space. What it holds of past epochs it
// keeps as long as it likes; of the new one it hears nothing.
func (c *spaceRelayRemoveCmd) Run(a *app) error {
	return a.moveRelays(c.Space, func(now []string) ([]string, error) {
		left := slices.DeleteFunc(slices.Clone(now), func(r string) bool {
			return r == c.Relay || strings.HasSuffix(r, "/p2p/"+c.Relay)
		})
		if len(left) == len(now) {
			return nil, usage(a.kith("space relay list %s", c.Space), "%s is none of the relays of %s", c.Relay, c.Space)
		}
		return left, nil
	})
}

// moveRelays brings the relays of a space to what change makes of them.
func (a *app) moveRelays(name string, change func([]string) ([]string, error)) error {
	api, id, err := a.open(name)
	if err != nil {
		return err
	}
	rows, err := a.relaysOf(api, id)
	if err != nil {
		return err
	}
	var now []string
	for _, r := range rows {
		now = append(now, r.Addrs...)
	}
	want, err := change(now)
	if err != nil {
		return err
	}
	epoch, err := api.SetRelays(a.ctx, id, want)
	if err != nil {
		return err
	}
	if want == nil {
		want = []string{}
	}
	return a.answer(map[string]any{"uri": id, "epoch": epoch, "relays": want}, func(w io.Writer) {
		line(w, "epoch", "%d", epoch)
		for i, r := range want {
			line(w, first(i, "relays"), "%s", r)
		}
		if len(want) == 0 {
			line(w, "relays", "none")
		}
	})
}

// relaysOf are the relays of a space as the node's status shows them.
func (a *app) relaysOf(api *xrpc.Client, id space.ID) ([]xrpc.RelayStatus, error) {
	st, err := api.Status(a.ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range st.Spaces {
		if at, err := space.ParseID(s.URI); err == nil && at == id {
			return s.Relays, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", id, space.ErrSpaceNotFound)
}

type spaceRelayListCmd struct {
	Space string `arg:"" help:"URI or petname."`
}

// Run shows the relays of a space.
func (c *spaceRelayListCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	rows, err := a.relaysOf(api, id)
	if err != nil {
		return err
	}
	if rows == nil {
		rows = []xrpc.RelayStatus{}
	}
	return a.answer(map[string]any{"relays": rows}, func(w io.Writer) {
		if len(rows) == 0 {
			a.say("relays", "none; next: %s", a.kith("space relay add %s ADDR", c.Space))
			return
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.PeerID, reached(r), leased(r), signed(r))
			for _, c := range r.Caught {
				fmt.Fprintf(t, "  caught: %s\n", c)
			}
			if r.LastError != "" {
				fmt.Fprintf(t, "  %s\n", r.LastError)
			}
		}
		t.Flush()
	})
}

func reached(r xrpc.RelayStatus) string {
	if r.Connected {
		return "connected"
	}
	return "not connected"
}

func leased(r xrpc.RelayStatus) string {
	if r.LeaseExpires == 0 {
		return "no lease"
	}
	return lease(r.Used, r.Bytes, r.LeaseExpires)
}

func signed(r xrpc.RelayStatus) string {
	switch {
	case r.SignedAt == 0:
		return "signed for nothing yet"
	case r.HoldsAll:
		return fmt.Sprintf("signed for all %d entries", r.Signed)
	}
	return fmt.Sprintf("signed for %d entries %s ago", r.Signed, time.Since(time.UnixMilli(r.SignedAt)).Round(time.Second))
}
