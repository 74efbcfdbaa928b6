package store

import (
	"bufio"
	"errors"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	lderrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// files is a database's storage with logs as journal.go and logs.go write and
// read them.
type files struct {
	storage.Storage
	chunk int64        // how far a log is written ahead with zeros; 0: never
	most  int64        // and up to which size
	names func() error // makes the names of new logs durable; nil while opening

	mu   sync.Mutex // guards what follows
	logs map[storage.FileDesc]*logWriter
	last *logWriter
}

var _ storage.Storage = (*files)(nil)

// Lock gives a lock with which the storage ends: nobody else closes it.
func (f *files) Lock() (storage.Locker, error) {
	l, err := f.Storage.Lock()
	if err != nil {
		return nil, err
	}
	return lastLock{l, f.Storage}, nil
}

type lastLock struct {
	storage.Locker
	files storage.Storage
}

func (l lastLock) Unlock() {
	l.Locker.Unlock()
	_ = l.files.Close() // its files are closed, this ends its lock
}

func (f *files) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := f.Storage.Create(fd)
	if err != nil {
		return nil, err
	}
	switch fd.Type {
	case storage.TypeTable:
		return &tableWriter{Writer: w, pieces: bufio.NewWriterSize(w, tablePiece)}, nil
	case storage.TypeJournal:
		if log, ok := w.(logFile); ok {
			return f.begin(fd, log), nil
		}
	}
	return w, nil
}

// begin lets a log follow the last.
func (f *files) begin(fd storage.FileDesc, log logFile) *logWriter {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &logWriter{f: log, named: f.names, chunk: f.chunk, most: f.most, before: f.last}
	if f.last != nil {
		f.last.followed = true
	}
	f.logs[fd], f.last = w, w
	return w
}

// Remove is asked for of a log when its table is there.
func (f *files) Remove(fd storage.FileDesc) error {
	var err error
	f.mu.Lock()
	w := f.logs[fd]
	delete(f.logs, fd)
	f.mu.Unlock()
	if w != nil {
		err = w.drop()
	}
	return errors.Join(err, f.Storage.Remove(fd))
}

// tablePiece is what of a table is written at once: the engine hands out one
// block after the other, most of them of 4 KiB.
const tablePiece = 128 << 10

// tableWriter writes a table in large pieces. Closed without a sync it is given
// up.
type tableWriter struct {
	storage.Writer
	pieces *bufio.Writer
}

func (w *tableWriter) Write(b []byte) (int, error) { return w.pieces.Write(b) }

func (w *tableWriter) Sync() error {
	if err := w.pieces.Flush(); err != nil {
		return err
	}
	return w.Writer.Sync()
}

func (f *files) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := f.Storage.Open(fd)
	if err != nil || fd.Type != storage.TypeJournal {
		return r, err
	}
	cut, err := openLog(r)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return cut, nil
}

// openOn opens the database of a medium, making it if there is none. What it
// says of its tables is durable then.
func openOn(m Medium, opts Options, how mode) (*leveldb.DB, error) {
	return openWith(m, opts, how, leveldb.Open)
}

// recoverOn opens the database of a medium from the tables and logs that are
// there, whatever is said of them.
func recoverOn(m Medium, opts Options) (*leveldb.DB, error) {
	return openWith(m, opts, lenient, leveldb.Recover)
}

// opener is one of the engine's ways to open a storage.
type opener func(storage.Storage, *opt.Options) (*leveldb.DB, error)

func openWith(m Medium, opts Options, how mode, open opener) (*leveldb.DB, error) {
	o := opts.engine(how)
	under, err := m.Files(o.ReadOnly)
	if err != nil {
		return nil, err
	}
	f := &files{Storage: under, logs: make(map[storage.FileDesc]*logWriter)}
	if opts.ahead {
		f.chunk, f.most = aheadOf(opts.WriteBufferBytes), int64(opts.WriteBufferBytes)
	}
	db, err := open(f, o)
	if how == lenient && lderrors.IsCorrupted(err) {
		// The engine has let go of the storage.
		if f.Storage, err = m.Files(o.ReadOnly); err != nil {
			return nil, err
		}
		db, err = leveldb.Recover(f, o)
	}
	if err != nil {
		_ = f.Storage.Close() // unless its lock did; twice is no harm
		return nil, err
	}
	if o.ReadOnly {
		return db, nil
	}
	if err := m.Settle(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	f.names = m.Names
	return db, nil
}
