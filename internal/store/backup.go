package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
)

// Row is a row as it lies in the database: sealed, under a blinded key.
type Row struct{ Key, Value []byte }

// Dump gives every row as it was when the dump began. Keys and values live
// until the next step. Writes go on meanwhile; Reopen waits.
func (s *Store) Dump() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		r, err := s.reader()
		if err != nil {
			yield(Row{}, err)
			return
		}
		defer r.release()
		it := r.snap.NewIterator(nil, scanning)
		defer it.Release()
		for it.Next() {
			if bytes.Equal(it.Key(), markerKey) {
				continue // of this database, not of what is in it
			}
			if !yield(Row{it.Key(), it.Value()}, nil) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(Row{}, s.noteDamage(err))
		}
	}
}

// Restore makes a store in dir out of rows that Dump gave. It fails with
// fs.ErrExist where there is one. What was written after the dump is missing:
// the store opens as one that was repaired, Recovered says so, until Audited.
func Restore(dir string, key [32]byte, rows iter.Seq2[Row, error]) (err error) {
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err == nil {
		return fmt.Errorf("restore store: %s: %w", dir, fs.ErrExist)
	}
	s, err := Open(dir, key, Options{})
	if err != nil {
		return fmt.Errorf("restore store: %w", err)
	}
	defer func() {
		if cerr := s.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("restore store: %w", cerr)
		}
	}()
	// The note first: without it a part of the rows would pass for all.
	if err := os.WriteFile(filepath.Join(dir, auditFile), []byte("restored\n"), 0o600); err != nil {
		return fmt.Errorf("restore store: %w", err)
	}
	b := newBatch()
	defer b.free()
	for row, err := range rows {
		if err != nil {
			return fmt.Errorf("restore store: %w", err)
		}
		if bytes.Equal(row.Key, markerKey) || len(row.Key) < tagSize {
			return fmt.Errorf("restore store: %w", errors.New("a row that no store writes"))
		}
		b.Put(row.Key, row.Value)
		if b.n < groupBytes {
			continue
		}
		if err := s.engine.write(b, false); err != nil {
			return fmt.Errorf("restore store: %w", err)
		}
		b.reset()
	}
	if err := s.engine.write(b, true); err != nil {
		return fmt.Errorf("restore store: %w", err)
	}
	return s.engine.sync()
}
