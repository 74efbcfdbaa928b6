package node

import (
	"context"
	"errors"
	"time"

	"github.com/kithnet/kith/space"
)

// The oplog that a node serves is its own, for those who follow a repo: what is
// older than anybody is thought to lag is dropped, whether or not others keep
// the entries it came from. Who lags more reads the whole repo.

// opsKept is how many ops of a repo stay however old they are: a page, so that
// nobody reads a quiet repo again for a few ops.
const opsKept = 1000

// prune drops the ops of a space that are older than a time.
func (n *Node) prune(ctx context.Context, a *actor, before time.Time) error {
	for author := range a.snapshot("") {
		for {
			m := &pruneOps{author: author, before: space.NextTID(before.UnixMicro(), 0, 0), reply: make(chan error, 1)}
			err, sendErr := ask(ctx, a, m, m.reply)
			if err = errors.Join(err, sendErr); err != nil {
				return err
			}
			if m.dropped == 0 {
				break
			}
			n.stats.PrunedOps.Add(uint64(m.dropped))
		}
	}
	return nil
}

// pruneOps drops some of an author's oldest ops.
type pruneOps struct {
	author  space.DID
	before  space.TID
	reply   chan error // buffered
	dropped int        // read it behind the reply
}

func (m *pruneOps) handle(a *actor) {
	err := a.broken
	if err == nil {
		m.dropped, err = a.store.PruneOps(m.author, m.before, opsKept)
	}
	m.reply <- diskError(err)
}
