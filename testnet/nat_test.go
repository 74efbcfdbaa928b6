package testnet_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/testnet"
	"github.com/kithnet/kith/xrpc"
)

// wayTo is how a is connected to b: "", "circuit" or "direct".
func wayTo(t *testing.T, a, b *testnet.Node) string {
	t.Helper()
	st, err := b.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	peers, err := a.Peers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		switch {
		case p.PeerID != st.PeerID:
		case p.Direct:
			return "direct"
		default:
			return "circuit"
		}
	}
	return ""
}

// TestMeetBehindNAT lets two nodes, each behind a NAT, meet through a relay:
// the newcomer's join and the first records go through the circuit, then a
// hole punch makes the connection direct. Behind walls that let nothing
// through, the circuit stays; when they fall, the two find each other without
// being started again.
func TestMeetBehindNAT(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(map[bool]string{false: "filtering", true: "walled"}[strict], func(t *testing.T) {
			testnet.Bubble(t, func(t *testing.T) {
				w := testnet.New(t, 2, testnet.Link{Latency: 20 * time.Millisecond}, 1)
				r := w.Relay()
				a, b := w.Node(0), w.Node(1)
				a.NAT()
				b.NAT()
				if strict {
					w.Wall(a, b)
				}
				ctx := context.Background()
				info, err := a.CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.forum", Name: "f", Relays: []string{r.Addr()}, Policy: space.DefaultPolicy()})
				if err != nil {
					t.Fatal(err)
				}
				link := linkWith(t, a, info.ID, r.ID().String()+"/p2p-circuit")
				if _, err := b.Join(ctx, link); err != nil {
					t.Fatalf("join through the circuit: %v", err)
				}
				if err := a.Put(info.ID, "one", "through whatever there is"); err != nil {
					t.Fatal(err)
				}
				w.WaitConverged(info.ID, time.Minute)
				time.Sleep(20 * time.Second)
				want := map[bool]string{false: "direct", true: "circuit"}[strict]
				if got := wayTo(t, a, b); got != want {
					t.Errorf("the two are connected by %q, want %q", got, want)
				}
				t.Logf("simulated links, NATs %s: joined and synced through the circuit, then %s", t.Name(), wayTo(t, a, b))
				if !strict {
					return
				}
				w.Unwall(a, b)
				time.Sleep(2 * time.Minute)
				if got := wayTo(t, a, b); got != "direct" {
					t.Errorf("two minutes after the wall fell they are connected by %q, want direct", got)
				}
			})
		})
	}
}

// linkWith makes an invite once the node can name an address that contains way.
func linkWith(t *testing.T, n *testnet.Node, id space.ID, way string) string {
	t.Helper()
	for range 60 {
		st, err := n.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.Join(st.Listen, " "), way) {
			inv, err := n.Invite(context.Background(), id, xrpc.InviteOptions{Level: space.LevelWrite})
			if err != nil {
				t.Fatal(err)
			}
			return inv.Link
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("no address with %s after a minute", way)
	return ""
}

// TestLinksLeadToMembers: a link names nodes that let newcomers in, directly
// and through a relay, and never a relay as if it were one, nor a relay behind
// itself.
func TestLinksLeadToMembers(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 20 * time.Millisecond}, 1)
		r := w.Relay()
		id := relayed(t, w, r)
		linkWith(t, w.Node(0), id, r.ID().String()+"/p2p-circuit")
		inv, err := w.Node(0).Invite(context.Background(), id, xrpc.InviteOptions{Level: space.LevelWrite})
		if err != nil {
			t.Fatal(err)
		}
		link, err := control.ParseLink(inv.Link)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range link.Addrs {
			if strings.HasSuffix(a, "/p2p/"+r.ID().String()) {
				t.Errorf("%s leads to a relay, which lets nobody in", a)
			}
		}
		if !strings.Contains(strings.Join(link.Addrs, " "), r.ID().String()+"/p2p-circuit/p2p/") {
			t.Errorf("no way through the relay: %v", link.Addrs)
		}
	})
}
