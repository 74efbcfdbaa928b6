package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

const (
	keptStreams = 512             // sync streams that stay open between rounds
	streamIdle  = 5 * time.Minute // without a round they end
	// circuitRun is how many bytes go in one run over a connection through a
	// relay. Other people's relays cut it after 128 KiB, which is one run of the
	// usual size and then nothing of it has arrived.
	circuitRun = 16 << 10
	// circuitChains is how many chains a pass names there: as many as bring
	// about as much as a connection carries.
	circuitChains = 128
)

// talks is what lasts between two reconciliations with a peer: the
// authenticated stream, on which either side may begin a round, and for each
// topic the memory of what was agreed on. A leaf, safe for concurrent use.
type talks struct {
	mu   sync.Mutex // guards what follows
	open map[talk]kept
	past map[envelope.TopicID]*shared
}

// shared is what all streams about a topic have in common.
type shared struct {
	memory reconcile.Memory
	board  *reconcile.Board
}

// talk names a stream: one topic with one peer.
type talk struct {
	peer  peer.ID
	topic envelope.TopicID
}

type kept struct {
	*reconcile.Live
	opener peer.ID
	conn   network.Conn
}

// of is the stream of a talk, nil if none is open.
func (t *talks) of(k talk) *reconcile.Live {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[k].Live
}

// offer notes a stream of ours before its first word. If there is one by now,
// which the peer opened meanwhile, that is the answer: nobody heard of ours.
func (t *talks) offer(k talk, l *reconcile.Live, self peer.ID, conn network.Conn) (rival *reconcile.Live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.open[k]; ok {
		return old.Live
	}
	t.set(k, kept{l, self, conn})
	return nil
}

// admit notes a stream that the peer opened, at its first word, so that rounds
// begun on either side meet on one. Of two that were opened at once both sides go
// on with the one whose opener has the lower peer id. If that is another than l,
// it is not ok; if it is l, ours is the loser, which is to be closed. One on
// another connection gives way: its peer may have crashed and come back.
func (t *talks) admit(k talk, l *reconcile.Live, conn network.Conn) (loser *reconcile.Live, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.open[k]
	order := bytes.Compare([]byte(old.opener), []byte(k.peer))
	if known && old.conn == conn && order <= 0 {
		return nil, false
	}
	t.set(k, kept{l, k.peer, conn})
	if known && order > 0 {
		return old.Live, true
	}
	return nil, true
}

func (t *talks) set(k talk, s kept) {
	if t.open == nil {
		t.open = map[talk]kept{}
	}
	t.open[k] = s
}

// stays reports whether a stream is to stay open after a round.
func (t *talks) stays(k talk, l *reconcile.Live) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[k].Live == l && len(t.open) <= keptStreams
}

// ended forgets a stream.
func (t *talks) ended(k talk, l *reconcile.Live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[k].Live == l {
		delete(t.open, k)
	}
}

// about is what is shared by the streams about a topic. Of topics that are no
// longer here it is forgotten.
func (t *talks) about(topic envelope.TopicID, here func(envelope.TopicID) bool) *shared {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.past[topic]
	if s != nil {
		return s
	}
	for old := range t.past {
		if !here(old) {
			delete(t.past, old)
		}
	}
	if t.past == nil {
		t.past = map[envelope.TopicID]*shared{}
	}
	s = &shared{board: reconcile.NewBoard()}
	t.past[topic] = s
	return s
}

// forget drops what was agreed on in a topic.
func (t *talks) forget(topic envelope.TopicID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.past, topic)
}

// conversation is one sync stream about one epoch of a space.
type conversation struct {
	n    *Node
	a    *actor // nil: the topic is not known here
	e    *epoch
	with peer.ID
	s    network.Stream
	live *reconcile.Live
	r    *replica
	once bool // no further round is wanted
}

// converse makes a conversation of a stream.
func (n *Node) converse(a *actor, e *epoch, s network.Stream, cfg reconcile.Config) (*conversation, error) {
	c := &conversation{n: n, a: a, e: e, with: s.Conn().RemotePeer(), s: s}
	c.r, _ = cfg.Replica.(*replica)
	if s.Conn().Stat().Limited {
		cfg.MaxRun, cfg.MaxNamed = circuitRun, circuitChains
	}
	ses, err := reconcile.New(cfg)
	if err != nil {
		return nil, err
	}
	paced := n.rates.pace(s)
	if cfg.Role == reconcile.Responder {
		if err := paced.opened(); err != nil {
			return nil, err
		}
	}
	c.live = reconcile.NewLive(paced, ses, c.moved, c.told)
	return c, nil
}

// run drives the conversation until its stream ends.
func (c *conversation) run(ctx context.Context) error {
	defer c.s.Close()
	err := c.live.Run(ctx)
	if c.a != nil {
		c.n.talks.ended(c.talk(), c.live)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	c.s.Reset()
	c.n.blame(c.with, err)
	return err
}

func (c *conversation) talk() talk { return talk{c.with, c.e.id} }

// moved sets how long the stream may be silent.
func (c *conversation) moved(busy bool) {
	limit := streamIdle
	if busy {
		limit = syncDeadline
	}
	if err := c.s.SetDeadline(time.Now().Add(limit)); err != nil {
		c.n.log.Debug("deadline of a sync stream", "peer", c.with, "err", err)
	}
}

// told takes the outcome of a round and decides whether the stream stays.
func (c *conversation) told(res reconcile.Result) {
	if c.a == nil {
		return
	}
	c.n.outcome(c.a, c.e, c.with, res)
	if c.r != nil {
		if res.Past == reconcile.PastEqual {
			c.a.sharedPast(c.with, c.r.past)
		}
		c.r.past = nil
	}
	if c.once || !c.n.talks.stays(c.talk(), c.live) {
		if err := c.s.CloseWrite(); err != nil {
			c.n.log.Debug("close a sync stream", "peer", c.with, "err", err)
		}
	}
}

// lead leads one round about one epoch, on the stream that is open or on a new
// one, which stays open unless once.
func (n *Node) lead(ctx context.Context, a *actor, ep *epoch, with peer.ID, once bool) (reconcile.Result, error) {
	k := talk{with, ep.id}
	if l := n.talks.of(k); l != nil {
		res, err := l.Lead(ctx)
		if err == nil {
			return res, nil
		}
		n.talks.ended(k, l)
		if ctx.Err() != nil { // it hangs in a round
			l.Close()
			return res, err
		}
	}
	s, err := n.host.NewStream(overCircuit(ctx, "sync"), with, syncProtocol)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("sync with %s: %w", with, err)
	}
	cfg := n.sessionConfig(n.ctx, a, ep, with)
	cfg.Role, cfg.Topic = reconcile.Initiator, ep.id
	c, err := n.converse(a, ep, s, cfg)
	if err != nil {
		s.Reset()
		return reconcile.Result{}, err
	}
	c.once = once
	if l := n.talks.offer(k, c.live, n.host.ID(), s.Conn()); l != nil {
		s.Reset()
		return l.Lead(ctx)
	}
	n.spawn(func() {
		if err := c.run(n.ctx); err != nil {
			n.log.Debug("sync stream ended", "peer", with, "space", fingerprint(a.sid), "epoch", ep.n, "err", err)
		}
	})
	res, err := c.live.Lead(ctx)
	if err == nil {
		return res, nil
	}
	c.live.Close()
	if l := n.talks.of(k); l != nil && l != c.live && ctx.Err() == nil {
		return l.Lead(ctx) // the peer opened one at the same time, which goes on
	}
	n.stats.SyncFailed.Add(1)
	return res, err
}

// serveSync answers a peer that opens a stream.
func (n *Node) serveSync(s network.Stream) {
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
	cfg := n.sessionConfig(n.ctx, a, ep, from)
	cfg.Role, cfg.Opening = reconcile.Responder, open
	c, err := n.converse(a, ep, s, cfg)
	if err != nil {
		s.Reset()
		return
	}
	if a != nil {
		loser, ok := n.talks.admit(c.talk(), c.live, s.Conn())
		if !ok {
			s.Reset()
			return
		}
		if loser != nil {
			loser.Close()
		}
	}
	if err := c.run(n.ctx); err != nil {
		if a != nil {
			n.stats.SyncFailed.Add(1)
		}
		n.log.Debug("sync refused or broken", "peer", from, "err", err)
	}
}
