package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// crowdBook is a book with many peers of one space that are gone.
func crowdBook(sid [32]byte, many int) *peerBook {
	book := newPeerBook("me", func([32]byte, peer.AddrInfo) {}, func(peer.ID, time.Time) {})
	for i := range many {
		id := peer.ID(binary.BigEndian.AppendUint32([]byte("gone"), uint32(i)))
		book.load(sid, peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}})
	}
	return book
}

// TestDialsWhoWasHereLast: of a book that is full of peers that are gone, those
// are dialled first that were connected last; and after these were tried in
// vain everybody gets a turn.
func TestDialsWhoWasHereLast(t *testing.T) {
	const gone, lately = 300, 3
	var sid [32]byte
	book := crowdBook(sid, gone)
	now := time.Now()
	want := map[peer.ID]bool{}
	for i, p := range book.of(sid) {
		if i < lately {
			want[p.ID] = true
		}
		book.recall(p.ID, now.Add(-time.Duration(i)*time.Hour))
	}
	r := newRedialer(newPerson(t).host, book, nil, func() [][32]byte { return [][32]byte{sid} }, slog.New(slog.DiscardHandler))
	r.dialled = func() []peer.AddrInfo { return nil }
	round := func() (first int) {
		todo := r.missing(now)
		if len(todo) != wantPeers+1 {
			t.Fatalf("%d dials, want %d", len(todo), wantPeers+1)
		}
		for _, p := range todo {
			if want[p.ID] {
				first++
			}
			r.failed(p.ID, now)
		}
		return first
	}
	if first := round(); first != lately {
		t.Errorf("the first round dials %d of the %d that were here last", first, lately)
	}
	for range 2 * gone / wantPeers {
		now = now.Add(2 * dialMax)
		round()
	}
	if len(r.backoff) != gone {
		t.Errorf("%d of %d had a turn", len(r.backoff), gone)
	}
}

// TestFullBook: in a book that is full, whoever claims to be a peer does not
// push out one that is here.
func TestFullBook(t *testing.T) {
	var sid [32]byte
	const friend peer.ID = "friend"
	book := crowdBook(sid, maxBookPeers-1)
	addr := []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}
	book.learn(sid, peer.AddrInfo{ID: friend, Addrs: addr})
	book.saw(friend, time.Now())
	for i := range 4 * maxBookPeers {
		book.learn(sid, peer.AddrInfo{ID: peer.ID(fmt.Sprint("new", i)), Addrs: addr})
	}
	if n := len(book.of(sid)); n != maxBookPeers || !book.knows(sid, friend) {
		t.Errorf("%d peers, want %d; the friend is known: %t", n, maxBookPeers, book.knows(sid, friend))
	}
}

// TestSeenOverRestart: who was here last stands first in the book after a crash.
func TestSeenOverRestart(t *testing.T) {
	a, b := newPerson(t), newPerson(t)
	id, err := newSpace(a.Node, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a.Node, b.Node, id)
	sid := actorOf(t, b.Node, id).sid
	friend := a.host.ID()
	waitFor(t, func() bool { return b.book.lately(sid)[0].ID == friend })
	for i := range 100 {
		b.book.learn(sid, peer.AddrInfo{
			ID:    peer.ID(fmt.Sprintf("%c%d", 'A'+rand.IntN(26), i)),
			Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")},
		})
	}
	halt(t, a.Node)
	halt(t, b.Node)
	b.back(t)
	if known := b.book.lately(sid); len(known) != 101 || known[0].ID != friend {
		t.Errorf("%d peers, the first %v, want 101 and %v", len(known), known[0].ID, friend)
	}
}

// TestPart: where the node of a removed member is, is forgotten, also on the
// disk; who stays in the space stays in the book.
func TestPart(t *testing.T) {
	a, b, c := newPerson(t), newPerson(t), newPerson(t)
	id, err := newSpace(a.Node, "club")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{b, c} {
		admitTo(t, a.Node, p.Node, id)
		if _, err := putAll(p.Node, id, "hello", "hello"); err != nil {
			t.Fatal(err)
		}
	}
	act := actorOf(t, a.Node, id)
	waitFor(t, func() bool {
		act.mu.RLock()
		defer act.mu.RUnlock()
		return len(act.homes) == 2
	})
	if a.part(act); !a.book.knows(act.sid, b.host.ID()) || !a.book.knows(act.sid, c.host.ID()) {
		t.Error("a member's node was forgotten")
	}
	if err := a.RemoveMember(t.Context(), id, b.self.did); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { _, in := act.control().Member(b.self.c); return !in })
	gone, stays := b.host.ID(), c.host.ID()
	a.part(act)
	for range 2 {
		if a.book.knows(act.sid, gone) || !a.book.knows(act.sid, stays) {
			t.Errorf("the removed is known %t, the member %t", a.book.knows(act.sid, gone), a.book.knows(act.sid, stays))
		}
		for _, p := range []*person{b, c} {
			halt(t, p.Node)
		}
		halt(t, a.Node)
		a.back(t)
	}
}

// hole is an address that swallows what it is sent.
func hole(t *testing.T) multiaddr.Multiaddr {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", c.LocalAddr().(*net.UDPAddr).Port))
}

// TestHangingDials: while dials hang, a relay that is named and the peers of a
// space that is joined are dialled; those that hang are not dialled once more.
func TestHangingDials(t *testing.T) {
	a, b, relay := newPerson(t), newPerson(t), newPerson(t)
	book := newPeerBook("me", func([32]byte, peer.AddrInfo) {}, func(peer.ID, time.Time) {})
	old, joined := [32]byte{1}, [32]byte{2}
	for i := range 2 * dialsAtOnce {
		id, err := peer.IDFromBytes(append([]byte{0, 4}, fmt.Sprintf("%04d", i)...)) // an identity multihash
		if err != nil {
			t.Fatal(err)
		}
		book.load(old, peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{hole(t)}})
	}
	var named atomic.Pointer[peer.AddrInfo]
	r := newRedialer(a.host, book, nil, func() [][32]byte { return [][32]byte{old, joined} }, slog.New(slog.DiscardHandler))
	r.relays = func() []peer.AddrInfo { return nil }
	r.dialled = func() []peer.AddrInfo {
		if p := named.Load(); p != nil {
			return []peer.AddrInfo{*p}
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	waitFor(t, func() bool { return len(r.wake) == 0 })
	start := time.Now()
	book.learn(joined, peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Addrs()})
	named.Store(&peer.AddrInfo{ID: relay.host.ID(), Addrs: relay.host.Addrs()})
	r.poke()
	waitFor(t, func() bool { return connectedTo(a.host, b.host.ID()) && connectedTo(a.host, relay.host.ID()) })
	if took := time.Since(start); took >= addrTimeout {
		t.Errorf("took %v, as long as a dial that hangs", took)
	}
	cancel()
	<-done
	hanging := 0
	for p := range r.flying {
		if book.knows(old, p) {
			hanging++
		}
	}
	if hanging > wantPeers+1 {
		t.Errorf("%d dials in the air for a space that wants %d", hanging, wantPeers)
	}
}

// TestMovedPeer: who is heard of at another address is dialled there at once,
// whatever became of dials to the old one, and whatever becomes of one that is
// under way.
func TestMovedPeer(t *testing.T) {
	var sid [32]byte
	book := crowdBook(sid, 1)
	p := book.of(sid)[0].ID
	r := newRedialer(newPerson(t).host, book, nil, func() [][32]byte { return [][32]byte{sid} }, slog.New(slog.DiscardHandler))
	r.dialled = func() []peer.AddrInfo { return nil }
	now := time.Now()
	due := func(want bool, when string) {
		t.Helper()
		r.hear()
		if got := len(r.missing(now)) == 1; got != want {
			t.Errorf("%s: dialled %t", when, got)
		}
	}
	learn := func(port int) {
		a := multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port))
		if book.learn(sid, peer.AddrInfo{ID: p, Addrs: []multiaddr.Multiaddr{a}}) {
			r.moved(p)
		}
	}
	due(true, "at first")
	r.failed(p, now)
	due(false, "after it failed")
	learn(1)
	due(false, "heard of where it was")
	learn(2)
	due(true, "heard of elsewhere")
	r.flying[p] = true
	learn(3)
	due(false, "while it is dialled")
	r.land(landing{p, net.ErrClosed}, now)
	due(true, "after that failed")
	r.failed(p, now)
	due(false, "after it failed there too")
}

// TestManyOldAddresses: a peer is found at its newest address though it had
// many before, all of which swallow what they are sent.
func TestManyOldAddresses(t *testing.T) {
	a, b := newPerson(t), newPerson(t)
	addrs := slices.Clone(b.host.Addrs())
	for len(addrs) < maxBookAddrs {
		addrs = append(addrs, hole(t))
	}
	if err := a.redial.try(t.Context(), peer.AddrInfo{ID: b.host.ID(), Addrs: addrs}); err != nil {
		t.Error(err)
	}
}
