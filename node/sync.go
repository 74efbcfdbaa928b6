package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/sync/reconcile"
	"github.com/kithnet/kith/xrpc"
)

// syncProtocol is reconciliation, one topic to a stream.
const syncProtocol protocol.ID = "/kith/sync/1"

// errUnequal: a session ended with different digests and had nothing left to
// move. Whoever saw it tries again: the scheduler takes it for a failure.
var errUnequal = errors.New("digests still differ")

// reconcileWith leads one session about a space with one peer.
func (n *Node) reconcileWith(ctx context.Context, e exchange) error {
	a := n.bySpace(e.space)
	if a == nil || n.host.Network().Connectedness(e.peer) != network.Connected {
		return nil // nothing to do: the next connection asks again
	}
	ctx, cancel := context.WithTimeout(ctx, syncDeadline)
	defer cancel()
	s, err := n.host.NewStream(network.WithNoDial(ctx, "sync"), e.peer, syncProtocol)
	if err != nil {
		return fmt.Errorf("sync with %s: %w", e.peer, err)
	}
	defer s.Close()
	ep := a.current()
	cfg := n.sessionConfig(ctx, a, ep, e.peer)
	cfg.Role, cfg.Topic = reconcile.Initiator, ep.id
	if err := n.session(ctx, a, s, cfg); err != nil {
		s.Reset()
		n.log.Debug("sync failed", "peer", e.peer, "space", fingerprint(e.space), "err", err)
		return err
	}
	return nil
}

// serveSync answers a session that a peer leads.
func (n *Node) serveSync(s network.Stream) {
	ctx, cancel := context.WithTimeout(n.ctx, syncDeadline)
	defer cancel()
	defer s.Close()
	from := s.Conn().RemotePeer()
	if err := s.SetDeadline(time.Now().Add(syncDeadline)); err != nil {
		s.Reset()
		return
	}
	open, err := reconcile.ReadOpening(s)
	if err != nil {
		s.Reset()
		return
	}
	a, ep := n.byTopic(open.Topic)
	cfg := n.sessionConfig(ctx, a, ep, from)
	cfg.Role, cfg.Opening = reconcile.Responder, open
	if err := n.session(ctx, a, s, cfg); err != nil {
		s.Reset()
		n.log.Debug("sync refused or broken", "peer", from, "err", err)
	}
}

// sessionConfig is what both roles share. Without an actor the peer is
// answered like one that knows no key.
func (n *Node) sessionConfig(ctx context.Context, a *actor, ep *epoch, with peer.ID) reconcile.Config {
	cfg := reconcile.Config{LocalPeer: []byte(n.host.ID()), RemotePeer: []byte(with)}
	rand.Read(cfg.Nonce[:])
	if a != nil {
		r := &replica{ctx: ctx, a: a, e: ep, with: with}
		cfg.Keys, cfg.Replica, cfg.Sink, cfg.Control = reconcile.NewFetchKey(ep.keys.Fetch()), r, r, r
	}
	return cfg
}

// session runs one session to its end and tells the actor what it showed.
func (n *Node) session(ctx context.Context, a *actor, s network.Stream, cfg reconcile.Config) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(deadline); err != nil {
			return err
		}
	}
	ses, err := reconcile.New(cfg)
	if err != nil {
		return err
	}
	res, err := reconcile.Run(ctx, s, ses)
	if a == nil {
		return err
	}
	n.stats.SyncBytes.Add(res.MetaBytes + res.PayloadBytes)
	if err != nil {
		n.stats.SyncFailed.Add(1)
		return err
	}
	n.stats.SyncDone.Add(1)
	a.synced(s.Conn().RemotePeer(), res)
	switch {
	case res.Equal:
		if a.inDoubt() {
			a.offer(trust{})
		}
		return nil
	case res.Stalled:
		return errUnequal
	}
	n.reconcile(a.sid, s.Conn().RemotePeer()) // writes landed meanwhile: once more
	return nil
}

// synced notes the outcome of a session. "In sync" is only ever said of equal
// digests, with a named peer, at a time.
func (a *actor) synced(with peer.ID, res reconcile.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !res.Equal {
		delete(a.syncs, with)
		return
	}
	a.syncs[with] = xrpc.SyncPeer{
		PeerID: with.String(), At: time.Now().UnixMilli(), Count: res.Count, Digest: fmt.Sprintf("%x", res.Digest),
	}
}

// replica shows one epoch of a space to a session. It lives as long as the
// session and is used by its goroutine alone.
type replica struct {
	ctx  context.Context
	a    *actor
	e    *epoch
	with peer.ID
}

var (
	_ reconcile.Replica    = (*replica)(nil)
	_ reconcile.Sink       = (*replica)(nil)
	_ reconcile.ControlLog = (*replica)(nil)
)

func (r *replica) Summary() (reconcile.Summary, error) {
	r.a.mu.RLock()
	defer r.a.mu.RUnlock()
	return reconcile.Summary{
		Topic: r.e.id, Ctl: r.a.ctl.Head, Epoch: r.e.n, Count: r.e.topic.Count(), Digest: r.e.topic.Digest(),
	}, nil
}

func (r *replica) Chains() iter.Seq2[envelope.Chain, error] {
	r.a.mu.RLock()
	all := slices.Collect(r.e.topic.Chains())
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
	ch, ok := r.e.topic.Chain(chain)
	r.a.mu.RUnlock()
	if !ok {
		return nil, nil, nil
	}
	envs, err := r.a.store.Run(r.e.id, chain, from, min(to, ch.Head.Seq), maxBytes)
	if err != nil {
		return nil, nil, err
	}
	if from == 0 {
		return &ch.Cert, envs, nil
	}
	return nil, envs, nil
}

func (r *replica) Deliver(cert *envelope.Certificate, run []envelope.Envelope) (reconcile.Delivered, error) {
	m := &runIn{topic: r.e.id, from: r.with, cert: cert, run: run}
	got, err := r.a.deliver(r.ctx, m)
	return reconcile.Delivered{Accepted: got, Duplicate: max(0, len(run)-got)}, err
}

// controlPage bounds the entries of one page before sealing.
const controlPage = 96 << 10

func (r *replica) ControlSince(have space.Head) ([][]byte, error) {
	r.a.mu.RLock()
	head := r.a.ctl.Head
	r.a.mu.RUnlock()
	from := have.Seq + 1
	if have == (space.Head{}) {
		from = 0
	}
	var pages [][]byte
	var entries [][]byte
	size := 0
	flush := func() error {
		if len(entries) == 0 {
			return nil
		}
		plain, err := space.Marshal(entries)
		if err != nil {
			return err
		}
		page, err := seal.SealCtl(rand.Reader, r.e.keys.Control(), r.e.id, plain)
		if err != nil {
			return err
		}
		pages, entries, size = append(pages, page), nil, 0
		return nil
	}
	for row, err := range r.a.store.Control() {
		if err != nil {
			return nil, err
		}
		if row.Seq == have.Seq && from > 0 && sha256.Sum256(row.Raw) != have.Hash {
			return nil, reconcile.ErrControlFork
		}
		if row.Seq < from || row.Seq > head.Seq {
			continue
		}
		if size += len(row.Raw); size > controlPage {
			if err := flush(); err != nil {
				return nil, err
			}
			size = len(row.Raw)
		}
		entries = append(entries, row.Raw)
	}
	return pages, flush()
}

func (r *replica) DeliverControl(page []byte) error {
	plain, err := seal.OpenCtl(r.e.keys.Control(), r.e.id, page)
	if err != nil {
		return err
	}
	var entries [][]byte
	if err := space.Unmarshal(plain, &entries); err != nil {
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
