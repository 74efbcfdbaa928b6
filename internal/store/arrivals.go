package store

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/kithnet/kith/space/envelope"
)

// A relay keeps no content: it numbers what comes, in the rows of the outbox,
// and gives up the envelopes of old runs while it keeps their ids, so that
// digests stand.

// OutboxFrom is the outbox from a number on, ascending.
func (s *Space) OutboxFrom(n uint64) iter.Seq2[OutboxRow, error] {
	p := s.key(func(b *blinder) []byte { return b.all(tableOutbox) })
	return func(yield func(OutboxRow, error) bool) {
		r, err := s.store.reader()
		if err != nil {
			yield(OutboxRow{}, err)
			return
		}
		defer r.release()
		within := prefix(p)
		within.Start = binary.BigEndian.AppendUint64(bytes.Clone(p), n)
		for row, err := range r.scan(s.vault, within) {
			out := OutboxRow{}
			if err == nil {
				out = OutboxRow{Seq: numberOf(row.key), Frame: row.plain}
			}
			if !yield(out, err) || err != nil {
				return
			}
		}
	}
}

// OutboxLast is the row of the outbox with the highest number.
func (s *Space) OutboxLast() (row OutboxRow, ok bool, err error) {
	p := s.key(func(b *blinder) []byte { return b.all(tableOutbox) })
	r, err := s.store.reader()
	if err != nil {
		return row, false, err
	}
	defer r.release()
	it := r.snap.NewIterator(prefix(p), scanning)
	defer it.Release()
	if !it.Last() {
		if err := it.Error(); err != nil {
			return row, false, r.s.noteDamage(err)
		}
		return row, false, nil
	}
	plain, err := s.vault.open(it.Key(), it.Value())
	if err != nil {
		return row, false, err
	}
	return OutboxRow{Seq: numberOf(it.Key()), Frame: plain}, true, nil
}

// Prune gives up the envelopes of the segments of a chain that begin at from or
// later and not behind to, and with them a row of the outbox. Their ids stay.
// It is synced with whatever follows.
func (s *Space) Prune(topic envelope.TopicID, chain envelope.ChainID, from, to uint64, outbox uint64) error {
	p := s.key(func(b *blinder) []byte { return b.run(tableSegment, topic, chain) })
	within := &util.Range{
		Start: binary.BigEndian.AppendUint64(bytes.Clone(p), from),
		Limit: append(binary.BigEndian.AppendUint64(bytes.Clone(p), to), 0),
	}
	r, err := s.store.reader()
	if err != nil {
		return err
	}
	defer r.release()
	b := newBatch()
	defer b.free()
	for key, err := range r.keys(within) {
		if err != nil {
			return err
		}
		b.Delete(bytes.Clone(key))
	}
	b.Delete(s.key(func(b *blinder) []byte { return b.numbered(tableOutbox, outbox) }))
	return s.store.write(Derived, b)
}
