package control

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// BuildKeys signs and seals an entry. CK is the control key of the epoch
// before the entry; bodies in clear need none.
type BuildKeys struct {
	Proposer, Sequencer ed25519.PrivateKey
	CK                  []byte
}

// Build makes the entry that comes after s and returns it opened. It signs
// nothing that Apply would refuse. body is the value that belongs to kind, as
// Entry.Body lists them; the plain space.Policy stands for a PolicyChange. An
// entry by one key for another's sequencer goes by Propose and Commit instead.
// A Sequencer opens the next term; its Proposer and Sequencer are one
// authority key. rand gives the salt and, when sealed, the nonce.
func Build(s *State, kind Kind, body any, keys BuildKeys, timeMs int64, rand io.Reader) (*Entry, error) {
	d := draftOf(s, kind, epochAfter(s.Epoch, body), timeMs)
	if kind == KindSequencer {
		d.term++
	}
	e, err := d.buildNext(s, body, keys, rand)
	if err != nil {
		return nil, fmt.Errorf("build control entry %d: %v: %w", d.seq, kind, err)
	}
	return e, nil
}

// BuildTerm is Build for a Sequencer that opens the given term: one that must
// be above a term which is abandoned with all that stands in it.
func BuildTerm(s *State, body Sequencer, term uint64, keys BuildKeys, timeMs int64, rand io.Reader) (*Entry, error) {
	d := draftOf(s, KindSequencer, s.Epoch, timeMs)
	d.term = term
	e, err := d.buildNext(s, body, keys, rand)
	if err != nil {
		return nil, fmt.Errorf("build control entry %d: term %d: %w", d.seq, term, err)
	}
	return e, nil
}

func draftOf(s *State, kind Kind, epoch uint64, timeMs int64) draft {
	return draft{
		kind: kind, term: s.Head.Term, seq: s.Head.Seq + 1, spaceID: s.SpaceID,
		prev: s.Head.Hash, base: s.Head.Hash, epoch: epoch, timeMs: timeMs,
	}
}

func (d draft) buildNext(s *State, body any, keys BuildKeys, rand io.Reader) (*Entry, error) {
	if err := keys.check(); err != nil {
		return nil, err
	}
	switch {
	case d.kind == KindSequencer && !keys.Proposer.Equal(keys.Sequencer):
		return nil, fmt.Errorf("one authority key proposes and commits: %w", space.ErrForbidden)
	case d.kind != KindSequencer && !s.SequencerPub.Equal(keys.Sequencer.Public()):
		return nil, fmt.Errorf("not the sequencer's key: %w", space.ErrForbidden)
	case d.term < s.Head.Term || d.kind == KindSequencer && d.term == s.Head.Term:
		return nil, malformed("term %d after term %d", d.term, s.Head.Term)
	}
	return d.finish(body, keys, rand, func(e *Entry) error {
		_, err := s.transition(e)
		return err
	})
}

// epochAfter is the epoch in force once an entry with this body stands.
func epochAfter(now uint64, body any) uint64 {
	if x, ok := body.(Epoch); ok {
		return x.N
	}
	if r := rotationOf(body); r != nil {
		return r.Epoch.N
	}
	return now
}

// BuildGenesis makes the first entry of a space and returns it opened. The
// proposer is the sequencer; it signs nothing that Apply would refuse.
func BuildGenesis(body Genesis, keys BuildKeys, timeMs int64, rand io.Reader) (*Entry, error) {
	d := draft{kind: KindGenesis, timeMs: timeMs}
	e, err := func() (*Entry, error) {
		if err := keys.check(); err != nil {
			return nil, err
		}
		if !ed25519.PublicKey(body.SequencerPub[:]).Equal(keys.Sequencer.Public()) {
			return nil, fmt.Errorf("not the sequencer's key: %w", space.ErrForbidden)
		}
		return d.finish(body, keys, rand, func(e *Entry) error {
			_, err := genesisState(e)
			return err
		})
	}()
	if err != nil {
		return nil, fmt.Errorf("build genesis: %w", err)
	}
	return e, nil
}

func (k BuildKeys) check() error {
	if len(k.Proposer) != ed25519.PrivateKeySize || len(k.Sequencer) != ed25519.PrivateKeySize {
		return fmt.Errorf("proposer's or sequencer's: %w", space.ErrNoKey)
	}
	return nil
}

// draft is an entry's framing before there is an entry.
type draft struct {
	kind          Kind
	term, seq     uint64
	spaceID, prev [32]byte
	base          [32]byte // what the proposer stands on
	epoch         uint64
	timeMs        int64
}

// finish encodes, seals, lets check judge the entry as a reader would see it,
// and only then signs.
func (d draft) finish(body any, keys BuildKeys, rand io.Reader, check func(*Entry) error) (*Entry, error) {
	b, err := encodeBody(d.kind, body)
	if err != nil {
		return nil, err
	}
	plain, err := plaintext(d.base, b, rand)
	if err != nil {
		return nil, err
	}
	e, err := d.build(plain, [32]byte(keys.Proposer.Public().(ed25519.PublicKey)), keys.CK, rand)
	if err != nil {
		return nil, err
	}
	if err := check(e); err != nil {
		return nil, err
	}
	e.sign(keys)
	return e, nil
}

// build seals the entry and opens it again, with room for two signatures.
func (d draft) build(plain []byte, proposer [32]byte, ck []byte, rand io.Reader) (*Entry, error) {
	raw, err := d.seal(plain, proposer, ck, rand)
	if err != nil {
		return nil, err
	}
	e, err := parseFraming(append(raw, make([]byte, 2*ed25519.SignatureSize)...))
	if err != nil {
		return nil, err
	}
	if err := e.Open(ck); err != nil {
		return nil, err
	}
	return e, nil
}

// seal gives the bytes in front of the signatures.
func (d draft) seal(plain []byte, proposer [32]byte, ck []byte, rand io.Reader) ([]byte, error) {
	h := make([]byte, offBody, offBody+len(plain)+chacha20poly1305.Overhead+2*ed25519.SignatureSize)
	copy(h, magic)
	h[offKind] = byte(d.kind)
	binary.BigEndian.PutUint64(h[offTerm:], d.term)
	binary.BigEndian.PutUint64(h[offSeq:], d.seq)
	copy(h[offSpace:], d.spaceID[:])
	copy(h[offPrev:], d.prev[:])
	binary.BigEndian.PutUint64(h[offEpoch:], d.epoch)
	binary.BigEndian.PutUint64(h[offTime:], uint64(d.timeMs))
	copy(h[offProposer:], proposer[:])
	hash := proposalHash(d.kind, d.spaceID, plain)
	copy(h[offHash:], hash[:])
	if (&Entry{Kind: d.kind, Seq: d.seq}).InClear() {
		binary.BigEndian.PutUint32(h[offLen:], uint32(len(plain)))
		return append(h, plain...), nil
	}
	aead, err := bodyCipher(ck)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(h[offLen:], uint32(len(plain)+aead.Overhead()))
	if _, err := io.ReadFull(rand, h[offNonce:offBody]); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	return aead.Seal(h, h[offNonce:offBody], plain, h[:offBody]), nil
}

// sign fills in the signatures of an entry that nobody else holds yet.
func (e *Entry) sign(keys BuildKeys) {
	copy(e.proposerSig(), space.Sign(keys.Proposer, space.LabelPropose, e.ProposalHash[:]))
	copy(e.commitSig(), space.Sign(keys.Sequencer, space.LabelCtlCommit, e.raw[:len(e.raw)-ed25519.SignatureSize]))
	e.hash = sha256.Sum256(e.raw)
}
