package control

import (
	"bytes"
	"math"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Recent is how many heads back a proposal may stand.
const Recent = 256

// open is the end of what has not ended.
const open = math.MaxUint64

// span is a stretch of the log: entries from to before.
type span struct{ from, to uint64 }

func (a span) meets(b span) bool { return max(a.from, b.from) < min(a.to, b.to) }

// epochStart is an epoch and the entry that opened it.
type epochStart struct {
	head space.Head
	kid  [32]byte
}

// stretch is the part of the log in which an epoch was in force; empty for one
// that never was.
func (s *State) stretch(epoch uint64) span {
	x, ok := s.epochs.get(epoch)
	if !ok {
		return span{}
	}
	next, ok := s.epochs.get(epoch + 1)
	if !ok {
		return span{x.head.Seq, open}
	}
	return span{x.head.Seq, next.head.Seq}
}

// person is what the log said of a commitment, in its order.
type person struct {
	member  *Member // as it is, or was last
	periods []period
	endings []*ending
}

// period is a stretch at one level.
type period struct {
	span
	level space.Level
}

// ending bounds what somebody wrote before it.
type ending struct {
	// upTo is the first epoch that it leaves alone.
	upTo uint64
	// cuts are those of the rotation, ascending by chain. Under static keys,
	// where nothing rotates, they are nil and finals stands in for them.
	cuts   []Cut
	finals *table[string, Cut]
	// reopened is set on a static ending once its person may write again.
	reopened bool
}

func (x *ending) cut(chain [32]byte) (Cut, bool) {
	if x.finals != nil {
		return x.finals.get(string(chain[:]))
	}
	i, ok := slices.BinarySearchFunc(x.cuts, chain, func(c Cut, want [32]byte) int { return bytes.Compare(c.Chain[:], want[:]) })
	if !ok {
		return Cut{}, false
	}
	return x.cuts[i], true
}

// Bound is how far a chain counts. The zero Bound is no limit.
type Bound struct {
	Bounded bool // there is a limit
	None    bool // nothing of the chain counts
	Seq     uint64
	ID      [32]byte // of the envelope at Seq, the last one that counts
}

// Bound says how far a chain that c wrote in an epoch counts. The first ending
// of c that reaches the epoch decides; epochs opened by it or after it are
// free. It depends on the log alone, so it is the same everywhere.
func (s *State) Bound(c identity.Commitment, epoch uint64, chain [32]byte) Bound {
	p, ok := s.people.get(string(c[:]))
	if !ok {
		return Bound{}
	}
	return p.bound(epoch, chain)
}

func (p *person) bound(epoch uint64, chain [32]byte) Bound {
	for _, x := range p.endings {
		if x.upTo <= epoch {
			continue
		}
		if cut, ok := x.cut(chain); ok {
			return Bound{Bounded: true, Seq: cut.Seq, ID: cut.ID}
		}
		if !x.reopened {
			return Bound{Bounded: true, None: true}
		}
	}
	return Bound{}
}

// MayWrite reports whether c was, at any time of the epoch, a member that
// writes: at level write, or at read_self while the policy let those write.
func (s *State) MayWrite(c identity.Commitment, epoch uint64) bool {
	p, ok := s.people.get(string(c[:]))
	if !ok {
		return false
	}
	during := s.stretch(epoch)
	for _, at := range p.periods {
		if !at.meets(during) {
			continue
		}
		if at.level == space.LevelWrite {
			return true
		}
		both := span{max(at.from, during.from), min(at.to, during.to)}
		if at.level == space.LevelReadSelf && slices.ContainsFunc(s.self, both.meets) {
			return true
		}
	}
	return false
}

// LevelIn is the highest level that c had at any time of an epoch.
func (s *State) LevelIn(c identity.Commitment, epoch uint64) space.Level {
	p, ok := s.people.get(string(c[:]))
	if !ok {
		return space.LevelNone
	}
	var level space.Level
	during := s.stretch(epoch)
	for _, at := range p.periods {
		if at.meets(during) {
			level = max(level, at.level)
		}
	}
	return level
}

// Author finds a present or past member: for what it wrote while it was one.
func (s *State) Author(c identity.Commitment) (Member, bool) {
	p, ok := s.people.get(string(c[:]))
	if !ok || p.member == nil {
		return Member{}, false
	}
	return *p.member, true
}

// Final is the newest head of a chain that a checkpoint or a cut named: below
// it the chain's history is settled.
func (s *State) Final(chain [32]byte) (Cut, bool) { return s.finals.get(string(chain[:])) }

// pastHead is one of the last heads and who could propose there.
type pastHead struct {
	head   space.Head
	powers *powers
	before *pastHead
	depth  int // how many stand behind it
}

// push puts a head in front. Lists are cut now and then, so that pushing costs
// little and old entries can go.
func (h *pastHead) push(head space.Head, p *powers) *pastHead {
	if h != nil && h.depth >= 2*Recent {
		h = h.trimmed()
	}
	n := &pastHead{head: head, powers: p, before: h}
	if h != nil {
		n.depth = h.depth + 1
	}
	return n
}

func (h *pastHead) trimmed() *pastHead {
	kept := make([]pastHead, Recent)
	for i := range kept {
		kept[i] = *h
		kept[i].depth = Recent - 1 - i
		if i > 0 {
			kept[i-1].before = &kept[i]
		}
		h = h.before
	}
	kept[Recent-1].before = nil
	return &kept[0]
}

// find gives the head with this hash if it is one of the last Recent.
func (h *pastHead) find(hash [32]byte) (*pastHead, bool) {
	for i := 0; h != nil && i < Recent; i, h = i+1, h.before {
		if h.head.Hash == hash {
			return h, true
		}
	}
	return nil, false
}

// at gives the head with this seq if it is one of the last Recent.
func (h *pastHead) at(seq uint64) (space.Head, bool) {
	for i := 0; h != nil && i < Recent; i, h = i+1, h.before {
		if h.head.Seq == seq {
			return h.head, true
		}
	}
	return space.Head{}, false
}
