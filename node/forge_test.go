package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// forger is a member gone bad: it holds every key a member holds and builds
// envelopes by hand.
type forger struct {
	e     *epoch
	chain ed25519.PrivateKey
	cert  envelope.Certificate
	last  envelope.ID
	seq   uint64
	badly bool // sign so that nobody can check it
}

func newForger(t *testing.T, e *epoch) *forger {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writer := ed25519.NewKeyFromSeed(e.cred.Writer.Marshal())
	link := space.Sign(writer, space.LabelChain, e.id[:], pub)
	cert, err := envelope.NewCertificate(e.cred.Grant, [64]byte(link))
	if err != nil {
		t.Fatal(err)
	}
	return &forger{e: e, chain: priv, cert: cert, last: cert.ID()}
}

func (f *forger) seal(t *testing.T, typ envelope.Type, key, body []byte) envelope.Envelope {
	t.Helper()
	plain := make([]byte, envelope.PaddedSize(4+len(body)))
	binary.BigEndian.PutUint32(plain, uint32(len(body)))
	copy(plain[4:], body)
	var nonce [24]byte
	rand.Read(nonce[:])
	h := envelope.Header{Type: typ, Topic: f.e.id, Chain: envelope.ChainID(f.chain.Public().(ed25519.PublicKey)), Seq: f.seq, Prev: f.last}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		t.Fatal(err)
	}
	ct := aead.Seal(nil, nonce[:], plain, h.AAD(nonce, len(plain)+aead.Overhead()))
	raw, err := envelope.Build(h, nonce, ct, func(m []byte) []byte {
		if f.badly {
			return make([]byte, ed25519.SignatureSize)
		}
		return ed25519.Sign(f.chain, m)
	})
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

// hello says that the chain is who's, with the voucher that the forger has.
func (f *forger) hello(t *testing.T, who identity.Commitment, device identity.DeviceID, ctl space.Head) envelope.Envelope {
	t.Helper()
	body, err := seal.Hello{C: who, Device: device, PUKGen: 1, Ctl: ctl, Voucher: f.e.cred.Voucher}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	gk, err := f.e.keys.Group()
	if err != nil {
		t.Fatal(err)
	}
	return f.seal(t, envelope.Hello, space.KDF(gk.Marshal(), space.LabelHelloKey, nil, 32), body)
}

// entry writes a record under the subkey of who.
func (f *forger) entry(t *testing.T, who identity.Commitment, body []byte) envelope.Envelope {
	t.Helper()
	ak, err := f.e.keys.Author(who)
	if err != nil {
		t.Fatal(err)
	}
	ctx := binary.BigEndian.AppendUint64(bytes.Clone(f.chain.Public().(ed25519.PublicKey)), f.seq)
	return f.seal(t, envelope.Entry, space.KDF(ak.Marshal(), space.LabelEntry, ctx, 32), body)
}

func batch(t *testing.T, rev space.TID, key string) []byte {
	t.Helper()
	rec, err := space.RecordFromJSON([]byte(`{"text":"not what the author wrote"}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := space.Batch{Rev: rev, Ops: []space.Op{{
		Path: space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)}, Value: rec,
	}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pairOf is an authority and a member, the latter the forger's victim or
// accomplice, not connected to each other afterwards.
func pairOf(t *testing.T) (a, b *Node, id space.ID) {
	t.Helper()
	var nodes []*Node
	for range 2 {
		nodes = append(nodes, freshNode(t))
	}
	info, err := nodes[0].CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	inv, err := nodes[0].Invite(t.Context(), info.ID, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := nodes[1].Join(ctx, inv.Link); err != nil {
		t.Fatal(err)
	}
	return nodes[0], nodes[1], info.ID
}

func actorOf(t *testing.T, n *Node, id space.ID) *actor {
	t.Helper()
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestEntryInAnothersName: a member with a valid certificate writes as the
// authority. Every node accepts the envelopes, since they pass the keyless
// rules, and no node takes the records: digests stay equal, repos untouched.
func TestEntryInAnothersName(t *testing.T) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	f := newForger(t, onB.current())
	victim := a.self
	rev := space.NextTID(time.Now().UnixMicro(), 1, 0)
	run := []envelope.Envelope{
		f.hello(t, victim.c, victim.device.ID(), onB.control().Head),
		f.entry(t, victim.c, batch(t, rev, "forged")),
	}
	for _, x := range []*actor{onA, onB} {
		n, err := x.deliver(t.Context(), &runIn{topic: f.e.id, cert: &f.cert, run: run})
		if err != nil || n != 2 {
			t.Fatalf("accepted %d envelopes: %v", n, err)
		}
	}
	for _, n := range []*Node{a, b} {
		_, err := n.Record(t.Context(), id, victim.did, space.Path{Collection: "com.example.forum.post", Key: "forged"})
		if !errors.Is(err, space.ErrRecordNotFound) {
			t.Errorf("a forged record is readable: %v", err)
		}
		if n.stats.Refused.Load() == 0 {
			t.Error("nothing was counted as refused")
		}
	}
}

// TestForgerUnderItsOwnName is the control: the same hands, the own name.
func TestForgerUnderItsOwnName(t *testing.T) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	f := newForger(t, onB.current())
	rev := space.NextTID(time.Now().UnixMicro(), 1, 0)
	run := []envelope.Envelope{
		f.hello(t, b.self.c, b.self.device.ID(), onB.control().Head),
		f.entry(t, b.self.c, batch(t, rev, "own")),
	}
	if _, err := onA.deliver(t.Context(), &runIn{topic: f.e.id, cert: &f.cert, run: run}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Record(t.Context(), id, b.self.did, space.Path{Collection: "com.example.forum.post", Key: "own"}); err != nil {
		t.Fatal(err)
	}
}

// TestFutureEntryWaits: an entry more than five minutes ahead is accepted and
// not applied; those behind it wait with it.
func TestFutureEntryWaits(t *testing.T) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	f := newForger(t, onB.current())
	rev := space.NextTID(time.Now().Add(time.Hour).UnixMicro(), 1, 0)
	run := []envelope.Envelope{
		f.hello(t, b.self.c, b.self.device.ID(), onB.control().Head),
		f.entry(t, b.self.c, batch(t, rev, "later")),
	}
	n, err := onA.deliver(t.Context(), &runIn{topic: f.e.id, cert: &f.cert, run: run})
	if err != nil || n != 2 {
		t.Fatalf("accepted %d envelopes: %v", n, err)
	}
	if _, err := a.Record(t.Context(), id, b.self.did, space.Path{Collection: "com.example.forum.post", Key: "later"}); !errors.Is(err, space.ErrRecordNotFound) {
		t.Fatalf("a record from the future is readable: %v", err)
	}
	if got := onA.status().Behind; got != 1 {
		t.Errorf("behind %d entries, want the 1 that waits", got)
	}
}

// TestAttribution: a member who was there when a chain began knows its author
// by a tag; a chain in our own name that is not of our device is disputed.
func TestAttribution(t *testing.T) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	f := newForger(t, onB.current())
	rev := space.NextTID(time.Now().UnixMicro(), 1, 0)
	sure := func(n *Node, who space.DID) string {
		repos, err := n.Repos(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range repos {
			if r.DID == who {
				return r.Attribution
			}
		}
		return "none"
	}
	put := func(n *Node) {
		rec, err := space.RecordFromJSON([]byte(`{"text":"mine"}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Write(t.Context(), id, []xrpc.Write{{
			Action: xrpc.ActionPut, Path: space.Path{Collection: "com.example.forum.post", Key: "mine"}, Value: rec,
		}}, xrpc.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put(b)
	soon(t, "a knows b by a tag", func() error {
		if got := sure(a, b.self.did); got != "verified" {
			return errors.New(got)
		}
		return nil
	})
	if got := sure(b, b.self.did); got != "verified" {
		t.Errorf("b calls its own repo %s", got)
	}
	// The same hands, without tags and from a device that b does not know.
	stranger := identity.DeviceID{1, 2, 3}
	run := []envelope.Envelope{f.hello(t, b.self.c, stranger, onB.control().Head), f.entry(t, b.self.c, batch(t, rev, "own"))}
	for _, x := range []*actor{onA, onB} {
		if _, err := x.deliver(t.Context(), &runIn{topic: f.e.id, cert: &f.cert, run: run}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*Node{a, b} {
		if got := sure(n, b.self.did); got != "disputed" {
			t.Errorf("a chain of an unknown device is %s", got)
		}
	}
}

// TestBehind: an entry that arrives before the one it follows is known to be
// missing something, and status says how much.
func TestBehind(t *testing.T) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	f := newForger(t, onB.current())
	rev := space.NextTID(time.Now().UnixMicro(), 1, 0)
	run := []envelope.Envelope{f.hello(t, b.self.c, b.self.device.ID(), onB.control().Head)}
	for _, key := range []string{"one", "two", "three"} {
		rev = space.NextTID(0, 1, rev)
		run = append(run, f.entry(t, b.self.c, batch(t, rev, key)))
	}
	if _, err := onA.deliver(t.Context(), &runIn{topic: f.e.id, cert: &f.cert, run: run[:1]}); err != nil {
		t.Fatal(err)
	}
	var gap envelope.ErrGap
	if _, err := onA.deliver(t.Context(), &runIn{topic: f.e.id, run: run[3:]}); !errors.As(err, &gap) {
		t.Fatalf("a gap gave %v", err)
	}
	if got := onA.status().Behind; got != 3 {
		t.Errorf("behind %d, want 3: two missing and the one that waits for them", got)
	}
	if _, err := onA.deliver(t.Context(), &runIn{topic: f.e.id, run: run[1:3]}); err != nil {
		t.Fatal(err)
	}
	if got := onA.status(); got.Behind != 0 || got.Records != 3 {
		t.Errorf("behind %d with %d records after the gap closed", got.Behind, got.Records)
	}
}
