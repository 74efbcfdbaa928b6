package testnet_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
)

var full = flag.Bool("full", false, "run the long simulations in their full size")

var lossy = testnet.Link{Latency: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.10}

const size = 20

// split runs a net through writes on both sides of a partition of 100 s, and
// returns after it healed.
func split(t *testing.T, n int, seed uint64, change ...func(*node.Config)) (*testnet.Net, space.ID) {
	w := testnet.New(t, n, lossy, seed, change...)
	id := w.Space()
	write(t, w, id, "before")
	w.Partition(w.Nodes()[:n/2], w.Nodes()[n/2:])
	time.Sleep(50 * time.Second)
	write(t, w, id, "during")
	time.Sleep(50 * time.Second)
	w.Heal()
	return w, id
}

func write(t *testing.T, w *testnet.Net, id space.ID, when string) {
	t.Helper()
	for i, n := range w.Nodes() {
		if err := n.Put(id, fmt.Sprintf("%s-%d", when, i), "written "+when); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestPartitionHeals(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w, id := split(t, size, 1)
		took := w.WaitConverged(id, 2*time.Minute)
		t.Logf("converged %v after the partition healed", took)
		s, err := w.Node(size - 1).SpaceStatus(id)
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(2 * size); s.Records != want {
			t.Fatalf("%d records, want %d: a write is lost", s.Records, want)
		}
	})
}

// TestGossipAloneDoesNot is the negative control: without reconciliation the
// same story leaves the nodes apart for good.
func TestGossipAloneDoesNot(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w, id := split(t, size, 1, func(c *node.Config) { c.NoReconcile = true })
		time.Sleep(10 * time.Minute)
		if err := w.Converged(id); err == nil {
			t.Fatal("gossip alone converged: the test above proves nothing")
		}
	})
}
