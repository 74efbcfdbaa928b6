package control

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"github.com/kithnet/kith/space"
)

// Keeper is a member that does something for the space, and with which devices.
type Keeper struct {
	Slot    uint32
	Caps    Caps
	Devices [][32]byte // ascending
}

func (k Keeper) has(dev [32]byte) bool { return slices.Contains(k.Devices, dev) }

// powers is who may propose and order. It changes seldom; entries share it.
type powers struct {
	authority uint32   // slot
	root      [32]byte // the authority's identity key
	keepers   table[uint32, *Keeper]
	devices   table[string, uint32] // device bytes -> slot
}

func (p *powers) of(dev [32]byte) (slot uint32, caps Caps, authority bool) {
	if dev == p.root {
		return p.authority, CapAll, true
	}
	slot, ok := p.devices.get(string(dev[:]))
	if !ok {
		return 0, 0, false
	}
	k, _ := p.keepers.get(slot)
	return slot, k.Caps, slot == p.authority
}

// set gives a slot other capabilities and devices; none takes it out.
func (p *powers) set(k Keeper) *powers {
	n := *p
	if old, ok := n.keepers.get(k.Slot); ok {
		for _, d := range old.Devices {
			n.devices = n.devices.without(string(d[:]))
		}
	}
	if k.Caps == 0 {
		n.keepers = n.keepers.without(k.Slot)
		return &n
	}
	for _, d := range k.Devices {
		n.devices = n.devices.with(string(d[:]), k.Slot)
	}
	n.keepers = n.keepers.with(k.Slot, &k)
	return &n
}

// Keeper tells what the member at a slot may do for the space.
func (s *State) Keeper(slot uint32) (Keeper, bool) {
	k, ok := s.powers.keepers.get(slot)
	if !ok {
		return Keeper{}, false
	}
	return *k, true
}

// Keepers yields the keepers in slot order, the authority among them.
func (s *State) Keepers() iter.Seq[Keeper] {
	return func(yield func(Keeper) bool) {
		s.powers.keepers.scan(func(_ uint32, k *Keeper) bool { return yield(*k) })
	}
}

// DeviceCaps tells whose a device is, as far as keepers name theirs, and what
// it may do; the authority's identity key counts as its device.
func (s *State) DeviceCaps(dev [32]byte) (slot uint32, caps Caps, authority bool) {
	return s.powers.of(dev)
}

// Admitters yields the members with CapAdmit in slot order: those to whom an
// epoch's issuer is wrapped.
func (s *State) Admitters() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		s.powers.keepers.scan(func(slot uint32, k *Keeper) bool {
			m, ok := s.bySlot.get(slot)
			return !ok || !k.Caps.Has(CapAdmit) || yield(*m)
		})
	}
}

// admitters are the devices that admit, ascending.
func (s *State) admitters() [][32]byte {
	var out [][32]byte
	for k := range s.Keepers() {
		if k.Caps.Has(CapAdmit) {
			out = append(out, k.Devices...)
		}
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// setKeeper carries out a KeeperSet, its rotation apart.
func (s *State) setKeeper(b KeeperSet) (need, error) {
	m, err := s.named(b.Slot, b.C)
	if err != nil {
		return optional, err
	}
	old, _ := s.Keeper(b.Slot)
	switch {
	case b.Slot == s.AuthoritySlot && b.Caps != CapAll:
		return optional, fmt.Errorf("the authority keeps every capability: %w", space.ErrLastAuthority)
	case b.Caps != 0 && m.Level < space.LevelRead:
		return optional, malformed("a keeper reads, slot %d is at %v", b.Slot, m.Level)
	case b.Slot == s.SequencerSlot && !(b.Caps.Has(CapSequence) && slices.Contains(b.Devices, [32]byte(s.SequencerPub))):
		return optional, malformed("slot %d orders the log: appoint another first", b.Slot)
	case old.Caps == 0 && b.Caps != 0 && s.powers.keepers.m.Len() >= MaxKeepers:
		return optional, fmt.Errorf("%w: more than %d keepers", space.ErrTooLarge, MaxKeepers)
	case old.Caps == b.Caps && slices.Equal(old.Devices, b.Devices):
		return optional, malformed("nothing changes for slot %d", b.Slot)
	}
	for _, d := range b.Devices {
		if slot, taken := s.powers.devices.get(string(d[:])); taken && slot != b.Slot || d == s.powers.root {
			return optional, malformed("device %x is taken", d[:4])
		}
	}
	newly := b.Caps.Has(CapAdmit) && !old.Caps.Has(CapAdmit)
	if (newly && b.Rotation == nil) != (len(b.Issuer) > 0) {
		return optional, malformed("issuer wrap of %d bytes, new capability to admit: %v, rotation: %v", len(b.Issuer), newly, b.Rotation != nil)
	}
	lost := old.Caps.Has(CapAdmit) && !b.Caps.Has(CapAdmit)
	lost = lost || slices.ContainsFunc(old.Devices, func(d [32]byte) bool { return !slices.Contains(b.Devices, d) })
	s.powers = s.powers.set(Keeper{Slot: b.Slot, Caps: b.Caps, Devices: slices.Clone(b.Devices)})
	if lost {
		return required, nil
	}
	return optional, nil
}

func compareKeys(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }
