package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
)

// smallOrder are Ed25519 keys nobody holds: the identity point, order 2, 4, 8.
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	// Not canonical: y = p+1, the identity point again.
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

func key32(t testing.TB, s string) [32]byte {
	return [32]byte(must[[]byte](t)(hex.DecodeString(s)))
}

func TestGenesisRules(t *testing.T) {
	seed := testSeed(0x11)
	good := genesisBody{Sig: [32]byte(seed.signing().Public().(ed25519.PublicKey)), KEM: seed.k().kem.PublicKey().Bytes()}
	other := testSeed(0x12)
	type change struct {
		is    error
		entry func(*entry)
		body  func(*genesisBody)
		key   ed25519.PrivateKey
	}
	cases := map[string]change{
		"good":           {},
		"version":        {is: space.ErrUnsupported, entry: func(e *entry) { e.Ver = 2 }},
		"version 0":      {is: space.ErrUnsupported, entry: func(e *entry) { e.Ver = 0 }},
		"seq":            {is: ErrOrder, entry: func(e *entry) { e.Seq = 1 }},
		"prev":           {is: ErrOrder, entry: func(e *entry) { e.Prev[0] = 1 }},
		"kind":           {is: ErrOrder, entry: func(e *entry) { e.Kind = KindBindDID }},
		"time":           {is: space.ErrMalformed, entry: func(e *entry) { e.TimeMs = 1 }},
		"commitment":     {is: space.ErrForged, entry: func(e *entry) { e.C[0] ^= 1 }},
		"other signer":   {is: space.ErrForbidden, key: other.signing()},
		"signature":      {is: space.ErrForged, key: other.signing(), entry: func(e *entry) { e.Signer = good.Sig }},
		"KEM key":        {is: space.ErrForged, body: func(b *genesisBody) { b.KEM = other.k().kem.PublicKey().Bytes() }},
		"KEM key length": {is: space.ErrMalformed, body: func(b *genesisBody) { b.KEM = b.KEM[:1215] }},
		"identity key":   {is: space.ErrForged, body: func(b *genesisBody) { b.Sig = [32]byte(other.signing()[32:]) }},
		"empty body":     {is: space.ErrMalformed, entry: func(e *entry) { e.Body = []byte{} }},
		"no body":        {is: space.ErrMalformed, entry: func(e *entry) { e.Body = nil }},
		"body too long":  {is: space.ErrMalformed, entry: func(e *entry) { e.Body = append(bytes.Clone(e.Body), 0) }},
	}
	for _, k := range smallOrder {
		cases["small order "+k] = change{is: space.ErrMalformed, body: func(b *genesisBody) { b.Sig = key32(t, k) },
			entry: func(e *entry) { e.Signer = key32(t, k) }}
	}
	for name, c := range cases {
		b, key := good, seed.signing()
		if c.body != nil {
			c.body(&b)
		}
		if c.key != nil {
			key = c.key
		}
		raw := forge(t, State{C: seed.Commitment(), Seq: ^uint64(0)}, key, KindGenesis, &b, func(e *entry) {
			e.TimeMs = 0
			if c.entry != nil {
				c.entry(e)
			}
		})
		if _, err := Verify([][]byte{raw}); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
}

// What every later entry must have, shown on one that is right but for that.
func TestEntryRules(t *testing.T) {
	seed := testSeed(0x11)
	s, writer := withDevice(t, 5, CapWrite)
	enrolled := alice().Device
	stranger := must[Device](t)(NewDevice(testRand(6)))
	newcomer := must[Device](t)(NewDevice(testRand(7)))
	body := newDeviceBody(s, newcomer, CapWrite)
	for name, c := range map[string]struct {
		is    error
		key   ed25519.PrivateKey
		entry func(*entry)
	}{
		"by the identity key":            {nil, seed.signing(), nil},
		"by a device that may":           {nil, enrolled.Sig(), nil},
		"by a device that may not":       {space.ErrForbidden, writer.Sig(), nil},
		"by a stranger":                  {space.ErrForbidden, stranger.Sig(), nil},
		"by the newcomer itself":         {space.ErrForbidden, newcomer.Sig(), nil},
		"in another's name":              {space.ErrForged, stranger.Sig(), func(e *entry) { e.Signer = enrolled.ID() }},
		"in the identity key's name":     {space.ErrForged, enrolled.Sig(), func(e *entry) { e.Signer = [32]byte(s.SigPub) }},
		"of another identity":            {ErrOrder, seed.signing(), func(e *entry) { e.C[0] ^= 1 }},
		"seq repeated":                   {ErrOrder, seed.signing(), func(e *entry) { e.Seq-- }},
		"seq skipped":                    {ErrOrder, seed.signing(), func(e *entry) { e.Seq++ }},
		"another prev":                   {ErrOrder, seed.signing(), func(e *entry) { e.Prev[0] ^= 1 }},
		"zero prev":                      {ErrOrder, seed.signing(), func(e *entry) { e.Prev = [32]byte{} }},
		"version":                        {space.ErrUnsupported, seed.signing(), func(e *entry) { e.Ver = 2 }},
		"time before 1970":               {space.ErrMalformed, seed.signing(), func(e *entry) { e.TimeMs = -1 }},
		"kind 0":                         {space.ErrMalformed, seed.signing(), func(e *entry) { e.Kind = 0 }},
		"kind 8":                         {space.ErrMalformed, seed.signing(), func(e *entry) { e.Kind = 8 }},
		"genesis again":                  {space.ErrMalformed, seed.signing(), func(e *entry) { e.Kind = KindGenesis }},
		"revoke-device of another shape": {space.ErrMalformed, seed.signing(), func(e *entry) { e.Kind = KindRevokeDevice }},
		"prekeys":                        {space.ErrUnsupported, seed.signing(), func(e *entry) { e.Kind = KindPrekeys }},
		"retire":                         {space.ErrUnsupported, seed.signing(), func(e *entry) { e.Kind = KindRetire }},
		"body of another kind":           {space.ErrMalformed, seed.signing(), func(e *entry) { e.Kind = KindBindDID }},
		"no body":                        {space.ErrMalformed, seed.signing(), func(e *entry) { e.Body = nil }},
	} {
		raw := forge(t, s, c.key, KindAddDevice, body, c.entry)
		next, err := s.Apply(raw)
		if !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
		if c.is == nil && !next.Can(newcomer.ID(), CapWrite) {
			t.Errorf("%s: the device is not live", name)
		}
		if c.is != nil && !next.IsZero() {
			t.Errorf("%s: a state beside the error", name)
		}
	}
}

func TestAddDeviceRules(t *testing.T) {
	seed := testSeed(0x11)
	s := alice().State
	limited := must[Device](t)(NewDevice(testRand(4)))
	_, s, err := s.AddDevice(seed, limited, CapEnroll|CapWrite, now)
	if err != nil {
		t.Fatal(err)
	}
	dev, other := must[Device](t)(NewDevice(testRand(5))), must[Device](t)(NewDevice(testRand(6)))
	type change struct {
		is   error
		by   Key
		body func(*deviceBody)
		pop  bool // prove again after the change
	}
	cases := map[string]change{
		"good":                   {},
		"by a device":            {by: alice().Device},
		"no capability":          {is: space.ErrUnsupported, body: func(b *deviceBody) { b.Caps = 0 }, pop: true},
		"unknown capability":     {is: space.ErrUnsupported, body: func(b *deviceBody) { b.Caps = 8 }, pop: true},
		"fewer than the signer":  {by: limited, body: func(b *deviceBody) { b.Caps = CapWrite }, pop: true},
		"more than the signer":   {is: space.ErrForbidden, by: limited},
		"pop by another":         {is: space.ErrForged, body: func(b *deviceBody) { prove(s, b, other.Sig()) }},
		"pop missing":            {is: space.ErrForged, body: func(b *deviceBody) { b.Pop = [64]byte{} }},
		"pop for another C":      {is: space.ErrForged, body: func(b *deviceBody) { prove(State{C: Commitment{1}}, b, dev.Sig()) }},
		"pop for another KEM":    {is: space.ErrForged, body: func(b *deviceBody) { b.KEM = other.KEMPublic() }},
		"pop for another DH":     {is: space.ErrForged, body: func(b *deviceBody) { b.DH = other.DH().PublicKey().Bytes() }},
		"pop for other caps":     {is: space.ErrForged, body: func(b *deviceBody) { b.Caps = CapWrite }},
		"pop for another device": {is: space.ErrForged, body: func(b *deviceBody) { b.Sig = other.ID() }},
		"KEM key":                {is: space.ErrMalformed, body: func(b *deviceBody) { b.KEM = b.KEM[1:] }, pop: true},
		"KEM key of small order": {is: space.ErrMalformed, body: func(b *deviceBody) { clear(b.KEM[kemPublicSize-32:]) }, pop: true},
		"DH key":                 {is: space.ErrMalformed, body: func(b *deviceBody) { b.DH = nil }, pop: true},
		"DH key of small order":  {is: space.ErrMalformed, body: func(b *deviceBody) { b.DH = make([]byte, 32) }, pop: true},
		"DH key twice encoded":   {is: space.ErrNotCanonical, body: func(b *deviceBody) { b.DH[31] |= 0x80 }, pop: true},
	}
	for _, k := range smallOrder {
		cases["small order "+k] = change{is: space.ErrMalformed, body: func(b *deviceBody) { b.Sig = key32(t, k) }}
	}
	for name, c := range cases {
		b := newDeviceBody(s, dev, CapsAll)
		if c.body != nil {
			c.body(b)
		}
		if c.pop {
			prove(s, b, dev.Sig())
		}
		if c.by == nil {
			c.by = seed
		}
		if _, err := s.Apply(forge(t, s, c.by.signing(), KindAddDevice, b, nil)); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
}

// With a key of small order one signature fits every message: the proof of
// possession alone would not stop it.
func TestSmallOrderForgery(t *testing.T) {
	s, identity := alice().State, key32(t, smallOrder[0])
	dev := must[Device](t)(NewDevice(testRand(5)))
	b := newDeviceBody(s, dev, CapsAll)
	b.Sig = identity
	b.Pop = [64]byte{}
	b.Pop[0] = 1 // R = the identity point, S = 0
	if !space.Verify(b.Sig[:], space.LabelDevicePop, b.Pop[:], popParts(s.C, b)...) {
		t.Fatal("the forged proof does not verify: the test shows nothing")
	}
	if _, err := s.Apply(forge(t, s, testSeed(0x11).signing(), KindAddDevice, b, nil)); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a device with the identity point: %v", err)
	}
}

func TestDeviceOnce(t *testing.T) {
	s, seed := alice().State, testSeed(0x11)
	if _, _, err := s.AddDevice(seed, alice().Device, CapWrite, now); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a live device again: %v", err)
	}
	// The identity key as a device: an id that means two things.
	dev := must[Device](t)(UnmarshalDevice(slices.Concat([]byte{1}, seed.signing().Seed(), make([]byte, 64))))
	if _, _, err := s.AddDevice(seed, dev, CapWrite, now); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("the identity key as a device: %v", err)
	}
}

// A log with as many devices as may be has room for their wraps.
func TestDeviceCap(t *testing.T) {
	s, seed := alice().State, testSeed(0x11)
	var err error
	for i := len(s.Devices); i < MaxDevices; i++ {
		dev := must[Device](t)(NewDevice(testRand(byte(100 + i))))
		if _, s, err = s.AddDevice(seed, dev, CapWrite, now); err != nil {
			t.Fatal(err)
		}
	}
	extra := must[Device](t)(NewDevice(testRand(99)))
	if _, _, err := s.AddDevice(seed, extra, CapWrite, now); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("one device too many: %v", err)
	}
	raw, _, _, err := s.RotatePUK(testRand(1), seed, alice().PUK, now)
	if err != nil || len(raw) > MaxEntry {
		t.Errorf("rotation for %d devices: %d bytes, %v", MaxDevices, len(raw), err)
	}
}

func TestBindDIDRules(t *testing.T) {
	seed := testSeed(0x11)
	s := must[State](t)(Verify(alice().Log[:1]))
	enrolled := alice().State
	k256, p256 := DIDKey(seed), must[*atcrypto.PrivateKeyP256](t)(atcrypto.ParsePrivateBytesP256(bytes.Repeat([]byte{3}, 32)))
	other := DIDKey(testSeed(0x12))
	did := func(k atcrypto.PrivateKey) space.DID {
		return space.DID(must[atcrypto.PublicKey](t)(k.PublicKey()).DIDKey())
	}
	sign := func(k atcrypto.PrivateKey, msg []byte) (p [64]byte) {
		copy(p[:], must[[]byte](t)(k.HashAndSign(msg)))
		return p
	}
	msg := BindMessage(s.C, did(k256))
	otherC := testSeed(0x12).Commitment()
	if high := highS(sign(k256, msg)); must[atcrypto.PublicKey](t)(k256.PublicKey()).HashAndVerifyLenient(msg, high[:]) != nil {
		t.Fatal("the high-S form is no signature: the case shows nothing")
	}
	for name, c := range map[string]struct {
		is   error
		body bindBody
		by   Key
	}{
		"both ways":                  {nil, bindBody{DID: did(k256), Proof: sign(k256, msg)}, seed},
		"both ways, P-256":           {nil, bindBody{DID: did(p256), Proof: sign(p256, BindMessage(s.C, did(p256)))}, seed},
		"the DID's half missing":     {space.ErrForged, bindBody{DID: did(k256)}, seed},
		"the DID's half by another":  {space.ErrForged, bindBody{DID: did(k256), Proof: sign(other, msg)}, seed},
		"for another C":              {space.ErrForged, bindBody{DID: did(k256), Proof: sign(k256, BindMessage(otherC, did(k256)))}, seed},
		"for another DID":            {space.ErrForged, bindBody{DID: did(k256), Proof: sign(k256, BindMessage(s.C, did(other)))}, seed},
		"high S":                     {space.ErrForged, bindBody{DID: did(k256), Proof: highS(sign(k256, msg))}, seed},
		"our half by a device":       {space.ErrForbidden, bindBody{DID: did(k256), Proof: sign(k256, msg)}, alice().Device},
		"our half by a stranger":     {space.ErrForbidden, bindBody{DID: did(k256), Proof: sign(k256, msg)}, testSeed(0x12)},
		"did:plc":                    {space.ErrUnsupported, bindBody{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Proof: sign(k256, msg)}, seed},
		"did:web":                    {space.ErrUnsupported, bindBody{DID: "did:web:example.com", Proof: sign(k256, msg)}, seed},
		"did:key without a key":      {space.ErrMalformed, bindBody{DID: "did:key:zabc", Proof: sign(k256, msg)}, seed},
		"did:key of another codec":   {space.ErrMalformed, bindBody{DID: "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", Proof: sign(k256, msg)}, seed},
		"did:key in another base":    {space.ErrMalformed, bindBody{DID: "did:key:uzQ3shw5y88EibNmkosQZbaWUVjMzbcY8gpt8c8X5mbG5qYGaT", Proof: sign(k256, msg)}, seed},
		"no DID":                     {space.ErrMalformed, bindBody{DID: "", Proof: sign(k256, msg)}, seed},
		"not a DID":                  {space.ErrMalformed, bindBody{DID: "example.com", Proof: sign(k256, msg)}, seed},
		"did:key with a fragment":    {space.ErrMalformed, bindBody{DID: did(k256) + "#key", Proof: sign(k256, msg)}, seed},
		"did:key with a second part": {space.ErrMalformed, bindBody{DID: did(k256) + ":a", Proof: sign(k256, msg)}, seed},
	} {
		base := s
		if _, device := c.by.(Device); device {
			base = enrolled
		}
		next, err := base.Apply(forge(t, base, c.by.signing(), KindBindDID, &c.body, nil))
		if !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
		if got, bound := next.BoundDID(); bound != (c.is == nil) || bound && got != c.body.DID {
			t.Errorf("%s: bound to %q", name, got)
		}
	}
}

// highS is the other signature of the same message: (r, n-s).
func highS(sig [64]byte) [64]byte {
	n, _ := hex.DecodeString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	borrow := 0
	for i := 31; i >= 0; i-- {
		d := int(n[i]) - int(sig[32+i]) - borrow
		borrow = 0
		if d < 0 {
			d, borrow = d+256, 1
		}
		sig[32+i] = byte(d)
	}
	return sig
}

func TestPUKRules(t *testing.T) {
	seed := testSeed(0x11)
	s, _ := withDevice(t, 5, CapWrite)
	next := must[PUK](t)(newPUK(testRand(7), 2))
	stranger := must[Device](t)(NewDevice(testRand(8)))
	for name, c := range map[string]struct {
		is   error
		body func(*pukBody)
	}{
		"good":                   {nil, func(*pukBody) {}},
		"generation repeated":    {space.ErrMalformed, func(b *pukBody) { b.Gen = 1 }},
		"generation skipped":     {space.ErrMalformed, func(b *pukBody) { b.Gen = 3 }},
		"generation 0":           {space.ErrMalformed, func(b *pukBody) { b.Gen = 0 }},
		"KEM key":                {space.ErrMalformed, func(b *pukBody) { b.KEM = b.KEM[1:] }},
		"KEM key of small order": {space.ErrMalformed, func(b *pukBody) { clear(b.KEM[kemPublicSize-32:]) }},
		"DH key of small order":  {space.ErrMalformed, func(b *pukBody) { b.DH = make([]byte, 32) }},
		"KEM key of before":      {space.ErrMalformed, func(b *pukBody) { b.KEM = s.PUK.KEM }},
		"DH key of before":       {space.ErrMalformed, func(b *pukBody) { b.DH = s.PUK.DH }},
		"no seal of before":      {space.ErrMalformed, func(b *pukBody) { b.Prev = nil }},
		"empty seal of before":   {space.ErrMalformed, func(b *pukBody) { b.Prev = []byte{} }},
		"long seal of before":    {space.ErrMalformed, func(b *pukBody) { b.Prev = append(b.Prev, 0) }},
		"no wrap to the seed":    {space.ErrMalformed, func(b *pukBody) { b.Root = nil }},
		"short wrap to the seed": {space.ErrMalformed, func(b *pukBody) { b.Root = b.Root[1:] }},
		"no wraps":               {space.ErrMalformed, func(b *pukBody) { b.Wraps = nil }},
		"a device left out":      {space.ErrMalformed, func(b *pukBody) { b.Wraps = b.Wraps[:1] }},
		"a wrap to a stranger": {space.ErrForbidden, func(b *pukBody) {
			b.Wraps[1].Device = stranger.ID()
			slices.SortFunc(b.Wraps, func(x, y pukWrap) int { return bytes.Compare(x.Device[:], y.Device[:]) })
		}},
		"a wrap too many":    {space.ErrMalformed, func(b *pukBody) { b.Wraps = append(b.Wraps, pukWrap{Device: stranger.ID(), Sealed: b.Root}) }},
		"a device twice":     {space.ErrNotCanonical, func(b *pukBody) { b.Wraps[1] = b.Wraps[0] }},
		"wraps out of order": {space.ErrNotCanonical, func(b *pukBody) { slices.Reverse(b.Wraps) }},
		"a short wrap":       {space.ErrMalformed, func(b *pukBody) { b.Wraps[1].Sealed = b.Wraps[1].Sealed[1:] }},
	} {
		b := must[*pukBody](t)(s.pukBody(testRand(9), next, alice().PUK))
		c.body(b)
		if _, err := s.Apply(forge(t, s, seed.signing(), KindPUK, b, nil)); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
	// The first generation: nothing sealed before it, and somebody to have it.
	early := must[State](t)(Verify(alice().Log[:3]))
	first := must[PUK](t)(newPUK(testRand(7), 1))
	b := must[*pukBody](t)(early.pukBody(testRand(9), first, PUK{}))
	b.Prev = []byte{}
	if _, err := early.Apply(forge(t, early, seed.signing(), KindPUK, b, nil)); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("first with an empty seal: %v", err)
	}
	bare := must[State](t)(Verify(alice().Log[:2]))
	if _, _, _, err := bare.RotatePUK(testRand(1), seed, PUK{}, now); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("first without a device: %v", err)
	}
}

// A wrap of another key than announced is the sender's lie: it shows when it
// is opened.
func TestWrapOfAnotherKey(t *testing.T) {
	seed, s := testSeed(0x11), alice().State
	next, lie := must[PUK](t)(newPUK(testRand(7), 2)), must[PUK](t)(newPUK(testRand(8), 2))
	b := must[*pukBody](t)(s.pukBody(testRand(9), next, alice().PUK))
	lied := must[*pukBody](t)(s.pukBody(testRand(9), lie, alice().PUK))
	b.Wraps, b.Prev = lied.Wraps, lied.Prev
	s = must[State](t)(s.Apply(forge(t, s, seed.signing(), KindPUK, b, nil)))
	if _, err := UnwrapPUK(alice().Device, s); !errors.Is(err, space.ErrForged) {
		t.Errorf("wrap of another key: %v", err)
	}
	if _, err := next.Previous(s); !errors.Is(err, space.ErrForged) {
		t.Errorf("seal under another key: %v", err)
	}
	if p, err := UnwrapPUK(seed, s); err != nil || !p.Equal(next) {
		t.Errorf("the seed's wrap: %v", err)
	}
}
