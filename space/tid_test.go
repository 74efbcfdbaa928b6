package space

import (
	"testing"

	"pgregory.net/rapid"
)

func TestNextTID(t *testing.T) {
	for _, c := range []struct {
		name  string
		now   int64
		clock uint16
		after TID
		want  TID
	}{
		{"the clock leads", 1000, 5, 999 << 10, 1000<<10 | 5},
		{"the clock stands", 1000, 5, 1000<<10 | 5, 1000<<10 | 6},
		{"the clock went back", 10, 5, 1000 << 10, 1000<<10 | 1},
		{"no write before", 1000, 0, 0, 1000 << 10},
		{"no clock, no write", 0, 0, 0, 1},
		{"a clock before 1970", -5, 3, 0, 3},
		{"clock ids have 10 bits", 1, 0xffff, 0, 1<<10 | 0x3ff},
		{"the end of time", 1, 0, maxTID, maxTID},
	} {
		if got := NextTID(c.now, c.clock, c.after); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if m := NextTID(1_700_000_000_123_456, 7, 0).Micros(); m != 1_700_000_000_123_456 {
		t.Errorf("Micros = %d", m)
	}
}

// Text sorts as numbers do, and comes back.
func TestTIDText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := TID(rapid.Uint64Max(uint64(maxTID)).Draw(t, "a"))
		b := TID(rapid.Uint64Max(uint64(maxTID)).Draw(t, "b"))
		if back, err := ParseTID(a.String()); err != nil || back != a {
			t.Fatalf("%d: %s: %d, %v", a, a, back, err)
		}
		if (a < b) != (a.String() < b.String()) {
			t.Fatalf("%d %s, %d %s", a, a, b, b)
		}
	})
}
