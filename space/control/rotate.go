package control

import (
	"slices"

	"github.com/kithnet/kith/space/identity"
)

// rotationOf is the rotation that a body carries, nil if none.
func rotationOf(body any) *Rotation {
	switch b := body.(type) {
	case Rotation:
		return &b
	case MemberRemove:
		return b.Rotation
	case MemberLevel:
		return b.Rotation
	case PolicyChange:
		return b.Rotation
	case InviteRevoke:
		return b.Rotation
	case KeeperSet:
		return b.Rotation
	case Delegation:
		return b.Rotation
	case Transfer:
		return b.Rotation
	}
	return nil
}

// Rotation is the rotation in an opened entry, nil if it has none. The first
// epoch is no rotation.
func (e *Entry) Rotation() *Rotation { return rotationOf(e.body) }

// WithRotation gives the body with r in it; no body, and Rotation itself,
// become r. A body that has no place for one comes back as it was.
func WithRotation(body any, r Rotation) any {
	switch b := body.(type) {
	case nil, Rotation:
		return r
	case MemberRemove:
		b.Rotation = &r
		return b
	case MemberLevel:
		b.Rotation = &r
		return b
	case PolicyChange:
		b.Rotation = &r
		return b
	case InviteRevoke:
		b.Rotation = &r
		return b
	case KeeperSet:
		b.Rotation = &r
		return b
	case Delegation:
		b.Rotation = &r
		return b
	case Transfer:
		b.Rotation = &r
		return b
	}
	return body
}

// withPlace is the body as if it had a rotation, unless it says by its issuer
// wrap that it has none.
func withPlace(body any) any {
	switch b := body.(type) {
	case KeeperSet:
		if len(b.Issuer) > 0 {
			b.Rotation = nil
			return b
		}
	case Transfer:
		if len(b.Issuer) > 0 {
			b.Rotation = nil
			return b
		}
	}
	return WithRotation(body, Rotation{})
}

// openFirst opens epoch 1.
func (s *State) openFirst(b Epoch) error {
	switch {
	case b.N != 1:
		return malformed("epoch %d without its rotation", b.N)
	case len(b.Pages) != 0:
		return malformed("epoch 1 has its wraps inline")
	case len(b.Cuts) != 0:
		return malformed("epoch 1 has no chains before it")
	}
	return s.openEpoch(b)
}

// rotate opens the next epoch for the roster as it is now, and ends the chains
// of those whom the entry took something from and of those it lists.
func (s *State) rotate(r Rotation, lost []identity.Commitment, authority bool) error {
	if err := s.openEpoch(r.Epoch); err != nil {
		return err
	}
	if err := s.checkIssuers(r.Issuers); err != nil {
		return err
	}
	if err := s.settle(r.Epoch.Cuts, authority); err != nil {
		return err
	}
	for _, c := range r.Ended {
		if slices.Contains(lost, c) {
			return malformed("%x is ended by the entry itself", c[:4])
		}
	}
	if len(lost)+len(r.Ended) == 0 {
		return nil
	}
	x := &ending{upTo: r.Epoch.N, cuts: r.Epoch.Cuts}
	for _, c := range append(slices.Clone(lost), r.Ended...) {
		s.end(c, x)
	}
	return nil
}

func (s *State) openEpoch(b Epoch) error {
	switch {
	case b.N != s.Epoch+1:
		return malformed("epoch %d after epoch %d", b.N, s.Epoch)
	case b.KID == s.EpochKID:
		return malformed("the key of the epoch before")
	case b.RosterRoot != s.RosterRoot():
		return malformed("roster root is not the roster's")
	}
	if err := s.checkWraps(b); err != nil {
		return err
	}
	s.Epoch, s.EpochKID = b.N, b.KID
	s.epochs = s.epochs.with(b.N, epochStart{head: s.Head, kid: b.KID})
	return nil
}

// checkWraps wants a wrap for each reader and for nobody else. Every level
// that a member can have reads at least itself, so the readers are the roster.
func (s *State) checkWraps(b Epoch) error {
	if len(b.Pages) != 0 {
		if want := (s.ReaderCount() + PageSlots - 1) / PageSlots; len(b.Pages) != want {
			return malformed("%d pages for %d readers, want %d", len(b.Pages), s.ReaderCount(), want)
		}
		return nil
	}
	if len(b.Wraps) != s.ReaderCount() {
		return malformed("%d wraps for %d readers", len(b.Wraps), s.ReaderCount())
	}
	i := 0
	for r := range s.Readers() {
		if w := b.Wraps[i]; w.Slot != r.Slot || w.C != r.C {
			return malformed("wrap %d is for slot %d, want slot %d", i, w.Slot, r.Slot)
		}
		i++
	}
	return nil
}

// checkIssuers wants the issuer's seed for each who admits and for nobody else.
func (s *State) checkIssuers(wraps []Wrap) error {
	i := 0
	for m := range s.Admitters() {
		if i == len(wraps) || wraps[i].Slot != m.Slot || wraps[i].C != m.C {
			return malformed("issuer wrap %d: want slot %d", i, m.Slot)
		}
		i++
	}
	if i != len(wraps) {
		return malformed("%d issuer wraps for %d who admit", len(wraps), i)
	}
	return nil
}

// CheckPage holds a page of an epoch's wraps against the roster: page i has
// the readers from i × PageSlots on. Whether a wrap opens, only its reader and
// who knows the key can tell.
func (s *State) CheckPage(i int, page []Wrap) error {
	at, want := 0, i*PageSlots
	for r := range s.Readers() {
		if at >= want && at < want+len(page) {
			if w := page[at-want]; w.Slot != r.Slot || w.C != r.C {
				return malformed("page %d: wrap %d is for slot %d, want slot %d", i, at-want, w.Slot, r.Slot)
			}
		}
		at++
	}
	if size := min(PageSlots, at-want); i < 0 || size <= 0 || len(page) != size {
		return malformed("page %d has %d wraps of %d", i, len(page), size)
	}
	return nil
}

// settle makes heads final. What was final stays it: a head that says
// otherwise is refused, or passed over where the authority cuts. Its removals
// bound as they say, whatever was checkpointed: it may lag behind a checkpoint,
// and a keeper's may be false.
func (s *State) settle(heads []Cut, authority bool) error {
	for _, h := range heads {
		old, ok := s.Final(h.Chain)
		switch against := ok && (h.Seq < old.Seq || h.Seq == old.Seq && h.ID != old.ID); {
		case against && !authority:
			return malformed("chain %x ends at %d, it is final to %d", h.Chain[:4], h.Seq, old.Seq)
		case !against && (!ok || h != old):
			s.finals = s.finals.with(string(h.Chain[:]), h)
		}
	}
	return nil
}

// end puts an ending behind those of c.
func (s *State) end(c identity.Commitment, x *ending) {
	p := s.person(c)
	p.endings = append(slices.Clip(p.endings), x)
	s.people = s.people.with(string(c[:]), &p)
}

// endStatic ends chains where the key policy rotates nothing: what is final
// stays, the rest waits for who wrote it to be let in again.
func (s *State) endStatic(lost []identity.Commitment) {
	finals := s.finals
	for _, c := range lost {
		s.end(c, &ending{upTo: s.Epoch + 1, finals: &finals})
	}
}

// reopen lets the chains of somebody who may write again count again, and says
// whether any had been closed.
func (p *person) reopen() bool {
	if !slices.ContainsFunc(p.endings, func(x *ending) bool { return x.finals != nil && !x.reopened }) {
		return false
	}
	p.endings = slices.Clone(p.endings)
	for i, x := range p.endings {
		if x.finals != nil {
			again := *x
			again.reopened = true
			p.endings[i] = &again
		}
	}
	return true
}

// person is a copy of what is known of c, to be changed and stored again.
func (s *State) person(c identity.Commitment) person {
	if p, ok := s.people.get(string(c[:])); ok {
		return *p
	}
	return person{}
}

// at ends a person's present period and, unless the level is none, begins the
// next one.
func (s *State) at(m *Member, gone bool) {
	p := s.person(m.C)
	p.periods = slices.Clone(p.periods)
	if n := len(p.periods); n > 0 && p.periods[n-1].to == open {
		p.periods[n-1].to = s.Head.Seq
	}
	was := *m
	was.Gone = gone
	p.member = &was
	if !gone {
		p.periods = append(p.periods, period{span{s.Head.Seq, open}, m.Level})
	}
	s.people = s.people.with(string(m.C[:]), &p)
}
