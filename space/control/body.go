package control

import (
	"crypto/ed25519"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Limits of the bodies.
const (
	// PageSlots is how many wraps a page of an epoch holds, the last one fewer.
	PageSlots = 40

	maxSealed   = 4096  // one wrapped key: an X-Wing wrap is 1,168 bytes
	maxInner    = 16384 // the sealed inner body of an epoch
	maxRelays   = 16
	maxAddrSize = 256 // one relay or multiaddr as text
	maxLink     = 256 // a sealed 32-byte key
)

// Genesis founds a space. Everything in it that could be a lie is proven by
// IdentityLog; see Apply.
type Genesis struct {
	_            struct{} `cbor:",toarray"`
	URI          string   // the space in at:// form
	SpaceDID     space.DID
	AuthorityC   identity.Commitment
	AuthorityDID space.DID
	CreatorDID   space.DID
	IdentityLog  [][]byte // the authority's, from its genesis
	AuthorityPub [32]byte // id_sig of that log
	SequencerPub [32]byte // a live device of that log: the one that proposes and orders
	Policy       space.Policy
	// SpaceProof is the signature of the space's own DID over the authority:
	// nil when the space stands under its authority's DID. See SignSpaceDID.
	SpaceProof *[64]byte `cbor:"-"`
}

// MemberAdd admits C under the slot given to nobody before. With an invite,
// InviteID is its 16 bytes and Use the number of this use, from 1; without
// one, both are empty. PublicDoor stands for an invite, with use 1, where the
// policy mints for everybody.
type MemberAdd struct {
	_        struct{} `cbor:",toarray"`
	Slot     uint32
	C        identity.Commitment
	DID      space.DID
	Level    space.Level
	ILHead   [32]byte // head of the identity log the keeper verified
	InviteID []byte
	Use      uint32
}

// PublicDoor is the invite id of those whom mint "public" lets in.
var PublicDoor [16]byte

// Epoch opens epoch N under a new group key; from N = 2 on it stands in a
// Rotation. Wraps hold it for each reader of
// the roster in slot order; a roster too large for one entry has Pages
// instead: the hashes of sealed objects of PageSlots wraps each, fetched apart
// and checked by each reader for its own slot. Inner is an EpochInner sealed
// under the control key of N itself.
type Epoch struct {
	_          struct{} `cbor:",toarray"`
	N          uint64
	KID        [32]byte // commitment to the group key
	Wraps      []Wrap
	Pages      [][32]byte
	Cuts       []Cut
	RosterRoot [32]byte
	Inner      []byte
}

// Wrap is the group key sealed to one member's per-user key.
type Wrap struct {
	_      struct{} `cbor:",toarray"`
	Slot   uint32
	C      identity.Commitment
	PUKGen uint32
	Sealed []byte
}

// Cut is an envelope of a chain up to which, with it, the chain counts.
type Cut struct {
	_     struct{} `cbor:",toarray"`
	Chain [32]byte
	Seq   uint64
	ID    [32]byte
}

// EpochInner is what only those of the new epoch may read.
type EpochInner struct {
	_         struct{} `cbor:",toarray"`
	IssuerPub [32]byte
	FetchPub  [32]byte
	Relays    []string
	CtlLink   []byte // the control key of the epoch before, sealed under this one; empty in epoch 1
	PrevLink  []byte // likewise the group key, when history is full

	// Descriptor is the topic's, for relays (envelope.Descriptor, 145 bytes): with
	// it any member can lease the topic. Empty in logs from before there were
	// relays.
	Descriptor []byte `cbor:"-"`
}

// describedInner is an EpochInner with its descriptor as it is encoded.
type describedInner struct {
	_          struct{} `cbor:",toarray"`
	Inner      EpochInner
	Descriptor []byte
}

// Invite opens a door for who holds the private half of Pub.
type Invite struct {
	_             struct{} `cbor:",toarray"`
	ID            [16]byte // InviteID(Pub)
	Pub           [32]byte
	Level         space.Level
	MaxUses       uint32 // 0: no limit
	ExpiresMs     uint64 // Unix milliseconds, 0: never
	NeedsApproval bool
}

// InviteID names an invite: the first 16 bytes of Hash("invite", pub).
func InviteID(pub ed25519.PublicKey) [16]byte {
	h := space.Hash(space.LabelInvite, pub)
	return [16]byte(h[:16])
}

// Issuer is the public half of the epoch's issuer key.
func (x EpochInner) Issuer() ed25519.PublicKey { return x.IssuerPub[:] }

// Encode gives the bytes to seal into Epoch.Inner.
func (x EpochInner) Encode() ([]byte, error) {
	var b []byte
	var err error
	if len(x.Descriptor) == 0 {
		b, err = innerCodec.encode(x)
	} else {
		b, err = describedCodec.encode(describedInner{Inner: x, Descriptor: x.Descriptor})
	}
	if err != nil {
		return nil, fmt.Errorf("inner epoch body: %w", err)
	}
	return b, nil
}

// DecodeEpochInner reads what Encode wrote, and nothing else.
func DecodeEpochInner(b []byte) (EpochInner, error) {
	var x EpochInner
	var err error
	if hasShape(b, 2) {
		var d describedInner
		d, err = describedCodec.decode(b)
		x = d.Inner
		x.Descriptor = d.Descriptor
	} else {
		x, err = innerCodec.decode(b)
	}
	if err != nil {
		return EpochInner{}, fmt.Errorf("inner epoch body: %w", err)
	}
	return x, nil
}

func absent[S ~[]E, E any](s S) S {
	if len(s) == 0 {
		return nil
	}
	return s
}

func (g Genesis) normal() Genesis {
	g.IdentityLog, g.Policy = absent(g.IdentityLog), normalPolicy(g.Policy)
	return g
}

func (m MemberAdd) normal() MemberAdd {
	m.InviteID = absent(m.InviteID)
	return m
}

func (x Epoch) normal() Epoch {
	x.Wraps, x.Pages, x.Cuts = absent(x.Wraps), absent(x.Pages), absent(x.Cuts)
	return x
}

func (x EpochInner) normal() EpochInner {
	x.Relays, x.CtlLink, x.PrevLink = absent(x.Relays), absent(x.CtlLink), absent(x.PrevLink)
	return x
}

func normalPolicy(p space.Policy) space.Policy {
	p.Allow, p.Config = absent(p.Allow), absent(p.Config)
	return p
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{space.ErrMalformed}, args...)...)
}

func (g Genesis) check() error {
	if err := space.CheckPublicKey(g.AuthorityPub[:]); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := space.CheckPublicKey(g.SequencerPub[:]); err != nil {
		return fmt.Errorf("sequencer: %w", err)
	}
	return nil
}

func (m MemberAdd) check() error {
	switch {
	case m.C == identity.Commitment{}:
		return malformed("no commitment")
	case !validLevel(m.Level):
		return malformed("level %d", m.Level)
	case len(m.InviteID) == 0 && m.Use != 0:
		return malformed("use %d of no invite", m.Use)
	case len(m.InviteID) != 0 && (len(m.InviteID) != 16 || m.Use == 0):
		return malformed("invite id of %d bytes, use %d", len(m.InviteID), m.Use)
	}
	return nil
}

func (x Epoch) check() error {
	switch {
	case x.KID == [32]byte{}:
		return malformed("no key commitment")
	case (len(x.Wraps) == 0) == (len(x.Pages) == 0):
		return malformed("%d wraps and %d pages, want one of the two", len(x.Wraps), len(x.Pages))
	case len(x.Inner) == 0 || len(x.Inner) > maxInner:
		return malformed("inner body of %d bytes", len(x.Inner))
	}
	if err := checkCuts(x.Cuts); err != nil {
		return err
	}
	return checkSealed(x.Wraps)
}

// maxDescriptor bounds a descriptor, whose form relays and their clients check.
const maxDescriptor = 256

func (d describedInner) check() error {
	if len(d.Descriptor) == 0 || len(d.Descriptor) > maxDescriptor {
		return malformed("descriptor of %d bytes", len(d.Descriptor))
	}
	return d.Inner.check()
}

func (d describedInner) normal() describedInner {
	d.Inner = d.Inner.normal()
	return d
}

func (x EpochInner) check() error {
	if err := space.CheckPublicKey(x.IssuerPub[:]); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if err := space.CheckPublicKey(x.FetchPub[:]); err != nil {
		return fmt.Errorf("fetch key: %w", err)
	}
	if len(x.Relays) > maxRelays || len(x.CtlLink) > maxLink || len(x.PrevLink) > maxLink {
		return fmt.Errorf("%w: %d relays, links of %d and %d bytes", space.ErrTooLarge, len(x.Relays), len(x.CtlLink), len(x.PrevLink))
	}
	for _, r := range x.Relays {
		if err := checkAddr(r); err != nil {
			return fmt.Errorf("relay: %w", err)
		}
	}
	return nil
}

func (v Invite) check() error {
	if err := space.CheckPublicKey(v.Pub[:]); err != nil {
		return fmt.Errorf("invite key: %w", err)
	}
	switch {
	case v.ID != InviteID(v.Pub[:]):
		return malformed("invite id is not that of its key")
	case !validLevel(v.Level):
		return malformed("level %d", v.Level)
	case v.ExpiresMs > MaxTime:
		return malformed("expiry %d", v.ExpiresMs)
	}
	return nil
}

func validLevel(l space.Level) bool {
	return l == space.LevelReadSelf || l == space.LevelRead || l == space.LevelWrite
}
