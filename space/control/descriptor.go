package control

import (
	"bytes"
	"crypto/ed25519"
	"fmt"

	"github.com/kithnet/kith/space"
)

// Limits of a descriptor.
const (
	// MaxDescriptor bounds an encoded descriptor.
	MaxDescriptor = 64 << 10
	// MaxDescendants bounds the spaces below one.
	MaxDescendants = 1000
	// MaxDelegationDepth is how many spaces may stand one within the other,
	// the outermost not counted.
	MaxDelegationDepth = 8
	// DescriptorLifeMs is how long a descriptor holds.
	DescriptorLifeMs = 10 * 60 * 1000

	descriptorSkewMs = 5 * 60 * 1000 // between the clocks of two sequencers
	maxDelegateKey   = 2048
)

// Descriptor is what a space says of itself to those that delegate to it,
// signed by its sequencer.
type Descriptor struct {
	_           struct{} `cbor:",toarray"`
	Space       [32]byte
	URI         string // in at:// form
	Epoch       uint64
	Delegate    []byte // KEM public key to which a parent seals its group key
	RosterRoot  [32]byte
	Head        space.Head
	Sequencer   [32]byte
	Keepers     [][32]byte // devices that admit, strictly ascending
	NotAfterMs  uint64
	Depth       uint32     // of the deepest chain of spaces below this one
	Descendants [][32]byte // every space below this one, strictly ascending
	Sig         [64]byte   // Sign(Sequencer, "desc", the encoding with a zero Sig)
}

var descriptorCodec = codec[Descriptor]{Descriptor.check, func(d Descriptor) Descriptor {
	d.Delegate, d.Keepers, d.Descendants = absent(d.Delegate), absent(d.Keepers), absent(d.Descendants)
	return d
}}

// Describe is the descriptor of s, signed by its sequencer, good for
// DescriptorLifeMs. delegate is the KEM public key of the current group key.
func (s *State) Describe(delegate []byte, sequencer ed25519.PrivateKey, nowMs int64) (Descriptor, error) {
	if !s.SequencerPub.Equal(sequencer.Public()) {
		return Descriptor{}, fmt.Errorf("describe: not the sequencer's key: %w", space.ErrForbidden)
	}
	depth, below := s.below()
	d := Descriptor{
		Space: s.SpaceID, URI: s.ID.AT(), Epoch: s.Epoch, Delegate: delegate, RosterRoot: s.RosterRoot(),
		Head: s.Head, Sequencer: [32]byte(s.SequencerPub), Keepers: s.admitters(),
		NotAfterMs: uint64(nowMs + DescriptorLifeMs), Depth: depth, Descendants: below,
	}
	return d.Sign(sequencer)
}

// Sign gives d with the signature of sk, whose public half is d.Sequencer.
func (d Descriptor) Sign(sk ed25519.PrivateKey) (Descriptor, error) {
	m, err := d.message()
	if err != nil {
		return Descriptor{}, fmt.Errorf("descriptor: %w", err)
	}
	copy(d.Sig[:], space.Sign(sk, space.LabelDescriptor, m))
	return d, nil
}

func (d Descriptor) message() ([]byte, error) {
	d.Sig = [64]byte{}
	return descriptorCodec.encode(d)
}

// Encode gives the bytes for Delegation.Descriptor.
func (d Descriptor) Encode() ([]byte, error) {
	b, err := descriptorCodec.encode(d)
	if err == nil && len(b) > MaxDescriptor {
		err = fmt.Errorf("%w: %d bytes", space.ErrTooLarge, len(b))
	}
	if err != nil {
		return nil, fmt.Errorf("descriptor: %w", err)
	}
	return b, nil
}

// ParseDescriptor reads what Encode wrote, and verifies the signature by the
// key that the descriptor itself names.
func ParseDescriptor(b []byte) (Descriptor, error) {
	if len(b) > MaxDescriptor {
		return Descriptor{}, fmt.Errorf("descriptor: %w: %d bytes", space.ErrTooLarge, len(b))
	}
	d, err := descriptorCodec.decode(b)
	if err != nil {
		return Descriptor{}, fmt.Errorf("descriptor: %w", err)
	}
	m, err := d.message()
	if err != nil {
		return Descriptor{}, fmt.Errorf("descriptor: %w", err)
	}
	if !space.Verify(d.Sequencer[:], space.LabelDescriptor, d.Sig[:], m) {
		return Descriptor{}, fmt.Errorf("descriptor: signature: %w", space.ErrForged)
	}
	return d, nil
}

// Verify asks whether d holds at nowMs: space.ErrStaleDescriptor if it ran
// out, space.ErrMalformed if it wants to live too long.
func (d Descriptor) Verify(nowMs int64) error {
	switch {
	case nowMs >= int64(d.NotAfterMs):
		return fmt.Errorf("descriptor ran out at %d, it is %d: %w", d.NotAfterMs, nowMs, space.ErrStaleDescriptor)
	case int64(d.NotAfterMs) > nowMs+DescriptorLifeMs+descriptorSkewMs:
		return malformed("descriptor good until %d, it is %d", d.NotAfterMs, nowMs)
	}
	return nil
}

func (d Descriptor) check() error {
	id, err := space.ParseID(d.URI)
	if err != nil {
		return err
	}
	if err := space.CheckPublicKey(d.Sequencer[:]); err != nil {
		return fmt.Errorf("sequencer: %w", err)
	}
	switch {
	case id.AT() != d.URI:
		return fmt.Errorf("%w: uri %q", space.ErrNotCanonical, d.URI)
	case d.Space == [32]byte{} || d.Epoch == 0:
		return malformed("space %x in epoch %d", d.Space[:4], d.Epoch)
	case len(d.Delegate) == 0 || len(d.Delegate) > maxDelegateKey:
		return malformed("delegate key of %d bytes", len(d.Delegate))
	case d.NotAfterMs > MaxTime:
		return malformed("good until %d", d.NotAfterMs)
	case len(d.Keepers) > MaxKeepers*MaxKeeperDevices || len(d.Descendants) > MaxDescendants:
		return fmt.Errorf("%w: %d keepers, %d spaces below", space.ErrTooLarge, len(d.Keepers), len(d.Descendants))
	case (d.Depth == 0) != (len(d.Descendants) == 0):
		return malformed("depth %d with %d spaces below", d.Depth, len(d.Descendants))
	}
	if err := ascending(d.Keepers); err != nil {
		return fmt.Errorf("keepers: %w", err)
	}
	if err := ascending(d.Descendants); err != nil {
		return fmt.Errorf("spaces below: %w", err)
	}
	return nil
}

func ascending(list [][32]byte) error {
	for i := 1; i < len(list); i++ {
		if bytes.Compare(list[i-1][:], list[i][:]) >= 0 {
			return malformed("item %d is out of order", i)
		}
	}
	return nil
}
