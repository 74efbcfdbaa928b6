package netid_test

import (
	"context"
	"io"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/netid"
)

func newHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// TestNetworksAreApart lets a node speak with those of its network alone.
func TestNetworksAreApart(t *testing.T) {
	raw := newHost(t)
	server := netid.Of(raw, "red")
	heard := make(chan string, 1)
	server.SetStreamHandler("/kith/sync/1", func(s network.Stream) {
		heard <- string(s.Protocol())
		io.WriteString(s, "yes")
		s.Close()
	})
	for name, works := range map[string]bool{"red": true, "blue": false, "": false} {
		c := netid.Of(newHost(t), name)
		if err := c.Connect(context.Background(), peer.AddrInfo{ID: raw.ID(), Addrs: raw.Addrs()}); err != nil {
			t.Fatal(err)
		}
		s, err := c.NewStream(context.Background(), raw.ID(), "/kith/sync/1")
		var said []byte
		if err == nil {
			said, _ = io.ReadAll(s)
		}
		if got := string(said) == "yes"; got != works {
			t.Errorf("network %q: answered %v (%v), want %v", name, got, err, works)
		}
		if works {
			if p := <-heard; p != "/kith/sync/1" || string(s.Protocol()) != p {
				t.Errorf("the protocol is named %s and %s", p, s.Protocol())
			}
		}
	}
}
