package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

func warned(n *node.Node, text string) func() error {
	return func() error {
		st, err := n.Status(context.Background())
		if err == nil && !slices.ContainsFunc(st.Warnings, func(w string) bool { return strings.Contains(w, text) }) {
			err = fmt.Errorf("no warning has %q: %q", text, st.Warnings)
		}
		return err
	}
}

func notWarned(n *node.Node, text string) func() error {
	return func() error {
		if warned(n, text)() == nil {
			return fmt.Errorf("still warned of %q", text)
		}
		return nil
	}
}

// TestP4: a backup made before the last writes runs beside the node it was
// made of. No key is used twice, no chain forks, the log of the space does not
// part, and both are told.
func TestP4(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, bob := start(t, filepath.Join(dir, "a")), start(t, filepath.Join(dir, "bob"))
	id := create(t, a, "club")
	join(t, a, bob, id)
	first := put(t, a, id, "first", "in the backup")
	eventually(t, "bob reads", sees(bob, id, did(t, a), "first", first))
	file := filepath.Join(dir, "copy")
	if b, err := a.Backup(t.Context(), file, "a passphrase"); err != nil || b.Spaces != 1 || b.Bytes == 0 {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := a.Backup(t.Context(), file, ""); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("over a file that is there: %v", err)
	}
	if _, err := a.Backup(t.Context(), "copy", ""); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a path that depends on where the node stands: %v", err)
	}
	// What the copy does not know: a record, and an entry of the log.
	second := put(t, a, id, "second", "after the backup")
	if _, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bob reads on", sees(bob, id, did(t, a), "second", second))

	home := filepath.Join(dir, "again")
	r, err := node.Restore(home, file, node.Unseal{Passphrase: "a passphrase"}, nil)
	if err != nil || r.Spaces != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	b := start(t, home)
	if did(t, b) != did(t, a) || r.PeerID == peerID(t, a) {
		t.Error("the copy is another person, or the same peer")
	}
	if err := warned(b, "restored from a backup")(); err != nil {
		t.Error(err)
	}
	// Before anybody has said what happened since, it says nothing in a log.
	if _, err := b.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1}); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("the copy wrote into the control log: %v", err)
	}
	if _, err := b.RevokeDevice(t.Context(), strings.Repeat("ab", 32)); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("the copy wrote into the identity log: %v", err)
	}
	third := put(t, b, id, "third", "from the copy")
	bob = start(t, filepath.Join(dir, "bob"))
	if _, err := a.Connect(t.Context(), listen(t, bob)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Connect(t.Context(), listen(t, bob)); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node.Node{"a": a, "bob": bob, "the copy": b} {
		for key, cid := range map[string]space.CID{"first": first, "second": second, "third": third} {
			eventually(t, name+" has "+key, sees(n, id, did(t, a), key, cid))
		}
	}
	eventually(t, "one state", inSync(id, a, bob, b))
	eventually(t, "who reads a third's copy sees that somebody writes as this device", warned(a, "with the keys of this device"))
	eventually(t, "the copy has caught up", notWarned(b, "restored from a backup"))
	if _, err := b.RevokeDevice(t.Context(), strings.Repeat("ab", 32)); !errors.Is(err, xrpc.ErrDeviceNotFound) {
		t.Errorf("the copy still writes nothing into the identity log: %v", err)
	}
	if _, err := b.Connect(t.Context(), listen(t, a)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one is told of the other", func() error {
		if warned(a, "runs with the keys of this device")() == nil {
			return nil
		}
		return warned(b, "runs with the keys of this device")()
	})
	for name, n := range map[string]*node.Node{"a": a, "bob": bob, "the copy": b} {
		st, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range st.Spaces {
			if s.LastError != "" {
				t.Errorf("%s: %s", name, s.LastError)
			}
		}
		if forked := node.Forked(n); forked != 0 {
			t.Errorf("%s: %d chains forked", name, forked)
		}
	}
}

func peerID(t *testing.T, n *node.Node) string {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.PeerID
}

// A backup that was cut, changed, or is of somebody else fills no home; the
// home can be filled afterwards.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, words, err := node.Init(filepath.Join(dir, "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, filepath.Join(dir, "a"))
	id := create(t, a, "club")
	for i := range 50 {
		put(t, a, id, fmt.Sprint("r", i), strings.Repeat("text ", 200))
	}
	file := filepath.Join(dir, "copy")
	if _, err := a.Backup(t.Context(), file, ""); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := identity.SeedFromWords(words)
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.NewSeed(strings.NewReader(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "b")
	change := func(at int) []byte {
		b := slices.Clone(whole)
		b[at] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		file []byte
		u    node.Unseal
	}{
		"empty":               {nil, node.Unseal{Seed: &seed}},
		"cut in the head":     {whole[:100], node.Unseal{Seed: &seed}},
		"cut in the rows":     {whole[:len(whole)*2/3], node.Unseal{Seed: &seed}},
		"cut by one byte":     {whole[:len(whole)-1], node.Unseal{Seed: &seed}},
		"changed in the head": {change(60), node.Unseal{Seed: &seed}},
		"changed in the rows": {change(len(whole) - 100), node.Unseal{Seed: &seed}},
		"other words":         {whole, node.Unseal{Seed: &other}},
		"a passphrase":        {whole, node.Unseal{Passphrase: "there is none"}},
	} {
		if err := os.WriteFile(file, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := node.Restore(home, file, c.u, nil); err == nil {
			t.Fatalf("%s: restored", name)
		}
		if node.Initialised(home) {
			t.Fatalf("%s: a home that is whole was left", name)
		}
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Restore(home, file, node.Unseal{Seed: &seed}, nil); err != nil {
		t.Fatalf("after all those: %v", err)
	}
	if _, err := node.Restore(home, file, node.Unseal{Seed: &seed}, nil); !errors.Is(err, node.ErrIdentityExists) {
		t.Errorf("over a home: %v", err)
	}
	b := start(t, home)
	// Nobody else was ever in it: there is nobody to ask, and it goes on.
	put(t, b, id, "on", "and on")
	if page, _, err := b.Records(t.Context(), id, xrpc.RecordQuery{Limit: 100}); err != nil || len(page) != 51 {
		t.Errorf("%d records, %v", len(page), err)
	}
}

// TestBackupHoldsBlobs: what records refer to is in a backup made while somebody
// uploads, one's own blobs and those read of others, and opens in a home that
// meets nobody. An upload that breaks off is none.
func TestBackupHoldsBlobs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, bob := start(t, filepath.Join(dir, "a")), start(t, filepath.Join(dir, "bob"))
	id := create(t, a, "club")
	join(t, a, bob, id)
	mine, theirs := blobBytes("mine", 700_000), blobBytes("theirs", 100)
	ref, other := putBlob(t, a, mine), putBlob(t, bob, theirs)
	mustRefer(t, a, id, "mine", ref)
	post := mustRefer(t, bob, id, "theirs", other)
	eventually(t, "a knows bob's", sees(a, id, did(t, bob), "theirs", post))
	eventually(t, "a has read bob's", func() error { _, err := readBlob(a, id, other.CID); return err })
	in, out := io.Pipe()
	uploading := make(chan error, 1)
	go func() {
		_, err := a.PutBlob(context.Background(), "image/png", in)
		uploading <- err
	}()
	if _, err := out.Write(blobBytes("half", 300_000)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "copy")
	made, err := a.Backup(t.Context(), file, "a passphrase")
	if err != nil || made.BlobParts < 4 {
		t.Fatalf("%+v, %v", made, err)
	}
	out.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-uploading; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an upload that broke off: %v", err)
	}
	home := filepath.Join(dir, "again")
	back, err := node.Restore(home, file, node.Unseal{Passphrase: "a passphrase"}, nil)
	if err != nil || back.BlobParts != made.BlobParts || back.Rows != made.Rows {
		t.Fatalf("%+v of %+v, %v", back, made, err)
	}
	for _, n := range []*node.Node{a, bob} {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b := start(t, home)
	for cid, want := range map[space.CID][]byte{ref.CID: mine, other.CID: theirs} {
		if got, err := readBlob(b, id, cid); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", cid, len(got), err)
		}
	}
	if _, err := node.SweepBlobs(b, time.Now().Add(later)); err != nil {
		t.Fatal(err)
	}
	if left := files(t, home); len(left) != 4 {
		t.Errorf("%d files are left of what records refer to, want 4", len(left))
	}
}
