package gossip

import (
	"encoding/binary"
	"sync"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-msgio"

	"github.com/kithnet/kith/space/envelope"
)

// raw is a peer that speaks pubsub by hand, to one other: it says whatever a
// test wants it to say, and keeps what it hears.
type raw struct {
	host   host.Host
	stream network.Stream
	// bystander is where the addresses point that it makes up.
	bystander host.Host

	mu    sync.Mutex // guards what follows
	heard []*pb.RPC
}

func newRaw(t testing.TB, h host.Host) *raw {
	t.Helper()
	x := &raw{host: h}
	h.SetStreamHandler(pubsub.GossipSubID_v12, func(s network.Stream) {
		r := msgio.NewVarintReaderSize(s, maxMessage)
		for {
			b, err := r.ReadMsg()
			if err != nil {
				s.Reset()
				return
			}
			rpc := new(pb.RPC)
			if rpc.Unmarshal(b) == nil {
				x.mu.Lock()
				x.heard = append(x.heard, rpc)
				x.mu.Unlock()
			}
			r.ReleaseMsg(b)
		}
	})
	return x
}

// open connects and opens the stream.
func (x *raw) open(t testing.TB, to host.Host) {
	t.Helper()
	connect(t, x.host, to)
	s, err := x.host.NewStream(t.Context(), to.ID(), pubsub.GossipSubID_v12)
	if err != nil {
		t.Fatal(err)
	}
	x.stream = s
}

// write sends bytes as they are. An error says that nobody reads them.
func (x *raw) write(b []byte) error {
	_, err := x.stream.Write(b)
	return err
}

// say sends one message.
func (x *raw) say(rpc *pb.RPC) error {
	b, err := rpc.Marshal()
	if err != nil {
		return err
	}
	return x.write(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
}

// control sends one control message.
func (x *raw) control(c *pb.ControlMessage) error { return x.say(&pb.RPC{Control: c}) }

// join announces a topic and grafts the other peer into its mesh.
func (x *raw) join(t testing.TB, id envelope.TopicID) {
	t.Helper()
	yes, name := true, id.Name()
	if err := x.say(&pb.RPC{Subscriptions: []*pb.RPC_SubOpts{{Subscribe: &yes, Topicid: &name}}}); err != nil {
		t.Fatal(err)
	}
	if err := x.control(&pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: &name}}}); err != nil {
		t.Fatal(err)
	}
}

// message is a published one.
func (x *raw) message(id envelope.TopicID, data []byte) *pb.RPC {
	name := id.Name()
	return &pb.RPC{Publish: []*pb.Message{{Topic: &name, Data: data}}}
}

func (x *raw) publish(t testing.TB, id envelope.TopicID, data []byte) {
	t.Helper()
	if err := x.say(x.message(id, data)); err != nil {
		t.Fatal(err)
	}
}

// said is all that was heard, in order.
func (x *raw) said() []*pb.RPC {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.heard
}

// id is the peer's.
func (x *raw) id() peer.ID { return x.host.ID() }

// pointing is an invitation to connect to the bystander, with its good record.
func (x *raw) pointing() *pb.PeerInfo {
	h := x.bystander
	env, err := record.Seal(peer.PeerRecordFromAddrInfo(peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}), h.Peerstore().PrivKey(h.ID()))
	if err != nil {
		panic(err)
	}
	signed, err := env.Marshal()
	if err != nil {
		panic(err)
	}
	return &pb.PeerInfo{PeerID: []byte(h.ID()), SignedPeerRecord: signed}
}
