package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

// waiting is a machine that shows a code.
type waiting struct {
	offer node.Offer
	done  chan error
	stop  context.CancelFunc
}

// machine starts the enrolment of an empty home and answers what it shows.
func machine(t *testing.T, home string) waiting {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	w := waiting{done: make(chan error, 1), stop: cancel}
	shown := make(chan node.Offer, 1)
	go func() {
		_, err := node.Machine{Home: home, Name: "phone", Listen: loopback, NoMDNS: true}.Enrol(ctx, func(o node.Offer) error {
			shown <- o
			return nil
		})
		w.done <- err
	}()
	t.Cleanup(cancel)
	select {
	case w.offer = <-shown:
	case err := <-w.done:
		t.Fatal(err)
	}
	return w
}

// enrol makes home a device of whoever n belongs to.
func enrol(t *testing.T, n *node.Node, home string) xrpc.Device {
	t.Helper()
	w := machine(t, home)
	d, err := n.ApproveDevice(t.Context(), w.offer.Code, w.offer.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	return d
}

func path(key string) space.Path {
	return space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)}
}

// sees is content when n has the record of an author.
func sees(n *node.Node, id space.ID, author space.DID, key string, cid space.CID) func() error {
	return func() error {
		r, err := n.Record(context.Background(), id, author, path(key))
		if err == nil && r.CID != cid {
			err = fmt.Errorf("cid %s, want %s", r.CID, cid)
		}
		return err
	}
}

// TestTwoDevices: a machine becomes a device with a code, gets the person's
// spaces, writes beside the first one, and is shut out again.
func TestTwoDevices(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	laptop, bob := start(t, filepath.Join(dir, "laptop")), start(t, filepath.Join(dir, "bob"))
	id := create(t, laptop, "ours")
	join(t, laptop, bob, id)
	first := put(t, laptop, id, "a", "from the laptop")
	d := enrol(t, laptop, filepath.Join(dir, "phone"))
	if d.Name != "phone" || d.This || d.Revoked {
		t.Errorf("%+v", d)
	}
	phone := start(t, filepath.Join(dir, "phone"))
	alice := did(t, laptop)
	if did(t, phone) != alice {
		t.Fatal("the phone is somebody else")
	}
	eventually(t, "the space comes to the phone", sees(phone, id, alice, "a", first))
	eventually(t, "the phone may write", func() error {
		rec, err := space.RecordFromJSON([]byte(`{"$type":"com.example.forum.post","text":"from the phone"}`))
		if err != nil {
			return err
		}
		_, err = phone.Write(t.Context(), id, []xrpc.Write{{Action: xrpc.ActionPut, Path: path("b"), Value: rec}}, xrpc.WriteOptions{})
		return err
	})
	second, err := phone.Record(t.Context(), id, alice, path("b"))
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node.Node{"laptop": laptop, "bob": bob} {
		eventually(t, name+" sees what the phone wrote", sees(n, id, alice, "b", second.CID))
	}
	// Both write on at once; everybody ends with the same repo, and everybody
	// serves a linear oplog of it.
	for i := range 10 {
		put(t, laptop, id, fmt.Sprintf("l%d", i), "laptop")
		put(t, phone, id, fmt.Sprintf("p%d", i), "phone")
		put(t, []*node.Node{laptop, phone}[i%2], id, "both", fmt.Sprint(i))
	}
	eventually(t, "one state", inSync(id, laptop, phone, bob))
	var want xrpc.RepoState
	for i, n := range []*node.Node{laptop, phone, bob} {
		st, err := n.RepoState(t.Context(), id, alice)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want = st
		} else if st.Hash != want.Hash || st.Count != want.Count {
			t.Errorf("node %d holds another repo: %d records, want %d", i, st.Count, want.Count)
		}
		linear(t, n, id, alice, want.Count)
	}
	revokeAndLeave(t, laptop, phone, bob, id, d.ID)
}

// linear checks that the served oplog is ascending and folds to the repo.
func linear(t *testing.T, n *node.Node, id space.ID, author space.DID, count uint64) {
	t.Helper()
	page, err := n.Oplog(t.Context(), id, author, xrpc.OpsQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	live := map[space.Path]bool{}
	for i, op := range page.Ops {
		if i > 0 && (op.Rev < page.Ops[i-1].Rev || op.Rev == page.Ops[i-1].Rev && op.Idx <= page.Ops[i-1].Idx) {
			t.Errorf("op %d is not behind the one before", i)
		}
		live[op.Path] = op.CID != space.CID{}
	}
	if uint64(len(live)) != count {
		t.Errorf("the oplog makes %d records, the repo has %d", len(live), count)
	}
}

// revokeAndLeave revokes the phone: a new epoch comes by itself, and what is
// written in it does not reach the phone.
func revokeAndLeave(t *testing.T, laptop, phone, bob *node.Node, id space.ID, dev string) {
	if _, err := phone.RevokeDevice(t.Context(), dev); !errors.Is(err, xrpc.ErrLastDevice) {
		t.Errorf("a device revoked itself: %v", err)
	}
	d, err := laptop.RevokeDevice(t.Context(), dev)
	if err != nil || !d.Revoked || d.RevokedMs == 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := laptop.RevokeDevice(t.Context(), dev); err != nil {
		t.Errorf("revoked twice: %v", err)
	}
	for name, n := range map[string]*node.Node{"laptop": laptop, "bob": bob} {
		eventually(t, name+" adopts the next epoch", func() error {
			info, err := n.Space(context.Background(), id)
			if err == nil && info.Epoch < 2 {
				err = fmt.Errorf("epoch %d", info.Epoch)
			}
			return err
		})
	}
	secret := put(t, laptop, id, "secret", "not for the phone")
	eventually(t, "the phone hears that it was revoked", warned(phone, "this device was revoked"))
	// It goes on, as a thief would: what it writes counts nowhere.
	if rec, err := space.RecordFromJSON([]byte(`{"$type":"com.example.forum.post","text":"by a thief"}`)); err == nil {
		_, _ = phone.Write(t.Context(), id, []xrpc.Write{{Action: xrpc.ActionPut, Path: path("late"), Value: rec}}, xrpc.WriteOptions{})
	}
	eventually(t, "bob reads on", sees(bob, id, did(t, laptop), "secret", secret))
	more := put(t, bob, id, "more", "behind it")
	eventually(t, "the laptop reads on", sees(laptop, id, did(t, bob), "more", more))
	eventually(t, "one state of the two", inSync(id, laptop, bob))
	for name, n := range map[string]*node.Node{"laptop": laptop, "bob": bob} {
		if _, err := n.Record(t.Context(), id, did(t, laptop), path("late")); err == nil {
			t.Errorf("%s shows what the revoked device wrote", name)
		}
	}
	if _, err := phone.Record(t.Context(), id, did(t, laptop), path("secret")); err == nil {
		t.Error("the phone reads what was written after it was revoked")
	}
	if _, err := phone.ApproveDevice(t.Context(), "0000-0000-0000-0000-0000", ""); err == nil {
		t.Error("a revoked device takes devices in")
	}
}

// A code that nobody shows, one with a mistake, a home that is somebody's.
func TestEnrolRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, filepath.Join(dir, "a"))
	w := machine(t, filepath.Join(dir, "b"))
	other, err := identity.NewCode(bytes.NewReader([]byte("0123456789")))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tried := make(chan error, 1)
	go func() {
		_, err := n.ApproveDevice(ctx, other.String(), w.offer.Addrs[0])
		tried <- err
	}()
	select {
	case err := <-w.done:
		t.Fatalf("the machine took another code: %v", err)
	case err := <-tried:
		t.Fatalf("the approval took another machine: %v", err)
	case <-time.After(2 * time.Second): // several rounds of asking
	}
	cancel()
	if err := <-tried; !errors.Is(err, space.ErrUnavailable) && !errors.Is(err, context.Canceled) {
		t.Errorf("a code that nobody shows: %v", err)
	}
	if devices, err := n.Devices(t.Context()); err != nil || len(devices) != 1 {
		t.Errorf("%d devices, %v", len(devices), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "b", "identity.json")); err == nil {
		t.Error("the machine is somebody")
	}
	bad := []byte(w.offer.Code)
	if bad[0]++; bad[0] > 'Z' || bad[0] == 'I' || bad[0] == 'L' || bad[0] == 'O' || bad[0] == 'U' || bad[0] == ':' {
		bad[0] = '2'
	}
	if _, err := n.ApproveDevice(t.Context(), string(bad), ""); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a mistaken code: %v", err)
	}
	if _, err := n.ApproveDevice(t.Context(), w.offer.Code, "nowhere"); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a bad address: %v", err)
	}
	_, err = node.Machine{Home: filepath.Join(dir, "a")}.Enrol(t.Context(), nil)
	if !errors.Is(err, node.ErrIdentityExists) {
		t.Errorf("into a home that is somebody's: %v", err)
	}
	for _, id := range []string{"", "zz", strings.Repeat("ab", 32)} {
		if _, err := n.RevokeDevice(t.Context(), id); err == nil {
			t.Errorf("revoked %q", id)
		}
	}
	// The right code still works: nobody used it up.
	if _, err := n.ApproveDevice(t.Context(), w.offer.Code, w.offer.Addrs[0]); err != nil {
		t.Fatal(err)
	}
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
}

// TestRecover: every device is lost. The words and the address of a node of
// somebody the person shares a space with bring the person back: identity,
// spaces, and the right to revoke what was lost.
func TestRecover(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id, words, err := node.Init(filepath.Join(dir, "lost"), nil)
	if err != nil {
		t.Fatal(err)
	}
	bob, lost := start(t, filepath.Join(dir, "bob")), start(t, filepath.Join(dir, "lost"))
	forum := create(t, bob, "forum")
	join(t, bob, lost, forum)
	old := put(t, lost, forum, "old", "before the loss")
	eventually(t, "bob has it", sees(bob, forum, id.DID, "old", old))
	addr := listen(t, bob)
	eventually(t, "bob keeps the list of the one who is lost", func() error {
		_, err := found(t, dir, words, addr, "try")
		return err
	})
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}

	seed, err := identity.SeedFromWords(words)
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string][]string{"nobody": nil, "no address": {"nowhere"}} {
		if _, err := (node.Machine{Home: filepath.Join(dir, "x"), Listen: loopback}).Recover(t.Context(), seed, from); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("from %s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x", "identity.json")); err == nil {
		t.Error("a recovery that failed left an identity")
	}
	r, err := found(t, dir, words, addr, "new")
	if err != nil {
		t.Fatal(err)
	}
	if r.DID != id.DID || r.Commitment != id.Commitment || r.PeerID == id.PeerID || len(r.Spaces) != 1 {
		t.Errorf("%+v", r)
	}
	if log, _, err := node.AskIdentity(t.Context(), addr, seed.Commitment(), nil, nil); err != nil || len(log) != 6 {
		t.Errorf("bob was told %d entries, %v", len(log), err)
	}
	back := start(t, filepath.Join(dir, "new"))
	eventually(t, "the space comes back", sees(back, forum, id.DID, "old", old))
	fresh := ""
	eventually(t, "it may be written in", func() error {
		rec, err := space.RecordFromJSON([]byte(`{"$type":"com.example.forum.post","text":"after"}`))
		if err != nil {
			return err
		}
		_, err = back.Write(t.Context(), forum, []xrpc.Write{{Action: xrpc.ActionPut, Path: path("new"), Value: rec}}, xrpc.WriteOptions{})
		return err
	})
	all, err := back.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if !d.This && !d.Revoked {
			fresh = d.ID
			if _, err := back.RevokeDevice(t.Context(), d.ID); err != nil {
				t.Errorf("revoke what was lost: %v", err)
			}
		}
	}
	if fresh == "" {
		t.Error("the lost device is not in the log")
	}
	eventually(t, "the lost device's keys end", func() error {
		info, err := bob.Space(context.Background(), forum)
		if err == nil && info.Epoch < 2 {
			err = fmt.Errorf("epoch %d", info.Epoch)
		}
		return err
	})
}

// found recovers into a home of its own. It fails while the source has no list.
func found(t *testing.T, dir, words, addr, home string) (node.Recovered, error) {
	t.Helper()
	seed, err := identity.SeedFromWords(words)
	if err != nil {
		t.Fatal(err)
	}
	home = filepath.Join(dir, home)
	if home == filepath.Join(dir, "try") {
		_, list, err := node.AskIdentity(t.Context(), addr, seed.Commitment(), nil, nil)
		if err == nil && len(list) == 0 {
			err = errors.New("no list yet")
		}
		return node.Recovered{}, err
	}
	return node.Machine{Home: home, Listen: loopback}.Recover(t.Context(), seed, []string{addr})
}

func listen(t *testing.T, n *node.Node) string {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Listen[0]
}
