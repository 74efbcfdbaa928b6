package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// wait bounds every test that waits for another node.
const wait = 20 * time.Second

var loopback = []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}

// start runs a node in home on loopback, with an identity of its own.
func start(t *testing.T, home string, change ...func(*node.Config)) *node.Node {
	t.Helper()
	if !node.Initialised(home) {
		if _, _, err := node.Init(home, nil); err != nil {
			t.Fatal(err)
		}
	}
	cfg := node.Config{Home: home, Listen: loopback, NoMDNS: true}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, f := range change {
		f(&cfg)
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func create(t testing.TB, n *node.Node, name string) space.ID {
	t.Helper()
	info, err := n.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Name: name, Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

func join(t *testing.T, authority, newcomer *node.Node, id space.ID) {
	t.Helper()
	inv, err := authority.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if _, err := newcomer.Join(ctx, inv.Link); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, n *node.Node, id space.ID, key, text string) space.CID {
	t.Helper()
	rec, err := space.RecordFromJSON([]byte(fmt.Sprintf(`{"$type":"com.example.forum.post","text":%q}`, text)))
	if err != nil {
		t.Fatal(err)
	}
	w, err := n.Write(t.Context(), id, []xrpc.Write{{
		Action: xrpc.ActionPut, Path: space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)}, Value: rec,
	}}, xrpc.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return w.Records[0].CID
}

// eventually polls until check is content: what another node does has no
// event here.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.After(wait)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

func has(n *node.Node, id space.ID, key string, cid space.CID) func() error {
	return func() error {
		r, err := n.Record(context.Background(), id, "", space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)})
		if err == nil && r.CID != cid {
			err = fmt.Errorf("cid %s, want %s", r.CID, cid)
		}
		return err
	}
}

// inSync is content when all nodes show one digest and say so of each other.
func inSync(id space.ID, nodes ...*node.Node) func() error {
	return func() error {
		var want string
		for i, n := range nodes {
			st, err := n.Status(context.Background())
			if err != nil {
				return err
			}
			for _, s := range st.Spaces {
				if s.URI != id.String() {
					continue
				}
				if i == 0 {
					want = s.Digest
				}
				if s.Digest != want {
					return fmt.Errorf("node %d has %s (%d entries), node 0 %s", i, s.Digest, s.Entries, want)
				}
				if len(s.InSyncWith) == 0 {
					return fmt.Errorf("node %d is in sync with nobody", i)
				}
			}
		}
		return nil
	}
}

func TestTwoMembers(t *testing.T) {
	a, b := start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	before := put(t, a, id, "before", "written before b came")
	join(t, a, b, id)
	eventually(t, "b reads what was there", has(b, id, "before", before))
	eventually(t, "a reads b", has(a, id, "fromb", put(t, b, id, "fromb", "hello from b")))
	eventually(t, "b reads a", has(b, id, "froma", put(t, a, id, "froma", "hello from a")))
	eventually(t, "both say so", inSync(id, a, b))
}

// TestRestart stops both nodes and starts them again, and tells neither where
// the other is: they find each other by what they remember.
func TestRestart(t *testing.T) {
	homeA, homeB := t.TempDir(), t.TempDir()
	kept := func(c *node.Config) { c.Listen = nil } // the ports each home keeps
	a, b := start(t, homeA, kept), start(t, homeB, kept)
	id := create(t, a, "club")
	join(t, a, b, id)
	eventually(t, "b reads a", has(b, id, "one", put(t, a, id, "one", "1")))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	two := put(t, b, id, "two", "while a was away")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a, b = start(t, homeA, kept), start(t, homeB, kept)
	eventually(t, "a reads what b wrote alone", has(a, id, "two", two))
	three := put(t, a, id, "three", "after both came back")
	eventually(t, "b reads a again", has(b, id, "three", three))
	eventually(t, "both say so", inSync(id, a, b))
}

// TestInitAfterAKill: an init that was killed halfway leaves keys for which no
// words were shown; the next init begins anew instead of refusing.
func TestInitAfterAKill(t *testing.T) {
	home := t.TempDir()
	if _, _, err := node.Init(home, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := node.Init(home, nil); !errors.Is(err, node.ErrIdentityExists) {
		t.Fatalf("a second init: %v", err)
	}
	if err := os.Remove(filepath.Join(home, "identity.json")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := node.Init(home, nil); err == nil {
		t.Fatal("init took the place of keys whose words were shown")
	}
	if err := os.WriteFile(filepath.Join(home, "init.unfinished"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := node.Init(home, nil); err != nil {
		t.Fatal(err)
	}
}

// TestSpentInvite: one use is one use, and the refusal says no more than that.
func TestSpentInvite(t *testing.T) {
	a, b, c := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(t.Context(), inv.Link); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Join(t.Context(), inv.Link); !errors.Is(err, space.ErrInvite) {
		t.Fatalf("a spent invite: %v", err)
	}
	if _, err := b.Join(t.Context(), inv.Link); err != nil {
		t.Fatalf("joining again: %v", err)
	}
}
