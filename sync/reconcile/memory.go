package reconcile

import (
	"slices"
	"sync"

	"github.com/kithnet/kith/space/envelope"
)

// Bounds of a Memory.
const (
	maxBases      = 64      // agreements kept of one topic
	maxRemembered = 1 << 17 // chains in all of them, 40 bytes each
	maxAcquainted = 1_024   // peers with an agreement
)

// Memory is what the replicas of one topic agreed on when they were last found
// equal: the heads of all chains then, by the digest of the set. Replicas that
// were equal at one digest hold the same memory of it, so each states only
// what changed since. It is bounded; what falls out costs bytes and nothing
// else. Sessions of one topic share it; the zero value is empty and ready.
type Memory struct {
	mu     sync.Mutex // guards what follows
	peers  map[string]*base
	recent []*base // the last used last
	chains int
}

// base is one agreement. It never changes.
type base struct {
	count  uint64
	digest [32]byte
	chains []envelope.ChainID // ascending
	seqs   []uint64           // of their heads
}

// Tag is a digest cut to eight bytes.
type Tag [8]byte

func (b *base) tag() Tag { return Tag(b.digest[:8]) }

// with is the last agreement with a peer, nil if there is none.
func (m *Memory) with(peer []byte) *base {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.peers[string(peer)]
	m.touch(b)
	return b
}

// find is an agreement by its tag, whoever it was with.
func (m *Memory) find(t Tag) *base {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.recent {
		if b.tag() == t {
			m.touch(b)
			return b
		}
	}
	return nil
}

// agree notes that a peer was equal at a digest, and reports whether the heads
// of that moment are known already.
func (m *Memory) agree(peer []byte, digest [32]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.recent {
		if b.digest == digest {
			m.meet(peer, b)
			return true
		}
	}
	return false
}

// keep remembers an agreement and forgets the oldest ones beyond the bounds.
func (m *Memory) keep(peer []byte, b *base) {
	if len(b.chains) > maxRemembered {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recent = append(m.recent, b)
	m.chains += len(b.chains)
	m.meet(peer, b)
	for len(m.recent) > maxBases || m.chains > maxRemembered {
		old := m.recent[0]
		m.recent[0] = nil
		m.recent = m.recent[1:]
		m.chains -= len(old.chains)
		for p, of := range m.peers {
			if of == old {
				delete(m.peers, p)
			}
		}
	}
}

// meet makes b the last agreement with a peer. mu is held.
func (m *Memory) meet(peer []byte, b *base) {
	if m.peers == nil {
		m.peers = make(map[string]*base)
	}
	if _, known := m.peers[string(peer)]; !known && len(m.peers) >= maxAcquainted {
		for p := range m.peers { // any one: it costs a longer answer once
			delete(m.peers, p)
			break
		}
	}
	m.peers[string(peer)] = b
	m.touch(b)
}

// touch makes b the last used. mu is held.
func (m *Memory) touch(b *base) {
	if i := slices.Index(m.recent, b); b != nil && i >= 0 {
		m.recent = append(slices.Delete(m.recent, i, i+1), b)
	}
}

// has reports whether a chain is one of the base.
func (b *base) has(c envelope.ChainID) bool {
	_, ok := slices.BinarySearchFunc(b.chains, c, compareChains)
	return ok
}
