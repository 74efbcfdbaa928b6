package control

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Bodies that no state could take are refused when they are decoded.
func TestBodyShapes(t *testing.T) {
	l, own := settled(t), ownDID(t)
	transfer := func(edit func(*Transfer)) any {
		b := transferBody(own)
		edit(&b)
		return b
	}
	rotation := func(edit func(*Rotation)) any {
		r := l.rotation()
		edit(&r)
		return r
	}
	r := l.rotation()
	bad := r
	bad.Epoch.Inner = nil
	for name, tt := range map[string]struct {
		kind Kind
		body any
		want error
	}{
		"policy beside no rotation":       {KindPolicy, []any{space.DefaultPolicy(), nil}, space.ErrNotCanonical},
		"policy beside a bad rotation":    {KindPolicy, PolicyChange{Policy: space.DefaultPolicy(), Rotation: &bad}, space.ErrMalformed},
		"rotation to epoch 1":             {KindEpoch, rotation(func(r *Rotation) { r.Epoch.N = 1 }), space.ErrMalformed},
		"too many ended":                  {KindEpoch, rotation(func(r *Rotation) { r.Ended = make([]identity.Commitment, MaxEnded+1) }), space.ErrTooLarge},
		"ended nobody":                    {KindEpoch, rotation(func(r *Rotation) { r.Ended = make([]identity.Commitment, 1) }), space.ErrMalformed},
		"too many issuer wraps":           {KindEpoch, rotation(func(r *Rotation) { r.Issuers = make([]Wrap, MaxKeepers+1) }), space.ErrTooLarge},
		"empty issuer wrap":               {KindEpoch, rotation(func(r *Rotation) { r.Issuers[0].Sealed = nil }), space.ErrMalformed},
		"removal of nobody":               {KindMemberRemove, MemberRemove{Slot: 1}, space.ErrMalformed},
		"level of nobody":                 {KindMemberLevel, MemberLevel{Slot: 1, Level: space.LevelRead}, space.ErrMalformed},
		"keeper nobody":                   {KindKeeperSet, KeeperSet{Slot: 1}, space.ErrMalformed},
		"transfer to nobody":              {KindTransfer, transfer(func(b *Transfer) { b.C = identity.Commitment{} }), space.ErrMalformed},
		"transfer without a log":          {KindTransfer, transfer(func(b *Transfer) { b.IdentityLog = nil }), space.ErrMalformed},
		"transfer with a huge issuer":     {KindTransfer, transfer(func(b *Transfer) { b.Issuer = make([]byte, maxSealed+1) }), space.ErrMalformed},
		"transfer to a small key":         {KindTransfer, transfer(func(b *Transfer) { b.AuthorityPub = [32]byte{1} }), space.ErrMalformed},
		"transfer to a small device":      {KindTransfer, transfer(func(b *Transfer) { b.Device = [32]byte{1} }), space.ErrMalformed},
		"sequencer of a small key":        {KindSequencer, Sequencer{Device: [32]byte{1}}, space.ErrMalformed},
		"an unknown kind":                 {Kind(99), Delete{}, space.ErrUnsupported},
		"a genesis with half a proof":     {KindGenesis, []any{genesisBody(must(testOwner())), make([]byte, 63)}, space.ErrNotCanonical},
		"a list that is empty, not null":  {KindKeeperSet, []any{1, bytes.Repeat([]byte{1}, 32), 0, []int{}, nil, nil}, space.ErrNotCanonical},
		"capabilities of more than u32":   {KindKeeperSet, []any{1, make([]byte, 32), uint64(1) << 33, nil, nil, nil}, space.ErrMalformed},
		"a level that is none in a level": {KindMemberLevel, []any{1, bytes.Repeat([]byte{1}, 32), 9, nil}, space.ErrMalformed},
	} {
		b, err := space.Marshal(tt.body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := decodeBody(tt.kind, b); !errors.Is(err, tt.want) || got != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// Every body comes back as it went, by its own kind and by no other.
func TestBodiesComeBack(t *testing.T) {
	for _, e := range append(everyKind(t).entries, ownDID(t).entries[0]) {
		b := must(encodeBody(e.Kind, e.Body()))
		if back, err := decodeBody(e.Kind, b); err != nil || fmt.Sprintf("%T", back) != fmt.Sprintf("%T", e.Body()) {
			t.Errorf("%v comes back as %T, %v", e.Kind, back, err)
		}
		for k := KindGenesis; k <= KindTransfer; k++ {
			if _, err := encodeBody(k, e.Body()); (err == nil) != (k == e.Kind) {
				t.Errorf("%v with the body of a %v: %v", k, e.Kind, err)
			}
		}
		if TimeOf(e.Raw()) != e.TimeMs {
			t.Errorf("the time of entry %d reads as %d", e.Seq, TimeOf(e.Raw()))
		}
		if TermOf(e.Raw()) != e.Term {
			t.Errorf("term of entry %d", e.Seq)
		}
	}
	if TimeOf(nil) != 0 || TermOf(nil) != 0 {
		t.Error("term of nothing")
	}
}

func TestFew(t *testing.T) {
	l := everyKind(t)
	if text := (ErrSuperseded{Accept: l.s.Head}).Error(); text == "" {
		t.Error("no words")
	}
	if _, ok := l.s.Checkpoint(7); ok {
		t.Error("a checkpoint of no epoch")
	}
	if got := slices.Collect(l.s.Delegations()); len(got) != 1 || got[0].Child != [32]byte{5} {
		t.Errorf("delegations %v", got)
	}
	if _, err := (Proposal{}).Body(); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("body of nothing: %v", err)
	}
	if _, err := (Proposal{}).Encode(); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("encoding of nothing: %v", err)
	}
	if got := WithRotation("x", Rotation{}); got != "x" {
		t.Errorf("a body without a place: %v", got)
	}
	d := l.next(KindMemberAdd)
	d.term += 5
	x, y := forge(t, d, l.member(1), l.keys), forge(t, d, l.member(2), l.keys)
	if err := VerifyFork(l.s, x.Raw(), y.Raw()); !errors.Is(err, space.ErrForged) {
		t.Errorf("a fork of a term to come: %v", err)
	}
	other := must(otherOwner())
	g := must(BuildGenesis(genesisBody(other), BuildKeys{Proposer: other.dev.Sig(), Sequencer: other.dev.Sig()}, testTime, fixed("g")))
	if err := VerifyFork(l.s, l.entries[0].Raw(), g.Raw()); !errors.Is(err, space.ErrForged) {
		t.Errorf("two genesis entries: %v", err)
	}
}
