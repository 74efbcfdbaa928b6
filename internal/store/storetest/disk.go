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
	// written counts bytes by kind of file.
	written map[storage.FileType]int
	// read counts bytes by kind of file.
	read   map[storage.FileType]int
	failAt int // the number of the op that fails, and all after it until Heal; 0 is never
	fail   error
}

// file is what reading sees, and what is on disk. Both are the same outside of
// the bytes from lo to hi, and where one is shorter.
type file struct {
	data, disk []byte
	lo, hi     int
}

// write changes the bytes from at on.
func (f *file) write(b []byte, at int) {
	if n := at + len(b); n > len(f.data) {
		f.data = append(f.data, make([]byte, n-len(f.data))...)
	}
	copy(f.data[at:], b)
	f.dirty(at, at+len(b))
}

func (f *file) dirty(lo, hi int) {
	if f.lo == f.hi {
		f.lo, f.hi = lo, hi
	}
	f.lo, f.hi = min(f.lo, lo), max(f.hi, hi)
}

// sync makes what was changed durable.
func (f *file) sync() {
	n := len(f.data)
	f.disk = append(f.disk[:min(len(f.disk), n)], make([]byte, max(0, n-len(f.disk)))...)
	if f.lo < n {
		copy(f.disk[f.lo:], f.data[f.lo:min(f.hi, n)])
	}
	f.lo, f.hi = 0, 0
}

// after is what is on disk if those of the sectors that were changed get there
// of which keep says so.
func (f *file) after(keep func(at int) bool) []byte {
	disk := slices.Clone(f.disk[:min(len(f.disk), len(f.data))])
	for at := f.lo; at < f.hi; {
		end := min(f.hi, (at/Sector+1)*Sector)
		if keep(at) && at < len(f.data) {
			end := min(end, len(f.data))
			disk = append(disk, make([]byte, max(0, end-len(disk)))...)
			copy(disk[at:end], f.data[at:end])
		}
		at = end
	}
	return disk
}

// Sector is what reaches the disk whole or not at all.
const Sector = 512

// NewDisk is an empty disk.
func NewDisk() *Disk {
	return &Disk{
		files: make(map[storage.FileDesc]*file),
		syncs: make(map[storage.FileType]int), written: make(map[storage.FileType]int), read: make(map[storage.FileType]int),
	}
}

// Clone is what is on disk after a power cut: what was synced, and of the n
// bytes changed since in each file the first as many as keep says; nil keeps
// none.
func (d *Disk) Clone(keep func(n int) int) *Disk {
	if keep == nil {
		keep = func(int) int { return 0 }
	}
	return d.clone(func(f *file) []byte {
		cut := *f
		cut.hi = f.lo + keep(f.hi-f.lo)
		return cut.after(func(int) bool { return true })
	})
}

// CloneSectors is Clone on a disk that writes in any order: of the sectors that
// were changed since they were synced those are there of which keep says so.
func (d *Disk) CloneSectors(keep func() bool) *Disk {
	return d.clone(func(f *file) []byte { return f.after(func(int) bool { return keep() }) })
}

func (d *Disk) clone(cut func(*file) []byte) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := NewDisk()
	c.meta = d.meta
	for fd, f := range d.files {
		data := cut(f)
		c.files[fd] = &file{data: data, disk: slices.Clone(data)}
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

// Written is how many bytes were written to files of a kind.
func (d *Disk) Written(t storage.FileType) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written[t]
}

// Read is how many bytes were read from files of a kind, at a place in them.
func (d *Disk) Read(t storage.FileType) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read[t]
}

// Edit changes the files of a kind, behind everybody's back.
func (d *Disk) Edit(t storage.FileType, change func([]byte) []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for fd, f := range d.files {
		if fd.Type == t {
			f.data = change(slices.Clone(f.data))
			f.disk, f.lo, f.hi = slices.Clone(f.data), 0, 0
		}
	}
}

// Forget drops what is not synced of the files of a kind, as a failed sync may.
func (d *Disk) Forget(t storage.FileType) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for fd, f := range d.files {
		if fd.Type == t {
			f.data, f.lo, f.hi = slices.Clone(f.disk), 0, 0
		}
	}
}

// Files are the files as goleveldb sees them.
func (d *Disk) Files(readOnly bool) (storage.Storage, error) { return (*files)(d), nil }

// Settle makes the manifest durable, as is done in a directory.
func (d *Disk) Settle() error {
	d.before()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("sync", storage.TypeManifest); err != nil {
		return err
	}
	for fd, f := range d.files {
		if fd.Type == storage.TypeManifest {
			f.sync()
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

// Names does nothing: names are durable at once here.
func (d *Disk) Names() error { return nil }

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
	}{bytes.NewReader(f.data), &counted{s.disk(), fd.Type, bytes.NewReader(f.data)}, io.NopCloser(nil)}, nil
}

// counted is a file that is read at places.
type counted struct {
	d  *Disk
	of storage.FileType
	io.ReaderAt
}

func (c *counted) ReadAt(b []byte, at int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, at)
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.d.read[c.of] += n
	return n, err
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
	return &writer{d: s.disk(), t: fd.Type, f: f}, nil
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
	d  *Disk
	t  storage.FileType
	f  *file
	at int
}

func (w *writer) Write(b []byte) (int, error) {
	n, err := w.WriteAt(b, int64(w.at))
	w.at += n
	return n, err
}

func (w *writer) WriteAt(b []byte, at int64) (int, error) {
	w.d.before()
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if err := w.d.op("write", w.t); err != nil {
		if w.d.Torn {
			w.f.write(b[:len(b)/2], int(at))
			return len(b) / 2, err
		}
		return 0, err
	}
	w.d.written[w.t] += len(b)
	w.f.write(b, int(at))
	return len(b), nil
}

// Truncate is of no consequence for what is durable, and does not fail.
func (w *writer) Truncate(size int64) error {
	w.d.before()
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	w.f.data = w.f.data[:min(len(w.f.data), int(size))]
	return nil
}

func (w *writer) Sync() error {
	w.d.before()
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if err := w.d.op("sync", w.t); err != nil {
		return err
	}
	w.d.syncs[w.t]++
	w.f.sync()
	return nil
}

func (w *writer) Close() error { return nil }
