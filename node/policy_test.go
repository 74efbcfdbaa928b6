package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

func createWith(t *testing.T, n *node.Node, policy space.Policy) space.ID {
	t.Helper()
	info, err := n.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Name: "club", Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// TestSelfWrite: where the policy says so, who reads only itself writes, and
// full readers read it; another who reads only itself does not.
func TestSelfWrite(t *testing.T) {
	a, s, other := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	policy := space.DefaultPolicy()
	policy.SelfWrite = true
	id := createWith(t, a, policy)
	joinAt(t, a, s, id, space.LevelReadSelf)
	joinAt(t, a, other, id, space.LevelReadSelf)
	mine := put(t, s, id, "mine", "a form that I fill in")
	eventually(t, "the authority reads it", has(a, id, "mine", mine))
	theirs := put(t, a, id, "theirs", "not for who fills in forms")
	eventually(t, "all hold the same", inSync(id, a, s, other))
	for key, n := range map[string]*node.Node{"theirs": s, "mine": other} {
		if err := has(n, id, key, theirs)(); !errors.Is(err, space.ErrRecordNotFound) {
			t.Fatalf("%s is readable: %v", key, err)
		}
	}
	if err := has(s, id, "mine", mine)(); err != nil {
		t.Fatalf("its own: %v", err)
	}
}

// TestApproval: an invite that needs a yes lets nobody in before, and lets in
// whom somebody approved without being asked again.
func TestApproval(t *testing.T) {
	a, b, c := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelRead, Approval: true})
	if err != nil {
		t.Fatal(err)
	}
	joined := map[*node.Node]chan error{b: make(chan error, 1), c: make(chan error, 1)}
	for n, done := range joined {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			defer cancel()
			_, err := n.Join(ctx, inv.Link)
			done <- err
		}()
	}
	var waiting []xrpc.Request
	eventually(t, "both wait", func() error {
		if waiting, err = a.Requests(t.Context(), id); err == nil && len(waiting) != 2 {
			err = fmt.Errorf("%d wait", len(waiting))
		}
		return err
	})
	if ms, err := a.Members(t.Context(), id); err != nil || len(ms) != 1 {
		t.Fatalf("before a yes: %v %v", ms, err)
	}
	for _, q := range waiting {
		if q.DID == did(t, b) {
			if m, err := a.Approve(t.Context(), id, q.ID); err != nil || m.Level != space.LevelRead {
				t.Fatalf("approve: %+v %v", m, err)
			}
		} else if err := a.Deny(t.Context(), id, q.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-joined[b]; err != nil {
		t.Fatalf("the approved: %v", err)
	}
	if ms, err := a.Members(t.Context(), id); err != nil || len(ms) != 2 {
		t.Fatalf("after the yes: %v %v", ms, err)
	}
}

// TestPublicDoor: anybody comes into a public space, with a link that holds no
// secret, and writes; closing it puts out who came so.
func TestPublicDoor(t *testing.T) {
	a, b, c := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	policy := space.DefaultPolicy()
	policy.Mint = space.MintPublic
	id := createWith(t, a, policy)
	joinAt(t, a, c, id, space.LevelWrite)
	if _, err := b.Join(t.Context(), node.Signpost(a, id)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newcomer is read", has(a, id, "hi", put(t, b, id, "hi", "hello from nowhere")))
	mint := space.MintMemberList
	if _, err := a.UpdateSpace(t.Context(), id, xrpc.PolicyPatch{Mint: &mint}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "who came by the door is out", roleIs(b, id, "removed"))
	eventually(t, "who was invited is in", atEpoch(c, id, 2))
	eventually(t, "and reads", has(c, id, "now", put(t, a, id, "now", "among ourselves")))
	if _, err := b.Join(t.Context(), node.Signpost(a, id)); !errors.Is(err, space.ErrInvite) {
		t.Fatalf("by a door that is closed: %v", err)
	}
}

// TestC8HeldWhileNobodyConfirms: where the policy limits how long a node may
// trust what it knows of the log, its writes stay with it until somebody has
// confirmed the log's head, and are sealed then.
func TestC8HeldWhileNobodyConfirms(t *testing.T) {
	homeB := t.TempDir()
	kept := func(cfg *node.Config) { cfg.Listen = nil }
	a, b, c := start(t, t.TempDir(), kept), start(t, homeB, kept), start(t, t.TempDir())
	policy := space.DefaultPolicy()
	policy.MaxEpochLagSeconds = 60
	id := createWith(t, a, policy)
	join(t, a, b, id)
	join(t, a, c, id)
	eventually(t, "c reads b", has(c, id, "one", put(t, b, id, "one", "confirmed")))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, homeB, kept, func(cfg *node.Config) { cfg.Host = alone() })
	two := put(t, b, id, "two", "nobody is there")
	if err := has(b, id, "two", two)(); err != nil {
		t.Fatalf("an own write that is held: %v", err)
	}
	if s, err := spaceOf(b, id); err != nil || s.LastError == "" {
		t.Fatalf("nothing says that it is held: %+v %v", s, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.RemoveMember(t.Context(), id, did(t, c)); err != nil {
		t.Fatal(err)
	}
	b = start(t, homeB, kept)
	eventually(t, "b adopts the epoch", atEpoch(b, id, 2))
	eventually(t, "what was held is sent", has(a, id, "two", two))
	eventually(t, "both say so", inSync(id, a, b))
	if err := has(c, id, "two", two)(); err == nil {
		t.Fatal("the removed reads what was held back for its sake")
	}
}
