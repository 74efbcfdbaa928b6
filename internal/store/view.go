package store

import (
	"encoding/binary"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/kithnet/kith/space"
)

// View is a space as it was when the view was taken, for reading that may take
// long. Unlike an iterator it does not keep the store from healing: a store
// that was opened anew meanwhile ends the view, and reads fail with ErrClosed.
// It keeps the engine from dropping what was overwritten since, until Release.
// It is safe for concurrent use.
type View struct {
	space *Space
	db    *leveldb.DB

	mu   sync.RWMutex // guards what follows; held by readers while they read
	snap *leveldb.Snapshot
}

// View takes one.
func (s *Space) View() (*View, error) {
	db, err := s.store.engine.acquire()
	if err != nil {
		return nil, err
	}
	defer s.store.engine.release()
	snap, err := db.GetSnapshot()
	if err != nil {
		return nil, s.store.noteDamage(err)
	}
	s.store.views.Add(1)
	return &View{space: s, db: db, snap: snap}, nil
}

// Release ends the view, once nobody reads it. Reads after it fail with
// ErrClosed.
func (v *View) Release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.snap != nil {
		v.snap.Release()
		v.snap = nil
		v.space.store.views.Add(-1)
	}
}

// Views is how many views are not released.
func (s *Store) Views() int { return int(s.views.Load()) }

// pin keeps the view and its database for one read, until done is called.
func (v *View) pin() (r *reader, done func(), err error) {
	v.mu.RLock()
	defer func() {
		if err != nil {
			v.mu.RUnlock()
		}
	}()
	if v.snap == nil {
		return nil, nil, ErrClosed
	}
	e := v.space.store.engine
	db, err := e.acquire()
	if err != nil {
		return nil, nil, err
	}
	if db != v.db {
		e.release()
		return nil, nil, ErrClosed
	}
	return &reader{v.space.store, v.snap}, func() { e.release(); v.mu.RUnlock() }, nil
}

// Record reads a record, or its trace if it was deleted.
func (v *View) Record(author space.DID, p space.Path) (row RecordRow, ok bool, err error) {
	r, done, err := v.pin()
	if err != nil {
		return row, false, err
	}
	defer done()
	b := v.space.vault.blinder()
	defer v.space.vault.done(b)
	plain, ok, err := r.get(v.space.vault, b.record(author, p))
	if err != nil || !ok {
		return row, false, err
	}
	row, err = decodeRecord(author, plain)
	return row, err == nil, err
}

// Values gives the CIDs and values that stand at an author's paths, a zero CID
// where nothing does. It is for many: what reading one costs besides the
// engine's search is paid once.
func (v *View) Values(author space.DID, paths []space.IndexEntry, give func(i int, cid space.CID, value space.Record) error) error {
	r, done, err := v.pin()
	if err != nil {
		return err
	}
	defer done()
	b := v.space.vault.blinder()
	defer v.space.vault.done(b)
	group := len(b.author(tableRecord, author, groupSize))
	for i := range paths {
		plain, ok, err := r.get(v.space.vault, b.recordOf(group, author, paths[i].Path))
		if err != nil {
			return err
		}
		if !ok {
			plain = nil
		}
		cid, value, err := decodeValue(plain)
		if err == nil {
			err = give(i, cid, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// OpsAfter are an author's ops behind (rev, idx), at most limit, out of count
// that are stored. It finds the place by halving, one page of the oplog at each
// step.
func (v *View) OpsAfter(author space.DID, rev space.TID, idx int, count uint64, limit int) (ops []OpRow, err error) {
	r, done, err := v.pin()
	if err != nil {
		return nil, err
	}
	defer done()
	p := v.space.key(func(b *blinder) []byte { return b.author(tableOps, author, macSize) })
	gone, err := v.space.pruned(r, author)
	if err != nil {
		return nil, err
	}
	it := r.snap.NewIterator(prefix(p), scanning)
	defer it.Release()
	from := gone.First // of the first op behind (rev, idx)
	for to := count; from < to; {
		n := from + (to-from)/2
		if !goTo(it, binary.BigEndian.AppendUint64(p[:len(p):len(p)], n)) {
			break
		}
		plain, err := v.space.vault.open(it.Key(), it.Value())
		if err != nil {
			return nil, err
		}
		before, all, err := placeIn(plain, rev, idx)
		if err != nil {
			return nil, err
		}
		switch first := numberOf(it.Key()); before {
		case 0:
			to = min(first, n)
		case all:
			from = max(first+all, n+1)
		default:
			from, to = first+before, first+before
		}
	}
	for ok := goTo(it, binary.BigEndian.AppendUint64(p, from)); ok && len(ops) < limit; ok = it.Next() {
		plain, err := v.space.vault.open(it.Key(), it.Value())
		if err != nil {
			return nil, err
		}
		page, err := decodeOps(author, numberOf(it.Key()), plain)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Rows {
			if len(ops) < limit && o.after(rev, idx) {
				ops = append(ops, o)
			}
		}
	}
	if err := it.Error(); err != nil {
		return nil, r.s.noteDamage(err)
	}
	return ops, nil
}

// Pruned is what was dropped of an author's oplog.
func (v *View) Pruned(author space.DID) (Pruned, error) {
	r, done, err := v.pin()
	if err != nil {
		return Pruned{}, err
	}
	defer done()
	return v.space.pruned(r, author)
}
