package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

const (
	roundTime  = 2 * time.Minute // a round
	idleTime   = 5 * time.Minute // without one a stream ends
	maxServe   = 256 << 20       // bytes of envelopes a round
	maxAsking  = 16              // rounds that the relay leads at once
	maxTalks   = 8192            // streams open
	talksOfOne = 1024            // with one peer
)

// talk names a stream: one topic with one peer.
type talk struct {
	peer  peer.ID
	topic envelope.TopicID
}

// talks are the sync streams that are open, and the rounds that the relay
// itself leads. A leaf, safe for concurrent use.
type talks struct {
	mu     sync.Mutex // guards what follows
	open   map[talk]*reconcile.Live
	of     map[peer.ID]int
	all    int
	asking map[talk]bool
}

// enter takes a place for a stream. There may be several of one talk; the last
// is the one that is led.
func (k *talks) enter(t talk, l *reconcile.Live) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all >= maxTalks || k.of[t.peer] >= talksOfOne {
		return false
	}
	if k.open == nil {
		k.open, k.of = map[talk]*reconcile.Live{}, map[peer.ID]int{}
	}
	k.open[t] = l
	k.of[t.peer]++
	k.all++
	return true
}

func (k *talks) leave(t talk, l *reconcile.Live) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open[t] == l {
		delete(k.open, t)
	}
	k.all--
	if k.of[t.peer]--; k.of[t.peer] == 0 {
		delete(k.of, t.peer)
	}
}

func (k *talks) live(t talk) *reconcile.Live {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.open[t]
}

// ask begins a round that the relay leads, unless one is under way or too many
// are.
func (k *talks) ask(t talk) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asking[t] || len(k.asking) >= maxAsking {
		return false
	}
	if k.asking == nil {
		k.asking = map[talk]bool{}
	}
	k.asking[t] = true
	return true
}

func (k *talks) asked(t talk) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.asking, t)
}

// config is what a session about a topic is made of; nil is a topic that is not
// here, and answered like a wrong key.
func (r *Relay) config(ctx context.Context, t *topic, h host.Host, with peer.ID) reconcile.Config {
	cfg := reconcile.Config{LocalPeer: []byte(h.ID()), RemotePeer: []byte(with), Blind: true, MaxServe: maxServe}
	rand.Read(cfg.Nonce[:])
	if t == nil {
		return cfg
	}
	key := h.Peerstore().PrivKey(h.ID())
	v := &view{ctx: ctx, t: t, with: with, cursor: t.store.Cursor(t.id)}
	cfg.Keys, cfg.Replica, cfg.Sink, cfg.Memory = reconcile.RelayKeys(t.described().Fetch, key.Sign), v, v, &t.memory
	return cfg
}

// hostOf is the host of a connection.
func (r *Relay) hostOf(id peer.ID) host.Host {
	for _, h := range r.hosts {
		if h.ID() == id {
			return h
		}
	}
	return r.hosts[0]
}

// serveSync answers a peer that opens a stream.
func (r *Relay) serveSync(ctx context.Context, s network.Stream) error {
	if err := s.SetDeadline(time.Now().Add(roundTime)); err != nil {
		return err
	}
	open, err := reconcile.ReadOpening(s)
	if err != nil {
		return err
	}
	t := r.topic(open.Topic)
	cfg := r.config(ctx, t, r.hostOf(s.Conn().LocalPeer()), s.Conn().RemotePeer())
	cfg.Role, cfg.Opening = reconcile.Responder, open
	ses, err := reconcile.New(cfg)
	if err != nil {
		return err
	}
	return r.converse(ctx, t, s, ses, nil)
}

// converse drives a session until its stream ends. started gets it when it is
// under way.
func (r *Relay) converse(ctx context.Context, t *topic, s network.Stream, ses *reconcile.Session, started chan<- *reconcile.Live) error {
	live := reconcile.NewLive(s, ses, func(busy bool) {
		limit := idleTime
		if busy {
			limit = roundTime
		}
		_ = s.SetDeadline(time.Now().Add(limit)) // of a stream that has ended
	}, func(reconcile.Result) {
		if t != nil {
			t.usage.Rounds.Add(1)
		}
	})
	if t != nil {
		k := talk{s.Conn().RemotePeer(), t.id}
		if !r.talks.enter(k, live) {
			return fmt.Errorf("sync: %w", ErrBusy)
		}
		defer r.talks.leave(k, live)
	}
	if started != nil {
		started <- live
	}
	err := live.Run(ctx)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// ask leads a round with a peer that showed that it has more: a gap, or a chain
// whose certificate did not come.
func (r *Relay) ask(t *topic, from peer.ID) {
	k := talk{from, t.id}
	if from == "" || !r.talks.ask(k) {
		return
	}
	r.spawn(func() {
		defer r.talks.asked(k)
		ctx, cancel := context.WithTimeout(r.ctx, roundTime)
		defer cancel()
		if err := r.lead(ctx, t, from); err != nil {
			r.cfg.Log.Debug("ask for what is missing", "topic", t.name(), "err", err)
		}
	})
}

// lead leads one round, on the stream that is open or on a new one.
func (r *Relay) lead(ctx context.Context, t *topic, with peer.ID) error {
	if l := r.talks.live(talk{with, t.id}); l != nil {
		if _, err := l.Lead(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	t.mu.Lock()
	h := r.hosts[t.host]
	t.mu.Unlock()
	s, err := h.NewStream(network.WithNoDial(ctx, "sync"), with, SyncProtocol)
	if err != nil {
		return err
	}
	defer s.Close()
	cfg := r.config(r.ctx, t, h, with)
	cfg.Role, cfg.Topic = reconcile.Initiator, t.id
	ses, err := reconcile.New(cfg)
	if err != nil {
		s.Reset()
		return err
	}
	ended := make(chan error, 1)
	started := make(chan *reconcile.Live, 1)
	r.spawn(func() { ended <- r.converse(r.ctx, t, s, ses, started) })
	select {
	case l := <-started:
		_, err = l.Lead(ctx)
		if closeErr := s.CloseWrite(); err == nil {
			err = closeErr
		}
		return err
	case err := <-ended:
		return err
	case <-ctx.Done():
		s.Reset()
		return ctx.Err()
	}
}

// view shows a topic to one session.
type view struct {
	ctx    context.Context
	t      *topic
	with   peer.ID
	cursor *store.Cursor // through what is sent
}

var (
	_ reconcile.Replica = (*view)(nil)
	_ reconcile.Idler   = (*view)(nil)
	_ reconcile.Sink    = (*view)(nil)
)

// Summary says what is held. A topic that was forgotten is gone.
func (v *view) Summary() (reconcile.Summary, error) {
	v.t.mu.Lock()
	gone := v.t.gone
	v.t.mu.Unlock()
	if gone {
		return reconcile.Summary{}, ErrNoLease
	}
	count, digest := v.t.summary()
	return reconcile.Summary{Topic: v.t.id, Count: count, Digest: digest}, nil
}

func (v *view) Chains() iter.Seq2[envelope.Chain, error] {
	v.t.mu.Lock()
	all := slices.Collect(v.t.set.Chains())
	v.t.mu.Unlock()
	return func(yield func(envelope.Chain, error) bool) {
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (v *view) Run(chain envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error) {
	c, ok := v.t.Chain(chain)
	if !ok {
		return nil, nil, nil
	}
	if c.Forked { // it may have been cut
		v.cursor.Close()
	}
	run, err := v.cursor.Run(chain, from, min(to, c.Head.Seq), maxBytes)
	if err != nil || len(run) == 0 {
		return nil, nil, err
	}
	if from == 0 {
		return &c.Cert, run, nil
	}
	return nil, run, nil
}

// Idle lets go of what was read to be sent.
func (v *view) Idle() { v.cursor.Close() }

// Deliver hands a run in at the pace that the lease allows. What there is no
// room for is refused, which is nobody's fault.
func (v *view) Deliver(cert *envelope.Certificate, run []envelope.Envelope) (reconcile.Delivered, error) {
	if !v.t.leased(v.t.relay.cfg.Now()) {
		return reconcile.Delivered{Refused: len(run)}, nil
	}
	if err := v.t.await(v.ctx, v.t.certificate(envelope.Frame{Cert: cert, Run: run}), len(run)); err != nil {
		return reconcile.Delivered{Refused: len(run)}, nil
	}
	got, err := v.t.deliver(v.ctx, delivery{cert: cert, run: run})
	if errors.Is(err, ErrNoRoom) {
		return reconcile.Delivered{Refused: len(run)}, nil
	}
	return got, err
}
