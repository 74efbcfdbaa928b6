//go:build !race

package node_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"log/slog"
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
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
	"github.com/kithnet/kith/testnet"
)

// hostile is a libp2p host that means harm: a member that has turned, with its
// keys and its place, or somebody who knows no more than the topic.
type hostile struct {
	role string
	h    host.Host
	loot *node.Loot
	keys reconcile.FetchKey
	rand *mrand.Rand

	served, led, gave, sent atomic.Int64 // streams answered, opened; runs given; frames gossiped
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
	x := &hostile{role: role, h: h, loot: loot, keys: loot.Keys, rand: mrand.New(mrand.NewPCG(seed, 3))}
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
			return
		}
		open, err := reconcile.ReadOpening(s)
		if err == nil {
			_ = x.speak(context.Background(), s, reconcile.Config{Role: reconcile.Responder, Opening: open})
		}
	})
	return x
}

// speak leads or answers one stream.
func (x *hostile) speak(ctx context.Context, s network.Stream, c reconcile.Config) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c.LocalPeer, c.RemotePeer = []byte(x.h.ID()), []byte(s.Conn().RemotePeer())
	rand.Read(c.Nonce[:])
	c.Keys, c.Replica, c.Sink = x.keys, lies{x}, lies{x}
	ses, err := reconcile.New(c)
	if err != nil {
		return err
	}
	var rw io.ReadWriter = s
	if x.role == babbler || x.role == forger {
		rw = &babble{Stream: s, sense: 2, x: x}
	}
	live := reconcile.NewLive(rw, ses, nil, nil)
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
		return "gossip does not listen to a peer that sent forgeries"
	}
	return "rounds with a peer come to nothing: it states what it does not give, or does not keep what it is given"
}

// babble writes what is meant a few times, then noise, or an envelope that looks
// like the next one of a chain.
type babble struct {
	network.Stream
	sense int
	x     *hostile
}

func (b *babble) Write(p []byte) (int, error) {
	if b.sense--; b.sense >= 0 {
		return b.Stream.Write(p)
	}
	noise := make([]byte, len(p))
	rand.Read(noise)
	if b.x.role == forger {
		frame, err := reconcile.AppendFrame(nil, reconcile.Envelopes{Run: []envelope.Envelope{b.x.forge()}})
		if err != nil {
			return 0, err
		}
		noise = frame
	}
	b.x.gave.Add(1)
	_, err := b.Stream.Write(noise)
	return len(p), err
}

// forge is an envelope that looks like the next one of some chain.
func (x *hostile) forge() envelope.Envelope {
	for _, ch := range x.loot.Chains {
		if run := x.loot.Runs[ch.ID]; len(run) > 1 {
			last := run[len(run)-1]
			raw := slices.Clone(last.Bytes())
			prev := last.ID()
			binary.BigEndian.PutUint64(raw[68:], last.Seq()+1) // the sequence and what went before, see envelope
			copy(raw[76:], prev[:])
			if forged, err := envelope.Parse(raw); err == nil {
				return forged
			}
		}
	}
	panic("nobody has written")
}

// lies is the replica of a hostile host.
type lies struct{ *hostile }

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
		if pause(ctx, 400*time.Millisecond); x.role == glutton { // it asks for much
			pause(ctx, 1600*time.Millisecond)
		}
	}
}

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
	_ = x.speak(ctx, s, reconcile.Config{Role: reconcile.Initiator, Topic: x.loot.Summary.Topic})
}

// flood gossips noise, or entries of others with the signature broken.
func (x *hostile) flood(ctx context.Context) {
	ps, err := pubsub.NewGossipSub(ctx, x.h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithFloodPublish(true), pubsub.WithMessageIdFn(func(m *pb.Message) string {
			id := sha256.Sum256(m.GetData())
			return string(id[:])
		}))
	if err != nil {
		return
	}
	topic, err := ps.Join(x.loot.Summary.Topic.Name())
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
			pause(ctx, floodEvery)
		}
		if topic.Publish(ctx, x.frame(n)) == nil {
			x.sent.Add(1)
		}
	}
}

// frame is the n-th thing to gossip: noise; or of some chain an entry with the
// signature broken, an old one, or the newest and then those before it.
func (x *hostile) frame(n int) []byte {
	noise := make([]byte, 300)
	rand.Read(noise)
	run := x.loot.Runs[x.loot.Chains[x.rand.IntN(len(x.loot.Chains))].ID]
	if x.role == stranger || len(run) == 0 {
		return noise
	}
	env := run[len(run)-1-n%len(run)]
	switch x.role {
	case replayer:
		env = run[x.rand.IntN(len(run))]
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

// ear keeps which peers the honest nodes warn of.
type ear struct {
	slog.Handler
	mu    sync.Mutex // guards named
	named map[string]map[string]int
}

func (e *ear) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (e *ear) WithAttrs([]slog.Attr) slog.Handler           { return e }

func (e *ear) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "peer" {
			e.mu.Lock()
			defer e.mu.Unlock()
			p := a.Value.String()
			if e.named[p] == nil {
				e.named[p] = map[string]int{}
			}
			e.named[p][r.Message]++
		}
		return true
	})
	return nil
}

// TestHostileStorm is the story of TestChurn with every tenth node hostile,
// members that have turned: one states digests that are not, one withholds, one
// floods and one never answers.
func TestHostileStorm(t *testing.T) {
	honest, lasts := 36, 150*time.Second
	roles := []string{liar, withholder, glutton, mute}
	if testing.Short() {
		honest, lasts = 12, 90*time.Second
	}
	if *full {
		lasts = 5 * time.Minute
	}
	hostileStorm(t, honest, roles, lasts)
}

// TestHostileKinds is a smaller storm with those who forge and talk nonsense,
// and with one who was never a member.
func TestHostileKinds(t *testing.T) {
	hostileStorm(t, 8, []string{forger, babbler, mute, stranger}, 90*time.Second)
}

// hostileStorm is a storm among honest nodes and hostile hosts. The honest lose
// nothing that was acknowledged and are equal a minute after it at the latest;
// who lied is named in their logs, and nobody else is.
func hostileStorm(t *testing.T, honest int, roles []string, lasts time.Duration) {
	const seed = 1
	wall := time.Now()
	testnet.Bubble(t, func(t *testing.T) {
		heard := &ear{named: map[string]map[string]int{}}
		w := testnet.New(t, honest+len(roles), testnet.Link{
			Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.20, Slot: 10 * time.Millisecond, Mbps: 10_000,
		}, seed, func(c *node.Config) { c.Log = slog.New(heard) })
		id := w.Space()
		for i, n := range w.Nodes() {
			if err := n.Put(id, fmt.Sprintf("before-%d", i), "all of them were honest"); err != nil {
				t.Fatal(err)
			}
		}
		w.WaitConverged(id, 2*time.Minute)
		var all []*hostile
		for i, role := range roles {
			all = append(all, turn(t, w.Node(honest+i), id, role, seed+uint64(i)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		victims := addresses(t, w.Nodes()[:honest])
		for _, x := range all {
			wg.Go(func() { x.attack(ctx, victims) })
		}
		ledger := w.Storm(id, testnet.Storm{
			Seed: seed, Lasts: lasts, Churn: 0.20, Down: 30 * time.Second, Flap: time.Minute, Writes: 0.5,
		})
		took := w.WaitConverged(id, time.Minute)
		t.Logf("seed %d: %v; equal %v after the net was whole", seed, ledger, took)
		for i, n := range w.Nodes()[:honest] {
			if err := ledger.Held(n, id); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
			node.Sound(t, n.Node, id)
		}
		cancel()
		wg.Wait()
		judged(t, all, heard, honest, lasts)
	})
	t.Logf("%v of the wall clock", time.Since(wall))
}

// turn makes a hostile host of a member, or of nobody at its place.
func turn(t *testing.T, n *testnet.Node, id space.ID, role string, seed uint64) *hostile {
	t.Helper()
	loot, err := node.Take(n.Node, id)
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	key := loot.Host
	if role == stranger {
		if key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	listen, opts := n.Attach()
	return newHostile(t, role, loot, key, listen, opts, seed)
}

func addresses(t *testing.T, nodes []*testnet.Node) (out []peer.AddrInfo) {
	t.Helper()
	for _, n := range nodes {
		st, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		info, err := peer.AddrInfoFromString(st.Listen[0])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *info)
	}
	return out
}

// judged holds what the honest nodes said of the hostile ones against what those
// did, and ends them.
func judged(t *testing.T, all []*hostile, heard *ear, honest int, lasts time.Duration) {
	t.Helper()
	for _, x := range all {
		id := x.h.ID().String()
		t.Logf("%s: %d streams served, %d opened, %d lies written, %d frames gossiped; %v", x.role, x.served.Load(), x.led.Load(), x.gave.Load(), x.sent.Load(), heard.named[id])
		if heard.named[id][x.crime()] == 0 {
			t.Errorf("%s is not named for what it did", x.role)
		}
		if per := float64(x.served.Load()) / lasts.Minutes() / float64(honest); per > 20 {
			t.Errorf("%s is asked %.1f times a minute by each node", x.role, per)
		}
		delete(heard.named, id)
		x.h.Close()
	}
	for p, what := range heard.named {
		for _, role := range []string{liar, forger, glutton} { // links break, so peers are mute at times
			if crime := (&hostile{role: role}).crime(); what[crime] > 0 {
				t.Errorf("an honest peer is named: %s %q", p, crime)
			}
		}
	}
}
