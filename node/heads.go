package node

import (
	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space/envelope"
)

// heads shows one topic to the gossip judge.
type heads struct {
	a  *actor
	id envelope.TopicID
}

var _ gossip.Replica = (*heads)(nil)

func (h *heads) Chain(id envelope.ChainID) (envelope.Chain, bool) {
	h.a.mu.RLock()
	defer h.a.mu.RUnlock()
	e := h.a.epochs[h.id]
	if e == nil {
		return envelope.Chain{}, false
	}
	return e.topic.Chain(id)
}

func (h *heads) Fork(id envelope.ChainID) (uint64, bool) {
	h.a.mu.RLock()
	defer h.a.mu.RUnlock()
	if e := h.a.epochs[h.id]; e != nil {
		return e.topic.Fork(id)
	}
	return 0, false
}

func (h *heads) IDAt(chain envelope.ChainID, seq uint64) (envelope.ID, bool) {
	return ids{h.a.store, h.id}.IDAt(chain, seq)
}

// ids answers for accepted ids out of the store.
type ids struct {
	store *store.Space
	topic envelope.TopicID
}

func (x ids) IDAt(chain envelope.ChainID, seq uint64) (envelope.ID, bool) {
	id, ok, err := x.store.IDAt(x.topic, chain, seq)
	return id, ok && err == nil
}
