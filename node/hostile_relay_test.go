//go:build !race

package node_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
	"github.com/kithnet/kith/xrpc"
)

// TestHostileHour gives two members, who meet for moments only, a relay that for
// sixty minutes drops, delays, reorders, replays, rolls back, equivocates and
// forges, in turns. Nothing that was written is lost or made up. Whenever it
// withheld what it had signed for, it is named when the two have met.
func TestHostileHour(t *testing.T) {
	lasts := time.Hour
	if testing.Short() {
		lasts = 15 * time.Minute
	}
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 30 * time.Millisecond, Jitter: 20 * time.Millisecond}, 6)
		s := &relayStory{t: t, w: w, r: w.Relay(), a: w.Node(0), b: w.Node(1), done: map[string]int{}}
		s.begin()
		deeds := map[string]func(){
			"drop": s.drops, "delay": s.delays, "reorder": s.reorders, "replay": s.replays,
			"roll back": s.rollsBack, "equivocate": s.equivocates, "forge": s.forges,
		}
		rng := rand.New(rand.NewPCG(6, 0))
		for start := time.Now(); time.Since(start) < lasts; {
			deck := []string{"drop", "delay", "reorder", "replay", "roll back", "equivocate", "forge"}
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			for _, deed := range deck {
				s.write(1)
				deeds[deed]()
				s.done[deed]++
				s.write(1)
				time.Sleep(90 * time.Second)
			}
		}
		s.end()
		t.Logf("%v; %d records, %d charges", s.done, len(s.written), s.charges())
	})
}

// relayStory is two members and the relay between them.
type relayStory struct {
	t       *testing.T
	w       *testnet.Net
	r       *testnet.Relay
	id      space.ID
	a, b    *testnet.Node
	written []string
	done    map[string]int
	hosts   int
}

func (s *relayStory) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// begin makes the space and walls the two off from each other.
func (s *relayStory) begin() {
	ctx := s.t.Context()
	info, err := s.a.CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.forum", Name: "forum", Relays: []string{s.r.Addr()}, Policy: space.DefaultPolicy()})
	s.must(err)
	s.id = info.ID
	inv, err := s.a.Invite(ctx, s.id, xrpc.InviteOptions{Level: space.LevelWrite})
	s.must(err)
	_, err = s.b.Join(ctx, inv.Link)
	s.must(err)
	s.write(2)
	s.w.WaitConverged(s.id, time.Minute)
	s.w.Wall(s.a, s.b)
}

// write lets each of the two write n records.
func (s *relayStory) write(n int) {
	s.t.Helper()
	for range n {
		s.says(s.a)
		s.says(s.b)
	}
}

func (s *relayStory) says(n *testnet.Node) {
	s.t.Helper()
	key := fmt.Sprint("k", len(s.written))
	s.must(n.Put(s.id, key, "in the hour of the relay"))
	s.written = append(s.written, key)
}

// drops: the relay takes what it is given, keeps nothing of it and signs for
// nothing; to the one who gave it that shows at once.
func (s *relayStory) drops() {
	s.impostor(withholder)
	row, err := s.row(s.a)
	s.must(err)
	if row.HoldsAll {
		s.t.Errorf("a relay that keeps nothing is said to hold all: %+v", row)
	}
	s.r.Start()
}

// delays: everything takes four seconds more.
func (s *relayStory) delays() {
	s.w.Delay(s.r, 2*time.Second)
	time.Sleep(15 * time.Second)
	s.write(1)
	time.Sleep(15 * time.Second)
	s.w.Delay(s.r, 0)
}

// reorders: runs come back to front, and gossip newest first.
func (s *relayStory) reorders() {
	s.impostor(shuffler)
	s.r.Start()
}

// replays: runs and gossip of before come again and again; then its receipts are
// of an hour ago, which is a charge of its own.
func (s *relayStory) replays() {
	s.impostor(replayer)
	before := s.charges()
	s.r.Start(func(c *relay.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
	s.until("old receipts are found out", 2*time.Minute, func() error { return s.caughtSince(before) })
	s.r.Stop()
	s.r.Start()
	s.meet()
}

// forges: envelopes with broken signatures, in runs and in gossip.
func (s *relayStory) forges() {
	s.impostor(forger)
	s.r.Start()
}

// rollsBack: what a wrote is signed for and then gone, for all that b can see.
func (s *relayStory) rollsBack() {
	s.fill()
	before := s.charges()
	s.r.Stop()
	old := s.r.Snapshot()
	s.r.Start()
	s.w.Part(s.b, s.r)
	s.says(s.a)
	s.signed(s.a)
	s.r.Stop()
	if s.r.Restore(old); s.done["roll back"]%2 == 1 {
		s.r.Wipe()
	}
	s.w.Part(s.a, s.r)
	s.w.Unpart(s.b, s.r)
	back := time.Now()
	s.r.Start()
	s.until("b has a receipt", 2*time.Minute, func() error { return s.signedAfter(s.b, back) })
	s.found(before)
}

// equivocates: the two see different sets of the same size, both signed.
func (s *relayStory) equivocates() {
	s.fill()
	before := s.charges()
	s.r.Stop()
	old := s.r.Snapshot()
	s.w.Part(s.b, s.r)
	s.r.Start()
	s.says(s.a)
	s.signed(s.a)
	s.r.Stop()
	s.r.Restore(old)
	s.w.Part(s.a, s.r)
	s.w.Unpart(s.b, s.r)
	s.r.Start()
	s.says(s.b)
	s.signed(s.b)
	s.found(before)
}

// fill waits until the relay has signed for all, and both hold the same.
func (s *relayStory) fill() {
	s.t.Helper()
	s.meet()
	s.signed(s.a)
	s.signed(s.b)
}

// found lets the two meet, once, after something was withheld: the relay is
// named then. A new epoch begins a new sheet.
func (s *relayStory) found(before int) {
	s.t.Helper()
	s.w.Unwall(s.a, s.b)
	s.w.WaitConverged(s.id, 2*time.Minute)
	s.until("what it withheld is found out", 2*time.Second, func() error { return s.caughtSince(before) })
	s.w.Unpart(s.a, s.r)
	_, err := s.a.Rotate(s.t.Context(), s.id)
	s.must(err)
	s.meet()
}

// meet is one exchange between the two.
func (s *relayStory) meet() {
	s.t.Helper()
	s.w.Unwall(s.a, s.b)
	s.w.WaitConverged(s.id, 2*time.Minute)
	s.w.Wall(s.a, s.b)
}

// impostor lets a host with the relay's key stand in its place for a while.
func (s *relayStory) impostor(role string) {
	s.t.Helper()
	s.meet()
	loot, err := node.Take(s.a.Node, s.id)
	s.must(err)
	s.r.Stop()
	key, listen, opts := s.r.Attach()
	s.hosts++
	x := newHostile(s.t, role, loot, key, listen, opts, uint64(s.hosts))
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	victims := addresses(s.t, s.w.Nodes())
	var wg sync.WaitGroup
	wg.Go(func() { x.attack(ctx, victims) })
	time.Sleep(10 * time.Second)
	s.write(1)
	wg.Wait()
	s.must(x.h.Close())
	if x.led.Load()+x.served.Load() == 0 {
		s.t.Errorf("the %s met nobody", role)
	}
}

func (s *relayStory) row(n *testnet.Node) (xrpc.RelayStatus, error) {
	st, err := n.SpaceStatus(s.id)
	if err != nil || len(st.Relays) != 1 {
		return xrpc.RelayStatus{}, fmt.Errorf("%d relays: %w", len(st.Relays), err)
	}
	return st.Relays[0], nil
}

// signed waits until the relay has signed for all that n holds.
func (s *relayStory) signed(n *testnet.Node) {
	s.t.Helper()
	s.until("the relay signed for all", 5*time.Minute, func() error {
		row, err := s.row(n)
		if err == nil && !row.HoldsAll {
			err = fmt.Errorf("it signed for %d entries: %s", row.Signed, row.LastError)
		}
		return err
	})
}

func (s *relayStory) signedAfter(n *testnet.Node, at time.Time) error {
	row, err := s.row(n)
	if err == nil && !time.UnixMilli(row.SignedAt).After(at) {
		err = errors.New("no new receipt")
	}
	return err
}

// charges are all that either knows.
func (s *relayStory) charges() int {
	all := map[string]bool{}
	for _, n := range s.w.Nodes() {
		row, err := s.row(n)
		s.must(err)
		for _, c := range row.Caught {
			all[c] = true
		}
	}
	return len(all)
}

func (s *relayStory) caughtSince(before int) error {
	if s.charges() == before {
		return fmt.Errorf("%d charges, as before", before)
	}
	return nil
}

func (s *relayStory) until(what string, limit time.Duration, check func() error) {
	s.t.Helper()
	for start := time.Now(); ; time.Sleep(250 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Since(start) > limit {
			s.t.Fatalf("%s: not within %v: %v; so far %v", what, limit, err, s.done)
		}
	}
}

// end holds what the two show against what was written.
func (s *relayStory) end() {
	s.w.Unwall(s.a, s.b)
	s.w.WaitConverged(s.id, 5*time.Minute)
	for i, n := range s.w.Nodes() {
		for _, key := range s.written {
			if err := n.Has(s.id, key); err != nil {
				s.t.Errorf("lost: node %d: %s: %v", i, key, err)
			}
		}
		st, err := n.SpaceStatus(s.id)
		if err != nil || st.Records != uint64(len(s.written)) || st.Frozen || st.Damaged {
			s.t.Errorf("node %d: %d records were written: %+v, %v", i, len(s.written), st, err)
		}
		node.Sound(s.t, n.Node, s.id)
	}
	for deed, n := range s.done {
		if n < 2 && !testing.Short() {
			s.t.Errorf("%s: %d times only", deed, n)
		}
	}
}
