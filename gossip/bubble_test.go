package gossip

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/kithnet/kith/space/envelope"
)

// bubble runs f under fake time with n full libp2p hosts on a simulated
// network. With the race detector it runs on one processor: the runtime is not
// steady otherwise (golang/go#78156).
func bubble(t *testing.T, n int, f func(t *testing.T, hosts []host.Host)) {
	t.Helper()
	if raceEnabled {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, func(t *testing.T) {
		link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
		net, meta, err := simlibp2p.SimpleLibp2pNetwork(
			[]simlibp2p.NodeLinkSettingsAndCount{{LinkSettings: simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}, Count: n}},
			simnet.StaticLatency(5*time.Millisecond), simlibp2p.NetworkSettings{})
		if err != nil {
			t.Fatal(err)
		}
		net.Start()
		defer func() {
			for _, h := range meta.Nodes {
				h.Close()
			}
			net.Close()
			<-time.After(time.Second) // of the fake clock: what was closed ends
		}()
		f(t, meta.Nodes)
	})
}

// node is a host with a mesh, one topic and the replica behind it.
type node struct {
	host    host.Host
	mesh    *Mesh
	topic   *Topic
	replica *replica
	frames  chan Delivery
	joined  chan peer.ID
}

func newNode(t testing.TB, h host.Host, c Config) *node {
	t.Helper()
	m, err := New(t.Context(), h, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &node{host: h, mesh: m, frames: make(chan Delivery, 4096), joined: make(chan peer.ID, 256)}
}

func (n *node) join(t testing.TB, id envelope.TopicID) *node {
	t.Helper()
	n.replica = newReplica(id)
	topic, err := n.mesh.Join(id, n.replica, func(from peer.ID, f envelope.Frame) {
		_ = n.replica.take(f)
		n.frames <- Delivery{from, f}
	}, func(p peer.ID) { n.joined <- p })
	if err != nil {
		t.Fatal(err)
	}
	n.topic = topic
	return n
}

func connect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// settle lets heartbeats pass.
func settle() {
	<-time.After(3 * time.Second)
	synctest.Wait()
}

func (n *node) publish(t testing.TB, frame []byte) {
	t.Helper()
	if err := n.topic.Publish(t.Context(), frame); err != nil {
		t.Fatal(err)
	}
}

func (n *node) announced() map[peer.ID]int {
	out := make(map[peer.ID]int)
	for {
		select {
		case p := <-n.joined:
			out[p]++
		default:
			return out
		}
	}
}
