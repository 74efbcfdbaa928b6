package store

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"

	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/kithnet/kith/space"
)

const (
	// dropRows is how many rows one batch deletes of what is dropped in steps.
	dropRows = 1024
	// dropAtOnce is up to how many rows of one author are deleted at once.
	dropAtOnce = 64 << 10
)

// Tag is what the keys of a space's rows begin with. It outlives the key of the
// space, and tells nothing of its id.
type Tag [tagSize]byte

// LogValue gives as much of the tag as Space does.
func (t Tag) LogValue() slog.Value { return slog.StringValue(hex.EncodeToString(t[:6])) }

// Tag is the tag of the space.
func (s *Space) Tag() Tag { return s.vault.tag }

// Drop deletes every row of the space. It is done in steps: a crash leaves
// some, and Drop can be called again. The engine keeps deleted values until it
// compacts: what makes them unreadable is that the caller destroys the dek.
func (s *Space) Drop() error {
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	s.recent.forgetAll()
	return s.store.sweep(new(batch), dropRows, prefix(s.vault.tag[:]))
}

// Forget deletes every row of the space of a tag, as Drop does, and wants no
// key of it: note the tag, destroy the dek, then forget what nobody can read
// any more, again after a crash.
func (s *Store) Forget(t Tag) error {
	if t == s.node.tag {
		return fmt.Errorf("forget: %w: the tag of the node's settings", space.ErrMalformed)
	}
	m := s.recentOf(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetAll()
	return s.sweep(new(batch), dropRows, prefix(t[:]))
}

// DropContent deletes records, repos, oplogs and how far chains are applied:
// what can be drawn again from the envelopes, which stay.
func (s *Space) DropContent() error {
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	s.recent.forgetAll()
	var within []*util.Range
	for _, t := range []table{tableApplied, tableRecord, tableRepo, tableTip, tableStmt, tableOps, tablePruned} {
		within = append(within, prefix(append(bytes.Clone(s.vault.tag[:]), byte(t))))
	}
	return s.store.sweep(new(batch), dropRows, within...)
}

// DropAuthor deletes the repo, the records and the oplog of an author. How far
// chains are applied stays as it is, and is the caller's to rewrite. Up to
// 65,536 rows go at once; of a larger author a crash may leave some, without a
// repo, which Audit counts and calling DropAuthor again deletes.
func (s *Space) DropAuthor(author space.DID) error { return s.dropAuthor(author, dropAtOnce) }

func (s *Space) dropAuthor(author space.DID, atOnce int) error {
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	delete(s.recent.repos, author)
	first := new(batch)
	for _, t := range []table{tableRepo, tableTip, tableStmt, tablePruned} {
		first.Delete(s.key(func(b *blinder) []byte { return b.author(t, author, macSize) }))
	}
	return s.store.sweep(first, atOnce,
		prefix(s.key(func(b *blinder) []byte { return b.author(tableOps, author, macSize) })),
		prefix(s.key(func(b *blinder) []byte { return b.author(tableRecord, author, groupSize) })))
}

// TruncateControl deletes, at once, the entries of the control log that come
// after the one of number after.
func (s *Space) TruncateControl(after uint64) error {
	if after == math.MaxUint64 {
		return nil
	}
	within := prefix(s.key(func(b *blinder) []byte { return b.all(tableControl) }))
	within.Start = s.key(func(b *blinder) []byte { return b.numbered(tableControl, after+1) })
	return s.store.sweep(new(batch), math.MaxInt, within)
}

// sweep deletes what lies within ranges, in batches of at most so many rows,
// the first of which holds more already. What it deleted is durable when it
// returns nil.
func (s *Store) sweep(b *batch, most int, within ...*util.Range) (err error) {
	for {
		if within, err = s.deletes(b, most, within); err != nil {
			return fmt.Errorf("drop: %w", err)
		}
		class := Derived
		if len(within) == 0 {
			class = Own // and with it all before
		}
		if err := s.write(class, b); err != nil {
			return fmt.Errorf("drop: %w", err)
		}
		if len(within) == 0 {
			return nil
		}
		b = new(batch)
	}
}

// deletes puts into b the deletion of what lies within ranges until it holds
// that of most rows, and gives what is left of the ranges.
func (s *Store) deletes(b *batch, most int, within []*util.Range) ([]*util.Range, error) {
	r, err := s.reader()
	if err != nil {
		return nil, err
	}
	defer r.release()
	for i, rest := range within {
		for key, err := range r.keys(rest) {
			if err != nil {
				return nil, err
			}
			if b.rows >= most {
				return append([]*util.Range{{Start: bytes.Clone(key), Limit: rest.Limit}}, within[i+1:]...), nil
			}
			b.Delete(key)
		}
	}
	return nil, nil
}
