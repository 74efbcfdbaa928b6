package local

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/lthash"
	"github.com/kithnet/kith/sync/reconcile"
)

// fixture is the same set of envelopes in both processes: chains of 256-byte
// entries, drawn from nothing but their numbers.
type fixture struct {
	topic  envelope.TopicID
	fetch  ed25519.PrivateKey
	chains []*planned
}

// planned is one chain: less of it stands before the diff is written.
type planned struct {
	topic       envelope.TopicID
	key         ed25519.PrivateKey
	id          envelope.ChainID
	cert        envelope.Certificate
	ids         []envelope.ID
	before, all int // lengths
}

const signEvery = 64 // the envelopes between are covered by the next

func fixed(parts ...any) []byte {
	h := sha256.Sum256([]byte(fmt.Sprint(parts...)))
	return h[:]
}

func newFixture(entries, diff int, pattern string) (*fixture, error) {
	n, behind := 10, min(4, diff)
	switch pattern {
	case "recent":
	case "scattered":
		n = min(1_000, entries)
		behind = min(n, diff)
	default:
		return nil, fmt.Errorf("pattern %q: want recent or scattered", pattern)
	}
	if diff < 0 || entries < max(2*n, diff) {
		return nil, fmt.Errorf("%d entries with %d missing are too few", entries, diff)
	}
	issuer, writer := ed25519.NewKeyFromSeed(fixed("issuer")), ed25519.NewKeyFromSeed(fixed("writer"))
	p := &fixture{topic: envelope.TopicOf(issuer.Public().(ed25519.PublicKey)), fetch: ed25519.NewKeyFromSeed(fixed("fetch"))}
	body := envelope.GrantBody(issuer.Public().(ed25519.PublicKey), writer.Public().(ed25519.PublicKey), 2, 1<<40)
	grant := append(body, space.Sign(issuer, space.LabelWriterCert, body)...)
	for i := range n {
		c := &planned{topic: p.topic, key: ed25519.NewKeyFromSeed(fixed("chain", i)), before: (entries - diff) / n}
		if i < (entries-diff)%n {
			c.before++
		}
		c.id = envelope.ChainID(c.key.Public().(ed25519.PublicKey))
		if c.all = c.before; i < behind {
			c.all += diff / behind
			if i < diff%behind {
				c.all++
			}
		}
		cert, err := envelope.NewCertificate([envelope.GrantSize]byte(grant), [64]byte(space.Sign(writer, space.LabelChain, p.topic[:], c.id[:])))
		if err != nil {
			return nil, err
		}
		c.cert = cert
		p.chains = append(p.chains, c)
	}
	slices.SortFunc(p.chains, func(a, b *planned) int { return bytes.Compare(a.id[:], b.id[:]) })
	return p, nil
}

// envelope makes the envelope at seq; those before it have been made.
func (c *planned) envelope(seq int) (envelope.Envelope, error) {
	h := envelope.Header{Type: envelope.Entry, Topic: c.topic, Chain: c.id, Seq: uint64(seq), Prev: c.cert.ID()}
	if seq == 0 {
		h.Type = envelope.Hello
	} else {
		h.Prev = c.ids[seq-1]
	}
	var nonce [24]byte
	binary.BigEndian.PutUint64(nonce[:], uint64(seq))
	raw, err := envelope.Build(h, nonce, make([]byte, envelope.PaddedSize(recordSize)+envelope.TagSize), func(m []byte) []byte {
		if seq%signEvery == 0 || seq == c.before-1 || seq == c.all-1 {
			return ed25519.Sign(c.key, m)
		}
		return make([]byte, ed25519.SignatureSize)
	})
	if err != nil {
		return envelope.Envelope{}, err
	}
	return envelope.Parse(raw)
}

// memoryReplica is a replica that remembers ids alone and makes envelopes
// anew.
type memoryReplica struct {
	plan *fixture
	past *reconcile.Memory

	mu    sync.Mutex // guards what follows
	topic *envelope.Topic
}

// replica makes the ids and takes what stands before the diff is written, or
// all.
func (p *fixture) replica(whole bool) (*memoryReplica, error) {
	errs := make([]error, len(p.chains))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, c := range p.chains {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for seq := range c.all {
				e, err := c.envelope(seq)
				if err != nil {
					errs[i] = err
					return
				}
				c.ids = append(c.ids, e.ID())
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var chains []envelope.Chain
	var sum lthash.State
	count := uint64(0)
	for _, c := range p.chains {
		n := c.before
		if whole {
			n = c.all
		}
		if n == 0 {
			continue
		}
		chains = append(chains, envelope.Chain{
			ID: c.id, Cert: c.cert, Head: envelope.Head{Seq: uint64(n - 1), ID: c.ids[n-1]}, Length: uint64(n),
		})
		for _, id := range c.ids[:n] {
			sum.Add(id[:])
		}
		count += uint64(n)
	}
	topic, err := envelope.RestoreTopic(p.topic, chains, count, sum)
	if err != nil {
		return nil, err
	}
	return &memoryReplica{plan: p, past: new(reconcile.Memory), topic: topic}, nil
}

// write writes what the other side will lack.
func (m *memoryReplica) write() error {
	for _, c := range m.plan.chains {
		var run []envelope.Envelope
		for seq := c.before; seq < c.all; seq++ {
			e, err := c.envelope(seq)
			if err != nil {
				return err
			}
			if run = append(run, e); len(run) == envelope.MaxRun/2 || seq == c.all-1 {
				run = run[:envelope.Covered(run)]
				var cert *envelope.Certificate
				if run[0].Seq() == 0 {
					cert = &c.cert
				}
				if _, err := m.Deliver(cert, run); err != nil {
					return err
				}
				seq = int(run[len(run)-1].Seq())
				run = nil
			}
		}
	}
	return nil
}

func (m *memoryReplica) config(role reconcile.Role, nonce [32]byte) reconcile.Config {
	cfg := reconcile.Config{
		Role: role, Topic: m.plan.topic, Nonce: nonce, LocalPeer: []byte("here"), RemotePeer: []byte("there"),
		Keys: reconcile.NewFetchKey(m.plan.fetch), Replica: m, Sink: m, Memory: m.past,
	}
	cfg.Nonce[1] = 1
	if role == reconcile.Responder {
		cfg.Topic = envelope.TopicID{}
		cfg.LocalPeer, cfg.RemotePeer = cfg.RemotePeer, cfg.LocalPeer
	}
	return cfg
}

// Summary is what stands.
func (m *memoryReplica) Summary() (reconcile.Summary, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return reconcile.Summary{Topic: m.plan.topic, Epoch: 1, Count: m.topic.Count(), Digest: m.topic.Digest()}, nil
}

// Chains are the chains that stand.
func (m *memoryReplica) Chains() iter.Seq2[envelope.Chain, error] {
	m.mu.Lock()
	all := slices.Collect(m.topic.Chains())
	m.mu.Unlock()
	return func(yield func(envelope.Chain, error) bool) {
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// Run makes envelopes of a chain anew.
func (m *memoryReplica) Run(id envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error) {
	i, ok := slices.BinarySearchFunc(m.plan.chains, id, func(c *planned, id envelope.ChainID) int { return bytes.Compare(c.id[:], id[:]) })
	if !ok {
		return nil, nil, nil
	}
	c := m.plan.chains[i]
	var run []envelope.Envelope
	for seq, size := from, 0; seq <= to && len(run) < envelope.MaxRun; seq++ {
		e, err := c.envelope(int(seq))
		if err != nil {
			return nil, nil, err
		}
		if size += e.Len(); size > maxBytes && len(run) > 0 {
			break
		}
		run = append(run, e)
	}
	return &c.cert, run, nil
}

// IDAt gives the heads of segments.
func (m *memoryReplica) IDAt(id envelope.ChainID, seq uint64) (envelope.ID, bool) {
	for _, c := range m.plan.chains {
		if c.id == id && seq < uint64(len(c.ids)) {
			return c.ids[seq], true
		}
	}
	return envelope.ID{}, false
}

// Deliver verifies and counts a run.
func (m *memoryReplica) Deliver(cert *envelope.Certificate, run []envelope.Envelope) (reconcile.Delivered, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	adv, err := m.topic.Check(cert, run)
	if err != nil {
		return reconcile.Delivered{}, err
	}
	m.topic.Commit(adv)
	return reconcile.Delivered{Accepted: len(adv.New)}, nil
}
