package testnet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
	"github.com/kithnet/kith/xrpc"
)

// relayed makes a space on the first node that names relays, and lets the
// others join it.
func relayed(t *testing.T, w *testnet.Net, relays ...*testnet.Relay) space.ID {
	t.Helper()
	var addrs []string
	for _, r := range relays {
		addrs = append(addrs, r.Addr())
	}
	ctx := context.Background()
	info, err := w.Node(0).CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.forum", Name: "forum", Relays: addrs, Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	link := invite(t, w.Node(0), info.ID)
	for _, n := range w.Nodes()[1:] {
		if _, err := n.Join(ctx, link); err != nil {
			t.Fatal(err)
		}
	}
	w.WaitConverged(info.ID, time.Minute)
	return info.ID
}

func invite(t *testing.T, n *testnet.Node, id space.ID) string {
	t.Helper()
	inv, err := n.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	return inv.Link
}

// keep lets a member do the authority's work, and waits until it can.
func keep(t *testing.T, authority, keeper *testnet.Node, id space.ID) {
	t.Helper()
	st, err := keeper.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.SetKeeper(t.Context(), id, st.DID, xrpc.AllCaps); err != nil {
		t.Fatal(err)
	}
	holdsWithin(t, time.Minute, func() error {
		all, err := keeper.Members(t.Context(), id)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.DID == st.DID && m.Keeper {
				return nil
			}
		}
		return errors.New("it is no keeper")
	})
}

func status(t *testing.T, n *testnet.Node, id space.ID) xrpc.SpaceStatus {
	t.Helper()
	s, err := n.SpaceStatus(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// holdsWithin waits until check is nil.
func holdsWithin(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(start) > limit {
			t.Fatalf("not after %v: %v", limit, err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// TestNeverOnlineTogether: one member writes and goes; a day passes; another
// comes and reads it, though the two were online together only to join.
func TestNeverOnlineTogether(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 20 * time.Millisecond}, 1)
		r := w.Relay()
		id := relayed(t, w, r)
		a, b := w.Node(0), w.Node(1)
		b.Stop()
		for i := range 20 {
			if err := a.Put(id, fmt.Sprint("note-", i), "while you were away"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Second)
		a.Stop()
		time.Sleep(24 * time.Hour)
		b.Start()
		holdsWithin(t, time.Minute, func() error { return b.Has(id, "note-19") })
	})
}

// relayRow is how a node sees the i-th relay of a space.
func relayRow(n *testnet.Node, id space.ID, i int) (xrpc.RelayStatus, error) {
	s, err := n.SpaceStatus(id)
	if err != nil || len(s.Relays) <= i {
		return xrpc.RelayStatus{}, fmt.Errorf("relay %d of %d: %w", i, len(s.Relays), err)
	}
	return s.Relays[i], nil
}

// signedAll is nil once every relay of a space signed for all that n holds.
func signedAll(n *testnet.Node, id space.ID) error {
	s, err := n.SpaceStatus(id)
	if err != nil {
		return err
	}
	for _, r := range s.Relays {
		if !r.HoldsAll {
			return fmt.Errorf("relay %s: %+v, of %d entries", r.PeerID, r, s.Entries)
		}
	}
	return nil
}

// TestAwayForFiftyEpochs: who was away for thirty days and fifty epochs catches
// up from a relay alone.
func TestAwayForFiftyEpochs(t *testing.T) {
	epochs := 50
	if testing.Short() {
		epochs = 12
	}
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 10 * time.Millisecond}, 2)
		r := w.Relay()
		id := relayed(t, w, r)
		a, b := w.Node(0), w.Node(1)
		b.Stop()
		for i := range epochs {
			if err := a.Put(id, fmt.Sprint("epoch-", i), "in its own epoch"); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Rotate(context.Background(), id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		holdsWithin(t, 2*time.Minute, func() error { return signedAll(a, id) })
		time.Sleep(20 * time.Second)
		a.Stop()
		r.Stop() // a month of heartbeats takes long, even in fake time
		time.Sleep(30 * 24 * time.Hour)
		r.Start()
		start := time.Now()
		b.Start()
		holdsWithin(t, 10*time.Minute, func() error {
			for i := range epochs {
				if err := b.Has(id, fmt.Sprint("epoch-", i)); err != nil {
					return fmt.Errorf("of epoch %d: %w", i, err)
				}
			}
			return nil
		})
		t.Logf("caught up with %d epochs in %v", epochs, time.Since(start))
	})
}

// TestR7 wipes a relay clean: its clients fill it again, and chains go on.
func TestR7(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 10 * time.Millisecond}, 3)
		r := w.Relay()
		id := relayed(t, w, r)
		a, b := w.Node(0), w.Node(1)
		for i := range 10 {
			if err := a.Put(id, fmt.Sprint("before-", i), "x"); err != nil {
				t.Fatal(err)
			}
		}
		holdsWithin(t, 2*time.Minute, func() error { return signedAll(a, id) })
		b.Stop()
		r.Stop()
		r.Wipe()
		r.Start()
		if err := a.Put(id, "after", "x"); err != nil {
			t.Fatal(err)
		}
		holdsWithin(t, 3*time.Minute, func() error { return signedAll(a, id) })
		if row, err := relayRow(a, id, 0); err != nil || len(row.Caught) == 0 {
			t.Errorf("the relay that lost what it had signed for is not named: %+v, %v", row, err)
		}
		a.Stop()
		b.Start()
		holdsWithin(t, time.Minute, func() error { return b.Has(id, "after") })
	})
}

// sets is what a relay holds of each topic, which is one epoch of a space.
func sets(r *testnet.Relay) map[string]string {
	out := map[string]string{}
	for u := range r.Usages() {
		out[u.Topic] = fmt.Sprintf("%d entries, %x", u.Count, u.Digest)
	}
	return out
}

// TestFuneral destroys relay and keeper with their disks for good: members go
// on, a new relay takes the space up from them, each epoch with the digest that
// it had at the old one, and who reads from it alone has all.
func TestFuneral(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 4, testnet.Link{Latency: 10 * time.Millisecond}, 4)
		old := w.Relay()
		id := relayed(t, w, old)
		a, b, c, keeper := w.Node(0), w.Node(1), w.Node(2), w.Node(3)
		keep(t, a, keeper, id)
		const epochs = 4
		var seen map[string]string // without the epoch in force, which goes on
		for i := range epochs {
			for j, n := range w.Nodes() {
				if err := n.Put(id, fmt.Sprintf("before-%d-%d", i, j), "x"); err != nil {
					t.Fatal(err)
				}
			}
			w.WaitConverged(id, time.Minute)
			time.Sleep(time.Minute) // for what nodes say of themselves
			holdsWithin(t, 2*time.Minute, func() error { return signedAll(a, id) })
			seen = sets(old)
			if _, err := a.Rotate(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		w.WaitConverged(id, time.Minute)
		time.Sleep(time.Minute)
		before, buried := sets(old), status(t, a, id)
		c.Stop()
		keeper.Stop()
		old.Stop()
		for _, dir := range []string{keeper.Home, old.Dir} {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		w.WaitConverged(id, time.Minute)
		if s := status(t, a, id); s.Digest != buried.Digest {
			t.Errorf("the digest of all epochs is %s, was %s", s.Digest, buried.Digest)
		}
		if _, err := a.Rotate(t.Context(), id); err != nil { // what the old relay saw is closed
			t.Fatal(err)
		}
		w.WaitConverged(id, time.Minute)
		if err := b.Put(id, "during", "nobody in the middle"); err != nil {
			t.Fatal(err)
		}
		w.WaitConverged(id, time.Minute)
		heir := w.Relay()
		if _, err := a.SetRelays(t.Context(), id, []string{heir.Addr()}); err != nil {
			t.Fatal(err)
		}
		holdsWithin(t, 3*time.Minute, func() error {
			now := sets(heir)
			for topic := range seen {
				if now[topic] != before[topic] {
					return fmt.Errorf("epoch %s: %s at the new relay, %s at the old one", topic, now[topic], before[topic])
				}
			}
			return signedAll(a, id)
		})
		left := status(t, a, id)
		if left.Records != buried.Records+1 || len(seen) != epochs {
			t.Errorf("%d records in %d epochs before, one more written, %d after", buried.Records, len(seen), left.Records)
		}
		c.Start()
		w.WaitConverged(id, time.Minute)
		late := w.Add()
		if _, err := late.Join(t.Context(), invite(t, a, id)); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*testnet.Node{a, b, c} {
			n.Stop()
		}
		holdsWithin(t, time.Minute, func() error {
			if s := status(t, late, id); s.Records != left.Records {
				return fmt.Errorf("%d of %d records from the relay alone", s.Records, left.Records)
			}
			return nil
		})
	})
}

// TestSplitView: a relay that shows two members different sets is found out
// when they meet, and named.
func TestSplitView(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 10 * time.Millisecond}, 5)
		one := w.Relay()
		two := w.Twin(one) // the same key, another disk
		a, b := w.Node(0), w.Node(1)
		w.Part(a, two)
		w.Part(b, one)
		ctx := context.Background()
		info, err := a.CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.forum", Relays: []string{one.Addr(), two.Addr()}, Policy: space.DefaultPolicy()})
		if err != nil {
			t.Fatal(err)
		}
		inv, err := a.Invite(ctx, info.ID, xrpc.InviteOptions{Level: space.LevelWrite})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Join(ctx, inv.Link); err != nil {
			t.Fatal(err)
		}
		w.WaitConverged(info.ID, time.Minute)
		w.Wall(a, b)
		time.Sleep(time.Minute)
		for i := range 5 {
			if err := a.Put(info.ID, fmt.Sprint("hidden-", i), "x"); err != nil {
				t.Fatal(err)
			}
		}
		holdsWithin(t, 2*time.Minute, func() error { return signedAll(a, info.ID) })
		time.Sleep(2 * time.Minute)
		if r, err := relayRow(b, info.ID, 0); err != nil || len(r.Caught) > 0 || b.Has(info.ID, "hidden-0") == nil {
			t.Fatalf("before they met: %+v, %v", r, err)
		}
		if err := b.Put(info.ID, "mine", "so that the relay signs once more"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.Unwall(a, b)
		w.WaitConverged(info.ID, time.Minute)
		holdsWithin(t, 10*time.Second, func() error {
			for i, n := range w.Nodes() {
				if r, err := relayRow(n, info.ID, 0); err != nil || len(r.Caught) == 0 {
					return fmt.Errorf("node %d: the relay is not named: %+v, %v", i, r, err)
				}
			}
			return nil
		})
		r, _ := relayRow(b, info.ID, 0)
		t.Log(r.Caught)
	})
}

// TestAccessCode: a relay that is closed carries nothing until a member pays
// with a code of its operator; then it does, for all, and beyond the time of
// the first lease.
func TestAccessCode(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 20 * time.Millisecond}, 1)
		r := w.Relay(func(c *relay.Config) {
			c.LeaseTime, c.Closed, c.Codes = 2*time.Hour, true, map[string]relay.Quota{"sesame": {Bytes: 1 << 20, Rate: 100}}
		})
		id := relayed(t, w, r)
		a, ctx := w.Node(0), context.Background()
		holds := func(n *testnet.Node) error {
			st, err := n.Status(ctx)
			if err != nil {
				return err
			}
			if s := st.Spaces[0].Relays[0]; !s.HoldsAll || s.Bytes != 1<<20 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		}
		time.Sleep(time.Minute)
		if r.Topics() != 0 || holds(a) == nil {
			t.Fatalf("%d topics without a code", r.Topics())
		}
		for _, bad := range []struct {
			relay, code string
			want        error
		}{{r.ID().String(), "open", space.ErrForbidden}, {"12D3KooW", "sesame", space.ErrMalformed}, {peerOf(t, w.Node(1)), "sesame", xrpc.ErrPeerNotFound}} {
			if _, err := a.LeaseRelay(ctx, id, bad.relay, bad.code); !errors.Is(err, bad.want) {
				t.Errorf("%s at %s: %v, want %v", bad.code, bad.relay, err, bad.want)
			}
		}
		s, err := a.LeaseRelay(ctx, id, r.ID().String(), "sesame")
		if err != nil || s.Bytes != 1<<20 || s.LeaseExpires == 0 {
			t.Fatalf("%+v %v", s, err)
		}
		if err := a.Put(id, "one", "paid for"); err != nil {
			t.Fatal(err)
		}
		for _, n := range w.Nodes() {
			holdsWithin(t, 3*time.Hour, func() error { return holds(n) })
		}
		time.Sleep(2*time.Hour + 15*time.Minute)
		for u := range r.Usages() {
			if !u.Expires.After(time.Now()) {
				t.Errorf("the lease ran out %v", u.Expires)
			}
		}
	})
}

func peerOf(t *testing.T, n *testnet.Node) string {
	t.Helper()
	st, err := n.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st.PeerID
}
