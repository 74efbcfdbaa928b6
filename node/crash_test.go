package node

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// cut is what a power cut leaves, and what had been promised by then.
type cut struct {
	disk  *storetest.Disk
	acked map[string]string // texts by key
	heads map[envelope.ChainID]uint64
}

// cutter cuts the power of a node, in a clone, at some of the operations of
// its disk.
type cutter struct {
	disk *storetest.Disk
	rng  *rand.Rand
	many int // one in how many operations

	mu    sync.Mutex // guards what follows
	on    bool
	acked map[string]string
	peer  *actor // the other member, whose chains are what was published
	cuts  []cut
}

func newCutter(many int) *cutter {
	c := &cutter{disk: storetest.NewDisk(), rng: rand.New(rand.NewPCG(1, 2)), many: many, acked: map[string]string{}}
	c.disk.OnOp = c.op
	return c
}

func (c *cutter) op() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on || c.rng.IntN(c.many) != 0 {
		return
	}
	keep := func(n int) int { return c.rng.IntN(n + 1) }
	if c.rng.IntN(2) == 0 {
		keep = nil
	}
	// What was promised is noted before the clone, so that the clone owes it.
	at := cut{acked: maps.Clone(c.acked), heads: headsOf(c.peer)}
	at.disk = c.disk.Clone(keep)
	c.cuts = append(c.cuts, at)
}

func (c *cutter) ack(keys []string, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		c.acked[key] = text
	}
}

func headsOf(a *actor) map[envelope.ChainID]uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	heads := map[envelope.ChainID]uint64{}
	for ch := range a.now.topic.Chains() {
		heads[ch.ID] = ch.Head.Seq
	}
	return heads
}

// TestPowerCuts cuts the power at many operations of a member's disk while it
// writes, alone and many at once, and starts it again on what is left: what
// was acknowledged is there, no batch is there by halves, every digest is that
// of what it stands for, nothing was published that is not there, a chain is
// never resumed, and the other member gets it all.
func TestPowerCuts(t *testing.T) {
	c := newCutter(2)
	home := newHome(t)
	a, b := boot(t, home, onDisk(c.disk)), boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	peer, err := b.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.peer, c.on = peer, true
	c.mu.Unlock()
	c.write(t, a, id)
	c.mu.Lock()
	c.on = false
	cuts := c.cuts
	c.mu.Unlock()
	halt(t, a)
	if len(cuts) < 32 {
		t.Fatalf("only %d cuts", len(cuts))
	}
	c.rng.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	chains := headsOf(peer)
	for i, cut := range cuts[:min(len(cuts), 64)] {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			n := boot(t, home, onDisk(cut.disk))
			cut.check(t, n, id)
			fresh(t, n, id, chains)
			if i%4 == 0 {
				if _, err := n.Connect(t.Context(), fullAddrs(b.host)[0]); err != nil {
					t.Fatal(err)
				}
				soon(t, "both hold the same", alike(n, b, id))
				sound(t, b, id)
			}
			halt(t, n)
		})
	}
}

// write writes one after the other and many at once; the keys of a trio are
// always written together.
func (c *cutter) write(t *testing.T, n *Node, id space.ID) {
	put := func(text string, keys ...string) {
		if _, err := putAll(n, id, text, keys...); err != nil {
			t.Error(err)
			return
		}
		c.ack(keys, text)
	}
	for i := range 12 {
		put(fmt.Sprint("single ", i), fmt.Sprint("single-", i))
		put(fmt.Sprintf("%04d", i), "trio-a", "trio-b", "trio-c")
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 4 {
				put("many", fmt.Sprintf("many-%d-%d", w, i), fmt.Sprintf("many-%d-%d-too", w, i))
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		put(fmt.Sprintf("%04d", 12+i), "trio-a", "trio-b", "trio-c")
	}
}

func (at cut) check(t *testing.T, n *Node, id space.ID) {
	t.Helper()
	for key, text := range at.acked {
		got := textOf(t, n, id, key)
		if strings.HasPrefix(key, "trio") {
			if have, _ := strconv.Atoi(got); got == "" || fmt.Sprintf("%04d", have) < text {
				t.Errorf("%s says %q, %q was acknowledged", key, got, text)
			}
		} else if got != text {
			t.Errorf("%s says %q, %q was acknowledged", key, got, text)
		}
	}
	whole(t, n, id, "trio-a", "trio-b", "trio-c")
	for w := range 8 {
		for i := range 4 {
			whole(t, n, id, fmt.Sprintf("many-%d-%d", w, i), fmt.Sprintf("many-%d-%d-too", w, i))
		}
	}
	sound(t, n, id)
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	have := headsOf(a)
	a.mu.RLock()
	defer a.mu.RUnlock()
	for chain, seq := range at.heads {
		if own := a.chains[chain]; own == nil || own.device != a.self.device.ID() {
			continue // of the other member: it comes again
		}
		if have[chain] < seq {
			t.Errorf("chain %v was published up to %d and is here up to %d", chain, seq, have[chain])
		}
	}
}

// fresh checks that the next write opens a chain that nobody has seen.
func fresh(t *testing.T, n *Node, id space.ID, seen map[envelope.ChainID]uint64) {
	t.Helper()
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := putAll(n, id, "after the cut", "after"); err != nil {
		t.Fatal(err)
	}
	m := &whichChain{reply: make(chan envelope.ChainID, 1)}
	chain, err := ask(t.Context(), a, m, m.reply)
	if err != nil {
		t.Fatal(err)
	}
	if _, again := seen[chain]; again {
		t.Errorf("chain %v exists already", chain)
	}
	seen[chain] = 0
}

// whichChain asks an actor for the chain it writes.
type whichChain struct{ reply chan envelope.ChainID }

func (m *whichChain) handle(a *actor) { m.reply <- a.writer.Chain() }

func textOf(t *testing.T, n *Node, id space.ID, key string) string {
	t.Helper()
	r, err := n.Record(t.Context(), id, "", testPath(key))
	if err != nil {
		t.Errorf("%s: %v", key, err)
		return ""
	}
	b, err := r.Value.JSON()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), `"text":"`)
	text, _, _ := strings.Cut(rest, `"`)
	return text
}
