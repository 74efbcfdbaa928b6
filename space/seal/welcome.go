package seal

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// Caps of a welcome.
const (
	MaxWelcome     = space.MaxBytes // a longer control log comes over sync
	MaxControlLog  = 10_000
	MaxControlSize = 320 << 10 // one entry: body at most 262,144
	MaxRelays      = 16
	MaxPrior       = 10_000 // epochs before the welcome's

	welcomeVersion      = 1
	welcomeVersionPrior = 2 // with the keys of earlier epochs
)

// Welcome is what a keeper hands to a member that joins or comes back: the keys
// of the epoch and what it needs to check and use them.
type Welcome struct {
	CtlLog      [][]byte          // raw control entries, from genesis or after one the newcomer holds
	Head        space.Head        // the keeper's head of that log
	IssuerPub   ed25519.PublicKey // names the topic
	Addrs       []string          // where the keeper and others listen
	Relays      []string
	Grant       [envelope.GrantSize]byte // zero for a member that does not write
	Voucher     [64]byte
	IdentityLog [][]byte // identity log entries of members; each names its own
	Prior       []Prior  // epochs before the welcome's, by rising epoch

	keys Keys
}

// Prior is what a welcome gives of an epoch before its own. The links in the
// log cannot stand in for it: the body that holds them is sealed under keys of
// the very epoch they lead to.
type Prior struct {
	Epoch   uint64
	Keys    Keys // zero: the content of the epoch is closed to the newcomer
	Control ControlKey
}

// priorWire has the keys, or the control key alone, never both.
type priorWire struct {
	_       struct{} `cbor:",toarray"`
	Epoch   uint64
	Keys    []byte
	Control []byte
}

// WelcomeContext is what a welcome is bound to. Both sides know it from the join
// exchange: a welcome taken to another recipient, space, epoch or attempt, or
// from another keeper, does not open.
type WelcomeContext struct {
	SpaceID [32]byte
	Epoch   uint64
	Keeper  identity.DeviceID
	C       identity.Commitment // the newcomer
	Nonce   [32]byte            // drawn by the keeper for this attempt
	PUKGen  uint32              // the newcomer's
}

// info is "sp/v1/welcome" 0x00 ‖ space_id ‖ u64 epoch ‖ keeper ‖ C ‖ nonce ‖
// u32 puk_gen.
func (x WelcomeContext) info() []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[:], x.Epoch)
	binary.BigEndian.PutUint32(n[8:], x.PUKGen)
	return space.LabelWelcome.Message(x.SpaceID[:], n[:8], x.Keeper[:], x.C[:], x.Nonce[:], n[8:])
}

// Control is the epoch's control key, with which the newcomer reads the log
// that says what the other keys must be.
func (w Welcome) Control() ControlKey { return w.keys.ctl }

// Keys gives the keys of the epoch to a newcomer that has replayed the log and
// knows from it what group key the log commits to.
func (w Welcome) Keys(kid [32]byte) (Keys, error) {
	if w.keys.IsZero() {
		return Keys{}, fmt.Errorf("welcome: %w", space.ErrNoKey)
	}
	if err := w.keys.CheckKID(kid); err != nil {
		return Keys{}, fmt.Errorf("welcome: %w", err)
	}
	return w.keys, nil
}

type welcomeWire struct {
	_       struct{} `cbor:",toarray"`
	Ver     uint64
	Keys    []byte
	CtlLog  [][]byte
	Head    space.Head
	Issuer  []byte
	Addrs   []string
	Relays  []string
	Grant   []byte // 139 bytes, or none
	Voucher []byte // 64 bytes, or none
	IL      [][]byte
}

// welcomePriorWire is the second shape, with Prior behind the fields of the first.
type welcomePriorWire struct {
	_       struct{} `cbor:",toarray"`
	Ver     uint64
	Keys    []byte
	CtlLog  [][]byte
	Head    space.Head
	Issuer  []byte
	Addrs   []string
	Relays  []string
	Grant   []byte
	Voucher []byte
	IL      [][]byte
	Prior   []priorWire
}

func (w welcomeWire) with(prior []priorWire) welcomePriorWire {
	return welcomePriorWire{
		Ver: welcomeVersionPrior, Keys: w.Keys, CtlLog: w.CtlLog, Head: w.Head, Issuer: w.Issuer, Addrs: w.Addrs,
		Relays: w.Relays, Grant: w.Grant, Voucher: w.Voucher, IL: w.IL, Prior: prior,
	}
}

func (w welcomePriorWire) split() (welcomeWire, []priorWire) {
	return welcomeWire{
		Ver: w.Ver, Keys: w.Keys, CtlLog: w.CtlLog, Head: w.Head, Issuer: w.Issuer, Addrs: w.Addrs,
		Relays: w.Relays, Grant: w.Grant, Voucher: w.Voucher, IL: w.IL,
	}, w.Prior
}

func (w Welcome) check() error {
	if err := checkBlobs(w.CtlLog, MaxControlLog, MaxControlSize); err != nil {
		return fmt.Errorf("control log: %w", err)
	}
	if err := checkBlobs(w.IdentityLog, MaxControlLog, MaxLogEntry); err != nil {
		return fmt.Errorf("identity log: %w", err)
	}
	if err := checkTexts(w.Addrs, MaxAddrs); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	if err := checkTexts(w.Relays, MaxRelays); err != nil {
		return fmt.Errorf("relays: %w", err)
	}
	if err := space.CheckPublicKey(w.IssuerPub); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	return w.checkPrior()
}

func (w Welcome) checkPrior() error {
	if len(w.Prior) > MaxPrior {
		return fmt.Errorf("earlier epochs: %w: %d", space.ErrTooLarge, len(w.Prior))
	}
	last := uint64(0)
	for _, p := range w.Prior {
		if p.Epoch <= last {
			return fmt.Errorf("earlier epochs: %w: %d after %d", space.ErrNotCanonical, p.Epoch, last)
		}
		last = p.Epoch
		if p.Keys.IsZero() && p.Control.IsZero() {
			return fmt.Errorf("earlier epochs: %w: %d without a key", space.ErrMalformed, p.Epoch)
		}
	}
	return nil
}

func (w Welcome) prior() []priorWire {
	out := make([]priorWire, len(w.Prior))
	for i, p := range w.Prior {
		out[i] = priorWire{Epoch: p.Epoch, Keys: []byte{}, Control: []byte{}}
		if p.Keys.IsZero() {
			out[i].Control = p.Control.Marshal()
		} else {
			out[i].Keys = p.Keys.Marshal()
		}
	}
	return out
}

func clearPrior(wire []priorWire) {
	for _, p := range wire {
		clear(p.Keys)
		clear(p.Control)
	}
}

func (w Welcome) encode() ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	wire := welcomeWire{
		Ver: welcomeVersion, Keys: w.keys.Marshal(), CtlLog: orEmpty(w.CtlLog), Head: w.Head,
		Issuer: w.IssuerPub, Addrs: orEmpty(w.Addrs), Relays: orEmpty(w.Relays),
		Grant: []byte{}, Voucher: []byte{}, IL: orEmpty(w.IdentityLog),
	}
	defer clear(wire.Keys)
	if w.Grant != ([envelope.GrantSize]byte{}) {
		wire.Grant, wire.Voucher = w.Grant[:], w.Voucher[:]
	}
	b, err := w.marshal(wire)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxWelcome {
		return nil, fmt.Errorf("%w: welcome of %d bytes", space.ErrTooLarge, len(b))
	}
	return b, nil
}

func (w Welcome) marshal(wire welcomeWire) ([]byte, error) {
	if len(w.Prior) == 0 {
		return space.Marshal(wire)
	}
	prior := w.prior()
	defer clearPrior(prior)
	return space.Marshal(wire.with(prior))
}

// unmarshalWelcome reads either shape.
func unmarshalWelcome(b []byte) (welcomeWire, []priorWire, error) {
	var two welcomePriorWire
	if err := space.Unmarshal(b, &two); err == nil {
		wire, prior := two.split()
		switch {
		case wire.Ver != welcomeVersionPrior:
			return wire, prior, fmt.Errorf("%w: version %d", space.ErrUnsupported, wire.Ver)
		case len(prior) == 0:
			return wire, prior, fmt.Errorf("%w: no earlier epoch", space.ErrNotCanonical)
		}
		return wire, prior, nil
	}
	var wire welcomeWire
	if err := space.Unmarshal(b, &wire); err != nil {
		return wire, nil, err
	}
	if wire.Ver != welcomeVersion {
		return wire, nil, fmt.Errorf("%w: version %d", space.ErrUnsupported, wire.Ver)
	}
	return wire, nil, nil
}

// decodePrior is the inverse of Welcome.prior.
func decodePrior(wire []priorWire, c identity.Commitment) ([]Prior, error) {
	if len(wire) == 0 {
		return nil, nil
	}
	if len(wire) > MaxPrior {
		return nil, fmt.Errorf("%w: %d earlier epochs", space.ErrTooLarge, len(wire))
	}
	out := make([]Prior, len(wire))
	for i, p := range wire {
		out[i].Epoch = p.Epoch
		var err error
		switch {
		case p.Keys == nil || p.Control == nil || (len(p.Keys) == 0) == (len(p.Control) == 0):
			return nil, fmt.Errorf("%w: keys of epoch %d", space.ErrNotCanonical, p.Epoch)
		case len(p.Keys) == 0:
			out[i].Control, err = UnmarshalControlKey(p.Control)
		default:
			out[i].Keys, err = UnmarshalKeys(p.Keys, c)
			out[i].Control = out[i].Keys.ctl
		}
		if err != nil {
			return nil, fmt.Errorf("keys of epoch %d: %w", p.Epoch, err)
		}
	}
	return out, nil
}

func decodeWelcome(b []byte, c identity.Commitment) (Welcome, error) {
	wire, earlier, err := unmarshalWelcome(b)
	defer clear(wire.Keys)
	defer clearPrior(earlier)
	if err != nil {
		return Welcome{}, err
	}
	writes := len(wire.Grant) == envelope.GrantSize && len(wire.Voucher) == 64
	switch {
	case !writes && len(wire.Grant)+len(wire.Voucher) != 0:
		return Welcome{}, fmt.Errorf("%w: grant of %d bytes", space.ErrMalformed, len(wire.Grant))
	case wire.CtlLog == nil || wire.Addrs == nil || wire.Relays == nil || wire.IL == nil ||
		wire.Grant == nil || wire.Voucher == nil:
		return Welcome{}, fmt.Errorf("%w: a list is null", space.ErrNotCanonical)
	}
	keys, err := UnmarshalKeys(wire.Keys, c)
	if err != nil {
		return Welcome{}, err
	}
	prior, err := decodePrior(earlier, c)
	if err != nil {
		return Welcome{}, err
	}
	w := Welcome{
		Prior: prior, CtlLog: orNil(wire.CtlLog), Head: wire.Head, IssuerPub: wire.Issuer, Addrs: orNil(wire.Addrs),
		Relays: orNil(wire.Relays), IdentityLog: orNil(wire.IL), keys: keys,
	}
	if writes {
		w.Grant, w.Voucher = [envelope.GrantSize]byte(wire.Grant), [64]byte(wire.Voucher)
	}
	if writes && w.Grant == ([envelope.GrantSize]byte{}) {
		return Welcome{}, fmt.Errorf("%w: an empty grant", space.ErrNotCanonical)
	}
	if err := w.check(); err != nil {
		return Welcome{}, err
	}
	return w, nil
}

// SealWelcome seals a welcome with the keys of the epoch to the newcomer's
// per-user key and signs it with the keeper's device key: enc ‖ ct ‖ signature.
func SealWelcome(to identity.PUKPublic, ctx WelcomeContext, keys Keys, w Welcome, keeper ed25519.PrivateKey) ([]byte, error) {
	if to.Gen != ctx.PUKGen || !bytes.Equal(keeper.Public().(ed25519.PublicKey), ctx.Keeper[:]) {
		return nil, fmt.Errorf("seal welcome: %w: the context is another's", space.ErrMalformed)
	}
	if n := len(w.Prior); n > 0 && w.Prior[n-1].Epoch >= ctx.Epoch {
		return nil, fmt.Errorf("seal welcome: %w: epoch %d is not before %d", space.ErrMalformed, w.Prior[n-1].Epoch, ctx.Epoch)
	}
	w.keys = keys
	payload, err := w.encode()
	if err != nil {
		return nil, fmt.Errorf("seal welcome: %w", err)
	}
	defer clear(payload)
	info := ctx.info()
	b, err := sealTo(to, info, payload)
	if err != nil {
		return nil, fmt.Errorf("seal welcome: %w", err)
	}
	return append(b, space.Sign(keeper, space.LabelWelcome, info, b)...), nil
}

// OpenWelcome is the inverse of SealWelcome for the newcomer c. What it returns
// is what this keeper says: the newcomer must replay the log, find the keeper in
// it and take the keys through Welcome.Keys before it believes any of it.
func OpenWelcome(puk identity.PUK, ctx WelcomeContext, b []byte) (Welcome, error) {
	const shell = encSize + tagLen + ed25519.SignatureSize
	if len(b) < shell || len(b) > shell+MaxWelcome {
		return Welcome{}, fmt.Errorf("open welcome: %w: %d bytes", space.ErrMalformed, len(b))
	}
	if puk.Gen() != ctx.PUKGen {
		return Welcome{}, fmt.Errorf("open welcome: %w: generation %d", space.ErrNoKey, ctx.PUKGen)
	}
	if err := space.CheckPublicKey(ctx.Keeper[:]); err != nil {
		return Welcome{}, fmt.Errorf("open welcome: keeper: %w", err)
	}
	info := ctx.info()
	sealed, sig := b[:len(b)-ed25519.SignatureSize], b[len(b)-ed25519.SignatureSize:]
	if !space.Verify(ctx.Keeper[:], space.LabelWelcome, sig, info, sealed) {
		return Welcome{}, fmt.Errorf("open welcome: %w: keeper's signature", space.ErrForged)
	}
	payload, err := openWith(puk, info, sealed)
	if err != nil {
		return Welcome{}, fmt.Errorf("open welcome: %w", err)
	}
	defer clear(payload)
	w, err := decodeWelcome(payload, ctx.C)
	if err != nil {
		return Welcome{}, fmt.Errorf("open welcome: %w", err)
	}
	if n := len(w.Prior); n > 0 && w.Prior[n-1].Epoch >= ctx.Epoch {
		return Welcome{}, fmt.Errorf("open welcome: %w: epoch %d is not before %d", space.ErrMalformed, w.Prior[n-1].Epoch, ctx.Epoch)
	}
	return w, nil
}
