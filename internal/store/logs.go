package store

import (
	"errors"
	"sync"
)

// What a power cut leaves has to be a prefix of all commits. But the engine
// begins a new log while the rows of the one before are still being written to
// a table, and drops that one unsynced. So nothing is written to a log until
// the one before is settled: its table is there, or all of it is synced. What
// comes meanwhile is held in memory, for the milliseconds that a table takes
// and up to the size of the write buffer; a sync does not wait for the table,
// but settles the log before. Of a store that is filled most logs are thus never
// synced, and leave before the disk has seen them.

// logWriter writes a log. The engine uses it from one goroutine, which alone
// touches what stands above the lock.
type logWriter struct {
	f     logFile
	named func() error // makes its name durable; nil if it is
	chunk int64        // how far it is written ahead at once; 0: never
	most  int64        // and up to which size

	before   *logWriter // nil if it is settled
	followed bool       // by a newer one
	held     [][]byte   // behind before, and not in the file; from pieces
	from     int        // what of the first is in the file
	end      int64      // of what was written
	size     int64      // of the file, if it is beyond
	synced   int64      // end at the last sync
	small    int        // small syncs in a row

	mu      sync.Mutex // guards what follows
	settled bool       // and closed
}

// heldPiece is what is held in one piece, and written at once.
const heldPiece = 256 << 10

var pieces = sync.Pool{New: func() any { return new([heldPiece]byte) }}

func (w *logWriter) Write(b []byte) (int, error) {
	if w.before != nil && !w.before.isSettled() {
		w.hold(b)
		return len(b), nil
	}
	if err := w.release(); err != nil {
		return 0, err
	}
	n, err := w.f.WriteAt(b, w.end)
	w.end += int64(n)
	return n, err
}

func (w *logWriter) hold(b []byte) {
	for len(b) > 0 {
		last := len(w.held) - 1
		if last < 0 || len(w.held[last]) == cap(w.held[last]) {
			w.held = append(w.held, pieces.Get().(*[heldPiece]byte)[:0])
			last++
		}
		piece := w.held[last]
		n := min(len(b), cap(piece)-len(piece))
		w.held[last] = append(piece, b[:n]...)
		b = b[n:]
	}
}

// release writes what was held. What the disk does not take stays held: it was
// acknowledged, and Close tries again.
func (w *logWriter) release() error {
	w.before = nil
	for len(w.held) > 0 {
		piece := w.held[0]
		n, err := w.f.WriteAt(piece[w.from:], w.end)
		w.end, w.from = w.end+int64(n), w.from+n
		if err != nil {
			return err
		}
		pieces.Put((*[heldPiece]byte)(piece[:heldPiece]))
		w.held, w.from = w.held[1:], 0
	}
	w.held = nil
	return nil
}

// Sync makes durable what was written to this log and to those before.
func (w *logWriter) Sync() error {
	if err := w.catchUp(); err != nil {
		return err
	}
	if err := w.goAhead(); err != nil {
		return err
	}
	if err := datasync(w.f); err != nil {
		return err
	}
	w.synced = w.end
	if w.named != nil {
		if err := w.named(); err != nil {
			return err
		}
		w.named = nil
	}
	return nil
}

// catchUp settles the log before, and writes what waited for that.
func (w *logWriter) catchUp() error {
	if w.before != nil {
		if err := w.before.settle(); err != nil {
			return err
		}
	}
	return w.release()
}

// settle syncs a log that was closed, unless its table is there by now.
func (w *logWriter) settle() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled {
		return nil
	}
	if err := w.catchUp(); err != nil {
		return err
	}
	if w.synced != w.end {
		if err := datasync(w.f); err != nil {
			return err
		}
	}
	w.settled = true
	return w.f.Close()
}

func (w *logWriter) isSettled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.settled
}

// drop is for a log whose table is there.
func (w *logWriter) drop() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled {
		return nil
	}
	w.settled = true
	return w.f.Close()
}

// Close cuts off what was written ahead, for whoever reads the log by another
// way. That this may not be durable is no harm. The last log ends its file as
// well, and that of the one before; another does when it is settled.
func (w *logWriter) Close() error {
	var err error
	if !w.followed {
		before := w.before
		if err = w.catchUp(); err != nil && before != nil {
			err = errors.Join(err, before.drop())
		}
	}
	if w.size > w.end {
		err = errors.Join(err, w.f.Truncate(w.end))
	}
	if !w.followed || w.synced == w.end && len(w.held) == 0 {
		err = errors.Join(err, w.drop())
	}
	return err
}
