package node_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
)

// TestCrowdAdoptsARemoval: 100 nodes that are online, of a roster of 1,000,
// adopt a removal within ten seconds. The time is virtual: what the wraps cost
// is measured elsewhere.
func TestCrowdAdoptsARemoval(t *testing.T) {
	online, roster := 100, 1000
	if testing.Short() { // the race detector, see testnet.Bubble
		online, roster = 12, 60
	}
	strangers := make([]node.Stranger, roster-online)
	errs := make([]error, len(strangers))
	var wg sync.WaitGroup
	for i := range strangers {
		wg.Go(func() { strangers[i], errs[i] = node.NewStranger() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, online, testnet.Link{Latency: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}, 1)
		var nodes []*node.Node
		for _, n := range w.Nodes() {
			nodes = append(nodes, n.Node)
		}
		id, err := node.Plant(nodes, strangers, 8)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second) // to find each other
		removed := online - 1
		start := time.Now()
		if err := nodes[0].RemoveMember(t.Context(), id, did(t, nodes[removed])); err != nil {
			t.Fatal(err)
		}
		var last error
		for last = errors.New("not asked"); last != nil && time.Since(start) <= 10*time.Second; {
			time.Sleep(100 * time.Millisecond)
			last = nil
			for i, n := range nodes[:removed] {
				if err := writes(n, id); err != nil {
					last = fmt.Errorf("node %d: %w", i, err)
					break
				}
			}
		}
		if last != nil {
			t.Fatalf("after %v: %v", time.Since(start), last)
		}
		t.Logf("%d of %d members adopted a removal within %v", online-1, roster, time.Since(start))
		if err := roleIs(nodes[removed], id, "removed")(); err != nil {
			t.Error(err)
		}
	})
}

// writes is nil if a node holds the keys of epoch 2.
func writes(n *node.Node, id space.ID) error {
	s, err := spaceOf(n, id)
	if err == nil && (s.Epoch != 2 || s.LastError != "") {
		err = fmt.Errorf("epoch %d; %s", s.Epoch, s.LastError)
	}
	return err
}
