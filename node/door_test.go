package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
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

// TestWhereaboutsNow: of a peer that had many addresses the book has those that
// it listens on now, and puts them first.
func TestWhereaboutsNow(t *testing.T) {
	a, b, id := pairOf(t)
	var old []multiaddr.Multiaddr
	for port := range 50 {
		old = append(old, multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 1000+port)))
	}
	b.host.Peerstore().AddAddrs(a.host.ID(), old, time.Hour)
	sid := actorOf(t, a, id).sid
	b.book.learn(sid, peer.AddrInfo{ID: a.host.ID(), Addrs: old})
	if err := b.host.Network().ClosePeer(a.host.ID()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		for _, p := range b.book.of(sid) {
			if p.ID == a.host.ID() {
				return len(p.Addrs) <= maxBookAddrs && slices.ContainsFunc(a.host.Addrs(), p.Addrs[0].Equal)
			}
		}
		return false
	})
}
