package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"filippo.io/age"
)

// ErrLocked: the keys need a passphrase and got none, or a wrong one.
var ErrLocked = errors.New("the keys are locked")

// ErrNewer: the file was written by a newer version.
var ErrNewer = errors.New("written by a newer version")

// ErrDamaged: no generation of a file can be read.
var ErrDamaged = errors.New("the key file is damaged")

// The other names of a file NAME.
const (
	previous  = ".1"   // the generation before
	temporary = ".tmp" // being written; never read
)

// MaxFile bytes is what a file may hold.
const MaxFile = 16 << 20

// header begins the plaintext of every sealed file; the name and a line end
// follow. It is the format's version.
const header = headerStart + formatVersion + ": "

const (
	headerStart   = "kith key file "
	formatVersion = "1"
)

// clip keeps an error short, whatever a file holds.
func clip(b []byte) []byte { return b[:min(len(b), 16)] }

// Unlock is what opens the keys, or what they are made with.
type Unlock struct {
	Passphrase []byte // nil: none
	WorkFactor int    // scrypt's log2 N at Create; 0 is DefaultWorkFactor. For tests
}

// LogValue says whether there is a passphrase.
func (u Unlock) LogValue() slog.Value {
	if u.Passphrase == nil {
		return slog.StringValue("unlock:none")
	}
	return slog.StringValue("unlock:passphrase")
}

// Store is an open directory of keys. The zero Store is of no use.
type Store struct {
	dir       string
	id        *age.X25519Identity
	protected bool

	// mu guards what follows, and the files of dir.
	mu       sync.Mutex
	warnings []string

	// before, if set, runs before each step of a write; an error ends the write
	// there, as a crash would. Tests only.
	before func(step string) error
	// fsync, if set, stands for (*os.File).Sync. Tests only.
	fsync func(*os.File) error
}

// Create makes dir and a new identity in it. It fails with fs.ErrExist if dir
// holds keys already.
func Create(dir string, u Unlock) (*Store, error) {
	if u.Passphrase != nil && len(u.Passphrase) == 0 {
		return nil, errors.New("create keys: the passphrase is empty: give one, or none at all")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create keys: %w", err)
	}
	s := &Store{dir: dir, protected: u.Passphrase != nil}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("create keys: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), temporary) {
			return nil, fmt.Errorf("create keys: %s already holds %s: open it, or choose another directory: %w", dir, e.Name(), fs.ErrExist)
		}
	}
	if s.id, err = age.GenerateX25519Identity(); err != nil {
		return nil, fmt.Errorf("create keys: %w", err)
	}
	b, err := encodeIdentity(s.id, u)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.narrowAll(); err != nil {
		return nil, fmt.Errorf("create keys: %w", err)
	}
	for _, name := range []string{identityName, identityName + previous} {
		if err := s.write(name, b); err != nil {
			return nil, fmt.Errorf("create keys: %w", err)
		}
	}
	// dir itself has to be found again after a crash.
	if err := s.syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fmt.Errorf("create keys: %w", err)
	}
	return s, nil
}

// Open opens the keys Create made. ErrLocked: the passphrase is missing or
// wrong; fs.ErrNotExist: there are none; ErrDamaged: neither copy of the
// identity can be read.
func Open(dir string, u Unlock) (*Store, error) {
	s := &Store{dir: dir}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.openIdentity(u)
	if err != nil {
		return nil, err
	}
	s.protected = isLocked(b)
	if !s.protected && len(u.Passphrase) > 0 {
		s.warn("a passphrase was given, but the keys in %s are not protected by one: whoever reads the disk reads them", dir)
	}
	if err := s.narrowAll(); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	return s, nil
}

// openIdentity reads the identity from either copy and makes the other one
// like it. A damaged copy may look like one under another passphrase, so the
// second is tried whatever is wrong with the first, unless they are the same.
func (s *Store) openIdentity(u Unlock) ([]byte, error) {
	first, err := readFile(filepath.Join(s.dir, identityName))
	if err == nil {
		if s.id, err = decodeIdentity(first, u); err == nil {
			s.copyIdentity(identityName+previous, first)
			return first, nil
		}
	}
	second, err2 := readFile(filepath.Join(s.dir, identityName+previous))
	if err2 == nil && !bytes.Equal(first, second) {
		if s.id, err2 = decodeIdentity(second, u); err2 == nil {
			s.warn("%s in %s could not be read (%v); its copy was, and has been put in its place", identityName, s.dir, err)
			s.copyIdentity(identityName, second)
			return second, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && errors.Is(err2, fs.ErrNotExist):
		return nil, noIdentity(s.dir, err)
	case errors.Is(err, ErrLocked):
		return nil, fmt.Errorf("open keys in %s: %w", s.dir, err)
	case errors.Is(err2, ErrLocked):
		return nil, fmt.Errorf("open keys in %s: %w", s.dir, err2)
	}
	return nil, fmt.Errorf("open keys: %w: %s in %s and its copy: restore it from a backup, or recover with the words: %w", ErrDamaged, identityName, s.dir, err)
}

// copyIdentity makes file hold b. The keys are open without it, so a failure
// is a warning.
func (s *Store) copyIdentity(file string, b []byte) {
	if have, err := readFile(filepath.Join(s.dir, file)); err == nil && bytes.Equal(have, b) {
		return
	}
	if err := s.write(file, b); err != nil {
		s.warn("%s in %s could not be written (%v): the key to all others exists once only; make room, or make a backup", file, s.dir, err)
	}
}

// narrowAll closes the directory and its files to other users.
func (s *Store) narrowAll() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	paths := map[string]fs.FileMode{s.dir: 0o700}
	for _, e := range entries {
		if e.Type().IsRegular() {
			paths[filepath.Join(s.dir, e.Name())] = 0o600
		}
	}
	for path, mode := range paths {
		w, err := narrow(path, mode)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed meanwhile by another process
		}
		if err != nil {
			return err
		}
		if w != "" {
			s.warn("%s", w)
		}
	}
	return nil
}

// Protected reports whether a passphrase locks the keys. If not, whoever reads
// the disk has them.
func (s *Store) Protected() bool { return s.protected }

// Warnings are sentences for people about what is wrong with the files and was
// got around: damaged generations, wide permissions.
func (s *Store) Warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.warnings)
}

func (s *Store) warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(s.warnings, w) {
		s.warnings = append(s.warnings, w)
	}
}

// Interrupt has before run ahead of each step of every write from now on; its
// error ends the write there, as a crash would. It is for tests of what a crash
// leaves; before must not call the Store.
func (s *Store) Interrupt(before func(step string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// Put seals b as name, durably. What name held becomes the generation before,
// unless it is damaged: then the older one stays.
func (s *Store) Put(name string, b []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(b) > MaxFile {
		return fmt.Errorf("put key file %s: %d bytes, at most %d", name, len(b), MaxFile)
	}
	plain := append([]byte(header+name+"\n"), b...)
	defer clear(plain)
	sealed, err := seal(plain, s.id.Recipient())
	if err != nil {
		return fmt.Errorf("put key file %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(name, sealed); err != nil {
		return fmt.Errorf("put key file %s: %w", name, err)
	}
	return nil
}

// Read opens name. If the newest generation is damaged or missing it opens the
// one before and adds a warning. fs.ErrNotExist: there is none; ErrDamaged:
// there is, and none can be read.
func (s *Store) Read(name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.readGeneration(name, name)
	if err == nil {
		return b, nil
	}
	if errors.Is(err, ErrNewer) {
		// The generation before it is older than what a newer version wrote.
		return nil, fmt.Errorf("read key file %s: %w", name, err)
	}
	b, err1 := s.readGeneration(name, name+previous)
	switch {
	case err1 == nil:
		s.warn("key file %s in %s could not be read (%v); the generation before it was: what changed since is lost here", name, s.dir, err)
		return b, nil
	case errors.Is(err, fs.ErrNotExist) && errors.Is(err1, fs.ErrNotExist):
		return nil, fmt.Errorf("read key file %s: %w", name, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("read key file %s: %w in %s, and no earlier generation can be read: restore it from a backup: %w", name, ErrDamaged, s.dir, err)
}

// readGeneration opens one file, which must have been sealed as name.
func (s *Store) readGeneration(name, file string) ([]byte, error) {
	b, err := readFile(filepath.Join(s.dir, file))
	if err != nil {
		return nil, err
	}
	plain, err := unseal(b, s.id)
	if err != nil {
		return nil, err
	}
	content, ok := bytes.CutPrefix(plain, []byte(header+name+"\n"))
	if !ok {
		if version, _, found := bytes.Cut(bytes.TrimPrefix(plain, []byte(headerStart)), []byte(": ")); found && bytes.HasPrefix(plain, []byte(headerStart)) &&
			len(version) > 0 && string(version) != formatVersion {
			return nil, fmt.Errorf("%w: format %q, this version reads format %s; upgrade kith, nothing was changed", ErrNewer, clip(version), formatVersion)
		}
		return nil, errors.New("it holds another file")
	}
	return content, nil
}

// Delete removes name and its generations. Absent is fine.
func (s *Store) Delete(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The newest last: a crash in between must not bring the older one back.
	for _, suffix := range []string{temporary, previous, ""} {
		err := s.step("remove " + suffix)
		if err == nil {
			err = os.Remove(filepath.Join(s.dir, name+suffix))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete key file %s: %w", name, err)
		}
	}
	if err := s.syncDir(s.dir); err != nil {
		return fmt.Errorf("delete key file %s: %w", name, err)
	}
	return nil
}

// List is the names Read may open, ascending.
func (s *Store) List() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list key files: %w", err)
	}
	var names []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), previous)
		if e.Type().IsRegular() && checkName(name) == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// write replaces file by b: temporary file, fsync, rename, fsync of the
// directory. A readable sealed file becomes the generation before.
func (s *Store) write(file string, b []byte) error {
	path := filepath.Join(s.dir, file)
	tmp := path + temporary
	if err := s.writeTemporary(tmp, b); err != nil {
		return err
	}
	if checkName(file) == nil {
		if _, err := s.readGeneration(file, file); err == nil {
			if err := s.rename("keep", path, path+previous); err != nil {
				return err
			}
		}
	}
	if err := s.rename("rename", tmp, path); err != nil {
		return err
	}
	if err := s.step("sync directory"); err != nil {
		return err
	}
	return s.syncDir(s.dir)
}

func (s *Store) writeTemporary(tmp string, b []byte) error {
	if err := s.step("create"); err != nil {
		return err
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = s.fill(f, b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// fill writes in two halves, so that a test can stop between them.
func (s *Store) fill(f *os.File, b []byte) error {
	for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		if err := s.step("write"); err != nil {
			return err
		}
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	if err := s.step("sync"); err != nil {
		return err
	}
	return s.sync(f)
}

func (s *Store) rename(step, from, to string) error {
	if err := s.step(step); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (s *Store) sync(f *os.File) error {
	if s.fsync != nil {
		return s.fsync(f)
	}
	return f.Sync()
}

func (s *Store) step(name string) error {
	if s.before == nil {
		return nil
	}
	return s.before(name)
}

// readFile reads a file of at most MaxFile and what sealing adds.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const limit = MaxFile + MaxFile/64 + 4096
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return b, nil
}
