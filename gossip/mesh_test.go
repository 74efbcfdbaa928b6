package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// live is a grant that is valid on the fake clock, which begins in 2000.
var live = grant{issuer: 0x33, writer: 0x55, class: 3, notAfter: 946_684_800 + 86_400}

func TestMeshSpreads(t *testing.T) {
	bubble(t, 6, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44).grow(t, 40)
		var nodes []*node
		for i, h := range hosts {
			nodes = append(nodes, newNode(t, h, Config{}).join(t, c.topic))
			if i > 0 { // a line: what is passed on is judged on the way
				connect(t, h, hosts[i-1])
			}
		}
		settle()
		for i := range 40 {
			nodes[0].publish(t, c.frame(t, i, i))
		}
		settle()
		want := newReplica(c.topic).hold(t, c, 39).digest()
		for i, n := range nodes[1:] {
			if n.replica.count() != 40 || n.replica.digest() != want {
				t.Errorf("node %d holds %d of 40", i+1, n.replica.count())
			}
			if n.mesh.Counters().ByReason[Malformed].Load()+n.mesh.Counters().ByReason[Forged].Load() > 0 {
				t.Errorf("node %d rejected something", i+1)
			}
		}
		if got := nodes[0].announced()[hosts[1].ID()]; got < 2 { // in the topic, then linked
			t.Errorf("neighbour was announced %d times", got)
		}
		if got := nodes[0].replica.count(); got != 0 {
			t.Errorf("own frames came back: %d", got)
		}
		if got := nodes[0].mesh.Counters().Published.Load(); got != 40 {
			t.Errorf("%d published", got)
		}
	})
}

// A peer that was connected before this node joined the topic announced it
// once, to nobody's ears; still both sides know each other and are linked.
func TestMeshLateJoin(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44).grow(t, 2)
		a, b := newNode(t, hosts[0], Config{}), newNode(t, hosts[1], Config{})
		third := newNode(t, hosts[2], Config{})
		a.join(t, c.topic)
		connect(t, hosts[1], hosts[0])
		connect(t, hosts[1], hosts[2])
		settle()
		third.join(t, c.topic)
		settle()
		b.join(t, c.topic)
		b.publish(t, c.frame(t, 0, 0)) // at once: no heartbeat has passed, and it knows nobody yet
		synctest.Wait()
		<-time.After(100 * time.Millisecond)
		synctest.Wait()
		if a.replica.count() != 1 || third.replica.count() != 1 {
			t.Errorf("%d and %d arrived of 1", a.replica.count(), third.replica.count())
		}
		a.publish(t, newChain(t, live, 0x47).frame(t, 0, 0))
		settle()
		if b.replica.count() != 1 || third.replica.count() != 2 {
			t.Errorf("%d and %d arrived of 1 and 2", b.replica.count(), third.replica.count())
		}
		if got := b.announced(); len(got) != 2 {
			t.Errorf("announced %v", got)
		}
		if got := a.announced(); got[b.host.ID()] == 0 {
			t.Errorf("announced %v", got)
		}

		// Leaving and coming back is the same.
		if err := b.topic.Close(); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := len(a.topic.Peers()); got != 0 {
			t.Errorf("%d peers after the only one left", got)
		}
		if n := b.mesh.judge.memories.Len(); n != 0 {
			t.Errorf("%d chains remembered of a topic that was left", n)
		}
		<-time.After(time.Minute) // a pruned link is not formed again at once
		b.join(t, c.topic)
		settle()
		a.publish(t, newChain(t, live, 0x45).frame(t, 0, 0))
		b.publish(t, newChain(t, live, 0x46).frame(t, 0, 0))
		settle()
		if b.replica.count() != 1 || a.replica.count() != 2 { // b's replica began anew
			t.Errorf("%d envelopes at b, %d at a", b.replica.count(), a.replica.count())
		}
	})
}

// A message that names its author is dropped before it is judged.
func TestMeshRefusesAuthors(t *testing.T) {
	for name, options := range map[string][]pubsub.Option{
		"signed": nil,
		"named":  {pubsub.WithMessageSignaturePolicy(pubsub.LaxNoSign)}, // from and seqno alone
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, hosts []host.Host) {
				c := newChain(t, live, 0x44)
				n := newNode(t, hosts[0], Config{}).join(t, c.topic)
				ps, err := pubsub.NewGossipSub(t.Context(), hosts[1], options...)
				if err != nil {
					t.Fatal(err)
				}
				topic, err := ps.Join(c.topic.Name())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := topic.Relay(); err != nil {
					t.Fatal(err)
				}
				connect(t, hosts[1], hosts[0])
				settle()
				if err := topic.Publish(t.Context(), c.frame(t, 0, 0)); err != nil {
					t.Fatal(err)
				}
				settle()
				if got := n.mesh.Counters().Authored.Load(); got == 0 || len(n.frames) != 0 { // the sender, out of the mesh, offers it again
					t.Errorf("%d messages refused for their author, %d frames handed over", got, len(n.frames))
				}
			})
		})
	}
}

// Forgeries from one peer neither reach a node nor go through it.
func TestMeshStopsForgeries(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44).grow(t, 9)
		mal := newNode(t, hosts[0], Config{}).join(t, c.topic)
		mid := newNode(t, hosts[1], Config{}).join(t, c.topic)
		far := newNode(t, hosts[2], Config{}).join(t, c.topic)
		connect(t, hosts[0], hosts[1])
		connect(t, hosts[1], hosts[2])
		settle()
		for i := range 2 { // a third would end the talk
			mal.publish(t, spoiled(c.frame(t, i, i)))
		}
		mal.publish(t, c.frame(t, 0, 4))
		settle()
		counters := mid.mesh.Counters()
		if got := counters.ByReason[Forged].Load() + counters.ByReason[Parked].Load(); got != 2 {
			t.Errorf("%d of 2 forgeries judged", got)
		}
		if len(far.frames) != 1 || far.replica.count() != 5 || mid.replica.count() != 5 {
			t.Errorf("%d frames, %d and %d envelopes", len(far.frames), mid.replica.count(), far.replica.count())
		}
	})
}

// A receiver that stands still blocks nobody; what it misses is counted.
func TestMeshSlowReceiver(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44).grow(t, 60)
		slow := newNode(t, hosts[1], Config{QueueSize: 16})
		hold := make(chan struct{})
		got := 0
		topic, err := slow.mesh.Join(c.topic, newReplica(c.topic), func(peer.ID, envelope.Frame) {
			<-hold
			got++
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, b := newNode(t, hosts[0], Config{}).join(t, c.topic), newNode(t, hosts[2], Config{}).join(t, c.topic)
		connect(t, hosts[0], hosts[1])
		connect(t, hosts[1], hosts[2])
		settle()
		for i := range 60 {
			a.publish(t, c.frame(t, i, i))
		}
		settle()
		if b.replica.count() != 60 {
			t.Errorf("%d of 60 passed on by the slow one", b.replica.count())
		}
		dropped := slow.mesh.Counters().Dropped.Load()
		if dropped != 60-17 { // 16 wait, one is in the receiver's hands
			t.Errorf("%d dropped, want 43", dropped)
		}
		close(hold)
		settle()
		if got != 17 || slow.mesh.Counters().Delivered.Load() != 17 {
			t.Errorf("%d handed over, want 17", got)
		}
		if err := topic.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestMeshTopicCap(t *testing.T) {
	bubble(t, 1, func(t *testing.T, hosts []host.Host) {
		n := newNode(t, hosts[0], Config{MaxTopics: 2})
		deliver := func(peer.ID, envelope.Frame) {}
		join := func(i byte) (*Topic, error) { return n.mesh.Join(topicOf(i), newReplica(topicOf(i)), deliver, nil) }
		first, err := join(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := join(1); !errors.Is(err, ErrJoined) {
			t.Errorf("%v, want %v", err, ErrJoined)
		}
		if _, err := join(2); err != nil {
			t.Fatal(err)
		}
		if _, err := join(3); !errors.Is(err, ErrTooManyTopics) {
			t.Errorf("%v, want %v", err, ErrTooManyTopics)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		if _, err := join(3); err != nil {
			t.Errorf("after one was left: %v", err)
		}
		if n.mesh.Topics() != 2 {
			t.Errorf("%d topics", n.mesh.Topics())
		}
		n.mesh.Close()
		if _, err := join(4); !errors.Is(err, ErrClosed) {
			t.Errorf("%v, want %v", err, ErrClosed)
		}
		if _, err := New(t.Context(), hosts[0], Config{D: 1}); err == nil {
			t.Error("degree 1 was taken")
		}
	})
}

func TestPublishRefuses(t *testing.T) {
	bubble(t, 1, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44)
		other := live
		other.issuer = 0x34
		n := newNode(t, hosts[0], Config{}).join(t, c.topic)
		for _, frame := range [][]byte{nil, c.frame(t, 0, 0)[1:], newChain(t, other, 0x44).frame(t, 0, 0)} {
			if err := n.topic.Publish(t.Context(), frame); !errors.Is(err, space.ErrMalformed) {
				t.Errorf("%d bytes: %v", len(frame), err)
			}
		}
		if n.topic.ID() != c.topic {
			t.Error("topic id differs")
		}
		if err := n.topic.Close(); err != nil {
			t.Fatal(err)
		}
		if err := n.topic.Publish(t.Context(), c.frame(t, 0, 0)); err == nil {
			t.Error("published to a topic that was left")
		}
	})
}

// What pubsub is told of topics is bounded by those joined here, whatever a
// peer announces.
func TestMeshForeignTopics(t *testing.T) {
	bubble(t, 2, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44)
		n := newNode(t, hosts[0], Config{}).join(t, c.topic)
		loud, err := pubsub.NewGossipSub(t.Context(), hosts[1], pubsub.WithMaxMessageSize(8<<20))
		if err != nil {
			t.Fatal(err)
		}
		subscribe := func(name string) {
			topic, err := loud.Join(name)
			if err == nil {
				_, err = topic.Relay()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range 300 {
			subscribe(fmt.Sprint("foreign ", i))
		}
		subscribe(c.topic.Name())
		connect(t, hosts[1], hosts[0])
		settle()
		if got := n.topic.Peers(); len(got) != 1 {
			t.Errorf("%d peers, want 1", len(got))
		}
		if got := n.mesh.pubsub.ListPeers("foreign 7"); len(got) != 0 {
			t.Error("pubsub knows a topic that is not joined")
		}
		if n.mesh.interest.total != 300 {
			t.Errorf("%d noted, want 300", n.mesh.interest.total)
		}
		hosts[1].Close()
		settle()
		if n.mesh.interest.total != 0 || len(n.mesh.interest.peers) != 0 {
			t.Errorf("%d still noted of a peer that went", n.mesh.interest.total)
		}
	})
}

func TestMeshEndsWithContext(t *testing.T) {
	bubble(t, 1, func(t *testing.T, hosts []host.Host) {
		ctx, cancel := context.WithCancel(t.Context())
		m, err := New(ctx, hosts[0], Config{})
		if err != nil {
			t.Fatal(err)
		}
		c := newChain(t, live, 0x44)
		topic, err := m.Join(c.topic, newReplica(c.topic), func(peer.ID, envelope.Frame) {}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if err := topic.Publish(t.Context(), c.frame(t, 0, 0)); err == nil {
			t.Error("published after the end")
		}
		if err := topic.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestMessageID(t *testing.T) {
	c := newChain(t, member, 0x44)
	a, b := c.frame(t, 0, 0), spoiled(c.frame(t, 0, 0))
	if bytes.Equal(a, b) || messageID(message(a)) == messageID(message(b)) || len(messageID(message(a))) != 32 {
		t.Error("a spoilt copy has the same message id")
	}
}

// Only so many frames wait for a certificate; the rest is ignored at once.
func TestSettleBounds(t *testing.T) {
	top := &Topic{}
	settled := make(chan Verdict, 1)
	settled <- Accept
	if got := top.settle(t.Context(), settled); got != Accept {
		t.Errorf("%v, want accept", got)
	}
	settled <- Accept
	top.waiting.Store(maxWaiting)
	if got := top.settle(t.Context(), settled); got != Ignore || top.waiting.Load() != maxWaiting {
		t.Errorf("%v, want ignore", got)
	}
}

func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, member, 0x44)
		for range 200 {
			c.add(t, envelope.Entry, envelope.MaxPadded)
		}
		hold := make(chan struct{})
		var got []string
		h := &handover{limit: 1000, counters: new(Counters), joined: func(p peer.ID) { got = append(got, string(p)) },
			deliver: func(p peer.ID, f envelope.Frame) {
				<-hold
				got = append(got, fmt.Sprint(f.Run[0].Seq()))
			}}
		h.peer("a")
		synctest.Wait()
		h.frame(Delivery{Frame: envelope.Frame{Run: c.run[1:2]}})
		synctest.Wait()
		h.peer("b")
		h.peer("c")
		h.peer("b") // waits already
		for i := 2; i <= 200; i++ {
			h.frame(Delivery{Frame: envelope.Frame{Run: c.run[i : i+1]}})
		}
		if want := uint64(199 - maxHandover/c.run[1].Len()); h.counters.Dropped.Load() != want {
			t.Errorf("%d dropped, want %d", h.counters.Dropped.Load(), want)
		}
		hold <- struct{}{}
		hold <- struct{}{}
		synctest.Wait()
		if want := "[a 1 b c 2]"; fmt.Sprint(got) != want {
			t.Errorf("%v, want %v", got, want)
		}
		h.close()
		h.peer("d")
		h.frame(Delivery{Frame: envelope.Frame{Run: c.run[1:2]}})
		close(hold)
		synctest.Wait()
		if want := "[a 1 b c 2 3]"; fmt.Sprint(got) != want { // 3 was under way
			t.Errorf("%v, want %v", got, want)
		}
	})
}
