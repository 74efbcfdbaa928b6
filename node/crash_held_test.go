package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

// TestHeldWrite: a member that learns of a new epoch while nobody who may
// certify is online writes all the same. What it wrote is acknowledged, there
// after a crash, and sealed and with everybody once somebody is back; also
// where the epoch has moved on meanwhile.
func TestHeldWrite(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint("another epoch=", again), func(t *testing.T) { heldWrite(t, again) })
	}
}

func heldWrite(t *testing.T, again bool) {
	a, b, c, id := holding(t)
	if again {
		halt(t, b.Node)
		a.back(t, c)
		if _, err := a.Rotate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		b.back(t, a, c)
	} else {
		a.back(t, b, c)
	}
	for _, p := range []*person{a, c} {
		for i := range 3 {
			soon(t, "what was held arrives", reads(p.Node, id, b.self.did, fmt.Sprint("key-", i)))
		}
	}
	soon(t, "all hold the same", func() error { return errors.Join(alike(a.Node, b.Node, id)(), alike(a.Node, c.Node, id)()) })
	s, err := b.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	if st := s.status(); st.LastError != "" {
		t.Error(st.LastError)
	}
	for _, p := range []*person{a, b, c} {
		sound(t, p.Node, id)
	}
}

// holding lets b write three batches that nobody can certify: the authority a
// opened an epoch and went, only c knows of it. b was cut from power since.
func holding(t *testing.T) (a, b, c *person, id space.ID) {
	t.Helper()
	a, b, c = newPerson(t), newPerson(t), newPerson(t)
	id, err := newSpace(a.Node, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a.Node, b.Node, id)
	admitTo(t, a.Node, c.Node, id)
	c.meet(t, b)
	soon(t, "all hold the same", func() error { return errors.Join(alike(a.Node, b.Node, id)(), alike(a.Node, c.Node, id)()) })
	halt(t, b.Node)
	if _, err := a.Rotate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	soon(t, "c adopts the epoch", c.epochIs(t, id, 2))
	halt(t, a.Node)

	b.back(t, c)
	soon(t, "b adopts the epoch", b.epochIs(t, id, 2))
	for i := range 3 {
		if _, err := putAll(b.Node, id, fmt.Sprint("held ", i), "same", fmt.Sprint("key-", i)); err != nil {
			t.Fatal(err)
		}
	}
	waits(t, b, id)
	b.disk = b.disk.Clone(nil) // as a power cut leaves it
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.back(t, c)
	waits(t, b, id)
	if got := textOf(t, b.Node, id, "same"); got != "held 2" {
		t.Errorf("after a power cut the record says %q", got)
	}
	return a, b, c, id
}

// TestHeldOfTheLowered: what is held when its writer's right to write ends is
// shown to nobody, its writer included, who is told so; and when that right
// comes back it arrives. A restart in between changes nothing.
func TestHeldOfTheLowered(t *testing.T) {
	a, b, c, id := holding(t)
	halt(t, b.Node)
	a.back(t, c)
	who := b.self.did
	if _, err := a.SetLevel(t.Context(), id, who, space.LevelRead); err != nil {
		t.Fatal(err)
	}
	lowered := func() error {
		s, err := b.byID(id)
		if err != nil {
			return err
		}
		if st := s.status(); !strings.HasPrefix(st.LastError, "3 of your entries were not known to anybody") {
			return fmt.Errorf("status says %q", st.LastError)
		}
		for i := range 3 {
			if err := reads(b.Node, id, who, fmt.Sprint("key-", i))(); err == nil {
				return fmt.Errorf("key-%d is shown", i)
			}
		}
		return nil
	}
	b.back(t, a, c)
	soon(t, "b is told", lowered)
	halt(t, b.Node)
	b.back(t, a, c)
	soon(t, "b is told again", lowered)
	soon(t, "all hold the same", alike(a.Node, b.Node, id))
	if _, err := a.SetLevel(t.Context(), id, who, space.LevelWrite); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{a, b, c} {
		for i := range 3 {
			soon(t, "what was held arrives", reads(p.Node, id, who, fmt.Sprint("key-", i)))
		}
	}
	soon(t, "all hold the same", func() error { return errors.Join(alike(a.Node, b.Node, id)(), alike(a.Node, c.Node, id)()) })
	for _, p := range []*person{a, b, c} {
		sound(t, p.Node, id)
	}
}

// waits checks that a member is told that what it wrote is kept and not sent.
func waits(t *testing.T, p *person, id space.ID) {
	t.Helper()
	s, err := p.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	if st := s.status(); !strings.HasPrefix(st.LastError, "3 batches are kept here") {
		t.Errorf("status says %q", st.LastError)
	}
}
