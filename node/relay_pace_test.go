package node

import (
	"slices"
	"testing"
	"time"
)

// TestPace: with something to be signed for all the time, receipts are as far
// apart as they should be, but for those that calm has saved up.
func TestPace(t *testing.T) {
	const gap = receiptGap
	for _, c := range []struct {
		name  string
		wants []time.Duration // when one is wanted, each after the one before was had
		had   []time.Duration
	}{
		{"seldom", []time.Duration{0, gap, 2 * gap}, []time.Duration{0, gap, 2 * gap}},
		{"after calm", []time.Duration{0, 1, 2, 3}, []time.Duration{0, 1, 2, 3}},
		{"always", []time.Duration{0, 0, 0, 0, 0, 0, 0}, []time.Duration{0, 0, 0, 0, gap, 2 * gap, 3 * gap}},
		{"a little calm", []time.Duration{0, 0, 0, 0, 3 * gap, 0, 0, 0}, []time.Duration{0, 0, 0, 0, 3 * gap, 3 * gap, 3 * gap, 4 * gap}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p pace
			start := time.Unix(1_000_000, 0)
			now := start
			var had []time.Duration
			for _, want := range c.wants {
				for _, at := range []time.Time{start.Add(want), p.next()} {
					if at.After(now) {
						now = at
					}
				}
				p.take(now)
				had = append(had, now.Sub(start))
			}
			if !slices.Equal(had, c.had) {
				t.Errorf("had %v, want %v", had, c.had)
			}
		})
	}
}

// TestHidesTakesTime: a relay is not caught for signing for more than it gives
// by receipts that follow each other at once: what they count may be on its way.
func TestHidesTakesTime(t *testing.T) {
	var s tenancy
	now := time.Now()
	for _, after := range []time.Duration{0, 1, receiptGap / 2, receiptGap - 1} {
		if s.short(true, now.Add(after)) {
			t.Errorf("caught after %v", after)
		}
	}
	if s.short(true, now.Add(receiptGap)) || !s.short(true, now.Add(2*receiptGap)) {
		t.Error("not caught by the third receipt")
	}
	if s.short(false, now.Add(3*receiptGap)); s.hides != 0 {
		t.Errorf("still %d after a receipt that is in order", s.hides)
	}
}
