package gossip

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

const (
	// announceTime is how long a topic that is joined late waits to hear of
	// the peers that are in it: they are grafted at once, not at the next
	// heartbeat. maxEarly is how many own frames wait with it.
	announceTime = 250 * time.Millisecond
	maxEarly     = 256
	// certifyTime is how long the verdict on a frame is put off for the
	// certificate of its chain, and maxWaiting how many frames of a topic may
	// wait so. A hello and the frame behind it are judged side by side; if the
	// second were ignored for being first, nobody further on would see it.
	certifyTime = 500 * time.Millisecond
	maxWaiting  = 64
)

// Topic is this node's part in one topic.
type Topic struct {
	mesh    *Mesh
	id      envelope.TopicID
	name    string
	replica Replica
	queue   *handover

	waiting atomic.Int32 // validators that wait for a certificate

	pubsub *pubsub.Topic
	events *pubsub.TopicEventHandler
	cancel context.CancelFunc // ends the events' goroutine
	once   sync.Once

	mu    sync.Mutex             // guards what follows
	relay pubsub.RelayCancelFunc // nil before the mesh is entered
	early [][]byte               // own frames of that time
}

// open joins the topic in pubsub. Frames are handed over by the validator, so
// there is no subscription: relaying alone takes part in the mesh.
func (t *Topic) open() (err error) {
	m := t.mesh
	late := m.interest.join(t.name)
	if t.pubsub, err = m.pubsub.Join(t.name); err != nil {
		m.interest.leave(t.name)
		return err
	}
	ctx, cancel := context.WithCancel(m.ctx)
	t.cancel = cancel
	defer func() {
		if err != nil {
			t.shut()
		}
	}()
	if t.events, err = t.pubsub.EventHandler(); err != nil {
		return err
	}
	err = m.pubsub.RegisterTopicValidator(t.name, t.validate, pubsub.WithValidatorConcurrency(validatePerTop))
	if err != nil {
		return err
	}
	if len(late) == 0 {
		err = t.enter(ctx)
	}
	if err == nil {
		go t.follow(ctx, late)
	}
	return err
}

// enter takes a place in the mesh and says what was kept for it.
func (t *Topic) enter(ctx context.Context) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if t.relay, err = t.pubsub.Relay(); err != nil {
		return err
	}
	for _, frame := range t.early {
		_ = t.pubsub.Publish(ctx, frame) // reconciliation brings what gossip loses
	}
	t.early = nil
	return nil
}

// follow passes on who takes part, to the end. Whoever joins late hears of the
// others first; nobody waits for that.
func (t *Topic) follow(ctx context.Context, late map[peer.ID]struct{}) {
	if len(late) > 0 {
		t.await(ctx, late)
		if err := t.enter(ctx); err != nil {
			return // closed meanwhile
		}
	}
	t.watch(ctx)
}

// await passes on the peers of a topic joined late.
func (t *Topic) await(ctx context.Context, late map[peer.ID]struct{}) {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	for len(late) > 0 {
		e, err := t.events.NextPeerEvent(ctx)
		if err != nil {
			return
		}
		delete(late, e.Peer)
		t.event(e)
	}
}

func (t *Topic) watch(ctx context.Context) {
	for {
		e, err := t.events.NextPeerEvent(ctx)
		if err != nil {
			return
		}
		t.event(e)
	}
}

func (t *Topic) event(e pubsub.PeerEvent) {
	if e.Type == pubsub.PeerJoin {
		t.queue.peer(e.Peer)
	}
}

// validate is the judge as pubsub asks for it. Own messages come through it
// too, from ourselves.
func (t *Topic) validate(ctx context.Context, from peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	if from == t.mesh.self {
		return pubsub.ValidationAccept
	}
	r := t.mesh.judge.Judge(from, t.id, t.replica, msg.GetData(), time.Now())
	for _, d := range r.Deliver {
		t.queue.frame(d)
	}
	verdict := r.Verdict
	if r.Settled != nil {
		verdict = t.settle(ctx, r.Settled)
	}
	switch verdict {
	case Accept:
		return pubsub.ValidationAccept
	case Reject:
		return pubsub.ValidationReject
	}
	return pubsub.ValidationIgnore
}

// settle waits for the verdict on a parked frame.
func (t *Topic) settle(ctx context.Context, settled <-chan Verdict) Verdict {
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > maxWaiting {
		return Ignore
	}
	patience := time.NewTimer(certifyTime)
	defer patience.Stop()
	select {
	case v := <-settled:
		return v
	case <-patience.C:
	case <-ctx.Done():
	}
	return Ignore
}

// ID is the topic's id.
func (t *Topic) ID() envelope.TopicID { return t.id }

// Peers are the connected peers that take part in the topic.
func (t *Topic) Peers() []peer.ID { return t.pubsub.ListPeers() }

// Publish sends an own frame of the topic to its mesh. It refuses what every
// neighbour would reject for its form; nothing else is judged. It keeps frame.
func (t *Topic) Publish(ctx context.Context, frame []byte) error {
	f, err := envelope.ParseFrame(frame)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if f.Topic() != t.id {
		return fmt.Errorf("publish: %w: frame of another topic", space.ErrMalformed)
	}
	if !t.postpone(frame) {
		if err := t.pubsub.Publish(ctx, frame); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	t.mesh.Counters().Published.Add(1)
	return nil
}

// postpone keeps a frame until the mesh is entered, if it is not yet.
func (t *Topic) postpone(frame []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.relay == nil && len(t.early) < maxEarly {
		t.early = append(t.early, frame)
	}
	return t.relay == nil
}

// Close leaves the topic. It does not wait for a callback under way, so that
// a callback may close its topic.
func (t *Topic) Close() error {
	var err error
	t.once.Do(func() { err = t.shut() })
	return err
}

func (t *Topic) shut() error {
	t.queue.close()
	t.cancel()
	if t.events != nil {
		t.events.Cancel()
	}
	t.mu.Lock() // enter may be under way
	relay := t.relay
	t.mu.Unlock()
	if relay != nil {
		relay()
	}
	_ = t.mesh.pubsub.UnregisterTopicValidator(t.name) // fails only if open did
	err := t.pubsub.Close()
	t.mesh.interest.leave(t.name)
	t.mesh.judge.Forget(t.id)
	t.mesh.remove(t.name)
	if err != nil && t.mesh.ctx.Err() == nil {
		return fmt.Errorf("leave topic: %w", err)
	}
	return nil
}
