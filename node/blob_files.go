package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// blobFiles keeps the sealed parts of blobs, each in a file of its own: the
// first byte of its name in hex is the directory, the name in hex the file.
// The name is the SHA-256 of what is in the file, so that a damaged file is as
// good as none. It needs no lock: parts never change.
type blobFiles struct{ dir string }

const tempPrefix = "part-"

func (f blobFiles) path(name [32]byte) string {
	text := hex.EncodeToString(name[:])
	return filepath.Join(f.dir, text[:2], text)
}

// put makes a part durable before it has its name.
func (f blobFiles) put(name [32]byte, data []byte) error {
	path := f.path(name)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := f.makeDir(filepath.Dir(path)); err != nil {
		return diskError(fmt.Errorf("keep a blob: %w", err))
	}
	tmp := filepath.Join(f.dir, tempPrefix+rand.Text())
	err := writeSynced(tmp, data)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return diskError(fmt.Errorf("keep a blob: %w", errors.Join(err, removeIfThere(tmp))))
	}
	return nil
}

func (f blobFiles) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(syncDir(f.dir), syncDir(filepath.Dir(f.dir)))
}

func writeSynced(path string, data []byte) error {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

// syncDir makes names in a directory durable, where the system can.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func removeIfThere(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// read gives a part; false if it is not here, or not what its name says: then
// the file goes.
func (f blobFiles) read(name [32]byte) ([]byte, bool, error) {
	data, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, diskError(fmt.Errorf("read a blob: %w", err))
	}
	if sha256.Sum256(data) != name {
		return nil, false, f.remove(name)
	}
	return data, true, nil
}

func (f blobFiles) has(name [32]byte) bool {
	_, err := os.Stat(f.path(name))
	return err == nil
}

func (f blobFiles) remove(name [32]byte) error { return removeIfThere(f.path(name)) }

// all are the names of the parts that are here, in no order.
func (f blobFiles) all() iter.Seq2[[32]byte, error] {
	return func(yield func([32]byte, error) bool) {
		err := filepath.WalkDir(f.dir, func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			name, err := hex.DecodeString(d.Name())
			if err != nil || len(name) != 32 {
				return nil // not a part, or not whole
			}
			if !yield([32]byte(name), nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield([32]byte{}, fmt.Errorf("list blobs: %w", err))
		}
	}
}

// sweep removes what keep does not want and was written before a time, and
// what interrupted writes left. It says how many files went.
func (f blobFiles) sweep(keep func([32]byte) bool, before time.Time) (gone int, err error) {
	err = filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.ModTime().Before(before) {
			return nil // gone already, or young
		}
		name, err := hex.DecodeString(d.Name())
		if whole := err == nil && len(name) == 32; whole && keep([32]byte(name)) || !whole && !strings.HasPrefix(d.Name(), tempPrefix) {
			return nil
		}
		gone++
		return removeIfThere(path)
	})
	if err != nil {
		err = fmt.Errorf("sweep blobs: %w", err)
	}
	return gone, err
}
