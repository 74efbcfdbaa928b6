package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/testnet"
)

// TestCompactedPeer: a member that was away for days meets one that has dropped
// what it lacks. It gets what is left of that and says that it is behind and how
// it knows; with the node that keeps everything it becomes equal to both.
func TestCompactedPeer(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 3, testnet.Link{Latency: 20 * time.Millisecond}, 1, func(c *node.Config) { c.CompactAfter = time.Hour })
		id := w.Space()
		keeper, member, away := w.Node(0), w.Node(1), w.Node(2)
		if err := away.Put(id, "of-away", "text"); err != nil {
			t.Fatal(err)
		}
		w.WaitConverged(id, time.Minute)
		away.Stop()
		for i := range 30 {
			if err := member.Put(id, fmt.Sprint("key", i%3), fmt.Sprint("text ", i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		dropped := func(n *testnet.Node) uint64 {
			st, err := n.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return st.Counters["envelopesCompacted"]
		}
		for limit := 80; dropped(member) == 0; limit-- {
			if limit == 0 {
				t.Fatal("nothing was dropped in 80 hours")
			}
			time.Sleep(time.Hour)
		}
		if dropped(keeper) != 0 {
			t.Error("the node that admits newcomers dropped something")
		}
		w.WaitConverged(id, time.Minute)
		full, err := keeper.SpaceStatus(id)
		if err != nil {
			t.Fatal(err)
		}

		keeper.Stop()
		away.Start()
		st, err := member.Status(t.Context())
		if err == nil {
			_, err = away.Connect(t.Context(), st.Listen[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		s, err := away.SpaceStatus(id)
		if err != nil {
			t.Fatal(err)
		}
		if s.Digest == full.Digest || s.Behind == 0 || len(s.BehindBy) == 0 || len(s.InSyncWith) != 0 {
			t.Errorf("with the one that dropped, who has %d entries: %+v", full.Entries, s)
		}
		t.Logf("behind by %d: %+v", s.Behind, s.BehindBy)
		keeper.Start()
		t.Logf("equal %v after the keeper came", w.WaitConverged(id, 10*time.Minute))
		for i := range 3 {
			if err := away.Has(id, fmt.Sprint("key", i)); err != nil {
				t.Error(err)
			}
		}
	})
}
