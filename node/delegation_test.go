package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
	"github.com/kithnet/kith/xrpc"
)

// family is a net of nodes in which some spaces are members of others.
type family struct {
	*testnet.Net
	t *testing.T
}

func newFamily(t *testing.T, n int) family {
	return family{testnet.New(t, n, testnet.Link{Latency: 5 * time.Millisecond}, 1), t}
}

func (f family) create(by int, name string, change ...func(*space.Policy)) space.ID {
	f.t.Helper()
	p := space.DefaultPolicy()
	for _, c := range change {
		c(&p)
	}
	info, err := f.Node(by).CreateSpace(f.t.Context(), xrpc.NewSpace{Type: "com.example.forum", Key: space.RecordKey(name), Name: name, Policy: p})
	if err != nil {
		f.t.Fatal(err)
	}
	return info.ID
}

func (f family) join(authority, newcomer int, id space.ID, level space.Level) {
	f.t.Helper()
	inv, err := f.Node(authority).Invite(f.t.Context(), id, xrpc.InviteOptions{Level: level, MaxUses: 1})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := f.Node(newcomer).Join(ctx, inv.Link); err != nil {
		f.t.Fatal(err)
	}
}

func (f family) delegate(by int, parent, child space.ID, level space.Level) {
	f.t.Helper()
	if _, err := f.Node(by).Delegate(f.t.Context(), parent, child, level); err != nil {
		f.t.Fatal(err)
	}
}

// within polls in virtual time.
func (f family) within(limit time.Duration, what string, check func() error) time.Duration {
	f.t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			f.t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (f family) level(n int, id space.ID, want space.Level) func() error {
	return func() error {
		info, err := f.Node(n).Space(context.Background(), id)
		if err != nil {
			return err
		}
		s, err := f.Node(n).SpaceStatus(id)
		if err == nil && (info.Level != want || s.LastError != "") {
			err = fmt.Errorf("level %v, want %v; %s", info.Level, want, s.LastError)
		}
		return err
	}
}

func (f family) role(n int, id space.ID, want string) func() error {
	return func() error {
		s, err := f.Node(n).SpaceStatus(id)
		if err == nil && s.Role != want {
			err = fmt.Errorf("role %s, want %s", s.Role, want)
		}
		return err
	}
}

// holds is whether the node has the keys of an epoch, whatever it shows.
func (f family) holds(n int, id space.ID, epoch uint64) bool {
	f.t.Helper()
	h, err := node.Dump(f.Node(n).Node)
	if err != nil {
		f.t.Fatal(err)
	}
	s := h.Spaces[id]
	return s != nil && (s.Keys[epoch] != nil || s.Closed[epoch] != nil)
}

func (f family) has(n int, id space.ID, key string) func() error {
	return func() error { return f.Node(n).Has(id, key) }
}

func (f family) put(n int, id space.ID, key string) {
	f.t.Helper()
	if err := f.Node(n).Put(id, key, "text of "+key); err != nil {
		f.t.Fatal(err)
	}
}

// TestDelegation: who belongs to a child has its place in the parent without
// anybody inviting it; what it writes is everywhere the same; who leaves the
// child is out of the parent within a minute.
func TestDelegation(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 4) // 0: parent's authority, 1: child's, 2 and 3: its members
		parent, child := f.create(0, "parent"), f.create(1, "child")
		f.put(0, parent, "before")
		f.join(1, 0, child, space.LevelWrite)
		f.join(1, 2, child, space.LevelWrite)
		f.join(1, 3, child, space.LevelWrite)
		f.delegate(0, parent, child, space.LevelWrite)
		for _, n := range []int{1, 2, 3} {
			took := f.within(30*time.Second, "a member of the child enters the parent", f.level(n, parent, space.LevelWrite))
			t.Logf("node %d in the parent after %v", n, took)
			f.within(time.Minute, "and reads it", f.has(n, parent, "before"))
		}
		for _, n := range []int{2, 3} {
			f.put(n, parent, fmt.Sprintf("from-%d", n))
		}
		for n := range 4 {
			for _, from := range []int{2, 3} {
				f.within(time.Minute, fmt.Sprintf("node %d reads %d", n, from), f.has(n, parent, fmt.Sprintf("from-%d", from)))
			}
		}
		f.WaitConverged(parent, time.Minute)

		gone := did(t, f.Node(3).Node)
		if err := f.Node(1).RemoveMember(t.Context(), child, gone); err != nil {
			t.Fatal(err)
		}
		took := f.within(time.Minute, "the parent opens a new epoch", func() error {
			s, err := f.Node(0).SpaceStatus(parent)
			if err == nil && s.Epoch != 2 {
				err = fmt.Errorf("epoch %d", s.Epoch)
			}
			return err
		})
		t.Logf("the parent rotated %v after the removal in the child", took)
		for _, n := range []int{1, 2} {
			f.within(time.Minute, "who is still in the child goes on", f.level(n, parent, space.LevelWrite))
		}
		f.put(2, parent, "after")
		f.put(0, parent, "after-too")
		for _, n := range []int{0, 1, 2} {
			for _, key := range []string{"after", "after-too", "from-2", "from-3"} {
				f.within(time.Minute, fmt.Sprintf("node %d reads %s", n, key), f.has(n, parent, key))
			}
		}
		time.Sleep(2 * time.Minute)
		if !f.holds(3, parent, 1) || f.holds(3, parent, 2) || f.holds(3, child, 2) {
			t.Error("who was removed from the child has keys of the epochs after, or none of those before")
		}
		if err := f.Node(3).Put(parent, "late", "late"); err == nil {
			t.Error("who was removed from the child writes on")
		}
	})
}

// TestDelegationRestart: who is sent finds its place again after a restart, and
// takes part in what it missed.
func TestDelegationRestart(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 3)
		parent, child := f.create(0, "parent"), f.create(0, "child")
		f.join(0, 1, child, space.LevelWrite)
		f.join(0, 2, child, space.LevelWrite)
		f.delegate(0, parent, child, space.LevelWrite)
		for _, n := range []int{1, 2} {
			f.within(time.Minute, "enters", f.level(n, parent, space.LevelWrite))
		}
		f.put(1, parent, "one")
		f.within(time.Minute, "is read", f.has(2, parent, "one"))
		f.Node(1).Stop()
		// Two epochs that node 1 misses: one of the child, and so one of the parent.
		if _, err := f.Node(0).Rotate(t.Context(), child); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "the parent follows", func() error {
			s, err := f.Node(2).SpaceStatus(parent)
			if err == nil && (s.Epoch != 2 || s.LastError != "") {
				err = fmt.Errorf("epoch %d, %s", s.Epoch, s.LastError)
			}
			return err
		})
		f.put(2, parent, "two")
		f.Node(1).Start()
		f.within(2*time.Minute, "reads what it missed", f.has(1, parent, "two"))
		f.within(time.Minute, "writes again", f.level(1, parent, space.LevelWrite))
		f.put(1, parent, "three")
		for n := range 3 {
			for _, key := range []string{"one", "two", "three"} {
				f.within(2*time.Minute, fmt.Sprintf("node %d reads %s", n, key), f.has(n, parent, key))
			}
		}
		f.WaitConverged(parent, time.Minute)
	})
}

// TestDelegationLevels: along a path the lowest level counts.
func TestDelegationLevels(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 4)
		grand, parent, child := f.create(0, "grand"), f.create(0, "parent"), f.create(0, "child")
		f.join(0, 1, child, space.LevelWrite)
		f.join(0, 2, child, space.LevelRead)
		f.join(0, 3, child, space.LevelReadSelf)
		f.delegate(0, parent, child, space.LevelWrite)
		f.delegate(0, grand, parent, space.LevelRead)
		for n, want := range map[int][2]space.Level{
			1: {space.LevelWrite, space.LevelRead},
			2: {space.LevelRead, space.LevelRead},
			3: {space.LevelReadSelf, space.LevelReadSelf},
		} {
			f.within(2*time.Minute, fmt.Sprintf("node %d in the parent", n), f.level(n, parent, want[0]))
			f.within(2*time.Minute, fmt.Sprintf("node %d in the parent's parent", n), f.level(n, grand, want[1]))
		}
		f.put(0, grand, "news")
		for _, n := range []int{1, 2} {
			f.within(time.Minute, "reads", f.has(n, grand, "news"))
			if err := f.Node(n).Put(grand, "no", "no"); !errors.Is(err, space.ErrForbidden) {
				t.Errorf("node %d writes at read: %v", n, err)
			}
		}
		f.put(1, parent, "word")
		f.within(time.Minute, "the authority reads", f.has(0, parent, "word"))
		time.Sleep(time.Minute)
		for _, id := range []space.ID{grand, parent} {
			for _, key := range []string{"news", "word"} {
				if err := f.Node(3).Has(id, key); err == nil {
					t.Errorf("who reads only itself reads %q", key)
				}
			}
		}
		// The middle goes: the far end follows.
		if err := f.Node(0).RemoveMember(t.Context(), child, did(t, f.Node(1).Node)); err != nil {
			t.Fatal(err)
		}
		f.within(2*time.Minute, "the far end rotates", func() error {
			s, err := f.Node(0).SpaceStatus(grand)
			if err == nil && s.Epoch < 2 {
				err = fmt.Errorf("epoch %d", s.Epoch)
			}
			return err
		})
		f.put(0, grand, "later")
		f.within(time.Minute, "who stays reads", f.has(2, grand, "later"))
		time.Sleep(time.Minute)
		if f.holds(1, grand, 2) || f.holds(1, parent, 2) {
			t.Error("who was removed at the near end has keys at the far end")
		}
	})
}

// TestDelegationCut: who was removed from the child while nothing reached it
// wrote for nobody; who stayed in it and was as far away loses nothing.
func TestDelegationCut(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 4)
		parent, child := f.create(0, "parent"), f.create(1, "child")
		f.join(1, 0, child, space.LevelWrite)
		for _, n := range []int{2, 3} {
			f.join(1, n, child, space.LevelWrite)
		}
		f.delegate(0, parent, child, space.LevelWrite)
		for _, n := range []int{2, 3} {
			f.within(time.Minute, "enters", f.level(n, parent, space.LevelWrite))
			f.put(n, parent, fmt.Sprintf("early-%d", n))
		}
		f.within(time.Minute, "both are known", func() error {
			return errors.Join(f.has(0, parent, "early-2")(), f.has(0, parent, "early-3")())
		})
		f.WaitConverged(parent, time.Minute)
		f.Node(0).Restart() // what it knows of its authors, it knows from its store
		f.within(time.Minute, "reads on", f.has(0, parent, "early-3"))

		f.Partition(f.Nodes()[:2], f.Nodes()[2:3], f.Nodes()[3:])
		time.Sleep(30 * time.Second)
		if err := f.Node(1).RemoveMember(t.Context(), child, did(t, f.Node(3).Node)); err != nil {
			t.Fatal(err)
		}
		f.put(2, parent, "kept")
		f.put(3, parent, "late")
		f.within(time.Minute, "the parent rotates", func() error {
			s, err := f.Node(0).SpaceStatus(parent)
			if err == nil && s.Epoch != 2 {
				err = fmt.Errorf("epoch %d", s.Epoch)
			}
			return err
		})
		f.Heal()
		for n := range 3 {
			f.within(3*time.Minute, fmt.Sprintf("node %d reads what the one that stayed wrote", n), f.has(n, parent, "kept"))
			f.within(time.Minute, "and what came early", f.has(n, parent, "early-3"))
		}
		time.Sleep(3 * time.Minute)
		if left, err := node.Unwritten(f.Node(2).Node, parent); err != nil || left != 0 {
			t.Errorf("%d batches would be written once more, %v", left, err)
		}
		for n := range 3 {
			if err := f.Node(n).Has(parent, "late"); err == nil {
				t.Errorf("node %d shows what was written after the removal", n)
			}
		}
		// Node 3 sees its own refused, and says so.
		f.within(3*time.Minute, "the one that was removed knows", f.role(3, child, "removed"))
		f.within(3*time.Minute, "in the parent too", f.role(3, parent, "removed"))
	})
}

// TestDelegationBoth: who is in the roster and sent besides has the better of
// both, and every chain it begins proves anew who it is.
func TestDelegationBoth(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 3)
		parent, child := f.create(0, "parent"), f.create(0, "child")
		f.join(0, 1, parent, space.LevelRead)
		f.join(0, 2, parent, space.LevelRead)
		f.join(0, 1, child, space.LevelWrite)
		f.delegate(0, parent, child, space.LevelWrite)
		f.within(time.Minute, "is raised by the child", f.level(1, parent, space.LevelWrite))
		for i := range 3 {
			key := fmt.Sprintf("chain-%d", i)
			f.put(1, parent, key)
			for _, n := range []int{0, 2} {
				f.within(time.Minute, fmt.Sprintf("node %d reads %s", n, key), f.has(n, parent, key))
			}
			f.Node(1).Restart()
			f.within(time.Minute, "is back", f.level(1, parent, space.LevelWrite))
		}
		f.WaitConverged(parent, time.Minute) // or the cut leaves out what nobody saw
		if err := f.Node(0).RemoveMember(t.Context(), child, did(t, f.Node(1).Node)); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "falls back to what the roster gives", f.level(1, parent, space.LevelRead))
		f.put(0, parent, "after")
		f.within(time.Minute, "and reads", f.has(1, parent, "after"))
		if err := f.Node(1).Put(parent, "no", "no"); !errors.Is(err, space.ErrForbidden) {
			t.Errorf("and writes: %v", err)
		}
	})
}

// TestDelegationKeeper: a keeper of the parent that is in no child acts on a
// removal in the child while the parent's authority is off.
func TestDelegationKeeper(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 4) // 3 keeps the parent and is in no child
		parent, child := f.create(0, "parent"), f.create(1, "child")
		f.join(1, 0, child, space.LevelWrite)
		f.join(1, 2, child, space.LevelWrite)
		f.join(0, 3, parent, space.LevelWrite)
		f.delegate(0, parent, child, space.LevelWrite)
		keeper := did(t, f.Node(3).Node)
		all := []xrpc.Cap{xrpc.CapAdmit, xrpc.CapSequence, xrpc.CapServe}
		if _, err := f.Node(0).SetKeeper(t.Context(), parent, keeper, all); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Node(0).AppointSequencer(t.Context(), parent, keeper); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "enters", f.level(2, parent, space.LevelWrite))
		f.within(time.Minute, "the keeper orders the log", func() error {
			all, err := f.Node(3).Members(t.Context(), parent)
			if i := slices.IndexFunc(all, func(m xrpc.Member) bool { return m.Sequencer }); err == nil && (i < 0 || all[i].DID != keeper) {
				err = errors.New("it does not yet")
			}
			return err
		})
		time.Sleep(time.Minute) // the child's node learns who keeps its parent
		f.Node(0).Stop()
		if err := f.Node(1).RemoveMember(t.Context(), child, did(t, f.Node(2).Node)); err != nil {
			t.Fatal(err)
		}
		took := f.within(time.Minute, "the keeper rotates the parent", func() error {
			s, err := f.Node(3).SpaceStatus(parent)
			if err == nil && s.Epoch != 2 {
				err = fmt.Errorf("epoch %d", s.Epoch)
			}
			return err
		})
		t.Logf("%v", took)
		f.put(3, parent, "after")
		f.within(time.Minute, "who is in the child still reads", f.has(1, parent, "after"))
		time.Sleep(time.Minute)
		if f.holds(2, parent, 2) {
			t.Error("who was removed from the child has the keys of the parent's new epoch")
		}
	})
}

// TestC13DelegationDepth: nine spaces one within the other are one too many,
// and that is said.
func TestC13DelegationDepth(t *testing.T) {
	n := start(t, t.TempDir())
	ids := make([]space.ID, 10)
	for i := range ids {
		ids[i] = create(t, n, fmt.Sprintf("s%d", i))
	}
	for i := 8; i >= 1; i-- {
		if _, err := n.Delegate(t.Context(), ids[i], ids[i+1], space.LevelWrite); err != nil {
			t.Fatalf("%d within %d: %v", i+1, i, err)
		}
	}
	if _, err := n.Delegate(t.Context(), ids[0], ids[1], space.LevelWrite); !errors.Is(err, space.ErrDelegationDepth) {
		t.Fatalf("a chain of nine: %v", err)
	}
	if all, err := n.Delegations(t.Context(), ids[0]); err != nil || len(all) != 0 {
		t.Fatalf("%v, %v", all, err)
	}
	if _, err := n.Delegate(t.Context(), ids[0], ids[2], space.LevelWrite); err != nil {
		t.Fatalf("a chain of eight: %v", err)
	}
	if all, err := n.Delegations(t.Context(), ids[0]); err != nil || len(all) != 1 || all[0].Depth != 8 || all[0].Child != ids[2] {
		t.Fatalf("%+v, %v", all, err)
	}
}

// TestC14DelegationCycle: no space is within itself, however indirectly, and
// of two ways into a space the better one counts.
func TestC14DelegationCycle(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 2)
		n, ctx := f.Node(0), t.Context()
		a, b, c := f.create(0, "a"), f.create(0, "b"), f.create(0, "c")
		if _, err := n.Delegate(ctx, a, a, space.LevelRead); !errors.Is(err, space.ErrDelegationCycle) {
			t.Errorf("itself: %v", err)
		}
		f.delegate(0, a, b, space.LevelRead)
		if _, err := n.Delegate(ctx, b, a, space.LevelRead); !errors.Is(err, space.ErrDelegationCycle) {
			t.Errorf("its parent: %v", err)
		}
		f.delegate(0, b, c, space.LevelRead)
		if _, err := n.Delegate(ctx, c, b, space.LevelWrite); !errors.Is(err, space.ErrDelegationCycle) {
			t.Errorf("its parent: %v", err)
		}
		f.within(time.Minute, "a learns what is below b", func() error {
			all, err := n.Delegations(ctx, a)
			if err == nil && (len(all) != 1 || all[0].Depth != 2) {
				err = fmt.Errorf("%+v", all)
			}
			return err
		})
		if _, err := n.Delegate(ctx, c, a, space.LevelWrite); !errors.Is(err, space.ErrDelegationCycle) {
			t.Errorf("its parent's parent: %v", err)
		}
		for _, bad := range []space.Level{space.LevelNone, space.LevelReadSelf} {
			if _, err := n.Delegate(ctx, a, c, bad); !errors.Is(err, space.ErrMalformed) {
				t.Errorf("at %v: %v", bad, err)
			}
		}
		if err := n.Undelegate(ctx, a, c); !errors.Is(err, space.ErrMemberNotFound) {
			t.Errorf("take out what is not in: %v", err)
		}
		if _, err := n.Delegate(ctx, a, space.ID{Authority: c.Authority, Type: c.Type, Key: "none"}, space.LevelRead); !errors.Is(err, space.ErrSpaceNotFound) {
			t.Errorf("a space that nobody knows: %v", err)
		}

		still := f.create(0, "still", func(p *space.Policy) {
			p.KeyPolicy = space.KeysStatic
			p.Mint = space.MintPublic
		})
		if _, err := n.Delegate(ctx, a, still, space.LevelRead); !errors.Is(err, space.ErrUnsupported) {
			t.Errorf("a space whose keys never change: %v", err)
		}

		// Diamonds: the same two ways, made in both orders.
		low := f.create(0, "low")
		f.join(0, 1, low, space.LevelWrite)
		for i, order := range [][2]space.Level{{space.LevelRead, space.LevelWrite}, {space.LevelWrite, space.LevelRead}} {
			top := f.create(0, fmt.Sprintf("top%d", i))
			for j, level := range order {
				way := f.create(0, fmt.Sprintf("way%d%d", i, j))
				f.delegate(0, way, low, space.LevelWrite)
				f.delegate(0, top, way, level)
			}
			f.within(2*time.Minute, "the better way counts", f.level(1, top, space.LevelWrite))
			f.put(1, top, "word")
			f.within(time.Minute, "and is written", f.has(0, top, "word"))
		}
	})
}

// TestUndelegate: a child that is taken out takes with it all that it sent.
func TestUndelegate(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		f := newFamily(t, 3)
		parent, child := f.create(0, "parent"), f.create(1, "child")
		f.join(1, 0, child, space.LevelWrite)
		f.join(1, 2, child, space.LevelWrite)
		f.delegate(0, parent, child, space.LevelWrite)
		f.within(time.Minute, "enters", f.level(2, parent, space.LevelWrite))
		f.put(2, parent, "word")
		f.within(time.Minute, "is read", f.has(0, parent, "word"))
		// What callers of the API see goes by the same roads.
		sees := func(want space.Level) {
			t.Helper()
			if got, err := f.Node(0).Level(t.Context(), parent, did(t, f.Node(2).Node)); got != want || err != nil {
				t.Errorf("who is sent may see %v (%v), want %v", got, err, want)
			}
		}
		sees(space.LevelWrite)
		if err := f.Node(0).Undelegate(t.Context(), parent, child); err != nil {
			t.Fatal(err)
		}
		sees(space.LevelNone)
		f.put(0, parent, "after")
		f.within(time.Minute, "knows", f.role(2, parent, "removed"))
		time.Sleep(2 * time.Minute)
		if f.holds(2, parent, 2) {
			t.Error("who came by a child that was taken out has the keys of the new epoch")
		}
		if err := f.has(0, parent, "word")(); err != nil {
			t.Errorf("what it wrote before is gone: %v", err)
		}
		// In again, at another level.
		f.delegate(0, parent, child, space.LevelRead)
		f.within(2*time.Hour, "is back", f.level(2, parent, space.LevelRead))
		f.within(time.Minute, "reads again", f.has(2, parent, "after"))
	})
}

// TestDelegationRaisesKeeper: a keeper that reads, and is sent at write, is no
// member that writes by the roster: its own issuer gives it no certificate. It
// asks another keeper for one, once, and stays a keeper.
func TestDelegationRaisesKeeper(t *testing.T) {
	t.Parallel()
	ann, bob := start(t, t.TempDir()), start(t, t.TempDir())
	parent, child := create(t, ann, "parent"), create(t, ann, "child")
	joinAt(t, ann, bob, parent, space.LevelRead)
	joinAt(t, ann, bob, child, space.LevelWrite)
	if _, err := ann.SetKeeper(t.Context(), parent, did(t, bob), []xrpc.Cap{xrpc.CapAdmit}); err != nil {
		t.Fatal(err)
	}
	admits := func(epoch uint64) func() error {
		return func() error {
			h, err := node.Dump(bob)
			if err == nil && h.Spaces[parent].Issuers[epoch] == nil {
				err = fmt.Errorf("no issuer of epoch %d", epoch)
			}
			return err
		}
	}
	eventually(t, "the keeper has the issuer", admits(1))
	if _, err := ann.Delegate(t.Context(), parent, child, space.LevelWrite); err != nil {
		t.Fatal(err)
	}
	writes := func(key string) func() error {
		return func() error {
			rec, err := space.RecordFromJSON([]byte(`{"$type":"com.example.forum.post","text":"sent"}`))
			if err == nil {
				_, err = bob.Write(t.Context(), parent, []xrpc.Write{{Action: xrpc.ActionPut, Path: path(key), Value: rec}}, xrpc.WriteOptions{})
			}
			return err
		}
	}
	eventually(t, "the keeper writes", writes("a"))
	eventually(t, "and is a keeper", admits(1))
	if _, err := ann.Rotate(t.Context(), parent); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is one in the next epoch", admits(2))
	eventually(t, "and writes", writes("b"))
	eventually(t, "and still is", admits(2))
}
