package control

import (
	"fmt"

	"github.com/kithnet/kith/space"
)

// Apply gives the state after e, or says why there is none; s stays as it is.
// s is nil before genesis.
//
// Place and sequencer's signature are checked first and need no open body, so
// ErrStale, ErrGap, ErrFork and space.ErrForged come for a sealed entry too;
// one that fits but was not opened gives space.ErrNoKey. Then come
// space.ErrSpaceDeleted behind a tombstone, space.ErrForbidden for a proposer
// without the capability, space.ErrInvite for an invite that is not live,
// space.ErrMemberExists and space.ErrMemberNotFound, space.ErrLastAuthority,
// space.ErrStaleDescriptor, space.ErrDelegationCycle and ErrDepth of
// delegations, space.ErrUnsupported for a policy that is not built, and
// space.ErrMalformed for a body that breaks any other rule. ErrSuperseded is
// an entry of the authority that gives up part of the log. An error is final
// for (s, e): the same pair gives the same answer everywhere.
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
	case e.hash == head.Hash:
		return ErrStale{Have: head, Got: e.Head()}
	case e.Kind == KindSequencer: // signed by the authority, not by this term's sequencer
		return s.checkTerm(e)
	case e.Term < head.Term:
		return ErrStale{Have: head, Got: e.Head()}
	case e.Term > head.Term:
		return ErrGap{Want: min(head.Seq+1, e.Seq), Have: head, Got: e.Head()}
	}
	if err := e.VerifyCommit(s.SequencerPub); err != nil {
		return err
	}
	switch {
	case e.Seq < head.Seq:
		if h, ok := s.recent.at(e.Seq); ok && h.Term == e.Term && h.Hash != e.hash {
			return ErrFork{Ours: h, Theirs: e.Head(), Entry: e}
		}
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
