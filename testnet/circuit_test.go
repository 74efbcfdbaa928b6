package testnet_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
	"github.com/kithnet/kith/xrpc"
)

// TestHistoryThroughCuts: two nodes that reach each other through somebody's
// relay alone, which cuts each connection after 128 KiB or two minutes. A
// history of several times that gets through all the same.
func TestHistoryThroughCuts(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 0, testnet.Link{Latency: 20 * time.Millisecond}, 1)
		a, b := behindForeignRelay(t, w)
		ctx := context.Background()
		info, err := a.CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.forum", Name: "f", Policy: space.DefaultPolicy()})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			if err := a.Put(info.ID, fmt.Sprint("k", i), strings.Repeat("x", 10_000)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Join(ctx, linkWith(t, a, info.ID, "p2p-circuit")); err != nil {
			t.Fatal(err)
		}
		took := w.WaitConverged(info.ID, 5*time.Minute)
		st, err := b.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := wayTo(t, a, b); got == "direct" {
			t.Error("they are connected directly")
		}
		t.Logf("600 kB through 128 KiB connections in %v; %d sessions cut, %d failed", took, st.Counters["sessionsCut"], st.Counters["sessionsFailed"])
	})
}

// behindForeignRelay are two nodes that reach each other through somebody's
// relay alone, which cuts each connection after 128 KiB or two minutes.
func behindForeignRelay(t *testing.T, w *testnet.Net) (a, b *testnet.Node) {
	t.Helper()
	listen, opts := w.Attach()
	h, err := libp2p.New(append(opts, libp2p.ListenAddrStrings(listen...), libp2p.ForceReachabilityPublic())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	service, err := circuit.New(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Close() })
	relay := peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
	hidden := func(c *node.Config) {
		c.Host = append(c.Host, libp2p.EnableAutoRelayWithStaticRelays([]peer.AddrInfo{relay}), libp2p.ForceReachabilityPrivate())
	}
	a, b = w.Add(hidden), w.Add(hidden)
	w.Wall(a, b)
	return a, b
}

// TestWelcomeThroughCuts: a space whose log is several times what a connection
// through somebody's relay carries lets a newcomer in all the same.
func TestWelcomeThroughCuts(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 0, testnet.Link{Latency: 20 * time.Millisecond}, 1)
		a, b := behindForeignRelay(t, w)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		info, err := a.CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.forum", Name: "f", Policy: space.DefaultPolicy()})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			config, err := space.RecordFromJSON(fmt.Appendf(nil, `{"note":"%d %s"}`, i, strings.Repeat("x", space.MaxConfig-100)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.UpdateSpace(ctx, info.ID, xrpc.PolicyPatch{Config: &config}); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if _, err := b.Join(ctx, linkWith(t, a, info.ID, "p2p-circuit")); err != nil {
			t.Fatal(err)
		}
		t.Logf("joined a space with a log of 480 kB in %v", time.Since(start))
		w.WaitConverged(info.ID, 5*time.Minute)
		if got := wayTo(t, a, b); got == "direct" {
			t.Error("they are connected directly")
		}
	})
}
