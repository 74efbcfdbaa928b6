// Package local runs nodes as real processes of the kith binary, over real
// loopback sockets, and drives them as a user's script would: by HTTP, with
// what the ready line and the token file say. It holds the demonstration of
// the main job (Demo) and the benchmark of live propagation (BenchPropagate).
//
// It promises to leave nothing behind: every process it started is dead when a
// call returns, whatever happened, and temporary directories are gone. A step
// that fails says what it waited for, and what a process that died said last.
//
// It refuses to look inside a node: what it claims it has read over HTTP, or
// in the bytes of the homes. It refuses homes that exist already.
//
// Demo and BenchPropagate may run at the same time; their callbacks come from
// one goroutine at a time.
package local

import "time"

// DemoOptions say what Demo shows.
type DemoOptions struct {
	// Kith is the binary; empty: the one that is running.
	Kith string
	// Import is a forum as JSON lines; empty: the one that is built in.
	Import string
	// Dir takes the homes and logs, and keeps them; empty: a temporary one.
	Dir string
	// Progress, if set, hears of every step as it ends.
	Progress func(Step)
}

// Step is one thing that was shown, or was to be.
type Step struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	MS     int64  `json:"ms"`
	Detail string `json:"detail"`
}

// Report is how a demonstration went. OK: every step held.
type Report struct {
	Steps []Step `json:"steps"`
	OK    bool   `json:"ok"`
}

// BenchOptions say what a benchmark measures.
type BenchOptions struct {
	Kith     string        // the binary; empty: the one that is running
	N        int           // samples; 0: 200
	Pace     time.Duration // from one to the next; 0: 50 ms
	Progress func(string)  // nil: nobody hears
}

// Row is one figure, from n samples.
type Row struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	N     int     `json:"n"`
}
