package control

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// Kind says what an entry does. The numbers stand on the wire.
type Kind byte

// The kinds.
const (
	KindGenesis       Kind = 1
	KindSequencer     Kind = 2 // body in clear
	KindMemberAdd     Kind = 3
	KindMemberRemove  Kind = 4
	KindEpoch         Kind = 5
	KindPolicy        Kind = 6
	KindInvite        Kind = 7
	KindInviteRevoke  Kind = 8
	KindKeeperSet     Kind = 9
	KindDelegationSet Kind = 10
	KindCheckpoint    Kind = 11
	KindDelete        Kind = 12
	KindMemberLevel   Kind = 13
	KindTransfer      Kind = 14
)

var kindNames = [...]string{
	1: "genesis", "sequencer", "member-add", "member-remove", "epoch", "policy",
	"invite", "invite-revoke", "keeper-set", "delegation-set", "checkpoint", "delete",
	"member-level", "transfer",
}

func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", byte(k))
	}
	return kindNames[k]
}

// Layout of an entry; the package comment has the table.
const (
	magic = "SPC1"

	offKind     = 4
	offFlags    = 5
	offTerm     = 8
	offSeq      = 16
	offSpace    = 24
	offPrev     = 56
	offEpoch    = 88
	offTime     = 96
	offProposer = 104
	offHash     = 136
	offLen      = 168
	offNonce    = 172
	offBody     = 196

	baseSize  = 32                  // base head in front of the plaintext
	saltSize  = 16                  // salt behind it
	bodyStart = baseSize + saltSize // where the DRISL body begins

	// MaxBody bounds the bytes between framing and signatures.
	MaxBody = 262_144
	// MaxEntry bounds a whole entry.
	MaxEntry = offBody + MaxBody + 2*ed25519.SignatureSize
	// MaxTime is the largest time of an entry, in milliseconds.
	MaxTime = 1<<53 - 1

	minEntry = offBody + bodyStart + 2*ed25519.SignatureSize
)

// Entry is one control log entry as received. Parse fills the fields; Open
// adds the body. The fields mirror the bytes and are not to be changed.
type Entry struct {
	Kind         Kind
	Term, Seq    uint64
	SpaceID      [32]byte // zero in genesis
	Prev         [32]byte
	Epoch        uint64 // in force after this entry
	TimeMs       int64  // advisory
	Proposer     [32]byte
	ProposalHash [32]byte

	raw  []byte
	hash [32]byte

	opened    bool
	plaintext []byte // base head ‖ salt ‖ body
	body      any
}

// Parse reads the framing of an entry and verifies the proposer's signature.
// It keeps a copy of raw. The sequencer's signature needs the state: Apply
// and VerifyCommit check it.
func Parse(raw []byte) (*Entry, error) {
	e, err := parseFraming(raw)
	if err != nil {
		return nil, fmt.Errorf("control entry: %w", err)
	}
	if err := space.CheckPublicKey(e.Proposer[:]); err != nil {
		return nil, fmt.Errorf("control entry: proposer: %w", err)
	}
	if !space.Verify(e.Proposer[:], space.LabelPropose, e.proposerSig(), e.ProposalHash[:]) {
		return nil, fmt.Errorf("control entry: proposer's signature: %w", space.ErrForged)
	}
	return e, nil
}

func parseFraming(raw []byte) (*Entry, error) {
	switch {
	case len(raw) < minEntry:
		return nil, fmt.Errorf("%w: %d bytes, want at least %d", space.ErrMalformed, len(raw), minEntry)
	case len(raw) > MaxEntry:
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", space.ErrTooLarge, len(raw), MaxEntry)
	case string(raw[:offKind]) != magic:
		return nil, fmt.Errorf("%w: no %q at the start", space.ErrMalformed, magic)
	case raw[offKind] == 0:
		return nil, fmt.Errorf("%w: kind 0", space.ErrMalformed)
	case int(raw[offKind]) >= len(kindNames):
		return nil, fmt.Errorf("%w: kind %d", space.ErrUnsupported, raw[offKind])
	case raw[offFlags] != 0 || raw[offFlags+1] != 0 || raw[offFlags+2] != 0:
		return nil, fmt.Errorf("%w: flags are set", space.ErrMalformed)
	}
	if n := binary.BigEndian.Uint32(raw[offLen:]); int64(n) != int64(len(raw)-offBody-2*ed25519.SignatureSize) {
		return nil, fmt.Errorf("%w: body length says %d, there are %d", space.ErrMalformed, n, len(raw)-offBody-2*ed25519.SignatureSize)
	}
	ms := binary.BigEndian.Uint64(raw[offTime:])
	if ms > MaxTime {
		return nil, fmt.Errorf("%w: time %d", space.ErrMalformed, ms)
	}
	e := &Entry{
		Kind:   Kind(raw[offKind]),
		Term:   binary.BigEndian.Uint64(raw[offTerm:]),
		Seq:    binary.BigEndian.Uint64(raw[offSeq:]),
		Epoch:  binary.BigEndian.Uint64(raw[offEpoch:]),
		TimeMs: int64(ms),
		raw:    append([]byte(nil), raw...),
		hash:   sha256.Sum256(raw),
	}
	copy(e.SpaceID[:], raw[offSpace:])
	copy(e.Prev[:], raw[offPrev:])
	copy(e.Proposer[:], raw[offProposer:])
	copy(e.ProposalHash[:], raw[offHash:])
	return e, e.checkShape()
}

// checkShape holds the framing against itself: what is zero exactly when.
func (e *Entry) checkShape() error {
	genesis := e.Kind == KindGenesis
	switch {
	case genesis != (e.Seq == 0):
		return fmt.Errorf("%w: %v at seq %d", space.ErrMalformed, e.Kind, e.Seq)
	case genesis != (e.SpaceID == [32]byte{}) || genesis != (e.Prev == [32]byte{}):
		return fmt.Errorf("%w: space id and prev are zero in a genesis and nowhere else", space.ErrMalformed)
	case genesis && (e.Term != 0 || e.Epoch != 0):
		return fmt.Errorf("%w: genesis of term %d, epoch %d", space.ErrMalformed, e.Term, e.Epoch)
	case e.Kind == KindSequencer && e.Term == 0:
		return fmt.Errorf("%w: %v of term 0", space.ErrMalformed, e.Kind)
	case e.InClear() && [24]byte(e.raw[offNonce:offBody]) != [24]byte{}:
		return fmt.Errorf("%w: nonce on a body in clear", space.ErrMalformed)
	case !e.InClear() && len(e.box()) < bodyStart+chacha20poly1305.Overhead:
		return fmt.Errorf("%w: sealed body of %d bytes", space.ErrMalformed, len(e.box()))
	}
	return nil
}

// InClear reports whether the body needs no key: genesis, sequencer, and the
// epoch at seq 1, before which there is no key.
func (e *Entry) InClear() bool {
	return e.Kind == KindGenesis || e.Kind == KindSequencer || e.Kind == KindEpoch && e.Seq == 1
}

// Hash is SHA-256 of the whole entry.
func (e *Entry) Hash() [32]byte { return e.hash }

// Raw is the entry as received.
func (e *Entry) Raw() []byte { return e.raw }

// Head is the log's head once this entry is its last.
func (e *Entry) Head() space.Head { return space.Head{Term: e.Term, Seq: e.Seq, Hash: e.hash} }

// TermOf reads the term out of the bytes of an entry that Parse took.
func TermOf(raw []byte) uint64 {
	if len(raw) < offSeq {
		return 0
	}
	return binary.BigEndian.Uint64(raw[offTerm:])
}

// TimeOf reads the time out of the bytes of an entry that Parse took, in Unix
// milliseconds.
func TimeOf(raw []byte) int64 {
	if len(raw) < offProposer {
		return 0
	}
	return int64(binary.BigEndian.Uint64(raw[offTime:]))
}

// Opened reports whether the body is there.
func (e *Entry) Opened() bool { return e.opened }

// Body is what Open found, a value by e.Kind: Genesis, Sequencer, MemberAdd,
// MemberRemove, Epoch (the first) or Rotation, PolicyChange, Invite,
// InviteRevoke, KeeperSet, Delegation, Checkpoint, Delete, MemberLevel or
// Transfer. It is nil before Open.
func (e *Entry) Body() any { return e.body }

// BaseHead is the hash of the entry the proposer stood on; zero before Open.
func (e *Entry) BaseHead() (h [32]byte) {
	if e.opened {
		copy(h[:], e.plaintext)
	}
	return h
}

func (e *Entry) box() []byte { return e.raw[offBody : len(e.raw)-2*ed25519.SignatureSize] }
func (e *Entry) proposerSig() []byte {
	return e.raw[len(e.raw)-2*ed25519.SignatureSize : len(e.raw)-ed25519.SignatureSize]
}
func (e *Entry) commitSig() []byte { return e.raw[len(e.raw)-ed25519.SignatureSize:] }

// VerifyCommit checks the sequencer's signature under the given key. Apply
// does it with the state's; a node may do it earlier to drop a forgery before
// it fetches a key or keeps the entry.
func (e *Entry) VerifyCommit(sequencer ed25519.PublicKey) error {
	if !space.Verify(sequencer, space.LabelCtlCommit, e.commitSig(), e.raw[:len(e.raw)-ed25519.SignatureSize]) {
		return fmt.Errorf("control entry %d: sequencer's signature: %w", e.Seq, space.ErrForged)
	}
	return nil
}

// Open unseals the body with the control key of the epoch before the entry
// (nil when InClear), checks the proposal hash and decodes the body strictly.
// space.ErrNoKey: a key is needed; space.ErrForged: this is not the key, or
// the proposer signed something else. A failed Open leaves the entry as it was.
func (e *Entry) Open(ck []byte) error {
	if e.opened {
		return nil
	}
	plain, err := e.unseal(ck)
	if err != nil {
		return fmt.Errorf("open control entry %d: %w", e.Seq, err)
	}
	if proposalHash(e.Kind, e.SpaceID, plain) != e.ProposalHash {
		return fmt.Errorf("open control entry %d: proposal hash: %w", e.Seq, space.ErrForged)
	}
	body, err := decodeBody(e.Kind, plain[bodyStart:])
	if err != nil {
		return fmt.Errorf("open control entry %d: %v: %w", e.Seq, e.Kind, err)
	}
	e.plaintext, e.body, e.opened = plain, body, true
	return nil
}

func (e *Entry) unseal(ck []byte) ([]byte, error) {
	if e.InClear() {
		return e.box(), nil
	}
	aead, err := bodyCipher(ck)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, e.raw[offNonce:offBody], e.box(), e.raw[:offBody])
	if err != nil {
		return nil, fmt.Errorf("body: %w", space.ErrForged)
	}
	return plain, nil
}

func bodyCipher(ck []byte) (cipher.AEAD, error) {
	if len(ck) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("%w: control key is %d bytes, want 32", space.ErrNoKey, len(ck))
	}
	return chacha20poly1305.NewX(ck)
}

func proposalHash(k Kind, spaceID [32]byte, plaintext []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{byte(k)})
	h.Write(spaceID[:])
	h.Write(plaintext)
	return [32]byte(h.Sum(nil))
}
