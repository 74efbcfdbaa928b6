package gossip

import "github.com/kithnet/kith/space/envelope"

// view is a chain as it stands here: in the replica, or a little further if
// frames that were accepted are still on their way there.
type view struct {
	key     chainKey
	replica Replica
	cert    *envelope.Certificate // nil: not certified
	head    envelope.Head
	begun   bool // head means something
	forked  bool
	fork    uint64 // if forked: the prefix ends below
}

func (j *Judge) view(topic envelope.TopicID, replica Replica, chain envelope.ChainID) view {
	v := view{key: chainKey{topic, chain}, replica: replica}
	if c, ok := replica.Chain(chain); ok {
		v.cert, v.head, v.begun = &c.Cert, c.Head, true
	}
	v.fork, v.forked = replica.Fork(chain)
	j.mu.Lock()
	m, ok := j.memories.Get(v.key)
	j.mu.Unlock()
	if ok && !v.begun {
		v.cert = &m.cert
	}
	if v.forked && m.head.Seq >= v.fork {
		return v // of a branch that was cut since
	}
	if ok && (!v.begun || m.head.Seq > v.head.Seq) {
		v.head, v.begun = m.head, true
	}
	return v
}

// beyond reports whether a run stands where the chain is known to have forked.
func (v view) beyond(run []envelope.Envelope) bool { return v.forked && run[0].Seq() >= v.fork }

// next is the first sequence beyond the prefix.
func (v view) next() uint64 {
	if !v.begun {
		return 0
	}
	return v.head.Seq + 1
}

// holds reports whether an envelope is held, or on its way to the replica.
// Below a head that is on its way its id is not known; one that differs is
// found by reconciliation.
func (v view) holds(e envelope.Envelope) bool {
	if !v.begun || e.Seq() > v.head.Seq {
		return false
	}
	if e.Seq() == v.head.Seq {
		return e.ID() == v.head.ID
	}
	id, ok := v.replica.IDAt(v.key.chain, e.Seq())
	return !ok || id == e.ID()
}

// fresh is how many envelopes of a run lie beyond the prefix, at least one:
// what its writer pays for.
func (v view) fresh(run []envelope.Envelope) int {
	last := run[len(run)-1].Seq()
	if last < v.next() {
		return 1
	}
	return int(min(uint64(len(run)), last+1-v.next()))
}

// place is step 8: where an authentic run stands.
func (v view) place(run []envelope.Envelope) Reason {
	first, last := run[0].Seq(), run[len(run)-1].Seq()
	switch {
	case v.beyond(run) || last < v.next():
		return Forked // at or below the head, and not held
	case first > v.next():
		if first >= v.next()+envelope.Window {
			return TooFar
		}
		return Ahead
	case first == v.next():
		if v.begun && run[0].Prev() != v.head.ID {
			return Forked
		}
	case run[v.head.Seq-first].ID() != v.head.ID:
		return Forked
	}
	return Fresh
}
