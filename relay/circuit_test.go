package relay_test

import (
	"context"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"

	"github.com/kithnet/kith/relay"
)

func loopbackHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// TestCircuitsAreForTheKnown gives a way through the relay to nobody but those
// that it knows.
func TestCircuitsAreForTheKnown(t *testing.T) {
	r, guest, stranger := loopbackHost(t), loopbackHost(t), loopbackHost(t)
	c, err := relay.ServeCircuits(r, func(p peer.ID) bool { return p == guest.ID() })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := peer.AddrInfo{ID: r.ID(), Addrs: r.Addrs()}
	if _, err := client.Reserve(context.Background(), guest, at); err != nil {
		t.Errorf("a guest gets no way: %v", err)
	}
	if _, err := client.Reserve(context.Background(), stranger, at); err == nil {
		t.Error("a stranger got a way through the relay")
	}
}
