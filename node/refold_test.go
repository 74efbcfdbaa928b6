package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
)

// noticed lets time pass until the node has noticed what was spoilt.
func noticed(t *testing.T, n *testnet.Node, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	for time.Since(begin) < limit {
		st, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Counters["spacesCorrupt"] > 0 {
			return time.Since(begin)
		}
		time.Sleep(time.Minute)
	}
	t.Fatalf("not noticed within %v", limit)
	return 0
}

func digestOf(t *testing.T, n *testnet.Node, id space.ID) string {
	t.Helper()
	s, err := n.SpaceStatus(id)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(s.Digest, s.Entries, s.Records, s.Damaged)
}

// TestS10CorruptState: one byte of a set hash that is kept changes, on disk, in
// memory or in both. A node alone notices within a day, one whose digest is held
// against another's at the next mismatch. It is built anew, nothing is lost, and
// it is counted as an alarm.
func TestS10CorruptState(t *testing.T) {
	for _, c := range []struct {
		name                  string
		records, disk, memory bool
		limit                 time.Duration
		nodes                 int
	}{
		{"entries on disk", false, true, false, 24 * time.Hour, 1},
		{"entries in memory", false, false, true, 24 * time.Hour, 1},
		{"entries as if read so", false, true, true, 24 * time.Hour, 1},
		{"records on disk", true, true, false, 24 * time.Hour, 1},
		{"records as if read so", true, true, true, 24 * time.Hour, 1},
		{"entries, with a peer", false, true, true, 30 * time.Minute, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			testnet.Bubble(t, func(t *testing.T) {
				w := testnet.New(t, c.nodes, testnet.Link{Latency: 20 * time.Millisecond}, 1)
				id := w.Space()
				for i := range 5 {
					if err := w.Node(0).Put(id, fmt.Sprint("key", i), "text"); err != nil {
						t.Fatal(err)
					}
				}
				w.WaitConverged(id, time.Minute)
				time.Sleep(5 * time.Second)
				before := digestOf(t, w.Node(0), id)
				if err := w.Node(0).Spoil(id, c.records, c.disk, c.memory); err != nil {
					t.Fatal(err)
				}
				if got := digestOf(t, w.Node(0), id); c.memory && !c.records && got == before {
					t.Fatal("nothing was spoilt")
				}
				t.Logf("noticed after %v", noticed(t, w.Node(0), c.limit))
				time.Sleep(5 * time.Second)
				if after := digestOf(t, w.Node(0), id); after != before {
					t.Errorf("built anew it is %s, was %s", after, before)
				}
				w.WaitConverged(id, time.Minute)
				if err := w.Node(0).Put(id, "after", "text"); err != nil {
					t.Error(err)
				}
				w.WaitConverged(id, time.Minute)
			})
		})
	}
}
