package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// historySize is how many records a newcomer finds.
const historySize = 1000

// haunt is a space with a history, and who lets newcomers in.
type haunt struct {
	id   space.ID
	door *Node // issues invites
	link string
}

// newHaunt makes the space with real disks. With a keeper the authority's node
// is stopped: the keeper orders the log and admits.
func newHaunt(tb testing.TB, keeper bool) haunt {
	tb.Helper()
	a := newcomer(tb)
	id, err := newSpace(a, "club")
	if err != nil {
		tb.Fatal(err)
	}
	h := haunt{id: id, door: a}
	var k *Node
	if keeper {
		k = newcomer(tb)
		inv := invite(tb, a, id, 1)
		if _, err := k.Join(tb.Context(), inv); err != nil {
			tb.Fatal(err)
		}
	}
	for i := range historySize / 10 {
		keys := make([]string, 10)
		for j := range keys {
			keys[j] = fmt.Sprintf("key-%d-%d", i, j)
		}
		if _, err := putAll(a, id, fmt.Sprintf("text %0200d", i), keys...); err != nil {
			tb.Fatal(err)
		}
	}
	if !keeper {
		h.link = invite(tb, a, id, 0)
		return h
	}
	if _, err := a.SetKeeper(tb.Context(), id, k.self.did, xrpc.AllCaps); err != nil {
		tb.Fatal(err)
	}
	if _, err := a.AppointSequencer(tb.Context(), id, k.self.did); err != nil {
		tb.Fatal(err)
	}
	h.link = invite(tb, a, id, 0)
	if err := until(tb.Context(), alike(a, k, id)); err != nil {
		tb.Fatal(err)
	}
	if err := a.Close(); err != nil {
		tb.Fatal(err)
	}
	h.door = k
	return h
}

// newcomer is a node of somebody new, on loopback and on a real disk.
func newcomer(tb testing.TB) *Node {
	tb.Helper()
	home := tb.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		tb.Fatal(err)
	}
	n, err := New(Config{Home: home, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, NoMDNS: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { n.Close() })
	return n
}

func invite(tb testing.TB, n *Node, id space.ID, uses uint32) string {
	tb.Helper()
	inv, err := n.Invite(tb.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: uses})
	if err != nil {
		tb.Fatal(err)
	}
	return inv.Link
}

// until polls until check is content.
func until(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// enter redeems the link at a new node and waits until the history reads.
func (h haunt) enter(ctx context.Context, n *Node) error {
	if _, err := n.Join(ctx, h.link); err != nil {
		return err
	}
	return until(ctx, func() error {
		st, err := n.Status(ctx)
		if err != nil {
			return err
		}
		if got := st.Spaces[0].Records; got != historySize {
			return fmt.Errorf("%d of %d records", got, historySize)
		}
		return nil
	})
}

// TestJoinHistory: a newcomer reads all that was written before, with the
// authority's node up or with nothing but a keeper's, and writes.
func TestJoinHistory(t *testing.T) {
	for _, keeper := range []bool{false, true} {
		t.Run(fmt.Sprint("keeper=", keeper), func(t *testing.T) {
			h, n := newHaunt(t, keeper), newcomer(t)
			if err := h.enter(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			soon(t, "both hold the same", alike(h.door, n, h.id))
			sound(t, n, h.id)
			if got := unaltered(t, n, h); got != historySize {
				t.Errorf("%d records read as they were written, want %d", got, historySize)
			}
			if _, err := putAll(n, h.id, "here I am", "hello"); err != nil {
				t.Fatal(err)
			}
			soon(t, "the door's node reads it", alike(h.door, n, h.id))
		})
	}
}

// unaltered counts the records of the history that open.
func unaltered(t *testing.T, n *Node, h haunt) (count int) {
	t.Helper()
	a, err := n.byID(h.id)
	if err != nil {
		t.Fatal(err)
	}
	author := a.control().Authority.DID
	for i := range historySize / 10 {
		want := fmt.Sprintf("text %0200d", i)
		for j := range 10 {
			r, err := n.Record(t.Context(), h.id, author, testPath(fmt.Sprintf("key-%d-%d", i, j)))
			if err != nil {
				t.Fatal(err)
			}
			rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":%q,"text":%q}`, testCollection, want))
			if err != nil {
				t.Fatal(err)
			}
			if r.CID == rec.CID() {
				count++
			}
		}
	}
	return count
}

// BenchmarkJoin is from the redemption of a link, at a node that runs already,
// to 1,000 readable records.
func BenchmarkJoin(b *testing.B) {
	for _, keeper := range []bool{false, true} {
		b.Run(fmt.Sprint("keeper=", keeper), func(b *testing.B) {
			h := newHaunt(b, keeper)
			var slowest time.Duration
			for b.Loop() {
				b.StopTimer()
				n := newcomer(b)
				b.StartTimer()
				start := time.Now()
				if err := h.enter(b.Context(), n); err != nil {
					b.Fatal(err)
				}
				slowest = max(slowest, time.Since(start))
				b.StopTimer()
				if err := n.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
		})
	}
}
