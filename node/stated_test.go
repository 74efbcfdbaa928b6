package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// twoOf is a space of two nodes in memory that hold the same, one record of
// each.
func twoOf(t *testing.T) (a, b *Node, id space.ID) {
	t.Helper()
	a, b = boot(t, newHome(t), onDisk(nil)), boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	for _, n := range []*Node{a, b} {
		if _, err := putAll(n, id, "first", "of-"+n.self.did.String()[len(n.self.did)-4:]); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, "both hold the same", alike(a, b, id))
	soon(t, "a has stated its repo", stated(a, id))
	soon(t, "b has stated its repo", stated(b, id))
	soon(t, "both hold the same", alike(a, b, id))
	return a, b, id
}

// declare lets a node state its repo, with a change to what is true.
func declare(t *testing.T, n *Node, id space.ID, change func(*space.Statement)) {
	t.Helper()
	a := actorOf(t, n, id)
	err := inside(t, a, func() error {
		c := a.begin()
		own := c.stage(n.self.did)
		s, err := a.statement(own.Count(), own.Digest(), own.Rev())
		if err != nil {
			return err
		}
		change(s)
		if err := a.sealBatch(c, space.Batch{Rev: own.Rev(), Stmt: s}, false); err != nil {
			return err
		}
		err = a.commitOwn(c)
		a.flushOutbox()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// compare lets a node hold its repos against their authors' words twice, with
// the time between that a difference must last.
func compare(t *testing.T, n *Node, id space.ID) {
	t.Helper()
	a := actorOf(t, n, id)
	inside(t, a, func() bool {
		for author := range a.repos {
			a.moved[author] = true
		}
		a.verify(time.Now())
		a.verify(time.Now().Add(apartFor))
		return true
	})
}

func statusOf(t *testing.T, n *Node, id space.ID) xrpc.SpaceStatus {
	t.Helper()
	return actorOf(t, n, id).status()
}

// spoil writes a record into the repo of another author that no entry holds, as
// a fault of this program or of the machine would.
func spoil(t *testing.T, n *Node, id space.ID, author space.DID, key string) {
	t.Helper()
	a := actorOf(t, n, id)
	rec, err := space.RecordFromJSON([]byte(`{"text":"nobody wrote this"}`))
	if err != nil {
		t.Fatal(err)
	}
	err = inside(t, a, func() error {
		c := a.begin()
		rev := a.repos[author].Rev()
		c.apply(author, space.Batch{Rev: rev, Ops: []space.Op{{Path: testPath(key), Value: rec}}}, space.Stamp{Rev: rev})
		return c.commit(0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRecordsAreDrawnAgain: records that are not what their author states are
// drawn again from the log, and then they are.
func TestRecordsAreDrawnAgain(t *testing.T) {
	a, b, id := twoOf(t)
	before := actorOf(t, a, id).snapshot(b.self.did)[b.self.did].Digest()
	spoil(t, a, id, b.self.did, "ghost")
	if cid, err := read(a, id, "ghost"); err != nil || cid.IsZero() {
		t.Fatalf("the spoilt record: %v, %v", cid, err)
	}
	compare(t, a, id)
	if cid, err := read(a, id, "ghost"); err != nil || !cid.IsZero() {
		t.Errorf("the spoilt record is still there: %v, %v", cid, err)
	}
	if got := actorOf(t, a, id).snapshot(b.self.did)[b.self.did].Digest(); got != before {
		t.Errorf("the repo is %x, was %x", got, before)
	}
	if a.stats.Redrawn.Load() != 1 || a.stats.Mended.Load() != 1 || a.stats.Mismatched.Load() != 0 {
		t.Errorf("drawn again %d, mended %d, mismatched %d", a.stats.Redrawn.Load(), a.stats.Mended.Load(), a.stats.Mismatched.Load())
	}
	if s := statusOf(t, a, id); len(s.Mismatches) != 0 {
		t.Errorf("status shows %+v", s.Mismatches)
	}
	sound(t, a, id)
}

// TestFalseWordIsReported: an author that states what its entries do not make
// is shown with both heads, drawn again once and no more; its next true word
// ends it.
func TestFalseWordIsReported(t *testing.T) {
	a, b, id := twoOf(t)
	declare(t, b, id, func(s *space.Statement) { s.Hash[0] ^= 1; s.Count += 7 })
	soon(t, "the false word is here", alike(a, b, id))
	for range 3 {
		compare(t, a, id)
	}
	if got := a.stats.Redrawn.Load(); got != 1 {
		t.Errorf("drawn again %d times", got)
	}
	s := statusOf(t, a, id)
	if len(s.Mismatches) != 1 {
		t.Fatalf("status shows %+v", s.Mismatches)
	}
	m := s.Mismatches[0]
	ours := actorOf(t, a, id).snapshot(b.self.did)[b.self.did]
	if m.Kind != xrpc.MismatchRecords || m.DID != b.self.did || m.Ours.Hash != fmt.Sprintf("%x", ours.Digest()) ||
		m.Ours.Count != 1 || m.Stated.Count != 8 || m.Stated.Hash == m.Ours.Hash || m.Stated.Rev == "" {
		t.Errorf("shown as %+v", m)
	}
	declare(t, b, id, func(*space.Statement) {})
	soon(t, "the true word ends it", func() error {
		compare(t, a, id)
		if got := actorOf(t, a, id).status().Mismatches; len(got) > 0 {
			return fmt.Errorf("still %+v", got)
		}
		return nil
	})
}

// TestWordAfterRestart: what a statement is about is found by its signature
// after a restart, so that records are compared before the author writes again.
func TestWordAfterRestart(t *testing.T) {
	a, b, id := twoOf(t)
	spoil(t, a, id, b.self.did, "ghost")
	x := actorOf(t, a, id)
	if err := inside(t, x, func() error { return x.load() }); err != nil {
		t.Fatal(err)
	}
	compare(t, a, id)
	if cid, err := read(a, id, "ghost"); err != nil || !cid.IsZero() {
		t.Errorf("the spoilt record is still there: %v, %v", cid, err)
	}
}

// TestS2ClaimedEqual: a peer says that its digest is ours and lacks entries.
// Its owner's next entry says how many it held: the claim is logged, counted and
// shown, and it is in sync no more.
func TestS2ClaimedEqual(t *testing.T) {
	a, b, id := twoOf(t)
	x, liar := actorOf(t, a, id), b.host.ID()
	claimed := func() error {
		x.mu.RLock()
		defer x.mu.RUnlock()
		if c := x.claims[liar][x.now.n]; c.count != x.now.topic.Count() {
			return errors.New("no claim yet")
		}
		return nil
	}
	soon(t, "b claims to hold the same", claimed)
	declare(t, b, id, func(*space.Statement) {})
	soon(t, "an honest word", alike(a, b, id))
	if s := statusOf(t, a, id); len(s.Mismatches) != 0 {
		t.Fatalf("an honest peer is shown: %+v", s.Mismatches)
	}
	// Old entries that are read again are no later word.
	if err := inside(t, x, func() error {
		c := x.begin()
		for _, ch := range x.chains {
			if ch.author == b.self.did {
				c.applied[ch] = position{}
				ch.reader = nil
			}
		}
		if err := c.commit(0); err != nil {
			return err
		}
		x.mu.Lock()
		clear(x.claims)
		x.claimed(liar, x.now, x.now.topic.Count())
		x.mu.Unlock()
		x.retry()
		return x.broken
	}); err != nil {
		t.Fatal(err)
	}
	if s := statusOf(t, a, id); len(s.Mismatches) != 0 {
		t.Fatalf("an honest peer is shown for what it wrote long ago: %+v", s.Mismatches)
	}
	soon(t, "b claims to hold the same", claimed)
	var held uint64
	declare(t, b, id, func(s *space.Statement) { s.View.Count -= 4; held = s.View.Count })
	soon(t, "the claim is belied", func() error {
		if a.stats.Belied.Load() != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	s := statusOf(t, a, id)
	if len(s.Mismatches) != 1 || s.Mismatches[0].Kind != xrpc.MismatchView || s.Mismatches[0].PeerID != liar.String() ||
		s.Mismatches[0].DID != b.self.did || s.Mismatches[0].Stated.Count != held || s.Mismatches[0].Ours.Count <= held {
		t.Errorf("status shows %+v", s.Mismatches)
	}
}

// TestS14ForwardedCommit: a third party puts an author's signature under another
// hash, which the keying material in the commit allows, and says so in an entry
// of its own. Nobody takes it for the author's word, and no commit is served of
// it.
func TestS14ForwardedCommit(t *testing.T) {
	a, b, id := twoOf(t)
	x := actorOf(t, b, id)
	before := x.repos[a.self.did].said
	declare(t, b, id, func(s *space.Statement) {
		s.IKM, s.Sig = before.IKM, before.Sig
		s.Hash[5] ^= 1
	})
	soon(t, "the forgery is everywhere", alike(a, b, id))
	for _, n := range []*Node{a, b} {
		y := actorOf(t, n, id)
		y.mu.RLock()
		if got := y.repos[a.self.did].said; got.Hash != before.Hash || got.Sig != before.Sig {
			t.Errorf("the author's word is now %x", got.Hash)
		}
		y.mu.RUnlock()
	}
	s, err := a.RepoState(t.Context(), id, b.self.did)
	if err != nil || s.Commit != nil {
		t.Errorf("a commit of the forger's repo under another's signature: %v, %v", s.Commit, err)
	}
	s, err = b.RepoState(t.Context(), id, a.self.did)
	if err != nil || s.Commit == nil || s.Commit.Hash != before.Hash {
		t.Errorf("the author's own commit: %v, %v", s.Commit, err)
	}
}
