package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"
)

// errTables: tables are not as the manifest has them. The engine would notice
// only some of that, and then rebuild without a word.
var errTables = fmt.Errorf("%w: tables", ErrDamaged)

// keepCopies is how many copies of damaged databases are kept.
const keepCopies = 3

// checkDatabase looks at everything an open reads: manifest, logs, and that
// the tables are there in their length. It changes nothing.
func checkDatabase(d *disk) (err error) {
	// The engine wants its lock file even to read.
	f, err := os.OpenFile(filepath.Join(d.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err := errors.Join(err, closeFile(f)); err != nil {
		return err
	}
	db, err := d.Open(probe)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tables, err := db.GetProperty("leveldb.sstables")
	if err != nil {
		return err
	}
	return checkTables(d.dir, tables)
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// checkTables reads the engine's list, lines of NUMBER:SIZE[FIRST .. LAST]
// between lines that begin with dashes.
func checkTables(dir, list string) error {
	for lines := bufio.NewScanner(strings.NewReader(list)); lines.Scan(); {
		table, _, ok := strings.Cut(lines.Text(), "[")
		num, size, ok2 := strings.Cut(table, ":")
		want, err := strconv.ParseInt(size, 10, 64)
		if !ok || !ok2 || err != nil {
			continue // a heading
		}
		info, err := os.Stat(tableFile(dir, num))
		if errors.Is(err, fs.ErrNotExist) {
			info, err = os.Stat(strings.TrimSuffix(tableFile(dir, num), ".ldb") + ".sst")
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errTables, err)
		}
		if info.Size() != want {
			return fmt.Errorf("%w: %s is of %d bytes, not %d", errTables, info.Name(), info.Size(), want)
		}
	}
	return nil
}

// rebuild makes a damaged database fit to be opened. What tables hold is
// looked at only if they are suspect: then each is read, and rewritten without
// its damaged blocks.
func rebuild(d *disk, tables bool) error {
	if !tables {
		return closeDB(d.Open(lenient))
	}
	return closeDB(leveldb.RecoverFile(d.dir, d.opts.engine(lenient)))
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
