package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// faulty is a goleveldb storage in memory that knows which bytes are synced,
// fails on demand, and can be cloned as a power cut would leave it.
type faulty struct {
	mu     sync.Mutex
	files  map[storage.FileDesc]*faultyFile
	meta   storage.FileDesc
	locked bool

	ops    int                      // creates, writes and syncs so far
	syncs  map[storage.FileType]int // by kind of file
	failAt int                      // the number of the op that fails, and all after it until heal; 0 is never
	fail   error
	torn   bool // a failing write leaves its first half
	only   func(op string, t storage.FileType) bool
	onOp   func() // called before every op, without mu
}

type faultyFile struct {
	data   []byte
	synced int
}

func newFaulty() *faulty {
	return &faulty{files: make(map[storage.FileDesc]*faultyFile), syncs: make(map[storage.FileType]int)}
}

// clone is what is on disk after a power cut: what was synced, and of the rest
// of each file as much as keep says.
func (s *faulty) clone(keep func(n int) int) *faulty {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newFaulty()
	c.meta = s.meta
	for fd, f := range s.files {
		n := f.synced + keep(len(f.data)-f.synced)
		c.files[fd] = &faultyFile{data: slices.Clone(f.data[:n]), synced: n}
	}
	return c
}

// break makes the op after the next n fail, and all that follow.
func (s *faulty) breakAfter(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failAt, s.fail = s.ops+n+1, err
}

func (s *faulty) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failAt = 0
}

// op counts an operation and says whether it fails. mu is held.
func (s *faulty) op(name string, t storage.FileType) error {
	if s.only != nil && !s.only(name, t) {
		return nil
	}
	s.ops++
	if s.failAt > 0 && s.ops >= s.failAt {
		return &os.PathError{Op: name, Path: t.String(), Err: s.fail}
	}
	return nil
}

func (s *faulty) before() {
	if s.onOp != nil {
		s.onOp()
	}
}

func (s *faulty) Lock() (storage.Locker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return nil, storage.ErrLocked
	}
	s.locked = true
	return (*faultyLock)(s), nil
}

type faultyLock faulty

func (l *faultyLock) Unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.locked = false
}

func (s *faulty) Log(string) {}

func (s *faulty) SetMeta(fd storage.FileDesc) error {
	s.before()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.op("meta", storage.TypeManifest); err != nil {
		return err
	}
	s.meta = fd
	return nil
}

func (s *faulty) GetMeta() (storage.FileDesc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta.Zero() {
		return s.meta, os.ErrNotExist
	}
	return s.meta, nil
}

func (s *faulty) List(t storage.FileType) (fds []storage.FileDesc, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for fd := range s.files {
		if fd.Type&t != 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

func (s *faulty) Open(fd storage.FileDesc) (storage.Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[fd]
	if f == nil {
		return nil, os.ErrNotExist
	}
	return struct {
		io.ReadSeeker
		io.ReaderAt
		io.Closer
	}{bytes.NewReader(f.data), bytes.NewReader(f.data), io.NopCloser(nil)}, nil
}

func (s *faulty) Create(fd storage.FileDesc) (storage.Writer, error) {
	s.before()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.op("create", fd.Type); err != nil {
		return nil, err
	}
	f := new(faultyFile)
	s.files[fd] = f
	return &faultyWriter{s, fd.Type, f}, nil
}

func (s *faulty) Remove(fd storage.FileDesc) error {
	s.before()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[fd] == nil {
		return os.ErrNotExist
	}
	delete(s.files, fd)
	return nil
}

func (s *faulty) Rename(from, to storage.FileDesc) error {
	s.before()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[to] = s.files[from]
	delete(s.files, from)
	return nil
}

func (s *faulty) Close() error { return nil }

type faultyWriter struct {
	s *faulty
	t storage.FileType
	f *faultyFile
}

func (w *faultyWriter) Write(b []byte) (int, error) {
	w.s.before()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err := w.s.op("write", w.t); err != nil {
		if w.s.torn {
			w.f.data = append(w.f.data, b[:len(b)/2]...)
			return len(b) / 2, err
		}
		return 0, err
	}
	w.f.data = append(w.f.data, b...)
	return len(b), nil
}

func (w *faultyWriter) Sync() error {
	w.s.before()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err := w.s.op("sync", w.t); err != nil {
		return err
	}
	w.s.syncs[w.t]++
	w.f.synced = len(w.f.data)
	return nil
}

func (w *faultyWriter) Close() error { return nil }

// faultyMedium is an engine's medium over a faulty storage.
type faultyMedium struct {
	s    *faulty
	opts Options
}

// Open does what disk.Open does, and what go-ds-leveldb does under it.
func (m *faultyMedium) Open(how mode) (*leveldb.DB, error) {
	opts := m.opts.engine(how)
	db, err := leveldb.Open(m.s, opts)
	if isCorrupted(err) && how == lenient {
		db, err = leveldb.Recover(m.s, opts)
	}
	if err != nil || opts.ReadOnly {
		return db, err
	}
	if err := m.s.syncManifest(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (s *faulty) syncManifest() error {
	s.before()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.op("sync", storage.TypeManifest); err != nil {
		return err
	}
	for fd, f := range s.files {
		if fd.Type == storage.TypeManifest {
			f.synced = len(f.data)
		}
	}
	return nil
}

func (m *faultyMedium) Probe(n int) error {
	w, err := m.s.Create(storage.FileDesc{Type: storage.TypeTemp, Num: 1 << 40})
	if err != nil {
		return err
	}
	_, err = w.Write(make([]byte, n))
	return errors.Join(err, w.Sync(), m.s.Remove(storage.FileDesc{Type: storage.TypeTemp, Num: 1 << 40}))
}

func (m *faultyMedium) Journal() (newest int64, err error) {
	fds, err := m.s.List(storage.TypeJournal)
	for _, fd := range fds {
		newest = max(newest, fd.Num)
	}
	return newest, err
}

var smallBuffer = Options{WriteBufferBytes: minWriteBuffer}.withDefaults()

// openFaulty opens a store on a faulty storage as Open would on a directory:
// strictly, or else as recovered.
func openFaulty(t testing.TB, f *faulty) *Store {
	t.Helper()
	m := &faultyMedium{f, smallBuffer}
	s := &Store{node: newVault([32]byte{}, [32]byte{1})}
	err := s.start(m, smallBuffer)
	if errors.Is(err, ErrDamaged) {
		s.recovered = true
		err = s.start(m, smallBuffer)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.engine.retry = 0
	return s
}
