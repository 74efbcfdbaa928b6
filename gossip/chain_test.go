package gossip

import (
	"bytes"
	"crypto/ed25519"
	"sync"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// topicOf is the topic of the issuer with this seed.
func topicOf(issuer byte) envelope.TopicID { return envelope.TopicOf(public(key(issuer))) }

// grant says how a writer of the tests is certified.
type grant struct {
	issuer, writer byte
	class          uint16
	notAfter       uint64
}

func (g grant) certify(t testing.TB, id envelope.ChainID) envelope.Certificate {
	t.Helper()
	iss, wr, topic := key(g.issuer), key(g.writer), topicOf(g.issuer)
	body := envelope.GrantBody(public(iss), public(wr), g.class, g.notAfter)
	c, err := envelope.NewCertificate(
		[envelope.GrantSize]byte(append(body, space.Sign(iss, space.LabelWriterCert, body)...)),
		[envelope.SignatureSize]byte(space.Sign(wr, space.LabelChain, topic[:], id[:])))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// chain is a writer's side of a chain.
type chain struct {
	key   ed25519.PrivateKey
	id    envelope.ChainID
	topic envelope.TopicID
	cert  envelope.Certificate
	seq   uint64
	prev  envelope.ID
	run   []envelope.Envelope
}

func newChain(t testing.TB, g grant, seed byte) *chain {
	t.Helper()
	k := key(seed)
	c := &chain{key: k, id: envelope.ChainID(public(k)), topic: topicOf(g.issuer)}
	c.cert = g.certify(t, c.id)
	c.prev = c.cert.ID()
	c.add(t, envelope.Hello, 256)
	return c
}

func (c *chain) add(t testing.TB, typ envelope.Type, padded int, tag ...byte) envelope.Envelope {
	t.Helper()
	ct := bytes.Repeat([]byte{byte(c.seq)}, padded+envelope.TagSize)
	copy(ct, tag)
	h := envelope.Header{Type: typ, Topic: c.topic, Chain: c.id, Seq: c.seq, Prev: c.prev}
	raw, err := envelope.Build(h, [24]byte{}, ct, func(m []byte) []byte { return ed25519.Sign(c.key, m) })
	if err != nil {
		t.Fatal(err)
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !typ.Ephemeral() {
		c.seq, c.prev, c.run = c.seq+1, e.ID(), append(c.run, e)
	}
	return e
}

func (c *chain) grow(t testing.TB, n int, tag ...byte) *chain {
	t.Helper()
	for range n {
		c.add(t, envelope.Entry, 256, tag...)
	}
	return c
}

// fork is a second writer with the same key that stands after sequence seq.
func (c *chain) fork(seq uint64) *chain {
	f := *c
	f.run = append([]envelope.Envelope(nil), c.run[:seq+1]...)
	f.seq, f.prev = seq+1, f.run[seq].ID()
	return &f
}

// frame is the frame of sequences from to to.
func (c *chain) frame(t testing.TB, from, to int) []byte {
	t.Helper()
	f := envelope.Frame{Run: c.run[from : to+1]}
	if from == 0 {
		f.Cert = &c.cert
	}
	b, err := f.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spoiled flips a bit of the frame's last byte: its last signature.
func spoiled(frame []byte) []byte {
	b := bytes.Clone(frame)
	b[len(b)-1] ^= 1
	return b
}

// replica is a topic as a node holds it; the zero chain map is an empty one.
type replica struct {
	// mu guards what follows.
	mu    sync.Mutex
	topic *envelope.Topic
	ids   map[envelope.ChainID][]envelope.ID
}

var _ Replica = (*replica)(nil)

func newReplica(id envelope.TopicID) *replica {
	return &replica{topic: envelope.NewTopic(id), ids: make(map[envelope.ChainID][]envelope.ID)}
}

func (r *replica) Chain(id envelope.ChainID) (envelope.Chain, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topic.Chain(id)
}

func (r *replica) IDAt(id envelope.ChainID, seq uint64) (envelope.ID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq >= uint64(len(r.ids[id])) {
		return envelope.ID{}, false
	}
	return r.ids[id][seq], true
}

// take does with a frame what a node does.
func (r *replica) take(f envelope.Frame) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	adv, err := r.topic.Check(f.Cert, f.Run)
	if err == nil || adv.Chain.Forked {
		r.topic.Commit(adv)
		for _, e := range adv.New {
			r.ids[adv.Chain.ID] = append(r.ids[adv.Chain.ID], e.ID())
		}
	}
	return err
}

func (r *replica) count() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topic.Count()
}

func (r *replica) digest() [32]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topic.Digest()
}

// hold brings sequences 0 to to of a chain into the replica.
func (r *replica) hold(t testing.TB, c *chain, to int) *replica {
	t.Helper()
	if err := r.take(envelope.Frame{Cert: &c.cert, Run: c.run[:to+1]}); err != nil {
		t.Fatal(err)
	}
	return r
}
