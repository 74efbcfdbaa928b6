package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kithnet/kith/space"
)

// ErrOrder: an entry whose seq or prev is not the one after the head. It may
// be valid elsewhere: a later entry of this log, or of a fork of it.
var ErrOrder = errors.New("identity log entry does not follow the head")

// State is what a verified log says. The zero State is the one before genesis.
// It is a value: Apply returns another and leaves this one as it was. Its
// slices and maps are for reading only.
type State struct {
	C       Commitment
	SigPub  ed25519.PublicKey // id_sig
	KEMPub  []byte            // id_kem
	DID     space.DID         // bound both ways, or empty
	Devices map[DeviceID]DeviceInfo
	PUK     PUKPublic
	Seq     uint64   // of the head
	Head    [32]byte // SHA-256 of the last entry
	TimeMs  int64    // what the last entry says; advisory

	rootWrap    []byte
	wraps       map[DeviceID][]byte
	generations []generation        // [g-1] is generation g
	revoked     map[DeviceID]uint32 // the generation each revocation made
	fresh       uint32              // the generation the last revocation made
}

type generation struct {
	public PUKPublic
	prev   []byte
}

// Verify reads a whole log, genesis first.
func Verify(log [][]byte) (State, error) {
	if len(log) == 0 {
		return State{}, fmt.Errorf("identity log: %w: empty", space.ErrMalformed)
	}
	return State{}.Extend(log)
}

// Extend applies entries that follow the head.
func (s State) Extend(entries [][]byte) (State, error) {
	if len(entries) > MaxEntries {
		return State{}, fmt.Errorf("identity log: %w: %d entries, at most %d", space.ErrTooLarge, len(entries), MaxEntries)
	}
	n := s.clone()
	for i, raw := range entries {
		if err := n.step(raw); err != nil {
			return State{}, fmt.Errorf("identity log entry %d: %w", i, err)
		}
	}
	return n, nil
}

// Apply is the state after one more entry.
func (s State) Apply(raw []byte) (State, error) {
	n := s.clone()
	if err := n.step(raw); err != nil {
		return State{}, fmt.Errorf("identity log entry: %w", err)
	}
	return n, nil
}

// IsZero reports whether s is the state before genesis.
func (s State) IsZero() bool { return s.SigPub == nil }

// BoundDID is the DID whose key signed C and which C's identity key signed.
func (s State) BoundDID() (space.DID, bool) { return s.DID, s.DID != "" }

// Device is a live device of this identity.
func (s State) Device(id DeviceID) (DeviceInfo, bool) {
	d, ok := s.Devices[id]
	return d, ok
}

// Can reports whether id is a live device that holds all of caps.
func (s State) Can(id DeviceID, caps Caps) bool {
	d, ok := s.Devices[id]
	return ok && d.Caps&caps == caps
}

// Revoked reports whether id was a device once and is none for ever.
func (s State) Revoked(id DeviceID) bool {
	_, ok := s.revoked[id]
	return ok
}

// Stale reports whether a revoked device can open what is sealed to
// generation gen: it has to be sealed anew, to the current one.
func (s State) Stale(gen uint32) bool { return gen < s.fresh }

// Since is the part of log after the entry whose hash is head; all of it for
// the zero head. False: log does not hold that entry. It does not verify.
func Since(log [][]byte, head [32]byte) ([][]byte, bool) {
	if head == ([32]byte{}) {
		return log, true
	}
	for i := len(log) - 1; i >= 0; i-- {
		if sha256.Sum256(log[i]) == head {
			return log[i+1:], true
		}
	}
	return nil, false
}

func (s State) clone() State {
	s.Devices, s.revoked = maps.Clone(s.Devices), maps.Clone(s.revoked)
	s.generations = slices.Clip(s.generations)
	return s
}

func (s State) generation(g uint32) (generation, bool) {
	if g == 0 || uint64(g) > uint64(len(s.generations)) {
		return generation{}, false
	}
	return s.generations[g-1], true
}

// sortedDevices is the order of wraps.
func sortedDevices(m map[DeviceID]DeviceInfo) []DeviceID {
	return slices.SortedFunc(maps.Keys(m), func(a, b DeviceID) int { return bytes.Compare(a[:], b[:]) })
}

// step applies raw in place; after an error s is of no use.
func (s *State) step(raw []byte) error {
	e, err := parseEntry(raw)
	if err != nil {
		return err
	}
	if s.IsZero() {
		err = s.genesis(e, raw)
	} else {
		err = s.follow(e, raw)
	}
	if err != nil {
		return err
	}
	s.Seq, s.Head, s.TimeMs = e.Seq, sha256.Sum256(raw), e.TimeMs
	return nil
}

// follow applies any entry but the first: order, then who signs, then the
// signature, then the rules of its kind.
func (s *State) follow(e *entry, raw []byte) error {
	switch {
	case e.C != s.C:
		return fmt.Errorf("%w: of another identity", ErrOrder)
	case e.Seq != s.Seq+1:
		return fmt.Errorf("%w: seq %d after %d", ErrOrder, e.Seq, s.Seq)
	case e.Prev != s.Head:
		return fmt.Errorf("%w: seq %d names another predecessor", ErrOrder, e.Seq)
	case e.Seq >= MaxEntries:
		return fmt.Errorf("%w: seq %d, a log has at most %d entries", space.ErrTooLarge, e.Seq, MaxEntries)
	case e.TimeMs < 0:
		return fmt.Errorf("%w: time %d", space.ErrMalformed, e.TimeMs)
	}
	if err := s.maySign(e); err != nil {
		return err
	}
	if !e.verified(raw) {
		return fmt.Errorf("%w: signature of %x…", space.ErrForged, e.Signer[:4])
	}
	switch e.Kind {
	case KindBindDID:
		return s.bindDID(e)
	case KindAddDevice:
		return s.addDevice(e)
	case KindPUK:
		return s.rotate(e)
	case KindRevokeDevice:
		return s.revokeDevice(e)
	case KindPrekeys, KindRetire:
		return fmt.Errorf("%w: entry kind %d", space.ErrUnsupported, e.Kind)
	default:
		return fmt.Errorf("%w: entry kind %d", space.ErrMalformed, e.Kind)
	}
}

// maySign: the identity key signs anything, a live device with CapEnroll
// anything but bind-did, which is the identity key's half of the binding.
func (s *State) maySign(e *entry) error {
	if string(e.Signer[:]) == string(s.SigPub) {
		return nil
	}
	d, live := s.Devices[DeviceID(e.Signer)]
	switch {
	case s.Revoked(DeviceID(e.Signer)):
		return fmt.Errorf("%w: signer %x… is a revoked device", space.ErrForbidden, e.Signer[:4])
	case !live:
		return fmt.Errorf("%w: signer %x… is neither the identity key nor a live device", space.ErrForbidden, e.Signer[:4])
	case d.Caps&CapEnroll == 0:
		return fmt.Errorf("%w: device %x… may not sign identity log entries", space.ErrForbidden, e.Signer[:4])
	case e.Kind == KindBindDID:
		return fmt.Errorf("%w: only the identity key binds a DID", space.ErrForbidden)
	}
	return nil
}
