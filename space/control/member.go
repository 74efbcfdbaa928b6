package control

import (
	"fmt"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

func (s *State) addMember(b MemberAdd, nowMs int64) error {
	if b.Slot != s.nextSlot || b.Slot == ^uint32(0) {
		return malformed("slot %d, the next is %d", b.Slot, s.nextSlot)
	}
	if _, ok := s.Member(b.C); ok {
		return fmt.Errorf("commitment %x: %w", b.C[:4], space.ErrMemberExists)
	}
	if _, ok := s.MemberByDID(b.DID); ok {
		return fmt.Errorf("%s: %w", b.DID, space.ErrMemberExists)
	}
	m := &Member{Slot: b.Slot, C: b.C, DID: b.DID, Level: b.Level, ILHead: b.ILHead, AddedMs: nowMs, Epoch: s.Epoch}
	switch {
	case len(b.InviteID) == 0:
	case [16]byte(b.InviteID) == PublicDoor:
		if s.Policy.Mint != space.MintPublic || b.Use != 1 {
			return fmt.Errorf("%w: no public door", space.ErrInvite)
		}
		m.Public = true
	default:
		if err := s.useInvite(b, nowMs); err != nil {
			return err
		}
		m.Invite = b.InviteID
	}
	s.admit(m)
	return nil
}

func (s *State) useInvite(b MemberAdd, nowMs int64) error {
	v, ok := s.Invite([16]byte(b.InviteID))
	switch {
	case !ok:
		return fmt.Errorf("%w: unknown", space.ErrInvite)
	case !v.Live(nowMs):
		return fmt.Errorf("%w: used up, expired or revoked", space.ErrInvite)
	case b.Use != v.Uses+1:
		return fmt.Errorf("%w: use %d, the next is %d", space.ErrInvite, b.Use, v.Uses+1)
	case b.Level != v.Level:
		return fmt.Errorf("%w: gives %v, not %v", space.ErrInvite, v.Level, b.Level)
	}
	v.Uses++
	s.invites = s.invites.with(string(v.ID[:]), &v)
	return nil
}

func (s *State) admit(m *Member) {
	s.putMember(m)
	s.byC = s.byC.with(string(m.C[:]), m.Slot)
	s.byDID = s.byDID.with(string(m.DID), m.Slot)
	s.nextSlot = m.Slot + 1
	s.letWrite(m.C)
}

// putMember stores a member at its level from this entry on.
func (s *State) putMember(m *Member) {
	s.bySlot = s.bySlot.with(m.Slot, m)
	s.at(m, false)
}

// letWrite reopens what a static ending closed.
func (s *State) letWrite(c identity.Commitment) {
	p := s.person(c)
	if !p.reopen() {
		return
	}
	s.people = s.people.with(string(c[:]), &p)
}

// named finds the member that a body names twice.
func (s *State) named(slot uint32, c identity.Commitment) (*Member, error) {
	m, ok := s.bySlot.get(slot)
	if !ok || m.C != c {
		return nil, fmt.Errorf("slot %d, commitment %x: %w", slot, c[:4], space.ErrMemberNotFound)
	}
	return m, nil
}

func (s *State) removeMember(b MemberRemove) (need, []identity.Commitment, error) {
	m, err := s.named(b.Slot, b.C)
	if err != nil {
		return required, nil, err
	}
	if err := s.removable(m); err != nil {
		return required, nil, err
	}
	if len(b.Leave) > 0 {
		l, err := DecodeLeave(b.Leave)
		if err != nil {
			return required, nil, err
		}
		if err := l.verify(s.SpaceID, m); err != nil {
			return required, nil, err
		}
	}
	s.drop(m)
	return required, []identity.Commitment{m.C}, nil
}

func (s *State) removable(m *Member) error {
	switch m.Slot {
	case s.AuthoritySlot:
		return fmt.Errorf("slot %d: %w", m.Slot, space.ErrLastAuthority)
	case s.SequencerSlot:
		return malformed("slot %d orders the log: appoint another first", m.Slot)
	}
	return nil
}

// drop takes a member out with all it may do.
func (s *State) drop(m *Member) {
	s.bySlot = s.bySlot.without(m.Slot)
	s.byC = s.byC.without(string(m.C[:]))
	s.byDID = s.byDID.without(string(m.DID))
	if _, ok := s.Keeper(m.Slot); ok {
		s.powers = s.powers.set(Keeper{Slot: m.Slot})
	}
	s.at(m, true)
}

func (s *State) setLevel(b MemberLevel) (need, []identity.Commitment, error) {
	m, err := s.named(b.Slot, b.C)
	if err != nil {
		return never, nil, err
	}
	k, _ := s.Keeper(m.Slot)
	switch {
	case m.Slot == s.AuthoritySlot:
		return never, nil, fmt.Errorf("slot %d: %w", m.Slot, space.ErrLastAuthority)
	case b.Level == m.Level:
		return never, nil, malformed("slot %d is at %v", m.Slot, m.Level)
	case k.Caps != 0 && b.Level < space.LevelRead:
		return never, nil, malformed("slot %d is a keeper, and a keeper reads", m.Slot)
	}
	next := *m
	next.Level = b.Level
	s.putMember(&next)
	if b.Level > m.Level {
		s.letWrite(m.C)
		return never, nil, nil
	}
	return required, []identity.Commitment{m.C}, nil
}

func (s *State) changePolicy(p space.Policy) (need, []identity.Commitment, error) {
	if err := p.Validate(); err != nil {
		return optional, nil, err
	}
	n := optional
	if s.Policy.KeyPolicy == space.KeysStatic && p.KeyPolicy == space.KeysRotate {
		n = required // whoever was removed before still holds the key
	}
	var lost []identity.Commitment
	if s.Policy.Mint == space.MintPublic && p.Mint != space.MintPublic {
		n = required
		var out []*Member
		s.bySlot.scan(func(_ uint32, m *Member) bool {
			if m.Public {
				out = append(out, m)
			}
			return true
		})
		for _, m := range out {
			if err := s.removable(m); err != nil {
				return n, nil, err
			}
			s.drop(m)
			lost = append(lost, m.C)
		}
	}
	s.setPolicy(p)
	return n, lost, nil
}

func (s *State) setPolicy(p space.Policy) {
	s.Policy = p
	n := len(s.self)
	running := n > 0 && s.self[n-1].to == open
	switch writes := p.SelfWrites(); {
	case writes && !running:
		s.self = append(slices.Clip(s.self), span{s.Head.Seq, open})
	case !writes && running:
		s.self = slices.Clone(s.self)
		s.self[n-1].to = s.Head.Seq
	}
}

func (s *State) addInvite(b Invite, nowMs int64) error {
	if _, ok := s.Invite(b.ID); ok {
		return malformed("invite %x exists", b.ID[:4])
	}
	s.invites = s.invites.with(string(b.ID[:]), &InviteState{Invite: b, AddedMs: nowMs})
	return nil
}

func (s *State) revokeInvite(b InviteRevoke) error {
	v, ok := s.Invite(b.ID)
	if !ok {
		return fmt.Errorf("invite %x: %w", b.ID[:4], space.ErrInviteNotFound)
	}
	if v.Revoked {
		return malformed("invite %x is revoked", b.ID[:4])
	}
	v.Revoked = true
	s.invites = s.invites.with(string(b.ID[:]), &v)
	return nil
}

func (s *State) addCheckpoint(b Checkpoint) error {
	if b.Epoch > s.Epoch {
		return malformed("checkpoint of epoch %d in epoch %d", b.Epoch, s.Epoch)
	}
	if old, ok := s.checkpoints.get(b.Epoch); ok && (old.Topic != b.Topic || b.Count < old.Count) {
		return malformed("checkpoint of %d envelopes in topic %x, the last had %d in %x", b.Count, b.Topic[:4], old.Count, old.Topic[:4])
	}
	if err := s.settle(b.Heads, false); err != nil {
		return err
	}
	b.Heads = nil // in finals
	s.checkpoints = s.checkpoints.with(b.Epoch, &b)
	return nil
}
