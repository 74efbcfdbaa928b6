package gossip

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/kithnet/kith/space/envelope"
)

// Limits of the protocol (docs/protocol.md, "Validator").
const (
	// maxAhead is how far from now a certificate may run out.
	maxAhead = 7 * 24 * time.Hour
	// ChainsPerHour is how many chains of one writer key gossip spreads, and
	// ChainsAtOnce how many at once. Reconciliation takes the others: a rule
	// by which a replica refused them would depend on which came first, and
	// replicas would part.
	ChainsPerHour = 60
	ChainsAtOnce  = 120
	// burst is how many seconds' worth of its quota a writer key may send at once.
	burst = 10
)

// Tuning of what the Judge remembers; all of it is bounded.
const (
	maxNeighbours = 4096
	maxVolumes    = 16384
	maxWriters    = 65536
	maxMemories   = 8192
	// rejectCost is what a rejected frame takes from its neighbour's bucket on
	// top of what every frame takes: a forger soon is not listened to.
	rejectCost = 100
)

// Limits bound what is listened to. Zero fields take the value documented.
type Limits struct {
	// Frames a second from one neighbour, and twice that at once: 10,000.
	Frames float64
	// Bytes a second from one neighbour in one topic, and twice that at once:
	// 16 MiB.
	Bytes float64
	// Classes are the envelopes a second that a writer key of each quota class
	// may send, and ten times that at once: 1, 100, 1,000, 10,000.
	Classes [envelope.MaxClass + 1]float64
}

// Class is the rate of a quota class.
func (l Limits) Class(class uint16) float64 { return l.withDefaults().Classes[class] }

func (l Limits) withDefaults() Limits {
	if l.Frames == 0 {
		l.Frames = 10_000
	}
	if l.Bytes == 0 {
		l.Bytes = 16 << 20
	}
	for class, v := range [...]float64{1, 100, 1_000, 10_000} {
		if l.Classes[class] == 0 {
			l.Classes[class] = v
		}
	}
	return l
}

// Replica is what the node holds of one topic. It is asked from many
// goroutines at once.
type Replica interface {
	Chain(envelope.ChainID) (envelope.Chain, bool)
	// IDAt is the id of an accepted envelope.
	IDAt(envelope.ChainID, uint64) (envelope.ID, bool)
	// Fork is where a chain is known to have forked.
	Fork(envelope.ChainID) (uint64, bool)
}

// Judge gives the verdicts. It knows nothing of pubsub, and the time is told
// to it. It may be asked from many goroutines at once.
type Judge struct {
	Counters Counters
	limits   Limits
	conduct  *conduct

	// mu guards what follows.
	mu         sync.Mutex
	neighbours *simplelru.LRU[peer.ID, *rate.Limiter]
	volumes    *simplelru.LRU[place, *rate.Limiter]
	writers    *simplelru.LRU[[32]byte, *rate.Limiter]
	openers    *simplelru.LRU[[32]byte, *rate.Limiter]
	memories   *simplelru.LRU[chainKey, memory]
	parking    parking
}

// place is a neighbour in a topic.
type place struct {
	from  peer.ID
	topic envelope.TopicID
}

type chainKey struct {
	topic envelope.TopicID
	chain envelope.ChainID
}

// memory is what was accepted of a chain and may not have reached the replica
// yet: its certificate and the end of the gapless prefix.
type memory struct {
	cert envelope.Certificate
	head envelope.Head
}

// NewJudge makes a Judge.
func NewJudge(l Limits) *Judge {
	return &Judge{
		limits:     l.withDefaults(),
		conduct:    newConduct(nil),
		neighbours: newLRU[peer.ID, *rate.Limiter](maxNeighbours),
		volumes:    newLRU[place, *rate.Limiter](maxVolumes),
		writers:    newLRU[[32]byte, *rate.Limiter](maxWriters),
		openers:    newLRU[[32]byte, *rate.Limiter](maxWriters),
		memories:   newLRU[chainKey, memory](maxMemories),
	}
}

func newLRU[K comparable, V any](size int) *simplelru.LRU[K, V] {
	l, err := simplelru.NewLRU[K, V](size, nil)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	return l
}

// Judge judges the bytes that a neighbour sent to a topic, of which replica is
// what is held here, nil if nothing is. It keeps data.
func (j *Judge) Judge(from peer.ID, topic envelope.TopicID, replica Replica, data []byte, now time.Time) Ruling {
	ruling := j.judge(from, topic, replica, data, now)
	j.Counters.ByReason[ruling.Reason].Add(1)
	if ruling.Verdict == Reject {
		j.blame(from, now)
	}
	return ruling
}

func (j *Judge) judge(from peer.ID, topic envelope.TopicID, replica Replica, data []byte, now time.Time) Ruling {
	f, err := envelope.ParseFrame(data)
	if err != nil || f.Topic() != topic {
		return Ruling{Verdict: Reject, Reason: Malformed}
	}
	if g, ok := replica.(Gate); replica == nil || ok && g.Closed() {
		return Ruling{Reason: NotServed}
	}
	if f.Fork != nil {
		return j.proof(Delivery{from, f}, replica, len(data), now)
	}
	if f.Last().Type().Ephemeral() {
		return Ruling{Reason: Unsupported}
	}
	v := j.view(topic, replica, f.Chain())
	if v.holds(f.Last()) {
		return Ruling{Reason: Duplicate}
	}
	if !j.admit(place{from, topic}, len(data), now) {
		return Ruling{Reason: Throttled}
	}
	if v.cert == nil && f.Cert == nil {
		settled := j.park(place{from, topic}, f, len(data), now)
		if settled == nil {
			return Ruling{Reason: Unparked}
		}
		return Ruling{Reason: Parked, Settled: settled}
	}
	if f.Cert != nil && (v.cert == nil || f.Cert.ID() != v.cert.ID()) {
		if f.Cert.Vouch(topic, f.Chain()) != nil {
			return Ruling{Verdict: Reject, Reason: BadCertificate}
		}
		if tooEarly(f.Cert, now) {
			return Ruling{Reason: EarlyIssue}
		}
	}
	ruling := j.authentic(v, Delivery{from, f}, now)
	if ruling.Verdict == Accept {
		ruling.Deliver = append(ruling.Deliver, j.release(topic, replica, f.Chain(), now)...)
	}
	return ruling
}

// proof judges the proof of a fork. Its writer pays for it, so that nobody
// floods a topic with proofs about a chain that forked often. That the
// certificate has run out does not matter: the proof is about what is stored.
func (j *Judge) proof(d Delivery, replica Replica, size int, now time.Time) Ruling {
	fork := d.Frame.Fork
	if at, ok := replica.Fork(fork.Chain()); ok && at <= fork.Seq() {
		return Ruling{Reason: Duplicate}
	}
	if !j.admit(place{d.From, fork.Topic()}, size, now) {
		return Ruling{Reason: Throttled}
	}
	if !d.Frame.Verify() {
		return Ruling{Verdict: Reject, Reason: Forged}
	}
	if tooEarly(&fork.Cert, now) {
		return Ruling{Reason: EarlyIssue}
	}
	if !j.charge(&fork.Cert, 1, now) {
		return Ruling{Reason: OverQuota}
	}
	return Ruling{Verdict: Accept, Reason: Proof, Deliver: []Delivery{d}}
}

func tooEarly(c *envelope.Certificate, now time.Time) bool {
	return c.NotAfter > uint64(max(0, now.Add(maxAhead).Unix()))
}

// authentic takes steps 6 to 8 with a frame of a certified chain.
func (j *Judge) authentic(v view, d Delivery, now time.Time) Ruling {
	if !d.Frame.Verify() {
		return Ruling{Verdict: Reject, Reason: Forged}
	}
	cert := v.cert
	if cert == nil {
		cert = d.Frame.Cert
	}
	if !j.charge(cert, v.fresh(d.Frame.Run), now) {
		return Ruling{Reason: OverQuota}
	}
	if uint64(max(0, now.Unix())) > cert.NotAfter {
		return Ruling{Reason: Expired}
	}
	reason := v.place(d.Frame.Run)
	if reason == Fresh && !v.begun && !j.begin(cert, now) {
		reason = ManyChains
	}
	switch reason {
	case Fresh:
		j.remember(v, cert, d.Frame.Last().Head())
		return Ruling{Verdict: Accept, Reason: reason, Deliver: []Delivery{d}}
	case Ahead:
		return Ruling{Verdict: Accept, Reason: reason, Deliver: []Delivery{d}}
	case ManyChains:
		return Ruling{Reason: reason}
	case TooFar, Forked:
		if v.beyond(d.Frame.Run) { // known: no hint needed
			return Ruling{Reason: reason}
		}
		return Ruling{Reason: reason, Deliver: []Delivery{d}}
	default:
		panic("gossip: no verdict for " + reason.String())
	}
}

// admit takes a frame's cost from its neighbour's buckets.
func (j *Judge) admit(p place, size int, now time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sweep(now)
	return bucket(j.neighbours, p.from, j.limits.Frames, 2).AllowN(now, 1) &&
		bucket(j.volumes, p, j.limits.Bytes, 2).AllowN(now, size)
}

// blame makes a neighbour pay for a rejected frame.
func (j *Judge) blame(from peer.ID, now time.Time) {
	j.conduct.blame(from, 1, now)
	j.mu.Lock()
	defer j.mu.Unlock()
	b := bucket(j.neighbours, from, j.limits.Frames, 2)
	b.ReserveN(now, min(rejectCost, b.Burst()))
}

// charge takes n envelopes from the quota of the certificate's writer key.
func (j *Judge) charge(c *envelope.Certificate, n int, now time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bucket(j.writers, c.WriterKey(), j.limits.Classes[c.Class], burst).AllowN(now, n)
}

// begin takes a chain from what a writer key may begin.
func (j *Judge) begin(c *envelope.Certificate, now time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, ok := j.openers.Get(c.WriterKey())
	if !ok {
		b = rate.NewLimiter(rate.Limit(ChainsPerHour/time.Hour.Seconds()), ChainsAtOnce)
		j.openers.Add(c.WriterKey(), b)
	}
	return b.AllowN(now, 1)
}

// bucket is the token bucket of k: rate a second, and seconds' worth at once.
func bucket[K comparable](l *simplelru.LRU[K, *rate.Limiter], k K, perSecond float64, seconds int) *rate.Limiter {
	b, ok := l.Get(k)
	if !ok {
		b = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*float64(seconds))))
		l.Add(k, b)
	}
	return b
}

// remember notes that a chain's prefix now ends at head.
func (j *Judge) remember(v view, c *envelope.Certificate, head envelope.Head) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if m, ok := j.memories.Get(v.key); ok && m.head.Seq >= head.Seq {
		return
	}
	j.memories.Add(v.key, memory{cert: *c, head: head})
}

// Forget drops what is remembered of a topic.
func (j *Judge) Forget(topic envelope.TopicID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, k := range j.memories.Keys() {
		if k.topic == topic {
			j.memories.Remove(k)
		}
	}
	j.parking.forget(topic)
}
