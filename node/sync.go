package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
	"github.com/kithnet/kith/xrpc"
)

// syncProtocol is reconciliation, one topic to a stream.
const syncProtocol protocol.ID = "/kith/sync/1"

// errUnequal: a session ended with different digests and had nothing left to
// move. Whoever saw it tries again: the scheduler takes it for a failure.
var errUnequal = errors.New("digests still differ")

// reconcileWith leads a round about a space with one peer; and one for each
// epoch that is over, where these are not known to be equal.
func (n *Node) reconcileWith(ctx context.Context, e exchange) error {
	a := n.bySpace(e.space)
	if a == nil || !a.takesPart() || !connectedTo(n.host, e.peer) {
		return nil // nothing to do: the next connection asks again
	}
	ctx, cancel := context.WithTimeout(ctx, syncDeadline)
	defer cancel()
	at, blind := n.relays.serving(a.sid, e.peer)
	var failed error // in the newest epoch, or at a relay in any
	for i, ep := range a.descending() {
		if i > 0 && (a.settled(e.peer, ep, blind) || blind && !n.relayed.leased(berth{at, a.sid, ep.id}, e.peer)) {
			continue
		}
		res, err := n.lead(ctx, a, ep, e.peer, i > 0)
		if err == nil && !res.Equal && len(res.Forks) == 0 && res.Stalled {
			err = errUnequal
			n.refoldSoon(a)
		}
		if err != nil {
			n.log.Debug("sync failed", "peer", e.peer, "space", fingerprint(e.space), "epoch", ep.n, "err", err)
			switch {
			case i == 0:
				failed = err
				a.roundFailed(e.peer, err)
			case failed != nil:
			case blind:
				failed = err
			default:
				a.unshare(e.peer, ep) // a newcomer need not hold what was before it
			}
		}
		if i == 0 && err == nil && !blind && (res.Past == reconcile.PastEqual || res.Past == reconcile.PastNone) {
			break
		}
	}
	return failed
}

// settledFor is how long equal digests of an epoch that is over are taken for
// equal still, while our side has not moved.
const settledFor = 10 * time.Minute

// settled reports whether an epoch that is over was equal with a peer lately. A
// relay does not tell one epoch from another, so that no word about the newest
// is one about all: what it showed of each counts until it is leased again.
func (a *actor) settled(with peer.ID, e *epoch, relay bool) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s, ok := a.syncs[with][e.n]
	if relay {
		return ok && a.equalNow(s, e)
	}
	if time.Since(time.UnixMilli(s.At)) > settledFor {
		return false
	}
	return ok && (s.Digest == "" || a.equalNow(s, e))
}

// unshare notes that a peer does not take part in an epoch that is over.
func (a *actor) unshare(with peer.ID, e *epoch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.syncs[with] == nil {
		a.syncs[with] = map[uint64]xrpc.SyncPeer{}
	}
	a.syncs[with][e.n] = xrpc.SyncPeer{PeerID: with.String(), At: time.Now().UnixMilli()}
}

// equalNow reports whether what a peer showed is what we hold now. mu is held.
func (a *actor) equalNow(s xrpc.SyncPeer, e *epoch) bool {
	return s.Count == e.topic.Count() && s.Digest == fmt.Sprintf("%x", e.topic.Digest())
}

// sessionConfig is what both roles share. Without an actor the peer is
// answered like one that knows no key.
func (n *Node) sessionConfig(ctx context.Context, a *actor, ep *epoch, with peer.ID) reconcile.Config {
	cfg := reconcile.Config{LocalPeer: []byte(n.host.ID()), RemotePeer: []byte(with)}
	rand.Read(cfg.Nonce[:])
	if a != nil {
		r := &replica{ctx: ctx, a: a, e: ep, with: with, cursor: a.store.Cursor(ep.id), here: n.hasTopic}
		cfg.Keys, cfg.Replica, cfg.Sink, cfg.Control = reconcile.NewFetchKey(ep.keys.Fetch()), r, r, r
		about := n.talks.about(ep.id, n.hasTopic)
		cfg.Earlier, cfg.Memory, cfg.Board = r, &about.memory, about.board
		if _, serving := n.relays.serving(a.sid, with); serving {
			if key, err := relay.KeyOf(with); err == nil {
				cfg.Keys = reconcile.NewFetchKey(ep.keys.Fetch()).At(key)
			}
		}
	}
	return cfg
}

func (n *Node) hasTopic(id envelope.TopicID) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.topics[id] != nil
}

// outcome tells the actor what a round showed.
func (n *Node) outcome(a *actor, ep *epoch, with peer.ID, res reconcile.Result) {
	n.stats.SyncBytes.Add(res.AuthBytes + res.MetaBytes + res.PayloadBytes)
	n.stats.SyncDone.Add(1)
	n.log.Debug("synced", "peer", with, "space", fingerprint(a.sid), "epoch", ep.n, "equal", res.Equal, "led", res.Led,
		"ctl", fmt.Sprintf("%d.%d", res.Ctl.Term, res.Ctl.Seq), "peerCtl", fmt.Sprintf("%d.%d", res.PeerCtl.Term, res.PeerCtl.Seq))
	if a.synced(with, ep, res) {
		a.offer(confirmation{})
	}
	n.relayed.showed(a, ep, with, res.Equal)
	fruitless := a.fruitless(with, res)
	switch {
	case res.Equal:
		if a.inDoubt() {
			a.offer(trust{})
		}
	case len(res.Forks) > 0:
		n.tradeForks(a, ep, res, with)
	case res.Stalled: // reconcileWith makes an error of it, and the scheduler a retry
		if _, serving := n.relays.serving(a.sid, with); serving {
			n.askForks(a, ep, with)
		}
	case fruitless < barrenMax:
		n.reconcile(a.sid, with) // writes landed meanwhile: once more
	}
}

// synced notes the outcome of a session. "In sync" is only ever said of equal
// digests, with a named peer, at a time.
// It reports whether the head of our log was confirmed while batches wait for
// that.
func (a *actor) synced(with peer.ID, e *epoch, res reconcile.Result) (confirmed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seconded(with, e, res) {
		a.offer(seconding{})
	}
	if res.Ctl == res.PeerCtl && e.n == a.ctl.Epoch {
		a.confirmed, confirmed = time.Now(), len(a.held.rows) > 0
	}
	if a.now != nil && e.n == a.now.n {
		a.rounds[with] = xrpc.Round{
			PeerID: with.String(), At: time.Now().UnixMilli(), Equal: res.Equal, Count: res.Count, PeerCount: res.PeerCount,
		}
	}
	if !res.Equal {
		delete(a.syncs[with], e.n)
		return confirmed
	}
	a.shown(with, e.n, res.Count, res.Digest)
	a.claimed(with, e, res.Count)
	return confirmed
}

// confirmation: what waited for somebody to confirm the log's head can go.
type confirmation struct{}

func (confirmation) handle(a *actor) { a.release() }

// replica shows one epoch of a space to a session. It lives as long as the
// session and is used by its goroutine alone.
type replica struct {
	ctx  context.Context
	a    *actor
	e    *epoch
	with peer.ID
	past []epochSet // what Since last told of

	cursor *store.Cursor // through what is sent
	flight []*runIn      // under way to the space, see Submit
	landed []reconcile.Outcome

	here func(envelope.TopicID) bool
}

var (
	_ reconcile.Earlier    = (*replica)(nil)
	_ reconcile.Replica    = (*replica)(nil)
	_ reconcile.Idler      = (*replica)(nil)
	_ reconcile.Sink       = (*replica)(nil)
	_ reconcile.ControlLog = (*replica)(nil)
	_ envelope.IDs         = (*replica)(nil)
)

// topic is the replica of the session's epoch as it is now: a space that was
// read again has another one. The actor's mu is held.
func (r *replica) topic() *envelope.Topic {
	if e := r.a.epochs[r.e.id]; e != nil {
		return e.topic
	}
	return r.e.topic // the log turned out to have another epoch
}

func (r *replica) Summary() (reconcile.Summary, error) {
	if !r.here(r.e.id) {
		return reconcile.Summary{}, space.ErrSpaceNotFound // forgotten while a stream was open
	}
	r.a.mu.RLock()
	defer r.a.mu.RUnlock()
	return reconcile.Summary{
		Topic: r.e.id, Ctl: r.a.stated(r.e), Epoch: r.e.n, Count: r.topic().Count(), Digest: r.topic().Digest(),
	}, nil
}

// epochSet is the set of an epoch at a moment.
type epochSet struct {
	n, count uint64
	digest   [32]byte
}

// Since tells of the epochs before the session's, as far back as they are held
// without a gap.
func (r *replica) Since(from uint64) (first uint64, digest [32]byte, err error) {
	r.past = nil
	want := r.e.n - 1
	all := r.a.descending()
	r.a.mu.RLock()
	for _, e := range all {
		if e.n == want && e.n >= max(from, 1) {
			r.past = append(r.past, epochSet{e.n, e.topic.Count(), e.topic.Digest()})
			want--
		}
	}
	r.a.mu.RUnlock()
	h := sha256.New()
	for _, e := range slices.Backward(r.past) {
		first = cmp.Or(first, e.n)
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], e.n)
		binary.BigEndian.PutUint64(b[8:], e.count)
		h.Write(b[:])
		h.Write(e.digest[:])
	}
	return first, [32]byte(h.Sum(nil)), nil
}

// sharedPast notes epochs that a peer has shown to be equal with ours.
func (a *actor) sharedPast(with peer.ID, past []epochSet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range past {
		a.shown(with, e.n, e.count, e.digest)
	}
}

func (r *replica) Chains() iter.Seq2[envelope.Chain, error] {
	r.a.mu.RLock()
	all := slices.Collect(r.topic().Chains())
	r.a.mu.RUnlock()
	return func(yield func(envelope.Chain, error) bool) {
		for _, ch := range all {
			if !yield(ch, nil) {
				return
			}
		}
	}
}

func (r *replica) Run(chain envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error) {
	r.a.mu.RLock()
	ch, ok := r.topic().Chain(chain)
	r.a.mu.RUnlock()
	if !ok || from > ch.Head.Seq {
		return nil, nil, nil
	}
	to = min(to, ch.Head.Seq)
	if ch.Forked { // it may have been cut
		r.cursor.Close()
	}
	envs, err := r.cursor.Run(chain, from, to, maxBytes)
	if err != nil || from > 0 {
		return nil, envs, err
	}
	return &ch.Cert, envs, nil
}

// Signed reports whether this process wrote the chain.
func (r *replica) Signed(chain envelope.ChainID) bool { return r.a.self.twin.isOurs(chain) }

// Idle lets go of what was read to be sent.
func (r *replica) Idle() { r.cursor.Close() }

// IDAt gives the heads of segments.
func (r *replica) IDAt(chain envelope.ChainID, seq uint64) (envelope.ID, bool) {
	return ids{r.a.store, r.e.id}.IDAt(chain, seq)
}

func (r *replica) Deliver(cert *envelope.Certificate, run []envelope.Envelope) (reconcile.Delivered, error) {
	m := &runIn{topic: r.e.id, from: r.with, cert: cert, run: run}
	got, err := r.a.deliver(r.ctx, m)
	return reconcile.Delivered{Accepted: got, Duplicate: max(0, len(run)-got)}, err
}

// controlPage bounds the entries of one page before sealing.
const controlPage = 96 << 10

// stated is the head of the log as a session about an epoch states it. Who
// holds the epoch's keys alone must not learn what comes after: the log of an
// epoch ends with the entry that opens the next one. A frozen space states its
// proof, which is ahead of everything in its term. mu is held.
func (a *actor) stated(e *epoch) space.Head {
	if p := a.proof; p != nil {
		return p.head()
	}
	if next, ok := a.ctl.Opened(e.n + 1); ok {
		return next
	}
	return a.ctl.Head
}

func (r *replica) ControlSince(have space.Head) ([][]byte, error) {
	r.a.mu.RLock()
	proof, end := r.a.proof, r.a.stated(r.e)
	r.a.mu.RUnlock()
	var p pager
	if proof != nil {
		p.add(proof.A)
		p.add(proof.B)
		return p.seal(r.e)
	}
	var shared bool // what the other side has is in our log
	var rows [][]byte
	for row, err := range r.a.store.Control() {
		if err != nil {
			return nil, err
		}
		if row.Seq > end.Seq {
			break
		}
		shared = shared || row.Seq == have.Seq && sha256.Sum256(row.Raw) == have.Hash
		rows = append(rows, row.Raw)
	}
	from := uint64(0)
	switch {
	case have == (space.Head{}):
	case shared:
		from = have.Seq + 1
	default: // another branch: from where it may leave ours
		from = firstOfTerm(rows, min(have.Term+1, end.Term), have.Seq)
	}
	for _, raw := range rows[min(from, uint64(len(rows))):] {
		p.add(raw)
	}
	return p.seal(r.e)
}

// firstOfTerm is the seq of the first entry of a term or a later one, and not
// one behind seq.
func firstOfTerm(rows [][]byte, term, seq uint64) uint64 {
	for i, raw := range rows {
		if uint64(i) >= seq || control.TermOf(raw) >= term && term > 0 {
			return uint64(i)
		}
	}
	return seq
}

// pager puts control entries on pages.
type pager struct {
	pages [][][]byte
	size  int
}

func (p *pager) add(raw []byte) {
	if p.size += len(raw); len(p.pages) == 0 || p.size > controlPage {
		p.pages, p.size = append(p.pages, nil), len(raw)
	}
	last := len(p.pages) - 1
	p.pages[last] = append(p.pages[last], raw)
}

// seal gives the pages as they travel.
func (p *pager) seal(e *epoch) ([][]byte, error) {
	var out [][]byte
	for _, entries := range p.pages {
		page, err := sealMsg(e, entries)
		if err != nil {
			return nil, err
		}
		out = append(out, page)
	}
	return out, nil
}

func (r *replica) DeliverControl(page []byte) error {
	var entries [][]byte
	if err := openMsg(r.e, page, &entries); err != nil {
		return err
	}
	return r.a.deliverControl(r.ctx, entries)
}

// controlIn is control entries from a peer, raw, in order.
type controlIn struct {
	entries [][]byte
	reply   chan error // buffered
}

func (a *actor) deliverControl(ctx context.Context, entries [][]byte) error {
	m := &controlIn{entries: entries, reply: make(chan error, 1)}
	err, sendErr := ask(ctx, a, m, m.reply)
	if sendErr != nil {
		return sendErr
	}
	return err
}

func (m *controlIn) handle(a *actor) { m.reply <- a.ingestControl(m.entries) }
