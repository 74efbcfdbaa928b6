package node

import (
	"crypto/rand"
	"log/slog"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
)

// TestYoungDeadConnection: a peer dies within two seconds of connecting and
// comes back at once, elsewhere. Its old connection, of which nobody said that
// it ended, is gone within seconds; of a peer that lives both stay.
func TestYoungDeadConnection(t *testing.T) {
	for name, dies := range map[string]bool{"dies": true, "lives": false} {
		t.Run(name, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156, under the race detector
			synctest.Test(t, func(t *testing.T) { youngDead(t, dies) })
		})
	}
}

func youngDead(t *testing.T, dies bool) {
	var dead atomic.Bool // nothing comes from or gets to the first machine
	first := simnet.IntToPublicIPv4(50)
	sim := &simnet.Simnet{Logger: slog.New(slog.DiscardHandler), LatencyFunc: func(p *simnet.Packet) time.Duration {
		for _, a := range []net.Addr{p.From, p.To} {
			if u, ok := a.(*net.UDPAddr); ok && u.IP.Equal(first) && dead.Load() {
				return 24 * time.Hour
			}
		}
		return 20 * time.Millisecond
	}}
	sim.Start()
	attach := func(ip net.IP) (string, []libp2p.Option) {
		link := simnet.LinkSettings{BitsPerSecond: 100 * simnet.Mibps}
		return "/ip4/" + ip.String() + "/udp/4001/quic-v1", []libp2p.Option{
			simlibp2p.QUICSimnet(sim, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
			libp2p.DisableIdentifyAddressDiscovery(),
		}
	}
	home := t.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Home: home, NoMDNS: true}
	listen, opts := attach(simnet.IntToPublicIPv4(1))
	cfg.Listen, cfg.Host = []string{listen}, opts
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	start := func(ip net.IP) host.Host {
		listen, opts := attach(ip)
		h, err := libp2p.New(append(opts, libp2p.Identity(key), libp2p.ListenAddrStrings(listen))...)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Connect(t.Context(), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
		return h
	}
	one := start(first)
	time.Sleep(500 * time.Millisecond)
	dead.Store(dies)
	two := start(simnet.IntToPublicIPv4(51))
	time.Sleep(6 * time.Second)
	want := map[bool]int{true: 1, false: 2}[dies]
	if got := len(n.host.Network().ConnsToPeer(two.ID())); got != want {
		t.Errorf("%d connections after 6 s, want %d", got, want)
	}
	one.Close()
	two.Close()
	n.Close()
	sim.Close()
	time.Sleep(time.Second)
}
