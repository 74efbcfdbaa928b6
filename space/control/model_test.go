package control

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// writer draws valid entries onto a log.
type writer struct {
	*log
	t *rapid.T
}

// history draws n acts; those that the state of the moment forbids are left
// out.
func history(t *rapid.T, l *log, n int) {
	w := writer{l, t}
	acts := []func(){
		w.invite, w.invite, w.policy, w.rotate, w.join, w.join, w.person, w.person, w.person, w.back,
		w.remove, w.level, w.level, w.keeper, w.keeper, w.child, w.check, w.revoke, w.sequencer, w.guest,
	}
	for range n {
		rapid.SampledFrom(acts).Draw(t, "act")()
	}
}

func (w writer) pick(what string, from, to int) int { return rapid.IntRange(from, to).Draw(w.t, what) }

// chains of the test histories; their heads rise with the log, so that what
// was final stays.
func (w writer) cuts() []Cut {
	var out []Cut
	for chain := range byte(5) {
		if rapid.Bool().Draw(w.t, "cut") {
			out = append(out, Cut{Chain: [32]byte{chain}, Seq: w.s.Head.Seq, ID: [32]byte{chain, byte(w.s.Head.Seq)}})
		}
	}
	return out
}

// try writes an entry, with a rotation if it needs one or may have one, unless
// the state forbids it.
func (w writer) try(kind Kind, body any) {
	w.tb.Helper()
	must, err := MustRotate(w.s, kind, body)
	if err != nil {
		return
	}
	if kind == KindEpoch && !must {
		return // static keys
	}
	if must {
		body = w.rotated(kind, body, func(r *Rotation) {
			r.Epoch.Cuts = w.cuts()
			if m, ok := w.s.AtSlot(uint32(w.pick("ended", 0, 12))); ok && kind == KindEpoch {
				r.Ended = []identity.Commitment{m.C}
			}
		})
	}
	w.now += 1000
	if e, err := Build(w.s, kind, body, w.keys, w.now, w.rand); err == nil {
		w.apply(e)
	}
}

func (w writer) invite() {
	v := testInvite(fmt.Sprint("drawn", w.s.Head.Seq))
	v.MaxUses = uint32(w.pick("uses", 0, 2))
	v.Level = space.Level(w.pick("level", 1, 3))
	w.try(KindInvite, v)
}

func (w writer) policy() {
	p := space.DefaultPolicy()
	p.DisplayName = rapid.StringMatching(`[a-z]{0,9}`).Draw(w.t, "title")
	p.Mint = rapid.SampledFrom([]string{space.MintMemberList, space.MintPublic}).Draw(w.t, "mint")
	p.SelfWrite = rapid.Bool().Draw(w.t, "selfWrite")
	if p.Mint == space.MintPublic && w.pick("static", 0, 3) == 0 {
		p.KeyPolicy = space.KeysStatic
	}
	w.try(KindPolicy, p)
	w.try(KindPolicy, PolicyChange{Policy: p})
}

func (w writer) rotate() { w.try(KindEpoch, Rotation{}) }

func (w writer) person() {
	b := w.member(int(w.s.NextSlot()))
	b.Level = space.Level(w.pick("level", 1, 3))
	w.try(KindMemberAdd, b)
}

// back adds somebody again who was removed.
func (w writer) back() {
	for i := range w.s.NextSlot() {
		b := w.member(int(i))
		if m, ok := w.s.Author(b.C); ok && m.Gone {
			b.Level = space.Level(w.pick("level", 1, 3))
			w.try(KindMemberAdd, b)
			return
		}
	}
}

func (w writer) join() {
	for v := range w.s.Invites() {
		if v.Live(w.now) {
			w.try(KindMemberAdd, w.memberBy(int(w.s.NextSlot()), v.Invite, v.Uses+1))
			return
		}
	}
}

func (w writer) guest() { w.try(KindMemberAdd, w.publicly(int(w.s.NextSlot()))) }

func (w writer) someone() (Member, bool) {
	all := slices.Collect(w.s.Members())
	m := all[w.pick("member", 0, len(all)-1)]
	return m, m.Slot != 0
}

func (w writer) remove() {
	if m, ok := w.someone(); ok {
		w.try(KindMemberRemove, MemberRemove{Slot: m.Slot, C: m.C})
	}
}

func (w writer) level() {
	m, _ := w.someone()
	w.try(KindMemberLevel, MemberLevel{Slot: m.Slot, C: m.C, Level: space.Level(w.pick("level", 1, 3))})
}

func (w writer) keeper() {
	m, ok := w.someone()
	if !ok {
		return
	}
	b := KeeperSet{Slot: m.Slot, C: m.C, Caps: Caps(w.pick("caps", 0, 7))}
	old, _ := w.s.Keeper(m.Slot)
	if b.Caps != 0 {
		for i := range w.pick("devices", 1, 2) {
			b.Devices = append(b.Devices, pub(fixedKey(fmt.Sprint("device", m.Slot, i))))
		}
		slices.SortFunc(b.Devices, compareKeys)
	}
	if _, err := MustRotate(w.s, KindKeeperSet, b); err == nil && b.Caps.Has(CapAdmit) && !old.Caps.Has(CapAdmit) {
		if must, _ := MustRotate(w.s, KindKeeperSet, b); !must {
			b.Issuer = []byte("sealed issuer")
		}
	}
	w.try(KindKeeperSet, b)
}

func (w writer) child() {
	id := byte(w.pick("child", 1, 3))
	if d, ok := w.s.Delegation([32]byte{id}); ok && rapid.Bool().Draw(w.t, "end") {
		w.try(KindDelegationSet, Delegation{Slot: d.Slot, Child: d.Child})
		return
	}
	w.try(KindDelegationSet, w.delegation(id, space.Level(w.pick("level", 2, 3))))
}

func (w writer) check() {
	w.try(KindCheckpoint, Checkpoint{Epoch: w.s.Epoch, Topic: [32]byte{1, byte(w.s.Epoch)}, Count: w.s.Head.Seq, Heads: w.cuts()})
}

func (w writer) revoke() {
	for v := range w.s.Invites() {
		if !v.Revoked {
			w.try(KindInviteRevoke, InviteRevoke{ID: v.ID})
			return
		}
	}
}

func (w writer) sequencer() {
	own := must(testOwner()).dev.Sig()
	key, slot := own, uint32(0)
	for k := range w.s.Keepers() {
		if k.Slot != 0 && k.Caps.Has(CapSequence) {
			slot = k.Slot
			for i := range 2 {
				if d := fixedKey(fmt.Sprint("device", k.Slot, i)); k.has(pub(d)) {
					key = d
				}
			}
		}
	}
	w.now += 1000
	e, err := Build(w.s, KindSequencer, Sequencer{Slot: slot, Device: pub(key)}, BuildKeys{Proposer: own, Sequencer: own}, w.now, w.rand)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.apply(e)
	w.keys.Sequencer = key
}

// model is what a log says, kept the dumb way: the present in maps, the past
// as one line for each entry.
type model struct {
	members map[uint32]Member
	uses    map[[16]byte]uint32
	revoked map[[16]byte]bool
	keepers map[uint32]KeeperSet
	spaces  map[uint32]Delegation
	policy  space.Policy
	epoch   uint64
	next    uint32
	order   ed25519.PublicKey
	finals  map[[32]byte]Cut
	past    []line
}

// line is how things stood after one entry, and what the entry did to whom.
type line struct {
	epoch  uint64
	levels map[identity.Commitment]space.Level
	self   bool
	ended  map[identity.Commitment]func(chain [32]byte) (Cut, bool)
	static bool
}

func modelOf(entries []*Entry) *model {
	m := &model{
		members: map[uint32]Member{}, uses: map[[16]byte]uint32{}, revoked: map[[16]byte]bool{},
		keepers: map[uint32]KeeperSet{}, spaces: map[uint32]Delegation{}, finals: map[[32]byte]Cut{},
	}
	for _, e := range entries {
		m.take(e)
	}
	return m
}

func (m *model) take(e *Entry) {
	before := m.levels()
	m.change(e)
	r := rotationOf(e.Body())
	now := line{levels: m.levels(), self: m.policy.SelfWrites(), ended: map[identity.Commitment]func([32]byte) (Cut, bool){}}
	listed := cutsOf(m.finals)
	if r != nil {
		m.epoch = r.Epoch.N
		cuts := map[[32]byte]Cut{}
		for _, c := range r.Epoch.Cuts {
			cuts[c.Chain], m.finals[c.Chain] = c, c
		}
		listed = cutsOf(cuts)
		for _, c := range r.Ended {
			now.ended[c] = listed
		}
	}
	for c, was := range before {
		if now.levels[c] < was {
			now.ended[c] = listed
		}
	}
	now.epoch, now.static = m.epoch, r == nil
	m.past = append(m.past, now)
}

func cutsOf(cuts map[[32]byte]Cut) func([32]byte) (Cut, bool) {
	frozen := map[[32]byte]Cut{}
	for k, v := range cuts {
		frozen[k] = v
	}
	return func(chain [32]byte) (Cut, bool) { c, ok := frozen[chain]; return c, ok }
}

func (m *model) levels() map[identity.Commitment]space.Level {
	out := map[identity.Commitment]space.Level{}
	for _, x := range m.members {
		out[x.C] = x.Level
	}
	return out
}

func (m *model) change(e *Entry) {
	switch b := e.Body().(type) {
	case Genesis:
		m.members[0] = Member{C: b.AuthorityC, DID: b.AuthorityDID, Level: space.LevelWrite}
		m.keepers[0] = KeeperSet{Caps: CapAll, Devices: [][32]byte{b.SequencerPub}}
		m.policy, m.next, m.order = b.Policy, 1, b.SequencerPub[:]
	case MemberAdd:
		m.members[b.Slot] = Member{Slot: b.Slot, C: b.C, DID: b.DID, Level: b.Level, Public: b.InviteID != nil && [16]byte(b.InviteID) == PublicDoor}
		m.next = b.Slot + 1
		if b.InviteID != nil && [16]byte(b.InviteID) != PublicDoor {
			m.uses[[16]byte(b.InviteID)]++
		}
	case MemberRemove:
		m.drop(b.Slot)
	case MemberLevel:
		x := m.members[b.Slot]
		x.Level = b.Level
		m.members[b.Slot] = x
	case Epoch:
		m.epoch = b.N
	case PolicyChange:
		if m.policy.Mint == space.MintPublic && b.Policy.Mint != space.MintPublic {
			for slot, x := range m.members {
				if x.Public {
					m.drop(slot)
				}
			}
		}
		m.policy = b.Policy
	case Invite:
		m.uses[b.ID] = 0
	case InviteRevoke:
		m.revoked[b.ID] = true
	case KeeperSet:
		m.keepers[b.Slot] = b
		if b.Caps == 0 {
			delete(m.keepers, b.Slot)
		}
	case Sequencer:
		m.order = b.Device[:]
	case Delegation:
		m.spaces[b.Slot] = b
		m.next = max(m.next, b.Slot+1)
		if b.Level == space.LevelNone {
			delete(m.spaces, b.Slot)
		}
	case Checkpoint:
		for _, c := range b.Heads {
			m.finals[c.Chain] = c
		}
	}
}

func (m *model) drop(slot uint32) {
	delete(m.members, slot)
	delete(m.keepers, slot)
}

func (m *model) mayWrite(c identity.Commitment, epoch uint64) bool {
	return slices.ContainsFunc(m.past, func(l line) bool {
		level, in := l.levels[c]
		return l.epoch == epoch && in && (level == space.LevelWrite || level == space.LevelReadSelf && l.self)
	})
}

func (m *model) bound(c identity.Commitment, epoch uint64, chain [32]byte) Bound {
	for i, l := range m.past {
		listed, ended := l.ended[c]
		if !ended || !l.static && l.epoch <= epoch || l.static && l.epoch < epoch {
			continue
		}
		if cut, ok := listed(chain); ok {
			return Bound{Bounded: true, Seq: cut.Seq, ID: cut.ID}
		}
		if l.static && m.raised(c, i) {
			continue
		}
		return Bound{Bounded: true, None: true}
	}
	return Bound{}
}

// raised reports whether c was added or raised after line i.
func (m *model) raised(c identity.Commitment, i int) bool {
	for ; i+1 < len(m.past); i++ {
		if m.past[i].levels[c] < m.past[i+1].levels[c] {
			return true
		}
	}
	return false
}

// The state against the model, after random histories of every kind.
func TestNaive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := founded(t)
		history(rt, l, rapid.IntRange(0, 40).Draw(rt, "length"))
		m := modelOf(l.entries)
		compareRoster(rt, l.s, m)
		compareRest(rt, l.s, m)
		people := map[identity.Commitment]bool{{0xee}: true}
		for _, p := range m.past {
			for c := range p.levels {
				people[c] = true
			}
		}
		for c := range people {
			if a, ok := l.s.Author(c); ok != (c != identity.Commitment{0xee}) || ok && a.Gone != (m.levels()[c] == 0) {
				rt.Fatalf("author %x is %+v, %v", c[:4], a, ok)
			}
			for epoch := uint64(1); epoch < m.epoch+2; epoch++ {
				if got, want := l.s.MayWrite(c, epoch), m.mayWrite(c, epoch); got != want {
					rt.Fatalf("%x may write in epoch %d: %v, want %v", c[:4], epoch, got, want)
				}
				for chain := range byte(6) {
					if got, want := l.s.Bound(c, epoch, [32]byte{chain}), m.bound(c, epoch, [32]byte{chain}); got != want {
						rt.Fatalf("chain %d of %x in epoch %d: %+v, want %+v", chain, c[:4], epoch, got, want)
					}
				}
			}
		}
	})
}

func compareRoster(rt *rapid.T, s *State, m *model) {
	if s.Len() != len(m.members) || s.NextSlot() != m.next || s.ReaderCount() != len(m.members)+len(m.spaces) {
		rt.Fatalf("%d members, next slot %d, want %d and %d", s.Len(), s.NextSlot(), len(m.members), m.next)
	}
	last := -1
	for r := range s.Readers() {
		if int(r.Slot) <= last {
			rt.Fatalf("slot %d after %d", r.Slot, last)
		}
		last = int(r.Slot)
		d, x := m.spaces[r.Slot], m.members[r.Slot]
		if r.Delegation && (d.Child != r.Child || d.Level != r.Level) || !r.Delegation && (x.C != r.C || x.Level != r.Level) {
			rt.Fatalf("reader %+v, want %+v or %+v", r, x, d)
		}
	}
	for slot, want := range m.members {
		bySlot, _ := s.AtSlot(slot)
		byC, _ := s.Member(want.C)
		byDID, _ := s.MemberByDID(want.DID)
		for _, got := range []Member{bySlot, byC, byDID} {
			if got.Slot != slot || got.C != want.C || got.DID != want.DID || got.Level != want.Level || got.Public != want.Public || got.Gone {
				rt.Fatalf("member %d is %+v, want %+v", slot, got, want)
			}
		}
	}
}

func compareRest(rt *rapid.T, s *State, m *model) {
	invites, keepers := slices.Collect(s.Invites()), slices.Collect(s.Keepers())
	if len(invites) != len(m.uses) || len(keepers) != len(m.keepers) || s.Epoch != m.epoch || s.Policy.DisplayName != m.policy.DisplayName {
		rt.Fatalf("%d invites, %d keepers, epoch %d, want %d, %d, %d", len(invites), len(keepers), s.Epoch, len(m.uses), len(m.keepers), m.epoch)
	}
	for _, v := range invites {
		if v.Uses != m.uses[v.ID] || v.Revoked != m.revoked[v.ID] {
			rt.Fatalf("invite %x used %d times, revoked %v", v.ID, v.Uses, v.Revoked)
		}
	}
	for _, k := range keepers {
		want := m.keepers[k.Slot]
		if k.Caps != want.Caps || !slices.Equal(k.Devices, want.Devices) {
			rt.Fatalf("keeper %+v, want %+v", k, want)
		}
		for _, d := range k.Devices {
			if slot, caps, _ := s.DeviceCaps(d); slot != k.Slot || caps != k.Caps {
				rt.Fatalf("device of %d is of %d with %v", k.Slot, slot, caps)
			}
		}
	}
	for chain, want := range m.finals {
		if got, ok := s.Final(chain); !ok || got != want {
			rt.Fatalf("chain %x is final at %+v, want %+v", chain[:1], got, want)
		}
	}
	if !s.SequencerPub.Equal(m.order) {
		rt.Fatalf("ordered by %x, want %x", s.SequencerPub, m.order)
	}
}

// A log that was written is what another node makes of its bytes.
func TestReplayOfHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := founded(t)
		history(rt, l, rapid.IntRange(0, 30).Draw(rt, "length"))
		s, err := Replay(raws(l.entries), func(uint64) []byte { return l.keys.CK })
		if err != nil || describe(s) != describe(l.s) {
			rt.Fatalf("%v\nreplayed:\n%s\nwritten:\n%s", err, describe(s), describe(l.s))
		}
	})
}
