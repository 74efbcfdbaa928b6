package node

import (
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
)

// TestDialsCross: where two peers dial each other in the same instant, each
// dial ends connected. TCP makes one connection of two SYNs that cross, on
// which neither is the TLS server: on loopback about one pair in ten.
func TestDialsCross(t *testing.T) {
	var hosts [2]host.Host
	for i := range hosts {
		h, err := libp2p.New(libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		hosts[i] = h
	}
	for i := range 100 {
		var wg sync.WaitGroup
		var errs [2]error
		for k, h := range hosts {
			other := hosts[1-k]
			wg.Go(func() {
				errs[k] = dial(t.Context(), h, peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()})
			})
		}
		wg.Wait()
		for k, h := range hosts {
			if errs[k] != nil {
				t.Fatalf("pair %d: %v", i, errs[k])
			}
			_ = h.Network().ClosePeer(hosts[1-k].ID())
		}
		soon(t, "both closed", func() error {
			for k, h := range hosts {
				if h.Network().Connectedness(hosts[1-k].ID()) == network.Connected {
					return errors.New("connected")
				}
			}
			return nil
		})
	}
}

// TestRankDials: near, TCP is dialled before QUIC; far away nothing differs
// from libp2p's order.
func TestRankDials(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		want map[string]time.Duration
	}{
		{"here", map[string]time.Duration{
			"/ip4/127.0.0.1/tcp/1": 0, "/ip4/192.168.1.2/tcp/1": 30 * ms,
			"/ip4/127.0.0.1/udp/1/quic-v1": 60 * ms, "/ip4/192.168.1.2/udp/2/quic-v1": 90 * ms,
		}},
		{"near", map[string]time.Duration{
			"/ip4/10.0.0.1/tcp/1": 0, "/ip4/10.0.0.2/tcp/2": 30 * ms, "/ip4/10.0.0.1/udp/1/quic-v1": 30 * ms,
		}},
		{"near, no TCP", map[string]time.Duration{"/ip4/10.0.0.1/udp/1/quic-v1": 0, "/ip4/10.0.0.1/tcp/1/ws": 30 * ms}},
		{"far", map[string]time.Duration{"/ip4/9.9.9.9/udp/1/quic-v1": 0, "/ip4/9.9.9.9/tcp/1": 250 * ms}},
		{"both", map[string]time.Duration{
			"/ip4/10.0.0.1/tcp/1": 0, "/ip4/10.0.0.1/udp/1/quic-v1": 30 * ms,
			"/ip4/9.9.9.9/udp/1/quic-v1": 0, "/ip4/9.9.9.9/tcp/1": 250 * ms,
		}},
		{"through a relay near by", map[string]time.Duration{
			"/ip4/10.0.0.1/udp/1/quic-v1": 30 * ms, "/ip4/10.0.0.1/tcp/1": 0,
			"/ip4/10.0.0.2/udp/1/quic-v1/p2p/12D3KooWRucp4GrhuasxcdbTm4C4tkwgS6Vz1CgceWwv6iDYVNkc/p2p-circuit": 0,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var addrs []multiaddr.Multiaddr
			for a := range c.want {
				addrs = append(addrs, multiaddr.StringCast(a))
			}
			got := map[string]time.Duration{}
			for _, r := range rankDials(addrs) {
				got[r.Addr.String()] = r.Delay
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
