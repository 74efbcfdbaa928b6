package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kithnet/kith/xrpc"
)

type statusCmd struct{}

// Run shows the node's one status structure.
func (*statusCmd) Run(a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	st, err := c.Status(a.ctx)
	if err != nil {
		return err
	}
	return a.answer(st, func(w io.Writer) {
		line(w, "identity", "%s", st.DID)
		line(w, "peer", "%s", st.PeerID)
		line(w, "version", "%s", st.Version)
		for i, l := range st.Listen {
			line(w, first(i, "listening"), "%s", l)
		}
		for i, p := range st.Peers {
			line(w, first(i, "peers"), "%s  %s", p.PeerID, way(p))
		}
		if len(st.Peers) == 0 {
			line(w, "peers", "none")
		}
		showSpaceStatus(w, st.Spaces)
		for _, warning := range st.Warnings {
			line(w, "warning", "%s", warning)
		}
	})
}

// first labels the first line of several.
func first(i int, label string) string {
	if i == 0 {
		return label
	}
	return ""
}

func way(p xrpc.Peer) string {
	if p.Direct {
		return "direct"
	}
	return "relayed"
}

func showSpaceStatus(w io.Writer, all []xrpc.SpaceStatus) {
	if len(all) == 0 {
		line(w, "spaces", "none")
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SPACE\tROLE\tEPOCH\tRECORDS\tBEHIND\tIN SYNC WITH\tDIGEST")
	for _, s := range all {
		name := s.Name
		if name == "" {
			name = s.URI
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", name, s.Role, s.Epoch, s.Records, s.Behind, len(s.InSyncWith), short(s.Digest))
		if s.LastError != "" {
			fmt.Fprintf(t, "  %s\n", s.LastError)
		}
	}
	t.Flush()
}

// short is enough of a hash to compare by eye.
func short(hash string) string {
	const shown = 12
	if len(hash) > shown {
		return hash[:shown] + "…"
	}
	return hash
}

type peerCmd struct {
	List    peerListCmd    `cmd:"" help:"List the connected nodes."`
	Connect peerConnectCmd `cmd:"" help:"Connect to a node."`
}

type peerListCmd struct{}

// Run lists the connected libp2p peers.
func (*peerListCmd) Run(a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	peers, err := c.Peers(a.ctx)
	if err != nil {
		return err
	}
	if peers == nil {
		peers = []xrpc.Peer{}
	}
	return a.answer(map[string]any{"peers": peers}, func(w io.Writer) {
		for _, p := range peers {
			fmt.Fprintf(w, "%s  %s  %s\n", p.PeerID, way(p), strings.Join(p.Addrs, " "))
		}
		if len(peers) == 0 {
			a.say("peers", "none")
		}
	})
}

type peerConnectCmd struct {
	Addr string `arg:"" help:"Its address, ending in /p2p/PEERID."`
}

// Run dials an address.
func (c *peerConnectCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	p, err := api.Connect(a.ctx, c.Addr)
	if err != nil {
		return err
	}
	return a.answer(p, func(w io.Writer) { line(w, "connected", "%s  %s", p.PeerID, way(p)) })
}
