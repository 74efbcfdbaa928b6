package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/kithnet/kith/space/envelope"
)

// trail reads the envelopes of a chain in their order, in one snapshot from its
// first read until it rests.
//
// The segments of a chain may be large, and the tables of the engine overlap: to
// look for a row among segments reads one of them in every table. So where a
// trail begins is looked for among the ids, which are small, and then the rows
// are read one after the other for as long as that goes on.
type trail struct {
	s     *Space
	topic envelope.TopicID
	chain envelope.ChainID
	next  uint64              // the first seq that was not given
	part  []envelope.Envelope // of the segment that was read last, from next on

	r    *reader           // nil: at rest
	it   iterator.Iterator // nil: no rows are left
	used bool              // it stands at a row that was read
}

// read gives the envelopes that follow, up to seq to, as far as they are here
// without a gap and fit maxBytes; the first whatever its size. None: there are no
// more in the snapshot.
func (t *trail) read(to uint64, maxBytes int) (run []envelope.Envelope, err error) {
	for size := 0; t.next <= to; t.next++ {
		if len(t.part) == 0 {
			if t.part, err = t.segment(); err != nil {
				return nil, err
			}
			if len(t.part) == 0 {
				return run, nil
			}
		}
		e := t.part[0]
		if size += e.Len(); size > maxBytes && len(run) > 0 {
			return run, nil
		}
		run, t.part = append(run, e), t.part[1:]
	}
	return run, nil
}

// segment reads the row that holds next, and gives what it has from there on;
// nothing, if there is none.
func (t *trail) segment() ([]envelope.Envelope, error) {
	err := t.advance()
	for ; err == nil && t.it != nil; err = t.advance() {
		plain, err := t.s.vault.open(t.it.Key(), t.it.Value())
		if err != nil {
			return nil, err
		}
		envs, err := envelope.ParseRun(plain)
		switch {
		case err != nil:
			return nil, fmt.Errorf("segment: %w: %w", ErrDamaged, err)
		case envs[0].Seq() > t.next:
			return nil, nil // a gap
		}
		t.used = true
		if at := t.next - envs[0].Seq(); at < uint64(len(envs)) {
			return envs[at:], nil
		}
	}
	return nil, err
}

// advance goes to the first row that was not read.
func (t *trail) advance() error {
	switch {
	case t.r == nil:
		return t.begin()
	case t.it != nil && t.used:
		return t.moved(t.it.Next())
	}
	return nil
}

// begin looks for the row that holds next.
func (t *trail) begin() (err error) {
	if t.r, err = t.s.store.reader(); err != nil {
		return err
	}
	if err := t.rows(t.next); err != nil || t.it != nil && numberOf(t.it.Key()) == t.next {
		return err
	}
	ids := t.s.key(func(b *blinder) []byte { return b.run(tableIDs, t.topic, t.chain) })
	for row, err := range t.r.segments(t.s.vault, ids, t.next) {
		if err != nil {
			return err
		}
		if first := numberOf(row.key); first < t.next {
			return t.rows(first)
		}
		break
	}
	return nil
}

// rows goes to the first row that begins at seq from or later.
func (t *trail) rows(from uint64) error {
	if t.it != nil {
		t.it.Release()
	}
	p := t.s.key(func(b *blinder) []byte { return b.run(tableSegment, t.topic, t.chain) })
	t.it = t.r.snap.NewIterator(&util.Range{
		Start: binary.BigEndian.AppendUint64(bytes.Clone(p), from), Limit: util.BytesPrefix(p).Limit,
	}, scanning)
	return t.moved(t.it.First())
}

// moved takes note that the iterator has moved, and whether it stands at a row.
func (t *trail) moved(ok bool) error {
	t.used = false
	if ok {
		return nil
	}
	err := t.it.Error()
	t.it.Release()
	t.it = nil
	if err != nil {
		return t.r.s.noteDamage(err)
	}
	return nil
}

// rest gives the snapshot back. The next read takes another.
func (t *trail) rest() {
	if t.it != nil {
		t.it.Release()
		t.it = nil
	}
	if t.r != nil {
		t.r.release()
		t.r = nil
	}
}
