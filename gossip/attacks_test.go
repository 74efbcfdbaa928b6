package gossip

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

// scene is an attacker at the first of a line of nodes, all in one topic.
type scene struct {
	chain *chain
	mal   *raw
	nodes []*node
}

// stage makes a scene of n nodes and a chain with entries; the first host is
// the attacker's.
func stage(t *testing.T, hosts []host.Host, entries int) *scene {
	t.Helper()
	s := &scene{chain: newChain(t, live, 0x44).grow(t, entries), mal: newRaw(t, hosts[0])}
	for i, h := range hosts[1:] {
		s.nodes = append(s.nodes, newNode(t, h, Config{}).join(t, s.chain.topic))
		if i > 0 {
			connect(t, h, hosts[i])
		}
	}
	s.mal.open(t, hosts[1])
	s.mal.join(t, s.chain.topic)
	settle()
	return s
}

// honest publishes the chain at the last node, from a sequence on, and wants
// all of it everywhere, and no honest node blamed.
func (s *scene) honest(t *testing.T, from int) {
	t.Helper()
	last := s.nodes[len(s.nodes)-1]
	for i := from; i < len(s.chain.run); i++ {
		last.publish(t, s.chain.frame(t, i, i))
	}
	settle()
	for i, n := range s.nodes[:len(s.nodes)-1] {
		if got := int(n.replica.count()); got != len(s.chain.run) {
			t.Errorf("node %d holds %d of %d", i, got, len(s.chain.run))
		}
	}
	for i, n := range s.nodes {
		for _, o := range s.nodes {
			if n.mesh.score(o.host.ID()) < 0 {
				t.Errorf("node %d holds faults against an honest one", i)
			}
		}
	}
}

// G1: noise, a byte, nothing, a message beyond the limit. Each is rejected,
// the sender is not listened to any more within seconds, the others notice
// nothing.
func TestG1Noise(t *testing.T) {
	for name, noise := range map[string][]byte{
		"noise": bytes.Repeat([]byte{7}, 700), "a byte": {7}, "nothing": nil,
		"beyond the limit": make([]byte, maxMessage+1),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 4, func(t *testing.T, hosts []host.Host) {
				s := stage(t, hosts, 20)
				began := time.Now()
				for i := byte(0); !s.nodes[0].mesh.Shunned(s.mal.id()); i++ {
					if time.Since(began) > 10*time.Second {
						t.Fatal("still listened to after 10 s")
					}
					data := append(bytes.Clone(noise), i) // else it is a duplicate
					if noise == nil {
						data = nil
					}
					if s.mal.say(s.mal.message(s.chain.topic, data)) != nil {
						s.mal.open(t, hosts[1]) // the stream was reset: another one
					}
					<-time.After(200 * time.Millisecond)
					synctest.Wait()
					if noise == nil && i == 0 { // the same nothing again is not judged again
						if got := s.nodes[0].mesh.Counters().ByReason[Malformed].Load(); got != 1 {
							t.Errorf("%d judged malformed", got)
						}
						break
					}
				}
				s.honest(t, 0)
				if got := s.nodes[0].mesh.Counters().Graylisted.Load(); noise != nil && got != 1 {
					t.Errorf("%d graylisted", got)
				}
			})
		})
	}
}

// G1: who is shunned gets no stream, and who reopens streams is not served
// without end.
func TestG1Streams(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		s := stage(t, hosts, 5)
		junk := append(binary.AppendUvarint(nil, 9), bytes.Repeat([]byte{0xff}, 9)...)
		served := 0
		for range 3 * streamsAtOnce {
			x, err := s.mal.host.NewStream(t.Context(), hosts[1].ID(), "/meshsub/1.2.0")
			if err == nil {
				_, err = x.Write(junk)
			}
			if err == nil {
				served++
			}
			synctest.Wait()
		}
		s.nodes[0].mesh.judge.conduct.mu.Lock()
		used, _ := s.nodes[0].mesh.judge.conduct.streams.Get(s.mal.id())
		s.nodes[0].mesh.judge.conduct.mu.Unlock()
		if used.used > streamsAtOnce {
			t.Errorf("%v streams taken of %d", used.used, served)
		}
		s.honest(t, 0)
	})
}

// G2: a hello behind a certificate of the attacker's own issuer, for the topic
// of another.
func TestG2ForeignIssuer(t *testing.T) {
	bubble(t, 4, func(t *testing.T, hosts []host.Host) {
		s := stage(t, hosts, 10)
		own := live
		own.issuer = 0x66
		for i := range byte(3) {
			c := newChain(t, own, 0x80+i)
			f := bytes.Clone(c.frame(t, 0, 0))
			copy(f[2+envelope.CertificateSize+4:], s.chain.topic[:])
			_ = s.mal.say(s.mal.message(s.chain.topic, f))
			settle()
		}
		if got := s.nodes[0].mesh.Counters().ByReason[BadCertificate].Load(); got != 3 {
			t.Errorf("%d rejected for their certificate, want 3", got)
		}
		if !s.nodes[0].mesh.Shunned(s.mal.id()) {
			t.Error("still listened to")
		}
		s.honest(t, 0)
	})
}

// G4, G5: a copy with a broken signature, or behind a corrupted certificate,
// comes first; the real frame still gets everywhere.
func TestG4BrokenSignatureFirst(t *testing.T) {
	race(t, func(s *scene, i int) []byte { return spoiled(s.chain.frame(t, i, i)) })
}

func TestG5CorruptedCertificateFirst(t *testing.T) {
	race(t, func(s *scene, i int) []byte {
		f := bytes.Clone(s.chain.frame(t, i, i))
		if i == 0 {
			f[2+100] ^= 1
		}
		return f
	})
}

func race(t *testing.T, first func(*scene, int) []byte) {
	bubble(t, 5, func(t *testing.T, hosts []host.Host) {
		s := stage(t, hosts, 10)
		for i := range s.chain.run {
			_ = s.mal.say(s.mal.message(s.chain.topic, first(s, i)))
			synctest.Wait()
		}
		s.honest(t, 0)
	})
}

// G10: hellos of chains whose key is the identity point or of small order, with
// all else about them right, are rejected by the mesh for their certificate
// alone. TestCertificateWeakKeys shows that an issuer makes none for them.
func TestG10WeakChainKey(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		s := stage(t, hosts, 5)
		weak := weakKeys[:2] // of three faults on who commits them is not heard
		for _, k := range weak {
			_ = s.mal.say(s.mal.message(s.chain.topic, weakHello(t, live, k)))
		}
		settle()
		c := s.nodes[0].mesh.Counters()
		if got := c.ByReason[BadCertificate].Load(); got != uint64(len(weak)) || s.nodes[0].replica.count() != 0 {
			t.Errorf("%d rejected, want %d; %d held", got, len(weak), s.nodes[0].replica.count())
		}
		s.honest(t, 0)
	})
}

// G11: a writer whose certificate has ended, or who is beyond its quota at
// some node, is ignored there; who passed its frames on loses nothing by it.
func TestG11RevokedWriter(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		g := live
		g.notAfter = 946_684_800 + 300
		c := newChain(t, g, 0x44).grow(t, 40)
		writer := newNode(t, hosts[0], Config{}).join(t, c.topic)
		mid := newNode(t, hosts[1], Config{}).join(t, c.topic)
		knows := newNode(t, hosts[2], Config{Limits: Limits{Classes: [4]float64{3: 1}}}).join(t, c.topic)
		connect(t, hosts[0], hosts[1])
		connect(t, hosts[1], hosts[2])
		settle()
		for i := range c.run {
			writer.publish(t, c.frame(t, i, i))
		}
		settle()
		if got := mid.replica.count(); got != 41 {
			t.Errorf("the forwarder holds %d of 41", got)
		}
		if got := knows.mesh.Counters().ByReason[OverQuota].Load(); got < 20 {
			t.Errorf("%d ignored over the quota", got)
		}
		if got := knows.mesh.score(hosts[1].ID()); got != 0 {
			t.Errorf("the forwarder has %v", got)
		}
		<-time.After(6 * time.Minute) // the certificate has ended
		c.grow(t, 1)
		writer.publish(t, c.frame(t, 41, 41))
		settle()
		if got := mid.mesh.Counters().ByReason[Expired].Load(); got != 1 {
			t.Errorf("%d ignored as expired", got)
		}
		if got := mid.mesh.score(hosts[0].ID()); got != 0 {
			t.Errorf("the writer's node has %v", got)
		}
	})
}

// G13: ten peers send forgeries as fast as they can. They are shut out within
// seconds, and another topic loses nothing meanwhile.
func TestG13Flood(t *testing.T) {
	const attackers = 10
	bubble(t, attackers+2, func(t *testing.T, hosts []host.Host) {
		victim := newNode(t, hosts[0], Config{})
		flooded := newChain(t, live, 0x45).grow(t, 5)
		if _, err := victim.mesh.Join(flooded.topic, newReplica(flooded.topic), func(peer.ID, envelope.Frame) {}, nil); err != nil {
			t.Fatal(err)
		}
		g := live
		g.issuer = 0x71
		calm := newChain(t, g, 0x44).grow(t, 999)
		victim.join(t, calm.topic)
		honest := newNode(t, hosts[1], Config{}).join(t, calm.topic)
		connect(t, hosts[1], hosts[0])
		var sent, deaf atomic.Int64
		for i, h := range hosts[2:] {
			x := newRaw(t, h)
			x.open(t, hosts[0])
			x.join(t, flooded.topic)
			go func() {
				f := spoiled(flooded.frame(t, 0, 0))
				for n := range uint64(most(25_000)) { // 5,000 a second each, for 5 s
					binary.BigEndian.PutUint64(f[len(f)-16:], n*attackers+uint64(i))
					if x.say(x.message(flooded.topic, f)) != nil {
						deaf.Add(1)
						return
					}
					sent.Add(1)
					if n%50 == 49 {
						<-time.After(10 * time.Millisecond)
					}
				}
			}()
		}
		for i := range calm.run {
			honest.publish(t, calm.frame(t, i, i))
			<-time.After(5 * time.Millisecond)
		}
		settle()
		c := victim.mesh.Counters()
		if deaf.Load() != attackers || c.Graylisted.Load() != attackers {
			t.Errorf("%d of %d attackers noticed, %d graylisted", deaf.Load(), attackers, c.Graylisted.Load())
		}
		if got := victim.replica.count(); got != 1000 {
			t.Errorf("%d of 1000 delivered in the other topic", got)
		}
		if got := c.ByReason[Forged].Load(); got > attackers*200 {
			t.Errorf("%d forgeries verified", got)
		}
		t.Logf("%d sent, %d verified", sent.Load(), c.ByReason[Forged].Load())
	})
}

// G14: floods of control messages. Nobody is dialled, memory stays flat, what
// is sent in return is bounded, gossip goes on.
func TestG14ControlFloods(t *testing.T) {
	name := topicOf(live.issuer).Name()
	ids := func(n int) (out []string) {
		for range n {
			b := make([]byte, 32)
			for i := range b {
				b[i] = byte(rand.Uint32())
			}
			out = append(out, string(b))
		}
		return out
	}
	floods := map[string]func(x *raw, heldID string){
		"subscriptions": func(x *raw, _ string) {
			for range 10 {
				var subs []*pb.RPC_SubOpts
				for i := range maxSubscriptions + 1 {
					yes, topic := true, fmt.Sprint(i)
					subs = append(subs, &pb.RPC_SubOpts{Subscribe: &yes, Topicid: &topic})
				}
				_ = x.say(&pb.RPC{Subscriptions: subs})
			}
			for n := range most(100) { // 10^6, in lists that are short enough
				var subs []*pb.RPC_SubOpts
				for i := range maxSubscriptions {
					yes, topic := true, fmt.Sprint(n, i)
					subs = append(subs, &pb.RPC_SubOpts{Subscribe: &yes, Topicid: &topic})
				}
				_ = x.say(&pb.RPC{Subscriptions: subs})
			}
		},
		"grafts": func(x *raw, _ string) {
			var grafts []*pb.ControlGraft
			for i := range 10_000 {
				topic := fmt.Sprint(i)
				if i%2 == 0 {
					topic = name
				}
				grafts = append(grafts, &pb.ControlGraft{TopicID: &topic})
			}
			_ = x.control(&pb.ControlMessage{Graft: grafts})
		},
		"peer exchange": func(x *raw, _ string) {
			var peers []*pb.PeerInfo
			for range 1000 {
				peers = append(peers, x.pointing())
			}
			minute := uint64(60)
			_ = x.control(&pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: &name, Peers: peers, Backoff: &minute}}})
		},
		"ihave": func(x *raw, _ string) {
			for range 10 {
				_ = x.control(&pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &name, MessageIDs: ids(5000)}}})
			}
		},
		"iwant": func(x *raw, held string) {
			for range 1000 {
				_ = x.control(&pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: []string{held}}}})
			}
		},
		"idontwant": func(x *raw, _ string) {
			for range most(40) { // 10^6
				_ = x.control(&pb.ControlMessage{Idontwant: []*pb.ControlIDontWant{{MessageIDs: ids(25_000)}}})
			}
		},
	}
	for what, flood := range floods {
		t.Run(what, func(t *testing.T) {
			bubble(t, 5, func(t *testing.T, hosts []host.Host) {
				s := stage(t, hosts[:4], 20)
				s.mal.bystander = hosts[4]
				var dials atomic.Int64
				hosts[1].Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
					if c.Stat().Direction == network.DirOutbound {
						dials.Add(1)
					}
				}})
				first := s.chain.frame(t, 0, 0)
				s.nodes[len(s.nodes)-1].publish(t, first)
				settle()
				heard := len(s.mal.said())
				before := heap()
				flood(s.mal, messageID(message(first)))
				settle()
				if grown := int64(heap()) - int64(before); grown > 50<<20 {
					t.Errorf("the heap grew by %d bytes", grown)
				}
				if dials.Load() > 0 {
					t.Errorf("%d dialled", dials.Load())
				}
				asked, sent := 0, 0
				for _, rpc := range s.mal.said()[heard:] {
					sent += len(rpc.GetPublish())
					for _, w := range rpc.GetControl().GetIwant() {
						asked += len(w.GetMessageIDs())
					}
				}
				if asked > 5000*4 { // a heartbeat's worth, and what the pause allows
					t.Errorf("%d ids asked for", asked)
				}
				if sent > 5 {
					t.Errorf("%d copies of one message sent", sent)
				}
				s.honest(t, 1)
			})
		})
	}
}

// most is a number of things, a tenth of it under the race detector, which
// makes bubbles slow.
func most(n int) int {
	if raceEnabled {
		return n / 10
	}
	return n
}

// heap is how much memory is in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// G16: a crowd of peers grafts itself to a topic. The mesh stays within its
// bound and keeps a link that this node chose; TestG16OneAddress has the
// connections.
func TestG16Crowd(t *testing.T) {
	const crowd = 30
	bubble(t, crowd+4, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44).grow(t, 20)
		victim := newNode(t, hosts[0], Config{}).join(t, c.topic)
		var honest []*node
		for _, h := range hosts[1:4] {
			honest = append(honest, newNode(t, h, Config{}).join(t, c.topic))
			connect(t, hosts[0], h) // outbound, as the re-dialler's are
		}
		var mob []*raw
		for _, h := range hosts[4:] {
			x := newRaw(t, h)
			x.open(t, hosts[0])
			x.join(t, c.topic)
			mob = append(mob, x)
		}
		for range 10 {
			for _, x := range mob {
				name := c.topic.Name()
				_ = x.control(&pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: &name}}})
			}
			<-time.After(time.Second)
		}
		for i := range c.run {
			honest[0].publish(t, c.frame(t, i, i))
		}
		settle()
		if got := victim.replica.count(); got != 21 {
			t.Errorf("the victim holds %d of 21", got)
		}
	})
}

// G19: of the types that plaintext pub/sub will use nothing is taken: whole
// ones are ignored, forged and malformed ones rejected, and none is passed on
// or handed over, however often it comes.
func TestG19PlaintextPubSub(t *testing.T) {
	bubble(t, 4, func(t *testing.T, hosts []host.Host) {
		s := stage(t, hosts, 10)
		mal := newChain(t, live, 0x46)
		whole := append([]byte{0, 0}, mal.add(t, envelope.Clear, 256).Bytes()...)
		for range 3 { // pubsub forgets ids after 120 s
			_ = s.mal.say(s.mal.message(s.chain.topic, whole))
			<-time.After(3 * time.Minute)
		}
		c := s.nodes[0].mesh.Counters()
		if got := c.ByReason[Unsupported].Load(); got == 0 || c.Delivered.Load() > 0 {
			t.Errorf("%d unsupported, %d handed over", got, c.Delivered.Load())
		}
		if got := s.nodes[1].mesh.Counters().ByReason[Unsupported].Load(); got > 0 {
			t.Errorf("%d passed on", got)
		}
		for i := range most(10_000) {
			e := mal.add(t, envelope.Clear, 256, byte(i), byte(i>>8))
			if s.mal.say(s.mal.message(s.chain.topic, append([]byte{0, 0}, e.Bytes()...))) != nil {
				t.Fatal("the stream ended for frames that are only unsupported")
			}
		}
		_ = s.mal.say(s.mal.message(s.chain.topic, append([]byte{0, 0}, make([]byte, envelope.MaxFrame+1)...)))
		settle()
		if got := c.ByReason[Malformed].Load(); got != 1 {
			t.Errorf("%d malformed", got)
		}
		s.honest(t, 0)
	})
}

// G25: a flood of forgeries in the name of a writer's chain costs the writer
// nothing, and its sender is shut out.
func TestG25FloodInAnothersName(t *testing.T) {
	bubble(t, 4, func(t *testing.T, hosts []host.Host) {
		s := stage(t, hosts, 300)
		f := spoiled(s.chain.frame(t, 0, 0))
		for i := range uint64(2000) {
			binary.BigEndian.PutUint64(f[len(f)-16:], i)
			if s.mal.say(s.mal.message(s.chain.topic, f)) != nil {
				break
			}
		}
		s.honest(t, 0)
		if !s.nodes[0].mesh.Shunned(s.mal.id()) {
			t.Error("still listened to")
		}
	})
}

// G26: every tenth frame is lost on one link; what comes behind is passed on,
// and what is lost can be asked for.
func TestG26LossyLink(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		s := stage(t, hosts, 100)
		for i := range s.chain.run {
			if i%10 != 5 { // the attacker's place is the lossy link here
				s.mal.publish(t, s.chain.topic, s.chain.frame(t, i, i))
			}
		}
		settle()
		for i, n := range s.nodes {
			got := 0
			for len(n.frames) > 0 {
				got += len((<-n.frames).Frame.Run)
			}
			if got != 91 {
				t.Errorf("node %d was handed %d of 91", i, got)
			}
			if n.replica.count() != 5 {
				t.Errorf("node %d holds %d without a gap, want 5", i, n.replica.count())
			}
		}
		if got := s.nodes[0].mesh.score(s.mal.id()); got != 0 {
			t.Errorf("the lossy link has %v", got)
		}
		for i := 5; i < 101; i += 10 { // as reconciliation would
			for _, n := range s.nodes {
				_ = n.replica.take(envelope.Frame{Run: s.chain.run[i : i+1]})
			}
		}
		for i, n := range s.nodes {
			if n.replica.count() != 101 {
				t.Errorf("node %d holds %d of 101 at last", i, n.replica.count())
			}
		}
	})
}

// G20: two hosts that share as many topics as there may be. Their greeting fits
// a message, and a canary in every topic arrives; one topic more is refused
// aloud.
func TestG20CanaryInEveryTopic(t *testing.T) {
	topics := defaultTopics
	if testing.Short() || raceEnabled {
		topics = most(1000)
	}
	bubble(t, 2, func(t *testing.T, hosts []host.Host) {
		a, b := newNode(t, hosts[0], Config{MaxTopics: topics}), newNode(t, hosts[1], Config{MaxTopics: topics})
		var heard atomic.Int64
		var chains []*chain
		var sends []*Topic
		for i := range topics {
			issuer := ed25519.NewKeyFromSeed(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i+1)))
			c := newChainBy(t, issuer, issuer, live, 0x44)
			top, err := a.mesh.Join(c.topic, newReplica(c.topic), func(peer.ID, envelope.Frame) {}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.mesh.Join(c.topic, newReplica(c.topic), func(peer.ID, envelope.Frame) { heard.Add(1) }, nil); err != nil {
				t.Fatal(err)
			}
			chains, sends = append(chains, c), append(sends, top)
		}
		one := topicOf(0x01)
		if _, err := a.mesh.Join(one, newReplica(one), func(peer.ID, envelope.Frame) {}, nil); !errors.Is(err, ErrTooManyTopics) {
			t.Errorf("one topic more: %v", err)
		}
		connect(t, hosts[0], hosts[1])
		<-time.After(30 * time.Second)
		for i, c := range chains {
			if err := sends[i].Publish(t.Context(), c.frame(t, 0, 0)); err != nil {
				t.Fatal(err)
			}
			if i%500 == 499 { // the outbound queue has 1,024
				<-time.After(time.Second)
			}
		}
		<-time.After(10 * time.Second)
		if got := int(heard.Load()); got != topics {
			t.Errorf("%d of %d canaries arrived", got, topics)
		}
	})
}
