package node

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/xrpc"
)

// scribble puts and deletes a few records at random, some of them in batches.
func scribble(t *testing.T, n *Node, id space.ID, rng *rand.Rand, times int) {
	t.Helper()
	for i := range times {
		var writes []xrpc.Write
		for _, key := range rng.Perm(5)[:1+rng.IntN(3)] {
			w := xrpc.Write{Action: xrpc.ActionPut, Path: testPath(fmt.Sprint("key", key))}
			if rng.IntN(4) == 0 {
				w.Action, w.IfExists = xrpc.ActionDelete, true
			} else {
				rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"text":"%d of %d %d"}`, i, times, rng.Uint64()))
				if err != nil {
					t.Fatal(err)
				}
				w.Value = rec
			}
			writes = append(writes, w)
		}
		if _, err := n.Write(t.Context(), id, writes, xrpc.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// settleAll makes the history that both nodes hold final; a orders the log.
func settleAll(t *testing.T, a, b *Node, id space.ID) {
	t.Helper()
	soon(t, "a has stated its repo", stated(a, id))
	soon(t, "b has stated its repo", stated(b, id))
	soon(t, "both hold the same", alike(a, b, id))
	x, y := actorOf(t, a, id), actorOf(t, b, id)
	if _, err := a.amend(t.Context(), x, x.checkpoint(x.current())); err != nil {
		t.Fatal(err)
	}
	soon(t, "b knows what is final", func() error {
		if x.control().Head != y.control().Head {
			return fmt.Errorf("b is at %v", y.control().Head)
		}
		return nil
	})
	soon(t, "both hold the same", alike(a, b, id))
	soon(t, "b knows that a holds it", func() error {
		if len(y.keptElsewhere()) == 0 {
			return fmt.Errorf("nobody keeps it")
		}
		return nil
	})
}

// leavesOf is what a node holds of every path of every author, deletions
// included.
func leavesOf(t *testing.T, n *Node, id space.ID) map[string]space.CID {
	t.Helper()
	out := map[string]space.CID{}
	for author, r := range actorOf(t, n, id).snapshot("") {
		for i := range 5 {
			if leaf, ok := r.Leaf(testPath(fmt.Sprint("key", i))); ok {
				out[fmt.Sprint(author, i)] = leaf.CID
			}
		}
	}
	return out
}

func sameLeaves(t *testing.T, what string, a, b *Node, id space.ID) {
	t.Helper()
	x, y := leavesOf(t, a, id), leavesOf(t, b, id)
	if fmt.Sprint(x) != fmt.Sprint(y) {
		t.Fatalf("%s: without compaction %v, with %v", what, x, y)
	}
}

// redrawAll draws every author's records again from the log.
func redrawAll(t *testing.T, n *Node, id space.ID) {
	t.Helper()
	a := actorOf(t, n, id)
	err := inside(t, a, func() error {
		for author := range a.snapshot("") {
			if err := a.drawAgain(author); err != nil {
				return err
			}
		}
		a.retry()
		return a.broken
	})
	if err != nil {
		t.Fatal(err)
	}
}

// countHeld counts what the store has of a space in envelopes.
func countHeld(t *testing.T, n *Node, id space.ID) (here int) {
	t.Helper()
	a := actorOf(t, n, id)
	e := a.current()
	for head := range e.topic.Chains() {
		for seq := uint64(0); seq < head.Length; {
			run, err := a.store.Run(e.id, head.ID, seq, head.Head.Seq, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			if here += len(run); len(run) > 0 {
				seq = run[len(run)-1].Seq() + 1
				continue
			}
			next, gone, err := a.store.Thinned(e.id, head.ID, seq)
			if err != nil || !gone {
				t.Fatalf("nothing at %d: %v", seq, err)
			}
			seq = next
		}
	}
	return here
}

// TestNaiveCompact: a node that drops whatever was superseded stays like one
// that drops nothing, by digest, by every path, after it drew all records again
// from what it kept, and after it was given the old envelopes once more.
func TestNaiveCompact(t *testing.T) {
	a, b, id := twoOf(t)
	y := actorOf(t, b, id)
	for round := range 4 {
		rng := rand.New(rand.NewPCG(uint64(round), 7))
		scribble(t, a, id, rng, 15)
		scribble(t, b, id, rng, 25)
		settleAll(t, a, b, id)
		if err := a.compact(t.Context(), actorOf(t, a, id), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if a.stats.Compacted.Load() != 0 {
			t.Fatal("who admits newcomers dropped something")
		}
		if err := b.compact(t.Context(), y, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		before := b.stats.Compacted.Load()
		all := countHeld(t, b, id)
		if err := b.compact(t.Context(), y, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		dropped := int(b.stats.Compacted.Load() - before)
		if got := countHeld(t, b, id); dropped < 20 || got != all-dropped {
			t.Fatalf("%d of %d are left, %d were dropped", got, all, dropped)
		}
		sameLeaves(t, "compacted", a, b, id)
		sound(t, b, id)
		redrawAll(t, b, id)
		sameLeaves(t, "drawn again", a, b, id)
		soon(t, "both hold the same", alike(a, b, id))
	}
	replayAll(t, a, b, id)
	sameLeaves(t, "given the old ones again", a, b, id)
	redrawAll(t, b, id)
	sameLeaves(t, "and drawn again", a, b, id)
	soon(t, "both hold the same", alike(a, b, id))
	if s := statusOf(t, b, id); len(s.Mismatches) != 0 {
		t.Errorf("status shows %+v", s.Mismatches)
	}
}

// replayAll gives b every envelope that a holds, one by one and in runs.
func replayAll(t *testing.T, a, b *Node, id space.ID) {
	t.Helper()
	x, y := actorOf(t, a, id), actorOf(t, b, id)
	e := x.current()
	for head := range e.topic.Chains() {
		run, err := x.store.Run(e.id, head.ID, 0, head.Head.Seq, 1<<30)
		if err != nil || uint64(len(run)) != head.Length {
			t.Fatalf("%d of %d: %v", len(run), head.Length, err)
		}
		for i := range run {
			if n, _ := y.deliver(t.Context(), &runIn{topic: e.id, run: run[i : i+1]}); n != 0 {
				t.Errorf("an old envelope was taken")
			}
		}
		if n, _ := y.deliver(t.Context(), &runIn{topic: e.id, cert: &head.Cert, run: run[:min(len(run), envelope.MaxRun)]}); n != 0 {
			t.Errorf("%d old envelopes were taken", n)
		}
	}
}

// TestNothingGoesThatNobodyKeeps: without a node that admits newcomers and holds
// the same, and of what is not final, nothing is dropped.
func TestNothingGoesThatNobodyKeeps(t *testing.T) {
	a, b, id := twoOf(t)
	y := actorOf(t, b, id)
	scribble(t, b, id, rand.New(rand.NewPCG(1, 1)), 20)
	soon(t, "both hold the same", alike(a, b, id))
	later := time.Now().Add(time.Hour)
	if plan, err := y.superseded(t.Context(), later, map[uint64]bool{1: true}); err != nil || len(plan.chains) != 0 {
		t.Errorf("of what is not final %d chains would go: %v", len(plan.chains), err)
	}
	settleAll(t, a, b, id)
	if plan, err := y.superseded(t.Context(), later, map[uint64]bool{}); err != nil || len(plan.chains) != 0 {
		t.Errorf("of what nobody keeps %d chains would go: %v", len(plan.chains), err)
	}
	if plan, err := y.superseded(t.Context(), later, y.keptElsewhere()); err != nil || len(plan.chains) == 0 {
		t.Errorf("nothing would go: %v", err)
	}
	// A keeper lets newcomers in: it drops nothing, although another one has it.
	if _, err := a.SetKeeper(t.Context(), id, b.self.did, []xrpc.Cap{xrpc.CapAdmit}); err != nil {
		t.Fatal(err)
	}
	soon(t, "b is a keeper", func() error {
		if !y.admits() || len(y.keptElsewhere()) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if err := b.compact(t.Context(), y, later); err != nil || b.stats.Compacted.Load() != 0 {
		t.Errorf("a keeper dropped %d envelopes: %v", b.stats.Compacted.Load(), err)
	}
}

// TestPowerCutsWhileCompacting: wherever the power is cut, the node has every
// record, the digest of what it had, and can draw its records again.
func TestPowerCutsWhileCompacting(t *testing.T) {
	c := newCutter(1)
	home := newHome(t)
	a, b := boot(t, newHome(t), onDisk(nil)), boot(t, home, onDisk(c.disk))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	scribble(t, a, id, rand.New(rand.NewPCG(4, 4)), 5)
	scribble(t, b, id, rand.New(rand.NewPCG(3, 3)), 60)
	settleAll(t, a, b, id)
	peer := actorOf(t, a, id)
	c.mu.Lock()
	c.peer, c.on = peer, true
	c.mu.Unlock()
	if err := b.compact(t.Context(), actorOf(t, b, id), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.on = false
	c.cuts = append(c.cuts, cut{disk: c.disk.Clone(nil)}) // behind it all
	c.mu.Unlock()
	want := leavesOf(t, b, id)
	digest := statusOf(t, b, id).Digest
	halt(t, b)
	if len(c.cuts) < 3 {
		t.Fatalf("only %d cuts", len(c.cuts))
	}
	for i, cut := range c.cuts {
		n := boot(t, home, onDisk(cut.disk), func(c *Config) { c.NoReconcile = true })
		if got := statusOf(t, n, id); got.Digest != digest {
			t.Errorf("cut %d: digest %s, was %s", i, got.Digest, digest)
		}
		redrawAll(t, n, id)
		if got := leavesOf(t, n, id); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("cut %d: %v, want %v", i, got, want)
		}
		sound(t, n, id)
		halt(t, n)
	}
}
