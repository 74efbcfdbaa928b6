package relay

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

// One member writes, by sync and by gossip, and goes. Another, who was never
// online with it, reads all of it from the relay, which was started again.
func TestStoreAndForward(t *testing.T) {
	dir := t.TempDir()
	w := newWorld("one")
	r := startRelay(t, dir)
	alice, hers := newMember(t), newReplica(w)
	alice.lease(t, r, w)
	c := w.chain(t, "alice", "alice").grow(t, 30)
	hers.hold(t, c)
	res, err := alice.sync(t.Context(), w, hers, r.ID())
	if err != nil || !res.Equal {
		t.Fatalf("sync with the relay: %+v, %v", res, err)
	}

	topic, err := alice.mesh.Join(w.topic, hers, func(peer.ID, envelope.Frame) {}, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the relay is in the topic", func() bool { return len(topic.Peers()) > 0 })
	for range 20 {
		c.add(t, envelope.Entry, nil)
		f := c.frame(t, len(c.run)-1, len(c.run)-1)
		b, _ := f.AppendBinary(nil)
		if err := topic.Publish(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if _, err := hers.Deliver(nil, f.Run); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all of it is at the relay", func() bool {
		got := alice.receipt(t, r, w)
		return got.Count == 51 && got.Digest == hers.digest()
	})
	alice.host.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	r = startRelay(t, dir)
	bob, his := newMember(t), newReplica(w)
	bob.lease(t, r, w)
	if res, err := bob.sync(t.Context(), w, his, r.ID()); err != nil || !res.Equal || res.Received != 51 {
		t.Fatalf("sync with the relay: %+v, %v", res, err)
	}
	if his.digest() != hers.digest() {
		t.Error("not the same set")
	}
}
