package node

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/kithnet/kith/relay"
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

// relayHealthy says why the role takes nothing.
func (n *Node) relayHealthy(context.Context) error {
	if n.relay == nil {
		return nil
	}
	return n.relay.Healthy()
}
