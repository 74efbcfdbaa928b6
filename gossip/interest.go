package gossip

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxSubscriptions is the most subscriptions one message may announce.
	maxSubscriptions = 10_000
	// maxNoted and maxNotedAll bound the announcements noted for topics that
	// are not joined: of one peer, and of all.
	maxNoted    = 10_000
	maxNotedAll = 1 << 18
)

// interest is the subscription filter: peers' subscriptions count only for
// topics joined here. pubsub keeps what it is told of a topic for ever, so it
// is not told of others.
//
// But a peer announces a topic once, and often before this node joins it: to a
// newcomer all members are such peers. pubsub would never learn of them, and
// publish to nobody. So the filter notes the rest, a keyed hash each, and when
// a topic is joined puts the subscriptions noted for it into the peers'
// streams, as if they came now.
type interest struct {
	refused *atomic.Uint64
	seed    maphash.Seed

	// mu guards what follows.
	mu    sync.Mutex
	own   map[string]struct{}
	peers map[peer.ID]*noted
	total int
}

// noted is what a peer has announced on its current stream.
type noted struct {
	stream *tap
	topics map[uint64]struct{}
}

var _ pubsub.SubscriptionFilter = (*interest)(nil)

func newInterest(refused *atomic.Uint64) *interest {
	return &interest{
		refused: refused, seed: maphash.MakeSeed(),
		own: make(map[string]struct{}), peers: make(map[peer.ID]*noted),
	}
}

// CanSubscribe is true for topics joined here.
func (i *interest) CanSubscribe(topic string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.own[topic]
	return ok
}

// FilterIncomingSubscriptions passes on subscriptions to joined topics, and
// all ends of subscriptions; the rest is noted.
func (i *interest) FilterIncomingSubscriptions(from peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	if len(subs) > maxSubscriptions {
		i.refused.Add(1)
		return nil, pubsub.ErrTooManySubscriptions
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	var pass []*pb.RPC_SubOpts
	for _, s := range subs {
		topic := s.GetTopicid()
		if _, ok := i.own[topic]; ok {
			pass = append(pass, s)
		} else if s.GetSubscribe() {
			i.note(from, topic)
		} else {
			i.unnote(from, topic)
			pass = append(pass, s)
		}
	}
	return pass, nil
}

// note and unnote need the lock.
func (i *interest) note(p peer.ID, topic string) {
	n := i.peers[p]
	if n == nil || len(n.topics) >= maxNoted || i.total >= maxNotedAll {
		return
	}
	h := maphash.String(i.seed, topic)
	if _, ok := n.topics[h]; !ok {
		n.topics[h] = struct{}{}
		i.total++
	}
}

func (i *interest) unnote(p peer.ID, topic string) bool {
	n := i.peers[p]
	if n == nil {
		return false
	}
	h := maphash.String(i.seed, topic)
	_, ok := n.topics[h]
	if ok {
		delete(n.topics, h)
		i.total--
	}
	return ok
}

// join adds a topic of our own and returns the peers from which it was noted,
// whose subscriptions are now on their way to pubsub.
func (i *interest) join(topic string) map[peer.ID]struct{} {
	i.mu.Lock()
	i.own[topic] = struct{}{}
	late := make(map[peer.ID]struct{})
	var streams []*tap
	for p, n := range i.peers {
		if i.unnote(p, topic) {
			late[p] = struct{}{}
			streams = append(streams, n.stream)
		}
	}
	i.mu.Unlock()
	for _, s := range streams {
		s.subscribe(topic)
	}
	return late
}

// leave drops a topic. Of the peers that were in it pubsub keeps knowing.
func (i *interest) leave(topic string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.own, topic)
}

// opened and closed follow the streams on which peers announce. A new stream
// begins with all subscriptions of its peer.
func (i *interest) opened(p peer.ID, s *tap) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(p)
	i.peers[p] = &noted{stream: s, topics: make(map[uint64]struct{})}
}

func (i *interest) closed(p peer.ID, s *tap) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := i.peers[p]; n != nil && n.stream == s {
		i.drop(p)
	}
}

func (i *interest) drop(p peer.ID) {
	if n := i.peers[p]; n != nil {
		i.total -= len(n.topics)
		delete(i.peers, p)
	}
}
