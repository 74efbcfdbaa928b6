package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

// quick makes scrypt cheap.
func quick(passphrase string) Unlock { return Unlock{Passphrase: []byte(passphrase), WorkFactor: 4} }

func create(t *testing.T, u Unlock) (string, *Store) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := Create(dir, u)
	if err != nil {
		t.Fatal(err)
	}
	return dir, s
}

func reopen(t *testing.T, dir string, u Unlock) *Store {
	t.Helper()
	s, err := Open(dir, u)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, name, content string) {
	t.Helper()
	if err := s.Put(name, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t *testing.T, s *Store, name, want string) {
	t.Helper()
	b, err := s.Read(name)
	if err != nil || string(b) != want {
		t.Errorf("Read(%s) = %q, %v, want %q", name, b, err, want)
	}
}

// damage flips a bit in the middle of a file.
func damage(t *testing.T, dir, file string) {
	t.Helper()
	path := filepath.Join(dir, file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, u := range []Unlock{{}, quick("correct horse")} {
		dir, s := create(t, u)
		put(t, s, "device", "secret one")
		put(t, s, "empty", "")
		s = reopen(t, dir, u)
		wantRead(t, s, "device", "secret one")
		wantRead(t, s, "empty", "")
		if got, want := s.Protected(), u.Passphrase != nil; got != want {
			t.Errorf("Protected = %v, want %v", got, want)
		}
		if got, err := IsProtected(dir); err != nil || got != s.Protected() {
			t.Errorf("IsProtected = %v, %v", got, err)
		}
		if w := s.Warnings(); len(w) != 0 {
			t.Errorf("warnings of a sound directory: %q", w)
		}
	}
}

func TestNothingInClear(t *testing.T) {
	dir, s := create(t, quick("correct horse"))
	put(t, s, "device", "plaintext canary")
	put(t, s, "device", "plaintext canary")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%d files, %v, want 4", len(entries), err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"canary", "AGE-SECRET-KEY", "correct horse"} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %q in clear", e.Name(), secret)
			}
		}
	}
	shown := fmt.Sprintf("%v %+v %#v", s, s, s)
	if strings.Contains(shown, "AGE-SECRET-KEY") {
		t.Error("a printed Store shows its key")
	}
	if v := quick("correct horse").LogValue().String(); v != "unlock:passphrase" {
		t.Errorf("LogValue = %s", v)
	}
}

// The files are ordinary age files: they open without this package.
func TestPlainAge(t *testing.T) {
	dir, s := create(t, Unlock{})
	put(t, s, "device", "secret one")
	f, err := os.Open(filepath.Join(dir, "identity.age"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ids, err := age.ParseIdentities(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "device"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := unseal(b, ids[0])
	if err != nil || string(plain) != "kith key file 1: device\nsecret one" {
		t.Errorf("age opens %q, %v", plain, err)
	}
}

func TestLocked(t *testing.T) {
	dir, s := create(t, quick("correct horse"))
	put(t, s, "device", "secret")
	for name, u := range map[string]Unlock{"none": {}, "wrong": quick("battery staple"), "empty": {Passphrase: []byte{}}} {
		_, err := Open(dir, u)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s passphrase: %v, want ErrLocked naming %s", name, err, dir)
		}
	}
	plain, _ := create(t, Unlock{})
	if w := reopen(t, plain, quick("useless")).Warnings(); len(w) != 1 || !strings.Contains(w[0], "not protected") {
		t.Errorf("a passphrase for unprotected keys: warnings %q", w)
	}
}

func TestAbsent(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Unlock{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of an empty directory: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "none"), Unlock{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of no directory: %v", err)
	}
	if _, err := IsProtected(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("IsProtected of an empty directory: %v", err)
	}
	_, s := create(t, Unlock{})
	if _, err := s.Read("device"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing: %v", err)
	}
	if err := s.Delete("device"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	dir, _ := create(t, Unlock{})
	for _, file := range []string{"identity.age", "identity.age.1", "device"} {
		if _, err := Create(dir, Unlock{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create before removal of %s: %v", file, err)
		}
		if file == "identity.age" {
			os.WriteFile(filepath.Join(dir, "device"), []byte("x"), 0o600)
		}
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Create(dir, Unlock{}); err != nil {
		t.Errorf("Create in an emptied directory: %v", err)
	}
	if _, err := Create(t.TempDir(), Unlock{Passphrase: []byte{}}); err == nil {
		t.Error("Create with an empty passphrase succeeded")
	}
}

func TestGenerations(t *testing.T) {
	dir, s := create(t, Unlock{})
	put(t, s, "ring", "one")
	put(t, s, "ring", "two")
	put(t, s, "ring", "three")
	wantRead(t, s, "ring", "three")
	if len(s.Warnings()) != 0 {
		t.Errorf("warnings before damage: %q", s.Warnings())
	}

	damage(t, dir, "ring")
	wantRead(t, s, "ring", "two")
	wantRead(t, s, "ring", "two")
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "ring") {
		t.Errorf("warnings after damage: %q, want one", w)
	}

	// The damaged newest must not push out the sound one before it.
	put(t, s, "ring", "four")
	wantRead(t, s, "ring", "four")
	damage(t, dir, "ring")
	wantRead(t, s, "ring", "two")

	damage(t, dir, "ring.1")
	if _, err := s.Read("ring"); !errors.Is(err, ErrDamaged) {
		t.Errorf("Read of two damaged generations: %v", err)
	}
}

func TestTornAndMissingNewest(t *testing.T) {
	dir, s := create(t, Unlock{})
	put(t, s, "ring", "one")
	put(t, s, "ring", "two")
	path := filepath.Join(dir, "ring")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		wantRead(t, s, "ring", "one")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantRead(t, s, "ring", "one")
}

func TestSwappedFilesAreRefused(t *testing.T) {
	dir, s := create(t, Unlock{})
	put(t, s, "device", "device keys")
	put(t, s, "puk", "per-user key")
	if err := os.Rename(filepath.Join(dir, "puk"), filepath.Join(dir, "device")); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Read("device"); !errors.Is(err, ErrDamaged) {
		t.Errorf("Read of a swapped file = %q, %v", b, err)
	}
}

func TestIdentityCopies(t *testing.T) {
	for _, u := range []Unlock{{}, quick("correct horse")} {
		for _, file := range []string{"identity.age", "identity.age.1"} {
			for _, harm := range []string{"damage", "remove", "truncate"} {
				dir, s := create(t, u)
				put(t, s, "device", "secret")
				switch path := filepath.Join(dir, file); harm {
				case "damage":
					damage(t, dir, file)
				case "remove":
					os.Remove(path)
				case "truncate":
					os.Truncate(path, 0)
				}
				s = reopen(t, dir, u)
				wantRead(t, s, "device", "secret")
				if got, want := len(s.Warnings()), map[bool]int{true: 1}[file == "identity.age"]; got != want {
					t.Errorf("%s of %s: %d warnings, want %d", harm, file, got, want)
				}
				if w := reopen(t, dir, u).Warnings(); len(w) != 0 {
					t.Errorf("%s of %s was not repaired: %q", harm, file, w)
				}
			}
		}
		dir, _ := create(t, u)
		os.Truncate(filepath.Join(dir, "identity.age"), 0)
		os.Truncate(filepath.Join(dir, "identity.age.1"), 0)
		if _, err := Open(dir, u); !errors.Is(err, ErrDamaged) {
			t.Errorf("Open of two damaged copies: %v", err)
		}
	}
}

func TestListAndDelete(t *testing.T) {
	dir, s := create(t, Unlock{})
	for _, name := range []string{"puk", "device", "did-key", "puk"} {
		put(t, s, name, name)
	}
	os.WriteFile(filepath.Join(dir, "half.tmp"), nil, 0o600)
	want := []string{"device", "did-key", "puk"}
	if got, err := s.List(); err != nil || !slices.Equal(got, want) {
		t.Errorf("List = %q, %v, want %q", got, err, want)
	}
	if err := s.Delete("puk"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read("puk"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read after Delete: %v", err)
	}
	if got, err := s.List(); err != nil || !slices.Equal(got, want[:2]) {
		t.Errorf("List after Delete = %q, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	_, s := create(t, Unlock{})
	for _, name := range []string{"a", "space-0f", "0", "a.b_c", strings.Repeat("a", 64)} {
		put(t, s, name, "x")
	}
	for _, name := range []string{"", ".", "..", ".a", "-a", "a/b", `a\b`, "../a", "A", "a b", "a\x00", "é", "identity.age", "a.1", "a.tmp", strings.Repeat("a", 65)} {
		if err := s.Put(name, nil); err == nil {
			t.Errorf("Put(%q) succeeded", name)
		}
		if _, err := s.Read(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read(%q): %v", name, err)
		}
		if err := s.Delete(name); err == nil {
			t.Errorf("Delete(%q) succeeded", name)
		}
	}
	if err := s.Put("a", make([]byte, MaxFile+1)); err == nil {
		t.Error("Put over MaxFile succeeded")
	}
}
