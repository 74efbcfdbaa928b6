package store

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"testing"
)

// dumped copies what a dump gives, with writes in between.
func dumped(t *testing.T, s *Store, meanwhile func()) []Row {
	t.Helper()
	var out []Row
	for row, err := range s.Dump() {
		if err != nil {
			t.Fatal(err)
		}
		if len(out) == 0 {
			meanwhile()
		}
		out = append(out, Row{slices.Clone(row.Key), slices.Clone(row.Value)})
	}
	return out
}

func rowsOf(rows []Row, err error) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(Row{}, err)
		}
	}
}

func TestDumpAndRestore(t *testing.T) {
	key := [32]byte{7}
	s, err := Open(t.TempDir(), key, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(i int, v string) {
		if err := s.Put("t", fmt.Appendf(nil, "%03d", i), []byte(v), Own); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		put(i, "before")
	}
	rows := dumped(t, s, func() {
		put(3, "after")
		put(500, "after")
	})

	dir := t.TempDir()
	if err := Restore(dir, key, rowsOf(rows, nil)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, key, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Recovered() {
		t.Error("a restored store passes for a whole one")
	}
	n := 0
	for kv, err := range again.List("t") {
		if err != nil || string(kv.Value) != "before" {
			t.Fatalf("%s: %q, %v", kv.Key, kv.Value, err)
		}
		n++
	}
	if n != 200 {
		t.Errorf("%d rows came back, want the 200 of the moment of the dump", n)
	}
	if err := again.Put("t", []byte("x"), []byte("goes on"), Own); err != nil {
		t.Error(err)
	}
	if err := Restore(dir, key, rowsOf(rows, nil)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another store: %v", err)
	}
	broken := errors.New("the file ends early")
	half := t.TempDir()
	if err := Restore(half, key, rowsOf(rows[:20], broken)); !errors.Is(err, broken) {
		t.Errorf("half a dump: %v", err)
	}
	if err := Restore(t.TempDir(), key, rowsOf([]Row{{[]byte{1}, []byte{2}}}, nil)); err == nil {
		t.Error("a row that no store writes was taken")
	}
	if _, err := Open(dir, [32]byte{8}, Options{}); err == nil {
		t.Error("opened with another key")
	}
}
