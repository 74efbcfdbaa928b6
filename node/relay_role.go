package node

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/xrpc"
)

const (
	relayDir      = "relay"
	relayPortFile = "relay.port"
)

// startRelay starts the relay role beside the node: hosts, peer ids and a store
// of its own, so that it knows no more than a relay by itself does.
func (n *Node) startRelay() error {
	if n.cfg.Relay == nil {
		return nil
	}
	c := *n.cfg.Relay
	if c.Dir == "" {
		c.Dir = filepath.Join(n.cfg.Home, relayDir)
	}
	if len(c.Listen) == 0 {
		var err error
		if c.Listen, err = keptListen(n.cfg.Home, relayPortFile); err != nil {
			return err
		}
	}
	if c.Log == nil {
		c.Log = n.log.With("role", "relay")
	}
	c.Version, c.Network = n.cfg.Version, n.cfg.Network
	var err error
	if n.relay, err = relay.New(c); err != nil {
		return fmt.Errorf("relay role: %w", err)
	}
	return nil
}

// stopRelay ends the role.
func (n *Node) stopRelay() error {
	if n.relay == nil {
		return nil
	}
	return n.relay.Close()
}

// relayAPI answers dev.kith.relay.*; nil: this node is no relay.
func (n *Node) relayAPI() http.Handler {
	if n.relay == nil {
		return nil
	}
	return n.relay.Handler()
}

// relayAddrs are where the role is found: for space create --relay.
func (n *Node) relayAddrs() []string {
	if n.relay == nil {
		return nil
	}
	return n.relay.Addrs()
}

// RelayRole says what the node does as a relay.
func (n *Node) RelayRole(context.Context) (xrpc.RelayRole, error) {
	if n.relay == nil {
		return xrpc.RelayRole{}, nil
	}
	t := n.relay.Terms()
	out := xrpc.RelayRole{
		Relay: true, PeerID: n.relay.ID().String(), Addrs: n.relay.Addrs(), Open: t.Open, Topics: n.relay.Topics(),
		Held: uint64(n.relay.Held()), MaxBytes: n.relay.MaxBytes(),
	}
	if err := n.relay.Healthy(); err != nil {
		out.Failing = err.Error()
	}
	for u := range n.relay.Usages() {
		out.Leases = append(out.Leases, xrpc.RelayLease{
			Topic: u.Topic, Held: u.Held, Bytes: u.Bytes, ExpiresAt: u.Expires.UnixMilli(), Envelopes: u.Envelopes,
			Received: u.Received, Refused: u.Refused, Objects: u.Objects, Rounds: u.Rounds, Receipts: u.Signed,
		})
	}
	slices.SortFunc(out.Leases, func(a, b xrpc.RelayLease) int { return cmp.Compare(b.Held, a.Held) })
	out.Leases = out.Leases[:min(len(out.Leases), xrpc.MaxRelayLeases)]
	return out, nil
}

// relayHealthy says why the role takes nothing.
func (n *Node) relayHealthy(context.Context) error {
	if n.relay == nil {
		return nil
	}
	return n.relay.Healthy()
}
