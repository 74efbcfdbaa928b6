package control

import (
	"bytes"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Limits of the bodies that change a membership.
const (
	// MaxCuts bounds the cuts of a rotation and the heads of a checkpoint.
	MaxCuts = 3000
	// MaxEnded bounds the commitments that a rotation ends beside those it is for.
	MaxEnded = 256
	// MaxKeepers bounds the members with capabilities.
	MaxKeepers = 64
	// MaxKeeperDevices bounds the devices of one keeper.
	MaxKeeperDevices = 16
	// MaxInlineWraps is the largest number of readers whose wraps a builder puts
	// into the entry; a larger roster has pages.
	MaxInlineWraps = 64
	// MaxReason bounds the reason of a deletion.
	MaxReason = 1000
)

// Rotation opens epoch N >= 2. It is the body of an epoch entry from there on
// and rides in every entry that takes reading or writing from somebody.
type Rotation struct {
	_       struct{} `cbor:",toarray"`
	Epoch   Epoch    // Cuts strictly ascending by chain, at most MaxCuts
	Issuers []Wrap   // the seed of the epoch's issuer for each member with CapAdmit, by slot
	// Ended are others whose chains of the epochs before N count only up to their
	// cut, and not at all without one: strictly ascending. Whom the entry itself
	// removes or lowers is ended without being listed.
	Ended []identity.Commitment
}

// MemberRemove takes a member out. Under key policy rotate it carries the
// rotation, under static none.
type MemberRemove struct {
	_        struct{} `cbor:",toarray"`
	Slot     uint32
	C        identity.Commitment
	Leave    []byte // an encoded LeaveStatement unless the authority proposes
	Rotation *Rotation
}

// MemberLevel changes a member's level. A drop rotates, a raise does not.
type MemberLevel struct {
	_        struct{} `cbor:",toarray"`
	Slot     uint32
	C        identity.Commitment
	Level    space.Level
	Rotation *Rotation
}

// PolicyChange is the new policy. Without a rotation its encoding is that of
// the plain policy.
type PolicyChange struct {
	_        struct{} `cbor:",toarray"`
	Policy   space.Policy
	Rotation *Rotation
}

// InviteRevoke ends an invite; with a rotation, so that what a link let in
// ends with it.
type InviteRevoke struct {
	_        struct{} `cbor:",toarray"`
	ID       [16]byte
	Rotation *Rotation
}

// KeeperSet says what a member may do for the space and with which devices,
// instead of what was said before. Caps 0 and no device: it is no keeper.
type KeeperSet struct {
	_        struct{} `cbor:",toarray"`
	Slot     uint32
	C        identity.Commitment
	Caps     Caps
	Devices  [][32]byte // strictly ascending
	Issuer   []byte     // the current issuer's seed, sealed: exactly with a new CapAdmit and no rotation
	Rotation *Rotation
}

// Sequencer appoints who orders the log. Its body is in clear; an authority
// key proposes and commits it, and its prev is the head that is accepted.
type Sequencer struct {
	_      struct{} `cbor:",toarray"`
	Slot   uint32
	Device [32]byte
}

// Delegation makes the space Child a member at Level, in a slot of its own.
// LevelNone ends it; the same child again brings a fresh descriptor.
type Delegation struct {
	_          struct{} `cbor:",toarray"`
	Slot       uint32
	Child      [32]byte
	Level      space.Level
	Descriptor []byte // an encoded Descriptor; none at LevelNone
	Rotation   *Rotation
}

// Checkpoint makes a topic's history final below Heads.
type Checkpoint struct {
	_      struct{} `cbor:",toarray"`
	Epoch  uint64
	Topic  [32]byte
	Count  uint64
	Digest [32]byte
	Heads  []Cut // strictly ascending by chain
}

// Delete ends the space. Nothing may follow.
type Delete struct {
	_      struct{} `cbor:",toarray"`
	Reason string
}

var (
	rotationCodec   = codec[Rotation]{Rotation.check, Rotation.normal}
	removeCodec     = codec[MemberRemove]{MemberRemove.check, MemberRemove.normal}
	levelCodec      = codec[MemberLevel]{MemberLevel.check, MemberLevel.normal}
	changeCodec     = codec[PolicyChange]{PolicyChange.check, PolicyChange.normal}
	revokeCodec     = codec[InviteRevoke]{InviteRevoke.check, InviteRevoke.normal}
	keeperCodec     = codec[KeeperSet]{KeeperSet.check, KeeperSet.normal}
	sequencerCodec  = codec[Sequencer]{Sequencer.check, func(v Sequencer) Sequencer { return v }}
	delegationCodec = codec[Delegation]{Delegation.check, Delegation.normal}
	checkpointCodec = codec[Checkpoint]{Checkpoint.check, Checkpoint.normal}
	deleteCodec     = codec[Delete]{Delete.check, func(v Delete) Delete { return v }}
)

func (r *Rotation) normalised() *Rotation {
	if r == nil {
		return nil
	}
	n := r.normal()
	return &n
}

func (r *Rotation) checkIf() error {
	if r == nil {
		return nil
	}
	return r.check()
}

func (r Rotation) normal() Rotation {
	r.Epoch, r.Issuers, r.Ended = r.Epoch.normal(), absent(r.Issuers), absent(r.Ended)
	return r
}

func (m MemberRemove) normal() MemberRemove {
	m.Leave, m.Rotation = absent(m.Leave), m.Rotation.normalised()
	return m
}

func (m MemberLevel) normal() MemberLevel {
	m.Rotation = m.Rotation.normalised()
	return m
}

func (p PolicyChange) normal() PolicyChange {
	p.Policy, p.Rotation = normalPolicy(p.Policy), p.Rotation.normalised()
	return p
}

func (v InviteRevoke) normal() InviteRevoke {
	v.Rotation = v.Rotation.normalised()
	return v
}

func (k KeeperSet) normal() KeeperSet {
	k.Devices, k.Issuer, k.Rotation = absent(k.Devices), absent(k.Issuer), k.Rotation.normalised()
	return k
}

func (d Delegation) normal() Delegation {
	d.Descriptor, d.Rotation = absent(d.Descriptor), d.Rotation.normalised()
	return d
}

func (c Checkpoint) normal() Checkpoint {
	c.Heads = absent(c.Heads)
	return c
}

func (r Rotation) check() error {
	if r.Epoch.N < 2 {
		return malformed("rotation to epoch %d", r.Epoch.N)
	}
	if err := r.Epoch.check(); err != nil {
		return err
	}
	if len(r.Issuers) > MaxKeepers || len(r.Ended) > MaxEnded {
		return fmt.Errorf("%w: %d issuer wraps, %d ended", space.ErrTooLarge, len(r.Issuers), len(r.Ended))
	}
	if err := checkSealed(r.Issuers); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	for i, c := range r.Ended {
		if c == (identity.Commitment{}) || i > 0 && bytes.Compare(r.Ended[i-1][:], c[:]) >= 0 {
			return malformed("ended %d is zero or out of order", i)
		}
	}
	return nil
}

func checkSealed(wraps []Wrap) error {
	for _, w := range wraps {
		if len(w.Sealed) == 0 || len(w.Sealed) > maxSealed {
			return malformed("wrap of %d bytes", len(w.Sealed))
		}
	}
	return nil
}

// checkCuts wants each chain once, so that a list has one order.
func checkCuts(cuts []Cut) error {
	if len(cuts) > MaxCuts {
		return fmt.Errorf("%w: %d chains, at most %d", space.ErrTooLarge, len(cuts), MaxCuts)
	}
	for i := 1; i < len(cuts); i++ {
		if bytes.Compare(cuts[i-1].Chain[:], cuts[i].Chain[:]) >= 0 {
			return malformed("chain %d is out of order", i)
		}
	}
	return nil
}

func (m MemberRemove) check() error {
	switch {
	case m.C == identity.Commitment{}:
		return malformed("no commitment")
	case len(m.Leave) > maxLeave:
		return fmt.Errorf("%w: leave statement of %d bytes", space.ErrTooLarge, len(m.Leave))
	}
	return m.Rotation.checkIf()
}

func (m MemberLevel) check() error {
	switch {
	case m.C == identity.Commitment{}:
		return malformed("no commitment")
	case !validLevel(m.Level):
		return malformed("level %d", m.Level)
	}
	return m.Rotation.checkIf()
}

func (p PolicyChange) check() error { return p.Rotation.checkIf() }

func (v InviteRevoke) check() error { return v.Rotation.checkIf() }

func (k KeeperSet) check() error {
	switch {
	case k.C == identity.Commitment{}:
		return malformed("no commitment")
	case k.Caps&^CapAll != 0:
		return fmt.Errorf("%w: capabilities %#x", space.ErrUnsupported, uint32(k.Caps))
	case (k.Caps == 0) != (len(k.Devices) == 0):
		return malformed("capabilities %v with %d devices", k.Caps, len(k.Devices))
	case len(k.Devices) > MaxKeeperDevices:
		return fmt.Errorf("%w: %d devices of one keeper", space.ErrTooLarge, len(k.Devices))
	case len(k.Issuer) > maxSealed:
		return malformed("issuer wrap of %d bytes", len(k.Issuer))
	}
	for i, d := range k.Devices {
		if err := space.CheckPublicKey(d[:]); err != nil {
			return fmt.Errorf("device: %w", err)
		}
		if i > 0 && bytes.Compare(k.Devices[i-1][:], d[:]) >= 0 {
			return malformed("device %d is out of order", i)
		}
	}
	return k.Rotation.checkIf()
}

func (q Sequencer) check() error {
	if err := space.CheckPublicKey(q.Device[:]); err != nil {
		return fmt.Errorf("sequencer: %w", err)
	}
	return nil
}

func (d Delegation) check() error {
	switch {
	case d.Child == [32]byte{}:
		return malformed("no space")
	case d.Level != space.LevelNone && d.Level != space.LevelRead && d.Level != space.LevelWrite:
		return malformed("a space delegates to another at read or write, not at %v", d.Level)
	case (d.Level == space.LevelNone) != (len(d.Descriptor) == 0):
		return malformed("level %v with a descriptor of %d bytes", d.Level, len(d.Descriptor))
	case len(d.Descriptor) > MaxDescriptor:
		return fmt.Errorf("%w: descriptor of %d bytes", space.ErrTooLarge, len(d.Descriptor))
	}
	return d.Rotation.checkIf()
}

func (c Checkpoint) check() error {
	if c.Epoch == 0 || c.Topic == [32]byte{} {
		return malformed("checkpoint of epoch %d, topic %x", c.Epoch, c.Topic[:4])
	}
	return checkCuts(c.Heads)
}

func (d Delete) check() error {
	if len(d.Reason) > MaxReason {
		return fmt.Errorf("%w: reason of %d bytes", space.ErrTooLarge, len(d.Reason))
	}
	return nil
}
