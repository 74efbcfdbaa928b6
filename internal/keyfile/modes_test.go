//go:build !windows

package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != want {
		t.Errorf("mode of %s = %04o, want %04o", path, fi.Mode().Perm(), want)
	}
}

func TestModes(t *testing.T) {
	dir, s := create(t, Unlock{})
	put(t, s, "ring", "one")
	put(t, s, "ring", "two")
	wantMode(t, dir, 0o700)
	for _, file := range []string{"identity.age", "identity.age.1", "ring", "ring.1"} {
		wantMode(t, filepath.Join(dir, file), 0o600)
	}
}

func TestWideModesAreNarrowed(t *testing.T) {
	dir, s := create(t, Unlock{})
	put(t, s, "ring", "one")
	path := filepath.Join(dir, "ring")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, dir, Unlock{})
	wantMode(t, dir, 0o700)
	wantMode(t, path, 0o600)
	if w := strings.Join(s.Warnings(), "\n"); len(s.Warnings()) != 2 || !strings.Contains(w, "0644") || !strings.Contains(w, "0755") {
		t.Errorf("warnings = %q", s.Warnings())
	}
}

// A crash may leave a temporary file of any mode; the next write does not
// inherit it.
func TestLeftoverTemporary(t *testing.T) {
	dir, s := create(t, Unlock{})
	if err := os.WriteFile(filepath.Join(dir, "ring.tmp"), []byte("left over"), 0o644); err != nil {
		t.Fatal(err)
	}
	put(t, s, "ring", "one")
	wantMode(t, filepath.Join(dir, "ring"), 0o600)
	wantRead(t, s, "ring", "one")
}

// Put syncs the file before it has its name, and the directory after.
func TestFsync(t *testing.T) {
	dir, s := create(t, Unlock{})
	put(t, s, "ring", "one")
	var synced []string
	s.fsync = func(f *os.File) error {
		b, err := s.readGeneration("ring", "ring")
		synced = append(synced, filepath.Base(f.Name())+" while "+string(b))
		return err
	}
	put(t, s, "ring", "two")
	want := []string{"ring.tmp while one", filepath.Base(dir) + " while two"}
	if !slices.Equal(synced, want) {
		t.Errorf("synced %q, want %q", synced, want)
	}

	s.fsync = func(*os.File) error { return syscall.EIO }
	if err := s.Put("ring", []byte("three")); !errors.Is(err, syscall.EIO) {
		t.Errorf("Put over a failing fsync: %v", err)
	}
	wantRead(t, s, "ring", "two")
	if err := s.Delete("ring"); !errors.Is(err, syscall.EIO) {
		t.Errorf("Delete over a failing fsync: %v", err)
	}
}
