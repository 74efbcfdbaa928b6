package seal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

func TestWrap(t *testing.T) {
	gk := must(NewGroupKey(random(30)))
	alice := puk(3, 1)
	ctx := WrapContext{SpaceID: [32]byte{1}, Epoch: 4, C: person(1)}
	full := must(Wrap(alice.Public(), ctx, Full(gk)))
	self := must(Wrap(alice.Public(), ctx, must(Full(gk).Self(person(1)))))
	if len(full) != WrapSize || WrapSize != 1168 || len(self) != SelfWrapSize {
		t.Fatalf("wraps of %d and %d bytes", len(full), len(self))
	}
	got, err := Unwrap(alice, ctx, gk.KID(), full)
	if err != nil || !must(got.Group()).Equal(gk) {
		t.Fatal(err)
	}
	if got, err = Unwrap(alice, ctx, gk.KID(), self); err != nil || !must(got.Author(person(1))).Equal(gk.Author(person(1))) {
		t.Fatal(err)
	}

	flipped := func(i int) []byte {
		b := bytes.Clone(full)
		b[i] ^= 1
		return b
	}
	for name, v := range map[string]struct {
		puk  identity.PUK
		ctx  WrapContext
		kid  [32]byte
		wrap []byte
		want error
	}{
		"space":         {alice, WrapContext{[32]byte{2}, 4, person(1)}, gk.KID(), full, space.ErrForged},
		"epoch":         {alice, WrapContext{[32]byte{1}, 5, person(1)}, gk.KID(), full, space.ErrForged},
		"recipient":     {alice, WrapContext{[32]byte{1}, 4, person(2)}, gk.KID(), full, space.ErrForged},
		"generation":    {puk(4, 1), ctx, gk.KID(), full, space.ErrForged},
		"key":           {puk(3, 2), ctx, gk.KID(), full, space.ErrForged},
		"kid":           {alice, ctx, [32]byte{1}, full, space.ErrForged},
		"ML-KEM":        {alice, ctx, gk.KID(), flipped(0), space.ErrForged},
		"X25519":        {alice, ctx, gk.KID(), flipped(1100), space.ErrForged},
		"ciphertext":    {alice, ctx, gk.KID(), flipped(1130), space.ErrForged},
		"tag":           {alice, ctx, gk.KID(), flipped(1167), space.ErrForged},
		"short":         {alice, ctx, gk.KID(), full[1:], space.ErrMalformed},
		"long":          {alice, ctx, gk.KID(), append(bytes.Clone(full), 0), space.ErrMalformed},
		"nothing":       {alice, ctx, gk.KID(), nil, space.ErrMalformed},
		"zeros inside":  {alice, ctx, gk.KID(), must(sealTo(alice.Public(), ctx.info(3), make([]byte, 32))), space.ErrMalformed},
		"other payload": {alice, ctx, gk.KID(), must(sealTo(alice.Public(), ctx.info(3), fill(1, 32))), space.ErrForged},
	} {
		if _, err := Unwrap(v.puk, v.ctx, v.kid, v.wrap); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Wrap(identity.PUKPublic{}, ctx, Full(gk)); err == nil {
		t.Error("wrapped to nobody")
	}
}

// invitation is a welcome for alice and what it is bound to.
type invitation struct {
	puk    identity.PUK
	ctx    WelcomeContext
	keys   Keys
	keeper ed25519.PrivateKey
	w      Welcome
}

func newInvitation(seed byte) invitation {
	e := newEpoch(seed)
	keeper := ed25519.NewKeyFromSeed(fill(seed, 32))
	cred := e.credential(person(1))
	return invitation{
		puk: puk(3, 1), keys: e.keys, keeper: keeper,
		ctx: WelcomeContext{
			SpaceID: [32]byte{1}, Epoch: 4, Keeper: identity.DeviceID(keeper.Public().(ed25519.PublicKey)),
			C: person(1), Nonce: [32]byte{5}, PUKGen: 3,
		},
		w: Welcome{
			CtlLog: [][]byte{text(300), text(400)}, Head: space.Head{Term: 1, Seq: 2, Hash: [32]byte{3}},
			IssuerPub: e.issuer.Public(), Addrs: []string{"/ip4/192.0.2.1/tcp/1"}, Relays: []string{"/dns/r"},
			Grant: cred.Grant, Voucher: cred.Voucher, IdentityLog: [][]byte{text(50)},
		},
	}
}

func (i invitation) seal() ([]byte, error) {
	return SealWelcome(i.puk.Public(), i.ctx, i.keys, i.w, i.keeper)
}

func TestWelcome(t *testing.T) {
	in := newInvitation(31)
	sealed, err := in.seal()
	if err != nil {
		t.Fatal(err)
	}
	w, err := OpenWelcome(in.puk, in.ctx, sealed)
	if err != nil {
		t.Fatal(err)
	}
	gk := must(in.keys.Group())
	if !w.Control().Equal(gk.Control()) {
		t.Error("control key differs")
	}
	if _, err := w.Keys([32]byte{1}); !errors.Is(err, space.ErrForged) {
		t.Errorf("another commitment: %v", err)
	}
	if keys, err := w.Keys(gk.KID()); err != nil || !must(keys.Group()).Equal(gk) {
		t.Errorf("keys: %v", err)
	}
	if !slices.EqualFunc(w.CtlLog, in.w.CtlLog, bytes.Equal) || w.Head != in.w.Head ||
		!w.IssuerPub.Equal(in.w.IssuerPub) || !slices.Equal(w.Addrs, in.w.Addrs) || !slices.Equal(w.Relays, in.w.Relays) ||
		w.Grant != in.w.Grant || w.Voucher != in.w.Voucher || !slices.EqualFunc(w.IdentityLog, in.w.IdentityLog, bytes.Equal) {
		t.Errorf("welcome differs: %+v", w)
	}
	if _, err := (Welcome{}).Keys(gk.KID()); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("empty welcome: %v", err)
	}

	// The barest one, to a member that reads only itself and does not write.
	in.keys = must(in.keys.Self(person(1)))
	in.w = Welcome{IssuerPub: in.w.IssuerPub}
	if w, err = OpenWelcome(in.puk, in.ctx, must(in.seal())); err != nil || w.Grant != ([envelope.GrantSize]byte{}) || w.CtlLog != nil {
		t.Fatal(err)
	}
	if keys, err := w.Keys([32]byte{}); err != nil || !must(keys.Author(person(1))).Equal(gk.Author(person(1))) {
		t.Errorf("keys: %v", err)
	}
}

// TestWelcomeBound: a welcome opens for one recipient, attempt, keeper and place.
func TestWelcomeBound(t *testing.T) {
	in := newInvitation(32)
	sealed := must(in.seal())
	other := newInvitation(33)
	for name, change := range map[string]func(*WelcomeContext){
		"space":     func(x *WelcomeContext) { x.SpaceID[0] ^= 1 },
		"epoch":     func(x *WelcomeContext) { x.Epoch++ },
		"keeper":    func(x *WelcomeContext) { x.Keeper = other.ctx.Keeper },
		"recipient": func(x *WelcomeContext) { x.C = person(2) },
		"nonce":     func(x *WelcomeContext) { x.Nonce[31] ^= 1 },
	} {
		ctx := in.ctx
		change(&ctx)
		if _, err := OpenWelcome(in.puk, ctx, sealed); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
		// Signed anew by the keeper for the other place, the seal inside still holds.
		swapped := append(bytes.Clone(sealed[:len(sealed)-64]), space.Sign(in.keeper, space.LabelWelcome, ctx.info(), sealed[:len(sealed)-64])...)
		if name != "keeper" {
			if _, err := OpenWelcome(in.puk, ctx, swapped); !errors.Is(err, space.ErrForged) {
				t.Errorf("%s, signed anew: %v", name, err)
			}
		}
	}
	// Another keeper passes it off as its own.
	stolen := in.ctx
	stolen.Keeper = other.ctx.Keeper
	inner := sealed[:len(sealed)-64]
	taken := append(bytes.Clone(inner), space.Sign(other.keeper, space.LabelWelcome, stolen.info(), inner)...)
	if _, err := OpenWelcome(in.puk, stolen, taken); !errors.Is(err, space.ErrForged) {
		t.Errorf("another keeper's: %v", err)
	}
	if _, err := OpenWelcome(puk(3, 2), in.ctx, sealed); !errors.Is(err, space.ErrForged) {
		t.Errorf("another's key: %v", err)
	}
	if _, err := OpenWelcome(puk(4, 1), in.ctx, sealed); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("another generation: %v", err)
	}
	ctx := in.ctx
	ctx.Keeper = [32]byte{1} // the identity point: its signature fits everything
	if _, err := OpenWelcome(in.puk, ctx, sealed); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("keeper of small order: %v", err)
	}
	for _, i := range []int{0, 1100, 1130, len(sealed) - 70, len(sealed) - 64, len(sealed) - 1} {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := OpenWelcome(in.puk, in.ctx, bad); !errors.Is(err, space.ErrForged) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for _, b := range [][]byte{nil, sealed[:1000], make([]byte, MaxWelcome+5000)} {
		if _, err := OpenWelcome(in.puk, in.ctx, b); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}

// TestWelcomeOneEncoding: what a keeper signed may still not be what it may be.
func TestWelcomeOneEncoding(t *testing.T) {
	in := newInvitation(37)
	wire := welcomeWire{
		Ver: 1, Keys: in.keys.Marshal(), CtlLog: [][]byte{}, Issuer: in.w.IssuerPub, Addrs: []string{},
		Relays: []string{}, Grant: in.w.Grant[:], Voucher: in.w.Voucher[:], IL: [][]byte{},
	}
	if _, err := decodeWelcome(must(space.Marshal(wire)), person(1)); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]struct {
		change func(*welcomeWire)
		want   error
	}{
		"version":     {func(w *welcomeWire) { w.Ver = 2 }, space.ErrUnsupported},
		"zero grant":  {func(w *welcomeWire) { w.Grant = make([]byte, 139) }, space.ErrNotCanonical},
		"short grant": {func(w *welcomeWire) { w.Grant = w.Grant[1:] }, space.ErrMalformed},
		"no voucher":  {func(w *welcomeWire) { w.Voucher = []byte{} }, space.ErrMalformed},
		"no grant":    {func(w *welcomeWire) { w.Grant = []byte{} }, space.ErrMalformed},
		"null log":    {func(w *welcomeWire) { w.CtlLog = nil }, space.ErrNotCanonical},
		"null addrs":  {func(w *welcomeWire) { w.Addrs = nil }, space.ErrNotCanonical},
		"null relays": {func(w *welcomeWire) { w.Relays = nil }, space.ErrNotCanonical},
		"null logs":   {func(w *welcomeWire) { w.IL = nil }, space.ErrNotCanonical},
		"null grant":  {func(w *welcomeWire) { w.Grant, w.Voucher = nil, nil }, space.ErrNotCanonical},
		"keys":        {func(w *welcomeWire) { w.Keys = make([]byte, 32) }, space.ErrMalformed},
		"issuer":      {func(w *welcomeWire) { w.Issuer = make([]byte, 31) }, space.ErrMalformed},
		"null entry":  {func(w *welcomeWire) { w.CtlLog = [][]byte{nil} }, space.ErrMalformed},
	} {
		bad := wire
		v.change(&bad)
		if _, err := decodeWelcome(must(space.Marshal(bad)), person(1)); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealWelcomeRefuses(t *testing.T) {
	for name, change := range map[string]func(*invitation){
		"keeper":     func(i *invitation) { i.keeper = newInvitation(34).keeper },
		"generation": func(i *invitation) { i.ctx.PUKGen++ },
		"issuer":     func(i *invitation) { i.w.IssuerPub = make([]byte, 32) },
		"no issuer":  func(i *invitation) { i.w.IssuerPub = nil },
		"log":        func(i *invitation) { i.w.CtlLog = [][]byte{text(MaxControlSize + 1)} },
		"long log":   func(i *invitation) { i.w.CtlLog = slices.Repeat([][]byte{text(200_000)}, 11) },
		"many":       func(i *invitation) { i.w.CtlLog = make([][]byte, MaxControlLog+1) },
		"logs":       func(i *invitation) { i.w.IdentityLog = [][]byte{nil} },
		"addrs":      func(i *invitation) { i.w.Addrs = make([]string, MaxAddrs+1) },
		"relays":     func(i *invitation) { i.w.Relays = []string{""} },
	} {
		in := newInvitation(35)
		change(&in)
		if _, err := in.seal(); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	in := newInvitation(35)
	in.keys = Keys{}
	mustPanic(t, func() { _, _ = in.seal() })
}

func TestClaims(t *testing.T) {
	inv := ed25519.NewKeyFromSeed(fill(1, 32))
	pub := inv.Public().(ed25519.PublicKey)
	redeem := func(b byte) [32]byte {
		x := [7]byte{}
		if b > 0 {
			x[b-1] = 1
		}
		return RedeemMessage([32]byte{x[0]}, [16]byte{x[1]}, identity.Commitment{x[2]}, [32]byte{x[3]}, [32]byte{x[4]}, [32]byte{x[5]}, [32]byte{x[6]})
	}
	admit := func(b byte) [32]byte {
		x := [7]byte{}
		if b > 0 {
			x[b-1] = 1
		}
		return AdmitMessage([32]byte{x[0]}, [32]byte{x[1]}, [32]byte{x[2]}, identity.Commitment{x[3]}, [32]byte{x[4]}, [32]byte{x[5]})
	}
	sig, asig := SignRedeem(inv, redeem(0)), SignAdmit(inv, admit(0))
	if err := errors.Join(CheckRedeem(pub, redeem(0), sig), CheckAdmit(pub, admit(0), asig)); err != nil {
		t.Fatal(err)
	}
	for b := byte(1); b <= 7; b++ {
		if err := CheckRedeem(pub, redeem(b), sig); !errors.Is(err, space.ErrForged) {
			t.Errorf("redeem: field %d is not bound: %v", b, err)
		}
		if err := CheckAdmit(pub, admit(b), asig); b < 7 && !errors.Is(err, space.ErrForged) {
			t.Errorf("admit: field %d is not bound: %v", b, err)
		}
	}
	if err := CheckAdmit(pub, redeem(0), sig); !errors.Is(err, space.ErrForged) {
		t.Errorf("a redemption as a claim: %v", err)
	}
	// The identity point signs everything with R = itself and S = 0.
	weak := ed25519.PublicKey(append([]byte{1}, make([]byte, 31)...))
	if err := CheckRedeem(weak, redeem(0), [64]byte{0: 1}); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("weak key: %v", err)
	}
}

func TestBoxes(t *testing.T) {
	r := random(36)
	gk, old := must(NewGroupKey(r)), must(NewGroupKey(r))
	ck := gk.Control()
	sp, topic := [32]byte{1}, envelope.TopicID{2}
	plain := []byte("inner")
	inner := must(SealInner(r, ck, sp, 4, plain))
	page := must(SealCtl(r, ck, topic, plain))
	clink := must(LinkControl(r, ck, old.Control(), sp, 4))
	glink := must(LinkGroup(r, gk, old, sp, 4))

	if got := must(OpenInner(ck, sp, 4, inner)); !bytes.Equal(got, plain) {
		t.Errorf("inner = %q", got)
	}
	if got := must(OpenCtl(ck, topic, page)); !bytes.Equal(got, plain) {
		t.Errorf("page = %q", got)
	}
	if !must(FollowControl(ck, sp, 4, clink)).Equal(old.Control()) {
		t.Error("control link")
	}
	if !must(FollowGroup(gk, sp, 4, old.KID(), glink)).Equal(old) {
		t.Error("group link")
	}
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	no := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"inner of another space":  no(OpenInner(ck, [32]byte{2}, 4, inner)),
		"inner of another epoch":  no(OpenInner(ck, sp, 5, inner)),
		"inner of the old key":    no(OpenInner(old.Control(), sp, 4, inner)),
		"inner flipped":           no(OpenInner(ck, sp, 4, flip(inner))),
		"page as inner":           no(OpenInner(ck, sp, 4, page)),
		"page of another topic":   no(OpenCtl(ck, envelope.TopicID{3}, page)),
		"page flipped":            no(OpenCtl(ck, topic, flip(page))),
		"control link elsewhere":  no(FollowControl(ck, [32]byte{2}, 4, clink)),
		"control link of a page":  no(FollowControl(ck, sp, 4, page)),
		"group link elsewhere":    no(FollowGroup(gk, sp, 5, old.KID(), glink)),
		"group link, another kid": no(FollowGroup(gk, sp, 4, gk.KID(), glink)),
		"group link flipped":      no(FollowGroup(gk, sp, 4, old.KID(), flip(glink))),
	} {
		if !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenCtl(ck, topic, make([]byte, 39)); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("short page: %v", err)
	}
	if _, err := SealInner(broken{}, ck, sp, 4, plain); err == nil {
		t.Error("sealed without randomness")
	}
}

// TestSealToWeak: a key on which no two can agree is refused where it is used.
func TestSealToWeak(t *testing.T) {
	weak := puk(1, 1).Public()
	weak.KEM = bytes.Clone(weak.KEM)
	clear(weak.KEM[len(weak.KEM)-32:])
	if _, err := Wrap(weak, WrapContext{}, Full(must(NewGroupKey(random(38))))); err == nil {
		t.Error("wrapped to a point of small order")
	}
}
