package node

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestSilentKeeperIsFound: a keeper that never wrote has told nobody in a hello
// where it is. Whoever it let in finds it all the same, after a restart and
// while not connected to it.
func TestSilentKeeperIsFound(t *testing.T) {
	a, b := newPerson(t), newPerson(t)
	id, err := newSpace(a.Node, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a.Node, b.Node, id)
	keeper := a.host.ID()
	halt(t, a.Node)
	halt(t, b.Node)
	b.back(t)
	known := b.keepers(actorOf(t, b.Node, id))
	if !slices.ContainsFunc(known, func(p peer.AddrInfo) bool { return p.ID == keeper && len(p.Addrs) > 0 }) {
		t.Errorf("would ask %v, the keeper is %v", known, keeper)
	}
}
