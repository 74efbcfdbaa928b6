//go:build !race

package node_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"iter"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

// hostile is a libp2p host that means harm: a member that has turned, with its
// keys and its place, or somebody who knows no more than the topic.
type hostile struct {
	role string
	h    host.Host
	keys reconcile.FetchKey // of a stranger, who has no other
	rand *mrand.Rand        // attack's
	pace time.Duration      // between two visits

	served, led, gave, sent atomic.Int64 // streams answered, opened; runs given; frames gossiped

	mu    sync.Mutex // guards what follows
	known []*node.Loot
	deeds map[peer.ID][]deed // by whom they were done to, in their order
}

// The roles. All but the mute speak the protocol up to the point where they lie.
const (
	liar       = "liar"       // states digests that are not, of chains longer than they are, and gives nothing
	withholder = "withholder" // shows what was there when it turned, takes what came since and gives none of it
	shuffler   = "shuffler"   // gives what there is back to front
	replayer   = "replayer"   // gives what was there before, whatever is asked for
	forger     = "forger"     // gives envelopes that it has changed
	babbler    = "babbler"    // proves its key and goes on with noise
	mute       = "mute"       // takes streams and never answers
	glutton    = "glutton"    // asks for everything, again and again, and floods gossip with forgeries
	stranger   = "stranger"   // has no key: knocks all the time and fills gossip with noise
)

// newHostile puts a host on the network; key and place are a member's.
func newHostile(t *testing.T, role string, loot *node.Loot, key crypto.PrivKey, listen []string, opts []libp2p.Option, seed uint64) *hostile {
	t.Helper()
	h, err := libp2p.New(append([]libp2p.Option{libp2p.Identity(key), libp2p.ListenAddrStrings(listen...), libp2p.DisableRelay()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	x := &hostile{role: role, h: h, pace: visitEvery, rand: mrand.New(mrand.NewPCG(seed, 3)), known: []*node.Loot{loot}, deeds: map[peer.ID][]deed{}}
	if role == stranger {
		_, sk, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		x.keys = reconcile.NewFetchKey(sk)
	}
	h.SetStreamHandler(node.SyncProtocol, func(s network.Stream) {
		x.served.Add(1)
		defer s.Reset()
		if role == mute {
			io.Copy(io.Discard, s) // until the other side gives up
			x.did(s.Conn().RemotePeer())
			return
		}
		open, err := reconcile.ReadOpening(s)
		if err == nil {
			_ = x.speak(context.Background(), s, x.about(open.Topic), reconcile.Config{Role: reconcile.Responder, Opening: open})
		}
	})
	return x
}

// learn lets it know an epoch more.
func (x *hostile) learn(loot *node.Loot) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.known = append(x.known, loot)
}

// newest is what it knows of the newest epoch.
func (x *hostile) newest() *node.Loot {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.known[len(x.known)-1]
}

// about is what it knows of a topic: of one that it does not know, of the newest.
func (x *hostile) about(topic envelope.TopicID) *node.Loot {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, l := range x.known {
		if l.Summary.Topic == topic {
			return l
		}
	}
	return x.known[len(x.known)-1]
}

// deed is something that a host is to be named for, or, undone, what makes up
// for those before it.
type deed struct {
	at     time.Time
	undone bool
}

func (x *hostile) did(to peer.ID) { x.note(to, deed{at: time.Now()}) }

func (x *hostile) note(to peer.ID, d deed) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.deeds[to] = append(x.deeds[to], d)
}

// inRow is the most deeds in a row between two times.
func (x *hostile) inRow(to peer.ID, since, until time.Time) (most int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	row := 0
	for _, d := range x.deeds[to] {
		switch {
		case d.undone || d.at.Before(since):
			row = 0
		case d.at.Before(until):
			row++
			most = max(most, row)
		}
	}
	return most
}

// speak leads or answers one stream.
func (x *hostile) speak(ctx context.Context, s network.Stream, loot *node.Loot, c reconcile.Config) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c.LocalPeer, c.RemotePeer = []byte(x.h.ID()), []byte(s.Conn().RemotePeer())
	rand.Read(c.Nonce[:])
	c.Keys, c.Replica, c.Sink = loot.Keys, lies{x, loot}, lies{x, loot}
	if x.role == stranger {
		c.Keys = x.keys
	}
	ses, err := reconcile.New(c)
	if err != nil {
		return err
	}
	var rw io.ReadWriter = s
	if x.role == babbler || x.role == forger {
		rw = &babble{Stream: s, sense: 2, x: x, loot: loot}
	}
	live := reconcile.NewLive(rw, ses, nil, func(res reconcile.Result) {
		if x.crime() == barren {
			x.note(s.Conn().RemotePeer(), deed{time.Now(), res.Equal})
		}
	})
	if x.role == glutton && c.Role == reconcile.Initiator {
		go func() {
			for range 3 {
				if _, err := live.Lead(ctx); err != nil {
					return
				}
			}
			live.Close()
		}()
	}
	return live.Run(ctx)
}

// crime is what the log says of a role.
func (x *hostile) crime() string {
	switch x.role {
	case babbler, forger:
		return "a peer broke the sync protocol"
	case mute:
		return "a peer does not answer; it is asked ever less"
	case glutton, stranger:
		return forgeries
	}
	return barren
}

const (
	barren    = "rounds with a peer come to nothing: it states what it does not give, or does not keep what it is given"
	forgeries = "gossip does not listen to a peer that sent forgeries"
)

// babble writes what is meant a few times, then noise, or an envelope that looks
// like the next one of a chain.
type babble struct {
	network.Stream
	sense int
	x     *hostile
	loot  *node.Loot
}

func (b *babble) Write(p []byte) (int, error) {
	if b.sense--; b.sense >= 0 {
		return b.Stream.Write(p)
	}
	noise := make([]byte, len(p))
	rand.Read(noise)
	if run := forge(b.loot); b.x.role == forger && run != nil {
		frame, err := reconcile.AppendFrame(nil, reconcile.Envelopes{Run: run})
		if err != nil {
			return 0, err
		}
		noise = frame
	}
	b.x.gave.Add(1)
	b.x.did(b.Conn().RemotePeer())
	_, err := b.Stream.Write(noise)
	return len(p), err
}

// forge is an envelope that looks like the next one of some chain; none where
// nobody has written.
func forge(loot *node.Loot) []envelope.Envelope {
	for _, ch := range loot.Chains {
		if run := loot.Runs[ch.ID]; len(run) > 1 {
			last := run[len(run)-1]
			raw := slices.Clone(last.Bytes())
			prev := last.ID()
			binary.BigEndian.PutUint64(raw[68:], last.Seq()+1) // the sequence and what went before, see envelope
			copy(raw[76:], prev[:])
			if forged, err := envelope.Parse(raw); err == nil {
				return []envelope.Envelope{forged}
			}
		}
	}
	return nil
}

// lies is the replica of a hostile host.
type lies struct {
	*hostile
	loot *node.Loot
}

func (x lies) Summary() (reconcile.Summary, error) {
	s := x.loot.Summary
	switch x.role {
	case withholder:
	case shuffler, replayer:
		s.Count++
		rand.Read(s.Digest[:])
	case glutton:
		s.Count, s.Digest = 0, [32]byte{}
	default:
		s.Count += 1 + uint64(mrand.IntN(100))
		rand.Read(s.Digest[:])
	}
	return s, nil
}

func (x lies) Chains() iter.Seq2[envelope.Chain, error] {
	return func(yield func(envelope.Chain, error) bool) {
		for i, ch := range x.loot.Chains {
			if x.role == glutton || x.role == liar && i%2 == 0 {
				continue
			}
			if x.role != withholder {
				ch.Head.Seq += 3
				rand.Read(ch.Head.ID[:])
				ch.Length += 3
			}
			if !yield(ch, nil) {
				return
			}
		}
	}
}

// Run gives nothing, whatever was promised, or not what was.
func (x lies) Run(chain envelope.ChainID, _, _ uint64, _ int) (*envelope.Certificate, []envelope.Envelope, error) {
	run := slices.Clone(x.loot.Runs[chain])
	switch x.role {
	case shuffler:
		slices.Reverse(run)
	case replayer:
	default:
		return nil, nil, nil
	}
	x.gave.Add(1)
	return nil, run[:min(len(run), 16)], nil
}

func (x lies) Deliver(_ *envelope.Certificate, run []envelope.Envelope) (reconcile.Delivered, error) {
	return reconcile.Delivered{Accepted: len(run)}, nil
}

// attack goes on until ctx is done: streams to those named, and gossip.
func (x *hostile) attack(ctx context.Context, victims []peer.AddrInfo) {
	var wg sync.WaitGroup
	defer wg.Wait()
	switch x.role {
	case glutton, stranger, forger, shuffler, replayer:
		wg.Go(func() { x.flood(ctx) })
	}
	for ctx.Err() == nil {
		v := victims[x.rand.IntN(len(victims))]
		wg.Go(func() { x.visit(ctx, v) })
		if pause(ctx, x.pace); x.role == glutton { // it asks for much
			pause(ctx, 4*x.pace)
		}
	}
}

// visitEvery is how long a host waits after one visit for the next, where it is
// the only one of its role.
const visitEvery = 400 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (x *hostile) visit(ctx context.Context, v peer.AddrInfo) {
	dial, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := x.h.Connect(dial, v); err != nil || x.role == mute {
		return
	}
	s, err := x.h.NewStream(dial, v.ID, node.SyncProtocol)
	if err != nil {
		return
	}
	defer s.Reset()
	x.led.Add(1)
	loot := x.newest()
	_ = x.speak(ctx, s, loot, reconcile.Config{Role: reconcile.Initiator, Topic: loot.Summary.Topic})
}

// flood gossips noise, or entries of others with the signature broken.
func (x *hostile) flood(ctx context.Context) {
	ps, err := pubsub.NewGossipSub(ctx, x.h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithFloodPublish(true), pubsub.WithMessageIdFn(func(m *pb.Message) string {
			id := sha256.Sum256(m.GetData())
			return string(id[:])
		}), pubsub.WithEventTracer(flooded{x}))
	if err != nil {
		return
	}
	for ctx.Err() == nil {
		x.floodTopic(ctx, ps, x.newest())
	}
}

// floodTopic floods until there is a newer topic.
func (x *hostile) floodTopic(ctx context.Context, ps *pubsub.PubSub, loot *node.Loot) {
	topic, err := ps.Join(loot.Summary.Topic.Name())
	if err != nil {
		return
	}
	defer topic.Close()
	cancel, err := topic.Relay()
	if err != nil {
		return
	}
	defer cancel()
	for n := 0; ctx.Err() == nil; n++ {
		if n%floodBurst == 0 {
			if pause(ctx, floodEvery); x.newest() != loot {
				return
			}
		}
		if topic.Publish(ctx, x.frame(loot, n)) == nil {
			x.sent.Add(1)
		}
	}
}

// flooded notes to whom frames go.
type flooded struct{ x *hostile }

func (f flooded) Trace(e *pb.TraceEvent) {
	if f.x.crime() == forgeries && e.GetType() == pb.TraceEvent_SEND_RPC && len(e.GetSendRPC().GetMeta().GetMessages()) > 0 {
		f.x.did(peer.ID(e.GetSendRPC().GetSendTo()))
	}
}

// frame is the n-th thing to gossip: noise; or of some chain an entry with the
// signature broken, an old one, or the newest and then those before it.
func (x *hostile) frame(loot *node.Loot, n int) []byte {
	noise := make([]byte, 300)
	rand.Read(noise)
	if x.role == stranger || len(loot.Chains) == 0 {
		return noise
	}
	run := loot.Runs[loot.Chains[mrand.IntN(len(loot.Chains))].ID]
	if len(run) == 0 {
		return noise
	}
	env := run[len(run)-1-n%len(run)]
	switch x.role {
	case replayer:
		env = run[mrand.IntN(len(run))]
	case glutton, forger:
		raw := slices.Clone(env.Bytes())
		rand.Read(raw[len(raw)-32:])
		forged, err := envelope.Parse(raw)
		if err != nil {
			return noise
		}
		env = forged
	}
	b, err := envelope.Frames(nil, []envelope.Envelope{env})[0].AppendBinary(nil)
	if err != nil {
		return noise
	}
	return b
}

// A flood comes in bursts: so many frames to everybody, once in so long.
const (
	floodBurst = 50
	floodEvery = 10 * time.Second
)
