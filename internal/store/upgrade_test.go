package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var writeFixture = flag.Bool("write-fixture", false, "write a store of this format into testdata")

// keptRows are what a store of an older format holds in testdata: built anew it
// gives the same rows.
func keptRows(t testing.TB, sp *Space) *line {
	l := newLine(t)
	l.grow(t, sp, 1, 1, 1, 40, 1)
	a := newAuthor(t, testAuthor)
	for i := range 20 {
		b := &Batch{}
		a.write(b, i%7, 3, "text")
		commit(t, sp, Own, b)
	}
	b := &Batch{Meta: map[string][]byte{"name": []byte("value")}, Control: []ControlRow{{0, []byte("genesis")}}}
	commit(t, sp, Own, b)
	return l
}

func fixtureName(version string) string {
	return filepath.Join("testdata", "format-"+version+".tar.gz")
}

// keepStore keeps a store of this format for the next one to open.
func keepStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openDisk(t, dir, Options{})
	keptRows(t, s.Space([32]byte{1}, [32]byte{2}))
	closeStore(t, s)
	f := must[*os.File](t)(os.Create(fixtureName(fmt.Sprint(FormatVersion))))
	z := gzip.NewWriter(f)
	w := tar.NewWriter(z)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// unpackStore lays a kept store out.
func unpackStore(t *testing.T, version string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	z := must[*gzip.Reader](t)(gzip.NewReader(bytes.NewReader(must[[]byte](t)(os.ReadFile(fixtureName(version))))))
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil || !filepath.IsLocal(h.Name) {
			t.Fatal(h, err)
		}
		name := filepath.Join(dir, h.Name)
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(name, 0o700)
		} else if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			err = os.WriteFile(name, must[[]byte](t)(io.ReadAll(r)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
