package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// batchOf is a batch that puts one record.
func batchOf(t *testing.T, rev space.TID, key string) []byte {
	t.Helper()
	w := forkWrites(key)[0]
	body, err := space.Batch{Rev: rev, Ops: []space.Op{{Path: w.Path, Value: w.Value}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// thief has the chain key of a node as it stands.
func thief(t *testing.T, a *actor) *seal.Writer {
	t.Helper()
	w := inside(t, a, func() seal.Writer { return *a.writer })
	return &w
}

// branch is n envelopes by a writer, each putting one record.
func branch(t *testing.T, a *actor, w *seal.Writer, name string, n int) (run []envelope.Envelope) {
	t.Helper()
	rev := inside(t, a, func() space.TID { return a.repos[a.self.did].Rev() })
	for i := range n {
		envs, err := w.Seal(rand.Reader, envelope.Entry, batchOf(t, rev+1+space.TID(i), fmt.Sprint(name, i)))
		if err != nil {
			t.Fatal(err)
		}
		run = append(run, envs...)
	}
	return run
}

// show hands a run to a node as a peer would.
func show(t *testing.T, a *actor, from peer.ID, run []envelope.Envelope) error {
	t.Helper()
	_, err := a.deliver(t.Context(), &runIn{topic: run[0].Topic(), from: from, run: run})
	return err
}

// club is a space of the first node of which all are members.
func club(t *testing.T, nodes ...*Node) space.ID {
	t.Helper()
	info, err := nodes[0].CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Name: "club", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[1:] {
		enter(t, nodes[0], n, info.ID)
	}
	return info.ID
}

func enter(t *testing.T, at, n *Node, id space.ID) {
	t.Helper()
	inv, err := at.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Join(t.Context(), inv.Link); err != nil {
		t.Fatal(err)
	}
}

// sameSet is nil once all nodes hold the same of every epoch, and the same
// records.
func sameSet(id space.ID, nodes ...*Node) error {
	for i, n := range nodes[1:] {
		for _, e := range nodes[0].anyByID(id).descending() {
			other := n.anyByID(id).epoch(e.id)
			if other == nil {
				continue
			}
			x, y := setOf(nodes[0].anyByID(id), e), setOf(n.anyByID(id), other)
			if x != y {
				return fmt.Errorf("node %d holds %s of epoch %d, node 0 %s", i+1, y, e.n, x)
			}
		}
		if err := alike(nodes[0], n, id)(); err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
	}
	return nil
}

func setOf(a *actor, e *epoch) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	digest := e.topic.Digest()
	return fmt.Sprintf("%d (%x)", e.topic.Count(), digest[:4])
}

// forkedAt is nil if a node knows that a chain forked at seq, has its proof, and
// holds what stands below.
func forkedAt(n *Node, id space.ID, chain envelope.ChainID, seq uint64) error {
	a := n.anyByID(id)
	e := a.current()
	a.mu.RLock()
	at, ok := e.topic.Fork(chain)
	head, _ := e.topic.Chain(chain)
	a.mu.RUnlock()
	if !ok || at != seq || head.Length != seq {
		return fmt.Errorf("forked %v at %d, %d envelopes stand; want %d", ok, at, head.Length, seq)
	}
	raw, _, err := a.store.Fork(e.id, chain)
	if err != nil {
		return err
	}
	f, err := envelope.ParseFork(raw)
	if err != nil {
		return err
	}
	if f.Seq() != seq {
		return fmt.Errorf("a proof at %d", f.Seq())
	}
	return f.Verify(e.id)
}

func hasRecord(n *Node, id space.ID, key string, want bool) error {
	_, err := n.Record(context.Background(), id, "", space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)})
	if want && err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if !want && !errors.Is(err, space.ErrRecordNotFound) {
		return fmt.Errorf("%s is still there: %v", key, err)
	}
	return nil
}

// eachNode is nil once the check is, on every node.
func eachNode(nodes []*Node, check func(*Node) error) func() error {
	return func() error {
		for i, n := range nodes {
			if err := check(n); err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
		}
		return nil
	}
}

// TestG7WriterForks: one seq, two contents, shown to two halves of a space. All
// end with the proof, with what stands below, and with equal digests; what the
// writer lost it writes again in a new chain.
func TestG7WriterForks(t *testing.T) {
	nodes := []*Node{freshNode(t), freshNode(t), freshNode(t), freshNode(t)}
	id := club(t, nodes...)
	w := nodes[1]
	a := w.anyByID(id)
	forkPut(t, w, id, "before")
	soon(t, "all hold the chain", func() error { return sameSet(id, nodes...) })
	twin := thief(t, a)
	head, _ := twin.Head()
	other := branch(t, a, twin, "stolen", 2)
	began := time.Now()
	// One half hears of the other branch first.
	for _, n := range nodes[2:] {
		if err := show(t, n.anyByID(id), w.host.ID(), other); err != nil && !errors.Is(err, envelope.ErrFork) {
			t.Fatal(err)
		}
	}
	forkPut(t, w, id, "after")
	soon(t, "the proof is everywhere", eachNode(nodes, func(n *Node) error { return forkedAt(n, id, other[0].Chain(), head.Seq+1) }))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the proof took %v", took)
	}
	soon(t, "what the writer lost is there again, the stolen branch is not", eachNode(nodes, func(n *Node) error {
		return errors.Join(hasRecord(n, id, "before", true), hasRecord(n, id, "after", true),
			hasRecord(n, id, "stolen0", false), hasRecord(n, id, "stolen1", false))
	}))
	soon(t, "all equal", func() error { return sameSet(id, nodes...) })

	// A newcomer comes to the same, and so does who starts again.
	late := freshNode(t)
	enter(t, nodes[0], late, id)
	home := nodes[3].cfg.Home
	if err := nodes[3].Close(); err != nil {
		t.Fatal(err)
	}
	back, err := New(Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	if err := forkedAt(back, id, other[0].Chain(), head.Seq+1); err != nil {
		t.Error("after a restart:", err)
	}
	nodes[3] = back
	nodes = append(nodes, late)
	soon(t, "all equal again", func() error { return sameSet(id, nodes...) })
	for _, n := range nodes {
		if found, err := n.anyByID(id).store.Audit(t.Context(), true); err != nil || !found.OK() {
			t.Errorf("audit: %+v, %v", found, err)
		}
	}
}

// ownChainOf is a chain of a member's whose key is known here.
func ownChainOf(t *testing.T, a *actor) (*seal.Writer, ed25519.PrivateKey, []envelope.Envelope, envelope.Certificate) {
	t.Helper()
	seed := [32]byte{1, 2, 3}
	key := ed25519.NewKeyFromSeed(seed[:])
	wr, err := seal.NewWriter(io.MultiReader(bytes.NewReader(seed[:]), rand.Reader), *a.now.cred, a.now.id, a.now.keys, a.self.c)
	if err != nil {
		t.Fatal(err)
	}
	if wr.Chain() != envelope.ChainID(key.Public().(ed25519.PublicKey)) {
		t.Fatal("a chain of another key")
	}
	hello, cert, err := wr.Hello(rand.Reader, seal.Hello{Device: a.self.device.ID(), PUKGen: a.self.ownPUK().Gen(), Ctl: a.control().Head})
	if err != nil {
		t.Fatal(err)
	}
	return wr, key, hello, cert
}

// TestS16SameLength: two branches of one length, so that no session moves an
// envelope of them.
func TestS16SameLength(t *testing.T) {
	a, b := freshNode(t), freshNode(t)
	id := club(t, a, b)
	forkPut(t, a, id, "before")
	soon(t, "both hold the chain", func() error { return sameSet(id, a, b) })
	sever(t, a, b)
	wr, _, hello, cert := ownChainOf(t, a.anyByID(id))
	twin := *wr
	for _, side := range []struct {
		n    *Node
		wr   *seal.Writer
		name string
	}{{a, wr, "one"}, {b, &twin, "two"}} {
		run := append(hello, branch(t, a.anyByID(id), side.wr, side.name, 70)...)
		if _, err := side.n.anyByID(id).deliver(t.Context(), &runIn{topic: wr.Topic(), cert: &cert, run: run}); err != nil {
			t.Fatal(err)
		}
	}
	meetAgain(t, a, b)
	soon(t, "both end below the fork", eachNode([]*Node{a, b}, func(n *Node) error {
		return errors.Join(forkedAt(n, id, wr.Chain(), uint64(len(hello))), hasRecord(n, id, "two69", false), hasRecord(n, id, "one69", true))
	}))
	soon(t, "both equal", func() error { return sameSet(id, a, b) })
}

// TestG8TwoSignatures: two envelopes that differ in their signature alone are a
// fork, and one that nothing covers is none.
func TestG8TwoSignatures(t *testing.T) {
	nodes := []*Node{freshNode(t), freshNode(t), freshNode(t)}
	id := club(t, nodes...)
	w := nodes[1]
	a := w.anyByID(id)
	forkPut(t, w, id, "before")
	soon(t, "all hold the chain", func() error { return sameSet(id, nodes...) })

	wr, key, hello, cert := ownChainOf(t, a)
	sign := func(m []byte) []byte { return ed25519.Sign(key, m) }
	run := append(hello, branch(t, a, wr, "one", 1)...)
	run = append(run, branch(t, a, wr, "two", 1)...)
	at := len(run) - 1
	for _, n := range nodes {
		if _, err := n.anyByID(id).deliver(t.Context(), &runIn{topic: wr.Topic(), cert: &cert, run: run}); err != nil {
			t.Fatal(err)
		}
	}
	raw := bytes.Clone(run[at].Bytes())
	raw[len(raw)-40] ^= 1
	resigned, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	bb := nodes[2].anyByID(id)
	if err := show(t, bb, "", []envelope.Envelope{resigned}); !errors.Is(err, space.ErrForged) {
		t.Fatalf("an envelope that nothing covers: %v", err)
	}
	// What is signed behind it makes it authentic.
	raw, err = envelope.Build(envelope.Header{
		Type: envelope.Entry, Topic: wr.Topic(), Chain: wr.Chain(), Seq: uint64(at) + 1, Prev: resigned.ID(),
	}, [24]byte{}, resigned.Ciphertext(), sign)
	if err != nil {
		t.Fatal(err)
	}
	behind, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := show(t, bb, "", []envelope.Envelope{resigned, behind}); !errors.Is(err, envelope.ErrFork) {
		t.Fatalf("two signatures on one content: %v", err)
	}
	soon(t, "the same everywhere", eachNode(nodes, func(n *Node) error {
		return errors.Join(forkedAt(n, id, wr.Chain(), uint64(at)), hasRecord(n, id, "before", true), hasRecord(n, id, "one0", true))
	}))
	soon(t, "all equal", func() error { return sameSet(id, nodes...) })
}

// TestS16LongBranches: one node has a chain far beyond the place where the
// other's parted from it, and neither has a proof.
func TestS16LongBranches(t *testing.T) {
	for name, lengths := range map[string][2]int{"longer": {50, 31}, "as long": {40, 40}, "shorter": {9, 60}} {
		t.Run(name, func(t *testing.T) {
			a, b := freshNode(t), freshNode(t)
			id := club(t, a, b)
			aa, bb := a.anyByID(id), b.anyByID(id)
			forkPut(t, a, id, "before")
			soon(t, "both hold the chain", func() error { return sameSet(id, a, b) })
			twin := thief(t, aa)
			head, _ := twin.Head()
			other := branch(t, aa, twin, "stolen", lengths[1])
			sever(t, a, b)
			if err := show(t, bb, "", other); err != nil {
				t.Fatal(err)
			}
			for i := range lengths[0] {
				forkPut(t, a, id, fmt.Sprint("own", i))
			}
			meetAgain(t, a, b)
			soon(t, "both end below the fork", eachNode([]*Node{a, b}, func(n *Node) error {
				return errors.Join(forkedAt(n, id, twin.Chain(), head.Seq+1), hasRecord(n, id, "stolen0", false))
			}))
			soon(t, "all that was acknowledged is there again", eachNode([]*Node{a, b}, func(n *Node) error {
				for i := range lengths[0] {
					if err := hasRecord(n, id, fmt.Sprint("own", i), true); err != nil {
						return err
					}
				}
				return nil
			}))
			soon(t, "both equal", func() error { return sameSet(id, a, b) })
		})
	}
}

// sever ends the connections of two nodes and keeps them apart.
func sever(t *testing.T, a, b *Node) {
	t.Helper()
	for _, x := range [][2]*Node{{a, b}, {b, a}} {
		x[0].book.forget(x[0].spaceIDs()[0], func(peer.ID) {})
		x[0].host.Peerstore().ClearAddrs(x[1].host.ID())
	}
	for _, x := range [][2]*Node{{a, b}, {b, a}} {
		if err := x[0].host.Network().ClosePeer(x[1].host.ID()); err != nil {
			t.Fatal(err)
		}
	}
}

// meetAgain connects them.
func meetAgain(t *testing.T, a, b *Node) {
	t.Helper()
	sid := a.spaceIDs()[0]
	there := peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Addrs()}
	a.book.learn(sid, there)
	b.book.learn(sid, peer.AddrInfo{ID: a.host.ID(), Addrs: a.host.Addrs()})
	soon(t, "connected", func() error { return a.host.Connect(t.Context(), there) })
	a.reconcile(sid, b.host.ID())
}

// TestC25CheckpointedBranchStays: whoever stole a live chain's key and forks the
// chain at its beginning erases nothing that a checkpoint made final.
func TestC25CheckpointedBranchStays(t *testing.T) {
	nodes := []*Node{freshNode(t), freshNode(t), freshNode(t)}
	id := club(t, nodes...)
	w := nodes[1]
	a := w.anyByID(id)
	forkPut(t, w, id, "first")
	soon(t, "all hold the first", func() error { return sameSet(id, nodes...) })
	twin := thief(t, a)
	for i := range 5 {
		forkPut(t, w, id, fmt.Sprint("own", i))
	}
	soon(t, "all hold the chain", func() error { return sameSet(id, nodes...) })
	seq := nodes[0].anyByID(id)
	if _, err := nodes[0].amend(t.Context(), seq, seq.checkpoint(seq.current())); err != nil {
		t.Fatal(err)
	}
	soon(t, "all at one head", func() error { return sameHead(id, nodes...) })
	other := branch(t, a, twin, "stolen", 3)
	for _, n := range nodes {
		if err := show(t, n.anyByID(id), "", other); err == nil {
			t.Fatal("the other branch of a chain that is final was taken")
		}
		if _, ok := n.anyByID(id).current().topic.Fork(twin.Chain()); ok {
			t.Fatal("a chain is marked below what is final")
		}
	}
	forkPut(t, w, id, "after")
	soon(t, "nothing is erased", eachNode(nodes, func(n *Node) error {
		var errs []error
		for _, key := range []string{"first", "own0", "own4", "after"} {
			errs = append(errs, hasRecord(n, id, key, true))
		}
		return errors.Join(append(errs, hasRecord(n, id, "stolen0", false))...)
	}))
	soon(t, "all equal", func() error { return sameSet(id, nodes...) })
}

// TestForkBeforeCheckpoint: who saw a fork before the log made one branch final
// takes its mark away when the log gets there, and has that branch again.
func TestForkBeforeCheckpoint(t *testing.T) {
	a, b := freshNode(t), freshNode(t)
	id := club(t, a, b)
	aa, bb := a.anyByID(id), b.anyByID(id)
	forkPut(t, a, id, "before")
	twin := thief(t, aa)
	head, _ := twin.Head()
	for i := range 5 {
		forkPut(t, a, id, fmt.Sprint("own", i))
	}
	soon(t, "both hold the chain", func() error { return sameSet(id, a, b) })
	sever(t, a, b)
	if err := show(t, bb, "", branch(t, aa, twin, "stolen", 3)); !errors.Is(err, envelope.ErrFork) {
		t.Fatal(err)
	}
	if err := errors.Join(forkedAt(b, id, twin.Chain(), head.Seq+1), hasRecord(b, id, "own0", false), hasRecord(b, id, "before", true)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.amend(t.Context(), aa, aa.checkpoint(aa.current())); err != nil {
		t.Fatal(err)
	}
	meetAgain(t, a, b)
	soon(t, "both hold the final branch", eachNode([]*Node{a, b}, func(n *Node) error {
		if err := forkedAt(n, id, twin.Chain(), head.Seq+1); err == nil {
			return errors.New("still marked")
		}
		return errors.Join(hasRecord(n, id, "own0", true), hasRecord(n, id, "own4", true), hasRecord(n, id, "stolen0", false))
	}))
	soon(t, "both equal", func() error { return sameSet(id, a, b) })
	if found, err := bb.store.Audit(t.Context(), true); err != nil || !found.OK() {
		t.Errorf("audit: %+v, %v", found, err)
	}
}

// TestForkStopsInBetween: a node that stops when a chain is cut, and nothing
// drawn from it is taken back yet, does so when it starts again, and the writer
// writes again what it lost.
func TestForkStopsInBetween(t *testing.T) {
	a, b := freshNode(t), freshNode(t)
	id := club(t, a, b)
	aa := a.anyByID(id)
	forkPut(t, a, id, "before")
	twin := thief(t, aa)
	head, _ := twin.Head()
	for i := range 5 {
		forkPut(t, a, id, fmt.Sprint("own", i))
	}
	soon(t, "both hold the chain", func() error { return sameSet(id, a, b) })
	sever(t, a, b)
	other := branch(t, aa, twin, "stolen", 3)
	nodes := []*Node{a, b}
	for _, n := range nodes {
		x := n.anyByID(id)
		err := inside(t, x, func() error {
			e := x.epochs[twin.Topic()]
			adv, err := e.topic.Check(nil, other)
			if adv.Fork == nil {
				return err
			}
			return x.cutBack(e, adv)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := hasRecord(n, id, "own0", true); err != nil {
			t.Fatal("taken back already:", err)
		}
		if err := n.Close(); err != nil { // both, before one starts and tells the other
			t.Fatal(err)
		}
	}
	for i, n := range nodes {
		var err error
		if nodes[i], err = New(n.cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nodes[i].Close() })
	}
	soon(t, "the reader has taken it back", func() error { return forkedAt(nodes[1], id, twin.Chain(), head.Seq+1) })
	meetAgain(t, nodes[0], nodes[1])
	soon(t, "what was lost is there again", eachNode(nodes, func(n *Node) error {
		for i := range 5 {
			if err := hasRecord(n, id, fmt.Sprint("own", i), true); err != nil {
				return err
			}
		}
		return errors.Join(forkedAt(n, id, twin.Chain(), head.Seq+1), hasRecord(n, id, "before", true))
	}))
	soon(t, "both equal", func() error { return sameSet(id, nodes...) })
	for _, n := range nodes {
		sound(t, n, id)
	}
}

func TestSpread(t *testing.T) {
	for lo := range uint64(4) {
		for n := uint64(1); n < 3000; n += 1 + n/7 {
			at := spread(lo, lo+n)
			if len(at) > maxProbes || at[0] < lo || at[len(at)-1] != lo+n-1 {
				t.Fatalf("from %d on %d: %v", lo, n, at)
			}
			last := lo
			for i, seq := range at {
				if i > 0 && seq <= at[i-1] || seq-last > n/maxProbes+1 {
					t.Fatalf("from %d on %d: %v", lo, n, at)
				}
				last = seq
			}
		}
	}
}

// TestForkAsks: questions that make no sense, proofs that are none and boxes of
// others are refused, and nothing changes.
func TestForkAsks(t *testing.T) {
	a, b := freshNode(t), freshNode(t)
	id := club(t, a, b)
	forkPut(t, a, id, "before")
	soon(t, "a has said everything", stated(a, id))
	soon(t, "both hold the chain", func() error { return sameSet(id, a, b) })
	aa, e := a.anyByID(id), b.anyByID(id).current()
	before := setOf(aa, aa.current())
	chain := inside(t, aa, func() envelope.ChainID { return aa.writer.Chain() })
	head, _ := aa.chainHead(e, chain)
	many := make([]uint64, maxProbes+2)
	for name, ask := range map[string]forkAsk{
		"a short chain":     {Chain: chain[:31], Proof: []byte{}, Probes: []uint64{}},
		"too many probes":   {Chain: chain[:], Proof: []byte{}, Probes: many},
		"a branch of none":  {Chain: chain[:], Proof: []byte{}, Probes: []uint64{}, Branch: true},
		"a proof of nought": {Chain: chain[:], Proof: []byte("proof"), Probes: []uint64{}},
	} {
		if v, err := b.askFork(t.Context(), e, ask, a.host.ID()); err == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
	v, err := b.askFork(t.Context(), e, forkAsk{Chain: chain[:], Proof: []byte{}, Probes: []uint64{0, head.Head.Seq, head.Head.Seq + 9}}, a.host.ID())
	if err != nil || v.Length != head.Length || len(v.IDs) != 2 || string(v.IDs[1]) != string(head.Head.ID[:]) || len(v.Proof) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
	// Who does not hold the keys of the epoch hears nothing.
	stranger := freshNode(t)
	club(t, stranger)
	other := *stranger.all()[0].current()
	other.id = e.id
	for _, p := range []peer.AddrInfo{{ID: a.host.ID(), Addrs: a.host.Addrs()}} {
		if err := stranger.host.Connect(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if v, err := stranger.askFork(t.Context(), &other, forkAsk{Chain: chain[:], Proof: []byte{}, Probes: []uint64{0}}, p.ID); err == nil {
			t.Errorf("a stranger hears %+v", v)
		}
	}
	if now := setOf(aa, aa.current()); now != before {
		t.Errorf("%s became %s", before, now)
	}
}

// again stops a node and starts it anew, changed.
func again(t *testing.T, n *Node, change func(*Config)) *Node {
	t.Helper()
	cfg := n.cfg
	change(&cfg)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// TestForkOfHello: of a chain that forked at its first envelope nothing stands,
// also after a restart, and for who hears of it later.
func TestForkOfHello(t *testing.T) {
	a, b := freshNode(t), freshNode(t)
	id := club(t, a, b)
	forkPut(t, a, id, "before")
	soon(t, "both hold the chain", func() error { return sameSet(id, a, b) })
	sever(t, a, b)
	aa := a.anyByID(id)
	wr, _, hello, cert := ownChainOf(t, aa)
	_, _, other, _ := ownChainOf(t, aa)
	run := append(hello, branch(t, aa, wr, "one", 3)...)
	for _, n := range []*Node{a, b} {
		if _, err := n.anyByID(id).deliver(t.Context(), &runIn{topic: wr.Topic(), cert: &cert, run: run}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.anyByID(id).deliver(t.Context(), &runIn{topic: wr.Topic(), cert: &cert, run: other}); !errors.Is(err, envelope.ErrFork) {
		t.Fatal(err)
	}
	if err := errors.Join(forkedAt(b, id, wr.Chain(), 0), hasRecord(b, id, "one0", false), hasRecord(b, id, "before", true)); err != nil {
		t.Fatal(err)
	}
	b = again(t, b, func(*Config) {})
	if err := forkedAt(b, id, wr.Chain(), 0); err != nil {
		t.Fatal(err)
	}
	meetAgain(t, a, b)
	soon(t, "nothing of it stands, what the writer lost is there again", eachNode([]*Node{a, b}, func(n *Node) error {
		return errors.Join(forkedAt(n, id, wr.Chain(), 0), hasRecord(n, id, "one2", true))
	}))
	soon(t, "both equal", func() error { return sameSet(id, a, b) })
	sound(t, b, id)
}

// TestForkByGossip: gossip alone takes a proof to nodes that never sync.
func TestForkByGossip(t *testing.T) {
	nodes := []*Node{freshNode(t), freshNode(t), freshNode(t)}
	id := club(t, nodes...)
	aa := nodes[0].anyByID(id)
	forkPut(t, nodes[0], id, "before")
	twin := thief(t, aa)
	head, _ := twin.Head()
	forkPut(t, nodes[0], id, "own")
	soon(t, "all hold the chain", func() error { return sameSet(id, nodes...) })
	other := branch(t, aa, twin, "stolen", 1)
	for i := range nodes {
		nodes[i] = again(t, nodes[i], func(c *Config) { c.NoReconcile = true })
	}
	for i, n := range nodes[1:] {
		for _, other := range nodes[:i+1] {
			meetAgain(t, n, other)
		}
	}
	pings := 0 // a frame reaches others once the mesh has links
	soon(t, "all hear the second", eachNode([]*Node{nodes[0], nodes[2]}, func(n *Node) error {
		c := n.mesh.Counters()
		if c.ByReason[gossip.Fresh].Load()+c.ByReason[gossip.Ahead].Load()+c.ByReason[gossip.Parked].Load() > 0 {
			return nil
		}
		forkPut(t, nodes[1], id, fmt.Sprint("ping", pings))
		pings++
		return errors.New("nothing heard yet")
	}))
	if err := show(t, nodes[1].anyByID(id), "", other); !errors.Is(err, envelope.ErrFork) {
		t.Fatal(err)
	}
	soon(t, "the proof is everywhere", eachNode(nodes, func(n *Node) error { return forkedAt(n, id, twin.Chain(), head.Seq+1) }))
}
