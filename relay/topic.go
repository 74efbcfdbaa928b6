package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/lthash"
	"github.com/kithnet/kith/sync/reconcile"
)

const (
	freedMeta = "freed" // bytes dropped since the topic began, u64
	backlog   = 8 << 20 // bytes read back at once
	burst     = 10      // seconds' worth of a lease's rate at once
	// passRate and passBurst bound, in bytes, what is passed on to gossip of
	// what came by sync or HTTP: news, and not a history that is refilled.
	passRate  = 64 << 10
	passBurst = 512 << 10
	// evictEvery is how often a full topic is looked through for what may go.
	evictEvery = time.Minute
)

// usage counts what a lease does, for its operator.
type usage struct {
	Envelopes, Bytes, Refused, Objects, Rounds, Receipts atomic.Uint64
}

// topic is one topic of the relay. Its owner alone changes it.
type topic struct {
	id     envelope.TopicID
	relay  *Relay
	owner  *owner
	store  *store.Space
	mark   [8]byte // of cursors: this topic's, on this disk
	memory reconcile.Memory
	usage  usage
	bucket *rate.Limiter // of the lease's rate
	shares shares        // of it, each writer's own
	pass   *rate.Limiter // bytes passed on to gossip of what came otherwise

	evicted time.Time // the owner's: when it last looked for what may go

	// mu guards what follows. It is held for less than it takes to wake who waits
	// for it: a sync.RWMutex, whose readers do not spin, costs a third of the ingest.
	mu     sync.Mutex
	ledger ledger
	desc   envelope.Descriptor
	set    *envelope.Topic
	host   int
	gossip *gossip.Topic // nil: not joined
	used   uint64        // bytes that ever came
	freed  uint64        // of them dropped
	next   uint64        // number of the next arrival
	news   chan struct{} // closed at the next arrival
	gone   bool
}

// openTopic reads a topic from the store.
func (r *Relay) openTopic(l ledger) (*topic, error) {
	desc, err := envelope.ParseDescriptor(l.Desc)
	if err == nil && len(l.Key) != 32 {
		err = space.ErrMalformed
	}
	if err != nil {
		return nil, fmt.Errorf("open topic: %w", err)
	}
	t := &topic{id: desc.Topic(), relay: r, ledger: l, desc: desc, host: int(l.Host), news: make(chan struct{})}
	t.owner = r.owners[binary.BigEndian.Uint64(t.id[:])%uint64(len(r.owners))]
	t.store = r.store.Space(t.id, [32]byte(l.Key))
	mark := space.MAC(l.Key, space.LabelFingerprint, []byte("cursor"))
	copy(t.mark[:], mark[:])
	if r.store.Recovered() {
		if _, err := t.store.Repair(r.ctx); err != nil {
			return nil, fmt.Errorf("repair topic: %w", err)
		}
	}
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("open topic: %w", err)
	}
	q, _ := l.live(r.cfg.Now())
	t.bucket = rate.NewLimiter(rate.Limit(q.Rate), int(q.Rate*burst))
	t.pass = rate.NewLimiter(passRate, passBurst)
	return t, nil
}

func (t *topic) load() error {
	row, ok, err := t.store.TopicState(t.id)
	if err != nil {
		return err
	}
	var state lthash.State
	var count uint64
	if ok {
		state, count = row.State, row.Count
	}
	var chains []envelope.Chain
	for ch, err := range t.store.Chains(t.id) {
		if err != nil {
			return err
		}
		chains = append(chains, ch)
	}
	if t.set, err = envelope.RestoreTopic(t.id, chains, count, state); err != nil {
		return err
	}
	t.set.SetIDs(ids{t})
	last, ok, err := t.store.OutboxLast()
	if err != nil || !ok {
		return err
	}
	a, err := parseArrival(last.Frame)
	if err != nil {
		return err
	}
	t.next, t.used = last.Seq+1, a.used
	b, _, err := t.store.Meta(freedMeta)
	if len(b) == 8 {
		t.freed = binary.BigEndian.Uint64(b)
	}
	return err
}

// ids answers for accepted envelopes.
type ids struct{ t *topic }

var _ envelope.Held = ids{}

func (x ids) IDAt(chain envelope.ChainID, seq uint64) (envelope.ID, bool) {
	id, ok, err := x.t.store.IDAt(x.t.id, chain, seq)
	return id, ok && err == nil
}

func (x ids) Envelopes(chain envelope.ChainID, from, to uint64) []envelope.Envelope {
	envs, err := x.t.store.Run(x.t.id, chain, from, to, backlog)
	if err != nil {
		return nil
	}
	return envs
}

// held is how many bytes the topic holds. mu is held.
func (t *topic) held() uint64 { return t.used - min(t.used, t.freed) }

// settle takes a delivery and tells whoever waits.
func (t *topic) settle(d delivery) {
	got, err := t.take(d)
	if d.reply != nil {
		d.reply <- taken{got, err}
	}
}

// take judges what came and writes it. It runs on the owner. What the lease has
// no room for is refused without an error: nobody did wrong.
func (t *topic) take(d delivery) (reconcile.Delivered, error) {
	n := len(d.run)
	refused := reconcile.Delivered{Refused: n}
	if t.gone {
		return refused, nil
	}
	if d.fork != nil {
		adv, err := t.set.Prove(*d.fork)
		if err != nil {
			return reconcile.Delivered{}, err
		}
		return reconcile.Delivered{}, t.rollback(adv)
	}
	if !t.admits(d.run) {
		t.usage.Refused.Add(uint64(n))
		return refused, nil
	}
	adv, err := t.set.Check(d.cert, d.run)
	var gap envelope.ErrGap
	switch {
	case errors.Is(err, envelope.ErrFork) && !adv.IsZero():
		return refused, t.rollback(adv)
	case errors.As(err, &gap), errors.Is(err, envelope.ErrUncertified):
		t.relay.ask(t, d.from)
		return reconcile.Delivered{}, err
	case err != nil:
		return reconcile.Delivered{}, err
	}
	if err := t.keep(adv); err != nil {
		t.relay.cfg.Log.Warn("what came cannot be kept", "topic", t.name(), "err", err)
		return refused, err
	}
	if d.from == "" {
		t.passOn(adv)
	}
	for _, run := range adv.Left {
		_, _ = t.take(delivery{run: run}) // it waited for a gap and leaves the chain
	}
	return reconcile.Delivered{Accepted: len(adv.New), Duplicate: max(0, n-len(adv.New))}, nil
}

// admits reports whether the lease has room for a run.
func (t *topic) admits(run []envelope.Envelope) bool {
	size := uint64(0)
	for i := range run {
		if run[i].Len() > int(t.desc.MaxEnvelope) {
			return false
		}
		size += uint64(run[i].Len())
	}
	return t.makeRoom(size) == nil
}

// makeRoom drops what the topic's retention lets go of until size more bytes
// fit. ErrQuota: they do not. It runs on the owner.
func (t *topic) makeRoom(size uint64) error {
	now := t.relay.cfg.Now()
	t.mu.Lock()
	q, _ := t.ledger.live(now)
	held := t.held()
	t.mu.Unlock()
	if held+size > q.Bytes && q.Bytes > 0 && now.Sub(t.evicted) >= evictEvery {
		t.evicted = now
		if err := t.evict(held+size-q.Bytes, now); err != nil {
			t.relay.cfg.Log.Warn("drop old envelopes", "topic", t.name(), "err", err)
		}
		t.mu.Lock()
		held = t.held()
		t.mu.Unlock()
	}
	if held+size > q.Bytes {
		return ErrQuota
	}
	return nil
}

// keep writes an advance and makes it so. It is readable at once and synced
// with what follows; a receipt waits for that.
func (t *topic) keep(adv envelope.Advance) error {
	if len(adv.New) == 0 {
		return nil
	}
	begins := adv.New[0].Seq() == 0
	row := &store.RunRow{Chain: adv.Chain, Envs: adv.New}
	if begins {
		row.Cert = adv.Chain.Cert.Bytes()
	}
	a := arrivalOf(adv.New, begins, t.relay.cfg.Now())
	a.used = t.used + uint64(a.bytes)
	b := &store.Batch{
		Run: row, Topic: &store.TopicRow{ID: t.id, Count: adv.Count, State: adv.State},
		Outbox: []store.OutboxRow{{Seq: t.next, Frame: a.append(nil)}},
	}
	if err := t.store.Commit(store.Remote, b); err != nil {
		return diskError(err)
	}
	t.arrived(a, func() { t.set.Commit(adv) })
	t.usage.Envelopes.Add(uint64(len(adv.New)))
	t.usage.Bytes.Add(uint64(a.bytes))
	return nil
}

// passOn tells gossip what came another way: members that are there now need
// not wait for their next round. It runs on the owner.
func (t *topic) passOn(adv envelope.Advance) {
	t.mu.Lock()
	g := t.gossip
	t.mu.Unlock()
	size := 0
	for i := range adv.New {
		size += adv.New[i].Len()
	}
	if g == nil || len(adv.New) == 0 || len(g.Peers()) == 0 || !t.pass.AllowN(t.relay.cfg.Now(), size) {
		return
	}
	for _, b := range framesOf(&adv.Chain.Cert, adv.New) {
		if err := g.Publish(t.relay.ctx, b); err != nil {
			t.relay.cfg.Log.Debug("pass on", "topic", t.name(), "err", err)
			return
		}
	}
}

// framesOf are the frames of a run of a chain, each as far as it is covered.
func framesOf(cert *envelope.Certificate, run []envelope.Envelope) (out [][]byte) {
	for _, f := range envelope.Frames(cert, run) {
		if f.Run = f.Run[:envelope.Covered(f.Run)]; len(f.Run) == 0 {
			continue
		}
		if b, err := f.AppendBinary(nil); err == nil {
			out = append(out, b)
		}
	}
	return out
}

// arrived makes a row that was written so, and tells whoever waits for news.
func (t *topic) arrived(a arrival, commit func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	commit()
	t.relay.held.Add(int64(a.bytes))
	t.used = a.used
	t.next++
	close(t.news)
	t.news = make(chan struct{})
}

// rollback makes an advance so that cuts a chain back or marks it.
func (t *topic) rollback(adv envelope.Advance) error {
	row := &store.CutRow{Topic: t.id, Chain: adv.Chain}
	if adv.Fork != nil {
		proof, err := adv.Fork.AppendBinary(nil)
		if err != nil {
			return err
		}
		row.Proof = proof
	}
	b := &store.Batch{Cut: row, Topic: &store.TopicRow{ID: t.id, Count: adv.Count, State: adv.State}}
	if err := t.store.Commit(store.Own, b); err != nil {
		return diskError(err)
	}
	t.mu.Lock()
	t.set.Commit(adv)
	g := t.gossip
	t.mu.Unlock()
	if adv.Fork == nil || g == nil {
		return nil
	}
	frame, err := envelope.Frame{Fork: adv.Fork}.AppendBinary(nil)
	if err == nil {
		err = g.Publish(t.relay.ctx, frame)
	}
	if err != nil {
		t.relay.cfg.Log.Debug("publish the proof of a fork", "topic", t.name(), "err", err)
	}
	return nil
}

// put keeps an object, on disk when it returns. It runs on the owner.
func (t *topic) put(hash [32]byte, class Class, data []byte) error {
	if t.gone {
		return ErrNoLease
	}
	if _, ok, err := t.store.Object(hash); err != nil || ok {
		return diskError(err)
	}
	if err := t.makeRoom(uint64(len(data))); err != nil {
		return err
	}
	a := arrival{
		object: true, id: hash, from: uint64(class), bytes: uint32(len(data)),
		at: uint64(t.relay.cfg.Now().Unix()), used: t.used + uint64(len(data)),
	}
	b := &store.Batch{
		Objects: []store.ObjectRow{{Hash: hash, Data: data}},
		Outbox:  []store.OutboxRow{{Seq: t.next, Frame: a.append(nil)}},
	}
	if err := t.store.Commit(store.Own, b); err != nil {
		return diskError(err)
	}
	t.arrived(a, func() {})
	t.usage.Objects.Add(1)
	return nil
}

// summary is what the topic holds now.
func (t *topic) summary() (count uint64, digest [32]byte) {
	t.mu.Lock()
	count, state := t.set.Count(), t.set.State()
	t.mu.Unlock()
	return count, state.Sum()
}

// receipt signs what the topic holds once that is on disk. The owner notes what
// is held behind all that was handed in before.
func (t *topic) receipt(ctx context.Context) (Receipt, error) {
	var count uint64
	var digest [32]byte
	if err := t.call(ctx, func() { count, digest = t.summary() }); err != nil {
		return Receipt{}, err
	}
	if err := t.relay.store.Sync(ctx); err != nil {
		return Receipt{}, diskError(err)
	}
	if err := t.relay.store.Err(); err != nil {
		return Receipt{}, diskError(err)
	}
	t.usage.Receipts.Add(1)
	return t.relay.sign(Receipt{Topic: t.id, Count: count, Digest: digest}), nil
}

// Closed is true while the topic takes nothing: its lease has ended or is
// spent, or the disk takes no writes.
func (t *topic) Closed() bool {
	now := t.relay.cfg.Now()
	t.mu.Lock()
	q, _ := t.ledger.live(now)
	full := t.gone || t.held() >= q.Bytes
	t.mu.Unlock()
	return full || t.relay.store.Err() != nil
}

// Chain, IDAt and Fork are what the judge asks.
func (t *topic) Chain(id envelope.ChainID) (envelope.Chain, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set.Chain(id)
}

// IDAt is the id of an accepted envelope.
func (t *topic) IDAt(id envelope.ChainID, seq uint64) (envelope.ID, bool) {
	return ids{t}.IDAt(id, seq)
}

// Fork is where a chain is known to have forked.
func (t *topic) Fork(id envelope.ChainID) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set.Fork(id)
}

var (
	_ gossip.Replica = (*topic)(nil)
	_ gossip.Gate    = (*topic)(nil)
)

// heard takes a frame that gossip accepted.
func (t *topic) heard(from peer.ID, f envelope.Frame) {
	d := delivery{from: from, cert: f.Cert, run: f.Run, fork: f.Fork}
	if f.Fork == nil && !t.pace(t.certificate(f), len(f.Run)) {
		t.usage.Refused.Add(uint64(len(f.Run)))
		return
	}
	t.hand(t.relay.ctx, work{what: d})
}

// pace takes n envelopes from the lease's rate: from the writer's own share, or
// else from what all have in common. cert may be nil.
func (t *topic) pace(cert *envelope.Certificate, n int) bool {
	now := t.relay.cfg.Now()
	if cert != nil && t.shares.of(cert.WriterKey(), t.bucket).AllowN(now, n) {
		return true
	}
	return t.bucket.AllowN(now, min(n, t.bucket.Burst()))
}

// await is pace for who can wait.
func (t *topic) await(ctx context.Context, cert *envelope.Certificate, n int) error {
	if cert != nil && t.shares.of(cert.WriterKey(), t.bucket).AllowN(t.relay.cfg.Now(), n) {
		return nil
	}
	return t.bucket.WaitN(ctx, min(n, t.bucket.Burst()))
}

// name is what logs show of a topic.
func (t *topic) name() string { return fmt.Sprintf("%x", t.id[:4]) }

// diskError says in this package's words why the store refused.
func diskError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrIO), errors.Is(err, store.ErrClosed):
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return fmt.Errorf("%w: %w", ErrInternal, err)
}
