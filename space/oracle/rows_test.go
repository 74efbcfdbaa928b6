package oracle_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/oracle"
	"github.com/kithnet/kith/space/seal"
)

// everybody are the commitments of a world's people.
func (w *world) everybody() []identity.Commitment {
	var cs []identity.Commitment
	for _, p := range w.people {
		cs = append(cs, p.state.C)
	}
	return cs
}

// knowledge is what a person knows of all that was sent.
func (w *world) knowledge(p *person) *oracle.Attacker {
	a := oracle.New(w.everybody(), w.kems)
	for _, q := range w.people {
		a.See(q.items(w.whose)...)
	}
	a.See(w.sent...)
	a.Hold(p.seed[:], oracle.AsSeed)
	for _, d := range p.devices {
		d.hold(a)
	}
	return a
}

// TestC10AlteredGenesis: a newcomer whose link is of one space does not take
// another one of the same address.
func TestC10AlteredGenesis(t *testing.T) {
	one, two := newWorld(1, sound), newWorld(2, sound)
	r, again := one.found("alpha", one.people[0], true), two.found("alpha", two.people[0], true)
	if r.state.ID != again.state.ID || r.state.SpaceID == again.state.SpaceID {
		t.Fatalf("want one address and two spaces: %v and %v", r.state.ID, again.state.ID)
	}
	link := control.Link{SpaceID: r.state.SpaceID, Head: r.state.Head.Hash}
	if err := link.Check(r.state, r.log); err != nil {
		t.Fatal(err)
	}
	if err := link.Check(again.state, again.log); !errors.Is(err, space.ErrForged) {
		t.Errorf("another genesis: %v", err)
	}
	if err := link.Check(r.state, again.log); !errors.Is(err, space.ErrForged) {
		t.Errorf("another log: %v", err)
	}
	if err := link.Check(again.state, r.log); !errors.Is(err, space.ErrForged) {
		t.Errorf("another genesis beside the right log: %v", err)
	}
}

// TestC11OldLog: a log that ends 50 entries before the link was made is
// refused. Without a link it replays, and the first entry from a second source
// that goes on where it ends shows that it was old.
func TestC11OldLog(t *testing.T) {
	w := newWorld(1, sound)
	r := w.found("alpha", w.people[0], true)
	for range 60 {
		r.invite = nil
		w.invites(r, nil, 0)
	}
	link := control.Link{SpaceID: r.state.SpaceID, Head: r.state.Head.Hash}
	key := func(uint64) []byte { return r.epochs[0].gk.Control().Bytes() }
	old := r.log[:len(r.log)-50]
	st := must(control.Replay(old, key))
	if err := link.Check(st, old); !errors.Is(err, space.ErrForged) {
		t.Errorf("with the link: %v", err)
	}
	if err := link.Check(r.state, r.log); err != nil {
		t.Errorf("the whole log: %v", err)
	}
	newest := must(control.Parse(r.log[len(r.log)-1]))
	if err := newest.Open(key(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Apply(st, newest); err == nil {
		t.Error("an entry 50 places ahead was applied to the old log")
	}
	for _, raw := range r.log[len(old):] {
		e := must(control.Parse(raw))
		if err := e.Open(key(1)); err != nil {
			t.Fatal(err)
		}
		st = must(control.Apply(st, e))
	}
	if st.Head != r.state.Head {
		t.Error("the second source does not bring the old log up")
	}
}

// TestC22WhatARemovalTellsTheRemoved: it can open the entry that removes it,
// and finds in it neither the issuer nor the topic nor the relays of the epoch
// after.
func TestC22WhatARemovalTellsTheRemoved(t *testing.T) {
	w := newWorld(1, sound)
	cai := w.people[2]
	r := w.found("alpha", w.people[0], true)
	w.adds(r, cai, 1)
	w.removes(r, cai, 0)
	next := r.epochs[1]
	e := must(control.Parse(r.log[len(r.log)-1]))
	if err := e.Open(r.epochs[0].gk.Control().Bytes()); err != nil {
		t.Fatalf("the removed cannot even read that it is: %v", err)
	}
	body := must(space.Marshal(e.Body()))
	topic := next.iss.Topic()
	fetch := next.gk.Fetch().Public().(ed25519.PublicKey)
	secrets := map[string][]byte{
		"issuer's public key": next.iss.Public(), "issuer": next.iss.Marshal(), "topic": topic[:], "fetch key": fetch,
		"group key": next.gk.Marshal(), "control key": next.gk.Control().Bytes(), "relay": []byte(relay),
	}
	known := w.knowledge(cai).Secrets()
	if !slices.Contains(known, [32]byte(r.epochs[0].gk.Marshal())) {
		t.Fatal("the removed does not know the epoch it was in: the test shows nothing")
	}
	for what, secret := range secrets {
		if bytes.Contains(body, secret) {
			t.Errorf("the entry tells the %s", what)
		}
		if len(secret) == 32 && slices.Contains(known, [32]byte(secret)) {
			t.Errorf("the removed comes by the %s", what)
		}
	}
	inner := must(seal.OpenInner(next.gk.Control(), r.state.SpaceID, 2, oracle.Rotation(e).Epoch.Inner))
	for _, what := range []string{"issuer's public key", "fetch key", "relay"} {
		if !bytes.Contains(inner, secrets[what]) {
			t.Errorf("the inner body does not hold the %s: the test shows nothing", what)
		}
	}
}

// TestC23NewcomerWithoutHistory: it verifies the log from its genesis on, and
// opens nothing that was written before it came.
func TestC23NewcomerWithoutHistory(t *testing.T) {
	w := newWorld(1, sound)
	ann, cai := w.people[0], w.people[2]
	r := w.found("alpha", ann, false)
	w.writes(r, ann, 0)
	before := w.facts[len(w.facts)-1].name
	w.rotates(r, nil, 0)
	w.rotates(r, nil, 0)
	w.adds(r, cai, 1)
	w.writes(r, ann, 0)
	after := w.facts[len(w.facts)-1].name
	a := w.knowledge(cai)
	known := a.Secrets()
	st, err := control.Replay(r.log, func(n uint64) []byte {
		if ck := r.epochs[n-1].gk.Control().Bytes(); slices.Contains(known, [32]byte(ck)) {
			return ck
		}
		return nil
	})
	if err != nil || st.Head != r.state.Head {
		t.Errorf("the newcomer does not verify the log: %v", err)
	}
	if a.Open(before) {
		t.Error("the newcomer opens what was written before it came")
	}
	if !a.Open(after) {
		t.Error("the newcomer does not open what was written after it came")
	}
}
