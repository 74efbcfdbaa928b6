package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/syndtr/goleveldb/leveldb/opt"
)

// errTables: files are not as the manifest has them. The engine would notice
// only some of that, and then rebuild without a word.
var errTables = fmt.Errorf("%w: files and manifest disagree", ErrDamaged)

// keepCopies is how many copies of damaged databases are kept.
const keepCopies = 3

// checkDatabase looks at everything an open reads: manifest, logs, and that
// the files are there. It changes nothing. That the end of a log is missing
// shows only if a record was cut: else its peers know of what the node has
// forgotten.
func checkDatabase(d *disk, opts Options) error {
	// The engine wants its lock file even to read.
	f, err := os.OpenFile(filepath.Join(d.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err := errors.Join(err, closeFile(f)); err != nil {
		return err
	}
	db, err := openOn(d, opts, probe)
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return checkManifest(d.dir)
}

// checkManifest looks for the files of which the manifest speaks: the log it
// names, which the engine would not miss, and the tables.
func checkManifest(dir string) error {
	current, err := os.ReadFile(filepath.Join(dir, "CURRENT"))
	if err != nil {
		return fmt.Errorf("%w: %w", errTables, err)
	}
	m, err := readManifest(filepath.Join(dir, strings.TrimSpace(string(current))))
	if err != nil {
		return fmt.Errorf("%w: manifest: %w", errTables, err)
	}
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%06d.log", m.log))); err != nil {
		return fmt.Errorf("%w: %w", errTables, err)
	}
	for num, size := range m.tables {
		switch info, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%06d.ldb", num))); {
		case err != nil:
			return fmt.Errorf("%w: %w", errTables, err)
		case info.Size() != size:
			return fmt.Errorf("%w: %s is of %d bytes, not %d", errTables, info.Name(), info.Size(), size)
		}
	}
	return nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// rebuild makes a damaged database fit to be opened. noted is set if the
// engine once met a block it could not read: then all that it can read is
// copied into a new database. Tables that are cut or gone are given up whole,
// and so is every damaged one if the manifest is.
func (s *Store) rebuild(d *disk, opts Options, noted bool, damage error) error {
	if errors.Is(damage, errTables) || closeDB(openOn(d, opts, lenient)) != nil {
		if err := closeDB(recoverOn(d, opts)); err != nil {
			return err
		}
	}
	if !noted {
		return nil
	}
	fresh := &disk{dir: d.dir + ".new"}
	if err := os.RemoveAll(fresh.dir); err != nil {
		return err
	}
	if err := copyReadable(d, fresh, opts); err != nil {
		return err
	}
	return s.replaceDB(fresh.dir)
}

// copyReadable copies the rows of a database that can be read.
func copyReadable(from, to *disk, opts Options) (err error) {
	old, err := openOn(from, opts, salvage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	fresh, err := openOn(to, opts, strict)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.Close()) }()
	it := old.NewIterator(nil, scanning)
	defer it.Release()
	b := new(batch)
	for more := true; more; {
		if more = it.Next(); more {
			b.Put(it.Key(), it.Value())
		}
		if b.n < groupBytes && more {
			continue
		}
		if err := fresh.Write(b.engine(), &opt.WriteOptions{Sync: true}); err != nil {
			return err
		}
		b.reset()
	}
	return it.Error()
}

// replaceDB puts a new database in the place of the old one. finishReplacing
// goes on where it was interrupted.
func (s *Store) replaceDB(fresh string) error {
	db := filepath.Join(s.dir, dbDir)
	if err := syncDir(fresh); err != nil {
		return err
	}
	if err := os.Rename(db, db+".old"); err != nil {
		return err
	}
	return s.finishReplacing()
}

func (s *Store) finishReplacing() error {
	db := filepath.Join(s.dir, dbDir)
	if _, err := os.Stat(db); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(db+".new", db); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := syncDir(s.dir); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(db+".new"), os.RemoveAll(db+".old"))
}

// copyAside copies a database to DIR.damaged-<n>, n being the next number, and
// deletes the oldest copies beyond keepCopies. Tables, which nobody changes
// once they are written, are linked if the file system can.
func copyAside(db, dir string) (string, error) {
	copies, err := damagedCopies(dir)
	if err != nil {
		return "", err
	}
	n := 1
	if len(copies) > 0 {
		n += copies[len(copies)-1]
	}
	to := damagedName(dir, n)
	if err := os.Mkdir(to, 0o700); err != nil {
		return "", err
	}
	files, err := listFiles(db)
	if err != nil {
		return "", err
	}
	for _, name := range files {
		if name == lockFile {
			continue
		}
		from, to := filepath.Join(db, name), filepath.Join(to, name)
		if strings.HasSuffix(name, ".ldb") && os.Link(from, to) == nil {
			continue
		}
		if err := copyFile(from, to); err != nil {
			return "", err
		}
	}
	if err := syncDir(to); err != nil {
		return "", err
	}
	for len(copies) >= keepCopies {
		if err := os.RemoveAll(damagedName(dir, copies[0])); err != nil {
			return "", err
		}
		copies = copies[1:]
	}
	return to, nil
}

func damagedName(dir string, n int) string { return fmt.Sprintf("%s.damaged-%d", dir, n) }

// damagedCopies are the numbers of the copies beside dir, ascending.
func damagedCopies(dir string) (numbers []int, err error) {
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if s, ok := strings.CutPrefix(e.Name(), filepath.Base(dir)+".damaged-"); ok {
			if n, err := strconv.Atoi(s); err == nil && n > 0 {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
