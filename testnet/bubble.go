// Package testnet runs many full nodes in one process, on simulated links and
// under fake time, for tests.
//
// The nodes are what kith run starts: real keys, stores on disk, libp2p hosts
// on QUIC. Only the wire between them and the clock are simulated, so an hour
// of partition costs seconds. It promises that nothing of it touches a real
// network. It does not promise the same trace twice: the scheduler, select and
// map order are not seeded; tests state what must hold in every run.
//
// A Net and its methods belong to the test's goroutine inside Bubble. Real
// processes over real sockets are in testnet/local.
package testnet

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Bubble runs f under fake time: the clock stands while anything runs and
// jumps when everything waits. Under the race detector the bubble has one
// processor: the Go runtime has crashed otherwise (golang/go#78156).
func Bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if raceEnabled {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}
