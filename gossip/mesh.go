package gossip

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

var (
	// ErrTooManyTopics: the host serves as many topics as its peers can be told of.
	ErrTooManyTopics = errors.New("too many topics on this host")
	// ErrJoined: the topic is joined already.
	ErrJoined = errors.New("topic is joined already")
	// ErrClosed: the mesh or the topic is closed.
	ErrClosed = errors.New("gossip is closed")
)

// Tuning. pubsub's own queues hold 32 and drop in silence beyond.
const (
	maxMessage      = 1 << 20
	validateQueue   = 4096
	outboundQueue   = 1024
	validatePerTop  = 256 // frames of one topic judged at once
	defaultTopics   = 8000
	defaultDegree   = 4
	defaultHandover = 1024
)

// Config tunes a Mesh; zero fields take the value documented.
type Config struct {
	// MaxTopics is the most topics joined at once: 8,000. Beyond some 14,000
	// the packet that greets a new peer no longer fits a message, and gossip
	// with that peer stops in silence.
	MaxTopics int
	// QueueSize is how many frames of a topic wait for its receiver: 1,024.
	QueueSize int
	// D is how many neighbours a topic's mesh aims at: 4, which suits spaces
	// of up to some dozens of nodes; larger ones want 6.
	D int
	// Limits bound what is listened to.
	Limits Limits
	// Exempt are addresses at which any number of peers may be: loopback if
	// it is nil.
	Exempt []netip.Prefix
	// Demoted, which may be nil, is told of each peer that gossip stops
	// listening to for what it did. It must not block.
	Demoted func(peer.ID)

	options []pubsub.Option // of tests, applied last
}

func (c Config) withDefaults() Config {
	if c.MaxTopics == 0 {
		c.MaxTopics = defaultTopics
	}
	if c.QueueSize == 0 {
		c.QueueSize = defaultHandover
	}
	if c.D == 0 {
		c.D = defaultDegree
	}
	if c.Exempt == nil {
		c.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	return c
}

func (c Config) validate() error {
	if c.MaxTopics < 0 || c.QueueSize < 0 || c.D < 3 {
		return fmt.Errorf("gossip: config: %d topics, queue of %d, degree %d", c.MaxTopics, c.QueueSize, c.D)
	}
	return nil
}

// params are gossipsub's, around the degree.
func (c Config) params() pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D, p.Dlo, p.Dhi, p.Dlazy = c.D, c.D-1, 2*c.D, c.D
	p.Dscore = c.D - 1
	p.Dout = min(pubsub.GossipSubDout, c.D/2-1)
	return p
}

// Mesh is gossip on one host.
type Mesh struct {
	config   Config
	judge    *Judge
	interest *interest
	pubsub   *pubsub.PubSub
	self     peer.ID
	ctx      context.Context
	cancel   context.CancelFunc

	// mu guards what follows.
	mu     sync.Mutex
	topics map[string]*Topic
	closed bool
}

// New starts gossip on a host. It ends with ctx or with Close; the host stays
// the caller's.
func New(ctx context.Context, h host.Host, c Config) (*Mesh, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	m := &Mesh{config: c, judge: NewJudge(c.Limits), self: h.ID(), topics: make(map[string]*Topic)}
	m.judge.conduct.demoted = m.demoted(c.Demoted)
	m.interest = newInterest(&m.judge.Counters.Subscribes)
	m.ctx, m.cancel = context.WithCancel(ctx)
	ps, err := pubsub.NewGossipSub(m.ctx, tapped{h, m.interest, m.judge.conduct}, append([]pubsub.Option{
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithMaxMessageSize(maxMessage),
		pubsub.WithValidateQueueSize(validateQueue),
		pubsub.WithPeerOutboundQueueSize(outboundQueue),
		pubsub.WithSubscriptionFilter(m.interest),
		pubsub.WithGossipSubParams(c.params()),
		pubsub.WithFloodPublish(false),
		pubsub.WithPeerExchange(false),
		pubsub.WithPeerGater(pubsub.DefaultPeerGaterParams()),
		pubsub.WithPeerScore(c.scoring(m.score)),
		pubsub.WithRawTracer(tracer{m}),
	}, c.options...)...)
	if err != nil {
		m.cancel()
		return nil, fmt.Errorf("start pubsub: %w", err)
	}
	m.pubsub = ps
	return m, nil
}

// score is a peer's, without what pubsub adds to it.
func (m *Mesh) score(p peer.ID) float64 { return m.judge.conduct.score(p, time.Now()) }

// demoted counts, and passes on.
func (m *Mesh) demoted(tell func(peer.ID)) func(peer.ID) {
	return func(p peer.ID) {
		m.Counters().Graylisted.Add(1)
		if tell != nil {
			tell(p)
		}
	}
}

// messageID is the hash of the whole frame. pubsub marks an id as seen before
// it asks for a verdict: an id that left anything out would let a neighbour
// burn it with a bad signature or certificate.
func messageID(m *pb.Message) string {
	id := sha256.Sum256(m.GetData())
	return string(id[:])
}

// Counters count what became of frames.
func (m *Mesh) Counters() *Counters { return &m.judge.Counters }

// Topics is how many topics are joined.
func (m *Mesh) Topics() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.topics)
}

// topic is nil if it is not joined.
func (m *Mesh) topic(name string) *Topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topics[name]
}

// reserve takes a place for a topic.
func (m *Mesh) reserve(t *Topic) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case m.topics[t.name] != nil:
		return ErrJoined
	case len(m.topics) >= m.config.MaxTopics:
		return ErrTooManyTopics
	}
	m.topics[t.name] = t
	return nil
}

// remove gives a topic's place back.
func (m *Mesh) remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.topics, name)
}

// Join begins to take part in a topic. deliver gets what is accepted, and
// frames that only hint that it is time to reconcile; joined, which may be
// nil, gets each peer that takes part too: when it is known to do so, and
// again when the mesh forms a link with it. What either side wrote before that
// may have reached nobody, so each call is a reason to reconcile. Both may be
// called before Join returns.
func (m *Mesh) Join(topic envelope.TopicID, replica Replica, deliver func(peer.ID, envelope.Frame), joined func(peer.ID)) (*Topic, error) {
	if joined == nil {
		joined = func(peer.ID) {}
	}
	t := &Topic{mesh: m, id: topic, name: topic.Name(), replica: replica}
	t.queue = &handover{deliver: deliver, joined: joined, limit: m.config.QueueSize, counters: m.Counters()}
	if err := m.reserve(t); err != nil {
		return nil, fmt.Errorf("join topic: %w", err)
	}
	if err := t.open(); err != nil {
		t.queue.close()
		m.remove(t.name)
		return nil, fmt.Errorf("join topic: %w", err)
	}
	return t, nil
}

// Close leaves all topics and ends gossip.
func (m *Mesh) Close() error {
	m.mu.Lock()
	m.closed = true
	topics := make([]*Topic, 0, len(m.topics))
	for _, t := range m.topics {
		topics = append(topics, t)
	}
	m.mu.Unlock()
	for _, t := range topics {
		t.Close()
	}
	m.cancel()
	return nil
}
