package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// markerKey holds the number of the last commit, written with every commit. A
// database opened anew that knows a lower one has lost something.
var markerKey = []byte{0, 'c'}

const (
	// groupBytes bounds what one log record gathers from waiting writers.
	groupBytes = 1 << 20
	// retryAfter is how long a full disk is left alone.
	retryAfter = 500 * time.Millisecond
)

// engine orders all writes of one database.
//
// goleveldb gathers concurrent synced writes by itself, but goes on writing
// after a failed sync with sequence numbers that a replay then refuses. So
// writers queue here, the first of the queue leads: it writes for all who wait,
// alone. After a failure it writes nothing until heal. That a crash leaves a
// prefix of all commits across logs, logs.go sees to.
type engine struct {
	m    Medium
	opts Options

	// qmu guards what follows.
	qmu     sync.Mutex
	queue   []*request
	leading bool
	closing bool

	// hmu guards what follows.
	hmu      sync.Mutex
	free     sync.Cond   // readers or swapping changed
	db       *leveldb.DB // nil if it could not be opened again
	readers  int
	swapping bool
	closed   bool

	// The leader alone touches what follows.
	merged batch
	number uint64 // of the last commit
	dirty  bool   // something is written and not synced

	fault atomic.Pointer[fault] // stored by the leader
}

// fault is why nothing is written.
type fault struct {
	err  error
	at   time.Time
	undo *batch // rows of the failed write as they were
	lost bool   // no healing: what was acknowledged is not there
}

type request struct {
	batch *batch // nil for a bare sync, or if act is set
	sync  bool
	act   func() error // run by the leader, alone
	last  bool         // act closes the engine
	turn  chan bool    // true: you lead; false: err is set
	err   error
}

func newEngine(m Medium, opts Options) *engine {
	e := &engine{m: m, opts: opts}
	e.free.L = &e.hmu
	return e
}

// start takes over an open database. cause is why it can only be read, or nil.
func (e *engine) start(db *leveldb.DB, cause error) error {
	n, err := readMarker(db)
	if err != nil {
		return err
	}
	e.db, e.number = db, n
	if cause != nil {
		e.fault.Store(&fault{err: cause, at: time.Now(), undo: new(batch)})
		return nil
	}
	return nil
}

func marker(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func readMarker(db *leveldb.DB) (uint64, error) {
	v, err := db.Get(markerKey, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, readError(err)
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("marker of %d bytes: %w", len(v), ErrDamaged)
	}
	return binary.BigEndian.Uint64(v), nil
}

// write writes b whole or not at all. If sync is set it, and all before it, is
// durable when write returns nil.
func (e *engine) write(b *batch, sync bool) error {
	return e.do(&request{batch: b, sync: sync})
}

// sync makes durable what is written.
func (e *engine) sync() error { return e.do(&request{sync: true}) }

// reopen closes the database and opens it again, proving the disk first.
func (e *engine) reopen() error {
	return e.do(&request{act: func() error {
		f := e.fault.Load()
		if f == nil {
			return nil
		}
		return e.heal(f)
	}})
}

// close syncs and closes. It refuses who comes or waits, and waits for readers.
func (e *engine) close() error {
	return e.do(&request{last: true, act: func() error {
		e.qmu.Lock()
		for _, r := range e.queue {
			r.err = ErrClosed
			r.turn <- false
		}
		e.queue = nil
		e.qmu.Unlock()
		var err error
		if e.fault.Load() == nil && e.dirty {
			err = e.put(new(batch), true)
		}
		if db := e.takeOut(); db != nil {
			err = errors.Join(err, db.Close())
		}
		return err
	}})
}

func (e *engine) do(r *request) error {
	r.turn = make(chan bool, 1)
	e.qmu.Lock()
	if e.closing {
		e.qmu.Unlock()
		return ErrClosed
	}
	e.closing = r.last
	lead := !e.leading
	if lead {
		e.leading = true
	} else {
		e.queue = append(e.queue, r)
	}
	e.qmu.Unlock()
	if !lead && !<-r.turn {
		return r.err
	}
	group := e.gather(r)
	err := e.lead(group)
	e.dismiss(group, err)
	return err
}

// gather lets r take along the writes that wait behind it.
func (e *engine) gather(r *request) []*request {
	group := []*request{r}
	if r.batch == nil {
		return group
	}
	e.qmu.Lock()
	defer e.qmu.Unlock()
	n := r.batch.n
	for len(e.queue) > 0 {
		next := e.queue[0]
		if next.batch == nil || n+next.batch.n > groupBytes {
			break
		}
		n += next.batch.n
		group = append(group, next)
		e.queue = e.queue[1:]
	}
	return group
}

// dismiss tells the group how it went and makes the next in line the leader.
func (e *engine) dismiss(group []*request, err error) {
	for _, r := range group[1:] {
		r.err = err
		r.turn <- false
	}
	e.qmu.Lock()
	defer e.qmu.Unlock()
	if len(e.queue) == 0 {
		e.leading, e.queue = false, nil
		return
	}
	next := e.queue[0]
	e.queue = e.queue[1:]
	next.turn <- true
}

func (e *engine) lead(group []*request) error {
	if act := group[0].act; act != nil {
		return act()
	}
	if err := e.ready(); err != nil {
		return err
	}
	b, sync := e.merge(group)
	if b.rows == 0 && !(sync && e.dirty) {
		return nil
	}
	return e.put(b, sync)
}

// merge makes one batch of a group's.
func (e *engine) merge(group []*request) (b *batch, sync bool) {
	if b, sync = group[0].batch, group[0].sync; len(group) == 1 && b != nil {
		return b, sync
	}
	e.merged.reset()
	for _, r := range group {
		sync = sync || r.sync
		if r.batch != nil {
			e.merged.add(r.batch)
		}
	}
	return &e.merged, sync
}

// put writes a batch and its marker.
func (e *engine) put(b *batch, sync bool) error {
	b.Put(markerKey, marker(e.number+1))
	if err := e.db.Write(b.engine(), &opt.WriteOptions{Sync: sync, NoWriteMerge: true}); err != nil {
		return e.fail(b, err)
	}
	e.number++
	e.dirty = !sync
	return nil
}

// fail ends writing. The failed batch is not in memory, but it may be in the
// log: undo will cover it.
func (e *engine) fail(b *batch, err error) error {
	f := &fault{err: writeError(err), at: time.Now(), undo: new(batch)}
	if err := b.replay(preImage{e.db, f}); err != nil {
		f.lost = true
	}
	e.fault.Store(f)
	return f.err
}

// preImage collects the present values of the rows replayed into it.
type preImage struct {
	db *leveldb.DB
	f  *fault
}

func (p preImage) Delete(key []byte) { p.Put(key, nil) }

func (p preImage) Put(key, _ []byte) {
	if string(key) == string(markerKey) {
		return
	}
	switch old, err := p.db.Get(key, nil); {
	case err == nil:
		p.f.undo.Put(key, old)
	case errors.Is(err, leveldb.ErrNotFound):
		p.f.undo.Delete(key)
	default:
		p.f.lost = true
	}
}

// ready reports whether writes are taken. On a disk that was full it looks
// from time to time whether it still is.
func (e *engine) ready() error {
	f := e.fault.Load()
	if f == nil {
		return nil
	}
	if errors.Is(f.err, ErrFull) && !f.lost && time.Since(f.at) >= e.opts.RetryAfter {
		if err := e.heal(f); err == nil {
			return nil
		}
	}
	return fmt.Errorf("no writes since a failure: %w", e.fault.Load().err)
}
