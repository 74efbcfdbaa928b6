package resident

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestLimitFor(t *testing.T) {
	const none = math.MaxInt64
	for _, c := range []struct {
		need      uint64
		been      time.Duration
		old, want int64
	}{
		{10 << 20, 0, 0, limit},
		{small, 0, limit, limit}, {large, time.Hour, limit, limit},
		{large + 1, 0, limit, limit}, {large + 1, patience, limit, none}, {large + 1, 0, none, none},
		{limit, patience - 1, limit, limit}, {limit + 1, 0, limit, none},
		{large, 0, none, none}, {small, 0, none, none},
		{small - 1, 0, none, limit},
	} {
		if got := limitFor(c.need, c.been, c.old); got != c.want {
			t.Errorf("need %d, large for %v, limit was %d: %d, want %d", c.need, c.been, c.old, got, c.want)
		}
	}
}

// TestBound: the limit goes when the process needs more, and comes back.
func TestBound(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	Bound(func(string) string { return "" })
	is := func(what string, want int64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); debug.SetMemoryLimit(-1) != want; runtime.Gosched() {
			if runtime.GC(); time.Now().After(end) {
				t.Fatalf("%s: the limit is %d, want %d", what, debug.SetMemoryLimit(-1), want)
			}
		}
	}
	is("a small process", limit)
	more := make([]byte, large)
	is("a large one", math.MaxInt64)
	runtime.KeepAlive(more)
	more = nil
	is("small again", limit)
}

// TestBoundByUser: what the user has set stands.
func TestBoundByUser(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		Bound(func(asked string) string {
			if asked == name {
				return "50"
			}
			return ""
		})
		if got := debug.SetMemoryLimit(-1); got != before {
			t.Errorf("with %s the limit is %d, it was %d", name, got, before)
		}
	}
}
