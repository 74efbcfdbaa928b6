package testnet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
)

var lossy = testnet.Link{Latency: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.10}

// write lets every node but the silent ones put one record.
func write(t *testing.T, w *testnet.Net, id space.ID, when string, silent ...int) {
	t.Helper()
	quiet := map[int]bool{}
	for _, i := range silent {
		quiet[i] = true
	}
	for i, n := range w.Nodes() {
		if quiet[i] {
			continue
		}
		if err := n.Put(id, fmt.Sprintf("%s-%d", when, i), "written "+when); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// partition cuts the net in halves for 100 s, with writes on both sides in the
// middle of it.
func partition(t *testing.T, w *testnet.Net, id space.ID, silent ...int) {
	t.Helper()
	half := len(w.Nodes()) / 2
	w.Partition(w.Nodes()[:half], w.Nodes()[half:])
	time.Sleep(50 * time.Second)
	write(t, w, id, "during", silent...)
	time.Sleep(50 * time.Second)
	w.Heal()
}

func TestPartitionHeals(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 20, lossy, 1)
		id := w.Space()
		write(t, w, id, "before")
		partition(t, w, id)
		took := w.WaitConverged(id, 2*time.Minute)
		t.Logf("converged %v after the partition healed", took)
		s, err := w.Node(19).SpaceStatus(id)
		if err != nil {
			t.Fatal(err)
		}
		if s.Records != 40 {
			t.Fatalf("%d records, want 40: a write is lost", s.Records)
		}
	})
}

// TestGossipAloneDoesNot is the negative control: nodes that were equal, and
// over which gossip still carries entries, stay apart for good if what they
// missed during the partition is left to gossip.
func TestGossipAloneDoesNot(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 20, lossy, 1)
		id := w.Space()
		write(t, w, id, "before")
		w.WaitConverged(id, time.Minute)
		for _, n := range w.Nodes() {
			n.Restart(func(c *node.Config) { c.NoReconcile = true })
		}
		time.Sleep(time.Minute) // for the links to come back
		partition(t, w, id, 0, 19)
		time.Sleep(time.Minute)
		for _, i := range []int{0, 19} { // they said nothing so far, so nothing of theirs is missing
			if err := w.Node(i).Put(id, fmt.Sprintf("after-%d", i), "gossip carries this"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		for i, n := range w.Nodes() {
			for _, from := range []int{0, 19} {
				if err := n.Has(id, fmt.Sprintf("after-%d", from)); err != nil {
					t.Fatalf("node %d: gossip does not work at all: %v", i, err)
				}
			}
		}
		if err := w.Converged(id); err == nil {
			t.Fatal("gossip alone converged: TestPartitionHeals proves nothing")
		}
	})
}
