package relay

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/space/envelope"
)

var full = flag.Bool("full", false, "run heavy tests at their whole size")

// crowd is a member with as many hosts as the relay has: each takes part in the
// topics that the relay's host of the same number serves.
type crowd struct {
	hosts  []host.Host
	meshes []*gossip.Mesh
	rep    []*replica
	topics []*gossip.Topic
	wg     sync.WaitGroup
	turn   chan struct{} // rounds at once
	rounds atomic.Int64
	wrote  atomic.Bool // from now on links are worth a round
}

func newCrowd(t *testing.T, n int) *crowd {
	c := &crowd{turn: make(chan struct{}, 16)}
	t.Cleanup(c.wg.Wait)
	for range n {
		h := loopbackHost(t)
		m, err := gossip.New(t.Context(), h, gossip.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		c.hosts, c.meshes = append(c.hosts, h), append(c.meshes, m)
	}
	return c
}

// leaseAll leases every world and says which host of the relay serves it.
func leaseAll(t *testing.T, r *Relay, worlds []*world) []int {
	t.Helper()
	at := make([]int, len(worlds))
	index := map[peer.ID]int{}
	for i, h := range r.hosts {
		index[h.ID()] = i
	}
	var wg sync.WaitGroup
	const clients = 16
	for k := range clients {
		m := &member{host: loopbackHost(t)}
		wg.Go(func() {
			var c *Client
			for n, i := 0, k; i < len(worlds); n, i = n+1, i+clients {
				if n%MaxRequests == 0 {
					c = m.dial(t, r)
				}
				l, err := c.Lease(worlds[i].describe(t, time.Now().Add(10*day), 0), "", worlds[i].prove)
				if err != nil {
					t.Errorf("lease %d: %v", i, err)
					return
				}
				at[i] = index[infoOf(t, l.Addrs).ID]
			}
		})
	}
	wg.Wait()
	return at
}

// join takes part in every topic on the host that fits.
func (c *crowd) join(t *testing.T, r *Relay, worlds []*world, at []int, heard func(i int)) {
	t.Helper()
	for i, h := range c.hosts {
		connect(t, h, peer.AddrInfo{ID: r.hosts[i].ID(), Addrs: r.hosts[i].Addrs()})
	}
	c.rep, c.topics = make([]*replica, len(worlds)), make([]*gossip.Topic, len(worlds))
	for i, w := range worlds {
		c.rep[i] = newReplica(w)
		top, err := c.meshes[at[i]].Join(w.topic, c.rep[i], func(_ peer.ID, f envelope.Frame) {
			_, _ = c.rep[i].Deliver(f.Cert, f.Run)
			heard(i)
		}, func(p peer.ID) { c.greet(t, w, i, at[i], p, heard) })
		if err != nil {
			t.Fatal(err)
		}
		c.topics[i] = top
	}
}

// greet does what a member does whenever gossip forms a link: what either side
// said before reached nobody, so it reconciles.
func (c *crowd) greet(t *testing.T, w *world, i, at int, with peer.ID, heard func(int)) {
	if !c.wrote.Load() {
		return
	}
	c.wg.Go(func() {
		c.turn <- struct{}{}
		defer func() { <-c.turn }()
		c.rounds.Add(1)
		res, err := (&member{host: c.hosts[at]}).sync(t.Context(), w, c.rep[i], with)
		if err == nil && res.Received > 0 {
			heard(i)
		}
	})
}

// TestManyTopics: on one relay process with more topics than one host of gossip
// may serve, a message on every topic arrives at a member who is connected to
// the relay alone, and is on the relay's disk. -full: 20,000 topics, past the
// 14,000 at which the greeting of one host no longer fits a message.
func TestManyTopics(t *testing.T) {
	topics, perHost := 2000, 800
	if *full {
		topics, perHost = 20_000, 8000
	}
	began := time.Now()
	lap := func(what string) {
		t.Logf("%-28s %6.1f s", what, time.Since(began).Seconds())
		began = time.Now()
	}
	r := startRelay(t, t.TempDir(), func(c *Config) { c.Hosts, c.TopicsPerHost = 3, perHost })
	worlds := make([]*world, topics)
	for i := range worlds {
		worlds[i] = newWorld(fmt.Sprint("many ", i))
	}
	at := leaseAll(t, r, worlds)
	if t.Failed() {
		return
	}
	lap("leases")
	if n := r.shards.Topics(); n != topics {
		t.Fatalf("the relay serves %d topics on gossip", n)
	}
	writer, reader := newCrowd(t, 3), newCrowd(t, 3)
	arrived := make([]atomic.Bool, topics)
	var count atomic.Int64
	reader.join(t, r, worlds, at, func(i int) {
		if !arrived[i].Swap(true) {
			count.Add(1)
		}
	})
	writer.join(t, r, worlds, at, func(int) {})
	lap("two members join all")
	for _, c := range []*crowd{writer, reader} {
		for i := range c.topics {
			eventually(t, "the relay is known in every topic", func() bool { return len(c.topics[i].Peers()) > 0 })
		}
	}
	lap("topics known to both")
	writer.wrote.Store(true)
	reader.wrote.Store(true)
	for i, w := range worlds {
		c := w.chain(t, fmt.Sprint("writer ", i), fmt.Sprint("chain ", i))
		writer.rep[i].hold(t, c)
		b, err := c.frame(t, 0, 0).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.topics[i].Publish(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	lap("a message on each")
	defer func() {
		if t.Failed() {
			t.Logf("arrived %d; relay %v", count.Load(), r.Counters())
			for _, c := range []*crowd{writer, reader} {
				t.Logf("%v", gossip.NewShards(c.meshes).Counters())
			}
		}
	}()
	eventually(t, "every message arrives", func() bool { return count.Load() == int64(topics) })
	lap("all have arrived")
	kept := 0
	for _, w := range worlds {
		rec, err := r.topic(w.topic).receipt(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		kept += int(rec.Count)
	}
	lap("receipts")
	if kept != topics {
		t.Errorf("%d of %d are on the relay's disk", kept, topics)
	}
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("rounds led because a link formed: %d by the writer, %d by the reader", writer.rounds.Load(), reader.rounds.Load())
	t.Logf("heap of relay and two members: %d MiB, %d goroutines; hosts serve %v",
		mem.HeapAlloc>>20, runtime.NumGoroutine(), hostsOf(r))
}

func hostsOf(r *Relay) []int {
	out := make([]int, len(r.hosts))
	for _, t := range r.all() {
		out[t.host]++
	}
	return out
}
