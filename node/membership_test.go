package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

func joinAt(t *testing.T, authority, newcomer *node.Node, id space.ID, level space.Level) {
	t.Helper()
	inv, err := authority.Invite(t.Context(), id, xrpc.InviteOptions{Level: level, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if _, err := newcomer.Join(ctx, inv.Link); err != nil {
		t.Fatal(err)
	}
}

func did(t *testing.T, n *node.Node) space.DID {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.DID
}

// spaceOf is one space within a node's status.
func spaceOf(n *node.Node, id space.ID) (xrpc.SpaceStatus, error) {
	st, err := n.Status(context.Background())
	if err != nil {
		return xrpc.SpaceStatus{}, err
	}
	for _, s := range st.Spaces {
		if s.URI == id.String() {
			return s, nil
		}
	}
	return xrpc.SpaceStatus{}, errors.New("no such space")
}

func atEpoch(n *node.Node, id space.ID, epoch uint64) func() error {
	return func() error {
		s, err := spaceOf(n, id)
		if err == nil && (s.Epoch != epoch || s.LastError != "") {
			err = fmt.Errorf("epoch %d, want %d; %s", s.Epoch, epoch, s.LastError)
		}
		return err
	}
}

func roleIs(n *node.Node, id space.ID, role string) func() error {
	return func() error {
		s, err := spaceOf(n, id)
		if err == nil && s.Role != role {
			err = fmt.Errorf("role %s, want %s", s.Role, role)
		}
		return err
	}
}

// alone keeps a node from every other.
func alone() []libp2p.Option { return []libp2p.Option{libp2p.ConnectionGater(nobody{})} }

// nobody lets no connection come about.
type nobody struct{}

func (nobody) InterceptPeerDial(peer.ID) bool                      { return false }
func (nobody) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool { return false }
func (nobody) InterceptAccept(network.ConnMultiaddrs) bool         { return false }
func (nobody) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return false
}
func (nobody) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return false, 0 }

// TestRemoval: the removed reads on what it had and nothing that is written
// afterwards, and is told that there is no such space; the others go on in a
// new epoch at once.
func TestRemoval(t *testing.T) {
	a, b, c := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	join(t, a, b, id)
	join(t, a, c, id)
	fromC := put(t, c, id, "fromc", "while c belonged")
	eventually(t, "a reads c", has(a, id, "fromc", fromC))
	eventually(t, "b reads c", has(b, id, "fromc", fromC))

	if err := a.RemoveMember(t.Context(), id, did(t, c)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b adopts the epoch", atEpoch(b, id, 2))
	eventually(t, "c knows", roleIs(c, id, "removed"))
	if _, err := c.Space(t.Context(), id); !errors.Is(err, space.ErrSpaceNotFound) {
		t.Fatalf("the removed is told %v", err)
	}
	after := put(t, b, id, "after", "c must not read this")
	eventually(t, "a reads b in the new epoch", has(a, id, "after", after))
	eventually(t, "b still has what c wrote", has(b, id, "fromc", fromC))
	eventually(t, "a reads a", has(b, id, "froma", put(t, a, id, "froma", "nor this")))
	eventually(t, "a and b say so", inSync(id, a, b))
	if s, err := spaceOf(c, id); err != nil || s.Epoch != 2 && s.Epoch != 1 {
		t.Fatalf("c: %+v %v", s, err)
	}
}

// TestLateEntriesOfTheRemoved: what a member acknowledged to itself before it
// learnt of its removal counts nowhere, and it is told how much that is.
func TestLateEntriesOfTheRemoved(t *testing.T) {
	homeC := t.TempDir()
	a, b := start(t, t.TempDir()), start(t, t.TempDir())
	c := start(t, homeC, func(cfg *node.Config) { cfg.Listen = nil })
	id := create(t, a, "club")
	join(t, a, b, id)
	join(t, a, c, id)
	known := put(t, c, id, "known", "everybody knew this")
	eventually(t, "a reads c", has(a, id, "known", known))
	eventually(t, "b reads c", has(b, id, "known", known))
	// c goes on alone: it is stopped and comes back where nobody is.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start(t, homeC, func(cfg *node.Config) { cfg.Host = alone() })
	put(t, c, id, "late", "nobody knew this")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.RemoveMember(t.Context(), id, did(t, c)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b adopts the epoch", atEpoch(b, id, 2))
	c = start(t, homeC, func(cfg *node.Config) { cfg.Listen = nil })
	eventually(t, "c is told", func() error {
		s, err := spaceOf(c, id)
		if err == nil && (s.Role != "removed" || s.LastError == "") {
			err = fmt.Errorf("role %s, %q", s.Role, s.LastError)
		}
		return err
	})
	eventually(t, "a and b say so", inSync(id, a, b))
	for _, n := range []*node.Node{a, b} {
		if err := has(n, id, "late", space.CID{})(); !errors.Is(err, space.ErrRecordNotFound) {
			t.Fatalf("a late entry of the removed: %v", err)
		}
		if err := has(n, id, "known", known)(); err != nil {
			t.Fatalf("what was known of the removed: %v", err)
		}
	}
}

// TestLevels: a reader reads all and writes nothing, a member that reads only
// itself opens nothing of others, and levels change both ways.
func TestLevels(t *testing.T) {
	a, r, s := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	joinAt(t, a, r, id, space.LevelRead)
	joinAt(t, a, s, id, space.LevelReadSelf)
	one := put(t, a, id, "one", "for readers")
	eventually(t, "the reader reads", has(r, id, "one", one))
	eventually(t, "all hold the same", inSync(id, a, r, s))
	if err := has(s, id, "one", one)(); !errors.Is(err, space.ErrRecordNotFound) {
		t.Fatalf("who reads only itself: %v", err)
	}
	for _, n := range []*node.Node{r, s} {
		if _, err := n.Write(t.Context(), id, []xrpc.Write{writeOf("x")}, xrpc.WriteOptions{}); !errors.Is(err, space.ErrForbidden) {
			t.Fatalf("a write below write: %v", err)
		}
	}
	// Up: the one who read itself may read and write, history included.
	if _, err := a.SetLevel(t.Context(), id, did(t, s), space.LevelWrite); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it reads what was before", has(s, id, "one", one))
	eventually(t, "it writes", roleIs(s, id, "write"))
	two := put(t, s, id, "two", "now I may")
	eventually(t, "others read it", has(r, id, "two", two))
	// Down again: a new epoch, of which it opens its own entries alone.
	if _, err := a.SetLevel(t.Context(), id, did(t, s), space.LevelReadSelf); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it adopts the epoch", atEpoch(s, id, 2))
	three := put(t, a, id, "three", "not for who reads itself")
	eventually(t, "the reader reads on", has(r, id, "three", three))
	eventually(t, "all hold the same", inSync(id, a, r, s))
	if err := has(s, id, "three", three)(); !errors.Is(err, space.ErrRecordNotFound) {
		t.Fatalf("who was lowered: %v", err)
	}
	eventually(t, "what it wrote stays", has(r, id, "two", two))
}

// TestKeeperAdmits: with a keeper that orders the log, a newcomer joins while
// the authority is away, and the authority's changes go through the keeper.
func TestKeeperAdmits(t *testing.T) {
	homeA := t.TempDir()
	kept := func(cfg *node.Config) { cfg.Listen = nil }
	a, k, b := start(t, homeA, kept), start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	join(t, a, k, id)
	one := put(t, a, id, "one", "before the newcomer")
	eventually(t, "the keeper reads", has(k, id, "one", one))
	if _, err := a.SetKeeper(t.Context(), id, did(t, k), xrpc.AllCaps); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AppointSequencer(t.Context(), id, did(t, k)); err != nil {
		t.Fatal(err)
	}
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if _, err := b.Join(ctx, inv.Link); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newcomer reads", has(b, id, "one", one))
	two := put(t, b, id, "two", "while the authority sleeps")
	eventually(t, "the keeper reads the newcomer", has(k, id, "two", two))

	a = start(t, homeA, kept)
	eventually(t, "the authority comes back", has(a, id, "two", two))
	if err := a.RemoveMember(t.Context(), id, did(t, b)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keeper rotates", atEpoch(k, id, 2))
	// A keeper that goes costs an epoch and gives the log back.
	if err := a.RemoveKeeper(t.Context(), id, did(t, k)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the former keeper", atEpoch(k, id, 3))
	if _, err := a.Rotate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of it reaches the former keeper", atEpoch(k, id, 4))
	eventually(t, "both say so", inSync(id, a, k))
}

// TestLeaveAndForget: who leaves is off the roster, in a new epoch; who forgets
// has nothing left, and may come back as somebody new to the space.
func TestLeaveAndForget(t *testing.T) {
	a, b := start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	join(t, a, b, id)
	if err := a.Leave(t.Context(), id); !errors.Is(err, space.ErrLastAuthority) {
		t.Fatalf("the authority leaves: %v", err)
	}
	if err := b.Leave(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the roster", func() error {
		ms, err := a.Members(t.Context(), id)
		if err == nil && len(ms) != 1 {
			err = fmt.Errorf("%d members", len(ms))
		}
		return err
	})
	if _, err := b.Space(t.Context(), id); !errors.Is(err, space.ErrSpaceNotFound) {
		t.Fatalf("after leaving: %v", err)
	}
	if err := b.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	join(t, a, b, id)
	eventually(t, "back again", has(b, id, "again", put(t, a, id, "again", "welcome back")))
	eventually(t, "and writes", has(a, id, "me", put(t, b, id, "me", "thank you")))
}

// TestDelete: a tombstone ends the space for all, and its address can be used
// again for another one.
func TestDelete(t *testing.T) {
	a, b := start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	join(t, a, b, id)
	if err := b.DeleteSpace(t.Context(), id, ""); !errors.Is(err, space.ErrForbidden) {
		t.Fatalf("a member deletes: %v", err)
	}
	if err := a.DeleteSpace(t.Context(), id, "enough"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b knows", roleIs(b, id, "deleted"))
	if _, err := b.Write(t.Context(), id, []xrpc.Write{writeOf("x")}, xrpc.WriteOptions{}); !errors.Is(err, space.ErrSpaceDeleted) {
		t.Fatalf("a write to what is deleted: %v", err)
	}
	info, err := a.CreateSpace(t.Context(), xrpc.NewSpace{Type: id.Type, Key: id.Key, Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	if info.ID != id {
		t.Fatalf("created %s again as %s", id, info.ID)
	}
	if _, err := b.Space(t.Context(), id); !errors.Is(err, space.ErrSpaceDeleted) {
		t.Fatalf("a member of the old space is told %v", err)
	}
}

func writeOf(key string) xrpc.Write {
	rec, err := space.RecordFromJSON([]byte(`{"$type":"com.example.forum.post","text":"x"}`))
	if err != nil {
		panic(err)
	}
	return xrpc.Write{
		Action: xrpc.ActionPut, Path: space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)}, Value: rec,
	}
}

// TestRaisedKeeper: a member that read only itself is raised and made a keeper,
// and a new epoch comes, while it is off. It holds the new epoch with its
// issuer then, and has to ask for the rest of the old one's keys all the same.
func TestRaisedKeeper(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	ann, bob := start(t, t.TempDir()), start(t, home)
	id := create(t, ann, "club")
	joinAt(t, ann, bob, id, space.LevelReadSelf)
	who := did(t, bob)
	first := put(t, ann, id, "a", "not for who reads only itself")
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ann.SetLevel(t.Context(), id, who, space.LevelWrite); err != nil {
		t.Fatal(err)
	}
	if _, err := ann.SetKeeper(t.Context(), id, who, []xrpc.Cap{xrpc.CapAdmit}); err != nil {
		t.Fatal(err)
	}
	if _, err := ann.Rotate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	bob = start(t, home)
	eventually(t, "the keeper reads what was before", sees(bob, id, did(t, ann), "a", first))
	put(t, bob, id, "b", "and writes")
	h, err := node.Dump(bob)
	if err != nil || h.Spaces[id].Issuers[2] == nil {
		t.Errorf("the issuer is not here; %v", err)
	}
}
