package control

import (
	"fmt"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// need says whether an entry must carry a rotation.
type need int

const (
	optional need = iota
	required      // of all these none under key policy static
	never
)

// transition applies an entry that is in place; signatures apart, it is all
// an entry must satisfy, and what Build, Propose and Commit ask before they
// sign.
func (s *State) transition(e *Entry) (*State, error) {
	if s.Deleted {
		return nil, space.ErrSpaceDeleted
	}
	if _, caps, authority := s.powers.of(e.Proposer); !authority && !caps.Has(CapAdmit) {
		return nil, fmt.Errorf("proposer %x: %w", e.Proposer[:4], space.ErrForbidden)
	}
	if !e.opened {
		return nil, fmt.Errorf("not opened: %w", space.ErrNoKey)
	}
	if e.SpaceID != s.SpaceID {
		return nil, fmt.Errorf("of another space: %w", space.ErrForged)
	}
	base, ok := s.recent.find(e.BaseHead())
	if !ok {
		return nil, malformed("proposed on %x, which is none of the last %d heads", e.plaintext[:4], Recent)
	}
	for _, p := range []*powers{base.powers, s.powers} {
		if err := s.may(p, e); err != nil {
			return nil, fmt.Errorf("proposer %x: %w", e.Proposer[:4], err)
		}
	}
	if s.Epoch == 0 && e.Kind != KindEpoch {
		return nil, malformed("before epoch 1")
	}
	next := *s
	next.Head = e.Head()
	if err := next.change(e); err != nil {
		return nil, err
	}
	if e.Epoch != next.Epoch {
		return nil, malformed("framing says epoch %d, it is %d", e.Epoch, next.Epoch)
	}
	next.recent = s.recent.push(next.Head, next.powers)
	return &next, nil
}

// may is the table of capabilities: the authority proposes everything, who
// admits what the rest needs to live on while the authority is away. p is who
// could propose when.
func (s *State) may(p *powers, e *Entry) error {
	_, caps, authority := p.of(e.Proposer)
	if authority {
		return nil
	}
	if !caps.Has(CapAdmit) {
		return space.ErrForbidden
	}
	if r := rotationOf(e.body); r != nil && slices.Contains(r.Ended, s.Authority.C) {
		return fmt.Errorf("only the authority ends its own chains: %w", space.ErrForbidden)
	}
	ok := false
	switch b := e.body.(type) {
	case Epoch, Rotation, Checkpoint:
		ok = true
	case MemberAdd:
		ok = s.mayAdmit(b)
	case MemberRemove:
		ok = len(b.Leave) > 0
	case KeeperSet:
		ok = s.onlyDrops(b)
	case Delegation:
		ok = s.onlyRefreshes(b)
	}
	if !ok {
		return fmt.Errorf("only the authority proposes this %v: %w", e.Kind, space.ErrForbidden)
	}
	return nil
}

// mayAdmit: a keeper lets in who has an invite, or comes by the public door.
func (s *State) mayAdmit(b MemberAdd) bool {
	if len(b.InviteID) == 0 {
		return false
	}
	v, ok := s.Invite([16]byte(b.InviteID))
	return !ok || !v.NeedsApproval // the rules of the door say what is wrong with an unknown one
}

// onlyDrops: a keeper takes away devices that were revoked, the authority's
// apart.
func (s *State) onlyDrops(b KeeperSet) bool {
	old, ok := s.Keeper(b.Slot)
	if !ok || b.Slot == s.AuthoritySlot || b.Caps != 0 && b.Caps != old.Caps {
		return false
	}
	for _, d := range b.Devices {
		if !old.has(d) {
			return false
		}
	}
	return true
}

// onlyRefreshes: a keeper brings the next descriptor of a child, by the same
// sequencer, at the same level.
func (s *State) onlyRefreshes(b Delegation) bool {
	old, ok := s.delegations.get(b.Slot)
	if !ok || b.Level != old.Level {
		return false
	}
	d, err := ParseDescriptor(b.Descriptor)
	return err == nil && d.Sequencer == old.Descriptor.Sequencer
}

// change works on a copy that is still the caller's own: first on the roster,
// then the rotation is held against what became of it.
func (s *State) change(e *Entry) error {
	_, _, authority := s.powers.of(e.Proposer)
	need, lost, err := s.changeRoster(e.body, e)
	if err != nil {
		return err
	}
	r := rotationOf(e.body)
	switch {
	case need == required && r == nil:
		return malformed("no rotation in an entry that takes a key from somebody")
	case need == never && r != nil:
		return malformed("a rotation where none belongs")
	case r != nil:
		return s.rotate(*r, lost, authority)
	}
	s.endStatic(lost)
	return nil
}

// Preview is the state whose roster an entry with this body would leave, for
// who builds its rotation: RosterRoot, Readers and Admitters of the result are
// what that must fit. The body's own rotation is not looked at; no body, or
// Rotation{}, stands for the bare epoch entry. Nothing is asked about time and
// who proposes.
func Preview(s *State, kind Kind, body any) (*State, error) {
	after, _, err := s.preview(kind, body)
	return after, err
}

// MustRotate reports whether an entry with this body has to carry a rotation.
func MustRotate(s *State, kind Kind, body any) (bool, error) {
	_, need, err := s.preview(kind, body)
	return need == required, err
}

func (s *State) preview(kind Kind, body any) (*State, need, error) {
	if body == nil {
		body = Rotation{}
	}
	if p, ok := body.(space.Policy); ok {
		body = PolicyChange{Policy: p}
	}
	if want, _ := bodyOf(body); want != kind {
		return nil, never, fmt.Errorf("preview: %w", malformed("%v with a body of type %T", kind, body))
	}
	next := *s
	need, _, err := next.changeRoster(withPlace(body), &Entry{TimeMs: noTime, Term: s.Head.Term + 1})
	if err != nil {
		return nil, never, fmt.Errorf("preview %v: %w", kind, err)
	}
	return &next, need, nil
}

// changeRoster is a body's own part of the change. It says what the entry
// needs of a rotation and whose chains end with it.
func (s *State) changeRoster(body any, e *Entry) (n need, lost []identity.Commitment, err error) {
	switch b := body.(type) {
	case Epoch:
		n, err = never, s.openFirst(b)
	case Rotation:
		n = required
	case MemberAdd:
		n, err = never, s.addMember(b, e.TimeMs)
	case MemberRemove:
		n, lost, err = s.removeMember(b)
	case MemberLevel:
		n, lost, err = s.setLevel(b)
	case PolicyChange:
		n, lost, err = s.changePolicy(b.Policy)
	case Invite:
		n, err = never, s.addInvite(b, e.TimeMs)
	case InviteRevoke:
		err = s.revokeInvite(b)
	case KeeperSet:
		n, err = s.setKeeper(b)
	case Sequencer:
		n, err = never, s.appoint(b, e)
	case Delegation:
		n, err = s.delegate(b, e.TimeMs)
	case Checkpoint:
		n, err = never, s.addCheckpoint(b)
	case Delete:
		n, s.Deleted, s.DeleteReason = never, true, b.Reason
	case Transfer:
		n, err = s.transfer(b)
	default:
		err = fmt.Errorf("%w: body of type %T", space.ErrUnsupported, body)
	}
	if s.Policy.KeyPolicy == space.KeysStatic {
		n = never
	}
	return n, lost, err
}
