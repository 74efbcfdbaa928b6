package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"

	"github.com/kithnet/kith/space"
)

// DeviceID is a device's Ed25519 public key, dev_sig. It is a type of its own:
// a device is not taken for a person or a space because their ids look alike.
type DeviceID [32]byte

// Caps is what a device may do for its identity.
type Caps uint32

// The capabilities of a device (docs/protocol.md, "Identity").
const (
	CapEnroll Caps = 1 << iota // sign identity log entries
	CapWrite                   // write in spaces
	CapDM                      // take part in direct messages

	CapsAll = CapEnroll | CapWrite | CapDM
)

// DeviceInfo is what the log says of a live device.
type DeviceInfo struct {
	KEM  []byte // X-Wing public key, 1,216 bytes
	DH   []byte // X25519 public key
	Caps Caps
}

// Device is the private half of a device: an Ed25519, an X-Wing and an X25519
// key, random and unrelated to the seed. It is opaque; the zero Device panics
// on use.
type Device struct {
	// k is behind a function, which no verb of fmt looks through.
	k func() *deviceKeys
}

type deviceKeys struct {
	id  DeviceID
	sig ed25519.PrivateKey
	kem hpke.PrivateKey
	dh  *ecdh.PrivateKey
}

// A marshalled device: ver 1 ‖ dev_sig seed 32 ‖ dev_kem seed 32 ‖ dev_dh 32.
const (
	deviceVersion = 1
	deviceSize    = 1 + 32 + 32 + 32
)

// NewDevice draws the keys of a device.
func NewDevice(rand io.Reader) (Device, error) {
	b := make([]byte, deviceSize)
	defer clear(b)
	b[0] = deviceVersion
	if _, err := io.ReadFull(rand, b[1:]); err != nil {
		return Device{}, fmt.Errorf("draw device keys: %w", err)
	}
	return UnmarshalDevice(b)
}

// UnmarshalDevice reads what Marshal wrote. It keeps nothing of b.
func UnmarshalDevice(b []byte) (Device, error) {
	if len(b) != deviceSize || b[0] != deviceVersion {
		return Device{}, fmt.Errorf("device keys: %w", space.ErrMalformed)
	}
	kem, err := hpke.MLKEM768X25519().NewPrivateKey(b[33:65])
	if err != nil {
		return Device{}, fmt.Errorf("device keys: %w: %w", space.ErrMalformed, err)
	}
	dh, err := ecdh.X25519().NewPrivateKey(b[65:97])
	if err != nil {
		return Device{}, fmt.Errorf("device keys: %w: %w", space.ErrMalformed, err)
	}
	k := &deviceKeys{sig: ed25519.NewKeyFromSeed(b[1:33]), kem: kem, dh: dh}
	k.id = DeviceID(k.sig.Public().(ed25519.PublicKey))
	return Device{k: func() *deviceKeys { return k }}, nil
}

// Marshal is the device's secrets, for the key file and nothing else.
func (d Device) Marshal() []byte {
	k := d.keys()
	kem, err := k.kem.Bytes()
	if err != nil {
		panic(fmt.Sprintf("identity: marshal device: %v", err))
	}
	b := append(make([]byte, 0, deviceSize), deviceVersion)
	b = append(b, k.sig.Seed()...)
	b = append(b, kem...)
	return append(b, k.dh.Bytes()...)
}

func (d Device) keys() *deviceKeys {
	if d.k == nil {
		panic("identity: use of a zero Device")
	}
	return d.k()
}

// IsZero reports whether d holds no keys.
func (d Device) IsZero() bool { return d.k == nil }

// ID is the device's public signing key, which is its name.
func (d Device) ID() DeviceID { return d.keys().id }

// Sig is the private signing key.
func (d Device) Sig() ed25519.PrivateKey { return d.keys().sig }

// SigPublic is the public signing key.
func (d Device) SigPublic() ed25519.PublicKey { return d.keys().sig.Public().(ed25519.PublicKey) }

// KEM is the private X-Wing key.
func (d Device) KEM() hpke.PrivateKey { return d.keys().kem }

// KEMPublic is the public X-Wing key, 1,216 bytes.
func (d Device) KEMPublic() []byte { return d.keys().kem.PublicKey().Bytes() }

// DH is the private X25519 key.
func (d Device) DH() *ecdh.PrivateKey { return d.keys().dh }

// Equal compares in constant time.
func (d Device) Equal(o Device) bool {
	return subtle.ConstantTimeCompare(d.Marshal(), o.Marshal()) == 1
}

// LogValue shows which device it is.
func (d Device) LogValue() slog.Value {
	if d.k == nil {
		return slog.StringValue("device:none")
	}
	return slog.StringValue("device:" + hex.EncodeToString(d.k().id[:4]))
}

func (d Device) signing() ed25519.PrivateKey { return d.keys().sig }

func (d Device) wrapping() (recipient, hpke.PrivateKey) {
	k := d.keys()
	return recipient{id: k.id}, k.kem
}

// Names are the capabilities in words.
func (c Caps) Names() []string {
	var out []string
	for i, name := range []string{"enrol", "write", "message"} {
		if c&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// History is what a log says of one device. The times are those its entries
// claim; RevokedMs is 0 for a live one.
type History struct {
	ID        DeviceID
	Caps      Caps
	AddedMs   int64
	RevokedMs int64
}

// Devices are all devices a log ever had, in the order of their coming. The
// log must verify.
func Devices(log [][]byte) []History {
	var out []History
	for _, raw := range log {
		e, err := parseEntry(raw)
		if err != nil {
			continue
		}
		switch e.Kind {
		case KindAddDevice:
			var b deviceBody
			if space.Unmarshal(e.Body, &b) == nil {
				out = append(out, History{ID: b.Sig, Caps: b.Caps, AddedMs: e.TimeMs})
			}
		case KindRevokeDevice:
			var b revokeBody
			if space.Unmarshal(e.Body, &b) != nil {
				continue
			}
			for i := range out {
				if out[i].ID == b.Device {
					out[i].RevokedMs = e.TimeMs
				}
			}
		}
	}
	return out
}
