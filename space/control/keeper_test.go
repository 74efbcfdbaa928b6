package control

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// appoint makes a keeper's named device the sequencer and goes on with it.
func (l *log) appoint(slot uint32, device string) {
	l.tb.Helper()
	l.now += 1000
	root := BuildKeys{Proposer: must(testOwner()).dev.Sig()}
	root.Sequencer = root.Proposer
	e, err := Build(l.s, KindSequencer, Sequencer{Slot: slot, Device: pub(fixedKey(device))}, root, l.now, l.rand)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.apply(e)
	l.keys.Sequencer = fixedKey(device)
}

func TestCaps(t *testing.T) {
	if got := CapAll.String(); got != "admit,sequence,credential,serve" {
		t.Fatal(got)
	}
	for c := range CapAll + 1 {
		if back, err := ParseCaps(c.String()); err != nil || back != c {
			t.Errorf("%v reads as %v, %v", c, back, err)
		}
	}
	if c, err := ParseCaps(" serve, admit ,"); err != nil || c != CapServe|CapAdmit {
		t.Errorf("%v, %v", c, err)
	}
	for _, text := range []string{"all", "admit serve", "Admit", "0x1"} {
		if _, err := ParseCaps(text); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if got := (CapServe | 1<<9).String(); got != "serve,0x200" {
		t.Error(got)
	}
}

// authority's own powers stand from the genesis on.
func TestAuthorityIsAKeeper(t *testing.T) {
	l := founded(t)
	dev := must(testOwner()).dev.ID()
	if k, ok := l.s.Keeper(0); !ok || k.Caps != CapAll || !slices.Equal(k.Devices, [][32]byte{dev}) {
		t.Fatalf("keeper 0 is %+v", k)
	}
	for name, key := range map[string][32]byte{"device": dev, "identity key": [32]byte(l.s.AuthorityPub)} {
		if slot, caps, authority := l.s.DeviceCaps(key); slot != 0 || caps != CapAll || !authority {
			t.Errorf("%s: %d %v %v", name, slot, caps, authority)
		}
	}
	if _, caps, authority := l.s.DeviceCaps([32]byte{1}); caps != 0 || authority {
		t.Error("a stranger's device can do something")
	}
	if l.s.SequencerSlot != 0 || l.s.AuthoritySlot != 0 {
		t.Error("slots of authority and sequencer")
	}
}

func TestKeeperSet(t *testing.T) {
	l := settled(t)
	m := l.memberAt(1)
	if slot, caps, authority := l.s.DeviceCaps(pub(fixedKey("keeper"))); slot != 1 || caps != CapAdmit|CapSequence || authority {
		t.Fatalf("the keeper's device: %d %v %v", slot, caps, authority)
	}
	if got := slices.Collect(l.s.Admitters()); len(got) != 2 || got[1].C != m.C {
		t.Fatalf("who admits: %+v", got)
	}
	two := [][32]byte{pub(fixedKey("keeper")), pub(fixedKey("second"))}
	slices.SortFunc(two, compareKeys)
	l.add(KindKeeperSet, KeeperSet{Slot: 1, C: m.C, Caps: CapAdmit, Devices: two}) // loses a capability that needs no rotation
	if l.s.Epoch != 1 {
		t.Fatal("rotated")
	}
	l.add(KindKeeperSet, l.rotated(KindKeeperSet, KeeperSet{Slot: 1, C: m.C, Caps: CapAdmit, Devices: two[:1]}))
	if _, caps, _ := l.s.DeviceCaps(two[1]); caps != 0 || l.s.Epoch != 2 {
		t.Fatal("a device taken away still admits")
	}
	l.add(KindKeeperSet, l.rotated(KindKeeperSet, KeeperSet{Slot: 1, C: m.C}))
	if _, ok := l.s.Keeper(1); ok || l.s.Epoch != 3 {
		t.Fatal("still a keeper")
	}
	l.add(KindKeeperSet, l.rotated(KindKeeperSet, KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapAll, Devices: two}))
	if k, ok := l.s.Keeper(2); !ok || k.Caps != CapAll || l.s.Epoch != 4 {
		t.Fatalf("with a rotation instead of the issuer's wrap: %+v", k)
	}
	l.add(KindMemberRemove, l.removal(2))
	if _, ok := l.s.Keeper(2); ok {
		t.Fatal("removed and still a keeper")
	}
	if _, caps, _ := l.s.DeviceCaps(two[0]); caps != 0 {
		t.Fatal("a removed keeper's device admits")
	}
}

func TestKeeperSetRefused(t *testing.T) {
	dev := func(names ...string) [][32]byte {
		var out [][32]byte
		for _, n := range names {
			out = append(out, pub(fixedKey(n)))
		}
		slices.SortFunc(out, compareKeys)
		return out
	}
	set := func(f func(*KeeperSet)) func(*log) any {
		return func(l *log) any {
			b := KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapServe, Devices: dev("new")}
			f(&b)
			return b
		}
	}
	old := func(f func(*KeeperSet)) func(*log) any {
		return func(l *log) any {
			b := KeeperSet{Slot: 1, C: l.memberAt(1).C, Caps: CapAdmit | CapSequence, Devices: dev("keeper")}
			f(&b)
			return b
		}
	}
	own := must(testOwner()).dev.ID()
	runRefusals(t, settled, []refusal{
		{"unknown slot", KindKeeperSet, set(func(b *KeeperSet) { b.Slot = 9 }), nil, space.ErrMemberNotFound},
		{"another's commitment", KindKeeperSet, set(func(b *KeeperSet) { b.C[0] ^= 1 }), nil, space.ErrMemberNotFound},
		{"unknown capability", KindKeeperSet, set(func(b *KeeperSet) { b.Caps = 1 << 4 }), nil, space.ErrUnsupported},
		{"no device", KindKeeperSet, set(func(b *KeeperSet) { b.Devices = nil }), nil, space.ErrMalformed},
		{"device without capability", KindKeeperSet, set(func(b *KeeperSet) { b.Caps = 0 }), nil, space.ErrMalformed},
		{"device twice", KindKeeperSet, set(func(b *KeeperSet) { b.Devices = append(b.Devices, b.Devices[0]) }), nil, space.ErrMalformed},
		{"device of small order", KindKeeperSet, set(func(b *KeeperSet) { b.Devices = [][32]byte{{1}} }), nil, space.ErrMalformed},
		{"device of another keeper", KindKeeperSet, set(func(b *KeeperSet) { b.Devices = dev("keeper") }), nil, space.ErrMalformed},
		{"device of the authority", KindKeeperSet, set(func(b *KeeperSet) { b.Devices = [][32]byte{own} }), nil, space.ErrMalformed},
		{"identity key of the authority", KindKeeperSet, func(l *log) any {
			return KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapServe, Devices: [][32]byte{[32]byte(l.s.AuthorityPub)}}
		}, nil, space.ErrMalformed},
		{"too many devices", KindKeeperSet, set(func(b *KeeperSet) {
			var names []string
			for i := range MaxKeeperDevices + 1 {
				names = append(names, fmt.Sprint("many", i))
			}
			b.Devices = dev(names...)
		}), nil, space.ErrTooLarge},
		{"a member of read_self", KindKeeperSet, func(l *log) any {
			return KeeperSet{Slot: 4, C: l.memberAt(4).C, Caps: CapServe, Devices: dev("new")}
		}, nil, space.ErrMalformed},
		{"admits without the issuer", KindKeeperSet, set(func(b *KeeperSet) { b.Caps = CapAdmit }), nil, space.ErrMalformed},
		{"the issuer without admitting", KindKeeperSet, set(func(b *KeeperSet) { b.Issuer = []byte{1} }), nil, space.ErrMalformed},
		{"the issuer twice", KindKeeperSet, func(l *log) any {
			b := KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapAdmit, Devices: dev("new")}
			b = l.rotated(KindKeeperSet, b).(KeeperSet)
			b.Issuer = []byte{1}
			return b
		}, nil, space.ErrMalformed},
		{"issuer too large", KindKeeperSet, set(func(b *KeeperSet) { b.Caps, b.Issuer = CapAdmit, make([]byte, maxSealed+1) }), nil, space.ErrMalformed},
		{"nothing changes", KindKeeperSet, old(func(*KeeperSet) {}), nil, space.ErrMalformed},
		{"loses admit without an epoch", KindKeeperSet, old(func(b *KeeperSet) { b.Caps = CapSequence }), nil, space.ErrMalformed},
		{"loses a device without an epoch", KindKeeperSet, old(func(b *KeeperSet) { b.Devices = dev("new") }), nil, space.ErrMalformed},
		{"is none without an epoch", KindKeeperSet, old(func(b *KeeperSet) { b.Caps, b.Devices = 0, nil }), nil, space.ErrMalformed},
		{"the authority with less", KindKeeperSet, func(l *log) any {
			return KeeperSet{C: l.memberAt(0).C, Caps: CapAdmit, Devices: [][32]byte{own}}
		}, nil, space.ErrLastAuthority},
		{"the authority's sequencer device dropped", KindKeeperSet, func(l *log) any {
			return KeeperSet{C: l.memberAt(0).C, Caps: CapAll, Devices: dev("new")}
		}, nil, space.ErrMalformed},
	})
	full := func(tb testing.TB) *log {
		l := settled(tb)
		p := l.s.powers
		for i := range uint32(MaxKeepers - p.keepers.m.Len()) {
			p = p.set(Keeper{Slot: 100 + i, Caps: CapServe, Devices: dev(fmt.Sprint("k", i))})
		}
		s := *l.s
		s.powers = p
		l.s = &s
		return l
	}
	runRefusals(t, full, []refusal{{"one keeper too many", KindKeeperSet, set(func(*KeeperSet) {}), nil, space.ErrTooLarge}})
}

// who makes the entries that a table of permissions asks about.
func actors() map[string]ed25519.PrivateKey {
	return map[string]ed25519.PrivateKey{
		"authority": must(testOwner()).dev.Sig(), "keeper": fixedKey("keeper"),
		"orders only": fixedKey("orders"), "serves": fixedKey("serves"), "stranger": fixedKey("stranger"),
	}
}

// staffed has a keeper that admits, one that only sequences and one that only
// serves, a child space, an invite of each sort, and a member with an identity.
func staffed(tb testing.TB) *log {
	l := settled(tb)
	l.add(KindKeeperSet, KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapSequence, Devices: [][32]byte{pub(fixedKey("orders"))}})
	l.add(KindKeeperSet, KeeperSet{Slot: 3, C: l.memberAt(3).C, Caps: CapServe | CapCredential, Devices: [][32]byte{pub(fixedKey("serves"))}})
	l.add(KindInvite, testInvite("open"))
	v := testInvite("approved")
	v.NeedsApproval = true
	l.add(KindInvite, v)
	l.add(KindDelegationSet, Delegation{Slot: l.s.NextSlot(), Child: [32]byte{5}, Level: space.LevelRead, Descriptor: must(testDescriptor([32]byte{5}, l.now).Encode())})
	o := must(otherOwner())
	l.add(KindMemberAdd, MemberAdd{Slot: l.s.NextSlot(), C: o.state.C, DID: o.state.DID, Level: space.LevelWrite, ILHead: o.state.Head})
	return l
}

func (l *log) leave() []byte {
	o := must(otherOwner())
	m, _ := l.s.Member(o.state.C)
	return must(SignLeave(l.s.SpaceID, m, o.log, o.dev.Sig()).Encode())
}

// C1, and which key may propose which kind: the authority everything, who
// admits what is listed, nobody else anything; and nobody but the sequencer
// commits.
func TestC1WhoMayPropose(t *testing.T) {
	child := [32]byte{5}
	fresh := func(l *log, f func(*Descriptor)) any {
		old := must2(l.s.Delegation(child))
		d := testDescriptor(child, l.now)
		d.Head.Seq++
		f(&d)
		b := Delegation{Slot: old.Slot, Child: child, Level: old.Level, Descriptor: must(signedDescriptor(d).Encode())}
		return l.rotated(KindDelegationSet, b)
	}
	other := func(l *log) Member { m, _ := l.s.Member(must(otherOwner()).state.C); return m }
	acts := []struct {
		name   string
		kind   Kind
		body   func(*log) any
		keeper bool // a keeper that admits may
	}{
		{"add by hand", KindMemberAdd, func(l *log) any { return l.member(40) }, false},
		{"add by invite", KindMemberAdd, func(l *log) any { return l.memberBy(40, testInvite("open"), 1) }, true},
		{"add by an invite that needs approval", KindMemberAdd, func(l *log) any { return l.memberBy(40, testInvite("approved"), 1) }, false},
		{"remove", KindMemberRemove, func(l *log) any { return l.removal(2) }, false},
		{"remove who leaves", KindMemberRemove, func(l *log) any {
			m := other(l)
			return l.rotated(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C, Leave: l.leave()})
		}, true},
		{"rotate", KindEpoch, func(l *log) any { return l.rotation() }, true},
		{"end a member's chains", KindEpoch, func(l *log) any {
			c := l.memberAt(2).C
			return l.rotated(KindEpoch, nil, func(r *Rotation) { r.Ended = []identity.Commitment{c} })
		}, true},
		{"end the authority's chains", KindEpoch, func(l *log) any {
			c := l.memberAt(0).C
			return l.rotated(KindEpoch, nil, func(r *Rotation) { r.Ended = []identity.Commitment{c} })
		}, false},
		{"checkpoint", KindCheckpoint, func(*log) any { return Checkpoint{Epoch: 1, Topic: [32]byte{1}} }, true},
		{"level", KindMemberLevel, func(l *log) any { return MemberLevel{Slot: 4, C: l.memberAt(4).C, Level: space.LevelRead} }, false},
		{"policy", KindPolicy, func(l *log) any { p := l.s.Policy; p.DisplayName = "x"; return p }, false},
		{"invite", KindInvite, func(*log) any { return testInvite("n") }, false},
		{"revoke an invite", KindInviteRevoke, func(*log) any { return InviteRevoke{ID: testInvite("open").ID} }, false},
		{"make a keeper", KindKeeperSet, func(l *log) any {
			return KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapSequence | CapServe, Devices: [][32]byte{pub(fixedKey("orders"))}}
		}, false},
		{"drop a keeper's devices", KindKeeperSet, func(l *log) any {
			return l.rotated(KindKeeperSet, KeeperSet{Slot: 2, C: l.memberAt(2).C})
		}, true},
		{"change a keeper's device", KindKeeperSet, func(l *log) any {
			return l.rotated(KindKeeperSet, KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapSequence, Devices: [][32]byte{pub(fixedKey("mine"))}})
		}, false},
		{"refresh a child", KindDelegationSet, func(l *log) any { return fresh(l, func(*Descriptor) {}) }, true},
		{"refresh a child by another sequencer", KindDelegationSet, func(l *log) any {
			old := must2(l.s.Delegation(child))
			d := testDescriptor(child, l.now)
			d.Head.Seq++
			d.Sequencer = pub(fixedKey("usurper"))
			b := Delegation{Slot: old.Slot, Child: child, Level: old.Level, Descriptor: must(must(d.Sign(fixedKey("usurper"))).Encode())}
			return l.rotated(KindDelegationSet, b)
		}, false},
		{"raise a child", KindDelegationSet, func(l *log) any {
			b := fresh(l, func(*Descriptor) {}).(Delegation)
			b.Level = space.LevelWrite
			return l.rotated(KindDelegationSet, b)
		}, false},
		{"end a child", KindDelegationSet, func(l *log) any {
			return l.rotated(KindDelegationSet, Delegation{Slot: must2(l.s.Delegation(child)).Slot, Child: child})
		}, false},
		{"add a child", KindDelegationSet, func(l *log) any {
			return Delegation{Slot: l.s.NextSlot(), Child: [32]byte{6}, Level: space.LevelRead, Descriptor: must(testDescriptor([32]byte{6}, l.now).Encode())}
		}, false},
		{"delete", KindDelete, func(*log) any { return Delete{} }, false},
	}
	base := staffed(t)
	for _, act := range acts {
		for name, key := range actors() {
			l := *base
			d, body := l.next(act.kind), act.body(&l)
			d.epoch = epochAfter(l.s.Epoch, body)
			want := error(nil)
			if name != "authority" && !(name == "keeper" && act.keeper) {
				want = space.ErrForbidden
			}
			keys := BuildKeys{Proposer: key, Sequencer: l.keys.Sequencer, CK: l.keys.CK}
			if _, err := Apply(l.s, l.reparse(forge(t, d, encodedBody(body), keys))); !errors.Is(err, want) {
				t.Errorf("%s by %s: %v, want %v", act.name, name, err, want)
			}
			keys.Sequencer = key
			if _, err := Apply(l.s, l.reparse(forge(t, d, encodedBody(body), keys))); name != "authority" && !errors.Is(err, space.ErrForged) {
				t.Errorf("%s by %s, committed by itself: %v", act.name, name, err)
			}
		}
	}
}

// A keeper lets in by the public door where the policy has one.
func TestKeeperAtThePublicDoor(t *testing.T) {
	l := publicLog(t, space.KeysRotate)
	l.as(fixedKey("keeper")).add(KindMemberAdd, l.publicly(40))
}

// K4, as far as the log goes: 50 redeem an invite for one; one gets in.
func TestK4OneUseOneMember(t *testing.T) {
	l := settled(t)
	v := testInvite("once")
	v.MaxUses = 1
	l.add(KindInvite, v)
	var asked []Proposal
	keeper := fixedKey("keeper")
	for i := range 50 {
		asked = append(asked, must(Propose(l.s, KindMemberAdd, l.memberBy(100+i, v, 1), keeper, l.rand)))
	}
	in := 0
	for _, p := range asked {
		l.now++
		e, err := Commit(l.s, p, l.keys.Sequencer, l.keys.CK, l.now, l.rand)
		if err == nil {
			in++
			l.apply(e)
		} else if !errors.Is(err, space.ErrMalformed) && !errors.Is(err, space.ErrInvite) {
			t.Fatal(err)
		}
	}
	if in != 1 || must2(l.s.Invite(v.ID)).Uses != 1 {
		t.Fatalf("%d got in", in)
	}
	again := l.memberBy(200, v, 1)
	for use := range uint32(3) {
		again.Use = use + 1
		if _, err := Propose(l.s, KindMemberAdd, again, keeper, l.rand); !errors.Is(err, space.ErrInvite) {
			t.Fatalf("use %d of a spent invite: %v", use+1, err)
		}
	}
}

// K4, K7: a revoked invite lets nobody in; revoking may rotate.
func TestK7RevokedInvite(t *testing.T) {
	l := settled(t)
	v := testInvite("open")
	l.add(KindInvite, v)
	l.add(KindMemberAdd, l.memberBy(20, v, 1))
	l.add(KindInviteRevoke, l.rotated(KindInviteRevoke, InviteRevoke{ID: v.ID}))
	if got := must2(l.s.Invite(v.ID)); !got.Revoked || got.Live(l.now) || l.s.Epoch != 2 {
		t.Fatalf("%+v", got)
	}
	for _, r := range []refusal{
		{"used after", KindMemberAdd, func(l *log) any { return l.memberBy(21, v, 2) }, nil, space.ErrInvite},
		{"revoked again", KindInviteRevoke, func(*log) any { return InviteRevoke{ID: v.ID} }, nil, space.ErrMalformed},
		{"unknown", KindInviteRevoke, func(*log) any { return InviteRevoke{ID: [16]byte{1}} }, nil, space.ErrInviteNotFound},
		{"made again", KindInvite, func(*log) any { return v }, nil, space.ErrMalformed},
	} {
		r.run(t, l)
	}
}

// K8, as far as the log goes: an invite gives its own level and no other.
func TestK8LevelOfTheInvite(t *testing.T) {
	l := staffed(t)
	v := testInvite("open") // read
	for _, level := range []space.Level{space.LevelReadSelf, space.LevelWrite} {
		b := l.memberBy(40, v, 1)
		b.Level = level
		if _, err := Propose(l.s, KindMemberAdd, b, fixedKey("keeper"), l.rand); !errors.Is(err, space.ErrInvite) {
			t.Errorf("%v by an invite to %v: %v", level, v.Level, err)
		}
	}
}

// K10, as far as the log goes: what a removed keeper signs afterwards, or
// proposed before and nobody committed, is refused.
func TestK10RemovedKeeper(t *testing.T) {
	l := staffed(t)
	keeper := fixedKey("keeper")
	pending := must(Propose(l.s, KindMemberAdd, l.memberBy(40, testInvite("open"), 1), keeper, l.rand))
	l.add(KindKeeperSet, l.rotated(KindKeeperSet, KeeperSet{Slot: 1, C: l.memberAt(1).C}))
	if _, err := Commit(l.s, pending, l.keys.Sequencer, l.keys.CK, l.now, l.rand); !errors.Is(err, space.ErrForbidden) {
		t.Fatalf("pending proposal: %v", err)
	}
	if _, err := Propose(l.s, KindEpoch, l.rotation(), keeper, l.rand); !errors.Is(err, space.ErrForbidden) {
		t.Fatalf("a rotation by it: %v", err)
	}
	for m := range l.s.Admitters() {
		if m.Slot == 1 {
			t.Fatal("the next issuer would be wrapped to it")
		}
	}
}
