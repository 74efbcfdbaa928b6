package resident

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		need    uint64
		limit   int64
		percent int
	}{
		{0, small, roomy},
		{small / 2, small, roomy},
		{small, small + small/spare, roomy}, // what is needed is never above the limit
		{large, large + large/spare, roomy},
		{large + 1, math.MaxInt64, usual},
	} {
		if got := limitFor(c.need); got != c.limit {
			t.Errorf("limit of a process that needs %d: %d, want %d", c.need, got, c.limit)
		}
		if got := percentFor(c.need); got != c.percent {
			t.Errorf("percent of a process that needs %d: %d, want %d", c.need, got, c.percent)
		}
	}
}

// A process that grows is bounded no more; one that shrinks is again. What the
// user has set stands.
func TestSettle(t *testing.T) {
	percent := debug.SetGCPercent(usual)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	limit := func() int64 { return debug.SetMemoryLimit(-1) }

	before := limit()
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if err := Settle(func(key string) string { return map[string]string{name: "off"}[key] }); err != nil {
			t.Fatal(err)
		}
		if limit() != before {
			t.Errorf("the limit is %d beside %s of the user, was %d", limit(), name, before)
		}
	}

	if err := Settle(func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	if limit() != small {
		t.Errorf("the limit of a test is %d, want %d", limit(), small)
	}
	block := make([]byte, 2*large)
	for limit() != math.MaxInt64 || gogc() != usual { // it looks a moment after each collection
		runtime.GC()
	}
	runtime.KeepAlive(block)
	for limit() != small || gogc() != roomy {
		debug.FreeOSMemory()
	}
}

// gogc is the percent in force.
func gogc() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
