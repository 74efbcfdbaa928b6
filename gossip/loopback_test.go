package gossip

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

var transports = map[string]string{"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"}

func loopback(t testing.TB, addr string) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings(addr), libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func wait[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// The real streams let themselves be woken to hear of a late topic. Both
// topics of a stand in the packet that greets b; b is in the second.
func TestLateJoinOnTransports(t *testing.T) {
	for name, addr := range transports {
		t.Run(name, func(t *testing.T) {
			first, second := topicOf(0x33), topicOf(0x34)
			a, b := newNode(t, loopback(t, addr), Config{}), newNode(t, loopback(t, addr), Config{})
			a.join(t, first).join(t, second)
			b.join(t, second)
			connect(t, b.host, a.host)
			if p := wait(t, b.joined); p != a.host.ID() {
				t.Fatalf("announced %v", p)
			}
			b.join(t, first)
			if p := wait(t, b.joined); p != a.host.ID() {
				t.Fatalf("announced %v", p)
			}
			if got := b.topic.Peers(); len(got) != 1 || got[0] != a.host.ID() {
				t.Errorf("newcomer knows %v", got)
			}
		})
	}
}

// pipe is one end of a topic, bare pubsub or with the judge.
type pipe struct {
	publish func(frame []byte) error
	arrived <-chan struct{}
}

func barePipe(b *testing.B, h host.Host, topic string) pipe {
	ps, err := pubsub.NewGossipSub(b.Context(), h,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(), pubsub.WithMessageIdFn(messageID),
		pubsub.WithPeerOutboundQueueSize(outboundQueue), pubsub.WithValidateQueueSize(validateQueue))
	if err != nil {
		b.Fatal(err)
	}
	top, err := ps.Join(topic)
	if err != nil {
		b.Fatal(err)
	}
	sub, err := top.Subscribe(pubsub.WithBufferSize(1024))
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan struct{}, 1024)
	go func() {
		for {
			m, err := sub.Next(b.Context())
			if err != nil {
				return
			}
			if m.ReceivedFrom != h.ID() {
				arrived <- struct{}{}
			}
		}
	}()
	return pipe{func(f []byte) error { return top.Publish(b.Context(), f) }, arrived}
}

func judgedPipe(b *testing.B, h host.Host, r *replica) pipe {
	topic := r.topic.ID()
	m, err := New(b.Context(), h, Config{Limits: Limits{Classes: [4]float64{3: 1e9}, Frames: 1e9, Bytes: 1e12}})
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan struct{}, 1024)
	t, err := m.Join(topic, r, func(_ peer.ID, f envelope.Frame) {
		arrived <- struct{}{}
		_ = r.take(f)
	}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return pipe{func(f []byte) error { return t.Publish(b.Context(), f) }, arrived}
}

// One entry of 256 bytes to a peer and one back, on loopback: pubsub alone,
// and with the judge (parse, signature, quota) and a replica at each end.
func BenchmarkMeshRoundTrip(b *testing.B) {
	g := grant{0x33, 0x55, 3, uint64(time.Now().Add(time.Hour).Unix())}
	for _, transport := range []string{"tcp", "quic"} {
		for _, judged := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/judged=%v", transport, judged), func(b *testing.B) {
				ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
				defer cancel()
				hosts := []host.Host{loopback(b, transports[transport]), loopback(b, transports[transport])}
				var ends []pipe
				var chains []*chain
				var held []*replica
				for i, h := range hosts {
					chains = append(chains, newChain(b, g, byte(0x40+i)).grow(b, b.N+64))
					held = append(held, newReplica(topicOf(0x33)))
					if judged {
						ends = append(ends, judgedPipe(b, h, held[i]))
					} else {
						ends = append(ends, barePipe(b, h, topicOf(0x33).Name()))
					}
				}
				held[0].hold(b, chains[1], 0)
				held[1].hold(b, chains[0], 0)
				connect(b, hosts[0], hosts[1])
				next := []int{1, 1}
				send := func(i int) {
					if err := ends[i].publish(chains[i].frame(b, next[i], next[i])); err != nil {
						b.Fatal(err)
					}
					next[i]++
				}
				for i := range ends { // until the mesh has formed
					for ok := false; !ok; {
						send(i)
						select {
						case <-ends[1-i].arrived:
							ok = true
						case <-time.After(100 * time.Millisecond):
						case <-ctx.Done():
							b.Fatal("no mesh")
						}
					}
				}
				for i := range held { // what was lost before
					_ = held[1-i].take(envelope.Frame{Run: chains[i].run[1:next[i]]})
				}
				b.ResetTimer()
				for range b.N {
					send(0)
					wait(b, ends[1].arrived)
					send(1)
					wait(b, ends[0].arrived)
				}
			})
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	for _, run := range []int{1, 12, 138} {
		b.Run(fmt.Sprintf("run=%d", run), func(b *testing.B) {
			c := newChain(b, member, 0x44).grow(b, run)
			held := newReplica(c.topic).hold(b, c, 0)
			j := NewJudge(Limits{Frames: 1e9, Bytes: 1e12, Classes: [4]float64{2: 1e9}})
			frame := c.frame(b, 1, run)
			for b.Loop() {
				if j.Judge(alice, c.topic, held, frame, start).Verdict != Accept {
					b.Fatal("not accepted")
				}
				j.Forget(c.topic)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*run), "ns/envelope")
		})
	}
}
