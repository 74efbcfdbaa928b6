//go:build !race

package node_test

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
)

var (
	many  = flag.Int("nodes", 200, "how many nodes the large hostile storm has, every tenth of them hostile")
	lasts = flag.Duration("lasts", 30*time.Minute, "how long it lasts")
)

// life is what a node says of its peers from a start to the next. It is the
// handler of its log.
type life struct {
	slog.Handler
	at    string // where it listens
	since time.Time

	mu    sync.Mutex                // guards what follows
	names map[string]map[string]int // peer, message
	warns map[string]map[string]int // of these the warnings
}

func (l *life) Enabled(_ context.Context, v slog.Level) bool { return v >= slog.LevelInfo }
func (l *life) WithAttrs([]slog.Attr) slog.Handler           { return l }

func (l *life) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "peer" {
			l.mu.Lock()
			defer l.mu.Unlock()
			note(l.names, a.Value.String(), r.Message)
			if r.Level >= slog.LevelWarn {
				note(l.warns, a.Value.String(), r.Message)
			}
		}
		return true
	})
	return nil
}

func note(of map[string]map[string]int, p, what string) {
	if of[p] == nil {
		of[p] = map[string]int{}
	}
	of[p][what]++
}

// lives are all that began, in their order.
type lives struct {
	mu  sync.Mutex // guards all
	all []*life
}

// begin gives a node that starts its log.
func (v *lives) begin(c *node.Config) {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := &life{at: c.Listen[0], since: time.Now(), names: map[string]map[string]int{}, warns: map[string]map[string]int{}}
	v.all = append(v.all, l)
	c.Log = slog.New(l)
}

// until is when a life ended: when the next one at its place began, or now.
func (v *lives) until(i int) time.Time {
	for _, next := range v.all[i+1:] {
		if next.at == v.all[i].at {
			return next.since
		}
	}
	return time.Now()
}

// TestHostileStorm is the story of TestChurn with every tenth node hostile,
// members that have turned: some state digests that are not, some withhold,
// some flood and some never answer.
func TestHostileStorm(t *testing.T) {
	nodes, length := 40, 5*time.Minute
	if testing.Short() {
		nodes, length = 16, 90*time.Second
	}
	if *full {
		nodes, length = *many, *lasts
	}
	roles := []string{liar, withholder, glutton, mute}
	for len(roles) < nodes/10 {
		roles = append(roles, roles[len(roles)%4])
	}
	hostileStorm(t, nodes-len(roles), roles, length)
}

// TestHostileKinds is a smaller storm with those who forge and talk nonsense,
// and with one who was never a member.
func TestHostileKinds(t *testing.T) {
	hostileStorm(t, 8, []string{forger, babbler, mute, stranger}, 90*time.Second)
}

// hostileStorm is a storm among honest nodes and hostile hosts. The honest lose
// nothing that was acknowledged and are equal a minute after it at the latest;
// who lied is named in their logs, and nobody else is.
func hostileStorm(t *testing.T, honest int, roles []string, lasts time.Duration) {
	const seed = 1
	wall := time.Now()
	testnet.Bubble(t, func(t *testing.T) {
		heard := &lives{}
		w := testnet.New(t, honest+len(roles), testnet.Link{
			Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.20, Slot: 10 * time.Millisecond, Mbps: 10_000,
		}, seed, heard.begin)
		w.Calm(*full) // a welcome to a big space takes longer than a join may on such links
		id := w.Space()
		for i, n := range w.Nodes() {
			if err := n.Put(id, fmt.Sprintf("before-%d", i), "all of them were honest"); err != nil {
				t.Fatal(err)
			}
		}
		w.WaitConverged(id, 2*time.Minute)
		w.Calm(false)
		t.Logf("seed %d: %d nodes are in the space", seed, len(w.Nodes()))
		var all []*hostile
		for i, role := range roles {
			all = append(all, turn(t, w.Node(honest+i), id, role, seed+uint64(i)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		victims := addresses(t, w.Nodes()[:honest])
		for _, x := range all {
			wg.Go(func() { x.attack(ctx, x.share(all, victims)) })
		}
		ledger := w.Storm(id, testnet.Storm{
			Seed: seed, Lasts: lasts, Churn: 0.20, Down: 30 * time.Second, Flap: time.Minute, Writes: 0.5, Rotate: 150 * time.Second,
			Turned: func() { catchUp(t, w.Node(0), id, all) },
		})
		took := w.WaitConverged(id, time.Minute)
		t.Logf("seed %d: %v; equal %v after the net was whole", seed, ledger, took)
		for i, n := range w.Nodes()[:honest] {
			if err := ledger.Held(n, id); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
			node.Sound(t, n.Node, id)
		}
		cancel()
		wg.Wait()
		judged(t, all, heard, victims, lasts)
	})
	t.Logf("%v of the wall clock", time.Since(wall))
}

// share is whom a host visits, and how often: those of one role part the victims
// among them, and visit together as often as one alone would. What a visit moves
// grows with the space.
func (x *hostile) share(all []*hostile, victims []peer.AddrInfo) (mine []peer.AddrInfo) {
	like := slices.DeleteFunc(slices.Clone(all), func(y *hostile) bool { return y.role != x.role })
	x.pace = visitEvery * time.Duration(len(like))
	for i := slices.Index(like, x); i < len(victims); i += len(like) {
		mine = append(mine, victims[i])
	}
	return mine
}

// catchUp lets hostile members know a new epoch: they are members still.
func catchUp(t *testing.T, n *testnet.Node, id space.ID, all []*hostile) {
	t.Helper()
	loot, err := node.Take(n.Node, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		x.learn(loot)
	}
}

// turn makes a hostile host of a member, or of nobody at its place.
func turn(t *testing.T, n *testnet.Node, id space.ID, role string, seed uint64) *hostile {
	t.Helper()
	loot, err := node.Take(n.Node, id)
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	key := loot.Host
	if role == stranger {
		if key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	listen, opts := n.Attach()
	return newHostile(t, role, loot, key, listen, opts, seed)
}

func addresses(t *testing.T, nodes []*testnet.Node) (out []peer.AddrInfo) {
	t.Helper()
	for _, n := range nodes {
		st, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		info, err := peer.AddrInfoFromString(st.Listen[0])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *info)
	}
	return out
}

// often is how many deeds to one life of a node it takes until that node has to
// have named the host.
func (x *hostile) often() int {
	switch x.crime() {
	case barren:
		return 12
	case forgeries:
		return 200
	}
	return 6
}

// judged holds what the honest nodes said of the hostile ones against what those
// did, and ends them. A node that was dealt with often enough between two starts
// names the host for it. No node warns of an honest one.
func judged(t *testing.T, all []*hostile, heard *lives, honest []peer.AddrInfo, lasts time.Duration) {
	t.Helper()
	at := map[string]peer.ID{}
	for _, v := range honest {
		at[v.Addrs[0].String()] = v.ID
	}
	hosts := map[string]bool{}
	for _, x := range all {
		hosts[x.h.ID().String()] = true
		wronged(t, x, heard, at)
		if per := float64(x.served.Load()) / lasts.Minutes() / float64(len(honest)); per > 20 {
			t.Errorf("%s is asked %.1f times a minute by each node", x.role, per)
		}
		x.h.Close()
	}
	for _, l := range heard.all {
		for p, what := range l.warns {
			if !hosts[p] {
				t.Errorf("an honest peer is warned of: %s %v", p, what)
			}
		}
	}
}

// wronged holds one hostile host against all lives of the nodes at some places.
func wronged(t *testing.T, x *hostile, heard *lives, at map[string]peer.ID) {
	t.Helper()
	id := x.h.ID().String()
	named, least, owed, missed := 0, 1<<30, 0, 0
	for i, l := range heard.all {
		p, ok := at[l.at]
		if !ok {
			continue
		}
		deeds := x.inRow(p, l.since, heard.until(i))
		switch n := l.names[id][x.crime()]; {
		case n > 0:
			named, least = named+1, min(least, deeds)
		default:
			missed = max(missed, deeds)
		}
		if deeds >= x.often() {
			owed++
			if l.names[id][x.crime()] == 0 {
				t.Errorf("%s: a node was dealt with %d times in %v and did not name it: it said %v", x.role, deeds, heard.until(i).Sub(l.since), l.names[id])
			}
		}
	}
	t.Logf("%s: %d streams served, %d opened, %d lies written, %d frames gossiped; named in %d lives, %d owed, least named %d, most missed %d",
		x.role, x.served.Load(), x.led.Load(), x.gave.Load(), x.sent.Load(), named, owed, least, missed)
	if named == 0 {
		t.Errorf("%s is not named for what it did", x.role)
	}
}
