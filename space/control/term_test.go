package control

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
)

// fork is the log with another next entry than its own.
func (l *log) fork(i int) (*log, *Entry) {
	n := *l
	n.entries, n.rand = slices.Clip(l.entries), fixed(fmt.Sprint("fork", i))
	return &n, n.add(KindMemberAdd, n.member(1000+i))
}

func TestC2ForkProof(t *testing.T) {
	l := settled(t)
	left, a := l.fork(1)
	_, b := l.fork(2)
	for _, s := range []*State{l.s, left.s} {
		if err := VerifyFork(s, a.Raw(), b.Raw()); err != nil {
			t.Fatalf("a proof: %v", err)
		}
	}
	var fork ErrFork
	if _, err := Apply(left.s, b); !errors.As(err, &fork) || fork.Ours != a.Head() || fork.Entry != b {
		t.Fatalf("the other branch: %v", err)
	}
	for range 3 {
		left.add(KindInvite, testInvite(fmt.Sprint("on", left.s.Head.Seq)))
	}
	if _, err := Apply(left.s, b); !errors.As(err, &fork) || fork.Ours != a.Head() {
		t.Fatalf("the other branch, later: %v", err)
	}
	third := left.add(KindMemberAdd, left.member(3000))
	own := l.keys
	own.Sequencer = fixedKey("keeper")
	forged := forge(t, l.next(KindMemberAdd), l.member(7), own)
	elsewhere := l.next(KindMemberAdd)
	elsewhere.spaceID[0] ^= 1
	for name, pair := range map[string][2][]byte{
		"one entry twice":       {a.Raw(), a.Raw()},
		"two places":            {a.Raw(), third.Raw()},
		"not the sequencer's":   {a.Raw(), forged.Raw()},
		"another space":         {a.Raw(), forge(t, elsewhere, l.member(7), l.keys).Raw()},
		"garbage":               {a.Raw(), b.Raw()[:100]},
		"garbage first":         {nil, b.Raw()},
		"a genesis with itself": {l.entries[0].Raw(), l.entries[0].Raw()},
	} {
		if err := VerifyFork(left.s, pair[0], pair[1]); err == nil {
			t.Errorf("%s is a proof", name)
		}
	}
	// A proof outlives the term: the sequencer of each is remembered.
	left.appoint(1, "keeper")
	if err := VerifyFork(left.s, a.Raw(), b.Raw()); err != nil {
		t.Errorf("a proof of the term before: %v", err)
	}
	if err := VerifyFork(left.s, a.Raw(), forged.Raw()); err == nil {
		t.Error("the next sequencer's signature proves something of the term before")
	}
}

// The authority that opens one term twice forks the log, too.
func TestTwoSequencersOfOneTerm(t *testing.T) {
	l := settled(t)
	l.entries = slices.Clip(l.entries)
	x, y := *l, *l
	y.rand = fixed("y")
	x.appoint(1, "keeper")
	y.now++
	y.appoint(1, "keeper")
	a, b := x.entries[len(x.entries)-1], y.entries[len(y.entries)-1]
	var fork ErrFork
	if _, err := Apply(x.s, b); !errors.As(err, &fork) || fork.Ours != a.Head() {
		t.Fatalf("the second opening of a term: %v", err)
	}
	if err := VerifyFork(x.s, a.Raw(), b.Raw()); err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(x.s, a); !errors.As(err, new(ErrStale)) {
		t.Fatalf("its own opening again: %v", err)
	}
}

func TestSequencerTakesOver(t *testing.T) {
	l := settled(t)
	late := l.build(KindMemberAdd, l.member(50))
	l.appoint(1, "keeper")
	if l.s.Head.Term != 1 || l.s.SequencerSlot != 1 || !l.s.SequencerPub.Equal(fixedKey("keeper").Public()) {
		t.Fatalf("after the appointment:\n%s", describe(l.s))
	}
	if _, err := Apply(l.s, late); !errors.As(err, new(ErrStale)) {
		t.Fatalf("an entry of the old term: %v", err)
	}
	l.add(KindMemberAdd, l.member(50)) // proposed by the authority, ordered by the keeper
	for _, r := range []refusal{
		{"the sequencer removed", KindMemberRemove, func(l *log) any { return MemberRemove{Slot: 1, C: l.memberAt(1).C} }, nil, space.ErrMalformed},
		{"the sequencer's device taken", KindKeeperSet, func(l *log) any { return KeeperSet{Slot: 1, C: l.memberAt(1).C} }, nil, space.ErrMalformed},
		{"its capability taken", KindKeeperSet, func(l *log) any {
			return KeeperSet{Slot: 1, C: l.memberAt(1).C, Caps: CapAdmit, Devices: [][32]byte{pub(fixedKey("keeper"))}}
		}, nil, space.ErrMalformed},
	} {
		t.Run(r.name, func(t *testing.T) { r.run(t, l) })
	}
	own := must(testOwner()).dev.Sig()
	l.now++
	l.apply(must(Build(l.s, KindSequencer, Sequencer{Device: pub(own)}, BuildKeys{Proposer: own, Sequencer: own}, l.now, l.rand)))
	l.keys.Sequencer = own
	l.add(KindMemberRemove, l.removal(1))
}

func TestSequencerRefused(t *testing.T) {
	l := staffed(t)
	own, keeper := must(testOwner()).dev.Sig(), fixedKey("keeper")
	build := func(b Sequencer, k BuildKeys) error {
		_, err := Build(l.s, KindSequencer, b, k, l.now, l.rand)
		return err
	}
	both := func(k ed25519.PrivateKey) BuildKeys { return BuildKeys{Proposer: k, Sequencer: k} }
	for name, tt := range map[string]struct {
		body Sequencer
		keys BuildKeys
		want error
	}{
		"by the keeper itself":        {Sequencer{Slot: 1, Device: pub(keeper)}, both(keeper), space.ErrForbidden},
		"committed by the keeper":     {Sequencer{Slot: 1, Device: pub(keeper)}, BuildKeys{Proposer: own, Sequencer: keeper}, space.ErrForbidden},
		"without the capability":      {Sequencer{Slot: 3, Device: pub(fixedKey("serves"))}, both(own), space.ErrForbidden},
		"no keeper":                   {Sequencer{Slot: 4, Device: pub(keeper)}, both(own), space.ErrForbidden},
		"device of another keeper":    {Sequencer{Slot: 1, Device: pub(fixedKey("orders"))}, both(own), space.ErrMalformed},
		"device of small order":       {Sequencer{Slot: 1, Device: [32]byte{1}}, both(own), space.ErrMalformed},
		"the authority's own, unsaid": {Sequencer{Slot: 0, Device: pub(keeper)}, both(own), space.ErrMalformed},
	} {
		if err := build(tt.body, tt.keys); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := BuildTerm(l.s, Sequencer{Slot: 1, Device: pub(keeper)}, 0, both(own), l.now, l.rand); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("term 0 again: %v", err)
	}
	if _, err := Propose(l.s, KindSequencer, Sequencer{Slot: 1, Device: pub(keeper)}, own, l.rand); !errors.Is(err, space.ErrUnsupported) {
		t.Errorf("proposed to another: %v", err)
	}
}

// The authority may give up part of the log: of an unknown tail, or of the
// other branch of a fork. Who holds that part learns where to go on.
func TestSuperseded(t *testing.T) {
	l := settled(t)
	accepted, at := *l, len(l.entries)
	for i := range 5 {
		l.add(KindMemberAdd, l.member(60+i))
	}
	accepted.rand = fixed("accepted")
	accepted.entries = slices.Clip(accepted.entries)
	accepted.appoint(1, "keeper")
	e := accepted.entries[at]
	_, err := Apply(l.s, e)
	if want := (ErrSuperseded{Accept: accepted.entries[at-1].Head(), Known: true}); !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	back := must(Replay(raws(l.entries[:at]), func(uint64) []byte { return l.keys.CK }))
	if got := must(Apply(back, e)); describe(got) != describe(accepted.s) {
		t.Fatalf("replayed and applied:\n%s\nwant\n%s", describe(got), describe(accepted.s))
	}
	if _, err := Apply(accepted.s, l.entries[at]); !errors.As(err, new(ErrStale)) {
		t.Fatalf("an entry that was given up: %v", err)
	}

	side, _ := accepted.fork(1) // on the keeper's term
	other, _ := accepted.fork(2)
	own := must(testOwner()).dev.Sig()
	other.now++
	other.apply(must(Build(other.s, KindSequencer, Sequencer{Device: pub(own)}, BuildKeys{Proposer: own, Sequencer: own}, other.now, other.rand)))
	last := other.entries[len(other.entries)-1]
	if _, err := Apply(side.s, last); !errors.Is(err, ErrSuperseded{Accept: space.Head{Term: 1, Seq: last.Seq - 1, Hash: last.Prev}}) {
		t.Fatalf("the branch that lost: %v", err)
	}
	if _, err := Apply(l.s, last); !errors.As(err, new(ErrSuperseded)) {
		t.Fatalf("two terms on: %v", err)
	}
	d := draftOf(back, KindSequencer, back.Epoch, l.now)
	d.term, d.seq = 9, 3
	wrong := forge(t, d, Sequencer{Device: pub(own)}, BuildKeys{Proposer: own, Sequencer: own})
	if _, err := Apply(l.s, wrong); !errors.Is(err, space.ErrMalformed) {
		t.Fatalf("a prev from elsewhere: %v", err)
	}
	d.term, d.seq = 9, l.s.Head.Seq+5
	far := forge(t, d, Sequencer{Device: pub(own)}, BuildKeys{Proposer: own, Sequencer: own})
	if _, err := Apply(l.s, far); !errors.As(err, new(ErrGap)) {
		t.Fatalf("far ahead: %v", err)
	}
	d = draftOf(back, KindSequencer, back.Epoch, l.now)
	d.term = 1
	strange := forge(t, d, Sequencer{Device: pub(own)}, BuildKeys{Proposer: fixedKey("x"), Sequencer: fixedKey("x")})
	if _, err := Apply(l.s, strange); !errors.Is(err, space.ErrForbidden) {
		t.Fatalf("a stranger gives up part of the log: %v", err)
	}
	// A term above an abandoned one can stand on a head before it.
	high, err := BuildTerm(back, Sequencer{Device: pub(own)}, 7, BuildKeys{Proposer: own, Sequencer: own}, l.now, l.rand)
	if err != nil {
		t.Fatal(err)
	}
	if got := must(Apply(back, high)); got.Head.Term != 7 {
		t.Fatalf("term %d", got.Head.Term)
	}
	if _, err := Apply(accepted.s, high); !errors.As(err, new(ErrSuperseded)) {
		t.Fatalf("term 7 in place of term 1: %v", err)
	}
}

func raws(entries []*Entry) [][]byte {
	var out [][]byte
	for _, e := range entries {
		out = append(out, e.Raw())
	}
	return out
}

func TestDeleteIsTheEnd(t *testing.T) {
	l := settled(t)
	before := l.build(KindMemberAdd, l.member(9))
	l.add(KindDelete, Delete{Reason: "moved house"})
	if !l.s.Deleted || l.s.DeleteReason != "moved house" {
		t.Fatal("not deleted")
	}
	refusal{"a member", KindMemberAdd, func(l *log) any { return l.member(9) }, nil, space.ErrSpaceDeleted}.run(t, l)
	refusal{"deleted again", KindDelete, func(*log) any { return Delete{} }, nil, space.ErrSpaceDeleted}.run(t, l)
	own := must(testOwner()).dev.Sig()
	if _, err := Build(l.s, KindSequencer, Sequencer{Device: pub(own)}, BuildKeys{Proposer: own, Sequencer: own}, l.now, l.rand); !errors.Is(err, space.ErrSpaceDeleted) {
		t.Errorf("another sequencer: %v", err)
	}
	if _, err := Apply(l.s, before); !errors.As(err, new(ErrFork)) {
		t.Errorf("an entry in its place: %v", err)
	}
	refusal{"a long reason", KindDelete, func(*log) any { return Delete{Reason: string(make([]byte, MaxReason+1))} }, nil, space.ErrTooLarge}.run(t, settled(t))
}

func TestLeaveRefused(t *testing.T) {
	o := must(otherOwner())
	l := staffed(t)
	m, _ := l.s.Member(o.state.C)
	good := SignLeave(l.s.SpaceID, m, o.log, o.dev.Sig())
	edit := func(f func(*LeaveStatement)) func(*log) any {
		return func(l *log) any {
			x := good
			f(&x)
			return l.rotated(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C}).(MemberRemove).leaving(must(leaveCodec.encode(x)))
		}
	}
	resigned := func(x LeaveStatement, k ed25519.PrivateKey) LeaveStatement {
		x.Device = pub(k)
		copy(x.Sig[:], space.Sign(k, space.LabelLeave, x.message()))
		return x
	}
	for _, r := range []refusal{
		{"of another space", KindMemberRemove, edit(func(x *LeaveStatement) { x.Space[0] ^= 1; *x = resigned(*x, o.dev.Sig()) }), nil, space.ErrForged},
		{"of another slot", KindMemberRemove, edit(func(x *LeaveStatement) { x.Slot--; *x = resigned(*x, o.dev.Sig()) }), nil, space.ErrForged},
		{"of another", KindMemberRemove, edit(func(x *LeaveStatement) { x.C[0] ^= 1; *x = resigned(*x, o.dev.Sig()) }), nil, space.ErrForged},
		{"signature", KindMemberRemove, edit(func(x *LeaveStatement) { x.Sig[0] ^= 1 }), nil, space.ErrForged},
		{"device not its own", KindMemberRemove, edit(func(x *LeaveStatement) { *x = resigned(*x, fixedKey("keeper")) }), nil, space.ErrForged},
		{"log without the roster's head", KindMemberRemove, edit(func(x *LeaveStatement) { x.Log = x.Log[:3] }), nil, space.ErrForged},
		{"log of another", KindMemberRemove, edit(func(x *LeaveStatement) { x.Log = must(testOwner()).log }), nil, space.ErrForged},
		{"no log", KindMemberRemove, func(l *log) any {
			x := good
			x.Log = nil
			return l.rotated(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C}).(MemberRemove).leaving(must(space.Marshal(x)))
		}, nil, space.ErrMalformed},
		{"garbage", KindMemberRemove, func(l *log) any {
			return l.rotated(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C}).(MemberRemove).leaving([]byte{1})
		}, nil, space.ErrMalformed},
		{"too large", KindMemberRemove, func(l *log) any {
			return l.rotated(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C}).(MemberRemove).leaving(make([]byte, maxLeave+1))
		}, nil, space.ErrTooLarge},
	} {
		t.Run(r.name, func(t *testing.T) { r.run(t, l.as(fixedKey("keeper"))) })
	}
	// An old statement does not put out who came back.
	l.add(KindMemberRemove, l.rotated(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C}).(MemberRemove).leaving(must(good.Encode())))
	l.add(KindMemberAdd, MemberAdd{Slot: l.s.NextSlot(), C: m.C, DID: m.DID, Level: space.LevelRead, ILHead: m.ILHead})
	back, _ := l.s.Member(m.C)
	refusal{"said before", KindMemberRemove, func(l *log) any {
		return l.rotated(KindMemberRemove, MemberRemove{Slot: back.Slot, C: back.C}).(MemberRemove).leaving(must(good.Encode()))
	}, nil, space.ErrForged}.run(t, l.as(fixedKey("keeper")))
	big := good
	big.Log = [][]byte{make([]byte, maxLeave)}
	if _, err := big.Encode(); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("a huge log: %v", err)
	}
}

func (m MemberRemove) leaving(statement []byte) MemberRemove {
	m.Leave = statement
	return m
}

// ownDID founds a space with a DID of its own and the other owner as a member.
func ownDID(tb testing.TB) *log {
	tb.Helper()
	l := drafted(tb)
	o, other := must(testOwner()), must(otherOwner())
	g, _ := ownGenesisBody(o)
	l.apply(must(BuildGenesis(g, l.keys, l.now, l.rand)))
	l.add(KindEpoch, l.epoch())
	l.add(KindMemberAdd, MemberAdd{Slot: 1, C: other.state.C, DID: other.state.DID, Level: space.LevelWrite, ILHead: other.state.Head})
	l.add(KindMemberAdd, l.member(2))
	return l
}

func ownGenesisBody(o owner) (Genesis, *atcrypto.PrivateKeyK256) {
	key := must(atcrypto.GeneratePrivateKeyK256())
	did := must(space.ParseDID(must(key.PublicKey()).DIDKey()))
	g := genesisBody(o)
	g.SpaceDID, g.URI = did, space.ID{Authority: did, Type: "com.example.forum", Key: "self"}.AT()
	g.SpaceProof = ptr(must(SignSpaceDID(key, did, o.state.C)))
	return g, key
}

func TestOwnDID(t *testing.T) {
	l := ownDID(t)
	if l.s.ID.Authority == l.s.Authority.DID || l.s.Authority.DID != must(testOwner()).state.DID {
		t.Fatalf("the space is %v", l.s.ID)
	}
	r := l.reparse(l.entries[0])
	if g := r.Body().(Genesis); g.SpaceProof == nil || must(Apply(nil, r)).SpaceID != l.s.SpaceID {
		t.Fatal("read back it is another")
	}
	good, key := ownGenesisBody(must(testOwner()))
	for name, tt := range map[string]struct {
		edit func(*Genesis)
		want error
	}{
		"another's proof":         {func(g *Genesis) { g.SpaceProof = ptr(must(SignSpaceDID(key, g.SpaceDID, [32]byte{1}))) }, space.ErrForged},
		"proof of another DID":    {func(g *Genesis) { g.SpaceProof[3] ^= 1 }, space.ErrForged},
		"no proof":                {func(g *Genesis) { g.SpaceProof = nil }, space.ErrForged},
		"the authority's, proven": {func(g *Genesis) { x := genesisBody(must(testOwner())); x.SpaceProof = g.SpaceProof; *g = x }, space.ErrForged},
		"uri of a third":          {func(g *Genesis) { g.URI = genesisBody(must(otherOwner())).URI }, space.ErrForged},
		"a DID that has no log": {func(g *Genesis) {
			g.SpaceDID = "did:web:x.example"
			g.URI = "at://did:web:x.example/space/com.example.forum/self"
		}, space.ErrUnsupported},
		"a did:key that is no key": {func(g *Genesis) { g.SpaceDID = "did:key:zz"; g.URI = "at://did:key:zz/space/com.example.forum/self" }, space.ErrMalformed},
	} {
		g := good
		g.SpaceProof = ptr(*good.SpaceProof)
		tt.edit(&g)
		if _, err := BuildGenesis(g, drafted(t).keys, testTime, fixed("g")); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func transferBody(l *log) Transfer {
	o := must(otherOwner())
	m, _ := l.s.Member(o.state.C)
	return Transfer{
		Slot: m.Slot, C: m.C, DID: m.DID, IdentityLog: o.log, AuthorityPub: [32]byte(o.state.SigPub), Device: o.dev.ID(),
		Issuer: []byte("sealed issuer"), Accept: SignTransfer(o.dev.Sig(), l.s.SpaceID, l.s.Authority.C, m.C, m.Slot),
	}
}

func TestTransfer(t *testing.T) {
	l := ownDID(t)
	o := must(otherOwner())
	before := l.keys.Proposer
	l.add(KindTransfer, transferBody(l))
	s := l.s
	if s.Authority != (Authority{o.state.C, o.state.DID}) || s.AuthoritySlot != 1 || !s.AuthorityPub.Equal(o.state.SigPub) || s.ID.Authority == o.state.DID {
		t.Fatalf("after the transfer:\n%s", describe(s))
	}
	if _, caps, authority := s.DeviceCaps(o.dev.ID()); caps != CapAll || !authority {
		t.Fatalf("the new authority's device: %v %v", caps, authority)
	}
	if _, caps, authority := s.DeviceCaps(pub(before)); caps != CapAll || authority {
		t.Fatalf("the old authority's device: %v %v", caps, authority)
	}
	refusal{"by the old one", KindInvite, func(*log) any { return testInvite("n") }, nil, space.ErrForbidden}.run(t, l)
	next := l.as(o.dev.Sig())
	refusal{"the new one removed", KindMemberRemove, func(l *log) any { return MemberRemove{Slot: 1, C: o.state.C} }, nil, space.ErrLastAuthority}.run(t, next)
	next.now += 1000
	next.apply(must(Build(next.s, KindSequencer, Sequencer{Slot: 1, Device: o.dev.ID()}, BuildKeys{Proposer: o.dev.Sig(), Sequencer: o.dev.Sig()}, next.now, next.rand)))
	next.keys.Sequencer = o.dev.Sig()
	next.add(KindMemberRemove, next.removal(0)) // the old authority is a member like others
	if again := must(Replay(raws(next.entries), func(uint64) []byte { return l.keys.CK })); describe(again) != describe(next.s) {
		t.Fatal("replayed it is another")
	}
}

func TestTransferRefused(t *testing.T) {
	o := must(otherOwner())
	edit := func(f func(*log, *Transfer)) func(*log) any {
		return func(l *log) any {
			b := transferBody(l)
			f(l, &b)
			return b
		}
	}
	refusals := []refusal{
		{"not accepted", KindTransfer, edit(func(_ *log, b *Transfer) { b.Accept = [64]byte{} }), nil, space.ErrForged},
		{"accepted for another space", KindTransfer, edit(func(l *log, b *Transfer) {
			b.Accept = SignTransfer(o.dev.Sig(), [32]byte{1}, l.s.Authority.C, b.C, b.Slot)
		}), nil, space.ErrForged},
		{"accepted from another", KindTransfer, edit(func(l *log, b *Transfer) {
			b.Accept = SignTransfer(o.dev.Sig(), l.s.SpaceID, [32]byte{1}, b.C, b.Slot)
		}), nil, space.ErrForged},
		{"accepted by another device", KindTransfer, edit(func(l *log, b *Transfer) {
			b.Device = pub(fixedKey("x"))
			b.Accept = SignTransfer(fixedKey("x"), l.s.SpaceID, l.s.Authority.C, b.C, b.Slot)
		}), nil, space.ErrForged},
		{"identity log of another", KindTransfer, edit(func(_ *log, b *Transfer) { b.IdentityLog = must(testOwner()).log }), nil, space.ErrForged},
		{"identity log without the roster's head", KindTransfer, edit(func(_ *log, b *Transfer) { b.IdentityLog = b.IdentityLog[:3] }), nil, space.ErrForged},
		{"another's identity key", KindTransfer, edit(func(_ *log, b *Transfer) { b.AuthorityPub = [32]byte(must(testOwner()).state.SigPub) }), nil, space.ErrForged},
		{"another DID", KindTransfer, edit(func(_ *log, b *Transfer) { b.DID = "did:web:x.example" }), nil, space.ErrForged},
		{"no member", KindTransfer, edit(func(_ *log, b *Transfer) { b.Slot = 9 }), nil, space.ErrMemberNotFound},
		{"to itself", KindTransfer, edit(func(l *log, b *Transfer) { b.Slot, b.C = 0, l.s.Authority.C }), nil, space.ErrMalformed},
		{"without the issuer", KindTransfer, edit(func(_ *log, b *Transfer) { b.Issuer = nil }), nil, space.ErrMalformed},
		{"issuer and rotation", KindTransfer, func(l *log) any {
			b := transferBody(l)
			b.Issuer = nil
			b = l.rotated(KindTransfer, b).(Transfer)
			b.Issuer = []byte{1}
			return b
		}, nil, space.ErrMalformed},
	}
	runRefusals(t, ownDID, refusals)
	reader := func(tb testing.TB) *log {
		l := ownDID(tb)
		m := l.memberAt(1)
		l.add(KindMemberLevel, l.rotated(KindMemberLevel, MemberLevel{Slot: 1, C: m.C, Level: space.LevelRead}))
		return l
	}
	runRefusals(t, reader, []refusal{{"to a reader", KindTransfer, edit(func(*log, *Transfer) {}), nil, space.ErrMalformed}})
	runRefusals(t, staffed, []refusal{{"a space under its authority's DID", KindTransfer, edit(func(*log, *Transfer) {}), nil, space.ErrForbidden}})
}
