package control

import (
	"crypto/ed25519"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Apply gives the state after e, or says why there is none; s stays as it is.
// s is nil before genesis.
//
// Place and sequencer's signature are checked first and need no open body, so
// ErrStale, ErrGap, ErrFork and space.ErrForged come for a sealed entry too;
// one that fits but was not opened gives space.ErrNoKey. Then come
// space.ErrUnsupported for what is not built, space.ErrForbidden for a
// proposer without the capability, space.ErrInvite for an invite that is not
// live, and space.ErrMalformed for a body that breaks a rule. An error is
// final for (s, e): the same pair gives the same answer everywhere.
func Apply(s *State, e *Entry) (*State, error) {
	if s == nil {
		return applyGenesis(e)
	}
	if err := s.checkPlace(e); err != nil {
		return nil, err
	}
	return s.follow(e)
}

// follow is transition with the step in front of its errors.
func (s *State) follow(e *Entry) (*State, error) {
	next, err := s.transition(e)
	if err != nil {
		return nil, fmt.Errorf("apply control entry %d: %v: %w", e.Seq, e.Kind, err)
	}
	return next, nil
}

// checkPlace asks whether e is the one entry that may come after the head.
func (s *State) checkPlace(e *Entry) error {
	if e.Kind == KindGenesis {
		return s.checkOtherGenesis(e)
	}
	if e.SpaceID != s.SpaceID {
		return fmt.Errorf("apply control entry %d: entry of another space: %w", e.Seq, space.ErrForged)
	}
	head := s.Head
	switch {
	case e.Term < head.Term || e.hash == head.Hash:
		return ErrStale{Have: head, Got: e.Head()}
	case e.Term > head.Term && !(e.Kind == KindSequencer && e.Seq == head.Seq+1):
		return ErrGap{Want: head.Seq + 1, Have: head, Got: e.Head()}
	case e.Kind == KindSequencer: // signed by the authority, not by this term's sequencer
		err := space.ErrForbidden
		if string(e.Proposer[:]) == string(s.AuthorityPub) {
			err = space.ErrUnsupported
		}
		return fmt.Errorf("apply control entry %d: %v by %x: %w", e.Seq, e.Kind, e.Proposer[:4], err)
	}
	if err := e.VerifyCommit(s.SequencerPub); err != nil {
		return err
	}
	switch {
	case e.Seq < head.Seq:
		return ErrStale{Have: head, Got: e.Head()}
	case e.Seq == head.Seq:
		return ErrFork{Ours: head, Theirs: e.Head(), Entry: e}
	case e.Seq > head.Seq+1:
		return ErrGap{Want: head.Seq + 1, Have: head, Got: e.Head()}
	case e.Prev != head.Hash:
		return ErrFork{Ours: head, Theirs: space.Head{Term: head.Term, Seq: head.Seq, Hash: e.Prev}, Entry: e}
	}
	return nil
}

// checkOtherGenesis judges a genesis that meets a state: the same space id
// under another hash is a second history by the same signer.
func (s *State) checkOtherGenesis(e *Entry) error {
	if err := e.Open(nil); err != nil {
		return err
	}
	if spaceIDOf(e) != s.SpaceID {
		return fmt.Errorf("apply control entry 0: genesis of another space: %w", space.ErrForged)
	}
	if s.Head.Seq == 0 && e.hash != s.Head.Hash && s.Head.Term == 0 {
		if err := e.VerifyCommit(s.SequencerPub); err != nil {
			return err
		}
		return ErrFork{Ours: s.Head, Theirs: e.Head(), Entry: e}
	}
	return ErrStale{Have: s.Head, Got: e.Head()}
}

func applyGenesis(e *Entry) (*State, error) {
	if e.Kind != KindGenesis {
		return nil, ErrGap{Want: 0, Got: e.Head()}
	}
	s, err := genesisState(e)
	if err != nil {
		return nil, fmt.Errorf("apply genesis: %w", err)
	}
	if err := e.VerifyCommit(s.SequencerPub); err != nil {
		return nil, err
	}
	return s, nil
}

// genesisState is everything a genesis must prove, signatures apart.
func genesisState(e *Entry) (*State, error) {
	g, ok := e.body.(Genesis)
	if !ok {
		return nil, fmt.Errorf("not opened: %w", space.ErrNoKey)
	}
	id, err := space.ParseID(g.URI)
	if err != nil {
		return nil, err
	}
	log, err := identity.Verify(g.IdentityLog)
	if err != nil {
		return nil, fmt.Errorf("authority's %w", err)
	}
	if err := g.checkAgainst(id, log, e); err != nil {
		return nil, err
	}
	if err := g.Policy.Validate(); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	s := &State{
		SpaceID:      spaceIDOf(e),
		ID:           id,
		Authority:    Authority{C: g.AuthorityC, DID: g.AuthorityDID},
		Creator:      g.CreatorDID,
		CreatedMs:    e.TimeMs,
		AuthorityPub: ed25519.PublicKey(g.AuthorityPub[:]),
		SequencerPub: ed25519.PublicKey(g.SequencerPub[:]),
		Policy:       g.Policy,
		Head:         e.Head(),
	}
	s.admit(&Member{C: g.AuthorityC, DID: g.AuthorityDID, Level: space.LevelWrite, ILHead: log.Head, AddedMs: e.TimeMs})
	return s, nil
}

// checkAgainst holds the claims of a genesis against the proven identity.
func (g Genesis) checkAgainst(id space.ID, log identity.State, e *Entry) error {
	_, live := log.Devices[g.SequencerPub]
	switch {
	case id.AT() != g.URI:
		return fmt.Errorf("%w: uri %q", space.ErrNotCanonical, g.URI)
	case log.C != g.AuthorityC:
		return fmt.Errorf("%w: identity log of another commitment", space.ErrForged)
	case log.DID != g.AuthorityDID:
		return fmt.Errorf("%w: identity log is bound to %q, authority is %q", space.ErrForged, log.DID, g.AuthorityDID)
	case g.SpaceDID != g.AuthorityDID || id.Authority != g.AuthorityDID:
		return fmt.Errorf("%w: space of %q under the authority of %q", space.ErrForged, id.Authority, g.AuthorityDID)
	case string(log.SigPub[:]) != string(g.AuthorityPub[:]):
		return fmt.Errorf("%w: authority key is not the identity's", space.ErrForged)
	case !live:
		return fmt.Errorf("%w: sequencer is no device of the authority", space.ErrForged)
	case e.Proposer != g.SequencerPub:
		return fmt.Errorf("%w: proposed by another key than the sequencer's", space.ErrForged)
	case e.BaseHead() != [32]byte{}:
		return malformed("genesis stands on an entry")
	case g.CreatorDID != g.AuthorityDID:
		return fmt.Errorf("%w: a creator other than the authority", space.ErrUnsupported)
	}
	return nil
}

func spaceIDOf(e *Entry) [32]byte { return space.Hash(space.LabelSpace, e.plaintext) }

// transition applies an entry that is in place; signatures apart, it is all
// an entry must satisfy, and what Build asks before it signs.
func (s *State) transition(e *Entry) (*State, error) {
	if !built(e.Kind) {
		return nil, space.ErrUnsupported
	}
	if !s.may(e.Proposer, e.Kind) {
		return nil, fmt.Errorf("proposer %x: %w", e.Proposer[:4], space.ErrForbidden)
	}
	if !e.opened {
		return nil, fmt.Errorf("not opened: %w", space.ErrNoKey)
	}
	if e.BaseHead() != s.Head.Hash {
		return nil, malformed("proposed on %x, the head is %x", e.plaintext[:4], s.Head.Hash[:4])
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
	return &next, nil
}

func built(k Kind) bool {
	switch k {
	case KindMemberAdd, KindEpoch, KindPolicy, KindInvite:
		return true
	}
	return false
}

// may is the table of capabilities: which key may propose which kind. Until
// keepers and admins exist, the sequencer holds all of them.
func (s *State) may(proposer [32]byte, _ Kind) bool {
	return string(proposer[:]) == string(s.SequencerPub)
}

// change works on a copy that is still the caller's own.
func (s *State) change(e *Entry) error {
	switch b := e.body.(type) {
	case MemberAdd:
		return s.addMember(b, e.TimeMs)
	case Epoch:
		return s.openEpoch(b)
	case space.Policy:
		if err := b.Validate(); err != nil {
			return err
		}
		s.Policy = b
		return nil
	case Invite:
		return s.addInvite(b, e.TimeMs)
	}
	return space.ErrUnsupported
}

func (s *State) addMember(b MemberAdd, nowMs int64) error {
	if b.Slot != s.nextSlot || b.Slot == ^uint32(0) {
		return malformed("slot %d, the next is %d", b.Slot, s.nextSlot)
	}
	if _, ok := s.Member(b.C); ok {
		return malformed("commitment %x is a member already", b.C[:4])
	}
	if _, ok := s.MemberByDID(b.DID); ok {
		return malformed("%s is a member already", b.DID)
	}
	if len(b.InviteID) != 0 {
		if err := s.useInvite(b, nowMs); err != nil {
			return err
		}
	}
	s.admit(&Member{
		Slot: b.Slot, C: b.C, DID: b.DID, Level: b.Level,
		ILHead: b.ILHead, Invite: b.InviteID, AddedMs: nowMs,
	})
	return nil
}

func (s *State) useInvite(b MemberAdd, nowMs int64) error {
	v, ok := s.Invite([16]byte(b.InviteID))
	switch {
	case !ok:
		return fmt.Errorf("%w: unknown", space.ErrInvite)
	case !v.Live(nowMs):
		return fmt.Errorf("%w: used up or expired", space.ErrInvite)
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
	s.bySlot = s.bySlot.with(m.Slot, m)
	s.byC = s.byC.with(string(m.C[:]), m.Slot)
	s.byDID = s.byDID.with(string(m.DID), m.Slot)
	s.nextSlot = m.Slot + 1
}

func (s *State) addInvite(b Invite, nowMs int64) error {
	if b.NeedsApproval {
		return fmt.Errorf("%w: an invite that needs approval", space.ErrUnsupported)
	}
	if _, ok := s.Invite(b.ID); ok {
		return malformed("invite %x exists", b.ID[:4])
	}
	s.invites = s.invites.with(string(b.ID[:]), &InviteState{Invite: b, AddedMs: nowMs})
	return nil
}

func (s *State) openEpoch(b Epoch) error {
	switch {
	case b.N != s.Epoch+1:
		return malformed("epoch %d after epoch %d", b.N, s.Epoch)
	case b.KID == s.EpochKID:
		return malformed("the key of the epoch before")
	case len(b.Cuts) != 0:
		return fmt.Errorf("%w: cuts", space.ErrUnsupported)
	case b.N == 1 && len(b.Pages) != 0:
		return malformed("epoch 1 has its wraps inline")
	case b.RosterRoot != s.RosterRoot():
		return malformed("roster root is not the roster's")
	}
	if err := s.checkWraps(b); err != nil {
		return err
	}
	s.Epoch, s.EpochKID = b.N, b.KID
	return nil
}

// checkWraps wants a wrap for each member and for nobody else. Every level
// that a member can have reads at least itself, so the readers are the roster.
func (s *State) checkWraps(b Epoch) error {
	if len(b.Pages) != 0 {
		if want := (s.Len() + PageSlots - 1) / PageSlots; len(b.Pages) != want {
			return malformed("%d pages for %d readers, want %d", len(b.Pages), s.Len(), want)
		}
		return nil
	}
	if len(b.Wraps) != s.Len() {
		return malformed("%d wraps for %d readers", len(b.Wraps), s.Len())
	}
	i := 0
	for m := range s.Members() {
		if w := b.Wraps[i]; w.Slot != m.Slot || w.C != m.C {
			return malformed("wrap %d is for slot %d, want slot %d", i, w.Slot, m.Slot)
		}
		i++
	}
	return nil
}
