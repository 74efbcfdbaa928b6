package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var errCrash = errors.New("crash")

// crashAt ends the nth step from now on, and every later one: the process is
// gone. It returns whether that step was reached.
func crashAt(s *Store, n int) (reached *bool) {
	reached = new(bool)
	s.before = func(string) error {
		if n--; n < 0 {
			*reached = true
			return errCrash
		}
		return nil
	}
	return reached
}

func TestStepsOfPut(t *testing.T) {
	_, s := create(t, Unlock{})
	put(t, s, "ring", "one")
	var steps []string
	s.before = func(step string) error { steps = append(steps, step); return nil }
	put(t, s, "ring", "two")
	want := []string{"create", "write", "write", "sync", "keep", "rename", "sync directory"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps = %q, want %q", steps, want)
	}
}

// A Put that ends at any step leaves the content before it or its own, and the
// next Put works.
func TestCrashInPut(t *testing.T) {
	for n := 0; ; n++ {
		dir, s := create(t, Unlock{})
		put(t, s, "ring", "one")
		put(t, s, "ring", "two")
		reached := crashAt(s, n)
		err := s.Put("ring", []byte("three"))
		if *reached != errors.Is(err, errCrash) {
			t.Fatalf("step %d: %v", n, err)
		}
		s = reopen(t, dir, Unlock{})
		b, rerr := s.Read("ring")
		got := string(b)
		if rerr != nil || got != "two" && got != "three" || err == nil && got != "three" {
			t.Errorf("after a crash at step %d: %q, %v", n, got, rerr)
		}
		put(t, s, "ring", "four")
		wantRead(t, s, "ring", "four")
		damage(t, dir, "ring")
		if b, err := s.Read("ring"); err != nil || string(b) != got {
			t.Errorf("step %d: the generation before four is %q, %v, want %q", n, b, err, got)
		}
		if !*reached {
			return
		}
	}
}

// The same while the newest generation is damaged: the older one survives.
func TestCrashInPutOverDamage(t *testing.T) {
	for n := 0; ; n++ {
		dir, s := create(t, Unlock{})
		put(t, s, "ring", "one")
		put(t, s, "ring", "two")
		damage(t, dir, "ring")
		reached := crashAt(s, n)
		s.Put("ring", []byte("three"))
		b, err := reopen(t, dir, Unlock{}).Read("ring")
		if got := string(b); err != nil || got != "one" && got != "three" {
			t.Errorf("after a crash at step %d: %q, %v", n, got, err)
		}
		if !*reached {
			return
		}
	}
}

// A Delete that ends at any step leaves the newest content or none, never the
// older one.
func TestCrashInDelete(t *testing.T) {
	for n := 0; ; n++ {
		dir, s := create(t, Unlock{})
		put(t, s, "ring", "one")
		put(t, s, "ring", "two")
		reached := crashAt(s, n)
		s.Delete("ring")
		b, err := reopen(t, dir, Unlock{}).Read("ring")
		if string(b) != "two" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after a crash at step %d: %q, %v", n, b, err)
		}
		if !*reached {
			return
		}
	}
}

// What a crash in Create leaves is either no identity, and Create works again,
// or one that opens.
func TestCrashInCreate(t *testing.T) {
	whole, _ := create(t, Unlock{})
	id, err := os.ReadFile(filepath.Join(whole, "identity.age"))
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string][]byte{
		"nothing":   {},
		"temporary": {"identity.age.tmp": id[:10]},
		"one":       {"identity.age": id},
		"second":    {"identity.age": id, "identity.age.1.tmp": id[:10]},
	} {
		dir := t.TempDir()
		for file, b := range files {
			os.WriteFile(filepath.Join(dir, file), b, 0o600)
		}
		_, err := Open(dir, Unlock{})
		if errors.Is(err, fs.ErrNotExist) {
			_, err = Create(dir, Unlock{})
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
