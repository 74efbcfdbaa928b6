package gossip

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

// Gate is a Replica that at times takes nothing more: then frames are ignored
// like those of a topic that is not served, before anything is charged.
type Gate interface{ Closed() bool }

// Shards are meshes on hosts of their own that together serve more topics than
// one of them may. Whoever wants a topic has to be connected to the host that
// serves it: Join says which, and that is to be passed on.
type Shards struct{ meshes []*Mesh }

// NewShards groups meshes. There is at least one; they stay the caller's.
func NewShards(meshes []*Mesh) *Shards { return &Shards{meshes} }

// Len is how many meshes there are.
func (s *Shards) Len() int { return len(s.meshes) }

// Join joins a topic on the mesh preferred, or, where that is full or there is
// none of that number, on the one with the fewest topics. It says on which.
// ErrTooManyTopics: all are full.
func (s *Shards) Join(preferred int, topic envelope.TopicID, r Replica, deliver func(peer.ID, envelope.Frame), joined func(peer.ID)) (int, *Topic, error) {
	if preferred >= 0 && preferred < len(s.meshes) {
		t, err := s.meshes[preferred].Join(topic, r, deliver, joined)
		if !errors.Is(err, ErrTooManyTopics) {
			return preferred, t, err
		}
	}
	at := s.emptiest()
	t, err := s.meshes[at].Join(topic, r, deliver, joined)
	return at, t, err
}

// emptiest is the mesh with the fewest topics.
func (s *Shards) emptiest() (at int) {
	fewest := -1
	for i, m := range s.meshes {
		if n := m.Topics(); fewest < 0 || n < fewest {
			at, fewest = i, n
		}
	}
	return at
}

// Topics is how many topics are joined in all, and Room how many more may be.
func (s *Shards) Topics() (n int) {
	for _, m := range s.meshes {
		n += m.Topics()
	}
	return n
}

// Room is how many more topics may be joined.
func (s *Shards) Room() (n int) {
	for _, m := range s.meshes {
		n += m.config.MaxTopics - m.Topics()
	}
	return n
}

// Counters sums what the meshes counted, under the names of Counters.All.
func (s *Shards) Counters() map[string]uint64 {
	sum := map[string]uint64{}
	for _, m := range s.meshes {
		for name, v := range m.Counters().All() {
			sum[name] += v
		}
	}
	return sum
}

// Close closes all meshes.
func (s *Shards) Close() error {
	var errs []error
	for i, m := range s.meshes {
		if err := m.Close(); err != nil {
			errs = append(errs, fmt.Errorf("shard %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}
