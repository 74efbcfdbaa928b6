package node

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/kithnet/kith/space"
)

// OpenViews is how many views of the store somebody reads.
func OpenViews(n *Node) int { return n.store.Views() }

// SweepBlobs sweeps as if it were another time.
func SweepBlobs(n *Node, now time.Time) (int, error) { return n.sweepBlobs(now) }

// AskPart asks one node for a part of a blob as another, with the keys that one
// has.
func AskPart(ctx context.Context, asker, holder *Node, id space.ID, name string) error {
	hash, err := hex.DecodeString(name)
	if err != nil {
		return err
	}
	a := asker.anyByID(id)
	a.mu.RLock()
	e := a.now
	a.mu.RUnlock()
	_, err = asker.askObject(ctx, holder.host.ID(), e, [32]byte(hash))
	return err
}

// Prune drops ops older than a time, as the node does once a day.
func Prune(n *Node, id space.ID, before time.Time) error {
	return n.prune(context.Background(), n.anyByID(id), before)
}
