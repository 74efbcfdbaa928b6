// Package storetest gives tests a disk that fails: a medium for
// store.OpenOn, in memory, that knows which bytes are synced.
//
// It promises: Clone is what a power cut at that instant may leave, and nothing
// that was synced is missing from it; from the operation at which the disk
// breaks until Heal no create, write or sync succeeds; reads never fail.
//
// It refuses: nothing. It is for tests alone and keeps everything in memory.
//
// A Disk is safe for concurrent use once its fields are set. Its files belong
// to it: what it is given is copied.
package storetest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	lderrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// Disk holds the files of one database. Set its fields before it is used.
type Disk struct {
	// OnOp is called before every operation that changes something.
	OnOp func()
	// Only picks the operations (create, write, sync, meta) that count and can
	// fail; nil: all.
	Only func(op string, t storage.FileType) bool
	// Torn makes a failing write leave its first half.
	Torn bool

	mu     sync.Mutex // guards what follows
	files  map[storage.FileDesc]*file
	meta   storage.FileDesc
	locked bool
	ops    int                      // that counted so far
	syncs  map[storage.FileType]int // by kind of file
	failAt int                      // the number of the op that fails, and all after it until Heal; 0 is never
	fail   error
}

type file struct {
	data   []byte
	synced int
}

// NewDisk is an empty disk.
func NewDisk() *Disk {
	return &Disk{files: make(map[storage.FileDesc]*file), syncs: make(map[storage.FileType]int)}
}

// Clone is what is on disk after a power cut: what was synced, and of the n
// bytes behind it in each file as many as keep says; nil keeps none.
func (d *Disk) Clone(keep func(n int) int) *Disk {
	if keep == nil {
		keep = func(int) int { return 0 }
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := NewDisk()
	c.meta = d.meta
	for fd, f := range d.files {
		n := f.synced + keep(len(f.data)-f.synced)
		c.files[fd] = &file{data: slices.Clone(f.data[:n]), synced: n}
	}
	return c
}

// BreakAfter lets the next n operations succeed; the one after fails with err,
// and so do all that follow.
func (d *Disk) BreakAfter(n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt, d.fail = d.ops+n+1, err
}

// Heal ends what BreakAfter began.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt = 0
}

// Broken reports whether an operation has met what BreakAfter set.
func (d *Disk) Broken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failAt > 0 && d.ops >= d.failAt
}

// Ops is how many operations have counted so far.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Syncs is how often files of a kind were synced.
func (d *Disk) Syncs(t storage.FileType) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs[t]
}

// Forget drops what is not synced of the files of a kind, as a failed sync may.
func (d *Disk) Forget(t storage.FileType) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for fd, f := range d.files {
		if fd.Type == t {
			f.data = f.data[:f.synced]
		}
	}
}

// Open opens the database as the engine's own directory is opened: what it
// says of its tables is durable then. repair drops what is damaged.
func (d *Disk) Open(o *opt.Options, repair bool) (*leveldb.DB, error) {
	s := (*files)(d)
	db, err := leveldb.Open(s, o)
	if repair && lderrors.IsCorrupted(err) {
		db, err = leveldb.Recover(s, o)
	}
	if err != nil || o.ReadOnly {
		return db, err
	}
	if err := d.syncManifest(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (d *Disk) syncManifest() error {
	d.before()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("sync", storage.TypeManifest); err != nil {
		return err
	}
	for fd, f := range d.files {
		if fd.Type == storage.TypeManifest {
			f.synced = len(f.data)
		}
	}
	return nil
}

// Probe writes and syncs n bytes, and deletes them.
func (d *Disk) Probe(n int) error {
	s, fd := (*files)(d), storage.FileDesc{Type: storage.TypeTemp, Num: 1 << 40}
	w, err := s.Create(fd)
	if err != nil {
		return err
	}
	_, err = w.Write(make([]byte, n))
	return errors.Join(err, w.Sync(), s.Remove(fd))
}

// Journal is the number of the newest log. Names are durable at once here.
func (d *Disk) Journal() (newest int64, err error) {
	fds, err := (*files)(d).List(storage.TypeJournal)
	for _, fd := range fds {
		newest = max(newest, fd.Num)
	}
	return newest, err
}

// op counts an operation and says whether it fails. mu is held.
func (d *Disk) op(name string, t storage.FileType) error {
	if d.Only != nil && !d.Only(name, t) {
		return nil
	}
	d.ops++
	if d.failAt > 0 && d.ops >= d.failAt {
		return &os.PathError{Op: name, Path: t.String(), Err: d.fail}
	}
	return nil
}

func (d *Disk) before() {
	if d.OnOp != nil {
		d.OnOp()
	}
}

// files is a Disk as goleveldb sees it.
type files Disk

var _ storage.Storage = (*files)(nil)

func (s *files) disk() *Disk { return (*Disk)(s) }

func (s *files) Lock() (storage.Locker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return nil, storage.ErrLocked
	}
	s.locked = true
	return (*lock)(s), nil
}

type lock Disk

func (l *lock) Unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.locked = false
}

func (s *files) Log(string) {}

func (s *files) SetMeta(fd storage.FileDesc) error {
	s.disk().before()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.disk().op("meta", storage.TypeManifest); err != nil {
		return err
	}
	s.meta = fd
	return nil
}

func (s *files) GetMeta() (storage.FileDesc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta.Zero() {
		return s.meta, os.ErrNotExist
	}
	return s.meta, nil
}

func (s *files) List(t storage.FileType) (fds []storage.FileDesc, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for fd := range s.files {
		if fd.Type&t != 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

func (s *files) Open(fd storage.FileDesc) (storage.Reader, error) {
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

func (s *files) Create(fd storage.FileDesc) (storage.Writer, error) {
	s.disk().before()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.disk().op("create", fd.Type); err != nil {
		return nil, err
	}
	f := new(file)
	s.files[fd] = f
	return &writer{s.disk(), fd.Type, f}, nil
}

func (s *files) Remove(fd storage.FileDesc) error {
	s.disk().before()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[fd] == nil {
		return os.ErrNotExist
	}
	delete(s.files, fd)
	return nil
}

func (s *files) Rename(from, to storage.FileDesc) error {
	s.disk().before()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[to] = s.files[from]
	delete(s.files, from)
	return nil
}

func (s *files) Close() error { return nil }

type writer struct {
	d *Disk
	t storage.FileType
	f *file
}

func (w *writer) Write(b []byte) (int, error) {
	w.d.before()
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if err := w.d.op("write", w.t); err != nil {
		if w.d.Torn {
			w.f.data = append(w.f.data, b[:len(b)/2]...)
			return len(b) / 2, err
		}
		return 0, err
	}
	w.f.data = append(w.f.data, b...)
	return len(b), nil
}

func (w *writer) Sync() error {
	w.d.before()
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if err := w.d.op("sync", w.t); err != nil {
		return err
	}
	w.d.syncs[w.t]++
	w.f.synced = len(w.f.data)
	return nil
}

func (w *writer) Close() error { return nil }
