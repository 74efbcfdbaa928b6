package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

func TestFoundedSpace(t *testing.T) {
	l := founded(t)
	o := must(testOwner())
	s := l.s
	if s.ID.Authority != o.state.DID || s.Epoch != 1 || s.Head.Seq != 1 || s.CreatedMs != testTime {
		t.Fatalf("state after epoch 1:\n%s", describe(s))
	}
	m, ok := s.Member(o.state.C)
	if !ok || m.Slot != 0 || m.Level != space.LevelWrite || m.DID != o.state.DID || m.ILHead != o.state.Head {
		t.Fatalf("slot 0 is %+v", m)
	}
	if s.NextSlot() != 1 || s.Len() != 1 {
		t.Fatalf("%d members, next slot %d", s.Len(), s.NextSlot())
	}
	if s.SpaceID != space.Hash(space.LabelSpace, l.entries[0].plaintext) {
		t.Fatal("space id is not the hash of the genesis plaintext")
	}
}

func TestGenesisRefused(t *testing.T) {
	o, other := must(testOwner()), must(otherOwner())
	otherKeys := BuildKeys{Proposer: other.dev.Sig(), Sequencer: other.dev.Sig()}
	tests := []struct {
		name string
		edit func(g *Genesis, d *draft, k *BuildKeys)
		want error
	}{
		{"uri of another's DID", func(g *Genesis, _ *draft, _ *BuildKeys) {
			g.URI = strings.Replace(g.URI, string(o.state.DID), string(other.state.DID), 1)
		}, space.ErrForged},
		{"uri and space DID of another", func(g *Genesis, _ *draft, _ *BuildKeys) {
			g.URI, g.SpaceDID = genesisBody(other).URI, other.state.DID
		}, space.ErrForged},
		{"every DID of another", func(g *Genesis, _ *draft, _ *BuildKeys) {
			x := genesisBody(other)
			g.URI, g.SpaceDID, g.AuthorityDID, g.CreatorDID = x.URI, x.SpaceDID, x.AuthorityDID, x.CreatorDID
		}, space.ErrForged},
		{"another's whole body, own signature", func(g *Genesis, _ *draft, _ *BuildKeys) {
			*g = genesisBody(other)
		}, space.ErrForged},
		{"another's body, sequencer own", func(g *Genesis, _ *draft, _ *BuildKeys) {
			*g = genesisBody(other)
			g.SequencerPub = o.dev.ID()
		}, space.ErrForged},
		{"space DID alone of another", func(g *Genesis, _ *draft, _ *BuildKeys) { g.SpaceDID = other.state.DID }, space.ErrForged},
		{"commitment of another", func(g *Genesis, _ *draft, _ *BuildKeys) { g.AuthorityC = other.state.C }, space.ErrForged},
		{"authority key of another", func(g *Genesis, _ *draft, _ *BuildKeys) { g.AuthorityPub = [32]byte(other.state.SigPub) }, space.ErrForged},
		{"identity log of another", func(g *Genesis, _ *draft, _ *BuildKeys) { g.IdentityLog = other.log }, space.ErrForged},
		{"identity log without the binding", func(g *Genesis, _ *draft, _ *BuildKeys) { g.IdentityLog = o.log[:1] }, space.ErrForged},
		{"identity log without the device", func(g *Genesis, _ *draft, _ *BuildKeys) { g.IdentityLog = o.log[:2] }, space.ErrForged},
		{"no identity log", func(g *Genesis, _ *draft, _ *BuildKeys) { g.IdentityLog = nil }, space.ErrMalformed},
		{"damaged identity log", func(g *Genesis, _ *draft, _ *BuildKeys) {
			last := append([]byte(nil), o.log[len(o.log)-1]...)
			last[len(last)-1] ^= 1
			g.IdentityLog = append(o.log[:len(o.log)-1:len(o.log)-1], last)
		}, space.ErrForged},
		{"sequencer no device", func(g *Genesis, _ *draft, k *BuildKeys) {
			k.Proposer, k.Sequencer = fixedKey("x"), fixedKey("x")
			g.SequencerPub = pub(k.Sequencer)
		}, space.ErrForged},
		{"proposer another key", func(_ *Genesis, _ *draft, k *BuildKeys) { k.Proposer = fixedKey("x") }, space.ErrForged},
		{"committed by another key", func(_ *Genesis, _ *draft, k *BuildKeys) { k.Sequencer = fixedKey("x") }, space.ErrForged},
		{"all keys another's", func(_ *Genesis, _ *draft, k *BuildKeys) { *k = otherKeys }, space.ErrForged},
		{"ats form", func(g *Genesis, _ *draft, _ *BuildKeys) { g.URI = must(space.ParseID(g.URI)).String() }, space.ErrNotCanonical},
		{"uri of nothing", func(g *Genesis, _ *draft, _ *BuildKeys) { g.URI = "at://x" }, space.ErrMalformed},
		{"creator another", func(g *Genesis, _ *draft, _ *BuildKeys) { g.CreatorDID = other.state.DID }, space.ErrUnsupported},
		{"policy not built", func(g *Genesis, _ *draft, _ *BuildKeys) { g.Policy.Attribution = space.AttributionSig }, space.ErrUnsupported},
		{"own DID without its proof", func(g *Genesis, _ *draft, _ *BuildKeys) {
			g.SpaceDID = other.state.DID
			g.URI = space.ID{Authority: g.SpaceDID, Type: "com.example.forum", Key: "self"}.AT()
		}, space.ErrForged},
		{"policy unknown", func(g *Genesis, _ *draft, _ *BuildKeys) { g.Policy.Mint = "everyone" }, space.ErrMalformed},
		{"stands on an entry", func(_ *Genesis, d *draft, _ *BuildKeys) { d.base[0] = 1 }, space.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := drafted(t)
			g, d, k := genesisBody(o), l.next(KindGenesis), l.keys
			tt.edit(&g, &d, &k)
			e := forge(t, d, g, k)
			if err := e.Open(nil); err != nil {
				t.Fatal(err)
			}
			s, err := Apply(nil, e)
			if !errors.Is(err, tt.want) || s != nil {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestGenesisShape(t *testing.T) {
	o := must(testOwner())
	for name, edit := range map[string]func(*Genesis){
		"no space DID":       func(g *Genesis) { g.SpaceDID = "" },
		"authority DID text": func(g *Genesis) { g.AuthorityDID = "did:" },
		"creator DID text":   func(g *Genesis) { g.CreatorDID = "me" },
		"authority key":      func(g *Genesis) { g.AuthorityPub = [32]byte{1} },
		"sequencer key":      func(g *Genesis) { g.SequencerPub = [32]byte{1} },
	} {
		l := drafted(t)
		g := genesisBody(o)
		edit(&g)
		e := forge(t, l.next(KindGenesis), g, l.keys)
		if err := e.Open(nil); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: open gives %v", name, err)
		}
	}
}

// refusal is one entry that comes after the head and must not be applied.
type refusal struct {
	name string
	kind Kind
	body func(l *log) any
	edit func(l *log, d *draft) // of the framing; may be nil
	want error
}

func (r refusal) run(t *testing.T, l *log) {
	t.Helper()
	d, body := l.next(r.kind), r.body(l)
	if r.kind != KindEpoch && rotationOf(body) != nil {
		d.epoch++
	}
	if r.edit != nil {
		r.edit(l, &d)
	}
	e := forge(t, d, encodedBody(body), l.keys)
	if err := e.Open(l.keys.CK); err != nil {
		if !errors.Is(err, r.want) {
			t.Fatalf("open gives %v, want %v", err, r.want)
		}
		return
	}
	before := describe(l.s)
	s, err := Apply(l.s, e)
	if !errors.Is(err, r.want) || s != nil {
		t.Fatalf("apply gives %v, want %v", err, r.want)
	}
	if describe(l.s) != before {
		t.Fatal("a refused entry changed the state")
	}
}

// draftBody is a body to be marshalled as it is, whatever its codec says.
type draftBody struct{ v any }

// encodedBody is what a body is marshalled from; its check is not asked.
func encodedBody(body any) any {
	if p, ok := body.(PolicyChange); ok && p.Rotation == nil {
		return p.Policy
	}
	if d, ok := body.(draftBody); ok {
		return d.v
	}
	return body
}

func runRefusals(t *testing.T, start func(testing.TB) *log, tests []refusal) {
	for _, r := range tests {
		t.Run(r.name, func(t *testing.T) { r.run(t, start(t)) })
	}
}

// populated has an invite of two uses, used once, an expired one, and two
// members beside the owner.
func populated(tb testing.TB) *log {
	tb.Helper()
	l := founded(tb)
	v, old := testInvite("twice"), testInvite("expired")
	old.ExpiresMs = uint64(l.now + 4000)
	l.add(KindInvite, v)
	l.add(KindInvite, old)
	l.add(KindMemberAdd, l.memberBy(1, v, 1))
	l.add(KindMemberAdd, l.member(2))
	return l
}

func TestMemberAddRefused(t *testing.T) {
	twice, expired := testInvite("twice"), testInvite("expired")
	edit := func(f func(*MemberAdd)) func(*log) any {
		return func(l *log) any {
			b := l.member(9)
			f(&b)
			return b
		}
	}
	invited := func(v Invite, use uint32, f func(*MemberAdd)) func(*log) any {
		return func(l *log) any {
			b := l.memberBy(9, v, use)
			if f != nil {
				f(&b)
			}
			return b
		}
	}
	o := must(testOwner())
	runRefusals(t, populated, []refusal{
		{"slot taken", KindMemberAdd, edit(func(b *MemberAdd) { b.Slot-- }), nil, space.ErrMalformed},
		{"slot left out", KindMemberAdd, edit(func(b *MemberAdd) { b.Slot++ }), nil, space.ErrMalformed},
		{"commitment twice", KindMemberAdd, func(l *log) any { b := l.member(9); b.C = l.member(2).C; return b }, nil, space.ErrMemberExists},
		{"DID twice", KindMemberAdd, func(l *log) any { b := l.member(9); b.DID = l.member(2).DID; return b }, nil, space.ErrMemberExists},
		{"authority again", KindMemberAdd, edit(func(b *MemberAdd) { b.C, b.DID = o.state.C, o.state.DID }), nil, space.ErrMemberExists},
		{"authority's DID", KindMemberAdd, edit(func(b *MemberAdd) { b.DID = o.state.DID }), nil, space.ErrMemberExists},
		{"no level", KindMemberAdd, edit(func(b *MemberAdd) { b.Level = space.LevelNone }), nil, space.ErrMalformed},
		{"level too high", KindMemberAdd, edit(func(b *MemberAdd) { b.Level = space.LevelWrite + 1 }), nil, space.ErrMalformed},
		{"no commitment", KindMemberAdd, edit(func(b *MemberAdd) { b.C = [32]byte{} }), nil, space.ErrMalformed},
		{"not a DID", KindMemberAdd, edit(func(b *MemberAdd) { b.DID = "alice" }), nil, space.ErrMalformed},
		{"use without invite", KindMemberAdd, edit(func(b *MemberAdd) { b.Use = 1 }), nil, space.ErrMalformed},
		{"invite id of 15 bytes", KindMemberAdd, invited(twice, 2, func(b *MemberAdd) { b.InviteID = b.InviteID[:15] }), nil, space.ErrMalformed},
		{"invite id empty, not null", KindMemberAdd, func(l *log) any {
			b := l.member(9)
			b.InviteID = []byte{}
			return draftBody{b}
		}, nil, space.ErrNotCanonical},
		{"use 0", KindMemberAdd, invited(twice, 0, nil), nil, space.ErrMalformed},
		{"use counted twice", KindMemberAdd, invited(twice, 1, nil), nil, space.ErrInvite},
		{"use left out", KindMemberAdd, invited(twice, 3, nil), nil, space.ErrInvite},
		{"invite unknown", KindMemberAdd, invited(testInvite("never"), 1, nil), nil, space.ErrInvite},
		{"invite expired", KindMemberAdd, invited(expired, 1, nil), nil, space.ErrInvite},
		{"level above the invite's", KindMemberAdd, invited(twice, 2, func(b *MemberAdd) { b.Level++ }), nil, space.ErrInvite},
		{"level below the invite's", KindMemberAdd, invited(twice, 2, func(b *MemberAdd) { b.Level-- }), nil, space.ErrInvite},
		{"framing of the next epoch", KindMemberAdd, invited(twice, 2, nil), func(_ *log, d *draft) { d.epoch++ }, space.ErrMalformed},
		{"proposed on no head", KindMemberAdd, invited(twice, 2, nil), func(l *log, d *draft) { d.base[0] ^= 1 }, space.ErrMalformed},
		{"a field too many", KindMemberAdd, func(*log) any { return make([]int, 8) }, nil, space.ErrMalformed},
		{"bytes behind the body", KindMemberAdd, func(l *log) any { return append(must(space.Marshal(l.member(9))), 0) }, nil, space.ErrMalformed},
	})
}

func TestInviteUses(t *testing.T) {
	l := populated(t)
	v := testInvite("twice")
	l.add(KindMemberAdd, l.memberBy(3, v, 2))
	if got, ok := l.s.Invite(v.ID); !ok || got.Uses != 2 || got.Live(l.now) {
		t.Fatalf("after two uses of two: %+v", got)
	}
	if m, ok := l.s.MemberByDID("did:web:m3.example"); !ok || string(m.Invite) != string(v.ID[:]) || m.Level != space.LevelRead {
		t.Fatalf("member by invite: %+v", m)
	}
	refusal{"third use", KindMemberAdd, func(l *log) any { return l.memberBy(4, v, 3) }, nil, space.ErrInvite}.run(t, l)

	free := testInvite("free")
	free.MaxUses = 0
	l.add(KindInvite, free)
	for i := range 5 {
		l.add(KindMemberAdd, l.memberBy(10+i, free, uint32(i+1)))
	}
}

func TestInviteExpiresByTheEntrysTime(t *testing.T) {
	l := founded(t)
	v := testInvite("timed")
	v.ExpiresMs = uint64(l.now + 10_000)
	l.add(KindInvite, v)
	at := func(ms int64) func(*log, *draft) { return func(_ *log, d *draft) { d.timeMs = ms } }
	body := func(l *log) any { return l.memberBy(1, v, 1) }
	refusal{"at expiry", KindMemberAdd, body, at(int64(v.ExpiresMs)), space.ErrInvite}.run(t, l)
	d := l.next(KindMemberAdd)
	d.timeMs = int64(v.ExpiresMs) - 1
	l.apply(l.reparse(forge(t, d, body(l), l.keys)))
}

func TestInviteRefused(t *testing.T) {
	edit := func(f func(*Invite)) func(*log) any {
		return func(*log) any {
			v := testInvite("new")
			f(&v)
			return v
		}
	}
	small := [32]byte{1} // the identity point
	runRefusals(t, populated, []refusal{
		{"same again", KindInvite, func(*log) any { return testInvite("twice") }, nil, space.ErrMalformed},
		{"id of another key", KindInvite, edit(func(v *Invite) { v.ID = testInvite("never").ID }), nil, space.ErrMalformed},
		{"key of small order", KindInvite, edit(func(v *Invite) { v.Pub, v.ID = small, InviteID(small[:]) }), nil, space.ErrMalformed},
		{"no level", KindInvite, edit(func(v *Invite) { v.Level = space.LevelNone }), nil, space.ErrMalformed},
		{"level too high", KindInvite, edit(func(v *Invite) { v.Level = 9 }), nil, space.ErrMalformed},
		{"expiry out of range", KindInvite, edit(func(v *Invite) { v.ExpiresMs = MaxTime + 1 }), nil, space.ErrMalformed},
		{"body of a member-add", KindInvite, func(l *log) any { return l.member(9) }, nil, space.ErrMalformed},
	})
}

func TestEpochRefused(t *testing.T) {
	edit := func(f func(*Epoch)) func(*log) any {
		return func(l *log) any { return l.nextEpoch(f) }
	}
	cases := []refusal{
		{"number again", KindEpoch, edit(func(x *Epoch) { x.N-- }), nil, space.ErrMalformed},
		{"number left out", KindEpoch, edit(func(x *Epoch) { x.N++ }), nil, space.ErrMalformed},
		{"number left out, in the framing too", KindEpoch, edit(func(x *Epoch) { x.N++ }), func(_ *log, d *draft) { d.epoch++ }, space.ErrMalformed},
		{"framing of the epoch before", KindEpoch, edit(func(*Epoch) {}), func(_ *log, d *draft) { d.epoch-- }, space.ErrMalformed},
		{"no key commitment", KindEpoch, edit(func(x *Epoch) { x.KID = [32]byte{} }), nil, space.ErrMalformed},
		{"no wraps", KindEpoch, edit(func(x *Epoch) { x.Wraps = nil }), nil, space.ErrMalformed},
		{"wraps and pages", KindEpoch, edit(func(x *Epoch) { x.Pages = make([][32]byte, 1) }), nil, space.ErrMalformed},
		{"slot twice", KindEpoch, edit(func(x *Epoch) { x.Wraps = append(x.Wraps, x.Wraps[len(x.Wraps)-1]) }), nil, space.ErrMalformed},
		{"slot of nobody", KindEpoch, edit(func(x *Epoch) { x.Wraps = append(x.Wraps, Wrap{Slot: 99, Sealed: []byte{1}}) }), nil, space.ErrMalformed},
		{"wrong slot", KindEpoch, edit(func(x *Epoch) { x.Wraps[len(x.Wraps)-1].Slot = 77 }), nil, space.ErrMalformed},
		{"wrong commitment", KindEpoch, edit(func(x *Epoch) { x.Wraps[0].C[0] ^= 1 }), nil, space.ErrMalformed},
		{"empty wrap", KindEpoch, edit(func(x *Epoch) { x.Wraps[0].Sealed = nil }), nil, space.ErrMalformed},
		{"wrap too large", KindEpoch, edit(func(x *Epoch) { x.Wraps[0].Sealed = make([]byte, maxSealed+1) }), nil, space.ErrMalformed},
		{"another roster", KindEpoch, edit(func(x *Epoch) { x.RosterRoot[0] ^= 1 }), nil, space.ErrMalformed},
		{"no inner body", KindEpoch, edit(func(x *Epoch) { x.Inner = nil }), nil, space.ErrMalformed},
		{"inner body too large", KindEpoch, edit(func(x *Epoch) { x.Inner = make([]byte, maxInner+1) }), nil, space.ErrMalformed},
		{"a chain cut twice", KindEpoch, edit(func(x *Epoch) { x.Cuts = make([]Cut, 2) }), nil, space.ErrMalformed},
	}
	t.Run("first", func(t *testing.T) {
		genesisOnly := func(tb testing.TB) *log {
			l := founded(tb)
			l.entries = l.entries[:1]
			l.s = must(Apply(nil, l.entries[0]))
			return l
		}
		runRefusals(t, genesisOnly, cases)
		runRefusals(t, genesisOnly, []refusal{
			{"cuts", KindEpoch, edit(func(x *Epoch) { x.Cuts = make([]Cut, 1) }), nil, space.ErrMalformed},
			{"a rotation", KindEpoch, func(l *log) any { r := rotationFor(l.s); r.Epoch.N = 2; return r }, nil, space.ErrMalformed},
			{"in pages", KindEpoch, edit(func(x *Epoch) { x.Wraps, x.Pages = nil, make([][32]byte, 1) }), nil, space.ErrMalformed},
			{"member before it", KindMemberAdd, func(l *log) any { return l.member(1) }, nil, space.ErrMalformed},
			{"invite before it", KindInvite, func(*log) any { return testInvite("early") }, nil, space.ErrMalformed},
			{"policy before it", KindPolicy, func(*log) any { return space.DefaultPolicy() }, nil, space.ErrMalformed},
		})
	})
	t.Run("later", func(t *testing.T) {
		runRefusals(t, populated, cases)
		runRefusals(t, populated, []refusal{
			{"key of the epoch before", KindEpoch, func(l *log) any { return l.nextEpoch(func(x *Epoch) { x.KID = l.s.EpochKID }) }, nil, space.ErrMalformed},
			{"without its rotation", KindEpoch, func(l *log) any { return l.epoch() }, nil, space.ErrMalformed},
			{"without the issuer for the authority", KindEpoch, func(l *log) any { r := l.rotation(); r.Issuers = nil; return r }, nil, space.ErrMalformed},
			{"with the issuer for a member", KindEpoch, func(l *log) any {
				r := l.rotation()
				r.Issuers = append(r.Issuers, r.Epoch.Wraps[1])
				return r
			}, nil, space.ErrMalformed},
			{"missing a member", KindEpoch, edit(func(x *Epoch) { x.Wraps = x.Wraps[:len(x.Wraps)-1] }), nil, space.ErrMalformed},
			{"missing the authority", KindEpoch, edit(func(x *Epoch) { x.Wraps = x.Wraps[1:] }), nil, space.ErrMalformed},
			{"out of order", KindEpoch, edit(func(x *Epoch) { x.Wraps[0], x.Wraps[1] = x.Wraps[1], x.Wraps[0] }), nil, space.ErrMalformed},
			{"a page too many", KindEpoch, edit(func(x *Epoch) { x.Wraps, x.Pages = nil, make([][32]byte, 2) }), nil, space.ErrMalformed},
		})
	})
}

func TestLaterEpochs(t *testing.T) {
	l := populated(t)
	first := l.s
	l.add(KindEpoch, l.rotation())
	if l.s.Epoch != 2 || l.s.EpochKID == first.EpochKID || first.Epoch != 1 {
		t.Fatalf("after epoch 2:\n%s", describe(l.s))
	}
	for i := range 60 {
		l.add(KindMemberAdd, l.member(100+i))
	}
	pages := func(n int) func(*log) any {
		return func(l *log) any {
			return l.nextEpoch(func(x *Epoch) { x.Wraps, x.Pages = nil, make([][32]byte, n) })
		}
	}
	l.add(KindEpoch, pages(2)(l)) // 63 members
	refusal{"too few pages", KindEpoch, pages(1), nil, space.ErrMalformed}.run(t, l)
}

func TestPolicyChange(t *testing.T) {
	l := populated(t)
	p := space.DefaultPolicy()
	p.DisplayName = "Orchard"
	p.Config = must(space.RecordFromJSON([]byte(`{"theme":"green"}`)))
	l.add(KindPolicy, p)
	if l.s.Policy.DisplayName != "Orchard" || l.s.Policy.Config == nil {
		t.Fatalf("policy is %+v", l.s.Policy)
	}
	edit := func(f func(*space.Policy)) func(*log) any {
		return func(*log) any {
			p := space.DefaultPolicy()
			f(&p)
			return p
		}
	}
	runRefusals(t, populated, []refusal{
		{"static keys", KindPolicy, edit(func(p *space.Policy) { p.KeyPolicy = space.KeysStatic }), nil, space.ErrMalformed},
		{"provable authors", KindPolicy, edit(func(p *space.Policy) { p.Attribution = space.AttributionSig }), nil, space.ErrUnsupported},
		{"unknown mint", KindPolicy, edit(func(p *space.Policy) { p.Mint = "?" }), nil, space.ErrMalformed},
		{"empty list, not null", KindPolicy, func(*log) any {
			p := space.DefaultPolicy()
			p.Allow = []string{}
			return draftBody{p}
		}, nil, space.ErrNotCanonical},
	})
}

func TestPlace(t *testing.T) {
	l := populated(t)
	head := l.s.Head
	good := l.member(9)
	place := func(edit func(*draft)) *Entry {
		d := l.next(KindMemberAdd)
		edit(&d)
		return forge(t, d, good, l.keys)
	}
	stranger, mixed := l.keys, l.keys
	stranger.Proposer, stranger.Sequencer = fixedKey("stranger"), fixedKey("stranger")
	mixed.Sequencer = fixedKey("stranger")
	var other [32]byte
	other[5] = 1
	behind := place(func(d *draft) { d.seq = 3 })
	same := place(func(d *draft) { d.seq = head.Seq })
	after := place(func(d *draft) { d.prev = other })
	genesis := l.entries[0]
	tests := []struct {
		name string
		e    *Entry
		want error
	}{
		{"the head again", l.entries[len(l.entries)-1], ErrStale{Have: head, Got: head}},
		{"an entry from before", l.entries[2], ErrStale{Have: head, Got: l.entries[2].Head()}},
		{"the genesis again", genesis, ErrStale{Have: head, Got: genesis.Head()}},
		{"two ahead", place(func(d *draft) { d.seq++ }), ErrGap{Want: head.Seq + 1, Have: head}},
		{"far ahead", place(func(d *draft) { d.seq = 1 << 62 }), ErrGap{Want: head.Seq + 1, Have: head}},
		{"a later term", place(func(d *draft) { d.term++ }), ErrGap{Want: head.Seq + 1, Have: head}},
		{"earlier seq, other hash", behind, ErrFork{Ours: l.entries[3].Head(), Theirs: behind.Head(), Entry: behind}},
		{"same seq, other hash", same, ErrFork{Ours: head, Theirs: same.Head(), Entry: same}},
		{"other prev", after, ErrFork{Ours: head, Theirs: space.Head{Term: head.Term, Seq: head.Seq, Hash: other}, Entry: after}},
		{"other space", place(func(d *draft) { d.spaceID = other }), space.ErrForged},
		{"sequencer entry by a stranger", forge(t, l.nextTerm(), Sequencer{Device: pub(l.keys.Sequencer)}, stranger), space.ErrForbidden},
		{"sequencer entry committed by another", forge(t, l.nextTerm(), Sequencer{Device: pub(l.keys.Sequencer)}, mixed), space.ErrForged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Apply(l.s, tt.e)
			if gap, ok := tt.want.(ErrGap); ok {
				gap.Got = tt.e.Head()
				tt.want = gap
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if strings.TrimSpace(err.Error()) == "" {
				t.Fatal("no words")
			}
		})
	}
}

// A forgery must not pass for a fork, or anybody could freeze a space.
func TestForgeryIsNoFork(t *testing.T) {
	l := populated(t)
	bad := l.keys
	bad.Sequencer = fixedKey("stranger")
	for name, edit := range map[string]func(*draft){
		"same seq":   func(d *draft) { d.seq-- },
		"other prev": func(d *draft) { d.prev[0] ^= 1 },
		"next":       func(*draft) {},
		"ahead":      func(d *draft) { d.seq += 5 },
	} {
		d := l.next(KindMemberAdd)
		edit(&d)
		if _, err := Apply(l.s, forge(t, d, l.member(9), bad)); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: %v, want forged", name, err)
		}
	}
}

// Two genesis entries of one plaintext are two histories of one space.
func TestGenesisFork(t *testing.T) {
	l := founded(t)
	first := must(Apply(nil, l.entries[0]))
	d := draft{kind: KindGenesis, timeMs: l.now + 5}
	raw := append([]byte(nil), must(d.seal(l.entries[0].plaintext, pub(l.keys.Proposer), nil, l.rand))...)
	twin := &Entry{raw: append(raw, make([]byte, 128)...), ProposalHash: l.entries[0].ProposalHash}
	twin.sign(l.keys)
	e := must(Parse(twin.raw))
	var fork ErrFork
	if _, err := Apply(first, e); !errors.As(err, &fork) || fork.Theirs != e.Head() || fork.Ours != first.Head {
		t.Fatalf("twin of the genesis: %v", err)
	}
	if _, err := Apply(l.s, e); !errors.As(err, new(ErrStale)) {
		t.Fatalf("later: %v", err)
	}
	twin = &Entry{raw: append([]byte(nil), twin.raw...), ProposalHash: twin.ProposalHash}
	twin.sign(BuildKeys{Proposer: l.keys.Proposer, Sequencer: fixedKey("stranger")})
	if _, err := Apply(first, must(Parse(twin.raw))); !errors.Is(err, space.ErrForged) {
		t.Fatalf("twin that the sequencer did not sign: %v", err)
	}
	if _, err := Apply(first, forge(t, d, []byte{0x80}, l.keys)); !errors.Is(err, space.ErrMalformed) {
		t.Fatalf("genesis without a body: %v", err)
	}
	other := must(otherOwner())
	og := must(BuildGenesis(genesisBody(other), BuildKeys{Proposer: other.dev.Sig(), Sequencer: other.dev.Sig()}, testTime, fixed("g")))
	if _, err := Apply(l.s, og); !errors.Is(err, space.ErrForged) {
		t.Fatalf("genesis of another space: %v", err)
	}
	if _, err := Apply(nil, l.entries[1]); !errors.Is(err, ErrGap{Want: 0, Got: l.entries[1].Head()}) {
		t.Fatalf("epoch before genesis: %v", err)
	}
	if _, err := Apply(nil, must(Parse(l.entries[0].Raw()))); !errors.Is(err, space.ErrNoKey) {
		t.Fatalf("unopened genesis: %v", err)
	}
}

// A node without the key learns where an entry stands, and no more.
func TestUnopenedEntry(t *testing.T) {
	l := populated(t)
	next := must(Parse(l.build(KindMemberAdd, l.member(9)).Raw()))
	if _, err := Apply(l.s, next); !errors.Is(err, space.ErrNoKey) {
		t.Fatalf("unopened: %v", err)
	}
	if next.Body() != nil || next.Opened() || next.BaseHead() != [32]byte{} {
		t.Fatal("an unopened entry has a body")
	}
}

// After a new sequencer, what the old one signed late is void.
func TestEarlierTermIsStale(t *testing.T) {
	l := populated(t)
	e := l.build(KindMemberAdd, l.member(9))
	s := *l.s
	s.Head.Term = 1
	if _, err := Apply(&s, e); !errors.Is(err, ErrStale{Have: s.Head, Got: e.Head()}) {
		t.Fatal(err)
	}
}

func TestSlotsRunOut(t *testing.T) {
	l := founded(t)
	s := *l.s
	s.nextSlot = ^uint32(0)
	l.s = &s
	refusal{"last slot", KindMemberAdd, func(l *log) any { return l.member(1) }, nil, space.ErrMalformed}.run(t, l)
}

func TestKindNames(t *testing.T) {
	if got := fmt.Sprint(KindMemberAdd, KindDelete, Kind(0), Kind(15)); got != "member-add delete kind 0 kind 15" {
		t.Fatal(got)
	}
}
