package control

import (
	"bytes"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

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
		AuthorityPub: bytes.Clone(g.AuthorityPub[:]), // a slice of g would keep the identity log for as long as the state
		SequencerPub: bytes.Clone(g.SequencerPub[:]),
		Head:         e.Head(),
	}
	s.powers = (&powers{root: g.AuthorityPub}).set(Keeper{Caps: CapAll, Devices: [][32]byte{g.SequencerPub}})
	s.terms = s.terms.with(0, term{sequencer: g.SequencerPub, head: s.Head})
	s.recent = s.recent.push(s.Head, s.powers)
	s.setPolicy(g.Policy)
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
	case g.SpaceDID != id.Authority || (g.SpaceDID != g.AuthorityDID) != (g.SpaceProof != nil):
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
	if g.SpaceProof != nil {
		return checkSpaceDID(g.SpaceDID, g.AuthorityC, *g.SpaceProof)
	}
	return nil
}

func spaceIDOf(e *Entry) [32]byte { return space.Hash(space.LabelSpace, e.plaintext) }
