package store

import (
	"errors"
	"iter"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// reader sees the database as it was when it was made.
type reader struct {
	s    *Store
	snap *leveldb.Snapshot
}

// scanning keeps long scans from emptying the block cache.
var scanning = &opt.ReadOptions{DontFillCache: true}

func (s *Store) reader() (*reader, error) {
	db, err := s.engine.acquire()
	if err != nil {
		return nil, err
	}
	snap, err := db.GetSnapshot()
	if err != nil {
		s.engine.release()
		return nil, s.noteDamage(err)
	}
	return &reader{s, snap}, nil
}

func (r *reader) release() {
	r.snap.Release()
	r.s.engine.release()
}

// get opens the row at key; false if there is none.
func (r *reader) get(v *vault, key []byte) ([]byte, bool, error) {
	value, err := r.snap.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, r.s.noteDamage(err)
	}
	plain, err := v.openOver(key, value) // the engine gives a copy
	return plain, err == nil, err
}

// scan gives the keys from start to limit and what is sealed there. Keys live
// until the next step. It goes on after a row that can not be opened.
func (r *reader) scan(v *vault, from *util.Range) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		it := r.snap.NewIterator(from, scanning)
		defer it.Release()
		for it.Next() {
			plain, err := v.open(it.Key(), it.Value())
			if !yield(row{it.Key(), plain}, err) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(row{}, r.s.noteDamage(err))
		}
	}
}

type row struct{ key, plain []byte }

// seek is an iterator at the last key of its range that is not after key, or
// at the first of all.
func (r *reader) seek(within *util.Range, key []byte) iterator.Iterator {
	it := r.snap.NewIterator(within, scanning)
	goTo(it, key)
	return it
}

// goTo moves to the last key that is not after key, or to the first of all;
// false if there is none.
func goTo(it iterator.Iterator, key []byte) bool {
	switch ok := it.Seek(key); {
	case !ok:
		return it.Last()
	case string(it.Key()) != string(key):
		return it.Prev() || it.First()
	}
	return true
}

// prefix is the range of the keys that begin with p. It copies p.
func prefix(p []byte) *util.Range { return util.BytesPrefix(append([]byte(nil), p...)) }

// list decodes all rows whose key begins with p, in one snapshot.
func list[T any](s *Store, v *vault, p []byte, decode func(*reader, row) (T, error)) iter.Seq2[T, error] {
	return listWithin(s, v, prefix(p), decode)
}

// listWithin decodes all rows of a range, in one snapshot.
func listWithin[T any](s *Store, v *vault, within *util.Range, decode func(*reader, row) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		r, err := s.reader()
		if err != nil {
			yield(none, err)
			return
		}
		defer r.release()
		for row, err := range r.scan(v, within) {
			t := none
			if err == nil {
				t, err = decode(r, row)
			}
			if !yield(t, err) || err != nil {
				return
			}
		}
	}
}

// keys gives the keys of a range, which live until the next step.
func (r *reader) keys(within *util.Range) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		it := r.snap.NewIterator(within, scanning)
		defer it.Release()
		for it.Next() {
			if !yield(it.Key(), nil) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(nil, r.s.noteDamage(err))
		}
	}
}
