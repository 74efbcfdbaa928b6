package control

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// noTime stands for the time of an entry that has none yet; rules about time
// are left to who commits it.
const noTime = -1

// Proposal is an entry that its proposer signed and that waits for the
// sequencer. It stands on the head that the proposer knew; once that is more
// than Recent entries back it is void.
type Proposal struct {
	_        struct{} `cbor:",toarray"`
	Kind     Kind
	SpaceID  [32]byte
	Proposer [32]byte
	Plain    []byte   // base head 32 ‖ salt 16 ‖ body
	Sig      [64]byte // Sign(Proposer, "ctl/propose", proposal hash)
}

var proposalCodec = codec[Proposal]{Proposal.check, func(p Proposal) Proposal { return p }}

// Propose makes a proposal on the head of s. It refuses what Apply would
// refuse now, expiry apart, which is judged by the time of the entry.
func Propose(s *State, kind Kind, body any, proposer ed25519.PrivateKey, rand io.Reader) (Proposal, error) {
	p, err := propose(s, kind, body, proposer, rand)
	if err != nil {
		return Proposal{}, fmt.Errorf("propose %v: %w", kind, err)
	}
	return p, nil
}

func propose(s *State, kind Kind, body any, proposer ed25519.PrivateKey, rand io.Reader) (Proposal, error) {
	if len(proposer) != ed25519.PrivateKeySize {
		return Proposal{}, fmt.Errorf("proposer's: %w", space.ErrNoKey)
	}
	if kind == KindGenesis || kind == KindSequencer {
		return Proposal{}, fmt.Errorf("%w: the authority commits a %v itself", space.ErrUnsupported, kind)
	}
	b, err := encodeBody(kind, body)
	if err != nil {
		return Proposal{}, err
	}
	if len(b) > MaxBody-bodyStart-chacha20poly1305.Overhead {
		return Proposal{}, fmt.Errorf("%w: body of %d bytes", space.ErrTooLarge, len(b))
	}
	p := Proposal{Kind: kind, SpaceID: s.SpaceID, Proposer: [32]byte(proposer.Public().(ed25519.PublicKey))}
	if p.Plain, err = plaintext(s.Head.Hash, b, rand); err != nil {
		return Proposal{}, err
	}
	e, err := p.asEntry(s, noTime)
	if err != nil {
		return Proposal{}, err
	}
	if _, err := s.transition(e); err != nil {
		return Proposal{}, err
	}
	hash := p.hash()
	copy(p.Sig[:], space.Sign(proposer, space.LabelPropose, hash[:]))
	return p, nil
}

// plaintext puts base head and salt in front of a body.
func plaintext(base [32]byte, body []byte, rand io.Reader) ([]byte, error) {
	p := make([]byte, bodyStart, bodyStart+len(body))
	copy(p, base[:])
	if _, err := io.ReadFull(rand, p[baseSize:]); err != nil {
		return nil, fmt.Errorf("salt: %w", err)
	}
	return append(p, body...), nil
}

func (p Proposal) hash() [32]byte { return proposalHash(p.Kind, p.SpaceID, p.Plain) }

// BaseHead is the hash of the entry the proposer stood on.
func (p Proposal) BaseHead() (h [32]byte) {
	copy(h[:], p.Plain)
	return h
}

// Body decodes what is proposed; see Entry.Body.
func (p Proposal) Body() (any, error) {
	if len(p.Plain) < bodyStart {
		return nil, malformed("plaintext of %d bytes", len(p.Plain))
	}
	return decodeBody(p.Kind, p.Plain[bodyStart:])
}

// asEntry is the entry after s that p would be, without its signatures and
// its bytes: what transition judges.
func (p Proposal) asEntry(s *State, timeMs int64) (*Entry, error) {
	body, err := p.Body()
	if err != nil {
		return nil, err
	}
	return &Entry{
		Kind: p.Kind, Term: s.Head.Term, Seq: s.Head.Seq + 1, SpaceID: p.SpaceID, Prev: s.Head.Hash,
		Epoch: epochAfter(s.Epoch, body), TimeMs: timeMs, Proposer: p.Proposer, ProposalHash: p.hash(),
		opened: true, plaintext: p.Plain, body: body,
	}, nil
}

// Encode gives the bytes that travel to the sequencer. They are not sealed.
func (p Proposal) Encode() ([]byte, error) {
	b, err := proposalCodec.encode(p)
	if err != nil {
		return nil, fmt.Errorf("proposal: %w", err)
	}
	return b, nil
}

// DecodeProposal reads what Encode wrote, and nothing else, and verifies the
// proposer's signature. Whether the proposer may is for Commit.
func DecodeProposal(b []byte) (Proposal, error) {
	if len(b) > MaxBody+1024 {
		return Proposal{}, fmt.Errorf("proposal: %w: %d bytes", space.ErrTooLarge, len(b))
	}
	p, err := proposalCodec.decode(b)
	if err != nil {
		return Proposal{}, fmt.Errorf("proposal: %w", err)
	}
	if err := p.verify(); err != nil {
		return Proposal{}, fmt.Errorf("proposal: %w", err)
	}
	return p, nil
}

func (p Proposal) verify() error {
	hash := p.hash()
	if !space.Verify(p.Proposer[:], space.LabelPropose, p.Sig[:], hash[:]) {
		return fmt.Errorf("proposer's signature: %w", space.ErrForged)
	}
	return nil
}

func (p Proposal) check() error {
	switch {
	case int(p.Kind) >= len(kindNames):
		return fmt.Errorf("%w: kind %d", space.ErrUnsupported, byte(p.Kind))
	case p.Kind == 0 || p.Kind == KindGenesis || p.Kind == KindSequencer:
		return malformed("%v proposed", p.Kind)
	case len(p.Plain) < bodyStart:
		return malformed("plaintext of %d bytes", len(p.Plain))
	case len(p.Plain) > MaxBody-chacha20poly1305.Overhead:
		return fmt.Errorf("%w: plaintext of %d bytes", space.ErrTooLarge, len(p.Plain))
	}
	if err := space.CheckPublicKey(p.Proposer[:]); err != nil {
		return fmt.Errorf("proposer: %w", err)
	}
	return nil
}

// Commit makes the entry after s of a proposal, seals it under the control key
// of the present epoch and signs it as the sequencer. It signs nothing that
// Apply would refuse; a proposal overtaken by another entry is refused with
// the rule it breaks now, and its proposer makes another.
func Commit(s *State, p Proposal, sequencer ed25519.PrivateKey, ck []byte, timeMs int64, rand io.Reader) (*Entry, error) {
	e, err := commit(s, p, sequencer, ck, timeMs, rand)
	if err != nil {
		return nil, fmt.Errorf("commit control entry %d: %v: %w", s.Head.Seq+1, p.Kind, err)
	}
	return e, nil
}

func commit(s *State, p Proposal, sequencer ed25519.PrivateKey, ck []byte, timeMs int64, rand io.Reader) (*Entry, error) {
	switch {
	case len(sequencer) != ed25519.PrivateKeySize:
		return nil, fmt.Errorf("sequencer's: %w", space.ErrNoKey)
	case !s.SequencerPub.Equal(sequencer.Public()):
		return nil, fmt.Errorf("not the sequencer's key: %w", space.ErrForbidden)
	case p.SpaceID != s.SpaceID:
		return nil, fmt.Errorf("proposal for another space: %w", space.ErrForged)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := p.verify(); err != nil {
		return nil, err
	}
	e, err := p.asEntry(s, timeMs)
	if err != nil {
		return nil, err
	}
	d := draftOf(s, p.Kind, e.Epoch, timeMs)
	if e, err = d.build(p.Plain, p.Proposer, ck, rand); err != nil {
		return nil, err
	}
	if _, err := s.transition(e); err != nil {
		return nil, err
	}
	copy(e.proposerSig(), p.Sig[:])
	copy(e.commitSig(), space.Sign(sequencer, space.LabelCtlCommit, e.raw[:len(e.raw)-ed25519.SignatureSize]))
	e.hash = sha256.Sum256(e.raw)
	return e, nil
}
