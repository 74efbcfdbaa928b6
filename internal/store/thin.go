package store

import (
	"fmt"
	"slices"

	"github.com/kithnet/kith/space/envelope"
)

// What an envelope says can be of no use any more while its id still counts in
// the digest of its topic and in the links of its chain. Then the envelope is
// dropped and the id stays: its row of ids has a row in the table thinned beside
// it, in the place of a segment. A row is thinned whole or not at all.

// thinBytes bounds what one batch of Thin writes.
const thinBytes = 1 << 20

// Thin drops the envelopes of a chain at these ascending seqs and keeps their
// ids. What is not here, or was dropped before, is left out. It gives how many
// it dropped and their bytes. It is done in steps, each of which leaves a chain
// that reads well: a crash leaves the rest, and Thin can be called again.
// Nothing may be committed to the chain meanwhile.
func (s *Space) Thin(topic envelope.TopicID, chain envelope.ChainID, seqs []uint64) (n int, size int64, err error) {
	if len(seqs) == 0 {
		return 0, 0, nil
	}
	r, err := s.store.reader()
	if err != nil {
		return 0, 0, fmt.Errorf("thin: %w", err)
	}
	defer r.release()
	w, err := s.vault.rows()
	if err != nil {
		return 0, 0, fmt.Errorf("thin: %w", err)
	}
	p := &thinner{s: s, r: r, w: w, topic: topic, chain: chain}
	defer func() { p.w.free() }()
	prefix := s.key(func(b *blinder) []byte { return b.run(tableIDs, topic, chain) })
	for row, err := range r.segments(s.vault, prefix, seqs[0]) {
		if err == nil {
			if numberOf(row.key) > seqs[len(seqs)-1] {
				break
			}
			err = p.row(numberOf(row.key), row.plain, seqs)
		}
		if err != nil {
			return p.dropped, p.size, fmt.Errorf("thin: %w", s.notice(err))
		}
	}
	p.settle()
	if err := s.store.write(Remote, p.w.batch); err != nil {
		return p.dropped, p.size, fmt.Errorf("thin: %w", err)
	}
	return p.dropped, p.size, nil
}

// thinner rewrites the rows of a chain from the first on.
type thinner struct {
	s     *Space
	r     *reader
	w     *rows
	topic envelope.TopicID
	chain envelope.ChainID

	first uint64 // of the ids that are gathered: envelopes to drop, row after row
	ids   []byte

	dropped int
	size    int64
}

func (p *thinner) key(t table, n uint64) []byte {
	p.w.blinder.run(t, p.topic, p.chain)
	return p.w.number(n)
}

// row takes the next row of ids.
func (p *thinner) row(first uint64, ids []byte, seqs []uint64) error {
	from, _ := slices.BinarySearch(seqs, first)
	to, _ := slices.BinarySearch(seqs, first+uint64(len(ids)/32))
	if seqs = seqs[from:to]; len(seqs) == 0 {
		p.settle()
		return nil
	}
	key := p.s.key(func(b *blinder) []byte { b.run(tableThinned, p.topic, p.chain); return b.number(first) })
	if _, gone, err := p.r.get(p.s.vault, key); err != nil || gone {
		p.settle()
		return err
	}
	plain, ok, err := p.r.get(p.s.vault, p.s.key(func(b *blinder) []byte { b.run(tableSegment, p.topic, p.chain); return b.number(first) }))
	if err != nil {
		return err
	}
	run, err := envelope.ParseRun(plain)
	if !ok || err != nil || run[0].Seq() != first || len(run) != len(ids)/32 {
		return fmt.Errorf("segment at %d: %w", first, errFold)
	}
	p.w.batch.Delete(p.key(tableSegment, first))
	p.w.batch.Delete(p.key(tableIDs, first))
	for len(run) > 0 {
		n, drop := stretch(run, seqs)
		p.stretch(run[:n], ids[:32*n], drop)
		run, ids = run[n:], ids[32*n:]
	}
	if p.w.batch.n < thinBytes {
		return nil
	}
	p.settle()
	if err := p.s.store.write(Remote, p.w.batch); err != nil {
		return err
	}
	p.w.free()
	p.w, err = p.s.vault.rows()
	return err
}

// stretch is how many envelopes at the beginning of a run share a fate.
func stretch(run []envelope.Envelope, seqs []uint64) (n int, drop bool) {
	_, drop = slices.BinarySearch(seqs, run[0].Seq())
	for n = 1; n < len(run); n++ {
		if _, d := slices.BinarySearch(seqs, run[n].Seq()); d != drop {
			break
		}
	}
	return n, drop
}

// stretch writes kept envelopes, or gathers the ids of dropped ones.
func (p *thinner) stretch(run []envelope.Envelope, ids []byte, drop bool) {
	if drop {
		if len(p.ids) == 0 {
			p.first = run[0].Seq()
		}
		p.ids = append(p.ids, ids...)
		for i := range run {
			p.size += int64(run[i].Len())
		}
		p.dropped += len(run)
		if len(p.ids) >= 32*segmentEnvelopes {
			p.settle()
		}
		return
	}
	p.settle()
	first := run[0].Seq()
	p.w.put(p.key(tableIDs, first), ids)
	p.w.plain = p.w.plain[:0]
	for i := range run {
		p.w.plain = append(p.w.plain, run[i].Bytes()...)
	}
	p.w.put(p.key(tableSegment, first), p.w.plain)
}

// settle writes the ids that were gathered, as rows without a segment.
func (p *thinner) settle() {
	if len(p.ids) == 0 {
		return
	}
	p.w.put(p.key(tableIDs, p.first), p.ids)
	p.w.put(p.key(tableThinned, p.first), nil)
	p.ids = p.ids[:0]
}

// Thinned reports whether the envelope at seq of a chain was dropped, and the
// first seq behind it that may be here.
func (s *Space) Thinned(topic envelope.TopicID, chain envelope.ChainID, seq uint64) (next uint64, gone bool, err error) {
	r, err := s.store.reader()
	if err != nil {
		return 0, false, err
	}
	defer r.release()
	next = seq
	p := s.key(func(b *blinder) []byte { return b.run(tableIDs, topic, chain) })
	for row, err := range r.segments(s.vault, p, seq) {
		if err != nil {
			return seq, false, err
		}
		first := numberOf(row.key)
		end := first + uint64(len(row.plain)/32)
		if end <= next {
			continue
		}
		if first > next {
			break
		}
		key := s.key(func(b *blinder) []byte { b.run(tableThinned, topic, chain); return b.number(first) })
		_, ok, err := r.get(s.vault, key)
		if err != nil {
			return seq, false, err
		}
		if !ok {
			break
		}
		next = end
	}
	return next, next > seq, nil
}
