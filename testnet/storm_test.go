package testnet_test

import (
	"flag"
	"testing"
	"time"

	"github.com/kithnet/kith/testnet"
)

var full = flag.Bool("full", false, "run storms of 200 nodes and 30 minutes")

// TestChurn: nodes come and go, some without a word, a fifth of the packets is
// lost, the net parts and joins again, and everybody writes all the while.
// What was acknowledged is with everybody soon after the net is whole again.
func TestChurn(t *testing.T) {
	nodes, lasts, seed := 40, 5*time.Minute, uint64(1)
	if testing.Short() {
		nodes, lasts = 10, time.Minute
	}
	if *full {
		nodes, lasts = 200, 30*time.Minute
	}
	wall := time.Now()
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, nodes, testnet.Link{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.20}, seed)
		id := w.Space()
		t.Logf("seed %d: %d nodes are in the space", seed, nodes)
		ledger := w.Storm(id, testnet.Storm{
			Seed: seed, Lasts: lasts, Churn: 0.20, Down: 30 * time.Second, Flap: 20 * time.Second, Writes: 0.5, Rotate: 150 * time.Second,
		})
		took := w.WaitConverged(id, time.Minute)
		t.Logf("seed %d: %v; equal %v after the net was whole", seed, ledger, took)
		for i, n := range w.Nodes() {
			if err := ledger.Held(n, id); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		}
	})
	t.Logf("%v of the wall clock", time.Since(wall))
}
