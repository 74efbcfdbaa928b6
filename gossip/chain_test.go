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
	return g.certifyBy(t, key(g.issuer), key(g.writer), id)
}

func (g grant) certifyBy(t testing.TB, iss, wr ed25519.PrivateKey, id envelope.ChainID) envelope.Certificate {
	t.Helper()
	topic := envelope.TopicOf(public(iss))
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
	return newChainBy(t, key(g.issuer), key(g.writer), g, seed)
}

// newChainBy is a chain in the topic of an issuer.
func newChainBy(t testing.TB, iss, wr ed25519.PrivateKey, g grant, seed byte) *chain {
	t.Helper()
	k := key(seed)
	c := &chain{key: k, id: envelope.ChainID(public(k)), topic: envelope.TopicOf(public(iss))}
	c.cert = g.certifyBy(t, iss, wr, c.id)
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
	envs  map[envelope.ChainID][]envelope.Envelope
}

var _ Replica = (*replica)(nil)

func newReplica(id envelope.TopicID) *replica {
	r := &replica{topic: envelope.NewTopic(id), envs: make(map[envelope.ChainID][]envelope.Envelope)}
	r.topic.SetIDs(held(r.envs))
	return r
}

func (r *replica) Chain(id envelope.ChainID) (envelope.Chain, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topic.Chain(id)
}

func (r *replica) IDAt(id envelope.ChainID, seq uint64) (envelope.ID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return held(r.envs).IDAt(id, seq)
}

func (r *replica) Fork(id envelope.ChainID) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topic.Fork(id)
}

// held is what a replica accepted.
type held map[envelope.ChainID][]envelope.Envelope

func (h held) IDAt(id envelope.ChainID, seq uint64) (envelope.ID, bool) {
	if seq >= uint64(len(h[id])) {
		return envelope.ID{}, false
	}
	return h[id][seq].ID(), true
}

func (h held) Envelopes(id envelope.ChainID, from, to uint64) []envelope.Envelope {
	if n := uint64(len(h[id])); from < n {
		return h[id][from:min(to+1, n)]
	}
	return nil
}

// take does with a frame what a node does.
func (r *replica) take(f envelope.Frame) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var adv envelope.Advance
	var err error
	if f.Fork != nil {
		adv, err = r.topic.Prove(*f.Fork)
	} else {
		adv, err = r.topic.Check(f.Cert, f.Run)
	}
	if !adv.IsZero() {
		id := adv.Chain.ID
		if adv.Cut {
			r.envs[id] = r.envs[id][:adv.Chain.Length:adv.Chain.Length]
		}
		r.envs[id] = append(r.envs[id], adv.New...)
		r.topic.Commit(adv)
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
