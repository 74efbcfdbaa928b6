package gossip

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// bareTopic is the one topic of Bare peers.
const bareTopic = "kith/bare"

// Bare is a peer with nothing but gossipsub: the floor that a Mesh, and all
// that stands on it, is measured against. Messages are unsigned and judged by
// nobody; every option is pubsub's default but for the message id, which is
// the hash of the data as unsigned messages have nothing else to tell them
// apart. It listens on loopback alone.
type Bare struct {
	host  host.Host
	topic *pubsub.Topic
	sub   *pubsub.Subscription
	stop  context.CancelFunc
}

// NewBare starts a peer with a key and a QUIC port of its own.
func NewBare(ctx context.Context) (*Bare, error) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"), libp2p.DisableRelay())
	if err != nil {
		return nil, fmt.Errorf("bare host: %w", err)
	}
	b := &Bare{host: h}
	ctx, b.stop = context.WithCancel(ctx)
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("bare gossip: %w", err), b.Close())
	}
	return b, nil
}

func (b *Bare) open(ctx context.Context) error {
	ps, err := pubsub.NewGossipSub(ctx, b.host,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string {
			id := sha256.Sum256(m.GetData())
			return string(id[:])
		}),
	)
	if err != nil {
		return err
	}
	if b.topic, err = ps.Join(bareTopic); err != nil {
		return err
	}
	b.sub, err = b.topic.Subscribe()
	return err
}

// Addr is where another Bare finds this one.
func (b *Bare) Addr() string {
	return b.host.Addrs()[0].String() + "/p2p/" + b.host.ID().String()
}

// Connect dials another Bare.
func (b *Bare) Connect(ctx context.Context, addr string) error {
	m, err := multiaddr.NewMultiaddr(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	info, err := peer.AddrInfoFromP2pAddr(m)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	if err := b.host.Connect(ctx, *info); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// Publish sends to whoever is known to be in the topic, which may be nobody.
func (b *Bare) Publish(ctx context.Context, data []byte) error {
	return b.topic.Publish(ctx, data)
}

// Receive waits for the next message of another peer and tells when it came.
func (b *Bare) Receive(ctx context.Context) ([]byte, time.Time, error) {
	for {
		m, err := b.sub.Next(ctx)
		at := time.Now()
		if err != nil {
			return nil, at, fmt.Errorf("receive: %w", err)
		}
		if m.ReceivedFrom != b.host.ID() {
			return m.Data, at, nil
		}
	}
}

// Close leaves the topic and closes the host.
func (b *Bare) Close() error {
	b.stop()
	return b.host.Close()
}
