package oracle

import (
	"encoding/binary"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// Place is the associated data of boxes of an epoch: space id ‖ u64 epoch.
func Place(sid [32]byte, epoch uint64) []byte { return append(sid[:], u64(epoch)...) }

// Keys is the reading of the keys of an epoch: a group key, or author key ‖
// control key ‖ fetch seed.
func Keys(a *Attacker, _, plain []byte) {
	if len(plain) == 32 {
		a.Learn(plain, AsGroup)
		return
	}
	a.Learn(plain[:32], AsAuthor)
	a.Learn(plain[32:64], AsControl)
	a.Learn(plain[64:96], AsOther)
}

// Enveloped is an envelope.
func Enveloped(name string, env envelope.Envelope) *Item {
	nonce, chain := env.Nonce(), env.Chain()
	it := &Item{Name: name, Nonce: nonce[:], AAD: env.AAD(), CT: env.Ciphertext()}
	switch env.Type() {
	case envelope.Hello:
		it.Role, it.Key = AsHello, Itself
	case envelope.Control:
		it.Role, it.Key = AsControl, Derived(space.LabelCtlEntry, chain[:], u64(env.Seq()))
	default:
		it.Role, it.Key = AsAuthor, Derived(space.LabelEntry, chain[:], u64(env.Seq()))
	}
	return it
}

// Entry is an entry of a control log and what it holds; objects has the sealed
// objects that entries name, by their hash. An entry in clear is no ciphertext,
// only what it holds is.
func Entry(name string, raw []byte, sid [32]byte, objects map[[32]byte][]byte) []*Item {
	e := must(control.Parse(raw))
	if e.InClear() {
		if err := e.Open(nil); err != nil {
			panic(err)
		}
		return bodyOf(e, sid, objects)
	}
	var inside []*Item // the same for everybody
	return []*Item{{
		Name: name, Role: AsControl, Key: Itself, Nonce: raw[172:196], AAD: raw[:196], CT: raw[196 : len(raw)-128],
		Opened: func(a *Attacker, key, _ []byte) {
			if inside == nil {
				if err := e.Open(key); err != nil {
					panic(err)
				}
				inside = bodyOf(e, sid, objects)
			}
			a.See(inside...)
		},
	}}
}

// MaxGeneration is how many generations of a per-user key are tried where none
// is named.
const MaxGeneration = 8

// Rotation is what an opened entry says of an epoch that begins with it, the
// first one included; nil if none does.
func Rotation(e *control.Entry) *control.Rotation {
	if first, ok := e.Body().(control.Epoch); ok {
		return &control.Rotation{Epoch: first}
	}
	return e.Rotation()
}

// bodyOf is what the body of an opened entry holds that is sealed.
func bodyOf(e *control.Entry, sid [32]byte, objects map[[32]byte][]byte) []*Item {
	var out []*Item
	if k, ok := e.Body().(control.KeeperSet); ok && len(k.Issuer) > 0 {
		for gen := uint32(1); gen <= MaxGeneration; gen++ {
			out = append(out, IssuerWrap(control.Wrap{C: k.C, PUKGen: gen, Sealed: k.Issuer}, sid, e.Epoch))
		}
	}
	rot := Rotation(e)
	if rot == nil {
		return out
	}
	n := rot.Epoch.N
	for _, w := range rot.Epoch.Wraps {
		out = append(out, Wrap(w, sid, n)...)
	}
	for _, w := range rot.Issuers {
		out = append(out, IssuerWrap(w, sid, n))
	}
	for _, hash := range rot.Epoch.Pages {
		for _, at := range []uint64{n - 1, n} {
			out = append(out, Page("", objects[hash], sid, at, n))
		}
	}
	return append(out, Inner("", rot.Epoch.Inner, sid, n))
}

// Wrap is an epoch's key for a member, or for a space that is one.
func Wrap(w control.Wrap, sid [32]byte, n uint64) []*Item {
	member := space.LabelWrap.Message(sid[:], u64(n), w.C[:], u32(w.PUKGen))
	child := space.LabelWrapChild.Message(sid[:], u64(n), w.C[:], u64(uint64(w.PUKGen)))
	return []*Item{
		Wrapped("", AsPUK, member, w.Sealed, Keys),
		Wrapped("", AsGroup, child, w.Sealed, Gives(AsGroup)),
	}
}

// IssuerWrap is the issuer of an epoch for a member that admits.
func IssuerWrap(w control.Wrap, sid [32]byte, n uint64) *Item {
	info := space.LabelWrapIssuer.Message(sid[:], u64(n), w.C[:], u32(w.PUKGen))
	return Wrapped("", AsPUK, info, w.Sealed, Gives(AsOther))
}

// Page is a page of the wraps of epoch n, sealed in epoch at.
func Page(name string, box []byte, sid [32]byte, at, n uint64) *Item {
	return Boxed(name, AsControl, Derived(space.LabelObject), Place(sid, at), box, func(a *Attacker, _, plain []byte) {
		for _, w := range must(control.DecodePage(plain)) {
			a.See(Wrap(w, sid, n)...)
		}
	})
}

// Inner is the inner body of epoch n.
func Inner(name string, box []byte, sid [32]byte, n uint64) *Item {
	return Boxed(name, AsControl, Derived(space.LabelCtlInner), Place(sid, n), box, func(a *Attacker, _, plain []byte) {
		x := must(control.DecodeEpochInner(plain))
		if len(x.CtlLink) > 0 {
			a.See(Boxed("", AsControl, Derived(space.LabelCtlLink), Place(sid, n), x.CtlLink, Gives(AsControl)))
		}
		if len(x.PrevLink) > 0 {
			a.See(Boxed("", AsGroup, Derived(space.LabelPrev), Place(sid, n), x.PrevLink, Gives(AsGroup)))
		}
	})
}

// The welcome: see package seal.
type (
	welcome1 struct {
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
	}
	welcome2 struct {
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
		Prior   []prior
	}
	prior struct {
		_       struct{} `cbor:",toarray"`
		Epoch   uint64
		Keys    []byte
		Control []byte
	}
)

// Welcome is the reading of a welcome.
func Welcome(a *Attacker, _, plain []byte) {
	var one welcome1
	if err := space.Unmarshal(plain, &one); err == nil {
		Keys(a, nil, one.Keys)
		return
	}
	var two welcome2
	if err := space.Unmarshal(plain, &two); err != nil {
		panic(err)
	}
	Keys(a, nil, two.Keys)
	for _, p := range two.Prior {
		if len(p.Keys) > 0 {
			Keys(a, nil, p.Keys)
		}
		a.Learn(p.Control, AsControl)
	}
}

// The identity log: see package identity.
type (
	logEntry struct {
		_      struct{} `cbor:",toarray"`
		Ver    uint64
		C      [32]byte
		Seq    uint64
		Prev   [32]byte
		Kind   uint8
		Body   []byte
		TimeMs int64
		Signer [32]byte
		Sig    [64]byte
	}
	pukBody struct {
		_     struct{} `cbor:",toarray"`
		Gen   uint32
		KEM   []byte
		DH    []byte
		Root  []byte
		Wraps []pukWrap
		Prev  []byte
	}
	pukWrap struct {
		_      struct{} `cbor:",toarray"`
		Device [32]byte
		Sealed []byte
	}
	revokeBody struct {
		_      struct{} `cbor:",toarray"`
		Device [32]byte
		PUK    pukBody
	}
)

// IdentityLog is what an identity log holds that is sealed.
func IdentityLog(log [][]byte) []*Item {
	var out []*Item
	for _, raw := range log {
		var e logEntry
		if err := space.Unmarshal(raw, &e); err != nil {
			panic(err)
		}
		var b pukBody
		switch identity.Kind(e.Kind) {
		case identity.KindPUK:
			if err := space.Unmarshal(e.Body, &b); err != nil {
				panic(err)
			}
		case identity.KindRevokeDevice:
			var r revokeBody
			if err := space.Unmarshal(e.Body, &r); err != nil {
				panic(err)
			}
			b = r.PUK
		default:
			continue
		}
		info := func(kind byte, id [32]byte) []byte {
			return space.LabelPUKWrap.Message(e.C[:], u32(b.Gen), []byte{kind}, id[:])
		}
		out = append(out, Wrapped("", AsSeed, info(0, e.C), b.Root, Gives(AsPUK)))
		for _, w := range b.Wraps {
			out = append(out, Wrapped("", AsKEM, info(1, w.Device), w.Sealed, Gives(AsPUK)))
		}
		if len(b.Prev) > 0 {
			out = append(out, Boxed("", AsPUK, Derived(space.LabelPUKPrev), append(e.C[:], u32(b.Gen)...), b.Prev, Gives(AsPUK)))
		}
	}
	return out
}
