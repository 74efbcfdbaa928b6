package oracle_test

import (
	"crypto/ed25519"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/seal"
)

// step is one thing that happens, if it can: what by number, the rest as it
// comes out.
type step struct{ what, who, room, extra int }

// happenings are all kinds of steps. Each does to the world what a node would
// do, and tells the model in its words.
var happenings = []func(w *world, r *room, p *person, extra int){
	(*world).writes, (*world).writes, (*world).writesLate, (*world).adds, (*world).adds, (*world).removes, (*world).levels,
	(*world).rotates, (*world).keeps, (*world).getsDevice, (*world).losesDevice,
	(*world).keeps, (*world).keeps, (*world).getsDevice, (*world).losesDevice, (*world).turnsHistory,
	(*world).delegates, (*world).undelegates, (*world).audits, (*world).renews, (*world).visits, (*world).invites, (*world).uninvites,
}

// take lets a step happen. The last of the crowd stays out of every space.
func (w *world) take(s step) {
	r := w.rooms[s.room%len(w.rooms)]
	p := w.people[s.who%(len(w.people)-1)]
	happenings[s.what%len(happenings)](w, r, p, s.extra)
}

func (w *world) book(r *room) *book { return w.books[r.name] }

func (r *room) member(p *person) control.Member {
	m, _ := r.state.Member(p.state.C)
	return m
}

// admitter is a keeper of r, not always the owner.
func (w *world) admitter(r *room, extra int) *person {
	if extra%2 == 0 {
		return r.owner
	}
	for _, p := range w.people {
		if w.book(r).admits[p.name] && p != r.owner {
			return p
		}
	}
	return r.owner
}

func (w *world) writes(r *room, p *person, _ int) {
	if l := w.book(r).level[p.name]; l == space.LevelWrite || l == space.LevelReadSelf {
		r.write(p, r.state.Epoch, l)
	}
}

// writesLate: who was of an epoch goes on writing in it, not knowing better.
func (w *world) writesLate(r *room, p *person, extra int) {
	n := uint64(extra)%r.state.Epoch + 1
	at := w.book(r).pages[n-1]
	if _, ok := at.all[p.name]; ok {
		r.write(p, n, space.LevelWrite)
	} else if _, ok := at.self[p.name]; ok {
		r.write(p, n, space.LevelReadSelf)
	}
}

func (w *world) adds(r *room, p *person, extra int) {
	if _, in := w.book(r).level[p.name]; in {
		return
	}
	by := w.admitter(r, extra)
	add := control.MemberAdd{
		Slot: r.state.NextSlot(), C: p.state.C, DID: p.state.DID, Level: space.Level(extra%3) + space.LevelReadSelf, ILHead: p.state.Head,
	}
	if r.invite != nil {
		r.uses++
		add.InviteID, add.Use, add.Level = r.invite.ID[:], r.uses, r.invite.Level
	} else {
		by = r.owner
	}
	r.commit(by, control.KindMemberAdd, add)
	w.book(r).level[p.name] = add.Level
	r.welcome(p, by, add.Level)
}

func (w *world) removes(r *room, p *person, _ int) {
	if _, in := w.book(r).level[p.name]; !in || p == r.owner {
		return
	}
	body := control.MemberRemove{Slot: r.member(p).Slot, C: p.state.C}
	delete(w.book(r).level, p.name)
	delete(w.book(r).admits, p.name)
	if w.broken == staticKeys {
		r.commit(r.owner, control.KindMemberRemove, body)
		w.book(r).turn(w.gen) // as it should be
		return
	}
	body.Rotation = r.rotation(control.KindMemberRemove, body)
	r.commit(r.owner, control.KindMemberRemove, body)
	r.turned()
}

func (w *world) levels(r *room, p *person, extra int) {
	b := w.book(r)
	old, in := b.level[p.name]
	level := space.Level(extra%3) + space.LevelReadSelf
	if !in || p == r.owner || old == level || b.admits[p.name] && level < space.LevelRead {
		return
	}
	body := control.MemberLevel{Slot: r.member(p).Slot, C: p.state.C, Level: level}
	b.level[p.name] = level
	if level > old {
		r.commit(r.owner, control.KindMemberLevel, body)
		r.welcome(p, r.owner, level)
		return
	}
	body.Rotation = r.rotation(control.KindMemberLevel, body)
	r.commit(r.owner, control.KindMemberLevel, body)
	r.turned()
}

func (w *world) rotates(r *room, _ *person, extra int) {
	if w.broken == staticKeys {
		w.book(r).turn(w.gen) // as it should be
		return
	}
	r.commit(w.admitter(r, extra), control.KindEpoch, *r.rotation(control.KindEpoch, control.Rotation{}))
	r.turned()
}

// keeps makes a keeper of a member, or of a keeper none.
func (w *world) keeps(r *room, p *person, extra int) {
	b := w.book(r)
	if b.level[p.name] < space.LevelRead || p == r.owner || p.devices[0].revoked != 0 {
		return
	}
	body := control.KeeperSet{Slot: r.member(p).Slot, C: p.state.C}
	if b.admits[p.name] {
		delete(b.admits, p.name)
		body.Rotation = r.rotation(control.KindKeeperSet, body)
		r.commit(r.owner, control.KindKeeperSet, body)
		r.turned()
		return
	}
	b.admits[p.name] = true
	body.Caps, body.Devices = control.CapAdmit|control.CapServe, [][32]byte{p.devices[0].ID()}
	if extra%2 == 0 {
		n := r.state.Epoch
		x := seal.WrapContext{SpaceID: r.state.SpaceID, Epoch: n, C: p.state.C}
		body.Issuer = must(seal.WrapIssuer(p.state.PUK, x, r.epochs[n-1].iss))
		r.addressedIssuer(control.Wrap{C: p.state.C, PUKGen: p.gen(), Sealed: body.Issuer}, n, p.state.PUK.KEM)
		r.commit(r.owner, control.KindKeeperSet, body)
		note(b.pages[n-1].issuer, p.name, p.gen())
		return
	}
	body.Rotation = r.rotation(control.KindKeeperSet, body)
	r.commit(r.owner, control.KindKeeperSet, body)
	r.turned()
}

func (w *world) getsDevice(_ *room, p *person, _ int) {
	if len(p.devices) < 4 {
		p.addDevice(w.rand)
		w.pukFact(p)
	}
}

// losesDevice revokes a device; the spaces hear of it when they are audited.
// The first one signs what a keeper or owner proposes, and stays.
func (w *world) losesDevice(_ *room, p *person, _ int) {
	for _, d := range p.devices[1:] {
		if d.revoked == 0 {
			p.revokeDevice(w.rand, d, w.broken == careless)
			w.pukFact(p)
			return
		}
	}
}

func (w *world) turnsHistory(r *room, _ *person, _ int) {
	b := w.book(r)
	policy := r.state.Policy
	if b.history = !b.history; b.history {
		policy.History = space.HistoryFull
	} else {
		policy.History = space.HistoryFromJoin
	}
	r.commit(r.owner, control.KindPolicy, control.PolicyChange{Policy: policy})
}

// child is the space that r may have as a member: the one founded after it.
func (w *world) child(r *room) *room {
	for i := range w.rooms[:len(w.rooms)-1] {
		if w.rooms[i] == r {
			return w.rooms[i+1]
		}
	}
	return nil
}

// delegates makes the space behind r a member of it, or takes a fresh
// descriptor of it.
func (w *world) delegates(r *room, _ *person, extra int) {
	child := w.child(r)
	if child == nil {
		return
	}
	d := must(child.state.Describe(child.epochs[child.state.Epoch-1].gk.DelegatePublic(), child.owner.devices[0].Sig(), w.clock))
	body := control.Delegation{
		Slot: r.state.NextSlot(), Child: child.state.SpaceID, Level: space.LevelRead + space.Level(extra%2), Descriptor: must(d.Encode()),
	}
	if old, ok := r.state.Delegation(child.state.SpaceID); ok {
		body.Slot, body.Level = old.Slot, old.Level
	}
	w.book(r).children[child.name] = child.state.Epoch
	body.Rotation = r.rotation(control.KindDelegationSet, body)
	r.commit(r.owner, control.KindDelegationSet, body)
	r.turned()
}

func (w *world) undelegates(r *room, _ *person, _ int) {
	child := w.child(r)
	if child == nil || w.book(r).children[child.name] == 0 {
		return
	}
	old, _ := r.state.Delegation(child.state.SpaceID)
	body := control.Delegation{Slot: old.Slot, Child: child.state.SpaceID}
	delete(w.book(r).children, child.name)
	body.Rotation = r.rotation(control.KindDelegationSet, body)
	r.commit(r.owner, control.KindDelegationSet, body)
	r.turned()
}

// audits does what keepers do all the time: keys that are wrapped to a per-user
// key or an epoch that is over are changed, from the innermost space outwards.
func (w *world) audits(*room, *person, int) {
	for i := range w.rooms {
		r := w.rooms[len(w.rooms)-1-i]
		b := w.book(r)
		at := b.pages[b.now()-1]
		stale := false
		for who := range b.level {
			gen := w.gen(who)
			told := at.all[who]
			if told == 0 {
				told = at.self[who]
			}
			stale = stale || told < gen
		}
		if child := w.child(r); child != nil && b.children[child.name] != 0 && b.children[child.name] != child.state.Epoch {
			w.delegates(r, nil, 0)
		} else if stale {
			w.rotates(r, nil, 0)
		}
	}
}

// renews hands a member its due again.
func (w *world) renews(r *room, p *person, extra int) {
	if l, in := w.book(r).level[p.name]; in {
		r.welcome(p, w.admitter(r, extra), l)
	}
}

// visits: who reads a child comes to the parent and is handed its keys; from
// there on it finds them in the log.
func (w *world) visits(r *room, p *person, extra int) {
	if child := w.child(r); child != nil && w.book(r).children[child.name] != 0 && w.books.present(p.name, child.name) >= space.LevelRead {
		r.welcome(p, w.admitter(r, extra), space.LevelRead)
	}
}

func (w *world) invites(r *room, _ *person, extra int) {
	if r.invite != nil {
		return
	}
	key := must(seal.NewWriterKey(w.rand))
	w.links = append(w.links, key.Marshal())
	pub := ed25519.PublicKey(key.Public())
	r.invite, r.uses = &control.Invite{
		ID: control.InviteID(pub), Pub: [32]byte(pub), Level: space.LevelReadSelf + space.Level(extra%3),
	}, 0
	r.commit(r.owner, control.KindInvite, *r.invite)
}

func (w *world) uninvites(r *room, _ *person, _ int) {
	if r.invite == nil {
		return
	}
	body := control.InviteRevoke{ID: r.invite.ID}
	r.invite = nil
	body.Rotation = r.rotation(control.KindInviteRevoke, body)
	r.commit(r.owner, control.KindInviteRevoke, body)
	r.turned()
}
