package seal

import (
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// Caps of a hello, checked before it is sealed and after it is decoded.
const (
	MaxTags       = 256
	MaxAddrs      = 16
	MaxAddrSize   = 256
	MaxLogEntries = 1000
	MaxLogEntry   = 64 << 10

	helloVersion    = 1
	helloVersionVia = 2 // with the child space that sent the author
)

// Hello is the first body of a chain: whose it is and what its writer knew.
type Hello struct {
	C           identity.Commitment
	Device      identity.DeviceID
	PUKGen      uint32
	PrevChain   *PrevChain // the writer's last chain it knows of, a lower bound
	Ctl         space.Head // the control log head followed
	IdentityLog [][]byte   // entries newer than the roster's head
	Addrs       []string   // where the writer listens
	Tags        []Tag      // by rising slot
	Voucher     [64]byte   // the issuer's word on whose the writer key is
	// Via is the child space that sent the author, who is in no roster of the
	// space; zero for a member. Its identity log is then whole.
	Via [32]byte
}

// PrevChain is the head of an earlier chain of the same device.
type PrevChain struct {
	_     struct{} `cbor:",toarray"`
	Chain envelope.ChainID
	Seq   uint64
	ID    envelope.ID
}

// Tag tells the member in a slot, and nobody else, that the hello's author made
// the chain: see PairTag.
type Tag struct {
	_    struct{} `cbor:",toarray"`
	Slot uint32
	MAC  [16]byte
}

// Tag is the tag for a slot.
func (h Hello) Tag(slot uint32) ([16]byte, bool) {
	for _, t := range h.Tags {
		if t.Slot == slot {
			return t.MAC, true
		}
	}
	return [16]byte{}, false
}

// helloWire is a Hello as it is encoded. Empty lists are empty arrays, never
// null.
type helloWire struct {
	_      struct{} `cbor:",toarray"`
	Ver    uint64
	C      identity.Commitment
	Device identity.DeviceID
	PUKGen uint32
	Prev   *PrevChain
	Ctl    space.Head
	Log    [][]byte
	Addrs  []string
	Tags   []Tag
	Vouch  [64]byte
}

// helloViaWire is the second shape, for an author that a child space sends.
type helloViaWire struct {
	_      struct{} `cbor:",toarray"`
	Ver    uint64
	C      identity.Commitment
	Device identity.DeviceID
	PUKGen uint32
	Prev   *PrevChain
	Ctl    space.Head
	Log    [][]byte
	Addrs  []string
	Tags   []Tag
	Vouch  [64]byte
	Via    [32]byte
}

// Encode is the DRISL array [1, C, device, puk_gen, prev|null, ctl,
// identity_log, addrs, tags, voucher], or with Via [2, the same, via].
func (h Hello) Encode() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	w := helloViaWire{
		Ver: helloVersionVia, C: h.C, Device: h.Device, PUKGen: h.PUKGen, Prev: h.PrevChain, Ctl: h.Ctl,
		Log: orEmpty(h.IdentityLog), Addrs: orEmpty(h.Addrs), Tags: orEmpty(h.Tags), Vouch: h.Voucher, Via: h.Via,
	}
	var b []byte
	var err error
	if h.Via == ([32]byte{}) {
		b, err = space.Marshal(w.plain())
	} else {
		b, err = space.Marshal(w)
	}
	if err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	return b, nil
}

func (w helloViaWire) plain() helloWire {
	return helloWire{
		Ver: helloVersion, C: w.C, Device: w.Device, PUKGen: w.PUKGen, Prev: w.Prev, Ctl: w.Ctl,
		Log: w.Log, Addrs: w.Addrs, Tags: w.Tags, Vouch: w.Vouch,
	}
}

// unmarshalHello reads either shape.
func unmarshalHello(b []byte) (helloViaWire, error) {
	var w helloViaWire
	if err := space.Unmarshal(b, &w); err == nil {
		switch {
		case w.Ver != helloVersionVia:
			return w, fmt.Errorf("%w: version %d", space.ErrUnsupported, w.Ver)
		case w.Via == [32]byte{}:
			return w, fmt.Errorf("%w: by way of no space", space.ErrNotCanonical)
		}
		return w, nil
	}
	var p helloWire
	if err := space.Unmarshal(b, &p); err != nil {
		return w, err
	}
	if p.Ver != helloVersion {
		return w, fmt.Errorf("%w: version %d", space.ErrUnsupported, p.Ver)
	}
	return helloViaWire{
		Ver: helloVersion, C: p.C, Device: p.Device, PUKGen: p.PUKGen, Prev: p.Prev, Ctl: p.Ctl,
		Log: p.Log, Addrs: p.Addrs, Tags: p.Tags, Vouch: p.Vouch,
	}, nil
}

// DecodeHello is the inverse of Encode. It does not decide whose the chain is:
// that is CheckHello.
func DecodeHello(b []byte) (Hello, error) {
	w, err := unmarshalHello(b)
	switch {
	case err != nil:
		return Hello{}, fmt.Errorf("decode hello: %w", err)
	case w.Log == nil || w.Addrs == nil || w.Tags == nil:
		return Hello{}, fmt.Errorf("decode hello: %w: a list is null", space.ErrNotCanonical)
	}
	h := Hello{
		C: w.C, Device: w.Device, PUKGen: w.PUKGen, PrevChain: w.Prev, Ctl: w.Ctl,
		IdentityLog: orNil(w.Log), Addrs: orNil(w.Addrs), Tags: orNil(w.Tags), Voucher: w.Vouch, Via: w.Via,
	}
	if err := h.check(); err != nil {
		return Hello{}, fmt.Errorf("decode hello: %w", err)
	}
	return h, nil
}

func (h Hello) check() error {
	if err := checkTexts(h.Addrs, MaxAddrs); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	if err := checkBlobs(h.IdentityLog, MaxLogEntries, MaxLogEntry); err != nil {
		return fmt.Errorf("identity log: %w", err)
	}
	if len(h.Tags) > MaxTags {
		return fmt.Errorf("%w: %d tags", space.ErrTooLarge, len(h.Tags))
	}
	for i := 1; i < len(h.Tags); i++ {
		if h.Tags[i-1].Slot >= h.Tags[i].Slot {
			return fmt.Errorf("%w: tags out of order", space.ErrNotCanonical)
		}
	}
	return nil
}

// CheckHello is the one rule that decides whose entries a chain carries: the
// issuer that certified the writer key vouches that it is h.C's, sent by h.Via
// if that names a space. Every node
// judges alike; a member's own tag changes how sure it says it is, never this.
// The certificate must have been verified for the chain.
func CheckHello(h Hello, cert envelope.Certificate) error {
	if err := checkVoucher(cert, h.C, h.Via, h.Voucher); err != nil {
		return fmt.Errorf("check hello: %w", err)
	}
	return nil
}

func checkTexts(ss []string, n int) error {
	if len(ss) > n {
		return fmt.Errorf("%w: %d of at most %d", space.ErrTooLarge, len(ss), n)
	}
	for _, s := range ss {
		if s == "" {
			return fmt.Errorf("%w: empty text", space.ErrMalformed)
		}
		if len(s) > MaxAddrSize {
			return fmt.Errorf("%w: text of %d bytes", space.ErrTooLarge, len(s))
		}
	}
	return nil
}

func checkBlobs(bs [][]byte, n, size int) error {
	if len(bs) > n {
		return fmt.Errorf("%w: %d of at most %d", space.ErrTooLarge, len(bs), n)
	}
	for _, b := range bs {
		if len(b) == 0 {
			return fmt.Errorf("%w: empty entry", space.ErrMalformed)
		}
		if len(b) > size {
			return fmt.Errorf("%w: entry of %d bytes", space.ErrTooLarge, len(b))
		}
	}
	return nil
}

// orEmpty and orNil keep one encoding, and one decoding, of "none".
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func orNil[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}
