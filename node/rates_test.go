package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

// However many streams a peer has and whatever it asks for: what it gets in
// any time is bounded by its share, and peers that are active together share
// the total in equal parts.
func TestRates(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		limit := Rates{PerPeer: int64(rapid.IntRange(5000, 1_000_000).Draw(r, "per peer"))}
		limit.Total = limit.PerPeer * int64(rapid.IntRange(1, 4).Draw(r, "total"))
		k := newRates(limit)
		now := time.Unix(1e9, 0)
		began := now
		type stream struct {
			p    peer.ID
			free time.Time
		}
		var streams []*stream
		for p := range rapid.IntRange(1, 6).Draw(r, "peers") {
			for range rapid.IntRange(1, 20).Draw(r, "streams") {
				streams = append(streams, &stream{p: peer.ID(fmt.Sprint(p))})
			}
		}
		peers := map[peer.ID]int{}
		for now.Sub(began) < 10*time.Second {
			for _, s := range streams {
				if !s.free.After(now) { // each takes as fast as it may
					n := rapid.IntRange(1, 500).Draw(r, "bytes")
					wait, err := k.take(s.p, n, traffic{out: uint64(n)}, now)
					if err != nil {
						r.Fatal(err)
					}
					s.free = now.Add(wait)
					peers[s.p] += n
				}
			}
			now = now.Add(20 * time.Millisecond)
		}
		all, least, most := 0, 1<<62, 0
		for p, n := range peers {
			if got := int(k.moved(p).sum()); got != n {
				r.Fatalf("%d noted of %d", got, n)
			}
			// A burst, and one grant under way for each stream.
			if most := float64(limit.PerPeer)*10.3 + 21*500; float64(n) > most {
				r.Fatalf("%d bytes to one peer, at most %v", n, most)
			}
			all, least, most = all+n, min(least, n), max(most, n)
		}
		slack := float64(len(streams))*500 + float64(len(peers))*float64(limit.PerPeer)*1.3 // before all are seen
		if float64(all) > float64(limit.Total)*10+slack {
			r.Fatalf("%d bytes in all", all)
		}
	})
}

// A hundred streams of one peer do not take from another's share.
func TestRatesAreFair(t *testing.T) {
	k := newRates(Rates{PerPeer: 1000, Total: 1000})
	now := time.Unix(1e9, 0)
	free := make([]time.Time, 101) // the last is the other peer's
	got := [2]int{}
	for range 10_000 {
		for i := range free {
			who := min(1, i/100)
			if !free[i].After(now) {
				wait, err := k.take(peer.ID(fmt.Sprint(who)), 10, traffic{}, now)
				if err != nil {
					t.Fatal(err)
				}
				free[i] = now.Add(wait)
				got[who] += 10
			}
		}
		now = now.Add(10 * time.Millisecond)
	}
	if got[1] < 45_000 || got[0] > 55_000 {
		t.Errorf("100 streams got %d bytes, one stream of another peer %d", got[0], got[1])
	}
}

// An idle peer has its burst and no more, and is forgotten when many come.
func TestRatesIdle(t *testing.T) {
	k := newRates(Rates{PerPeer: 1000, Total: 10_000})
	now := time.Unix(1e9, 0)
	if w, _ := k.take("a", 250, traffic{in: 250}, now); w != 0 {
		t.Errorf("waits %v within the burst", w)
	}
	if w, _ := k.take("a", 1000, traffic{}, now); w != time.Second {
		t.Errorf("waits %v, want a second", w)
	}
	now = now.Add(time.Hour)
	if w, _ := k.take("a", 251, traffic{}, now); w != time.Millisecond {
		t.Errorf("waits %v after an hour", w)
	}
	if c := k.counters(); c.Waits != 2 || c.Waited != time.Second+time.Millisecond {
		t.Errorf("%+v", c)
	}
	now = now.Add(time.Hour)
	if w, err := k.take("a", 12_000, traffic{}, now); err != nil || w != 11750*time.Millisecond {
		t.Errorf("waits %v, %v", w, err)
	}
	if _, err := k.take("a", 1, traffic{}, now); !errors.Is(err, errOverShare) || k.counters().Refused != 1 {
		t.Errorf("far ahead: %v, %+v", err, k.counters())
	}
	if _, err := k.take("a", 1, traffic{}, now.Add(2*time.Second)); err != nil {
		t.Errorf("less far ahead: %v", err)
	}
	now = now.Add(time.Hour)
	for i := range 3 * maxShares {
		now = now.Add(100 * time.Millisecond)
		k.take(peer.ID(fmt.Sprint(i)), 1, traffic{}, now)
	}
	if len(k.peers) > 2*maxShares || k.moved("a") != (traffic{}) {
		t.Errorf("%d remembered", len(k.peers))
	}
}
