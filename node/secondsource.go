package node

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/sync/reconcile"
)

// A keeper that lets somebody in can show an old log: everything in it is
// signed, and nothing says that there is more. A link names an entry that the
// log must contain. Where none did, the head is unverified until another node
// shows it too.

// unverifiedMeta names the one node that has shown how far the log goes.
const unverifiedMeta = "unverified-head"

// unverified is the mark that a joined space begins with.
func (j *joined) unverified(source peer.ID) map[string][]byte {
	if j.named {
		return nil
	}
	return map[string][]byte{unverifiedMeta: []byte(source)}
}

// seconded ends the mark if a round showed our head of the log at another node
// than the first. mu is held.
func (a *actor) seconded(with peer.ID, e *epoch, res reconcile.Result) bool {
	if a.unverified == "" || with == a.unverified || res.Ctl != res.PeerCtl || e.n != a.ctl.Epoch {
		return false
	}
	a.unverified = ""
	return true
}

// seconding keeps that the mark ended.
type seconding struct{}

func (seconding) handle(a *actor) {
	if err := a.store.Commit(store.Remote, &store.Batch{Meta: map[string][]byte{unverifiedMeta: nil}}); err != nil {
		a.log.Warn("keep that the head of the log is verified", "err", err)
	}
}
