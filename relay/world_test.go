package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

func keyOf(name string) ed25519.PrivateKey {
	sum := space.Hash("test", []byte(name))
	return ed25519.NewKeyFromSeed(sum[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// world is an epoch of a space as those who hold its keys have it.
type world struct {
	issuer, fetch ed25519.PrivateKey
	topic         envelope.TopicID
	class         uint16
}

func newWorld(name string) *world {
	w := &world{issuer: keyOf("issuer " + name), fetch: keyOf("fetch " + name), class: 3}
	w.topic = envelope.TopicOf(public(w.issuer))
	return w
}

func (w *world) describe(t testing.TB, notAfter time.Time, retentionDays uint32) envelope.Descriptor {
	t.Helper()
	b := envelope.DescriptorBody(public(w.issuer), public(w.fetch), envelope.MaxSize, uint64(notAfter.Unix()), retentionDays)
	d, err := envelope.ParseDescriptor(append(b, space.Sign(w.issuer, space.LabelDescriptor, b)...))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) prove(m []byte) []byte { return space.Sign(w.fetch, space.LabelLease, m) }

// chain is a writer's side of a chain.
type chain struct {
	key  ed25519.PrivateKey
	w    *world
	id   envelope.ChainID
	cert envelope.Certificate
	run  []envelope.Envelope
}

func (w *world) chain(t testing.TB, writer, name string) *chain {
	t.Helper()
	wr, k := keyOf("writer "+writer), keyOf("chain "+name)
	c := &chain{key: k, w: w, id: envelope.ChainID(public(k))}
	body := envelope.GrantBody(public(w.issuer), public(wr), w.class, uint64(time.Now().Add(time.Hour).Unix()))
	var err error
	c.cert, err = envelope.NewCertificate(
		[envelope.GrantSize]byte(append(body, space.Sign(w.issuer, space.LabelWriterCert, body)...)),
		[envelope.SignatureSize]byte(space.Sign(wr, space.LabelChain, w.topic[:], c.id[:])))
	if err != nil {
		t.Fatal(err)
	}
	c.add(t, envelope.Hello, nil)
	return c
}

// add appends an envelope; body is a part of its ciphertext.
func (c *chain) add(t testing.TB, typ envelope.Type, body []byte) envelope.Envelope {
	t.Helper()
	h := envelope.Header{Type: typ, Topic: c.w.topic, Chain: c.id, Prev: c.cert.ID()}
	if n := len(c.run); n > 0 {
		h.Seq, h.Prev = uint64(n), c.run[n-1].ID()
	}
	ct := make([]byte, envelope.MinPadded+envelope.TagSize)
	if body == nil {
		rand.Read(ct)
	}
	copy(ct, body)
	raw, err := envelope.Build(h, [24]byte{}, ct, func(m []byte) []byte { return ed25519.Sign(c.key, m) })
	if err != nil {
		t.Fatal(err)
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	c.run = append(c.run, e)
	return e
}

func (c *chain) grow(t testing.TB, n int) *chain {
	t.Helper()
	for range n {
		c.add(t, envelope.Entry, nil)
	}
	return c
}

// frame is the frame of sequences from to to.
func (c *chain) frame(t testing.TB, from, to int) envelope.Frame {
	t.Helper()
	f := envelope.Frame{Run: c.run[from : to+1]}
	if from == 0 {
		f.Cert = &c.cert
	}
	b, err := f.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err = envelope.ParseFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// replica is a topic as a member holds it, in memory.
type replica struct {
	mu   sync.Mutex // guards what follows
	set  *envelope.Topic
	envs map[envelope.ChainID][]envelope.Envelope
}

func newReplica(w *world) *replica {
	r := &replica{set: envelope.NewTopic(w.topic), envs: map[envelope.ChainID][]envelope.Envelope{}}
	r.set.SetIDs(held(r.envs))
	return r
}

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

func (r *replica) Summary() (reconcile.Summary, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return reconcile.Summary{
		Topic: r.set.ID(), Epoch: 7, Ctl: space.Head{Term: 1, Seq: 9}, Count: r.set.Count(), Digest: r.set.Digest(),
	}, nil
}

func (r *replica) Chains() iter.Seq2[envelope.Chain, error] {
	r.mu.Lock()
	all := slices.Collect(r.set.Chains())
	r.mu.Unlock()
	return func(yield func(envelope.Chain, error) bool) {
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (r *replica) Run(id envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.set.Chain(id)
	if !ok {
		return nil, nil, nil
	}
	run := held(r.envs).Envelopes(id, from, to)
	size := 0
	for i, e := range run {
		if size += e.Len(); i > 0 && size > maxBytes || i == envelope.MaxRun {
			run = run[:i]
			break
		}
	}
	if from == 0 {
		return &c.Cert, run, nil
	}
	return nil, run, nil
}

func (r *replica) Deliver(cert *envelope.Certificate, run []envelope.Envelope) (reconcile.Delivered, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	adv, err := r.set.Check(cert, run)
	if !adv.IsZero() {
		id := adv.Chain.ID
		if adv.Cut {
			r.envs[id] = r.envs[id][:adv.Chain.Length:adv.Chain.Length]
		}
		r.envs[id] = append(r.envs[id], adv.New...)
		r.set.Commit(adv)
	}
	return reconcile.Delivered{Accepted: len(adv.New), Duplicate: len(run) - len(adv.New)}, err
}

func (r *replica) ControlSince(space.Head) ([][]byte, error) { panic("a relay asks for no log") }
func (r *replica) DeliverControl([]byte) error               { panic("a relay has no log") }

func (r *replica) Chain(id envelope.ChainID) (envelope.Chain, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set.Chain(id)
}

func (r *replica) IDAt(id envelope.ChainID, seq uint64) (envelope.ID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return held(r.envs).IDAt(id, seq)
}

func (r *replica) Fork(id envelope.ChainID) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set.Fork(id)
}

// hold brings a whole chain into the replica.
func (r *replica) hold(t testing.TB, c *chain) {
	t.Helper()
	for from := 0; from < len(c.run); from += 512 {
		cert := &c.cert
		if from > 0 {
			cert = nil
		}
		if _, err := r.Deliver(cert, c.run[from:min(from+512, len(c.run))]); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *replica) digest() [32]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set.Digest()
}

// member is a peer that holds the keys of worlds.
type member struct {
	host host.Host
	mesh *gossip.Mesh
}

func loopbackHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func newMember(t testing.TB) *member {
	t.Helper()
	h := loopbackHost(t)
	m, err := gossip.New(t.Context(), h, gossip.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &member{h, m}
}

// startRelay starts a relay on loopback TCP.
func startRelay(t testing.TB, dir string, change ...func(*Config)) *Relay {
	t.Helper()
	cfg := Config{
		Dir: dir, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, LeaseBurst: 1 << 20,
		Host: func(int) []libp2p.Option {
			return []libp2p.Option{libp2p.DisableIdentifyAddressDiscovery(), libp2p.ResourceManager(&network.NullResourceManager{})}
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func infoOf(t testing.TB, addrs []string) peer.AddrInfo {
	t.Helper()
	i, err := peer.AddrInfoFromString(addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	return *i
}

func connect(t testing.TB, h host.Host, to peer.AddrInfo) {
	t.Helper()
	if err := h.Connect(t.Context(), to); err != nil {
		t.Fatal(err)
	}
}

// dial opens a stream of requests to a relay's first host.
func (m *member) dial(t testing.TB, r *Relay) *Client {
	t.Helper()
	connect(t, m.host, infoOf(t, r.Addrs()))
	s, err := m.host.NewStream(t.Context(), r.ID(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Reset() })
	c, err := NewClient(s, m.host.ID(), r.ID())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *member) lease(t testing.TB, r *Relay, w *world) Lease {
	t.Helper()
	l, err := m.dial(t, r).Lease(w.describe(t, time.Now().Add(100*day), 0), "", w.prove)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, m.host, infoOf(t, l.Addrs))
	return l
}

// sync runs one round about a world with the host that serves it.
func (m *member) sync(ctx context.Context, w *world, rep *replica, with peer.ID) (reconcile.Result, error) {
	s, err := m.host.NewStream(ctx, with, SyncProtocol)
	if err != nil {
		return reconcile.Result{}, err
	}
	defer s.Close()
	key, err := KeyOf(with)
	if err != nil {
		return reconcile.Result{}, err
	}
	cfg := reconcile.Config{
		Role: reconcile.Initiator, Topic: w.topic, LocalPeer: []byte(m.host.ID()), RemotePeer: []byte(with),
		Keys: reconcile.NewFetchKey(w.fetch).At(key), Replica: rep, Sink: rep, Control: rep,
	}
	rand.Read(cfg.Nonce[:])
	ses, err := reconcile.New(cfg)
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Run(ctx, s, ses)
}

func (m *member) receipt(t testing.TB, r *Relay, w *world) Receipt {
	t.Helper()
	c, err := m.dial(t, r).Receipt(w.topic, w.prove)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.Relay, r.Key()) {
		t.Fatal("receipt by another key")
	}
	return c
}

// eventually looks again and again until a condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(20 * time.Second); !ok(); <-again.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
