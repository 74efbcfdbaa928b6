package local

import (
	"math"
	"slices"
	"time"
)

// percentile is the nearest-rank percentile of what is sorted: the smallest
// sample that at least p per cent of all are not above. It is 0 of nothing.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// quantiles are the two that are told.
func quantiles(samples []time.Duration) (p50, p99 time.Duration) {
	s := slices.Sorted(slices.Values(samples))
	return percentile(s, 50), percentile(s, 99)
}

// ms is d in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

// ratio is a over b to two digits; 0 where there is nothing to compare with.
func ratio(a, b time.Duration) float64 {
	if b <= 0 {
		return 0
	}
	return math.Round(float64(a)/float64(b)*100) / 100
}
