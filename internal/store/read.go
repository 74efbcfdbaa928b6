package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// key copies what make gives out of a blinder.
func (s *Space) key(make func(*blinder) []byte) []byte {
	b := s.vault.blinder()
	defer s.vault.done(b)
	return bytes.Clone(make(b))
}

// one reads and decodes a single row.
func one[T any](s *Space, key []byte, decode func([]byte) (T, error)) (t T, ok bool, err error) {
	plain, ok, err := s.store.get(s.vault, key)
	if err != nil || !ok {
		return t, false, err
	}
	t, err = decode(plain)
	return t, err == nil, err
}

// folded reads a row that others complete.
func folded[T any](s *Space, key []byte, fold func(*reader, []byte) (T, error)) (t T, ok bool, err error) {
	r, err := s.store.reader()
	if err != nil {
		return t, false, err
	}
	defer r.release()
	plain, ok, err := r.get(s.vault, key)
	if err != nil || !ok {
		return t, false, err
	}
	t, err = fold(r, plain)
	return t, err == nil, s.notice(err)
}

// Topics are the topics of the space, in no order.
func (s *Space) Topics() iter.Seq2[TopicRow, error] {
	p := s.key(func(b *blinder) []byte { return b.all(tableTopic) })
	return list(s.store, s.vault, p, func(r *reader, row row) (TopicRow, error) {
		t, err := s.topicRow(r, row.plain)
		return t, s.notice(err)
	})
}

// TopicState is the digest of a topic. ErrDamaged may mean that its chains do
// not go as far as it does: opening the store again and Repair mend that.
func (s *Space) TopicState(id envelope.TopicID) (TopicRow, bool, error) {
	return folded(s, s.key(func(b *blinder) []byte { return b.topic(id) }), s.topicRow)
}

// Chains are the chains of a topic, in no order.
func (s *Space) Chains(id envelope.TopicID) iter.Seq2[envelope.Chain, error] {
	p := s.key(func(b *blinder) []byte { return b.chains(tableHead, id) })
	return list(s.store, s.vault, p, func(r *reader, row row) (envelope.Chain, error) {
		return s.decodeChain(r, id, row.plain)
	})
}

// decodeChain joins a chain's head and certificate.
func (s *Space) decodeChain(r *reader, topic envelope.TopicID, head []byte) (envelope.Chain, error) {
	_, c, err := decodeHead(head)
	if err != nil {
		return c, err
	}
	cert, ok, err := r.get(s.vault, s.key(func(b *blinder) []byte { return b.chain(tableCert, topic, c.ID) }))
	if err == nil && !ok {
		err = fmt.Errorf("chain without certificate: %w", ErrDamaged)
	}
	if err != nil {
		return c, err
	}
	c.Cert, err = envelope.ParseCertificate(cert)
	return c, err
}

// Run gives envelopes of a chain from seq from to seq to, both included, as
// far as they are here without a gap and fit maxBytes; the first is given
// whatever its size. None is no error.
func (s *Space) Run(topic envelope.TopicID, chain envelope.ChainID, from, to uint64, maxBytes int) ([]envelope.Envelope, error) {
	t := &trail{s: s, topic: topic, chain: chain, next: from}
	defer t.rest()
	return t.read(to, maxBytes)
}

// segments gives the numbered rows with prefix p, from the one that may hold
// number from.
func (r *reader) segments(v *vault, p []byte, from uint64) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		it := r.seek(prefix(p), binary.BigEndian.AppendUint64(bytes.Clone(p), from))
		defer it.Release()
		for ; it.Valid(); it.Next() {
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

// numberOf is the number at the end of a key.
func numberOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// IDAt is the id of the envelope at seq of a chain; false if it is not here.
func (s *Space) IDAt(topic envelope.TopicID, chain envelope.ChainID, seq uint64) (id envelope.ID, ok bool, err error) {
	r, err := s.store.reader()
	if err != nil {
		return id, false, err
	}
	defer r.release()
	p := s.key(func(b *blinder) []byte { return b.run(tableIDs, topic, chain) })
	for row, err := range r.segments(s.vault, p, seq) {
		if err != nil {
			return id, false, err
		}
		first, n := numberOf(row.key), uint64(len(row.plain)/len(id))
		if seq < first || seq-first >= n {
			return id, false, nil
		}
		return envelope.ID(row.plain[(seq-first)*32:][:32]), true, nil
	}
	return id, false, nil
}

// Applied says how far a chain is materialised.
func (s *Space) Applied(topic envelope.TopicID, chain envelope.ChainID) (AppliedRow, bool, error) {
	return one(s, s.key(func(b *blinder) []byte { return b.chain(tableApplied, topic, chain) }),
		func(plain []byte) (AppliedRow, error) { return decodeApplied(topic, plain) })
}

// AllApplied says so for every chain of a topic, in no order.
func (s *Space) AllApplied(topic envelope.TopicID) iter.Seq2[AppliedRow, error] {
	p := s.key(func(b *blinder) []byte { return b.chains(tableApplied, topic) })
	return list(s.store, s.vault, p, func(_ *reader, r row) (AppliedRow, error) { return decodeApplied(topic, r.plain) })
}

// Record reads a record, or its trace if it was deleted.
func (s *Space) Record(author space.DID, p space.Path) (RecordRow, bool, error) {
	return one(s, s.key(func(b *blinder) []byte { return b.record(author, p) }),
		func(plain []byte) (RecordRow, error) { return decodeRecord(author, plain) })
}

// Records are all records of an author, traces of deleted ones included, in no
// order: what an index is loaded from.
func (s *Space) Records(author space.DID) iter.Seq2[RecordRow, error] {
	return s.RecordsPart(author, 0, 1)
}

// RecordsPart is Records of one of so many parts, at most 256, of about the same
// size: for several goroutines.
func (s *Space) RecordsPart(author space.DID, part, parts int) iter.Seq2[RecordRow, error] {
	p := s.key(func(b *blinder) []byte { return b.author(tableRecord, author, groupSize) })
	within := prefix(p)
	if part > 0 { // what follows in a key is a MAC
		within.Start = append(bytes.Clone(p), byte(part*256/parts))
	}
	if part < parts-1 {
		within.Limit = append(bytes.Clone(p), byte((part+1)*256/parts))
	}
	return listWithin(s.store, s.vault, within, func(_ *reader, r row) (RecordRow, error) { return decodeRecord(author, r.plain) })
}

// Repo is what an author's records add up to. ErrDamaged may mean that the
// oplog does not go as far as it does: opening the store again and Audit tell.
func (s *Space) Repo(author space.DID) (RepoRow, bool, error) {
	return folded(s, s.key(func(b *blinder) []byte { return b.author(tableRepo, author, macSize) }), s.repoRow)
}

// Repos are the repos of the space, in no order.
func (s *Space) Repos() iter.Seq2[RepoRow, error] {
	p := s.key(func(b *blinder) []byte { return b.all(tableRepo) })
	return list(s.store, s.vault, p, func(r *reader, row row) (RepoRow, error) {
		repo, err := s.repoRow(r, row.plain)
		return repo, s.notice(err)
	})
}

// Ops are an author's ops from number from on. The pages come as they were
// stored: the first may begin before from.
func (s *Space) Ops(author space.DID, from uint64) iter.Seq2[OpPage, error] {
	p := s.key(func(b *blinder) []byte { return b.author(tableOps, author, macSize) })
	return func(yield func(OpPage, error) bool) {
		r, err := s.store.reader()
		if err != nil {
			yield(OpPage{}, err)
			return
		}
		defer r.release()
		for row, err := range r.segments(s.vault, p, from) {
			var page OpPage
			if err == nil {
				page, err = decodeOps(author, numberOf(row.key), row.plain)
			}
			if err == nil && page.First+uint64(len(page.Rows)) <= from {
				continue
			}
			if !yield(page, err) || err != nil {
				return
			}
		}
	}
}

// Control is the control log, ascending.
func (s *Space) Control() iter.Seq2[ControlRow, error] {
	p := s.key(func(b *blinder) []byte { return b.all(tableControl) })
	return list(s.store, s.vault, p, func(_ *reader, r row) (ControlRow, error) {
		return ControlRow{Seq: numberOf(r.key), Raw: r.plain}, nil
	})
}

// Outbox is what is still to be published, ascending.
func (s *Space) Outbox() iter.Seq2[OutboxRow, error] {
	p := s.key(func(b *blinder) []byte { return b.all(tableOutbox) })
	return list(s.store, s.vault, p, func(_ *reader, r row) (OutboxRow, error) {
		return OutboxRow{Seq: numberOf(r.key), Frame: r.plain}, nil
	})
}

// Held is what waits for a certificate, ascending.
func (s *Space) Held() iter.Seq2[HeldRow, error] {
	p := s.key(func(b *blinder) []byte { return b.all(tableHeld) })
	return list(s.store, s.vault, p, func(_ *reader, r row) (HeldRow, error) {
		return HeldRow{Seq: numberOf(r.key), Body: r.plain}, nil
	})
}

// Object reads the object of a hash.
func (s *Space) Object(hash [32]byte) ([]byte, bool, error) {
	return s.store.get(s.vault, s.key(func(b *blinder) []byte { return b.object(hash) }))
}

// Meta reads a setting of the space.
func (s *Space) Meta(name string) ([]byte, bool, error) {
	kv, ok, err := one(s, s.key(func(b *blinder) []byte { return b.name(name) }), decodeKV)
	return kv.Value, ok, err
}
