package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

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
	fmt.Fprintln(t, "SPACE\tROLE\tEPOCH\tRECORDS\tENTRIES\tBEHIND\tIN SYNC WITH\tDIGEST")
	for _, s := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n",
			petname(s), s.Role, s.Epoch, s.Records, s.Entries, s.Behind, len(s.InSyncWith), short(s.Digest))
	}
	t.Flush()
	now := time.Now()
	for _, s := range all {
		said := spaceWords(s, now)
		if len(said) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", petname(s))
		for _, words := range said {
			fmt.Fprintf(w, "  %s\n", words)
		}
	}
}

func petname(s xrpc.SpaceStatus) string {
	if s.Name != "" {
		return s.Name
	}
	return s.URI
}

// spaceWords says what a space's line of numbers cannot: with whom it is in sync
// and since when, how it knows what it lacks, and what does not fit.
func spaceWords(s xrpc.SpaceStatus, now time.Time) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	equal := map[string]bool{}
	for _, p := range s.InSyncWith {
		equal[p.PeerID] = true
		say("in sync with %s since %s ago, shown %s ago", p.PeerID, ago(now, p.Since), ago(now, p.At))
	}
	for _, r := range s.Rounds {
		switch {
		case equal[r.PeerID]:
		case r.Error != "":
			say("reconciling with %s failed %s ago: %s", r.PeerID, ago(now, r.At), r.Error)
		case !r.Equal:
			say("%s held %d entries %s ago when %d were here, and not the same", r.PeerID, r.PeerCount, ago(now, r.At), r.Count)
		default:
			say("%s held what was here %s ago; entries came since", r.PeerID, ago(now, r.At))
		}
	}
	for _, l := range s.BehindBy {
		switch l.Why {
		case xrpc.LagPeer:
			say("behind by %d entries: %s held more %s ago", l.Entries, l.From, ago(now, l.At))
		case xrpc.LagWaiting:
			say("behind by %d entries: they are here and wait for keys, for the log or for their time", l.Entries)
		default:
			say("behind by %d entries: later ones of the same writers are known", l.Entries)
		}
	}
	for _, m := range s.Mismatches {
		if m.Kind == xrpc.MismatchView {
			say("%s claimed to hold %d entries, and %s wrote there that it held %d", m.PeerID, m.Ours.Count, m.DID, m.Stated.Count)
			continue
		}
		say("records of %s differ from what it states: %d at %s with %s here, %d at %s with %s stated", m.DID,
			m.Ours.Count, m.Ours.Rev, short(m.Ours.Hash), m.Stated.Count, m.Stated.Rev, short(m.Stated.Hash))
	}
	if s.Forks > 0 {
		say("%d chains end early: their writers signed two histories", s.Forks)
	}
	if s.Refused > 0 {
		say("%d entries or chains were refused since the start", s.Refused)
	}
	if s.Damaged {
		say("the disk lost entries of this space; no node has said yet that all are back")
	}
	if s.UnverifiedHead {
		say("unverified-head: one node alone has shown how far the log of members goes")
	}
	if s.LastError != "" {
		say("%s", s.LastError)
	}
	return out
}

// ago is the time since a moment in Unix milliseconds, in words.
func ago(now time.Time, ms int64) string {
	d := max(0, now.Sub(time.UnixMilli(ms)))
	switch {
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return strings.TrimSuffix(d.Truncate(time.Hour).String(), "0m0s")
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
	List       peerListCmd       `cmd:"" help:"List the connected nodes."`
	Connect    peerConnectCmd    `cmd:"" help:"Connect to a node."`
	Disconnect peerDisconnectCmd `cmd:"" help:"Close the connections to a node, and let it be for some minutes."`
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

type peerDisconnectCmd struct {
	ID string `arg:"" help:"Its peer id, as peer list shows it."`
}

// Run closes the connections to a peer.
func (c *peerDisconnectCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	if err := api.Disconnect(a.ctx, c.ID); err != nil {
		return err
	}
	return a.answer(map[string]any{"peerId": c.ID, "connected": false}, func(w io.Writer) { line(w, "closed", "%s", c.ID) })
}
