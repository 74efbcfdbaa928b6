package control

import (
	"fmt"
	"slices"

	"github.com/kithnet/kith/space"
)

// term is the entry that opened it and who orders it.
type term struct {
	head      space.Head
	sequencer [32]byte
}

// checkTerm asks whether a sequencer entry may come after the head. Its commit
// signature is the proposer's own, an authority key.
func (s *State) checkTerm(e *Entry) error {
	if t, ok := s.terms.get(e.Term); e.Term < s.Head.Term || ok && t.head.Hash == e.hash {
		return ErrStale{Have: s.Head, Got: e.Head()}
	}
	if _, _, authority := s.powers.of(e.Proposer); !authority {
		return fmt.Errorf("apply control entry %d: %v by %x: %w", e.Seq, e.Kind, e.Proposer[:4], space.ErrForbidden)
	}
	if err := e.VerifyCommit(e.Proposer[:]); err != nil {
		return err
	}
	switch {
	case e.Term == s.Head.Term:
		t, _ := s.terms.get(e.Term)
		return ErrFork{Ours: t.head, Theirs: e.Head(), Entry: e}
	case e.Seq > s.Head.Seq+1:
		return ErrGap{Want: s.Head.Seq + 1, Have: s.Head, Got: e.Head()}
	case e.Prev == s.Head.Hash && e.Seq == s.Head.Seq+1:
		return nil
	}
	accept := space.Head{Term: s.Head.Term, Seq: e.Seq - 1, Hash: e.Prev}
	if h, ok := s.recent.find(e.Prev); ok {
		if h.head.Seq != accept.Seq {
			return fmt.Errorf("apply control entry %d: %w", e.Seq, malformed("it names entry %d as the one before", h.head.Seq))
		}
		return ErrSuperseded{Accept: h.head, Known: true}
	}
	return ErrSuperseded{Accept: accept}
}

// appoint makes a keeper's device the one that orders the log.
func (s *State) appoint(b Sequencer, e *Entry) error {
	k, ok := s.Keeper(b.Slot)
	switch {
	case !ok || !k.Caps.Has(CapSequence):
		return fmt.Errorf("slot %d lacks the capability to order the log: %w", b.Slot, space.ErrForbidden)
	case !k.has(b.Device):
		return malformed("device %x is not of slot %d", b.Device[:4], b.Slot)
	}
	s.SequencerPub, s.SequencerSlot = slices.Clone(b.Device[:]), b.Slot
	s.terms = s.terms.with(e.Term, term{head: s.Head, sequencer: b.Device})
	return nil
}

// transfer makes another member the authority.
func (s *State) transfer(b Transfer) (need, error) {
	m, err := s.named(b.Slot, b.C)
	switch {
	case err != nil:
		return optional, err
	case s.ID.Authority == s.Authority.DID:
		return optional, fmt.Errorf("the space's address is its authority's own DID: it cannot be handed over: %w", space.ErrForbidden)
	case b.Slot == s.AuthoritySlot:
		return optional, malformed("slot %d is the authority", b.Slot)
	case m.Level != space.LevelWrite || m.Public:
		return optional, malformed("the next authority is a member at write that somebody added, not by the public door")
	}
	if err := b.prove(s.SpaceID, s.Authority.C, m); err != nil {
		return optional, err
	}
	old, _ := s.Keeper(b.Slot)
	if slot, taken := s.powers.devices.get(string(b.Device[:])); taken && slot != b.Slot {
		return optional, malformed("device %x is taken", b.Device[:4])
	}
	newly := !old.Caps.Has(CapAdmit)
	if (newly && b.Rotation == nil) != (len(b.Issuer) > 0) {
		return optional, malformed("issuer wrap of %d bytes, new capability to admit: %v, rotation: %v", len(b.Issuer), newly, b.Rotation != nil)
	}
	devices := old.Devices
	if !old.has(b.Device) {
		devices = append(slices.Clip(devices), b.Device)
		slices.SortFunc(devices, compareKeys)
	}
	if len(devices) > MaxKeeperDevices || old.Caps == 0 && s.powers.keepers.m.Len() >= MaxKeepers {
		return optional, fmt.Errorf("%w: keepers or their devices", space.ErrTooLarge)
	}
	s.powers = s.powers.set(Keeper{Slot: b.Slot, Caps: CapAll, Devices: devices})
	s.powers.authority, s.powers.root = b.Slot, b.AuthorityPub
	s.Authority = Authority{C: b.C, DID: b.DID}
	s.AuthorityPub, s.AuthoritySlot = slices.Clone(b.AuthorityPub[:]), b.Slot
	return optional, nil
}

// VerifyFork checks a proof that the log of s has two histories: two entries
// for one place, (term, seq), both signed by the sequencer of that term, or by
// the authority if they open it. Neither needs to be opened or known. A proof
// about an ended term says nothing against the present one.
func VerifyFork(s *State, a, b []byte) error {
	x, y, err := parsePair(a, b)
	if err != nil {
		return fmt.Errorf("fork proof: %w", err)
	}
	if x.hash == y.hash || x.Term != y.Term || x.Seq != y.Seq {
		return fmt.Errorf("fork proof: %w", malformed("entries %d.%d and %d.%d do not exclude each other", x.Term, x.Seq, y.Term, y.Seq))
	}
	for _, e := range []*Entry{x, y} {
		if err := s.signedFor(e); err != nil {
			return fmt.Errorf("fork proof: %w", err)
		}
	}
	return nil
}

func parsePair(a, b []byte) (x, y *Entry, err error) {
	if x, err = Parse(a); err != nil {
		return nil, nil, err
	}
	y, err = Parse(b)
	return x, y, err
}

// signedFor asks whether e was committed by who orders this log in its term.
func (s *State) signedFor(e *Entry) error {
	if e.Kind == KindGenesis {
		return fmt.Errorf("a genesis founds its own log: %w", space.ErrForged)
	}
	if e.SpaceID != s.SpaceID {
		return fmt.Errorf("entry of another space: %w", space.ErrForged)
	}
	if e.Kind == KindSequencer {
		if _, _, authority := s.powers.of(e.Proposer); !authority {
			return fmt.Errorf("%v by %x: %w", e.Kind, e.Proposer[:4], space.ErrForged)
		}
		return e.VerifyCommit(e.Proposer[:])
	}
	t, ok := s.terms.get(e.Term)
	if !ok {
		return fmt.Errorf("entry of term %d: %w", e.Term, space.ErrForged)
	}
	return e.VerifyCommit(t.sequencer[:])
}
