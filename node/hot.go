package node

import (
	"sync"
	"time"
)

// hot remembers when each space was last written to or moved by others. A host
// of gossip serves so many topics; of more spaces than that, those that are in
// use are heard, and the cold ones are kept by reconciliation alone, which
// loses nothing and is slower. A leaf.
type hot struct {
	mu   sync.Mutex // guards used
	used map[[32]byte]time.Time
}

// touch notes that a space is in use.
func (h *hot) touch(sid [32]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.used == nil {
		h.used = map[[32]byte]time.Time{}
	}
	h.used[sid] = time.Now()
}

func (h *hot) at(sid [32]byte) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used[sid]
}

// warm notes that a space is in use, and hears it if it was not heard.
func (n *Node) warm(sid [32]byte) {
	n.hot.touch(sid)
	n.mu.RLock()
	r := n.spaces[sid]
	heard := r == nil || len(r.topics) > 0
	n.mu.RUnlock()
	if heard || !r.takesPart() {
		return
	}
	if e := r.current(); e != nil {
		n.spawn(func() {
			if err := n.hear(r, e); err != nil {
				n.log.Error("hear a space again", "space", fingerprint(sid), "err", err)
			}
		})
	}
}

// coldFor is how much longer ago a space must have been in use to make room: of
// more spaces than fit, all in use, none drives another out and back.
const coldFor = time.Minute

// makeRoom leaves the topics of the space that was in use longest ago, if that
// is long before this one. A space that was not used since the start makes
// nobody leave.
func (n *Node) makeRoom(wants *running) bool {
	mine := n.hot.at(wants.sid)
	if mine.IsZero() {
		return false
	}
	var coldest *running
	n.mu.RLock()
	for _, r := range n.spaces {
		if r == wants || len(r.topics) == 0 {
			continue
		}
		if at := n.hot.at(r.sid); mine.Sub(at) > coldFor && (coldest == nil || at.Before(n.hot.at(coldest.sid))) {
			coldest = r
		}
	}
	n.mu.RUnlock()
	if coldest == nil {
		return false
	}
	n.log.Debug("a cold space makes room on gossip", "cold", fingerprint(coldest.sid), "hot", fingerprint(wants.sid))
	n.deafen(coldest)
	return true
}
