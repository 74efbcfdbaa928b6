package control

import (
	"slices"

	"github.com/kithnet/kith/space"
)

// Writers that a child space sends are in no roster here, and their parent
// never learns which of them the child let go. Every entry about the child that
// opens an epoch therefore ends the chains of all of them: what the rotation's
// cuts name counts up to there, and the rest not at all. Whoever is still in the
// child writes what a cut left out again.

// MayWriteVia reports whether the space child was, at any time of the epoch, a
// member at level write: whether those that it sends write in it.
func (s *State) MayWriteVia(child [32]byte, epoch uint64) bool {
	p, ok := s.senders.get(string(child[:]))
	if !ok {
		return false
	}
	during := s.stretch(epoch)
	return slices.ContainsFunc(p.periods, func(at period) bool {
		return at.level == space.LevelWrite && at.meets(during)
	})
}

// BoundVia says how far a chain counts that somebody sent by the space child
// wrote in an epoch. The first entry about the child that opened a later epoch
// decides.
func (s *State) BoundVia(child [32]byte, epoch uint64, chain [32]byte) Bound {
	p, ok := s.senders.get(string(child[:]))
	if !ok {
		return Bound{}
	}
	return p.bound(epoch, chain)
}

// sends notes the level of a child from this entry on, and ends the chains of
// those it sent before.
func (s *State) sends(b Delegation) {
	p := person{}
	if old, ok := s.senders.get(string(b.Child[:])); ok {
		p = *old
	}
	p.periods = slices.Clone(p.periods)
	if n := len(p.periods); n > 0 && p.periods[n-1].to == open {
		p.periods[n-1].to = s.Head.Seq
	}
	if b.Level != space.LevelNone {
		p.periods = append(p.periods, period{span{s.Head.Seq, open}, b.Level})
	}
	switch {
	case b.Level == space.LevelWrite && s.Policy.KeyPolicy == space.KeysStatic:
		p.reopen()
	case b.Rotation != nil:
		p.endings = append(slices.Clip(p.endings), &ending{upTo: b.Rotation.Epoch.N, cuts: b.Rotation.Epoch.Cuts})
	case s.Policy.KeyPolicy == space.KeysStatic:
		finals := s.finals
		p.endings = append(slices.Clip(p.endings), &ending{upTo: s.Epoch + 1, finals: &finals})
	}
	s.senders = s.senders.with(string(b.Child[:]), &p)
}
