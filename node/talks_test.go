package node

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/sync/reconcile"
)

// syncStreams are the sync streams a node has with a peer.
func syncStreams(n *Node, with peer.ID) (out []network.Stream) {
	for _, c := range n.host.Network().ConnsToPeer(with) {
		for _, s := range c.GetStreams() {
			if s.Protocol() == syncProtocol {
				out = append(out, s)
			}
		}
	}
	return out
}

// TestTalks: rounds of either side go over one authenticated stream and cost
// next to nothing while nothing moves; an epoch that is over costs no stream of
// its own, and its equality is noted; what was said of it is forgotten when it
// moves.
func TestTalks(t *testing.T) {
	a, b, id := pairOf(t)
	ra, rb := actorOf(t, a, id), actorOf(t, b, id)
	lead := func(n *Node, at *actor, with *Node) reconcile.Result {
		t.Helper()
		res, err := n.lead(t.Context(), at, at.current(), with.host.ID(), false)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	waitFor(t, func() bool { // whoever opened streams at once has agreed on one
		x, y := lead(a, ra, b), lead(b, rb, a)
		return x.Equal && y.Equal && x.AuthBytes+y.AuthBytes == 0
	})
	before := map[string]bool{}
	for _, s := range syncStreams(a, b.host.ID()) {
		before[s.ID()] = true
	}
	for range 5 {
		for _, r := range []reconcile.Result{lead(a, ra, b), lead(b, rb, a)} {
			if !r.Equal || r.AuthBytes != 0 || r.MetaBytes > 100 {
				t.Errorf("%+v", r)
			}
		}
	}
	for _, s := range syncStreams(a, b.host.ID()) {
		if !before[s.ID()] {
			t.Errorf("stream %v is new, there were %v", s.ID(), before)
		}
	}

	if _, err := a.Rotate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return rb.current().n == 2 })
	waitFor(t, func() bool { return lead(a, ra, b).Past == reconcile.PastEqual })
	old := ra.descending()[1]
	if !ra.settled(b.host.ID(), old, false) {
		t.Error("the epoch that is over is not known to be equal")
	}
	ra.mu.RLock()
	shown := ra.syncs[b.host.ID()][1]
	ra.mu.RUnlock()
	if shown.Count != old.topic.Count() || shown.Digest == "" {
		t.Errorf("noted %+v", shown)
	}

	// A stream that dies is replaced.
	for _, s := range syncStreams(a, b.host.ID()) {
		s.Reset()
	}
	waitFor(t, func() bool {
		res, err := a.lead(t.Context(), ra, ra.current(), b.host.ID(), false)
		return err == nil && res.Equal
	})

	// A forgotten space is not spoken of on a stream that is still open.
	if err := b.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if res, err := a.lead(t.Context(), ra, ra.current(), b.host.ID(), false); err == nil {
		t.Errorf("a space that was forgotten answers: %+v", res)
	}
}
