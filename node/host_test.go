package node

import (
	"errors"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
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
