package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// newHome makes an identity in a new home.
func newHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		t.Fatal(err)
	}
	return home
}

// onDisk keeps a node's store on a disk of a test; nil is memory.
func onDisk(d *storetest.Disk) func(*Config) {
	return func(c *Config) {
		c.openStore = func(_ string, key [32]byte) (*store.Store, error) {
			if d == nil {
				return store.Open("", key, store.Options{})
			}
			return store.OpenOn(d, key, store.Options{RetryAfter: -1})
		}
	}
}

// boot starts a node that looks at a failed disk whenever it is asked to
// write.
func boot(t *testing.T, home string, change ...func(*Config)) *Node {
	t.Helper()
	n, err := tryBoot(t, home, change...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryBoot(t *testing.T, home string, change ...func(*Config)) (*Node, error) {
	cfg := Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	for _, f := range change {
		f(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		return nil, err
	}
	n.mender.mu.Lock()
	n.mender.every = 0
	n.mender.mu.Unlock()
	t.Cleanup(func() { n.Close() })
	return n, nil
}

// freshNode starts somebody's first node as people have it: a directory of its
// own, and a failed disk looked at now and then.
func freshNode(t *testing.T) *Node {
	t.Helper()
	home := t.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func halt(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

const testCollection = "com.example.forum.post"

func testPath(key string) space.Path {
	return space.Path{Collection: testCollection, Key: space.RecordKey(key)}
}

func newSpace(n *Node, name string) (space.ID, error) {
	info, err := n.CreateSpace(context.Background(), xrpc.NewSpace{Type: "com.example.forum", Name: name, Policy: space.DefaultPolicy()})
	return info.ID, err
}

// putAll writes one text to several keys in one batch.
func putAll(n *Node, id space.ID, text string, keys ...string) (space.CID, error) {
	rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":%q,"text":%q}`, testCollection, text))
	if err != nil {
		return space.CID{}, err
	}
	writes := make([]xrpc.Write, len(keys))
	for i, key := range keys {
		writes[i] = xrpc.Write{Action: xrpc.ActionPut, Path: testPath(key), Value: rec}
	}
	_, err = n.Write(context.Background(), id, writes, xrpc.WriteOptions{})
	return rec.CID(), err
}

func read(n *Node, id space.ID, key string) (space.CID, error) {
	r, err := n.Record(context.Background(), id, "", testPath(key))
	if errors.Is(err, space.ErrRecordNotFound) || errors.Is(err, space.ErrRepoNotFound) {
		return space.CID{}, nil
	}
	return r.CID, err
}

func admitTo(t *testing.T, authority, newcomer *Node, id space.ID) {
	t.Helper()
	inv, err := authority.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := newcomer.Join(ctx, inv.Link); err != nil {
		t.Fatal(err)
	}
}

// soon polls until check is content: what another node does has no event here.
func soon(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
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

// alike is content when two nodes hold the same of a space.
func alike(a, b *Node, id space.ID) func() error {
	return func() error {
		x, err := a.byID(id)
		if err != nil {
			return err
		}
		y, err := b.byID(id)
		if err != nil {
			return err
		}
		if p, q := x.status(), y.status(); p.Digest != q.Digest || p.Records != q.Records {
			return fmt.Errorf("%d entries, %d records and %d entries, %d records", p.Entries, p.Records, q.Entries, q.Records)
		}
		if p, q := x.control().Head, y.control().Head; p != q {
			return fmt.Errorf("control logs at %d and %d", p.Seq, q.Seq)
		}
		return nil
	}
}

// sound fails unless what the node holds of a space adds up: every sync digest
// is that of the stored ids, every repo's that of its records.
func sound(t *testing.T, n *Node, id space.ID) {
	t.Helper()
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	found, err := a.store.Audit(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if !found.OK() {
		t.Errorf("the store does not add up: %+v", *found)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for did, r := range a.repos {
		if err := r.Check(); err != nil {
			t.Errorf("repo of %s: %v", did, err)
		}
	}
}

// TestDiskFails lets the disk fail at each operation in turn while a space is
// made, an invite issued and records are written. The call that meets it says
// what is wrong, reads go on, nothing is there by halves, and as soon as the
// disk is well so is the next write.
func TestDiskFails(t *testing.T) {
	for _, tc := range []struct {
		name       string
		err        error
		here, wire error
	}{
		{"full", syscall.ENOSPC, store.ErrFull, space.ErrNoSpaceLeft},
		{"input output error", syscall.EIO, store.ErrIO, space.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			home, met := newHome(t), 0
			for n := 0; ; n++ {
				disk := storetest.NewDisk()
				disk.Torn = n%2 == 0
				r := &failing{t: t, disk: disk, here: tc.here, wire: tc.wire}
				if !r.run(home, n, tc.err) {
					break
				}
				met++
			}
			if met < 8 {
				t.Errorf("only %d operations could fail", met)
			}
		})
	}
}

// failing is one run against a disk that fails.
type failing struct {
	t          *testing.T
	disk       *storetest.Disk
	here, wire error
	n          *Node
	id         space.ID
	acked      map[string]space.CID
}

var homes atomic.Int64

// run reports whether the disk failed at all.
func (r *failing) run(home string, after int, cause error) bool {
	t := r.t
	r.n = boot(t, home, onDisk(r.disk))
	r.acked = map[string]space.CID{}
	r.disk.BreakAfter(after, cause)
	failed := r.story()
	if failed == nil && !r.disk.Broken() {
		halt(t, r.n)
		return false
	}
	if failed != nil && (!errors.Is(failed, r.here) || !errors.Is(failed, r.wire)) {
		t.Errorf("op %d: %v, want %v and %v", after, failed, r.here, r.wire)
	}
	r.reads(r.n)
	r.disk.Heal()
	if err := r.story(); err != nil {
		t.Fatalf("op %d: with the disk well again: %v", after, err)
	}
	r.reads(r.n)
	sound(t, r.n, r.id)
	cut := r.disk.Clone(nil)
	halt(t, r.n)
	again := boot(t, home, onDisk(cut))
	r.reads(again)
	sound(t, again, r.id)
	forgetSpaces(t, again)
	halt(t, again)
	return true
}

// story goes on where it failed.
func (r *failing) story() (err error) {
	if r.id == (space.ID{}) {
		if r.id, err = newSpace(r.n, fmt.Sprint("club ", homes.Add(1))); err != nil {
			r.id = space.ID{}
			return err
		}
	}
	if _, err := r.n.Invite(r.t.Context(), r.id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1}); err != nil {
		return err
	}
	for i, keys := range [][]string{{"one"}, {"a", "b", "c"}, {"a", "b", "c"}} {
		cid, err := putAll(r.n, r.id, fmt.Sprint("text ", i), keys...)
		if err != nil {
			return err
		}
		for _, key := range keys {
			r.acked[key] = cid
		}
	}
	return nil
}

// reads checks that what was acknowledged is there and batches are whole.
func (r *failing) reads(n *Node) {
	r.t.Helper()
	if r.id == (space.ID{}) {
		if all, err := n.Spaces(r.t.Context()); err != nil || len(all) > 0 {
			r.t.Errorf("after a failed creation: %d spaces, %v", len(all), err)
		}
		return
	}
	for key, want := range r.acked {
		if got, err := read(n, r.id, key); err != nil || got != want {
			r.t.Errorf("%s is %s, %v; want %s", key, got, err, want)
		}
	}
	whole(r.t, n, r.id, "a", "b", "c")
}

// whole checks that keys of one batch say the same, in one view of the repo:
// the node may be taking in more while it is asked.
func whole(t *testing.T, n *Node, id space.ID, keys ...string) (cid space.CID) {
	t.Helper()
	recs, _, err := n.Records(t.Context(), id, xrpc.RecordQuery{Limit: 1000, NoValues: true})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]space.CID{}
	for _, r := range recs {
		have[string(r.URI.Path.Key)] = r.CID
	}
	for _, key := range keys {
		if have[key] != have[keys[0]] {
			t.Errorf("half a batch: %s is %s, %s is %s", keys[0], have[keys[0]], key, have[key])
		}
	}
	return have[keys[0]]
}

// forgetSpaces makes a home fit for the next run, on another disk.
func forgetSpaces(t *testing.T, n *Node) {
	t.Helper()
	names, err := n.keys.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, markerPrefix) {
			t.Errorf("a marker is left: %s", name)
		}
		if strings.HasPrefix(name, spaceKeyPrefix) {
			if err := n.keys.Delete(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDiskFailsAmongMembers lets the disk of one of two members fail while
// both write. It refuses what it cannot keep, and has it all once it can.
func TestDiskFailsAmongMembers(t *testing.T) {
	disk := storetest.NewDisk()
	a, b := boot(t, newHome(t), onDisk(disk)), boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	soon(t, "both hold the same", alike(a, b, id))
	for n, cause := range []error{syscall.ENOSPC, syscall.EIO, syscall.ENOSPC, syscall.EIO} {
		disk.BreakAfter(n/2, cause)
		if _, err := putAll(b, id, fmt.Sprint("of b ", n), "b"); err != nil {
			t.Fatal(err)
		}
		soon(t, "the disk is met", func() error {
			if disk.Broken() {
				return nil
			}
			return errors.New("not yet")
		})
		want := map[error]error{syscall.ENOSPC: space.ErrNoSpaceLeft, syscall.EIO: space.ErrUnavailable}[cause]
		if _, err := putAll(a, id, fmt.Sprint("of a ", n), "a"); !errors.Is(err, want) {
			t.Errorf("%v: write: %v, want %v", cause, err, want)
		}
		whole(t, a, id, "a")
		soon(t, "b has said it all", stated(b, id)) // nothing more of it will show a what it missed
		disk.Heal()
		if _, err := putAll(a, id, fmt.Sprint("of a, again ", n), "a"); err != nil {
			t.Errorf("%v: with the disk well again: %v", cause, err)
		}
		soon(t, "both hold the same again", alike(a, b, id))
	}
	sound(t, a, id)
	sound(t, b, id)
}

// stated is content when the node's own repo is stated as it is.
func stated(n *Node, id space.ID) func() error {
	return func() error {
		a, err := n.byID(id)
		if err != nil {
			return err
		}
		a.mu.RLock()
		defer a.mu.RUnlock()
		if r := a.repos[n.self.did]; r == nil || r.said.Statement == nil || r.said.Statement.Hash != r.Digest() {
			return errors.New("not yet")
		}
		return nil
	}
}

// TestDiskFailsWhileJoining lets a newcomer's disk fail at each operation in
// turn. The same link joins once the disk is well.
func TestDiskFailsWhileJoining(t *testing.T) {
	a := boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for n := range 6 {
		inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
		if err != nil {
			t.Fatal(err)
		}
		disk, home := storetest.NewDisk(), newHome(t)
		b := boot(t, home, onDisk(disk))
		disk.BreakAfter(n, syscall.ENOSPC)
		_, err = b.Join(t.Context(), inv.Link)
		if err != nil {
			failed++
			if !errors.Is(err, store.ErrFull) || !errors.Is(err, space.ErrNoSpaceLeft) {
				t.Errorf("op %d: %v", n, err)
			}
			if got := records(t, b); got != 0 || len(b.all()) != 0 {
				t.Errorf("op %d: %d key records, %d spaces", n, got, len(b.all()))
			}
			disk.Heal()
			if _, err := b.Join(t.Context(), inv.Link); err != nil {
				t.Fatalf("op %d: with the disk well again: %v", n, err)
			}
		}
		disk.Heal()
		if _, err := putAll(b, id, "text", fmt.Sprint("key-", n)); err != nil {
			t.Errorf("op %d: %v", n, err)
		}
		soon(t, "both hold the same", alike(a, b, id))
		sound(t, b, id)
		halt(t, b)
	}
	if failed == 0 {
		t.Error("no join failed")
	}
}

// TestTwoProcesses: a home has one node.
func TestTwoProcesses(t *testing.T) {
	home := newHome(t)
	n := boot(t, home)
	second, err := tryBoot(t, home)
	if second != nil || !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), home) {
		t.Fatalf("a second node on %s: %v", home, err)
	}
	if _, err := newSpace(n, "club"); err != nil {
		t.Error(err)
	}
}
