package relay

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

// What comes by HTTP or sync reaches the members that gossip has there now.
func TestPassedOn(t *testing.T) {
	w := newWorld("one")
	r := startRelay(t, t.TempDir())
	alice, bob := newMember(t), newMember(t)
	alice.lease(t, r, w)
	bob.lease(t, r, w)
	got := make(chan envelope.Frame, 8)
	topic, err := bob.mesh.Join(w.topic, newReplica(w), func(_ peer.ID, f envelope.Frame) { got <- f }, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the relay is in the topic", func() bool {
		return len(topic.Peers()) > 0 && len(r.topic(w.topic).gossip.Peers()) > 0
	})
	web := newThin(t, r, w)
	for name, bring := range map[string]func(*chain) error{
		"HTTP": func(c *chain) error { _, err := web.put(t, c.frame(t, 0, 3)); return err },
		"sync": func(c *chain) error {
			rep := newReplica(w)
			rep.hold(t, c)
			_, err := alice.sync(t.Context(), w, rep, r.ID())
			return err
		},
	} {
		// Before the mesh has formed gossip reaches nobody: it is tried again.
		arrived := false
		for i := 0; i < 10 && !arrived; i++ {
			c := w.chain(t, name, fmt.Sprint(name, i)).grow(t, 3)
			if err := bring(c); err != nil {
				t.Fatal(err)
			}
			select {
			case f := <-got:
				arrived = f.Chain() == c.id && len(f.Run) == 4
			case <-time.After(2 * time.Second):
			}
		}
		if !arrived {
			t.Errorf("%s: nothing came", name)
		}
	}
}

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
