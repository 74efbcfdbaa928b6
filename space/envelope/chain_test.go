package envelope

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/sync/lthash"
)

// issuer makes topics, writers and chains for the tests.
type issuer struct {
	key   ed25519.PrivateKey
	topic TopicID
}

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func newIssuer(seed byte) issuer {
	k := key(seed)
	return issuer{key: k, topic: TopicOf(public(k))}
}

// chain is a writer's side of a chain.
type chain struct {
	key  ed25519.PrivateKey
	id   ChainID
	top  TopicID
	cert Certificate
	seq  uint64
	prev ID
	run  []Envelope
}

func (i issuer) certify(t testing.TB, writer ed25519.PrivateKey, id ChainID, class uint16, notAfter uint64) Certificate {
	t.Helper()
	body := GrantBody(public(i.key), public(writer), class, notAfter)
	grant := [GrantSize]byte(append(body, space.Sign(i.key, space.LabelWriterCert, body)...))
	link := [SignatureSize]byte(space.Sign(writer, space.LabelChain, i.topic[:], id[:]))
	c, err := NewCertificate(grant, link)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (i issuer) chain(t testing.TB, writer, seed byte) *chain {
	t.Helper()
	k := key(seed)
	c := &chain{key: k, id: ChainID(public(k)), top: i.topic}
	c.cert = i.certify(t, key(writer), c.id, 2, 2_000_000_000)
	c.prev = c.cert.ID()
	c.add(t, Hello, 256)
	return c
}

// add appends an envelope whose ciphertext is of a padded size; tag makes two
// branches differ.
func (c *chain) add(t testing.TB, typ Type, padded int, tag ...byte) Envelope {
	t.Helper()
	e := c.build(t, Header{Type: typ, Topic: c.top, Chain: c.id, Seq: c.seq, Prev: c.prev}, padded, tag)
	c.seq, c.prev, c.run = c.seq+1, e.ID(), append(c.run, e)
	return e
}

func (c *chain) build(t testing.TB, h Header, padded int, tag []byte) Envelope {
	t.Helper()
	ct := bytes.Repeat([]byte{byte(h.Seq)}, padded+TagSize)
	copy(ct, tag)
	raw, err := Build(h, [24]byte{}, ct, func(m []byte) []byte { return ed25519.Sign(c.key, m) })
	if err != nil {
		t.Fatal(err)
	}
	e, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// grow appends n entries.
func (c *chain) grow(t testing.TB, n int, tag ...byte) *chain {
	t.Helper()
	for range n {
		c.add(t, Entry, 256, tag...)
	}
	return c
}

// fork is a second writer with the same key that stands after sequence seq.
func (c *chain) fork(seq uint64) *chain {
	f := *c
	f.run = append([]Envelope(nil), c.run[:seq+1]...)
	f.seq, f.prev = seq+1, f.run[seq].ID()
	return &f
}

// spoil returns e with one bit of its signature flipped; its id differs too.
func spoil(t testing.TB, e Envelope) Envelope {
	t.Helper()
	raw := bytes.Clone(e.Bytes())
	raw[len(raw)-1] ^= 1
	s, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addSpoiled appends an entry with a bad signature, as a bad writer might.
func (c *chain) addSpoiled(t testing.TB) Envelope {
	t.Helper()
	e := spoil(t, c.add(t, Entry, 256))
	c.run[len(c.run)-1], c.prev = e, e.ID()
	return e
}

// naive is the digest of a set of ids.
func naive(ids map[ID]bool) [32]byte {
	var s lthash.State
	for id := range ids {
		s.Add(id[:])
	}
	return s.Sum()
}

func idsOf(runs ...[]Envelope) map[ID]bool {
	ids := make(map[ID]bool)
	for _, run := range runs {
		for _, e := range run {
			ids[sha256.Sum256(e.Bytes())] = true
		}
	}
	return ids
}
