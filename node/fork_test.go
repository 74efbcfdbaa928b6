package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

// TestC2ForkedLog: a sequencer that signs two entries for one place is found
// out by everybody, the space takes no more writes, and the authority ends it
// with a new term that accepts what stood before the fork.
func TestC2ForkedLog(t *testing.T) {
	a, b, c := freshNode(t), freshNode(t), freshNode(t)
	info, err := a.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Name: "club", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{b, c} {
		inv, err := a.Invite(t.Context(), info.ID, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Join(t.Context(), inv.Link); err != nil {
			t.Fatal(err)
		}
	}
	forkPut(t, c, info.ID, "one")
	nodes := []*Node{a, b, c}
	soon(t, "all at one head", func() error { return sameHead(info.ID, nodes...) })

	// Two histories: b is shown another entry than the one all hear of.
	aa, bb := a.bySpace(info.SpaceID), b.bySpace(info.SpaceID)
	other := signTwice(t, aa, "the other history")
	if err := bb.deliverControl(t.Context(), [][]byte{other}); err != nil {
		t.Fatal(err)
	}
	name := "this history"
	if _, err := a.UpdateSpace(t.Context(), info.ID, xrpc.PolicyPatch{DisplayName: &name}); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		soon(t, fmt.Sprintf("node %d holds the proof", i), func() error {
			if n.bySpace(info.SpaceID).frozen() == nil {
				return errors.New("not frozen")
			}
			return nil
		})
		if _, err := n.Write(t.Context(), info.ID, forkWrites("two"), xrpc.WriteOptions{}); !errors.Is(err, space.ErrFrozen) {
			t.Fatalf("a write to a frozen space: %v", err)
		}
	}
	if _, err := a.Rotate(t.Context(), info.ID); !errors.Is(err, space.ErrFrozen) {
		t.Fatalf("a change of a frozen space: %v", err)
	}
	if _, err := a.AppointSequencer(t.Context(), info.ID, a.self.did); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		soon(t, fmt.Sprintf("node %d goes on", i), func() error {
			if n.bySpace(info.SpaceID).frozen() != nil {
				return errors.New("frozen")
			}
			return nil
		})
	}
	soon(t, "all at one head again", func() error { return sameHead(info.ID, nodes...) })
	forkPut(t, b, info.ID, "three")
	soon(t, "what was before and after is there", func() error {
		for _, key := range []space.RecordKey{"one", "three"} {
			for _, n := range nodes {
				if _, err := n.Record(t.Context(), info.ID, "", space.Path{Collection: "com.example.forum.post", Key: key}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// signTwice makes an entry after the head without appending it.
func signTwice(t *testing.T, a *actor, name string) []byte {
	t.Helper()
	st := a.control()
	policy := st.Policy
	policy.DisplayName = name
	sk := a.self.device.Sig()
	keys := control.BuildKeys{Proposer: sk, Sequencer: sk, CK: a.current().keys.Control().Bytes()}
	e, err := control.Build(st, control.KindPolicy, control.PolicyChange{Policy: policy}, keys, time.Now().UnixMilli(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return e.Raw()
}

func sameHead(id space.ID, nodes ...*Node) error {
	want := nodes[0].anyByID(id).control().Head
	for i, n := range nodes {
		if have := n.anyByID(id).control().Head; have != want {
			return fmt.Errorf("node %d is at %d.%d, node 0 at %d.%d", i, have.Term, have.Seq, want.Term, want.Seq)
		}
	}
	return nil
}

func forkWrites(key string) []xrpc.Write {
	rec, err := space.RecordFromJSON([]byte(`{"$type":"com.example.forum.post","text":"x"}`))
	if err != nil {
		panic(err)
	}
	return []xrpc.Write{{
		Action: xrpc.ActionPut, Path: space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)}, Value: rec,
	}}
}

func forkPut(t *testing.T, n *Node, id space.ID, key string) {
	t.Helper()
	if _, err := n.Write(context.Background(), id, forkWrites(key), xrpc.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}
