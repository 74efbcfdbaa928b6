// Package resident keeps small what a process of Kith has in memory: Trim gives
// back the pages of the program that only its start touched, and Bound keeps a
// small process from letting garbage double it.
//
// It promises that nothing but time is lost if the operating system refuses,
// and that a process which needs more than a small one gets it, with the
// collector as the runtime has it. It refuses to touch a page that could not be
// read again from its file, and to set what the user has set. All of it is of
// the whole process: main calls it when it has started.
package resident

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// limit is what the runtime of a small process may hold, garbage included:
	// the heap, stacks and what the runtime itself needs.
	limit = 46 << 20
	// large is what a process needs that is not small: with so little room left
	// for garbage it would be collected all the time. That is borne for patience,
	// unless the limit itself is needed: most that is taken in at once is taken
	// in by then. It is small again when it needs less than small.
	large    = 36 << 20
	small    = 28 << 20
	patience = 25 * time.Millisecond
)

// Bound sets a soft memory limit, which it lifts while the process needs more
// than a small one. It looks after each collection, and trims once more when the
// process begins to grow. Where getenv knows GOGC or GOMEMLIMIT it does nothing.
func Bound(getenv func(string) string) {
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return
	}
	b := new(bound)
	for i, name := range held {
		b.samples[i].Name = name
	}
	b.look()
}

// limitFor is the soft memory limit of a process that needs so much, and has
// been large for a time, if it was old before.
func limitFor(need uint64, been time.Duration, old int64) int64 {
	switch {
	case need > limit, need > large && been >= patience:
		return math.MaxInt64
	case need < small:
		return limit
	}
	return old
}

// held is what the limit counts: all that is mapped and was not returned, less
// what is free and the objects of the heap, dead ones among them; and then
// those that live.
var held = [...]string{
	"/memory/classes/total:bytes",
	"/memory/classes/heap/released:bytes",
	"/memory/classes/heap/free:bytes",
	"/memory/classes/heap/objects:bytes",
	"/gc/heap/live:bytes",
}

// bound is what is in force. One cleanup at a time owns it.
type bound struct {
	limit   int64
	trimmed bool      // again, when it grew first
	large   time.Time // since when it is; zero: it is not
	samples [len(held)]metrics.Sample
}

// mark is an object that nothing holds: the next collection finds it.
type mark struct{ _ *mark }

// look bounds the process by what it needs now, and waits for the next collection.
func (b *bound) look() {
	need, now := b.need(), time.Now()
	switch {
	case need <= large:
		b.large = time.Time{}
	case b.large.IsZero():
		b.large = now
	}
	if need >= small && !b.trimmed {
		b.trimmed = true
		_ = Trim() // what grows now is done with more than the start; that a system refuses was said by the first
	}
	if l := limitFor(need, now.Sub(b.large), b.limit); l != b.limit {
		b.limit = l
		debug.SetMemoryLimit(l)
	}
	runtime.AddCleanup(new(mark), (*bound).look, b)
}

// need is what would be held after a collection.
func (b *bound) need() uint64 {
	s := b.samples[:]
	metrics.Read(s)
	n := s[0].Value.Uint64() + s[4].Value.Uint64()
	return n - min(n, s[1].Value.Uint64()+s[2].Value.Uint64()+s[3].Value.Uint64())
}
