package node

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

// Loot is what a member that turns against a space has of it: the key of its
// host, the epoch in force with its fetch key, and the entries.
type Loot struct {
	Host    crypto.PrivKey
	Keys    reconcile.FetchKey
	Summary reconcile.Summary
	Chains  []envelope.Chain
	Runs    map[envelope.ChainID][]envelope.Envelope
}

// SyncProtocol is what reconciliation is spoken on.
const SyncProtocol = syncProtocol

// Take takes it from a running node.
func Take(n *Node, id space.ID) (*Loot, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	e := a.current()
	l := &Loot{
		Host: n.self.peer, Keys: reconcile.NewFetchKey(slices.Clone(e.keys.Fetch())), Runs: map[envelope.ChainID][]envelope.Envelope{},
	}
	r := &replica{a: a, e: e, cursor: a.store.Cursor(e.id), here: n.hasTopic}
	defer r.cursor.Close()
	if l.Summary, err = r.Summary(); err != nil {
		return nil, err
	}
	for ch := range r.Chains() {
		_, run, err := r.Run(ch.ID, 0, ch.Head.Seq, 1<<20)
		if err != nil {
			return nil, err
		}
		l.Chains, l.Runs[ch.ID] = append(l.Chains, ch), run
	}
	return l, nil
}

// Sound fails the test if what a node holds of a space does not add up.
func Sound(t *testing.T, n *Node, id space.ID) { sound(t, n, id) }
