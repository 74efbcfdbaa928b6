package identity

import (
	"bytes"
	"compress/flate"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// The caps of an account.
const (
	MaxList        = 1 << 20 // bytes of a sealed list
	MaxListSpaces  = 10_000  // spaces in it
	MaxListDevices = 200     // devices in it, those that were revoked too
	MaxListAddrs   = 8       // addresses of a space, or of a device
	maxListText    = 1 << 10 // bytes of a name, an address, a URI
	minListSize    = 1 << 10 // what the smallest list is padded to
	maxListBody    = 8 << 20 // bytes of an account
	listVersion    = 1
	listPlain      = 1 // version of a list that holds the account as it is
	listPacked     = 2 // of one that holds it in DEFLATE
)

// Account is what a person's devices need besides the identity log to take
// part where the person does: the spaces with ways to reach them, and the key
// of the DID. It leaves a device only sealed under the per-user key.
type Account struct {
	_       struct{} `cbor:",toarray"`
	Ver     uint64
	LogSeq  uint64 // of the identity log when the list was made: a lower bound
	DIDKey  []byte // K-256, 32 bytes
	Devices []AccountDevice
	Spaces  []AccountSpace
}

// AccountDevice is a device as people know it, and where its node was; a
// revoked one is nowhere.
type AccountDevice struct {
	_     struct{} `cbor:",toarray"`
	ID    DeviceID
	Name  string
	Addrs []string // full multiaddrs, the best first
}

// AccountSpace is a space of the person's. Gone: the person left it, and no
// device should go back.
type AccountSpace struct {
	_       struct{} `cbor:",toarray"`
	Space   [32]byte
	URI     string
	Name    string // petname
	Addrs   []string
	HeadSeq uint64 // of its control log, a lower bound
	Head    [32]byte
	Gone    bool
}

// List is a sealed Account as nodes keep it for its owner:
//
//	[1 or 2, C, u32 generation, u64 version, device, box, sig]
//
// box is nonce 24 ‖ XChaCha20-Poly1305 under KDF(PUK_g, "puk/list"), with
// AAD C ‖ u32 generation ‖ u64 version, of u32 length ‖ DRISL ‖ zeros, padded
// so that the size tells little. In a list of version 2, which is one whose
// DRISL is too large, it stands in parts, under DEFLATE (RFC 1951). sig is Sign(device, "ilist", every byte
// before it). Of two the one of the higher generation is newer, then the one
// of the higher version.
type List struct {
	_       struct{} `cbor:",toarray"`
	Ver     uint64
	C       Commitment
	Gen     uint32
	Version uint64
	Device  DeviceID
	Box     []byte
	Sig     [64]byte
}

// SealList seals an account under the current per-user key and signs it as a
// live device.
func (s State) SealList(rand io.Reader, dev Device, puk PUK, version uint64, a Account) ([]byte, error) {
	if !puk.Public().Equal(s.PUK) {
		return nil, fmt.Errorf("seal list: %w: not the current generation, %d", space.ErrNoKey, s.PUK.Gen)
	}
	a.Ver = listVersion
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("seal list: %w", err)
	}
	l := List{Ver: listPlain, C: s.C, Gen: puk.Gen(), Version: version, Device: dev.ID()}
	body, err := space.Marshal(&a)
	if errors.Is(err, space.ErrTooLarge) || err == nil && paddedSize(4+len(body)) > MaxList-listOverhead {
		l.Ver = listPacked
		body, err = a.pack()
	}
	if err != nil {
		return nil, fmt.Errorf("seal list: %w", err)
	}
	plain := make([]byte, paddedSize(4+len(body)))
	if len(plain) > MaxList-listOverhead {
		return nil, fmt.Errorf("seal list: %w: %d bytes, at most %d", space.ErrTooLarge, len(plain), MaxList-listOverhead)
	}
	binary.BigEndian.PutUint32(plain, uint32(len(body)))
	copy(plain[4:], body)
	l.Box = make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(plain)+chacha20poly1305.Overhead)
	if _, err := io.ReadFull(rand, l.Box); err != nil {
		return nil, fmt.Errorf("seal list: %w", err)
	}
	l.Box = puk.listAEAD().Seal(l.Box, l.Box, plain, l.aad())
	raw, err := space.Marshal(&l)
	if err != nil {
		return nil, fmt.Errorf("seal list: %w", err)
	}
	copy(raw[len(raw)-64:], space.Sign(dev.Sig(), space.LabelIDList, raw[:len(raw)-sigItem]))
	return raw, nil
}

// listOverhead bounds what is in a list beside the padded account.
const listOverhead = 256

// partSpaces is how many spaces stand in one part of a packed account.
const partSpaces = 100

// pack is the account in parts, each u32 length ‖ account, in DEFLATE. The
// devices are in the first, and of the spaces partSpaces are in each.
func (a Account) pack() ([]byte, error) {
	var all []byte
	rest := a.Spaces
	for {
		part := a
		part.Spaces = rest[:min(len(rest), partSpaces)]
		b, err := space.Marshal(&part)
		if err != nil {
			return nil, err
		}
		all = append(binary.BigEndian.AppendUint32(all, uint32(len(b))), b...)
		rest, a.Devices = rest[len(part.Spaces):], []AccountDevice{}
		if len(rest) == 0 {
			break
		}
	}
	if len(all) > maxListBody {
		return nil, fmt.Errorf("an account of %d bytes: %w", len(all), space.ErrTooLarge)
	}
	return deflate(all)
}

// unpackAccount undoes pack.
func unpackAccount(b []byte) (Account, error) {
	var a Account
	all, err := inflate(b)
	if err != nil {
		return a, err
	}
	for first := true; first || len(all) > 0; first = false {
		if len(all) < 4 || uint64(binary.BigEndian.Uint32(all)) > uint64(len(all)-4) {
			return a, fmt.Errorf("part of an account: %w: length", space.ErrMalformed)
		}
		end := 4 + int(binary.BigEndian.Uint32(all))
		var part Account
		if err := space.Unmarshal(all[4:end], &part); err != nil {
			return a, fmt.Errorf("part of an account: %w", err)
		}
		switch {
		case first:
			a = part
		case part.Ver != a.Ver || part.LogSeq != a.LogSeq || !bytes.Equal(part.DIDKey, a.DIDKey) || len(part.Devices) > 0:
			return a, fmt.Errorf("part of an account: %w: of another one", space.ErrMalformed)
		case len(a.Spaces)%partSpaces != 0 || len(part.Spaces) == 0:
			return a, fmt.Errorf("part of an account: %w", space.ErrNotCanonical)
		default:
			a.Spaces = append(a.Spaces, part.Spaces...)
		}
		all = all[end:]
	}
	return a, nil
}

func deflate(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
}

// inflate undoes deflate, of an account's size at most and without a word
// behind it.
func inflate(b []byte) ([]byte, error) {
	in := bytes.NewReader(b)
	out, err := io.ReadAll(io.LimitReader(flate.NewReader(in), maxListBody+1))
	switch {
	case err != nil || in.Len() > 0:
		return nil, fmt.Errorf("DEFLATE: %w", space.ErrMalformed)
	case len(out) > maxListBody:
		return nil, fmt.Errorf("DEFLATE: %w", space.ErrTooLarge)
	}
	return out, nil
}

// ParseList checks size and form, not whose it is.
func ParseList(raw []byte) (List, error) {
	var l List
	if len(raw) > MaxList {
		return l, fmt.Errorf("sealed list: %w: %d bytes, at most %d", space.ErrTooLarge, len(raw), MaxList)
	}
	if err := space.Unmarshal(raw, &l); err != nil {
		return l, fmt.Errorf("sealed list: %w", err)
	}
	if l.Ver != listPlain && l.Ver != listPacked {
		return l, fmt.Errorf("sealed list: %w: version %d", space.ErrUnsupported, l.Ver)
	}
	if l.Gen == 0 || l.Gen > maxGeneration || len(l.Box) < chacha20poly1305.NonceSizeX+minListSize+chacha20poly1305.Overhead {
		return l, fmt.Errorf("sealed list: %w", space.ErrMalformed)
	}
	return l, nil
}

// Check tells whether the list is one of s's person: signed by a live device,
// under a generation the log knows. It needs no secret. space.ErrNoKey: of a
// generation that s has not seen; a newer log may know it.
func (l List) Check(s State) error {
	switch {
	case l.C != s.C:
		return fmt.Errorf("sealed list: %w: of another identity", space.ErrForged)
	case l.Gen > s.PUK.Gen:
		return fmt.Errorf("sealed list: %w: generation %d, the log ends with %d", space.ErrNoKey, l.Gen, s.PUK.Gen)
	}
	if _, live := s.Devices[l.Device]; !live {
		return fmt.Errorf("sealed list: %w: signed by no live device", space.ErrForbidden)
	}
	if !l.Signed() {
		return fmt.Errorf("sealed list: %w: signature", space.ErrForged)
	}
	return nil
}

// Signed reports whether the list is as the device it names left it. Whose
// device that is, Check tells.
func (l List) Signed() bool {
	raw, err := space.Marshal(&l)
	return err == nil && space.CheckPublicKey(l.Device[:]) == nil &&
		space.Verify(l.Device[:], space.LabelIDList, l.Sig[:], raw[:len(raw)-sigItem])
}

// Newer reports whether l replaces o.
func (l List) Newer(o List) bool {
	return l.Gen > o.Gen || l.Gen == o.Gen && l.Version > o.Version
}

// Open opens a list with a per-user key of its generation or a later one.
func (l List) Open(s State, puk PUK) (Account, error) {
	var a Account
	for puk.Gen() > l.Gen {
		before, err := puk.Previous(s)
		if err != nil {
			return a, fmt.Errorf("sealed list: %w", err)
		}
		puk = before
	}
	if puk.Gen() != l.Gen {
		return a, fmt.Errorf("sealed list: %w: generation %d", space.ErrNoKey, l.Gen)
	}
	n := chacha20poly1305.NonceSizeX
	if len(l.Box) < n {
		return a, fmt.Errorf("sealed list: %w", space.ErrMalformed)
	}
	plain, err := puk.listAEAD().Open(nil, l.Box[:n], l.Box[n:], l.aad())
	if err != nil {
		return a, fmt.Errorf("sealed list: %w", space.ErrForged)
	}
	if len(plain) < 4 || uint64(binary.BigEndian.Uint32(plain)) > uint64(len(plain)-4) {
		return a, fmt.Errorf("sealed list: %w: length", space.ErrMalformed)
	}
	end := 4 + int(binary.BigEndian.Uint32(plain))
	if len(plain) != paddedSize(end) || len(bytes.Trim(plain[end:], "\x00")) > 0 {
		return a, fmt.Errorf("sealed list: %w: padding", space.ErrNotCanonical)
	}
	if l.Ver == listPacked {
		a, err = unpackAccount(plain[4:end])
	} else {
		err = space.Unmarshal(plain[4:end], &a)
	}
	if err != nil {
		return a, fmt.Errorf("sealed list: %w", err)
	}
	return a, a.check()
}

// Key is the K-256 key of the DID.
func (a Account) Key() (*atcrypto.PrivateKeyK256, error) {
	k, err := atcrypto.ParsePrivateBytesK256(a.DIDKey)
	if err != nil {
		return nil, fmt.Errorf("DID key: %w", space.ErrMalformed)
	}
	return k, nil
}

func (a Account) check() error {
	if a.Ver != listVersion {
		return fmt.Errorf("account: %w: version %d", space.ErrUnsupported, a.Ver)
	}
	if _, err := a.Key(); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if len(a.Spaces) > MaxListSpaces || len(a.Devices) > MaxListDevices {
		return fmt.Errorf("account: %w: %d spaces, %d devices", space.ErrTooLarge, len(a.Spaces), len(a.Devices))
	}
	texts, addrs := []string{}, 0
	for _, d := range a.Devices {
		texts, addrs = append(append(texts, d.Name), d.Addrs...), max(addrs, len(d.Addrs))
	}
	for _, p := range a.Spaces {
		texts, addrs = append(append(texts, p.URI, p.Name), p.Addrs...), max(addrs, len(p.Addrs))
	}
	if addrs > MaxListAddrs {
		return fmt.Errorf("account: %w: %d addresses, at most %d", space.ErrTooLarge, addrs, MaxListAddrs)
	}
	for _, t := range texts {
		if len(t) > maxListText {
			return fmt.Errorf("account: %w: a text of %d bytes", space.ErrTooLarge, len(t))
		}
	}
	return nil
}

func (l List) aad() []byte {
	b := binary.BigEndian.AppendUint32(append([]byte(nil), l.C[:]...), l.Gen)
	return binary.BigEndian.AppendUint64(b, l.Version)
}

func (p PUK) listAEAD() cipher.AEAD {
	a, err := chacha20poly1305.NewX(space.KDF(p.keys().secret[:], space.LabelPUKList, nil, 32))
	if err != nil {
		panic(fmt.Sprintf("identity: %v", err)) // the key is 32 bytes
	}
	return a
}

// paddedSize is Padmé: at most 12 % more, and few sizes to tell apart.
func paddedSize(n int) int {
	if n <= minListSize {
		return minListSize
	}
	e := bits.Len(uint(n)) - 1
	zeros := e - bits.Len(uint(e))
	mask := 1<<zeros - 1
	return (n + mask) &^ mask
}
