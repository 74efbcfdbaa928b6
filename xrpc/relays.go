package xrpc

import (
	"context"

	"github.com/kithnet/kith/space"
)

// Relays is what the owner of a node does about relays: the one that the node
// is, and a lease at another.
type Relays interface {
	// RelayRole says what the node does as a relay.
	RelayRole(context.Context) (RelayRole, error)
	// LeaseRelay asks a relay of the space for a lease that an access code pays
	// for, on the topic of the epoch in force; relay is a peer id. Errors match
	// ErrPeerNotFound (no relay of the space, or not connected) and
	// space.ErrForbidden (the relay refused).
	LeaseRelay(ctx context.Context, id space.ID, relay, code string) (RelayStatus, error)
}

func hasRelays(s *Server) bool { return s.Relays != nil }

// RelayRole is what a node does as a relay. Of a node that is none, Relay is
// false and the rest empty.
type RelayRole struct {
	Relay    bool         `json:"relay"`
	PeerID   string       `json:"peerId,omitempty"`
	Addrs    []string     `json:"addrs,omitempty"`
	Open     bool         `json:"open,omitempty"` // it gives leases without a code
	Topics   int          `json:"topics"`
	Held     uint64       `json:"held"` // bytes, of all topics
	MaxBytes uint64       `json:"maxBytes,omitempty"`
	Failing  string       `json:"failing,omitempty"` // why it takes nothing
	Leases   []RelayLease `json:"leases"`            // those that hold most, at most MaxRelayLeases
}

// MaxRelayLeases is how many leases are told.
const MaxRelayLeases = 1000

// RelayLease is one topic that a relay carries, and what was done with it since
// the relay was started. Nothing in it is about a person.
type RelayLease struct {
	Topic     string `json:"topic"` // its first bytes, as in the log
	Held      uint64 `json:"held"`  // bytes
	Bytes     uint64 `json:"bytes"` // that it may hold
	ExpiresAt int64  `json:"expiresAt"`
	Envelopes uint64 `json:"envelopes"` // taken
	Received  uint64 `json:"received"`  // bytes of them
	Refused   uint64 `json:"refused"`
	Objects   uint64 `json:"objects"`
	Rounds    uint64 `json:"rounds"` // of reconciliation
	Receipts  uint64 `json:"receipts"`
}

func relayRole(c *call) (any, error) {
	r, err := c.s.Relays.RelayRole(c.ctx())
	r.Leases = orEmpty(r.Leases)
	return r, err
}

func leaseRelay(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	relay, err := c.required("relay")
	if err != nil {
		return nil, err
	}
	code, err := c.required("code")
	if err != nil {
		return nil, err
	}
	return c.s.Relays.LeaseRelay(c.ctx(), id, relay, code)
}

// RelayRole asks what the node does as a relay.
func (c *Client) RelayRole(ctx context.Context) (RelayRole, error) {
	var out RelayRole
	err := c.query(ctx, "dev.kith.node.relay", nil, &out)
	return out, err
}

// LeaseRelay has the node lease with an access code.
func (c *Client) LeaseRelay(ctx context.Context, id space.ID, relay, code string) (RelayStatus, error) {
	var out RelayStatus
	in := about(id, "relay", relay)
	in["code"] = code
	err := c.procedure(ctx, "dev.kith.space.leaseRelay", in, &out)
	return out, err
}
