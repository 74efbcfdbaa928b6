package seal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestWrapIssuer(t *testing.T) {
	iss, other := must(NewIssuer(random(60))), must(NewIssuer(random(61)))
	keeper := puk(3, 1)
	ctx := WrapContext{SpaceID: [32]byte{1}, Epoch: 4, C: person(1)}
	wrap := must(WrapIssuer(keeper.Public(), ctx, iss))
	if len(wrap) != WrapSize {
		t.Fatalf("%d bytes", len(wrap))
	}
	got, err := UnwrapIssuer(keeper, ctx, iss.Public(), wrap)
	if err != nil || !got.Public().Equal(iss.Public()) {
		t.Fatal(err)
	}
	gk := must(NewGroupKey(random(62)))
	for name, v := range map[string]struct {
		puk  identity.PUK
		ctx  WrapContext
		pub  ed25519.PublicKey
		wrap []byte
		want error
	}{
		"space":          {keeper, WrapContext{[32]byte{2}, 4, person(1)}, iss.Public(), wrap, space.ErrForged},
		"epoch":          {keeper, WrapContext{[32]byte{1}, 5, person(1)}, iss.Public(), wrap, space.ErrForged},
		"recipient":      {keeper, WrapContext{[32]byte{1}, 4, person(2)}, iss.Public(), wrap, space.ErrForged},
		"generation":     {puk(4, 1), ctx, iss.Public(), wrap, space.ErrForged},
		"key":            {puk(3, 2), ctx, iss.Public(), wrap, space.ErrForged},
		"another issuer": {keeper, ctx, other.Public(), wrap, space.ErrForged},
		"a group key":    {keeper, ctx, iss.Public(), must(Wrap(keeper.Public(), ctx, Full(gk))), space.ErrForged},
		"flipped":        {keeper, ctx, iss.Public(), flip(wrap, 1130), space.ErrForged},
		"short":          {keeper, ctx, iss.Public(), wrap[1:], space.ErrMalformed},
		"nothing":        {keeper, ctx, iss.Public(), nil, space.ErrMalformed},
		"zeros inside":   {keeper, ctx, iss.Public(), must(sealTo(keeper.Public(), ctx.message(space.LabelWrapIssuer, 3), make([]byte, 32))), space.ErrMalformed},
	} {
		if _, err := UnwrapIssuer(v.puk, v.ctx, v.pub, v.wrap); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Unwrap(keeper, ctx, gk.KID(), wrap); !errors.Is(err, space.ErrForged) {
		t.Errorf("an issuer as a group key: %v", err)
	}
	if _, err := WrapIssuer(identity.PUKPublic{}, ctx, iss); err == nil {
		t.Error("wrapped to nobody")
	}
}

func TestWrapDelegate(t *testing.T) {
	r := random(63)
	parent, child, older := must(NewGroupKey(r)), must(NewGroupKey(r)), must(NewGroupKey(r))
	ctx := DelegateContext{Parent: [32]byte{1}, Epoch: 4, Child: [32]byte{2}, ChildEpoch: 9}
	pub := child.DelegatePublic()
	if !bytes.Equal(pub, child.DelegatePublic()) || bytes.Equal(pub, older.DelegatePublic()) || len(pub) != 1216 {
		t.Fatal("the delegate key is not the group key's")
	}
	wrap := must(WrapDelegate(pub, ctx, parent))
	if len(wrap) != WrapSize {
		t.Fatalf("%d bytes", len(wrap))
	}
	if got, err := UnwrapDelegate(child, ctx, parent.KID(), wrap); err != nil || !got.Equal(parent) {
		t.Fatal(err)
	}
	for name, v := range map[string]struct {
		key  GroupKey
		ctx  DelegateContext
		kid  [32]byte
		wrap []byte
		want error
	}{
		"child's epoch before": {older, ctx, parent.KID(), wrap, space.ErrForged},
		"the parent's own key": {parent, ctx, parent.KID(), wrap, space.ErrForged},
		"parent":               {child, DelegateContext{[32]byte{3}, 4, [32]byte{2}, 9}, parent.KID(), wrap, space.ErrForged},
		"epoch":                {child, DelegateContext{[32]byte{1}, 5, [32]byte{2}, 9}, parent.KID(), wrap, space.ErrForged},
		"child":                {child, DelegateContext{[32]byte{1}, 4, [32]byte{3}, 9}, parent.KID(), wrap, space.ErrForged},
		"epoch of the child":   {child, DelegateContext{[32]byte{1}, 4, [32]byte{2}, 8}, parent.KID(), wrap, space.ErrForged},
		"swapped":              {child, DelegateContext{[32]byte{2}, 9, [32]byte{1}, 4}, parent.KID(), wrap, space.ErrForged},
		"kid":                  {child, ctx, child.KID(), wrap, space.ErrForged},
		"flipped":              {child, ctx, parent.KID(), flip(wrap, 1167), space.ErrForged},
		"short":                {child, ctx, parent.KID(), wrap[:WrapSize-1], space.ErrMalformed},
	} {
		if _, err := UnwrapDelegate(v.key, v.ctx, v.kid, v.wrap); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	weak := bytes.Clone(pub)
	clear(weak[len(weak)-32:]) // a point of small order
	for name, b := range map[string][]byte{"nobody": nil, "short": pub[1:], "weak": weak} {
		if _, err := WrapDelegate(b, ctx, parent); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestObject(t *testing.T) {
	r := random(64)
	gk, other := must(NewGroupKey(r)), must(NewGroupKey(r))
	ck, sp := gk.Control(), [32]byte{1}
	b := must(SealObject(r, ck, sp, 4, []byte("page")))
	if got := must(OpenObject(ck, sp, 4, b)); string(got) != "page" {
		t.Errorf("object = %q", got)
	}
	if ObjectName(b) == ObjectName(flip(b, 3)) {
		t.Error("two objects of one name")
	}
	no := func(_ any, err error) error { return err }
	for name, v := range map[string]struct{ got, want error }{
		"space":    {no(OpenObject(ck, [32]byte{2}, 4, b)), space.ErrForged},
		"epoch":    {no(OpenObject(ck, sp, 5, b)), space.ErrForged},
		"key":      {no(OpenObject(other.Control(), sp, 4, b)), space.ErrForged},
		"flipped":  {no(OpenObject(ck, sp, 4, flip(b, 30))), space.ErrForged},
		"as inner": {no(OpenInner(ck, sp, 4, b)), space.ErrForged},
		"short":    {no(OpenObject(ck, sp, 4, b[:39])), space.ErrMalformed},
		"long":     {no(OpenObject(ck, sp, 4, make([]byte, MaxObject+1))), space.ErrTooLarge},
		"too much": {no(SealObject(r, ck, sp, 4, make([]byte, MaxObject))), space.ErrTooLarge},
		"no luck":  {no(SealObject(broken{}, ck, sp, 4, nil)), nil},
	} {
		if v.got == nil || v.want != nil && !errors.Is(v.got, v.want) {
			t.Errorf("%s: %v", name, v.got)
		}
	}
	if whole := must(SealObject(r, ck, sp, 4, make([]byte, MaxObject-boxOver))); len(whole) != MaxObject {
		t.Errorf("the largest object has %d bytes", len(whole))
	}
}

const voucherTime = 1_900_000_000_000

func testVoucher() (DelegateVoucher, ed25519.PrivateKey) {
	signer := ed25519.NewKeyFromSeed(fill(65, 32))
	return must(SignDelegateVoucher(DelegateVoucher{
		Child: [32]byte{2}, Parent: [32]byte{1}, C: person(3), Level: space.LevelWrite, Epoch: 9,
	}, voucherTime, signer)), signer
}

func TestDelegateVoucher(t *testing.T) {
	v, signer := testVoucher()
	keys := [][32]byte{{1}, v.Signer} // the identity point: its signature fits everything
	if err := v.Verify([32]byte{1}, keys, voucherTime); err != nil {
		t.Fatal(err)
	}
	back, err := DecodeDelegateVoucher(must(v.Encode()))
	if err != nil || back != v {
		t.Fatalf("%+v, %v", back, err)
	}
	for name, c := range map[string]struct {
		change func(*DelegateVoucher)
		at     int64
		want   error
	}{
		"child":     {func(v *DelegateVoucher) { v.Child[0]++ }, 0, space.ErrForged},
		"parent":    {func(v *DelegateVoucher) { v.Parent[0]++ }, 0, space.ErrForged},
		"person":    {func(v *DelegateVoucher) { v.C[0]++ }, 0, space.ErrForged},
		"level":     {func(v *DelegateVoucher) { v.Level-- }, 0, space.ErrForged},
		"epoch":     {func(v *DelegateVoucher) { v.Epoch++ }, 0, space.ErrForged},
		"end":       {func(v *DelegateVoucher) { v.NotAfterMs++ }, 0, space.ErrForged},
		"stranger":  {func(v *DelegateVoucher) { v.Signer = [32]byte{8} }, 0, space.ErrForged},
		"signature": {func(v *DelegateVoucher) { v.Sig[5] ^= 1 }, 0, space.ErrForged},
		"weak key":  {func(v *DelegateVoucher) { v.Signer = [32]byte{1} }, 0, space.ErrMalformed},
		"over":      {func(*DelegateVoucher) {}, VoucherLifeMs, space.ErrForbidden},
		"too long":  {func(*DelegateVoucher) {}, -voucherSkewMs - 1, space.ErrForbidden},
		"last":      {func(*DelegateVoucher) {}, VoucherLifeMs - 1, nil},
		"skewed":    {func(*DelegateVoucher) {}, -voucherSkewMs, nil},
	} {
		bad := v
		c.change(&bad)
		if err := bad.Verify([32]byte{1}, keys, voucherTime+c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.Verify([32]byte{1}, nil, voucherTime); !errors.Is(err, space.ErrForged) {
		t.Errorf("no signer is known: %v", err)
	}
	if err := v.Verify([32]byte{5}, keys, voucherTime); !errors.Is(err, space.ErrForged) {
		t.Errorf("at another parent: %v", err)
	}
	for name, change := range map[string]func(*DelegateVoucher){
		"level none": func(v *DelegateVoucher) { v.Level = space.LevelNone },
		"level 4":    func(v *DelegateVoucher) { v.Level = 4 },
		"itself":     func(v *DelegateVoucher) { v.Child = v.Parent },
		"epoch 0":    func(v *DelegateVoucher) { v.Epoch = 0 },
		"huge epoch": func(v *DelegateVoucher) { v.Epoch = 1 << 63 },
	} {
		bad := v
		change(&bad)
		if _, err := SignDelegateVoucher(bad, voucherTime, signer); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (DelegateVoucher{Child: [32]byte{1}, Level: 1, Epoch: 1}).Encode(); !errors.Is(err, space.ErrMalformed) {
		t.Error("encoded without an end")
	}
	if _, err := DecodeDelegateVoucher(must(space.Marshal([]any{2, 1}))); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("another array: %v", err)
	}
}

// TestVia: an author that a child space sends is vouched for as such, and its
// chain reads like any other.
func TestVia(t *testing.T) {
	e, child := newEpoch(66), [32]byte{7}
	cred := e.credential(person(1))
	cred.Via, cred.Voucher = child, e.issuer.VouchVia(cred.Writer.Public(), person(1), child)
	if err := cred.Check(e.issuer.Topic(), person(1)); err != nil {
		t.Fatal(err)
	}
	back, err := UnmarshalCredential(cred.Marshal())
	if err != nil || back.Via != child || len(cred.Marshal()) != ViaCredentialSize {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"no space": append(cred.Marshal()[:CredentialSize], make([]byte, 32)...),
		"between":  cred.Marshal()[:CredentialSize+1],
	} {
		if _, err := UnmarshalCredential(b); err == nil {
			t.Errorf("%s: taken for a credential", name)
		}
	}
	w := must(NewWriter(e.rand, cred, e.issuer.Topic(), e.keys, person(1)))
	run, _, err := w.Hello(e.rand, testHello())
	if err != nil {
		t.Fatal(err)
	}
	run = append(run, must(w.Seal(e.rand, envelope.Entry, text(10)))...)
	r := e.reader(w)
	if got, err := drain(r, run[:1]); err != nil || len(got) != 1 {
		t.Fatal(err)
	}
	if h, _ := r.Hello(); h.Via != child || r.Via() != child {
		t.Errorf("sent by %x", r.Via())
	}
	state := must(r.MarshalBinary())
	if !bytes.Equal(state, ReaderStateVia(person(1), testHello().Device, child, 1)) {
		t.Error("the stored state differs")
	}
	if StateVia(state) != child || StateVia(state[:readerSize]) != [32]byte{} || StateVia(nil) != [32]byte{} {
		t.Error("the stored state does not say who sent the author")
	}
	again := must(RestoreReader(e.keys, w.Chain(), w.Certificate(), state))
	if got, err := drain(again, run[1:]); err != nil || len(got) != 1 || again.Via() != child {
		t.Errorf("restored: %d bodies, by way of %x, %v", len(got), again.Via(), err)
	}
	h, _ := r.Hello()
	for name, change := range map[string]func(*Hello){
		"of the roster":   func(h *Hello) { h.Via = [32]byte{} },
		"another space":   func(h *Hello) { h.Via[0]++ },
		"another author":  func(h *Hello) { h.C = person(2) },
		"a plain voucher": func(h *Hello) { h.Voucher = e.issuer.Vouch(cred.Writer.Public(), person(1)) },
	} {
		bad := h
		change(&bad)
		if err := CheckHello(bad, w.Certificate()); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"cut":      state[:len(state)-1],
		"plain":    append([]byte{readerVersion}, state[1:]...),
		"no space": append(bytes.Clone(state[:readerSize]), make([]byte, 32)...),
		"unread":   append([]byte{readerVersionVia, authorUnknown}, append(make([]byte, 72), fill(7, 32)...)...),
	} {
		if _, err := RestoreReader(e.keys, w.Chain(), w.Certificate(), b); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHelloOneEncoding: the two shapes do not overlap.
func TestHelloOneEncoding(t *testing.T) {
	h := testHello()
	h.Via = [32]byte{7}
	wire := must(unmarshalHello(must(h.Encode())))
	if back := must(DecodeHello(must(h.Encode()))); back.Via != h.Via || back.Device != h.Device {
		t.Fatalf("%+v", back)
	}
	one, none := wire, wire
	one.Ver, none.Via = 1, [32]byte{}
	two := wire.plain()
	two.Ver = 2
	for name, v := range map[string]struct {
		in   any
		want error
	}{
		"one with a space":     {one, space.ErrUnsupported},
		"two by way of nobody": {none, space.ErrNotCanonical},
		"two without a space":  {two, space.ErrUnsupported},
	} {
		if _, err := DecodeHello(must(space.Marshal(v.in))); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWelcomePrior(t *testing.T) {
	in := newInvitation(67)
	r := random(68)
	full, closed, self := must(NewGroupKey(r)), must(NewGroupKey(r)), must(NewGroupKey(r))
	in.w.Prior = []Prior{
		{Epoch: 1, Keys: Full(full)},
		{Epoch: 2, Control: closed.Control()},
		{Epoch: 3, Keys: must(Full(self).Self(person(1)))},
	}
	w, err := OpenWelcome(in.puk, in.ctx, must(in.seal()))
	if err != nil || len(w.Prior) != 3 {
		t.Fatal(w.Prior, err)
	}
	p := w.Prior
	if !must(p[0].Keys.Group()).Equal(full) || !p[0].Control.Equal(full.Control()) {
		t.Error("the keys of epoch 1 differ")
	}
	if !p[1].Keys.IsZero() || !p[1].Control.Equal(closed.Control()) {
		t.Error("epoch 2 is not closed")
	}
	if !must(p[2].Keys.Author(person(1))).Equal(self.Author(person(1))) || !p[2].Control.Equal(self.Control()) {
		t.Error("the own keys of epoch 3 differ")
	}
	for name, prior := range map[string][]Prior{
		"twice":       {{Epoch: 1, Keys: Full(full)}, {Epoch: 1, Keys: Full(full)}},
		"falling":     {{Epoch: 2, Keys: Full(full)}, {Epoch: 1, Keys: Full(full)}},
		"zero":        {{Epoch: 0, Keys: Full(full)}},
		"no key":      {{Epoch: 1}},
		"the present": {{Epoch: in.ctx.Epoch, Keys: Full(full)}},
		"too many":    make([]Prior, MaxPrior+1),
	} {
		bad := in
		bad.w.Prior = prior
		if _, err := bad.seal(); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	// What a keeper signed may still not be what it may be.
	good := priorWire{Epoch: 1, Keys: full.Marshal(), Control: []byte{}}
	wire := welcomeWire{
		Keys: in.keys.Marshal(), CtlLog: [][]byte{}, Issuer: in.w.IssuerPub, Addrs: []string{},
		Relays: []string{}, Grant: []byte{}, Voucher: []byte{}, IL: [][]byte{},
	}
	if _, err := decodeWelcome(must(space.Marshal(wire.with([]priorWire{good}))), person(1)); err != nil {
		t.Fatal(err)
	}
	with := func(prior ...priorWire) []byte { return must(space.Marshal(wire.with(prior))) }
	one := wire.with([]priorWire{good})
	one.Ver = 1
	for name, v := range map[string]struct {
		b    []byte
		want error
	}{
		"none":          {with(), space.ErrNotCanonical},
		"version":       {must(space.Marshal(one)), space.ErrUnsupported},
		"both":          {with(priorWire{Epoch: 1, Keys: good.Keys, Control: full.Control().Marshal()}), space.ErrNotCanonical},
		"neither":       {with(priorWire{Epoch: 1, Keys: []byte{}, Control: []byte{}}), space.ErrNotCanonical},
		"null":          {with(priorWire{Epoch: 1, Keys: good.Keys}), space.ErrNotCanonical},
		"a bad key":     {with(priorWire{Epoch: 1, Keys: []byte{1}, Control: []byte{}}), space.ErrMalformed},
		"a bad control": {with(priorWire{Epoch: 1, Keys: []byte{}, Control: make([]byte, 32)}), space.ErrMalformed},
		"twice":         {with(good, good), space.ErrNotCanonical},
		"null list":     {must(space.Marshal(wire.with(nil))), space.ErrNotCanonical},
	} {
		if _, err := decodeWelcome(v.b, person(1)); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The keeper may not give what is not before the welcome, however it is signed.
	late := in
	late.w.keys, late.w.Prior = late.keys, []Prior{{Epoch: 9, Keys: Full(full)}}
	info := in.ctx.info()
	b := must(sealTo(in.puk.Public(), info, must(late.w.encode())))
	b = append(b, space.Sign(in.keeper, space.LabelWelcome, info, b)...)
	if _, err := OpenWelcome(in.puk, in.ctx, b); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a later epoch: %v", err)
	}
}

// FuzzDelegateVoucher decodes what anybody may send.
func FuzzDelegateVoucher(f *testing.F) {
	v, _ := testVoucher()
	f.Add(must(v.Encode()))
	f.Add([]byte{0x89, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeDelegateVoucher(b)
		if err != nil {
			return
		}
		if again := must(got.Encode()); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes and encodes to %x", b, again)
		}
		if got.Verify([32]byte{1}, [][32]byte{v.Signer}, voucherTime) == nil && got != v {
			t.Fatalf("%+v verifies", got)
		}
	})
}

// FuzzWrapped gives who opens wraps and objects whatever bytes it may.
func FuzzWrapped(f *testing.F) {
	r := random(69)
	gk, iss, own := must(NewGroupKey(r)), must(NewIssuer(r)), puk(1, 1)
	f.Add(must(WrapIssuer(own.Public(), WrapContext{}, iss)))
	f.Add(must(WrapDelegate(gk.DelegatePublic(), DelegateContext{}, gk)))
	f.Add(must(SealObject(r, gk.Control(), [32]byte{}, 1, []byte("page"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := UnwrapIssuer(own, WrapContext{}, iss.Public(), b); err == nil && !got.Public().Equal(iss.Public()) {
			t.Fatal("another issuer")
		}
		if got, err := UnwrapDelegate(gk, DelegateContext{}, gk.KID(), b); err == nil && !got.Equal(gk) {
			t.Fatal("another group key")
		}
		if got, err := OpenObject(gk.Control(), [32]byte{}, 1, b); err == nil && string(got) != "page" {
			t.Fatalf("another object: %q", got)
		}
	})
}

func TestChildAsk(t *testing.T) {
	sk := ed25519.NewKeyFromSeed(fill(1, 32))
	pub := sk.Public().(ed25519.PublicKey)
	ask := func(b byte) [32]byte {
		x := [8]byte{}
		x[b] = 1
		return ChildAskMessage(1+x[1], [32]byte{x[2]}, [32]byte{x[3]}, identity.DeviceID{x[4]}, identity.Commitment{x[5]}, identity.DeviceID{x[6]}, x[7:])
	}
	sig := SignChildAsk(sk, ask(0))
	if err := CheckChildAsk(pub, ask(0), sig); err != nil {
		t.Fatal(err)
	}
	for b := byte(1); b <= 7; b++ {
		if err := CheckChildAsk(pub, ask(b), sig); !errors.Is(err, space.ErrForged) {
			t.Errorf("field %d is not bound: %v", b, err)
		}
	}
	answer := ChildAnswerMessage(ask(0), []byte("a"))
	for name, m := range map[string][32]byte{
		"question": ChildAnswerMessage(ask(1), []byte("a")),
		"answer":   ChildAnswerMessage(ask(0), []byte("b")),
		"itself":   ask(0),
	} {
		if err := CheckChildAsk(pub, m, SignChildAsk(sk, answer)); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s is not bound: %v", name, err)
		}
	}
}
