package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// heal opens the database anew after a failed write and takes back what of
// that write may have reached the log. Writes are taken again if it returns
// nil. Reads go on from the old handle until there is space for the new one:
// opening turns the logs into tables.
func (e *engine) heal(f *fault) error {
	again := *f
	again.at = time.Now()
	e.fault.Store(&again)
	if f.lost {
		return f.err
	}
	next := again // what others see of a fault does not change
	if err := e.m.Probe(2*e.opts.WriteBufferBytes + f.undo.n); err != nil {
		next.err = writeError(err)
		e.fault.Store(&next)
		return next.err
	}
	old, ok := e.beginSwap()
	if !ok {
		return ErrBusy
	}
	if old != nil {
		_ = old.Close() // it reports the failure we know of
	}
	db, err := openOn(e.m, e.opts, lenient)
	if err != nil {
		next.err = writeError(err)
		db, _ = openOn(e.m, e.opts, readOnly)
	} else {
		err = e.prove(db, &next)
	}
	if err == nil {
		e.fault.Store(nil)
	} else {
		e.fault.Store(&next)
	}
	e.endSwap(db)
	return err
}

// prove checks that every acknowledged commit is in db and takes back the
// failed one.
func (e *engine) prove(db *leveldb.DB, f *fault) error {
	n, err := readMarker(db)
	if err == nil && n < e.number {
		err = fmt.Errorf("commit %d is gone, the last is %d: %w", e.number, n, ErrIO)
	}
	if err != nil {
		f.err, f.lost = fmt.Errorf("reopen: %w", err), true
		return f.err
	}
	undo := new(batch)
	undo.add(f.undo) // a copy: a marker comes with it
	undo.Put(markerKey, marker(n+1))
	if err := db.Write(undo.engine(), &opt.WriteOptions{Sync: true, NoWriteMerge: true}); err != nil {
		f.err = writeError(err)
		return f.err
	}
	e.number, e.dirty = n+1, false
	return nil
}

// beginSwap keeps new readers out, unless one is inside. It does not wait for
// those: who holds an iterator may be waiting for the leader.
func (e *engine) beginSwap() (old *leveldb.DB, ok bool) {
	e.hmu.Lock()
	defer e.hmu.Unlock()
	if e.readers > 0 {
		return nil, false
	}
	e.swapping = true
	return e.db, true
}

// takeOut refuses readers from now on and waits for those inside.
func (e *engine) takeOut() *leveldb.DB {
	e.hmu.Lock()
	defer e.hmu.Unlock()
	e.closed = true
	for e.readers > 0 {
		e.free.Wait()
	}
	db := e.db
	e.db = nil
	return db
}

func (e *engine) endSwap(db *leveldb.DB) {
	e.hmu.Lock()
	defer e.hmu.Unlock()
	e.db, e.swapping = db, false
	e.free.Broadcast()
}

// acquire gives the database for reading; release must follow.
func (e *engine) acquire() (*leveldb.DB, error) {
	e.hmu.Lock()
	defer e.hmu.Unlock()
	for e.swapping {
		e.free.Wait()
	}
	switch {
	case e.closed:
		return nil, ErrClosed
	case e.db == nil:
		return nil, errors.Join(ErrIO, errors.New("database could not be reopened"))
	}
	e.readers++
	return e.db, nil
}

func (e *engine) release() {
	e.hmu.Lock()
	defer e.hmu.Unlock()
	e.readers--
	e.free.Broadcast()
}
