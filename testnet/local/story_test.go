package local

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		of   []time.Duration
		p    float64
		want time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{7}, 50, 7},
		{[]time.Duration{7}, 99, 7},
		{[]time.Duration{1, 9}, 50, 1},
		{[]time.Duration{1, 9}, 51, 9},
		{[]time.Duration{1, 2, 9}, 50, 2},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.1, 100},
		{hundred, 100, 100},
		{hundred, 0, 1},
	} {
		if got := percentile(c.of, c.p); got != c.want {
			t.Errorf("p%v of %d: %d, want %d", c.p, len(c.of), got, c.want)
		}
	}
	unsorted := []time.Duration{5, 1, 4, 2, 3}
	if p50, p99 := quantiles(unsorted); p50 != 3 || p99 != 5 || unsorted[0] != 5 {
		t.Errorf("quantiles %d, %d; the samples are now %v", p50, p99, unsorted)
	}
	if got := ms(1234567 * time.Nanosecond); got != 1.235 {
		t.Errorf("ms: %v", got)
	}
	if got := [...]float64{ratio(3, 2), ratio(1, 3), ratio(1, 0)}; got != [...]float64{1.5, 0.33, 0} {
		t.Errorf("ratios: %v", got)
	}
}

func TestTell(t *testing.T) {
	broke := errors.New("it broke")
	var ran []string
	step := func(name string, err error) chapter {
		return chapter{name, func(context.Context) (string, error) {
			ran = append(ran, name)
			return "did " + name, err
		}}
	}
	var heard []Step
	hear := func(s Step) { heard = append(heard, s) }

	r := tell(t.Context(), []chapter{step("a", nil), step("b", nil)}, time.Minute, hear, nil)
	if !r.OK || len(r.Steps) != 2 || r.Steps[1].Detail != "did b" || !r.Steps[1].OK || len(heard) != 2 {
		t.Errorf("good story: %+v, heard %+v", r, heard)
	}
	ran, heard = nil, nil
	r = tell(t.Context(), []chapter{step("a", nil), step("b", broke), step("c", nil)}, time.Minute, hear,
		func(err error) error { return errors.Join(errors.New("ada died"), err) })
	if r.OK || len(r.Steps) != 2 || r.Steps[1].OK || len(heard) != 2 || strings.Join(ran, "") != "ab" {
		t.Errorf("bad story: %+v, heard %d, ran %v", r, len(heard), ran)
	}
	if got := r.Steps[1].Detail; !strings.Contains(got, "it broke") || !strings.Contains(got, "ada died") {
		t.Errorf("detail: %s", got)
	}
}

// A step that hangs says how long it was given, and what it waited for.
func TestTellTimesOut(t *testing.T) {
	hang := chapter{"hang", func(ctx context.Context) (string, error) {
		return "", until(ctx, func() error { return errors.New("ben lacks 3 records") })
	}}
	r := tell(t.Context(), []chapter{hang}, 20*time.Millisecond, nil, nil)
	if got := r.Steps[0].Detail; r.OK || got != "not done within 20ms; ben lacks 3 records" {
		t.Errorf("got %q", got)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	r = tell(stopped, []chapter{hang}, time.Minute, nil, nil)
	if got := r.Steps[0].Detail; r.OK || got != "ben lacks 3 records" {
		t.Errorf("stopped: %q", got)
	}
}

func TestUntil(t *testing.T) {
	n := 0
	err := until(t.Context(), func() error {
		if n++; n < 4 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || n != 4 {
		t.Errorf("%v after %d", err, n)
	}
}
