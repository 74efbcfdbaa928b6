package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
)

// The caps of an identity log.
const (
	MaxEntries = 1000     // entries of a log
	MaxEntry   = 64 << 10 // bytes of an entry
	MaxDevices = 50       // live devices: their wraps share one entry
)

// Kind says what an entry does.
type Kind uint8

// The kinds of entries. Those from KindPrekeys on have their numbers reserved
// and are refused with space.ErrUnsupported.
const (
	KindGenesis      Kind = 1 // the identity keys, a pure function of the seed
	KindBindDID      Kind = 2 // the DID that is this person's
	KindAddDevice    Kind = 3
	KindPUK          Kind = 4 // the next per-user key
	KindRevokeDevice Kind = 5 // and, in the same entry, the next per-user key
	KindPrekeys      Kind = 6
	KindRetire       Kind = 7
)

// version of the entry format.
const version = 1

// entry on the wire is the DRISL array
//
//	[ver, C 32, seq, prev 32, kind, body (bytes, DRISL within), time_ms, signer 32, sig 64]
//
// prev is the SHA-256 of the whole entry before, zero in genesis; time_ms is
// advisory, zero in genesis; sig is Sign(signer, "ilog", every byte before the
// item that holds it).
type entry struct {
	_      struct{} `cbor:",toarray"`
	Ver    uint64
	C      Commitment
	Seq    uint64
	Prev   [32]byte
	Kind   Kind
	Body   []byte
	TimeMs int64
	Signer [32]byte
	Sig    [64]byte
}

// sigItem is the length of the last item: 0x58 0x40 ‖ 64.
const sigItem = 2 + ed25519.SignatureSize

type genesisBody struct {
	_   struct{} `cbor:",toarray"`
	Sig [32]byte // id_sig
	KEM []byte   // id_kem
}

type bindBody struct {
	_     struct{} `cbor:",toarray"`
	DID   space.DID
	Proof [64]byte // the DID key over BindMessage, low-S
}

type deviceBody struct {
	_    struct{} `cbor:",toarray"`
	Sig  DeviceID
	KEM  []byte
	DH   []byte
	Caps Caps
	Pop  [64]byte // the device key over popParts
}

type pukBody struct {
	_     struct{} `cbor:",toarray"`
	Gen   uint32
	KEM   []byte
	DH    []byte
	Root  []byte // the wrap to id_kem
	Wraps []pukWrap
	Prev  []byte // the generation before, sealed; null in the first
}

// pukWrap is one device's wrap; they stand in ascending order of the device.
type pukWrap struct {
	_      struct{} `cbor:",toarray"`
	Device DeviceID
	Sealed []byte
}

// revokeBody ends a device. The generation in it is wrapped to those that
// remain.
type revokeBody struct {
	_      struct{} `cbor:",toarray"`
	Device DeviceID
	PUK    pukBody
}

// BindMessage is what the key of did signs, hashed with SHA-256, to say that
// it belongs to c: "sp/v1/bind" 0x00 ‖ C ‖ DID. The other direction is the
// identity key's signature on the bind-did entry.
func BindMessage(c Commitment, did space.DID) []byte {
	return space.LabelBindDID.Message(c[:], []byte(did))
}

// popParts is what a new device signs: C ‖ dev_sig ‖ SHA-256(dev_kem) ‖ dev_dh ‖ u32 caps.
func popParts(c Commitment, b *deviceBody) [][]byte {
	kem := sha256.Sum256(b.KEM)
	return [][]byte{c[:], b.Sig[:], kem[:], b.DH, binary.BigEndian.AppendUint32(nil, uint32(b.Caps))}
}

// parseEntry checks size and form, not validity.
func parseEntry(raw []byte) (*entry, error) {
	if len(raw) > MaxEntry {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", space.ErrTooLarge, len(raw), MaxEntry)
	}
	var e entry
	if err := space.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	if e.Ver != version {
		return nil, fmt.Errorf("%w: version %d", space.ErrUnsupported, e.Ver)
	}
	return &e, nil
}

// encodeEntry fills in the signature.
func encodeEntry(e *entry, key ed25519.PrivateKey) ([]byte, error) {
	e.Sig = [64]byte{}
	raw, err := space.Marshal(e)
	if err != nil {
		return nil, err
	}
	sig := space.Sign(key, space.LabelIdentityLog, raw[:len(raw)-sigItem])
	copy(raw[len(raw)-len(sig):], sig)
	return raw, nil
}

// verified reports whether the entry's signature over raw is its signer's.
func (e *entry) verified(raw []byte) bool {
	return space.Verify(e.Signer[:], space.LabelIdentityLog, e.Sig[:], raw[:len(raw)-sigItem])
}

// IsGenesis reports whether raw looks like the first entry of a log. It says
// nothing about whether it is valid.
func IsGenesis(raw []byte) bool {
	e, err := parseEntry(raw)
	return err == nil && e.Kind == KindGenesis && e.Seq == 0
}
