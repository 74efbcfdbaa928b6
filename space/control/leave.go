package control

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

const maxLeave = 128 << 10 // an encoded statement; its identity log is nearly all of it

// LeaveStatement is a member's word that it wants out, for a keeper to propose
// when the authority is away. It names the slot: whoever is added again cannot
// be put out with an old one.
type LeaveStatement struct {
	_      struct{} `cbor:",toarray"`
	Space  [32]byte
	Slot   uint32
	C      identity.Commitment
	Log    [][]byte // the member's identity log; it must hold the roster's head of it
	Device [32]byte // a live device of that log
	Sig    [64]byte // Sign(Device, "leave", space ‖ u32 slot ‖ C)
}

var leaveCodec = codec[LeaveStatement]{LeaveStatement.check, func(l LeaveStatement) LeaveStatement {
	l.Log = absent(l.Log)
	return l
}}

// SignLeave says for the member m of a space that it leaves.
func SignLeave(spaceID [32]byte, m Member, log [][]byte, device ed25519.PrivateKey) LeaveStatement {
	l := LeaveStatement{Space: spaceID, Slot: m.Slot, C: m.C, Log: log}
	copy(l.Device[:], device.Public().(ed25519.PublicKey))
	copy(l.Sig[:], space.Sign(device, space.LabelLeave, l.message()))
	return l
}

func (l LeaveStatement) message() []byte {
	b := append([]byte(nil), l.Space[:]...)
	b = binary.BigEndian.AppendUint32(b, l.Slot)
	return append(b, l.C[:]...)
}

// Encode gives the bytes for MemberRemove.Leave.
func (l LeaveStatement) Encode() ([]byte, error) {
	b, err := leaveCodec.encode(l)
	if err == nil && len(b) > maxLeave {
		err = fmt.Errorf("%w: %d bytes", space.ErrTooLarge, len(b))
	}
	if err != nil {
		return nil, fmt.Errorf("leave statement: %w", err)
	}
	return b, nil
}

// DecodeLeave reads what Encode wrote, and nothing else. It does not verify.
func DecodeLeave(b []byte) (LeaveStatement, error) {
	if len(b) > maxLeave {
		return LeaveStatement{}, fmt.Errorf("leave statement: %w: %d bytes", space.ErrTooLarge, len(b))
	}
	l, err := leaveCodec.decode(b)
	if err != nil {
		return LeaveStatement{}, fmt.Errorf("leave statement: %w", err)
	}
	return l, nil
}

func (l LeaveStatement) check() error {
	if err := space.CheckPublicKey(l.Device[:]); err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if len(l.Log) == 0 || len(l.Log) > identity.MaxEntries {
		return malformed("identity log of %d entries", len(l.Log))
	}
	return nil
}

// verify asks whether m itself said it, in this space.
func (l LeaveStatement) verify(spaceID [32]byte, m *Member) error {
	if l.Space != spaceID || l.Slot != m.Slot || l.C != m.C {
		return fmt.Errorf("leave statement of another member: %w", space.ErrForged)
	}
	if !space.Verify(l.Device[:], space.LabelLeave, l.Sig[:], l.message()) {
		return fmt.Errorf("leave statement: signature: %w", space.ErrForged)
	}
	if _, err := provenDevice(l.Log, m, l.Device); err != nil {
		return fmt.Errorf("leave statement: %w", err)
	}
	return nil
}

// provenDevice verifies an identity log as that of m, no older than the roster
// knows it, with device alive in it.
func provenDevice(log [][]byte, m *Member, device [32]byte) (identity.State, error) {
	id, err := identity.Verify(log)
	switch {
	case err != nil:
		return id, err
	case id.C != m.C:
		return id, fmt.Errorf("identity log of another: %w", space.ErrForged)
	}
	if _, ok := identity.Since(log, m.ILHead); !ok {
		return id, fmt.Errorf("identity log lacks the entry that the roster names: %w", space.ErrForged)
	}
	if _, live := id.Device(device); !live {
		return id, fmt.Errorf("no live device %x of it: %w", device[:4], space.ErrForged)
	}
	return id, nil
}
