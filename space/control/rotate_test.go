package control

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

func (l *log) memberAt(slot uint32) Member { return must2(l.s.AtSlot(slot)) }

func (l *log) removal(slot uint32, edit ...func(*Rotation)) any {
	m := l.memberAt(slot)
	return l.rotated(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C}, edit...)
}

// settled has four members beside the authority: two who write, one who reads
// and one of read_self, and a keeper's device at slot 1.
func settled(tb testing.TB) *log {
	tb.Helper()
	l := founded(tb)
	for i, level := range []space.Level{space.LevelWrite, space.LevelWrite, space.LevelRead, space.LevelReadSelf} {
		b := l.member(i + 1)
		b.Level = level
		l.add(KindMemberAdd, b)
	}
	l.add(KindKeeperSet, KeeperSet{
		Slot: 1, C: l.memberAt(1).C, Caps: CapAdmit | CapSequence,
		Devices: [][32]byte{pub(fixedKey("keeper"))}, Issuer: []byte("sealed issuer"),
	})
	return l
}

func TestC4RemovalNeedsItsEpoch(t *testing.T) {
	with := func(edit func(*Rotation)) func(*log) any {
		return func(l *log) any { return l.removal(2, edit) }
	}
	wraps := func(edit func([]Wrap) []Wrap) func(*log) any {
		return with(func(r *Rotation) { r.Epoch.Wraps = edit(r.Epoch.Wraps) })
	}
	runRefusals(t, settled, []refusal{
		{"no epoch", KindMemberRemove, func(l *log) any { return MemberRemove{Slot: 2, C: l.memberAt(2).C} }, nil, space.ErrMalformed},
		{"wrapped to the removed, too", KindMemberRemove, func(l *log) any {
			return WithRotation(MemberRemove{Slot: 2, C: l.memberAt(2).C}, l.rotation())
		}, nil, space.ErrMalformed},
		{"wrapped to the removed, root of the others", KindMemberRemove, func(l *log) any {
			all := l.rotation().Epoch.Wraps
			return l.removal(2, func(r *Rotation) { r.Epoch.Wraps = all })
		}, nil, space.ErrMalformed},
		{"wrapped to the removed instead of another", KindMemberRemove, func(l *log) any {
			all := l.rotation().Epoch.Wraps
			return l.removal(2, func(r *Rotation) { r.Epoch.Wraps = all[:len(all)-1] })
		}, nil, space.ErrMalformed},
		{"a member missing", KindMemberRemove, wraps(func(w []Wrap) []Wrap { return w[:len(w)-1] }), nil, space.ErrMalformed},
		{"the first missing", KindMemberRemove, wraps(func(w []Wrap) []Wrap { return w[1:] }), nil, space.ErrMalformed},
		{"a slot too many", KindMemberRemove, wraps(func(w []Wrap) []Wrap { return append(w, Wrap{Slot: 99, C: w[0].C, Sealed: []byte{1}}) }), nil, space.ErrMalformed},
		{"a slot twice", KindMemberRemove, wraps(func(w []Wrap) []Wrap { return append(w, w[0]) }), nil, space.ErrMalformed},
		{"roster root of before", KindMemberRemove, func(l *log) any {
			old := l.s.RosterRoot()
			return l.removal(2, func(r *Rotation) { r.Epoch.RosterRoot = old })
		}, nil, space.ErrMalformed},
		{"the key of the epoch before", KindMemberRemove, func(l *log) any {
			return l.removal(2, func(r *Rotation) { r.Epoch.KID = l.s.EpochKID })
		}, nil, space.ErrMalformed},
		{"an epoch left out", KindMemberRemove, with(func(r *Rotation) { r.Epoch.N++ }), nil, space.ErrMalformed},
		{"the issuer to nobody", KindMemberRemove, with(func(r *Rotation) { r.Issuers = nil }), nil, space.ErrMalformed},
		{"the issuer not to the keeper", KindMemberRemove, with(func(r *Rotation) { r.Issuers = r.Issuers[:1] }), nil, space.ErrMalformed},
		{"the issuer to a member", KindMemberRemove, with(func(r *Rotation) { r.Issuers = append(r.Issuers, r.Epoch.Wraps[2]) }), nil, space.ErrMalformed},
		{"the issuer to another commitment", KindMemberRemove, with(func(r *Rotation) { r.Issuers[1].C[0] ^= 1 }), nil, space.ErrMalformed},
		{"framing of the epoch before", KindMemberRemove, with(func(*Rotation) {}), func(_ *log, d *draft) { d.epoch-- }, space.ErrMalformed},
		{"the removed listed as ended", KindMemberRemove, func(l *log) any {
			c := l.memberAt(2).C
			return l.removal(2, func(r *Rotation) { r.Ended = []identity.Commitment{c} })
		}, nil, space.ErrMalformed},
		{"ended out of order", KindMemberRemove, with(func(r *Rotation) { r.Ended = []identity.Commitment{{2}, {1}} }), nil, space.ErrMalformed},
		{"cuts out of order", KindMemberRemove, with(func(r *Rotation) { r.Epoch.Cuts = []Cut{{Chain: [32]byte{2}}, {Chain: [32]byte{1}}} }), nil, space.ErrMalformed},
		{"too many cuts", KindMemberRemove, with(func(r *Rotation) { r.Epoch.Cuts = manyCuts(MaxCuts + 1) }), nil, space.ErrTooLarge},
		{"unknown slot", KindMemberRemove, func(l *log) any { return MemberRemove{Slot: 9, C: l.memberAt(2).C} }, nil, space.ErrMemberNotFound},
		{"slot and commitment of two", KindMemberRemove, func(l *log) any { return MemberRemove{Slot: 3, C: l.memberAt(2).C} }, nil, space.ErrMemberNotFound},
		{"the authority", KindMemberRemove, func(l *log) any { return MemberRemove{Slot: 0, C: l.memberAt(0).C} }, nil, space.ErrLastAuthority},
		{"a drop without its epoch", KindMemberLevel, func(l *log) any { return MemberLevel{Slot: 2, C: l.memberAt(2).C, Level: space.LevelRead} }, nil, space.ErrMalformed},
		{"a drop to nothing", KindMemberLevel, func(l *log) any { return MemberLevel{Slot: 2, C: l.memberAt(2).C} }, nil, space.ErrMalformed},
		{"a raise with an epoch", KindMemberLevel, func(l *log) any {
			return WithRotation(MemberLevel{Slot: 3, C: l.memberAt(3).C, Level: space.LevelWrite}, l.rotation())
		}, nil, space.ErrMalformed},
		{"the same level", KindMemberLevel, func(l *log) any { return MemberLevel{Slot: 3, C: l.memberAt(3).C, Level: space.LevelRead} }, nil, space.ErrMalformed},
		{"a level of the authority", KindMemberLevel, func(l *log) any { return MemberLevel{Slot: 0, C: l.memberAt(0).C, Level: space.LevelRead} }, nil, space.ErrLastAuthority},
		{"a keeper to read_self", KindMemberLevel, func(l *log) any {
			return MemberLevel{Slot: 1, C: l.memberAt(1).C, Level: space.LevelReadSelf}
		}, nil, space.ErrMalformed},
	})
}

func manyCuts(n int) []Cut {
	cuts := make([]Cut, n)
	for i := range cuts {
		cuts[i].Chain[0], cuts[i].Chain[1] = byte(i>>8), byte(i)
		cuts[i].Seq = uint64(i)
	}
	return cuts
}

// A removal with as many cuts and pages as a large space has fits one entry.
func TestRemovalFits(t *testing.T) {
	l := founded(t)
	for i := range 10_000 {
		l.fill(i)
	}
	e := l.add(KindMemberRemove, l.removal(7, func(r *Rotation) {
		r.Epoch.Cuts = manyCuts(MaxCuts)
		for i := range r.Epoch.Cuts {
			r.Epoch.Cuts[i].Seq = 1 << 40
		}
		r.Issuers[0].Sealed = make([]byte, 1168)
	}))
	if len(e.Raw()) > MaxEntry*95/100 {
		t.Fatalf("a removal takes %d bytes of %d", len(e.Raw()), MaxEntry)
	}
}

func TestRemovalAndWhatItLeaves(t *testing.T) {
	l := settled(t)
	before := l.s
	gone := l.memberAt(2)
	kept, cut := Cut{Chain: [32]byte{1}, Seq: 7, ID: [32]byte{7}}, Cut{Chain: [32]byte{2}, Seq: 3, ID: [32]byte{3}}
	l.add(KindMemberRemove, l.removal(2, func(r *Rotation) { r.Epoch.Cuts = []Cut{kept, cut} }))
	if _, ok := l.s.Member(gone.C); ok || l.s.Len() != 4 || l.s.Epoch != 2 {
		t.Fatalf("after the removal:\n%s", describe(l.s))
	}
	if m, ok := l.s.Author(gone.C); !ok || !m.Gone || m.DID != gone.DID || m.Level != space.LevelWrite {
		t.Fatalf("the past member is %+v", m)
	}
	if m, ok := before.Author(gone.C); !ok || m.Gone {
		t.Fatalf("before: %+v", m)
	}
	if _, ok := l.s.Author([32]byte{9}); ok {
		t.Fatal("an author that never was")
	}
	if kid, ok := l.s.KID(1); !ok || kid != before.EpochKID || must2(l.s.KID(2)) != l.s.EpochKID {
		t.Fatal("key commitments of the epochs")
	}
	if at, ok := l.s.Opened(2); !ok || at != l.s.Head {
		t.Fatalf("epoch 2 opened at %v", at)
	}
	for name, c := range map[string]struct {
		epoch uint64
		chain [32]byte
		want  Bound
	}{
		"listed":            {1, cut.Chain, Bound{Bounded: true, Seq: 3, ID: [32]byte{3}}},
		"not listed":        {1, [32]byte{8}, Bound{Bounded: true, None: true}},
		"of the next epoch": {2, [32]byte{8}, Bound{}},
	} {
		if got := l.s.Bound(gone.C, c.epoch, c.chain); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if b := l.s.Bound(l.memberAt(1).C, 1, cut.Chain); b != (Bound{}) {
		t.Errorf("a member that stays is bounded: %+v", b)
	}
	if b := before.Bound(gone.C, 1, cut.Chain); b != (Bound{}) {
		t.Errorf("bounded before: %+v", b)
	}
	if got, ok := l.s.Final(kept.Chain); !ok || got != kept {
		t.Errorf("cut heads are final: %+v", got)
	}
	if !l.s.MayWrite(gone.C, 1) || l.s.MayWrite(gone.C, 2) || l.s.MayWrite(gone.C, 3) || l.s.MayWrite([32]byte{9}, 1) {
		t.Error("when the removed wrote")
	}
}

// Whoever comes back writes freely from then on, and what it wrote before
// stays bounded by the first removal.
func TestBoundOfTheReturned(t *testing.T) {
	l := settled(t)
	c := l.memberAt(2).C
	chain := [32]byte{4}
	l.add(KindMemberRemove, l.removal(2, func(r *Rotation) { r.Epoch.Cuts = []Cut{{Chain: chain, Seq: 5}} }))
	back := l.member(2)
	l.add(KindMemberAdd, back)
	if back.Slot != 5 {
		t.Fatalf("slot %d was given again", back.Slot)
	}
	if !l.s.MayWrite(c, 2) || !l.s.MayWrite(c, 1) {
		t.Fatal("the returned does not write")
	}
	second := [32]byte{6}
	l.add(KindMemberLevel, l.rotated(KindMemberLevel, MemberLevel{Slot: back.Slot, C: c, Level: space.LevelRead}, func(r *Rotation) {
		r.Epoch.Cuts = []Cut{{Chain: chain, Seq: 9}, {Chain: second, Seq: 2}}
	}))
	for name, tt := range map[string]struct {
		epoch uint64
		chain [32]byte
		want  Bound
	}{
		"first epoch, by the first removal": {1, chain, Bound{Bounded: true, Seq: 5}},
		"first epoch, listed later":         {1, second, Bound{Bounded: true, None: true}},
		"second epoch":                      {2, second, Bound{Bounded: true, Seq: 2}},
		"second epoch, not listed":          {2, [32]byte{7}, Bound{Bounded: true, None: true}},
		"third epoch":                       {3, second, Bound{}},
	} {
		if got := l.s.Bound(c, tt.epoch, tt.chain); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
	if l.s.MayWrite(c, 3) {
		t.Error("a reader writes")
	}
}

// Two branches that end somebody's chains do not see each other's endings.
func TestEndingsOfBranches(t *testing.T) {
	l := settled(t)
	c := l.memberAt(2).C
	end := func(l *log, seq uint64) {
		l.add(KindEpoch, l.rotated(KindEpoch, nil, func(r *Rotation) {
			r.Ended, r.Epoch.Cuts = []identity.Commitment{c}, []Cut{{Chain: [32]byte{1}, Seq: seq}}
		}))
	}
	for i := range uint64(9) {
		before := l.s.Epoch
		x, y := *l, *l
		x.entries, y.entries = nil, nil
		end(&x, 100+i)
		end(&y, 200+i)
		if got := x.s.Bound(c, before, [32]byte{1}).Seq; got != 100+i {
			t.Fatalf("after %d endings a branch says %d", i, got)
		}
		l.s = x.s
	}
}

// A rotation ends the chains of others, too: of a member with a revoked
// device, say, or of who wrote by way of a child space.
func TestEndedByRotation(t *testing.T) {
	l := settled(t)
	stays, stranger := l.memberAt(2).C, identity.Commitment{0xff}
	ended := []identity.Commitment{stays, stranger}
	slices.SortFunc(ended, func(a, b identity.Commitment) int { return compareKeys(a, b) })
	l.add(KindEpoch, l.rotated(KindEpoch, nil, func(r *Rotation) {
		r.Ended, r.Epoch.Cuts = ended, []Cut{{Chain: [32]byte{1}, Seq: 4}}
	}))
	for _, c := range ended {
		if b := l.s.Bound(c, 1, [32]byte{1}); b != (Bound{Bounded: true, Seq: 4}) {
			t.Errorf("listed chain of %x: %+v", c[:4], b)
		}
		if b := l.s.Bound(c, 1, [32]byte{2}); !b.None {
			t.Errorf("other chain of %x: %+v", c[:4], b)
		}
	}
	if _, ok := l.s.Author(stranger); ok {
		t.Error("a stranger became an author")
	}
	if !l.s.MayWrite(stays, 2) {
		t.Error("a member that stays writes on")
	}
}

func TestMayWriteBySelf(t *testing.T) {
	l := settled(t)
	c := l.memberAt(4).C // read_self
	if l.s.MayWrite(c, 1) {
		t.Fatal("read_self writes")
	}
	p := l.s.Policy
	p.SelfWrite = true
	l.add(KindPolicy, p)
	if !l.s.MayWrite(c, 1) || l.s.MayWrite(l.memberAt(3).C, 1) {
		t.Fatal("with selfWrite: read_self writes, read does not")
	}
	l.add(KindEpoch, l.rotation())
	p.SelfWrite = false
	l.add(KindPolicy, p)
	l.add(KindEpoch, l.rotation())
	if !l.s.MayWrite(c, 1) || !l.s.MayWrite(c, 2) || l.s.MayWrite(c, 3) {
		t.Fatal("read_self wrote in epochs 1 and 2")
	}
	late := l.member(70)
	late.Level = space.LevelReadSelf
	l.add(KindMemberAdd, late)
	if l.s.MayWrite(late.C, 2) || l.s.MayWrite(late.C, 3) {
		t.Fatal("who came later writes")
	}
}

func publicLog(tb testing.TB, keys string) *log {
	l := settled(tb)
	p := l.s.Policy
	p.Mint, p.KeyPolicy = space.MintPublic, keys
	l.add(KindPolicy, p)
	for i := range 3 {
		l.add(KindMemberAdd, l.publicly(20+i))
	}
	return l
}

func (l *log) publicly(i int) MemberAdd {
	b := l.member(i)
	b.Level, b.InviteID, b.Use = space.LevelRead, PublicDoor[:], 1
	return b
}

func TestC17TighteningRotates(t *testing.T) {
	l := publicLog(t, space.KeysRotate)
	tight := l.s.Policy
	tight.Mint = space.MintMemberList
	refusal{"without an epoch", KindPolicy, func(*log) any { return tight }, nil, space.ErrMalformed}.run(t, l)
	refusal{"wrapped to all", KindPolicy, func(l *log) any { return PolicyChange{Policy: tight, Rotation: ptr(l.rotation())} }, nil, space.ErrMalformed}.run(t, l)
	guest := l.memberAt(6)
	if !guest.Public || guest.Invite != nil || l.s.Len() != 8 {
		t.Fatalf("a guest is %+v of %d", guest, l.s.Len())
	}
	l.add(KindPolicy, l.rotated(KindPolicy, PolicyChange{Policy: tight}, func(r *Rotation) {
		r.Epoch.Cuts = []Cut{{Chain: [32]byte{1}, Seq: 2}}
	}))
	if l.s.Len() != 5 || l.s.Epoch != 2 || l.s.Policy.Mint != space.MintMemberList {
		t.Fatalf("after tightening:\n%s", describe(l.s))
	}
	if b := l.s.Bound(guest.C, 1, [32]byte{9}); !b.None {
		t.Errorf("a guest's chain counts: %+v", b)
	}
	refusal{"the door again", KindMemberAdd, func(l *log) any { return l.publicly(30) }, nil, space.ErrInvite}.run(t, l)
	wide := tight
	wide.Mint = space.MintPublic
	l.add(KindPolicy, wide)
	l.add(KindMemberAdd, l.publicly(20))
	refusal{"another use", KindMemberAdd, func(l *log) any { b := l.publicly(31); b.Use = 2; return b }, nil, space.ErrInvite}.run(t, l)
}

func ptr[T any](v T) *T { return &v }

func TestPublicSequencerStopsTightening(t *testing.T) {
	l := publicLog(t, space.KeysRotate)
	m := l.memberAt(5)
	l.add(KindKeeperSet, KeeperSet{Slot: 5, C: m.C, Caps: CapSequence, Devices: [][32]byte{pub(fixedKey("guest"))}})
	l.appoint(5, "guest")
	tight := l.s.Policy
	tight.Mint = space.MintMemberList
	refusal{"its sequencer is a guest", KindPolicy, func(l *log) any {
		return PolicyChange{Policy: tight, Rotation: ptr(l.rotation())}
	}, nil, space.ErrMalformed}.run(t, l)
}

// Under static keys nothing rotates: what is final of the removed stays, the
// rest is refused until it is let in again.
func TestStaticKeys(t *testing.T) {
	l := publicLog(t, space.KeysStatic)
	c := l.memberAt(2).C
	settledHead := Cut{Chain: [32]byte{1}, Seq: 4, ID: [32]byte{4}}
	l.add(KindCheckpoint, Checkpoint{Epoch: 1, Topic: [32]byte{1}, Count: 5, Heads: []Cut{settledHead}})
	refusal{"a rotation", KindMemberRemove, func(l *log) any {
		return MemberRemove{Slot: 2, C: c, Rotation: ptr(l.rotation())}
	}, nil, space.ErrMalformed}.run(t, l)
	refusal{"an epoch", KindEpoch, func(l *log) any { return l.rotation() }, nil, space.ErrMalformed}.run(t, l)
	l.add(KindMemberRemove, MemberRemove{Slot: 2, C: c})
	bounds := func(other Bound) {
		t.Helper()
		if b := l.s.Bound(c, 1, settledHead.Chain); b != (Bound{Bounded: true, Seq: 4, ID: [32]byte{4}}) {
			t.Errorf("a final chain: %+v", b)
		}
		if b := l.s.Bound(c, 1, [32]byte{2}); b != other {
			t.Errorf("another chain: %+v, want %+v", b, other)
		}
	}
	closed := Bound{Bounded: true, None: true}
	bounds(closed)
	l.add(KindMemberAdd, l.member(2))
	bounds(Bound{})
	slot := l.s.NextSlot() - 1
	l.add(KindMemberLevel, MemberLevel{Slot: slot, C: c, Level: space.LevelRead})
	bounds(closed)
	l.add(KindMemberLevel, MemberLevel{Slot: slot, C: c, Level: space.LevelWrite})
	bounds(Bound{})

	p := l.s.Policy
	p.KeyPolicy = space.KeysRotate
	refusal{"back to rotation without an epoch", KindPolicy, func(*log) any { return p }, nil, space.ErrMalformed}.run(t, l)
	l.add(KindPolicy, l.rotated(KindPolicy, PolicyChange{Policy: p}))
	if l.s.Epoch != 2 {
		t.Fatalf("epoch %d", l.s.Epoch)
	}
}

// C25: whoever has the key of a running chain can fork it from its beginning.
// What a checkpoint named stays, and no later entry can say otherwise.
func TestC25CheckpointedBranchStays(t *testing.T) {
	l := settled(t)
	chain, c := [32]byte{1}, l.memberAt(2).C
	head := Cut{Chain: chain, Seq: 100, ID: [32]byte{1, 0, 0}}
	check := Checkpoint{Epoch: 1, Topic: [32]byte{1}, Count: 101, Digest: [32]byte{1}, Heads: []Cut{head}}
	l.add(KindCheckpoint, check)
	if got, ok := l.s.Final(chain); !ok || got != head {
		t.Fatalf("final is %+v", got)
	}
	if got, ok := l.s.Checkpoint(1); !ok || got.Count != 101 {
		t.Fatalf("checkpoint is %+v", got)
	}
	forked := func(seq uint64, id byte) []Cut { return []Cut{{Chain: chain, Seq: seq, ID: [32]byte{id}}} }
	at := func(f func(*Checkpoint)) func(*log) any {
		return func(*log) any { x := check; x.Count++; f(&x); return x }
	}
	cut := func(cuts []Cut) func(*log) any {
		return func(l *log) any { return l.removal(2, func(r *Rotation) { r.Epoch.Cuts = cuts }) }
	}
	keepers := func(cuts []Cut) func(*log) any {
		return func(l *log) any {
			return l.rotated(KindEpoch, nil, func(r *Rotation) { r.Ended, r.Epoch.Cuts = []identity.Commitment{c}, cuts })
		}
	}
	for name, cuts := range map[string][]Cut{"at the fork": forked(1, 9), "at another branch": forked(100, 9)} {
		t.Run("a keeper cuts "+name, func(t *testing.T) {
			refusal{name, KindEpoch, keepers(cuts), nil, space.ErrMalformed}.run(t, l.as(fixedKey("keeper")))
		})
		n := *l // the authority may: a keeper's checkpoint can be false
		n.add(KindMemberRemove, cut(cuts)(&n))
		if b := n.s.Bound(c, 1, chain); b != (Bound{Bounded: true, Seq: cuts[0].Seq, ID: cuts[0].ID}) {
			t.Fatalf("the authority cuts %s: %+v", name, b)
		}
		if got, _ := n.s.Final(chain); got != head {
			t.Fatalf("the authority cuts %s: final is %+v", name, got)
		}
	}
	for _, r := range []refusal{
		{"checkpoint of the fork", KindCheckpoint, at(func(x *Checkpoint) { x.Heads = forked(1, 9) }), nil, space.ErrMalformed},
		{"checkpoint of another branch", KindCheckpoint, at(func(x *Checkpoint) { x.Heads = forked(100, 9) }), nil, space.ErrMalformed},
		{"fewer envelopes", KindCheckpoint, at(func(x *Checkpoint) { x.Count = 50 }), nil, space.ErrMalformed},
		{"another topic", KindCheckpoint, at(func(x *Checkpoint) { x.Topic = [32]byte{2} }), nil, space.ErrMalformed},
		{"an epoch to come", KindCheckpoint, at(func(x *Checkpoint) { x.Epoch = 2 }), nil, space.ErrMalformed},
		{"epoch 0", KindCheckpoint, at(func(x *Checkpoint) { x.Epoch = 0 }), nil, space.ErrMalformed},
		{"no topic", KindCheckpoint, at(func(x *Checkpoint) { x.Topic = [32]byte{} }), nil, space.ErrMalformed},
		{"heads out of order", KindCheckpoint, at(func(x *Checkpoint) { x.Heads = make([]Cut, 2) }), nil, space.ErrMalformed},
		{"too many heads", KindCheckpoint, at(func(x *Checkpoint) { x.Heads = manyCuts(MaxCuts + 1) }), nil, space.ErrTooLarge},
	} {
		t.Run(r.name, func(t *testing.T) { r.run(t, l) })
	}
	l.add(KindCheckpoint, at(func(x *Checkpoint) { x.Heads = forked(120, 2) })(l))
	l.add(KindMemberRemove, cut(forked(130, 3))(l))
	if b := l.s.Bound(c, 1, chain); b != (Bound{Bounded: true, Seq: 130, ID: [32]byte{3}}) {
		t.Fatalf("bound is %+v", b)
	}
}

func TestPages(t *testing.T) {
	l := founded(t)
	for i := range 90 {
		l.fill(i)
	}
	all := make([]Wrap, 0, 91)
	for r := range l.s.Readers() {
		all = append(all, Wrap{Slot: r.Slot, C: r.C, PUKGen: 1, Sealed: []byte("sealed")})
	}
	pages := slices.Collect(slices.Chunk(all, PageSlots))
	for i, p := range pages {
		back, err := DecodePage(must(EncodePage(p)))
		if err != nil || fmt.Sprint(back) != fmt.Sprint(p) {
			t.Fatalf("page %d: %v", i, err)
		}
		if err := l.s.CheckPage(i, p); err != nil {
			t.Errorf("page %d: %v", i, err)
		}
		for name, bad := range map[string][]Wrap{"short": p[:len(p)-1], "moved": append(p[1:len(p):len(p)], p[0])} {
			if err := l.s.CheckPage(i, bad); !errors.Is(err, space.ErrMalformed) {
				t.Errorf("page %d %s: %v", i, name, err)
			}
		}
	}
	for _, i := range []int{-1, 1, 3, 1 << 40} {
		if err := l.s.CheckPage(i, pages[0]); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("first page as page %d: %v", i, err)
		}
	}
	for name, p := range map[string][]Wrap{
		"empty": nil, "too long": all[:PageSlots+1], "out of order": {all[1], all[0]}, "no key": {{Slot: 1}},
		"key too large": {{Slot: 1, Sealed: make([]byte, maxSealed+1)}},
	} {
		if b, err := EncodePage(p); !errors.Is(err, space.ErrMalformed) || b != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodePage(make([]byte, PageSlots*(maxSealed+64)+1)); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("a huge page: %v", err)
	}
}

func TestPreviewRefuses(t *testing.T) {
	l := settled(t)
	for name, tt := range map[string]struct {
		kind Kind
		body any
		want error
	}{
		"kind of another body": {KindMemberLevel, MemberRemove{Slot: 2, C: l.memberAt(2).C}, space.ErrMalformed},
		"no member":            {KindMemberRemove, MemberRemove{Slot: 9}, space.ErrMemberNotFound},
		"no body":              {KindMemberRemove, nil, space.ErrMalformed},
		"a string":             {KindMemberRemove, "x", space.ErrMalformed},
	} {
		if s, err := Preview(l.s, tt.kind, tt.body); !errors.Is(err, tt.want) || s != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		kind Kind
		body any
		want bool
	}{
		"removal": {KindMemberRemove, MemberRemove{Slot: 2, C: l.memberAt(2).C}, true},
		"drop":    {KindMemberLevel, MemberLevel{Slot: 2, C: l.memberAt(2).C, Level: space.LevelRead}, true},
		"raise":   {KindMemberLevel, MemberLevel{Slot: 3, C: l.memberAt(3).C, Level: space.LevelWrite}, false},
		"epoch":   {KindEpoch, nil, true},
		"policy":  {KindPolicy, space.DefaultPolicy(), false},
		"member":  {KindMemberAdd, l.member(9), false},
		"ending":  {KindKeeperSet, KeeperSet{Slot: 1, C: l.memberAt(1).C}, true},
	} {
		if got, err := MustRotate(l.s, tt.kind, tt.body); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tt.want)
		}
	}
}
