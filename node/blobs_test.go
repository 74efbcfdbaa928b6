package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// bytesOf are size bytes that no other seed gives.
func blobBytes(seed string, size int) []byte {
	return bytes.Repeat([]byte(seed+" 0123456789abcdef "), size/(len(seed)+18)+1)[:size]
}

func putBlob(t testing.TB, n *node.Node, content []byte) xrpc.BlobRef {
	t.Helper()
	ref, err := n.PutBlob(context.Background(), "image/png", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if ref.CID != space.SumRaw(content) || ref.Size != uint64(len(content)) {
		t.Fatalf("%+v", ref)
	}
	return ref
}

// refer writes a record that refers to blobs.
func refer(n *node.Node, id space.ID, key string, refs ...xrpc.BlobRef) (space.CID, error) {
	var objects []string
	for _, r := range refs {
		objects = append(objects, string(r.JSON()))
	}
	rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"com.example.forum.post","pictures":[%s]}`, strings.Join(objects, ",")))
	if err != nil {
		return space.CID{}, err
	}
	w, err := n.Write(context.Background(), id, []xrpc.Write{{Action: xrpc.ActionPut, Path: postPath(key), Value: rec}}, xrpc.WriteOptions{})
	if err != nil {
		return space.CID{}, err
	}
	return w.Records[0].CID, nil
}

func mustRefer(t testing.TB, n *node.Node, id space.ID, key string, refs ...xrpc.BlobRef) space.CID {
	t.Helper()
	cid, err := refer(n, id, key, refs...)
	if err != nil {
		t.Fatal(err)
	}
	return cid
}

func postPath(key string) space.Path {
	return space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(key)}
}

func remove(t testing.TB, n *node.Node, id space.ID, key string) {
	t.Helper()
	w := []xrpc.Write{{Action: xrpc.ActionDelete, Path: postPath(key)}}
	if _, err := n.Write(context.Background(), id, w, xrpc.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// readBlob gives what a node serves.
func readBlob(n *node.Node, id space.ID, cid space.CID) ([]byte, error) {
	b, err := n.Blob(context.Background(), id, "", cid)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(b.Content)
}

// files are the parts of blobs that lie in a home.
func files(t testing.TB, home string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(home, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const later = 2 * time.Hour // than any window

// TestBlobTravels: a blob uploaded on one node is served by another, which
// keeps it when the first is gone; a third learns from the second.
func TestBlobTravels(t *testing.T) {
	homeB := t.TempDir()
	a, b := start(t, t.TempDir()), start(t, homeB)
	id := create(t, a, "club")
	join(t, a, b, id)
	content := blobBytes("travels", 700_000)
	ref := putBlob(t, a, content)
	post := mustRefer(t, a, id, "pic", ref)
	eventually(t, "b has the record", has(b, id, "pic", post))
	if len(files(t, homeB)) != 0 {
		t.Error("b has bytes that nobody asked for")
	}
	got, err := readBlob(b, id, ref.CID)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	cids, err := b.ListBlobs(t.Context(), id, mustStatus(t, a).DID, xrpc.BlobQuery{Limit: 10})
	if err != nil || len(cids) != 1 || cids[0] != ref.CID {
		t.Errorf("%v, %v", cids, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, homeB)
	if got, err := readBlob(b, id, ref.CID); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after a restart, alone: %d bytes, %v", len(got), err)
	}
}

func mustStatus(t testing.TB, n *node.Node) xrpc.Status {
	t.Helper()
	st, err := n.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// B1: a blob is served while a live record of that space refers to it, and to
// nobody otherwise.
func TestB1(t *testing.T) {
	home := t.TempDir()
	n := start(t, home)
	here, there := create(t, n, "here"), create(t, n, "there")
	ref := putBlob(t, n, blobBytes("b1", 300_000))
	lost := func(what string, id space.ID) {
		t.Helper()
		if b, err := readBlob(n, id, ref.CID); !errors.Is(err, xrpc.ErrBlobNotFound) {
			t.Errorf("%s: %d bytes, %v", what, len(b), err)
		}
	}
	served := func(what string, id space.ID) {
		t.Helper()
		if _, err := readBlob(n, id, ref.CID); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	lost("before any record", here)
	mustRefer(t, n, here, "one", ref)
	mustRefer(t, n, here, "two", ref)
	served("referred to", here)
	lost("through another space", there)
	remove(t, n, here, "one")
	served("referred to by the other record", here)
	mustRefer(t, n, here, "two")
	lost("after the last reference went", here)
	if _, err := refer(n, here, "three", ref, xrpc.BlobRef{CID: space.SumRaw([]byte("guessed")), Type: "image/png", Size: 7}); !errors.Is(err, xrpc.ErrBlobNotFound) {
		t.Errorf("a record with a blob that was never uploaded: %v", err)
	}
	mustRefer(t, n, here, "three", ref) // its upload still waits
	served("referred to again", here)

	// The same bytes in another space are sealed anew: nobody sees that the two
	// spaces share them.
	before := len(files(t, home))
	mustRefer(t, n, there, "copy", ref)
	served("in the other space", there)
	if after := len(files(t, home)); after != 2*before {
		t.Errorf("%d files, %d for one space", after, before)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = start(t, home)
	served("after a restart", here)
	remove(t, n, there, "copy")
	lost("deleted after a restart", there)
}

// Nothing of a blob lies in the clear in a home.
func TestBlobsAtRest(t *testing.T) {
	home := t.TempDir()
	n := start(t, home)
	id := create(t, n, "club")
	const canary = "canary in a blob"
	ref := putBlob(t, n, blobBytes(canary, 400_000))
	mustRefer(t, n, id, "pic", ref)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds the blob's bytes", path)
		}
		seen++
		return err
	})
	if err != nil || seen < 4 {
		t.Fatalf("%d files, %v", seen, err)
	}
}

// B2 at a node: a part that was damaged, cut or taken from elsewhere is never
// served; where another member has the blob, it is fetched again.
func TestB2Node(t *testing.T) {
	homeA, homeB := t.TempDir(), t.TempDir()
	a, b := start(t, homeA), start(t, homeB)
	id := create(t, a, "club")
	join(t, a, b, id)
	content := blobBytes("b2", 900_000)
	ref := putBlob(t, a, content)
	eventually(t, "b has the record", has(b, id, "pic", mustRefer(t, a, id, "pic", ref)))
	if _, err := readBlob(b, id, ref.CID); err != nil {
		t.Fatal(err)
	}
	parts := files(t, homeB)
	if len(parts) != 4 {
		t.Fatalf("%d parts", len(parts))
	}
	whole, err := os.ReadFile(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	another, err := os.ReadFile(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[1000] ^= 1
	for what, bad := range map[string][]byte{"flipped": flipped, "cut": whole[:len(whole)-5], "longer": append(bytes.Clone(whole), 1), "another part": another, "empty": nil} {
		if err := os.WriteFile(parts[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readBlob(b, id, ref.CID)
		if err == nil && !bytes.Equal(got, content) {
			t.Fatalf("%s: %d wrong bytes pass", what, len(got))
		}
		if !bytes.HasPrefix(content, got) {
			t.Errorf("%s: wrong bytes before the error", what)
		}
		if got, err := readBlob(b, id, ref.CID); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: not mended: %d bytes, %v", what, len(got), err)
		}
	}
}

// B5: an upload that breaks off anywhere leaves no file; a thousand at once
// keep to the quota; what nobody refers to goes after the window.
func TestB5(t *testing.T) {
	home := t.TempDir()
	const quota = 4 << 20
	n := start(t, home, func(c *node.Config) { c.BlobsPerUser, c.BlobsPerSpace = quota, 2*quota })
	id := create(t, n, "club")
	broken := errors.New("the line went dead")
	content := blobBytes("b5", 3*space.BlobPart+5000)
	for _, at := range []int{0, 1, space.BlobPart - 1, space.BlobPart, space.BlobPart + 1, 2 * space.BlobPart, 3*space.BlobPart + 4999} {
		r := io.MultiReader(bytes.NewReader(content[:at]), failing{broken})
		if _, err := n.PutBlob(t.Context(), "image/png", r); !errors.Is(err, broken) {
			t.Errorf("broken at %d: %v", at, err)
		}
		if left := files(t, home); len(left) > 0 {
			t.Fatalf("broken at %d leaves %d files", at, len(left))
		}
	}
	if _, err := n.PutBlob(t.Context(), "image/png", bytes.NewReader(make([]byte, quota+1))); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("over the quota: %v", err)
	}
	if _, err := n.PutBlob(t.Context(), "image/png", io.LimitReader(zeros{}, space.MaxBlob+1)); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("over the cap: %v", err)
	}
	if left := files(t, home); len(left) > 0 {
		t.Fatalf("refused uploads leave %d files", len(left))
	}
	var many sync.WaitGroup
	var took atomic.Int64
	for i := range 1000 {
		many.Go(func() {
			_, err := n.PutBlob(t.Context(), "image/png", bytes.NewReader(blobBytes(fmt.Sprint("many ", i), 100<<10)))
			switch {
			case err == nil:
				took.Add(1)
			case !errors.Is(err, space.ErrTooLarge):
				t.Error(err)
			}
		})
	}
	many.Wait()
	if n := took.Load(); n == 0 || n > quota/(100<<10) {
		t.Errorf("%d of 1000 uploads of 100 KiB fit a quota of 4 MiB", n)
	}
	if have := len(files(t, home)); have != int(took.Load()) {
		t.Errorf("%d files of %d uploads", have, took.Load())
	}
	if gone, err := node.SweepBlobs(n, time.Now()); err != nil || gone != 0 {
		t.Errorf("within the window %d files went: %v", gone, err)
	}
	if gone, err := node.SweepBlobs(n, time.Now().Add(later)); err != nil || gone != int(took.Load()) {
		t.Errorf("%d of %d files went: %v", gone, took.Load(), err)
	}
	// There is room again, and what a record refers to stays.
	ref := putBlob(t, n, content)
	mustRefer(t, n, id, "pic", ref)
	if gone, err := node.SweepBlobs(n, time.Now().Add(later)); err != nil || gone != 0 {
		t.Errorf("of a live blob %d files went: %v", gone, err)
	}
	remove(t, n, id, "pic")
	if gone, err := node.SweepBlobs(n, time.Now().Add(later)); err != nil || gone != 4 {
		t.Errorf("%d files went of a blob that nothing refers to: %v", gone, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// The quotas of a space hold for what records refer to.
func TestBlobQuota(t *testing.T) {
	n := start(t, t.TempDir(), func(c *node.Config) { c.BlobsPerUser, c.BlobsPerSpace = 1<<20, 10<<20 })
	id := create(t, n, "club")
	for i := range 4 {
		mustRefer(t, n, id, fmt.Sprint("pic", i), putBlob(t, n, blobBytes(fmt.Sprint(i), 250<<10)))
		if _, err := node.SweepBlobs(n, time.Now().Add(later)); err != nil { // uploads that records took over
			t.Fatal(err)
		}
	}
	more := putBlob(t, n, blobBytes("more", 100<<10))
	if _, err := refer(n, id, "pic5", more); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("over the quota: %v", err)
	}
	remove(t, n, id, "pic0")
	mustRefer(t, n, id, "pic5", more)
}

// TestBlobQuotaOfSpace: what others refer to counts towards the quota of a
// space, and a node fetches no more of it than it takes.
func TestBlobQuotaOfSpace(t *testing.T) {
	a := start(t, t.TempDir())
	home := t.TempDir()
	b := start(t, home, func(c *node.Config) { c.BlobsPerUser, c.BlobsPerSpace = 300<<10, 400<<10 })
	id := create(t, a, "club")
	join(t, a, b, id)
	shown := func(key string, size int) space.CID {
		t.Helper()
		ref := putBlob(t, a, blobBytes(key, size))
		eventually(t, "b has the record "+key, has(b, id, key, mustRefer(t, a, id, key, ref)))
		return ref.CID
	}
	if _, err := readBlob(b, id, shown("large", 350<<10)); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("larger than an author may have: %v", err)
	}
	remove(t, a, id, "large")
	if _, err := readBlob(b, id, shown("first", 200<<10)); err != nil {
		t.Errorf("within the quota: %v", err)
	}
	mine := putBlob(t, b, blobBytes("mine", 250<<10))
	if _, err := refer(b, id, "mine", mine); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("with that of others over the quota of the space: %v", err)
	}
	before := len(files(t, home))
	if _, err := readBlob(b, id, shown("second", 250<<10)); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("in a space of more than this node takes: %v", err)
	}
	if after := len(files(t, home)); after != before {
		t.Errorf("%d parts were fetched all the same", after-before)
	}
}

// B8: who was removed knows the names of parts of a later blob at most; it can
// not open them, and members' nodes do not give them.
func TestB8(t *testing.T) {
	homeA := t.TempDir()
	a, b := start(t, homeA), start(t, t.TempDir())
	id := create(t, a, "club")
	join(t, a, b, id)
	early := putBlob(t, a, blobBytes("early", 1000))
	eventually(t, "b has the first record", has(b, id, "early", mustRefer(t, a, id, "early", early)))
	if err := a.RemoveMember(t.Context(), id, mustStatus(t, b).DID); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, f := range files(t, homeA) {
		known[f] = true
	}
	late := putBlob(t, a, blobBytes("late", 1000))
	mustRefer(t, a, id, "late", late)
	if _, err := readBlob(b, id, late.CID); err == nil {
		t.Error("who was removed reads a later blob")
	}
	for _, f := range files(t, homeA) {
		if known[f] {
			continue
		}
		name := filepath.Base(f)
		if err := node.AskPart(t.Context(), b, a, id, name); err == nil {
			t.Errorf("part %s of a later blob is given to who was removed", name)
		}
	}
}
