package testnet_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/testnet"
)

// TestNewcomerWithoutAuthority: the authority's machine is off. A keeper that
// nobody can dial and a relay are up; a newcomer, whom nobody can dial either,
// joins through the relay, reads what was written before and is read.
func TestNewcomerWithoutAuthority(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 20 * time.Millisecond}, 7)
		r := w.Relay()
		authority, keeper := w.Node(0), w.Node(1)
		keeper.NAT()
		id := relayed(t, w, r)
		keep(t, authority, keeper, id)
		st, err := keeper.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := authority.AppointSequencer(t.Context(), id, st.DID); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if err := authority.Put(id, fmt.Sprint("old-", i), "of the authority"); err != nil {
				t.Fatal(err)
			}
		}
		w.WaitConverged(id, time.Minute)
		time.Sleep(time.Minute) // for the keeper's address at the relay to get about
		link := invite(t, authority, id)
		w.WaitConverged(id, time.Minute)
		authority.Stop()

		late := w.Add()
		late.NAT()
		w.Wall(late, keeper) // and no hole can be punched
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if _, err := late.Join(ctx, link); err != nil {
			t.Fatal(err)
		}
		holdsWithin(t, time.Minute, func() error { return late.Has(id, "old-9") })
		if err := late.Put(id, "new", "of the newcomer"); err != nil {
			t.Fatal(err)
		}
		holdsWithin(t, time.Minute, func() error { return keeper.Has(id, "new") })
		authority.Start()
		holdsWithin(t, time.Minute, func() error { return authority.Has(id, "new") })
	})
}

// TestRelayFailover: of two relays one dies in the middle of the story, between
// members who reach each other through relays alone. What was written before,
// while it died and after arrives through the other one, and status names the
// dead one.
func TestRelayFailover(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 20 * time.Millisecond}, 8)
		first, second := w.Relay(), w.Relay()
		id := relayed(t, w, first, second)
		a, b := w.Node(0), w.Node(1)
		w.Wall(a, b)
		holdsWithin(t, 2*time.Minute, func() error { return signedAll(a, id) })
		const writes = 40
		dead := first.ID().String()
		for i := range writes {
			if i == writes/2 {
				first.Stop()
			}
			for j, n := range w.Nodes() {
				if err := n.Put(id, fmt.Sprintf("%d-%d", j, i), "on and on"); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * time.Second)
		}
		w.WaitConverged(id, time.Minute)
		if s := status(t, a, id); s.Records != 2*writes {
			t.Errorf("%d records, %d were written", s.Records, 2*writes)
		}
		holdsWithin(t, 2*time.Minute, func() error {
			var errs []error
			for i, n := range w.Nodes() {
				errs = append(errs, down(t, n, i, dead))
			}
			return errors.Join(errs...)
		})
		a.Stop() // the one that is left is enough for who comes later
		b.Restart()
		holdsWithin(t, time.Minute, func() error { return b.Has(id, fmt.Sprintf("0-%d", writes-1)) })
		a.Start()
		first.Start()
		holdsWithin(t, 5*time.Minute, func() error { return errors.Join(signedAll(a, id), signedAll(b, id)) })
	})
}

// down is nil when a node's status shows one relay that does not answer, which
// is named, and that the other one signed for all.
func down(t *testing.T, n *testnet.Node, i int, dead string) error {
	st, err := n.Status(t.Context())
	if err != nil {
		return err
	}
	for _, r := range st.Spaces[0].Relays {
		if (r.PeerID == dead) != (r.LastError != "") || (r.PeerID == dead) == r.HoldsAll {
			return fmt.Errorf("node %d shows %+v", i, r)
		}
	}
	return nil
}
