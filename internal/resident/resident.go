// Package resident keeps what a process of Kith has in memory near what it
// needs: the pages of the program that only its start touched are given back,
// and a small process is collected by the room it has and not by its growth.
//
// It promises that a process which needs more than a small one gets it, with
// the collector as the runtime has it, and that nothing but time is lost if the
// operating system refuses. It refuses to set what the user has set: where
// GOGC or GOMEMLIMIT stand in the environment, they stand.
//
// All of it is of the whole process: main calls Settle, once, when it has started.
package resident

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// small is what the runtime of a small process may hold, garbage included:
	// the heap, stacks and what the runtime itself needs.
	small = 32 << 20
	// large is what a process needs that is not small.
	large = 64 << 20
	// spare is the part of what is needed that garbage may take at least: with
	// less, collections would follow each other too closely.
	spare = 2
	// roomy is the percent of garbage to what lives at which a small process is
	// collected below its limit: a few MiB live, and to collect them each time
	// they double would be most of the work of the collector.
	roomy = 300
	// usual is that of a large one: the runtime's own.
	usual = 100
)

// Settle frees what the start of the process took, and from now on bounds the
// process while it is small. It looks after each collection.
func Settle(getenv func(string) string) error {
	if getenv("GOGC") == "" && getenv("GOMEMLIMIT") == "" {
		b := &bound{}
		for i, name := range held {
			b.samples[i].Name = name
		}
		if b.need() <= small {
			runtime.GC() // what the start left is used again, not given back: to touch new pages costs more
		}
		b.look()
	}
	return trim()
}

// limitFor is the soft memory limit of a process that needs so much.
func limitFor(need uint64) int64 {
	if need > large {
		return math.MaxInt64
	}
	return int64(max(small, need+need/spare))
}

// percentFor is the percent of garbage at which it is collected in any case.
func percentFor(need uint64) int {
	if need > large {
		return usual
	}
	return roomy
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
	percent int
	samples [len(held)]metrics.Sample
}

// mark is an object that nothing holds: the next collection finds it.
type mark struct{ _ *mark }

// look bounds the process by what it needs now, and waits for the next collection.
func (b *bound) look() {
	need := b.need()
	if limit := limitFor(need); limit != b.limit {
		b.limit = limit
		debug.SetMemoryLimit(limit)
	}
	if percent := percentFor(need); percent != b.percent {
		b.percent = percent
		debug.SetGCPercent(percent) // stops the world
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
