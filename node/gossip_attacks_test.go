package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

// claiming is an entry whose inner length is what the forger says it is.
func (f *forger) claiming(t *testing.T, who identity.Commitment, length uint32, body []byte) envelope.Envelope {
	t.Helper()
	ak, err := f.e.keys.Author(who)
	if err != nil {
		t.Fatal(err)
	}
	ctx := binary.BigEndian.AppendUint64(bytes.Clone(f.chain.Public().(ed25519.PublicKey)), f.seq)
	aead, err := chacha20poly1305.NewX(space.KDF(ak.Marshal(), space.LabelEntry, ctx, 32))
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, envelope.PaddedSize(4+len(body)))
	binary.BigEndian.PutUint32(plain, length)
	copy(plain[4:], body)
	var nonce [24]byte
	rand.Read(nonce[:])
	h := envelope.Header{Type: envelope.Entry, Topic: f.e.id, Chain: envelope.ChainID(f.chain.Public().(ed25519.PublicKey)), Seq: f.seq, Prev: f.last}
	ct := aead.Seal(nil, nonce[:], plain, h.AAD(nonce, len(plain)+aead.Overhead()))
	raw, err := envelope.Build(h, nonce, ct, func(m []byte) []byte { return ed25519.Sign(f.chain, m) })
	if err != nil {
		t.Fatal(err)
	}
	env, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	f.seq, f.last = f.seq+1, env.ID()
	return env
}

// odd is an entry that members' rules do not take, and what becomes of it and
// its chain.
type odd struct {
	make func() envelope.Envelope
	fate fate
}

type fate string

const (
	isSkipped fate = "is skipped"     // refused, and the chain goes on
	endsChain fate = "ends the chain" // refused, and all behind it with it
	hasToWait fate = "has to wait"    // not refused: its time may come
)

// bombs are bodies that a member may put into its chain. Those that are no batch
// are refused for their shape; those in a record of a batch can be refused for
// what they are alone.
func (f *forger) bombs(t *testing.T, who identity.Commitment, rev space.TID) map[string]odd {
	entry := func(body []byte) odd {
		return odd{func() envelope.Envelope { return f.entry(t, who, body) }, isSkipped}
	}
	deep := func(head byte, n int) []byte { return bytes.Repeat([]byte{head}, n) }
	cut := batch(t, rev+2, "cut") // that it goes back in time is not what is wrong with it
	text := append([]byte{0x78, 25}, "not what the author wrote"...)
	if bytes.Count(cut, text) != 1 {
		t.Fatal("a batch has another form")
	}
	within := func(bomb []byte) odd { return entry(bytes.Replace(cut, text, bomb, 1)) }
	claiming := func(length uint32, fate fate) odd {
		return odd{func() envelope.Envelope { return f.claiming(t, who, length, cut) }, fate}
	}
	return map[string]odd{
		"depth 10,000":             entry(deep(0x81, 10_000)),
		"array of 2^32":            entry([]byte{0x9b, 0, 0, 0, 1, 0, 0, 0, 0}),
		"map of 2^63":              entry([]byte{0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0}),
		"bytes of 2^62":            entry([]byte{0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0}),
		"tags":                     entry(append(deep(0xc1, 20_000), 0)),
		"array without end":        entry([]byte{0x9f, 0x01}),
		"cut":                      entry(cut[:len(cut)/2]),
		"trailing bytes":           entry(append(bytes.Clone(cut), 0)),
		"nothing":                  {entry(nil).make, endsChain},
		"depth 10,000 in a record": within(append(deep(0x81, 10_000), 0)),
		"tags in a record":         within(append(deep(0xc1, 20_000), 0)),
		"array without end in one": within([]byte{0x9f, 0x01, 0xff}),
		"length beyond":            claiming(1<<20, endsChain),
		"length of 2^31 - 1":       claiming(1<<31-1, endsChain),
		"more, and never is":       claiming(1<<31|1<<20, endsChain),
	}
}

// claims are bodies that are well made and say what is not so.
func (f *forger) claims(t *testing.T, who identity.Commitment, rev space.TID) map[string]odd {
	at := func(who identity.Commitment, rev space.TID, name string, fate fate) odd {
		return odd{func() envelope.Envelope { return f.entry(t, who, batch(t, rev, name)) }, fate}
	}
	return map[string]odd{
		"a rev of before":       at(who, 1, "old", isSkipped),
		"the same rev":          at(who, rev, "again", isSkipped),
		"another's author key":  at(identity.Commitment{1}, rev+2, "other", endsChain),
		"an hour ahead":         at(who, space.NextTID(time.Now().Add(time.Hour).UnixMicro(), 1, 0), "later", hasToWait),
		"the last rev there is": at(who, 1<<63-1, "last", hasToWait),
	}
}

// TestG22Bombs: bodies that are bombs, or claim a wrong length.
func TestG22Bombs(t *testing.T) { sameVerdict(t, (*forger).bombs) }

// TestG23Claims: bodies that go back in time or far ahead of it, or are sealed
// as another's. TestEntryInAnothersName has a hello in another's name.
func TestG23Claims(t *testing.T) { sameVerdict(t, (*forger).claims) }

// sameVerdict gives two nodes chains with a bad entry in the middle. Both hold
// the envelopes, since they pass the keyless rules, and show the same records,
// whatever the portions in which a chain came: what stands before the entry,
// and nothing of it. It does not take long, and nobody is blamed for passing
// it on.
func sameVerdict(t *testing.T, bad func(*forger, *testing.T, identity.Commitment, space.TID) map[string]odd) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	now := space.NextTID(time.Now().UnixMicro(), 1, 0)
	names := slices.Sorted(maps.Keys(bad(newForger(t, onB.current()), t, b.self.c, now)))
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			f := newForger(t, onB.current())
			rev := now + space.TID(i*10)
			good, after := fmt.Sprint("good", i), fmt.Sprint("after", i)
			odd := bad(f, t, b.self.c, rev)[name]
			refused := []int64{int64(onA.refused.Load()), int64(onB.refused.Load())}
			run := []envelope.Envelope{
				f.hello(t, b.self.c, b.self.device.ID(), onB.control().Head),
				f.entry(t, b.self.c, batch(t, rev, good)),
				odd.make(),
				f.entry(t, b.self.c, batch(t, rev+5, after)),
			}
			began := time.Now()
			if n, err := onA.deliver(t.Context(), &runIn{topic: f.e.id, from: b.host.ID(), cert: &f.cert, run: run}); err != nil || n != 4 {
				t.Fatalf("accepted %d envelopes: %v", n, err)
			}
			for j := range run {
				in := &runIn{topic: f.e.id, from: a.host.ID(), run: run[j : j+1]}
				if j == 0 {
					in.cert = &f.cert
				}
				// a may have told b already.
				if _, err := onB.deliver(t.Context(), in); err != nil && !errors.Is(err, envelope.ErrDuplicate) {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			soon(t, "equal", func() error { return sameSet(id, a, b) })
			for j, n := range []*Node{a, b} {
				if err := errors.Join(hasRecord(n, id, good, true), hasRecord(n, id, after, odd.fate == isSkipped)); err != nil {
					t.Errorf("it %s: %v", odd.fate, err)
				}
				if got := int64(n.anyByID(id).refused.Load()) - refused[j]; (got > 0) != (odd.fate != hasToWait) {
					t.Errorf("it %s, and %d entries were refused", odd.fate, got)
				}
				for _, key := range []string{"old", "again", "other", "later", "last", "cut"} {
					if err := hasRecord(n, id, key, false); err != nil {
						t.Error(err)
					}
				}
				if n.mesh.Shunned(a.host.ID()) || n.mesh.Shunned(b.host.ID()) {
					t.Error("a node that passed it on is shunned")
				}
			}
		})
	}
}

// unheard takes a node out of a space's gossip; sync is left.
func unheard(t *testing.T, n *Node, id space.ID) {
	t.Helper()
	a := n.anyByID(id)
	n.mu.RLock()
	r := n.spaces[a.sid]
	n.mu.RUnlock()
	n.deafen(r)
}

// TestG17Eclipse: all neighbours that a node has in a topic drop it in silence.
// What is written elsewhere reaches it by sync with a peer that is no neighbour
// there, and its own writes get out.
func TestG17Eclipse(t *testing.T) {
	victim, keeper := freshNode(t), freshNode(t)
	id := club(t, keeper, victim)
	soon(t, "equal", func() error { return sameSet(id, keeper, victim) })
	unheard(t, keeper, id)
	topic := victim.anyByID(id).current().id.Name()
	for range 6 {
		h := stranger(t)
		h.SetStreamHandler("/meshsub/1.2.0", func(s network.Stream) { io.Copy(io.Discard, s) })
		if err := dialsIn(t.Context(), h, victim); err != nil {
			t.Fatal(err)
		}
		grafts(t, h, victim, topic)
	}
	delivered := victim.mesh.Counters().Delivered.Load()
	began := time.Now()
	forkPut(t, keeper, id, "from-outside")
	forkPut(t, victim, id, "from-inside")
	soon(t, "equal by sync", func() error {
		return errors.Join(sameSet(id, keeper, victim), hasRecord(victim, id, "from-outside", true), hasRecord(keeper, id, "from-inside", true))
	})
	if got := victim.mesh.Counters().Delivered.Load(); got != delivered {
		t.Errorf("%d frames came by gossip: no eclipse", got-delivered)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("%v", took)
	}
}

// TestG26Filled: every tenth frame is lost on the way. What came is kept, and
// sync with the peer that the rest came from fills the gaps.
func TestG26Filled(t *testing.T) {
	writer, reader := freshNode(t), freshNode(t)
	id := club(t, writer, reader)
	soon(t, "equal", func() error { return sameSet(id, writer, reader) })
	unheard(t, reader, id)
	a := reader.anyByID(id)
	w := writer.anyByID(id)
	for i := range 40 {
		forkPut(t, writer, id, fmt.Sprint("k", i))
	}
	var lost, came int
	for ch := range chainsOf(w) {
		envs, err := w.store.Run(w.current().id, ch.ID, 0, ch.Head.Seq, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range envs {
			if i%10 == 5 {
				lost++
				continue
			}
			in := &runIn{topic: e.Topic(), from: writer.host.ID(), run: envs[i : i+1]}
			if i == 0 {
				in.cert = &ch.Cert
			}
			came++
			a.offer(in)
		}
	}
	if lost < 4 || came < 30 {
		t.Fatalf("%d lost, %d came", lost, came)
	}
	soon(t, "the gaps are filled", func() error { return sameSet(id, writer, reader) })
}

// TestG11Removed: who was removed goes on publishing under a certificate that
// has not ended. It counts nowhere, all that is held stays equal, and nobody
// who passed it on is held to account.
func TestG11Removed(t *testing.T) {
	a, b, c := freshNode(t), freshNode(t), freshNode(t)
	id := club(t, a, b, c)
	forkPut(t, c, id, "known")
	soon(t, "equal", func() error { return sameSet(id, a, b, c) })
	old := c.anyByID(id).current()
	f := newForger(t, old)
	head := c.anyByID(id).control().Head
	if err := a.RemoveMember(t.Context(), id, c.self.did); err != nil {
		t.Fatal(err)
	}
	soon(t, "the epoch is adopted", func() error {
		if b.anyByID(id).current().n != 2 || a.anyByID(id).current().n != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	h := stranger(t)
	h.SetStreamHandler("/meshsub/1.2.0", func(s network.Stream) { io.Copy(io.Discard, s) })
	if err := dialsIn(t.Context(), h, a); err != nil {
		t.Fatal(err)
	}
	rev := space.NextTID(time.Now().UnixMicro(), 1, 0)
	run := []envelope.Envelope{f.hello(t, c.self.c, c.self.device.ID(), head), f.entry(t, c.self.c, batch(t, rev, "late"))}
	frame := envelope.Frame{Cert: &f.cert, Run: run}
	bytes, err := frame.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	judged := func(n *Node) (all, rejected uint64) {
		k := n.mesh.Counters()
		for name, v := range k.All() {
			switch name {
			case "gossip malformed", "gossip bad certificate", "gossip forged":
				rejected += v
			case "gossip fresh", "gossip not served", "gossip duplicate":
				all += v
			}
		}
		return all, rejected
	}
	before, _ := judged(a)
	name := old.id.Name()
	says(t, grafts(t, h, a, name), &pb.RPC{Publish: []*pb.Message{{Topic: &name, Data: bytes}}})
	soon(t, "it is judged, or not listened to", func() error {
		if n, _ := judged(a); n == before && a.anyByID(id).epoch(old.id) != nil && hears(a, old.id) {
			return errors.New("not yet")
		}
		return nil
	})
	forkPut(t, a, id, "next")
	soon(t, "equal", func() error { return sameSet(id, a, b) })
	for _, n := range []*Node{a, b} {
		if err := errors.Join(hasRecord(n, id, "late", false), hasRecord(n, id, "known", true)); err != nil {
			t.Error(err)
		}
		if _, rejected := judged(n); rejected > 0 {
			t.Errorf("%d rejected", rejected)
		}
		for _, p := range []*Node{a, b, c} {
			if n.mesh.Shunned(p.host.ID()) {
				t.Error("shunned")
			}
		}
	}
}

// hears reports whether a node listens to a topic.
func hears(n *Node, id envelope.TopicID) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	a := n.topics[id]
	return a != nil && n.spaces[a.sid] != nil && n.spaces[a.sid].topics[id] != nil
}

// chainsOf are the chains of a node's newest epoch.
func chainsOf(a *actor) iter.Seq[envelope.Chain] {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Values(slices.Collect(a.current().topic.Chains()))
}

// TestCoalesced: what waits together travels together. A burst of single writes
// by many clients goes out in fewer frames than it has entries.
func TestCoalesced(t *testing.T) {
	writer, reader := freshNode(t), freshNode(t)
	id := club(t, writer, reader)
	soon(t, "equal", func() error { return sameSet(id, writer, reader) })
	frames, entries := writer.mesh.Counters().Published.Load(), setOf(writer.anyByID(id), writer.anyByID(id).current())
	const writes, clients = 40, 16
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range writes {
				if _, err := writer.Write(context.Background(), id, forkWrites(fmt.Sprint("c", c, "-", i)), xrpc.WriteOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	frames = writer.mesh.Counters().Published.Load() - frames
	if frames == 0 || frames >= writes*clients*3/4 {
		t.Errorf("%d frames for %d entries (%s before)", frames, writes*clients, entries)
	}
	t.Logf("%d frames for %d entries", frames, writes*clients)
	soon(t, "equal", func() error { return sameSet(id, writer, reader) })
}
