package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/internal/netid"
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

const (
	keyFile    = "relay.key"
	storeDir   = "store"
	topicTable = "topic"
	// sweepEvery is how often topics are looked through for what is over.
	sweepEvery = time.Hour
)

// Relay is a running relay.
type Relay struct {
	cfg      Config
	key      ed25519.PrivateKey // of the first host's peer id
	store    *store.Store
	hosts    []host.Host
	shards   *gossip.Shards
	owners   []*owner
	talks    talks
	doors    doors
	guests   guests
	circuits io.Closer    // nil: none are served
	held     atomic.Int64 // bytes of all topics
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	ending   sync.RWMutex // held to start work, so that Close waits for all of it

	leasing sync.Mutex // held while a topic is begun or forgotten

	mu     sync.RWMutex // guards what follows
	topics map[envelope.TopicID]*topic
	codes  map[[32]byte]envelope.TopicID // access codes that are used, by hash
}

// New starts a relay. On error nothing is left running.
func New(cfg Config) (*Relay, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{cfg: cfg, topics: map[envelope.TopicID]*topic{}, codes: map[[32]byte]envelope.TopicID{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.doors, r.guests = newDoors(cfg), newGuests()
	if err := r.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("relay: %w", err), r.Close())
	}
	return r, nil
}

func (r *Relay) start() (err error) {
	seed, err := keptSeed(r.cfg.Dir)
	if err != nil {
		return err
	}
	r.key = ed25519.NewKeyFromSeed(seed)
	r.store, err = r.cfg.openStore(filepath.Join(r.cfg.Dir, storeDir), [32]byte(space.KDF(seed, space.LabelStoreDEK, nil, 32)))
	if err != nil {
		return err
	}
	for range owners() {
		o := &owner{inbox: make(chan work, inboxSize)}
		r.owners = append(r.owners, o)
		r.wg.Go(func() { o.run(r.ctx) })
	}
	var meshes []*gossip.Mesh
	for i := range r.cfg.Hosts {
		h, err := r.newHost(i, seed)
		if err != nil {
			return err
		}
		r.hosts = append(r.hosts, h)
		m, err := gossip.New(r.ctx, h, gossip.Config{MaxTopics: r.cfg.TopicsPerHost, Limits: r.cfg.Limits})
		if err != nil {
			return err
		}
		meshes = append(meshes, m)
	}
	r.shards = gossip.NewShards(meshes)
	if err := r.openTopics(); err != nil {
		return err
	}
	for _, h := range r.hosts {
		r.serve(h)
	}
	if !r.cfg.NoCircuit {
		if r.circuits, err = ServeCircuits(r.hosts[0], r.guests.has); err != nil {
			return err
		}
	}
	r.wg.Go(r.sweeper)
	return nil
}

// keptSeed reads the relay's key, or draws one.
func keptSeed(dir string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, keyFile)
	seed, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		seed = make([]byte, ed25519.SeedSize)
		rand.Read(seed)
		err = os.WriteFile(name, seed, 0o600)
	case err == nil && len(seed) != ed25519.SeedSize:
		err = fmt.Errorf("%s: %d bytes, want %d", name, len(seed), ed25519.SeedSize)
	}
	return seed, err
}

// hostKey is the key of the i-th host: the first is the relay's own.
func hostKey(seed []byte, i int) (crypto.PrivKey, error) {
	if i > 0 {
		seed = space.KDF(seed, space.LabelRelayHost, []byte{byte(i)}, ed25519.SeedSize)
	}
	return crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
}

func (r *Relay) newHost(i int, seed []byte) (host.Host, error) {
	key, err := hostKey(seed, i)
	if err != nil {
		return nil, err
	}
	listen, err := onPort(r.cfg.Listen, i)
	if err != nil {
		return nil, err
	}
	announce, err := onPort(r.cfg.Announce, i)
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{libp2p.Identity(key), libp2p.ListenAddrStrings(listen...), libp2p.UserAgent("kith-relay")}
	if len(announce) > 0 {
		var addrs []multiaddr.Multiaddr
		for _, a := range announce {
			addrs = append(addrs, multiaddr.StringCast(a)) // was parsed before
		}
		opts = append(opts, libp2p.AddrsFactory(func([]multiaddr.Multiaddr) []multiaddr.Multiaddr { return addrs }))
	}
	opts = append(opts, libp2p.DisableRelay())
	if r.cfg.Host != nil {
		opts = append(opts, r.cfg.Host(i)...)
	} else if !r.cfg.NoCircuit {
		opts = append(opts, libp2p.EnableAutoNATv2()) // it dials on sockets of its own
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return netid.Of(h, r.cfg.Network), nil
}

// openTopics opens every topic that the store has.
func (r *Relay) openTopics() error {
	for kv, err := range r.store.List(topicTable) {
		if err != nil {
			return fmt.Errorf("list topics: %w", err)
		}
		var l ledger
		err := space.Unmarshal(kv.Value, &l)
		var t *topic
		if err == nil {
			t, err = r.openTopic(l)
		}
		if err == nil {
			err = r.join(t)
		}
		if err != nil {
			return fmt.Errorf("topic %x: %w", kv.Key[:min(4, len(kv.Key))], err)
		}
		r.held.Add(int64(t.held()))
		r.enter(t)
	}
	if r.store.Recovered() {
		return r.store.Audited()
	}
	return nil
}

// enter makes a topic known.
func (r *Relay) enter(t *topic) {
	t.mu.Lock()
	grants := t.ledger.Grants
	t.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.topics[t.id] = t
	for _, g := range grants {
		if len(g.Code) == 32 {
			r.codes[[32]byte(g.Code)] = t.id
		}
	}
}

// join takes part in a topic on gossip. A relay that has more topics than its
// hosts may serve keeps the rest for sync alone, and says so.
func (r *Relay) join(t *topic) error {
	at, g, err := r.shards.Join(t.host, t.id, t, t.heard, nil)
	if errors.Is(err, gossip.ErrTooManyTopics) {
		r.cfg.Log.Warn("more topics than hosts can serve on gossip: this one lives by sync alone; run more hosts", "topic", t.name())
		return nil
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.host, t.gossip = at, g
	t.mu.Unlock()
	return nil
}

func (r *Relay) topic(id envelope.TopicID) *topic {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.topics[id]
}

// all are the topics as they are now.
func (r *Relay) all() []*topic {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*topic, 0, len(r.topics))
	for _, t := range r.topics {
		out = append(out, t)
	}
	return out
}

// spawn runs f unless the relay is closing; Close waits for it.
func (r *Relay) spawn(f func()) {
	r.ending.RLock()
	defer r.ending.RUnlock()
	if r.ctx.Err() == nil {
		r.wg.Go(f)
	}
}

// ID is the peer id by which members know the relay.
func (r *Relay) ID() peer.ID { return r.hosts[0].ID() }

// Key is the relay's public key: that of its peer id.
func (r *Relay) Key() ed25519.PublicKey { return r.key.Public().(ed25519.PublicKey) }

// Addrs are the addresses of the relay's hosts, with /p2p, the first host's
// first and loopback ones last.
func (r *Relay) Addrs() []string {
	var out []string
	for i := range r.hosts {
		out = append(out, r.addrsOf(i)...)
	}
	return out
}

// Listening are the addresses that the first host listens on, whatever it tells
// others.
func (r *Relay) Listening() []string {
	var out []string
	for _, a := range r.hosts[0].Network().ListenAddresses() {
		out = append(out, a.String())
	}
	return out
}

// addrsOf are the addresses of one host.
func (r *Relay) addrsOf(i int) []string {
	var far, near []string
	h := r.hosts[i]
	for _, a := range h.Addrs() {
		s := a.String() + "/p2p/" + h.ID().String()
		if len(s) > maxAddr {
			continue
		}
		if manet.IsIPLoopback(a) {
			near = append(near, s)
		} else {
			far = append(far, s)
		}
	}
	all := append(far, near...)
	return all[:min(len(all), maxAddrs)]
}

// sign completes a receipt.
func (r *Relay) sign(c Receipt) Receipt {
	c.Time, c.Relay = uint64(max(0, r.cfg.Now().UnixMilli())), r.Key()
	copy(c.Sig[:], space.Sign(r.key, space.LabelReceipt, c.body()))
	return c
}

// sweeper forgets what is over, now and then.
func (r *Relay) sweeper() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.Sweep()
		case <-r.ctx.Done():
			return
		}
	}
}

// Sweep forgets the topics of which nothing has to be kept any more. It is
// called every hour.
func (r *Relay) Sweep() {
	now := r.cfg.Now()
	for _, t := range r.all() {
		t.mu.Lock()
		over := t.ledger.forgotten(now)
		t.mu.Unlock()
		if !over {
			continue
		}
		if err := r.forget(t); err != nil {
			r.cfg.Log.Warn("forget a topic", "topic", t.name(), "err", err)
		}
	}
}

// forget drops a topic: first its key, then its rows, which nobody can read
// any more.
func (r *Relay) forget(t *topic) error {
	r.leasing.Lock()
	defer r.leasing.Unlock()
	var err error
	called := t.call(r.ctx, func() {
		t.mu.Lock()
		t.gone = true
		g := t.gossip
		t.mu.Unlock()
		if g != nil {
			err = g.Close()
		}
		err = errors.Join(err, r.store.Delete(topicTable, t.id[:], store.Own), t.store.Drop())
	})
	t.mu.Lock()
	grants, held := t.ledger.Grants, t.held()
	t.mu.Unlock()
	r.mu.Lock()
	delete(r.topics, t.id)
	for _, g := range grants {
		if len(g.Code) == 32 {
			delete(r.codes, [32]byte(g.Code))
		}
	}
	r.mu.Unlock()
	r.held.Add(-int64(held))
	return errors.Join(called, err)
}

// Usage is what one lease's topic has done since the start: statistics are
// kept per lease, not per person.
type Usage struct {
	Topic                                                 string   // its first bytes, as in logs
	Lease                                                 string   // its name in metrics, which says nothing of the topic
	Count                                                 uint64   // entries held, as a receipt says
	Digest                                                [32]byte // of their set
	Held, Bytes                                           uint64
	Expires                                               time.Time
	Envelopes, Received, Refused, Objects, Rounds, Signed uint64
}

// Usages are those of all topics, in no order.
func (r *Relay) Usages() iter.Seq[Usage] {
	return func(yield func(Usage) bool) {
		for _, t := range r.all() {
			t.mu.Lock()
			q, until := t.ledger.live(r.cfg.Now())
			u := Usage{Topic: t.name(), Lease: t.leaseName(), Held: t.held(), Bytes: q.Bytes, Expires: until}
			t.mu.Unlock()
			u.Count, u.Digest = t.summary()
			u.Envelopes, u.Received, u.Refused = t.usage.Envelopes.Load(), t.usage.Bytes.Load(), t.usage.Refused.Load()
			u.Objects, u.Rounds, u.Signed = t.usage.Objects.Load(), t.usage.Rounds.Load(), t.usage.Receipts.Load()
			if !yield(u) {
				return
			}
		}
	}
}

// Topics is how many topics there are, and Held how many bytes they hold.
func (r *Relay) Topics() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.topics)
}

// Held is how many bytes all topics hold.
func (r *Relay) Held() int64 { return r.held.Load() }

// MaxBytes is how many they may hold before no new lease is given.
func (r *Relay) MaxBytes() uint64 { return r.cfg.MaxBytes }

// Healthy says why the relay takes nothing; nil: it does.
func (r *Relay) Healthy() error {
	if err := r.store.Err(); err != nil {
		return fmt.Errorf("the store takes no writes: %w", err)
	}
	return nil
}

// Counters are gossip's, of all hosts together.
func (r *Relay) Counters() map[string]uint64 { return r.shards.Counters() }

// Close ends the relay: no new streams, what was handed in is written, then
// the network and the store end.
func (r *Relay) Close() error {
	r.ending.Lock()
	r.cancel()
	r.ending.Unlock()
	var errs []error
	if r.shards != nil {
		errs = append(errs, r.shards.Close())
	}
	if r.circuits != nil {
		errs = append(errs, r.circuits.Close())
	}
	for _, h := range r.hosts {
		errs = append(errs, h.Close())
	}
	r.wg.Wait()
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	return errors.Join(errs...)
}
