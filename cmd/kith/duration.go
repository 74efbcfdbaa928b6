package main

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// span is a duration as people write it: 7d, 1w, 12h, 1d12h, 90s.
type span time.Duration

var errSpan = errors.New("want a duration such as 7d, 12h or 30m")

// UnmarshalText reads weeks and days in front of what Go's durations know.
func (s *span) UnmarshalText(b []byte) error {
	const day = 24 * time.Hour
	text := string(b)
	var total time.Duration
	for _, unit := range []struct {
		name string
		d    time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		n, rest, found := strings.Cut(text, unit.name)
		if !found {
			continue
		}
		v, err := strconv.ParseUint(n, 10, 13) // 13 bits of weeks fit a Duration
		if err != nil {
			return errSpan
		}
		total += time.Duration(v) * unit.d
		text = rest
	}
	if text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return errSpan
		}
		total += d
	}
	if total < 0 || len(b) == 0 {
		return errSpan
	}
	*s = span(total)
	return nil
}
