//go:build !race

// A storm takes minutes under the race detector, which has one processor for it.

package testnet_test

import (
	"flag"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/testnet"
)

var (
	full  = flag.Bool("full", false, "run large storms")
	many  = flag.Int("nodes", 200, "how many nodes those have")
	lasts = flag.Duration("lasts", 30*time.Minute, "how long those last")
)

// stormy is a link that loses a fifth of the packets, and is cheap to simulate.
var stormy = testnet.Link{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.20, Slot: 10 * time.Millisecond, Mbps: 10_000}

// TestChurn: nodes come and go, some without a word, a fifth of the packets is
// lost, the net parts and joins again, and everybody writes all the while.
// What was acknowledged is with everybody soon after the net is whole again.
func TestChurn(t *testing.T) {
	nodes, length, seed := 40, 5*time.Minute, uint64(1)
	if testing.Short() {
		nodes, length = 10, time.Minute
	}
	if *full {
		nodes, length = *many, *lasts
	}
	wall := time.Now()
	testnet.Bubble(t, func(t *testing.T) {
		start := time.Now()
		w := testnet.New(t, nodes, stormy, seed)
		w.Calm(*full) // a welcome to a big space takes longer than a join may on such links
		id := w.Space()
		w.Calm(false)
		t.Logf("seed %d: %d nodes are in the space after %v", seed, nodes, time.Since(start))
		ledger := w.Storm(id, testnet.Storm{
			Seed: seed, Lasts: length, Churn: 0.20, Down: 30 * time.Second, Flap: time.Minute, Writes: 0.5, Rotate: 150 * time.Second,
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

// TestChurnNeedsReconciliation is the negative control of TestChurn: where
// entries spread by gossip alone, what a storm scattered stays so. Its partitions
// are longer than a link waits for an answer, 30 s: shorter ones QUIC bridges.
func TestChurnNeedsReconciliation(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 10, lossy, 1)
		id := w.Space()
		w.WaitConverged(id, time.Minute)
		for _, n := range w.Nodes() {
			n.Restart(func(c *node.Config) { c.NoReconcile = true })
		}
		ledger := w.Storm(id, testnet.Storm{Seed: 1, Lasts: 4 * time.Minute, Churn: 0.20, Down: time.Minute, Flap: 80 * time.Second, Writes: 1})
		time.Sleep(time.Minute)
		if w.Converged(id) == nil {
			t.Fatalf("equal without reconciliation after %v: TestChurn proves nothing", ledger)
		}
	})
}
