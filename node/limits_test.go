package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-msgio"

	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

// nodeAt is a node that listens on an address of the machine, with limits that
// hold on loopback too.
func nodeAt(t *testing.T, ip string, exempt []netip.Prefix) *Node {
	t.Helper()
	home := t.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Home: home, Listen: []string{"/ip4/" + ip + "/tcp/0"}, NoMDNS: true, Exempt: exempt})
	if err != nil {
		t.Skipf("no address %s on this machine: %v", ip, err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// stranger is a host that is nobody.
func stranger(t *testing.T, opts ...libp2p.Option) host.Host {
	t.Helper()
	opts = append([]libp2p.Option{
		libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
	}, opts...)
	h, err := libp2p.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func dialsIn(ctx context.Context, h host.Host, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return h.Connect(ctx, peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()})
}

// grafts has a host join a topic at a node.
func grafts(t *testing.T, h host.Host, at *Node, topic string) network.Stream {
	t.Helper()
	s, err := h.NewStream(t.Context(), at.host.ID(), "/meshsub/1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	says(t, s, &pb.RPC{Subscriptions: []*pb.RPC_SubOpts{{Subscribe: &yes, Topicid: &topic}},
		Control: &pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: &topic}}}})
	return s
}

// says sends one message of pubsub's.
func says(t *testing.T, s network.Stream, rpc *pb.RPC) {
	t.Helper()
	b, err := rpc.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := msgio.NewVarintWriter(s).WriteMsg(b); err != nil {
		t.Fatal(err)
	}
}

// TestG16OneAddress: two hundred peers at one address connect and graft
// themselves to a space's topic. Eight get in; members at other addresses come
// and go as before, and what is written gets through.
func TestG16OneAddress(t *testing.T) {
	victim := nodeAt(t, "127.0.0.1", []netip.Prefix{})
	mates := []*Node{nodeAt(t, "127.0.0.2", nil), nodeAt(t, "127.0.0.3", nil)}
	id := club(t, append([]*Node{victim}, mates...)...)
	topic := victim.anyByID(id).current().id.Name()
	in := 0
	for range 200 {
		h := stranger(t)
		h.SetStreamHandler("/meshsub/1.2.0", func(s network.Stream) { io.Copy(io.Discard, s) })
		if dialsIn(t.Context(), h, victim) != nil {
			h.Close()
			continue
		}
		in++
		grafts(t, h, victim, topic)
	}
	if in == 0 || in > addressConns {
		t.Errorf("%d of 200 at one address are in, want at most %d", in, addressConns)
	}
	began := time.Now()
	for i := range 20 {
		forkPut(t, victim, id, fmt.Sprint("out", i))
		forkPut(t, mates[0], id, fmt.Sprint("in", i))
	}
	soon(t, "all equal", func() error { return sameSet(id, append([]*Node{victim}, mates...)...) })
	if took := time.Since(began); took > 60*time.Second {
		t.Errorf("%v", took)
	}
	late := nodeAt(t, "127.0.0.4", nil)
	enter(t, victim, late, id)
	soon(t, "a newcomer is equal", func() error { return sameSet(id, victim, late) })
}

// TestExempt: where a network is exempt, any number of peers share an address.
func TestExempt(t *testing.T) {
	n := nodeAt(t, "127.0.0.1", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	for i := range 3 * addressConns {
		if err := dialsIn(t.Context(), stranger(t), n); err != nil {
			t.Fatalf("peer %d: %v", i, err)
		}
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.1/8")} {
		if err := (&Config{Home: "x", Exempt: []netip.Prefix{bad}}).validate(); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

// TestShield: connections with the keepers of own spaces are protected, others
// are not.
func TestShield(t *testing.T) {
	owner, member := freshNode(t), freshNode(t)
	id := club(t, owner, member)
	forkPut(t, owner, id, "hello") // its hello says where it is
	forkPut(t, member, id, "too")
	soon(t, "equal", func() error { return sameSet(id, owner, member) })
	soon(t, "the owner's home is known", func() error {
		a := member.anyByID(id)
		a.mu.RLock()
		defer a.mu.RUnlock()
		if a.homes[a.sequencerID()] != owner.host.ID() {
			return errors.New("unknown")
		}
		return nil
	})
	member.shield(member.host.Network().Peers()...)
	owner.shield(owner.host.Network().Peers()...)
	if !member.host.ConnManager().IsProtected(owner.host.ID(), ownTag) {
		t.Error("the owner is not protected")
	}
	if owner.host.ConnManager().IsProtected(member.host.ID(), ownTag) {
		t.Error("a plain member is protected")
	}
}

// TestS1Stream: an outsider that knows a topic id hears nothing but that it is
// refused, on a real stream.
func TestS1Stream(t *testing.T) {
	n := freshNode(t)
	id := club(t, n)
	ep := n.anyByID(id).current()
	h := stranger(t)
	if err := dialsIn(t.Context(), h, n); err != nil {
		t.Fatal(err)
	}
	for _, known := range []bool{true, false} {
		topic := ep.id
		if !known {
			topic[0] ^= 1
		}
		s, err := h.NewStream(t.Context(), n.host.ID(), syncProtocol)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var b []byte
		for _, m := range []reconcile.Msg{reconcile.Challenge{Version: reconcile.Version, Topic: topic, Nonce: [32]byte{1}}, reconcile.Auth{}} {
			if b, err = reconcile.AppendFrame(b, m); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Write(b); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s)
		if err == nil || len(got) > 128 {
			t.Errorf("known %v: %d bytes, %v", known, len(got), err)
		}
	}
}

// TestS5HundredStreams: somebody with a member's keys asks for everything, again
// and again, on a hundred streams at once. It gets no more than one peer's
// share, on one stream of the topic at a time; a member is served meanwhile.
func TestS5HundredStreams(t *testing.T) {
	n, modest := freshNode(t), freshNode(t)
	id := club(t, n, modest)
	greedy := stranger(t)
	if err := dialsIn(t.Context(), greedy, n); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		forkPut(t, n, id, fmt.Sprint("k", i))
	}
	soon(t, "equal", func() error { return sameSet(id, n, modest) })
	const perPeer = 2 << 20
	n.rates.mu.Lock()
	n.rates.limit = Rates{PerPeer: perPeer, Total: 4 * perPeer}
	n.rates.mu.Unlock()
	before, began := n.rates.moved(greedy.ID()), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	done := make(chan struct{})
	ep := n.anyByID(id).current()
	for range 100 {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				s, err := greedy.NewStream(ctx, n.host.ID(), syncProtocol)
				if err != nil {
					return
				}
				ses, err := reconcile.New(new(hungry).config(greedy.ID(), n, n.anyByID(id), ep))
				if err != nil {
					t.Error(err)
					return
				}
				l := reconcile.NewLive(s, ses, nil, nil)
				stop := context.AfterFunc(ctx, l.Close)
				go l.Run(ctx)
				_, _ = l.Lead(ctx)
				l.Close()
				stop()
			}
		}()
	}
	for i := range 5 {
		forkPut(t, modest, id, fmt.Sprint("modest", i))
		res, err := modest.lead(ctx, modest.anyByID(id), modest.anyByID(id).current(), n.host.ID(), false)
		if err != nil {
			t.Fatalf("round %d of the other member: %+v, %v", i, res, err)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the other member waited %v", took)
	}
	soon(t, "the attack gets what it gets", func() error {
		if time.Since(began) < 3*time.Second || n.rates.moved(greedy.ID()).sum() == before.sum() {
			return errors.New("not yet")
		}
		return nil
	})
	cancel()
	for range 100 {
		<-done
	}
	took := time.Since(began).Seconds()
	got := n.rates.moved(greedy.ID()).sum() - before.sum()
	if most := perPeer * (took + 1.5); float64(got) > most {
		t.Errorf("%d bytes in %.1f s, at most %.0f", got, took, most)
	}
	if got == 0 || n.rates.counters().Waits == 0 {
		t.Errorf("%d bytes, %+v: the attack asked for little", got, n.rates.counters())
	}
	t.Logf("%d bytes to 100 streams in %.1f s", got, took)
	if n.mesh.Shunned(modest.host.ID()) {
		t.Error("the other member is shunned")
	}
	soon(t, "equal", func() error { return sameSet(id, n, modest) })
}

// TestMutePeers: forty peers of a space take sync streams and never answer,
// or answer nonsense. Writes are not slower for it, and a member
// that answers gets them at once.
func TestMutePeers(t *testing.T) {
	n, mate := freshNode(t), freshNode(t)
	id := club(t, n, mate)
	soon(t, "equal", func() error { return sameSet(id, n, mate) })
	unheard(t, mate, id) // sync alone
	a := n.anyByID(id)
	for i := range 40 {
		h := stranger(t)
		h.SetStreamHandler(syncProtocol, func(s network.Stream) {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for range tick.C {
				if i%4 > 0 {
					continue
				}
				if _, err := s.Write([]byte{0}); err != nil {
					return
				}
			}
		})
		n.book.learn(a.sid, peer.AddrInfo{ID: h.ID(), Addrs: n.host.Addrs()})
		if err := dialsIn(t.Context(), h, n); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, "the mute ones are asked", func() error {
		if n.sched.counters().Running < 12 {
			return fmt.Errorf("%+v", n.sched.counters())
		}
		return nil
	})
	for i := range 5 {
		began := time.Now()
		forkPut(t, n, id, fmt.Sprint("mute", i))
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a write took %v", took)
		}
		led := n.sched.counters().Ended
		n.reconcile(a.sid, mate.host.ID())
		soon(t, "the mate has it, and was asked", func() error {
			if n.sched.counters().Ended == led {
				return errors.New("no place for it")
			}
			return sameSet(id, n, mate)
		})
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the mate waited %v", took)
		}
	}
	if c := n.sched.counters(); c.Running > 16 || c.Running < 12 {
		t.Errorf("%+v", c)
	}
}

// hungry is a member's replica that holds nothing and keeps nothing.
type hungry struct{ reconcile.Summary }

func (h *hungry) Chains() iter.Seq2[envelope.Chain, error] {
	return func(func(envelope.Chain, error) bool) {}
}

func (h *hungry) Run(envelope.ChainID, uint64, uint64, int) (*envelope.Certificate, []envelope.Envelope, error) {
	return nil, nil, nil
}

func (h *hungry) Deliver(_ *envelope.Certificate, run []envelope.Envelope) (reconcile.Delivered, error) {
	return reconcile.Delivered{Accepted: len(run)}, nil
}

type hungryReplica struct{ *hungry }

func (h hungryReplica) Summary() (reconcile.Summary, error) { return h.hungry.Summary, nil }

func (h *hungry) config(self peer.ID, with *Node, a *actor, ep *epoch) reconcile.Config {
	a.mu.RLock()
	h.Summary = reconcile.Summary{Topic: ep.id, Ctl: a.stated(ep), Epoch: ep.n, Digest: envelope.NewTopic(ep.id).Digest()}
	a.mu.RUnlock()
	cfg := reconcile.Config{
		Role: reconcile.Initiator, Topic: ep.id, LocalPeer: []byte(self), RemotePeer: []byte(with.host.ID()),
		Keys: reconcile.NewFetchKey(ep.keys.Fetch()), Replica: hungryReplica{h}, Sink: h,
	}
	rand.Read(cfg.Nonce[:])
	return cfg
}
