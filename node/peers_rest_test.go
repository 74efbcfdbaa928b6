package node

import (
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// TestRestingPeer: who was disconnected is not dialled for a while, though its
// space wants links, until that is over or the owner connects to it.
func TestRestingPeer(t *testing.T) {
	const who peer.ID = "somebody"
	var sid [32]byte
	book := newPeerBook("me", func([32]byte, peer.AddrInfo) {}, func(peer.ID, time.Time) {})
	book.load(sid, peer.AddrInfo{ID: who, Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}})
	r := newRedialer(newPerson(t).host, book, nil, func() [][32]byte { return [][32]byte{sid} }, slog.New(slog.DiscardHandler))
	r.dialled = func() []peer.AddrInfo { return nil }
	now := time.Now()
	for _, step := range []struct {
		name string
		rest time.Duration
		at   time.Duration
		due  bool
	}{
		{"never disconnected", 0, 0, true},
		{"just disconnected", letBe, time.Second, false},
		{"for the second time", letBe, letBe / 2, false},
		{"long ago", letBe, letBe + time.Second, true},
		{"connected by hand", 0, time.Second, true},
	} {
		r.rest(who, step.rest)
		if due := len(r.missing(now.Add(step.at))) == 1; due != step.due {
			t.Errorf("%s: dialled %t, want %t", step.name, due, step.due)
		}
	}
}
