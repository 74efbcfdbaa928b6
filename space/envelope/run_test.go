package envelope

import (
	"errors"
	"testing"

	"github.com/kithnet/kith/space"
)

func TestCheckRun(t *testing.T) {
	iss := newIssuer(0x33)
	c := iss.chain(t, 0x55, 0x44).grow(t, 5)
	branch := c.fork(2).grow(t, 2, 'b')
	spoilt := iss.chain(t, 0x55, 0x46)
	spoilt.addSpoiled(t)
	spoilt.grow(t, 1)
	eph := c.build(t, Header{Type: Sealed, Topic: c.top, Chain: c.id, Seq: 3}, 256, nil)
	long := iss.chain(t, 0x55, 0x47).grow(t, MaxRun)
	at := func(i int) *Head { h := c.run[i].Head(); return &h }
	var gap ErrGap

	for _, r := range []struct {
		name string
		prev *Head
		run  []Envelope
		want error
	}{
		{"from the start", nil, c.run, nil},
		{"goes on", at(1), c.run[2:], nil},
		{"one", at(4), c.run[5:], nil},
		{"bad signature that is covered", nil, spoilt.run, nil},
		{"bad signature at the end", nil, spoilt.run[:2], space.ErrForged},
		{"empty", nil, nil, space.ErrMalformed},
		{"does not begin at 0", nil, c.run[1:], ErrGap{Have: 0, Want: 1}},
		{"gap", at(1), c.run[4:], ErrGap{Have: 2, Want: 4}},
		{"begins below the head", at(3), c.run[2:], space.ErrMalformed},
		{"fork", at(3), branch.run[4:], ErrFork},
		{"spoilt last", at(1), []Envelope{c.run[2], spoil(t, c.run[3])}, space.ErrForged},
		{"spoilt inside", at(1), []Envelope{spoil(t, c.run[2]), c.run[3]}, space.ErrForged},
		{"re-linked", at(1), []Envelope{c.run[2], c.run[3], branch.run[4]}, space.ErrForged},
		{"hole", at(1), []Envelope{c.run[2], c.run[4]}, space.ErrMalformed},
		{"ephemeral", at(2), []Envelope{eph}, space.ErrMalformed},
		{"most", nil, long.run[:MaxRun], nil},
		{"one too many", nil, long.run[:MaxRun+1], space.ErrTooLarge},
	} {
		err := CheckRun(r.prev, r.run)
		if errors.As(r.want, &gap) {
			var got ErrGap
			if !errors.As(err, &got) || got != gap {
				t.Errorf("%s: %v, want %v", r.name, err, r.want)
			}
		} else if !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", r.name, err, r.want)
		}
	}
}

func TestParseRun(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, MaxRun)
	var b []byte
	for _, e := range c.run {
		b = append(b, e.Bytes()...)
	}
	if run, err := ParseRun(b[:472*MaxRun]); err != nil || len(run) != MaxRun {
		t.Errorf("%d envelopes, %v", len(run), err)
	}
	if _, err := ParseRun(b); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := ParseRun(make([]byte, MaxRunBytes+1)); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
}

func TestCovered(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 2) // 0 1 2 good
	c.addSpoiled(t)                                      // 3 bad
	c.addSpoiled(t)                                      // 4 bad
	c.grow(t, 1)                                         // 5 good
	c.addSpoiled(t)                                      // 6 bad
	for n, want := range []int{0, 1, 2, 3, 3, 3, 6, 6} {
		if got := Covered(c.run[:n]); got != want {
			t.Errorf("of %d are %d covered, want %d", n, got, want)
		}
	}
}
