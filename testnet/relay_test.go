package testnet_test

import (
	"context"
	"fmt"
	"testing"
	"time"

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
	inv, err := w.Node(0).Invite(ctx, info.ID, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.Nodes()[1:] {
		if _, err := n.Join(ctx, inv.Link); err != nil {
			t.Fatal(err)
		}
	}
	w.WaitConverged(info.ID, time.Minute)
	return info.ID
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
