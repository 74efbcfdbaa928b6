package control

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/kithnet/kith/space"
)

// delegate makes a space a member, refreshes what is known of it, or ends it.
func (s *State) delegate(b Delegation, nowMs int64) (need, error) {
	slot, known := s.childSlots.get(string(b.Child[:]))
	switch {
	case !known && b.Level == space.LevelNone:
		return optional, fmt.Errorf("space %x: %w", b.Child[:4], space.ErrMemberNotFound)
	case known && b.Slot != slot:
		return optional, malformed("space %x is at slot %d, not %d", b.Child[:4], slot, b.Slot)
	case !known && (b.Slot != s.nextSlot || b.Slot == ^uint32(0)):
		return optional, malformed("slot %d, the next is %d", b.Slot, s.nextSlot)
	case b.Level == space.LevelNone:
		s.delegations = s.delegations.without(slot)
		s.childSlots = s.childSlots.without(string(b.Child[:]))
		s.sends(b)
		return required, nil
	}
	d, err := ParseDescriptor(b.Descriptor)
	if err != nil {
		return optional, err
	}
	if err := s.checkDescriptor(b.Child, d, nowMs); err != nil {
		return optional, err
	}
	next := &DelegationState{Slot: b.Slot, Child: b.Child, Level: b.Level, Descriptor: d, AddedMs: nowMs}
	n := optional
	if old, ok := s.delegations.get(b.Slot); ok {
		if err := d.follows(old.Descriptor); err != nil {
			return optional, err
		}
		next.AddedMs, n = old.AddedMs, required
	} else {
		s.nextSlot = b.Slot + 1
	}
	s.delegations = s.delegations.with(b.Slot, next)
	s.childSlots = s.childSlots.with(string(b.Child[:]), b.Slot)
	s.sends(b)
	if _, below := s.below(); len(below) > MaxDescendants {
		return optional, fmt.Errorf("%w: %d spaces below", space.ErrTooLarge, len(below))
	}
	return n, nil
}

func (s *State) checkDescriptor(child [32]byte, d Descriptor, nowMs int64) error {
	_, above := slices.BinarySearchFunc(d.Descendants, s.SpaceID, compareKeys)
	switch {
	case d.Space != child:
		return fmt.Errorf("descriptor of space %x, not %x: %w", d.Space[:4], child[:4], space.ErrForged)
	case child == s.SpaceID || above:
		return fmt.Errorf("space %x: %w", child[:4], space.ErrDelegationCycle)
	case d.Depth >= MaxDelegationDepth:
		return ErrDepth
	}
	if nowMs == noTime {
		return nil
	}
	return d.Verify(nowMs)
}

// follows asks whether d may stand for its space after old.
func (d Descriptor) follows(old Descriptor) error {
	order := cmp.Or(cmp.Compare(d.Head.Term, old.Head.Term), cmp.Compare(d.Head.Seq, old.Head.Seq))
	switch {
	case order < 0 || d.Epoch < old.Epoch:
		return fmt.Errorf("descriptor of head %d.%d, epoch %d, known are %d.%d, epoch %d: %w", d.Head.Term, d.Head.Seq, d.Epoch,
			old.Head.Term, old.Head.Seq, old.Epoch, space.ErrStaleDescriptor)
	case order == 0 && d.Head.Hash != old.Head.Hash:
		return fmt.Errorf("two descriptors of head %d.%d: %w", d.Head.Term, d.Head.Seq, space.ErrForged)
	case d.Epoch == old.Epoch && !bytes.Equal(d.Delegate, old.Delegate):
		return fmt.Errorf("two delegate keys of epoch %d: %w", d.Epoch, space.ErrForged)
	}
	return nil
}

// below is how many spaces stand one within the other under this one, and all
// of them, ascending.
func (s *State) below() (depth uint32, all [][32]byte) {
	set := map[[32]byte]bool{}
	for d := range s.Delegations() {
		depth = max(depth, d.Descriptor.Depth+1)
		set[d.Child] = true
		for _, x := range d.Descriptor.Descendants {
			set[x] = true
		}
	}
	if len(set) == 0 {
		return 0, nil
	}
	return depth, slices.SortedFunc(maps.Keys(set), compareKeys)
}
