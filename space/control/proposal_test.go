package control

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
)

func TestProposal(t *testing.T) {
	l := settled(t)
	keeper := fixedKey("keeper")
	p := must(Propose(l.s, KindEpoch, l.rotation(), keeper, l.rand))
	back, err := DecodeProposal(must(p.Encode()))
	if err != nil || !reflect.DeepEqual(back, p) || back.BaseHead() != l.s.Head.Hash {
		t.Fatalf("decoded: %+v, %v", back, err)
	}
	if body := must(back.Body()); !reflect.DeepEqual(body, any(l.rotation())) {
		t.Fatalf("body is %+v", body)
	}
	e := must(Commit(l.s, back, l.keys.Sequencer, l.keys.CK, l.now, l.rand))
	if e.Proposer != pub(keeper) || e.Epoch != 2 || !e.Opened() {
		t.Fatalf("entry is %+v", e)
	}
	l.apply(l.reparse(e))
	if r := e.Rotation(); r == nil || r.Epoch.N != 2 {
		t.Fatal("no rotation in it")
	}
}

func TestProposalRefused(t *testing.T) {
	l := settled(t)
	keeper := fixedKey("keeper")
	good := must(Propose(l.s, KindEpoch, l.rotation(), keeper, l.rand))
	for name, tt := range map[string]struct {
		edit func(*Proposal)
		want error
	}{
		"kind 0":               {func(p *Proposal) { p.Kind = 0 }, space.ErrMalformed},
		"kind 99":              {func(p *Proposal) { p.Kind = 99 }, space.ErrUnsupported},
		"genesis":              {func(p *Proposal) { p.Kind = KindGenesis }, space.ErrMalformed},
		"sequencer":            {func(p *Proposal) { p.Kind = KindSequencer }, space.ErrMalformed},
		"another kind":         {func(p *Proposal) { p.Kind = KindInvite }, space.ErrForged},
		"another space":        {func(p *Proposal) { p.SpaceID[0] ^= 1 }, space.ErrForged},
		"another proposer":     {func(p *Proposal) { p.Proposer = pub(fixedKey("x")) }, space.ErrForged},
		"proposer small order": {func(p *Proposal) { p.Proposer = [32]byte{1} }, space.ErrMalformed},
		"another base":         {func(p *Proposal) { p.Plain = bytes.Clone(p.Plain); p.Plain[0] ^= 1 }, space.ErrForged},
		"plaintext too short":  {func(p *Proposal) { p.Plain = p.Plain[:bodyStart-1] }, space.ErrMalformed},
		"plaintext too long":   {func(p *Proposal) { p.Plain = make([]byte, MaxBody) }, space.ErrTooLarge},
		"signature":            {func(p *Proposal) { p.Sig[0] ^= 1 }, space.ErrForged},
	} {
		p := good
		tt.edit(&p)
		if _, err := DecodeProposal(must(space.Marshal(p))); !errors.Is(err, tt.want) {
			t.Errorf("decode, %s: %v, want %v", name, err, tt.want)
		}
		if _, err := Commit(l.s, p, l.keys.Sequencer, l.keys.CK, l.now, l.rand); !errors.Is(err, tt.want) {
			t.Errorf("commit, %s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := DecodeProposal(make([]byte, MaxBody+1025)); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("huge: %v", err)
	}
	for name, tt := range map[string]struct {
		key  ed25519.PrivateKey
		ck   []byte
		want error
	}{
		"not the sequencer": {keeper, l.keys.CK, space.ErrForbidden},
		"no key":            {nil, l.keys.CK, space.ErrNoKey},
		"no control key":    {l.keys.Sequencer, nil, space.ErrNoKey},
	} {
		if e, err := Commit(l.s, good, tt.key, tt.ck, l.now, l.rand); !errors.Is(err, tt.want) || e != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		kind Kind
		body any
		key  ed25519.PrivateKey
		want error
	}{
		"no key":    {KindEpoch, l.rotation(), nil, space.ErrNoKey},
		"genesis":   {KindGenesis, genesisBody(must(testOwner())), keeper, space.ErrUnsupported},
		"no body":   {KindEpoch, nil, keeper, space.ErrUnsupported},
		"not may":   {KindInvite, testInvite("n"), keeper, space.ErrForbidden},
		"too large": {KindMemberRemove, MemberRemove{Slot: 2, C: l.memberAt(2).C, Leave: make([]byte, maxLeave), Rotation: ptr(hugeRotation(l))}, l.keys.Proposer, space.ErrTooLarge},
	} {
		if _, err := Propose(l.s, tt.kind, tt.body, tt.key, l.rand); !errors.Is(err, tt.want) {
			t.Errorf("propose, %s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := Propose(l.s, KindEpoch, l.rotation(), keeper, bytes.NewReader(nil)); err == nil {
		t.Error("proposed without a salt")
	}
}

func hugeRotation(l *log) Rotation {
	r := l.rotation()
	r.Epoch.Wraps = slices.Repeat([]Wrap{{Sealed: make([]byte, maxSealed)}}, 40)
	return r
}

// A proposal stands on one of the last Recent heads; before that it is void.
func TestProposalGrowsOld(t *testing.T) {
	l := settled(t)
	v := testInvite("many")
	v.MaxUses = 0
	l.add(KindInvite, v)
	note := Checkpoint{Epoch: 1, Topic: [32]byte{1}}
	p := must(Propose(l.s, KindCheckpoint, note, fixedKey("keeper"), l.rand))
	for i := range Recent - 1 {
		l.add(KindMemberAdd, l.memberBy(100+i, v, uint32(i+1)))
	}
	if _, err := Commit(l.s, p, l.keys.Sequencer, l.keys.CK, l.now, l.rand); err != nil {
		t.Fatalf("after %d entries: %v", Recent-1, err)
	}
	l.add(KindMemberAdd, l.memberBy(999, v, Recent))
	if _, err := Commit(l.s, p, l.keys.Sequencer, l.keys.CK, l.now, l.rand); !errors.Is(err, space.ErrMalformed) {
		t.Fatalf("after %d entries: %v", Recent, err)
	}
	for i := range 3 * Recent { // the list of heads is cut now and then
		l.add(KindMemberAdd, l.memberBy(2000+i, v, uint32(Recent+1+i)))
		if h, ok := l.s.recent.find(l.entries[len(l.entries)-Recent].Hash()); !ok || h.head.Seq != l.s.Head.Seq-Recent+1 {
			t.Fatalf("head %d is gone at %d", l.s.Head.Seq-Recent+1, l.s.Head.Seq)
		}
		if _, ok := l.s.recent.find(l.entries[len(l.entries)-Recent-1].Hash()); ok {
			t.Fatalf("a head of %d entries ago is there", Recent)
		}
	}
}

// A capability must hold where the proposer stood and now: neither a lost one
// nor one that came later serves.
func TestCapabilityAtBaseAndNow(t *testing.T) {
	l := settled(t)
	set := KeeperSet{Slot: 2, C: l.memberAt(2).C, Caps: CapAdmit, Devices: [][32]byte{pub(fixedKey("late"))}, Issuer: []byte{1}}
	d := l.next(KindCheckpoint)
	l.add(KindKeeperSet, set)
	d.seq, d.prev = d.seq+1, l.s.Head.Hash // based on the head before the capability
	note := Checkpoint{Epoch: 1, Topic: [32]byte{1}}
	late := l.as(fixedKey("late"))
	if _, err := Apply(l.s, l.reparse(forge(t, d, note, late.keys))); !errors.Is(err, space.ErrForbidden) {
		t.Fatalf("based before the capability: %v", err)
	}
	d.base = l.s.Head.Hash
	if _, err := Apply(l.s, l.reparse(forge(t, d, note, late.keys))); err != nil {
		t.Fatalf("based on it: %v", err)
	}
}

// C20: many propose on one head at once. The sequencer makes one line of it;
// who was overtaken proposes again; no removal is lost and each has one epoch.
func TestC20ManyProposeAtOnce(t *testing.T) {
	l := settled(t)
	own := must(testOwner()).dev
	devices := [][32]byte{own.ID()}
	keys := []ed25519.PrivateKey{own.Sig()}
	for i := range MaxKeeperDevices - 1 {
		keys = append(keys, fixedKey(fmt.Sprint("authority's", i)))
		devices = append(devices, pub(keys[i+1]))
	}
	slices.SortFunc(devices, compareKeys)
	l.add(KindKeeperSet, KeeperSet{C: l.s.Authority.C, Caps: CapAll, Devices: devices})
	for i := range 30 {
		l.add(KindMemberAdd, l.member(100+i))
	}
	var remove []Member
	for m := range l.s.Members() {
		if m.Slot > 4 {
			remove = append(remove, m)
		}
	}
	type wish struct {
		by   ed25519.PrivateKey
		body func(s *State) (Kind, any)
		open bool
	}
	var wishes []*wish
	for i := range 50 {
		w := &wish{by: keys[i%len(keys)], open: true}
		w.body = func(s *State) (Kind, any) {
			b := l.member(500 + i)
			b.Slot = s.NextSlot()
			return KindMemberAdd, b
		}
		if i%2 == 0 {
			m := remove[i/2]
			w.body = func(s *State) (Kind, any) {
				b := MemberRemove{Slot: m.Slot, C: m.C}
				return KindMemberRemove, WithRotation(b, rotationFor(must(Preview(s, KindMemberRemove, b))))
			}
		}
		wishes = append(wishes, w)
	}
	before := l.s
	for open := len(wishes); open > 0; {
		base, committed := l.s, 0
		var asked []Proposal
		for _, w := range wishes {
			if w.open {
				kind, body := w.body(base)
				asked = append(asked, must(Propose(base, kind, body, w.by, l.rand)))
			}
		}
		i := 0
		for _, w := range wishes {
			if !w.open {
				continue
			}
			l.now++
			if e, err := Commit(l.s, asked[i], l.keys.Sequencer, l.keys.CK, l.now, l.rand); err == nil {
				l.apply(e)
				w.open = false
				committed++
				open--
			}
			i++
		}
		if committed == 0 {
			t.Fatal("nothing went through")
		}
	}
	if l.s.Head.Seq != before.Head.Seq+50 || l.s.Epoch != before.Epoch+25 || l.s.Len() != before.Len() {
		t.Fatalf("after 25 adds and 25 removals: seq %d, epoch %d, %d members", l.s.Head.Seq-before.Head.Seq, l.s.Epoch-before.Epoch, l.s.Len())
	}
	for _, m := range remove[:25] {
		if _, ok := l.s.Member(m.C); ok {
			t.Fatalf("slot %d is still in", m.Slot)
		}
	}
}
