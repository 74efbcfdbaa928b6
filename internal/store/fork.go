package store

import (
	"bytes"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// CutRow ends a chain earlier than it did, or marks it, or takes its mark away.
// The batch holds the TopicRow that follows from it, and no RunRow.
type CutRow struct {
	Topic envelope.TopicID
	// Chain is as it will be: envelopes from Chain.Length on are deleted. Of a
	// chain that was not here, with its certificate.
	Chain envelope.Chain
	// Proof is kept with a chain that forked, until it is nil.
	Proof []byte
}

// ForkRow is the proof that a chain forked.
type ForkRow struct {
	Chain envelope.ChainID
	Proof []byte
}

// cutAtOnce is up to how many bytes of envelopes are deleted at once.
const cutAtOnce = 32 << 20

// Fork is the proof that a chain forked.
func (s *Space) Fork(topic envelope.TopicID, chain envelope.ChainID) ([]byte, bool, error) {
	row, ok, err := one(s, s.key(func(b *blinder) []byte { return b.chain(tableFork, topic, chain) }), decodeFork)
	return row.Proof, ok, err
}

func appendFork(b []byte, r *CutRow) []byte {
	return append(append(b, r.Chain.ID[:]...), r.Proof...)
}

func decodeFork(b []byte) (r ForkRow, err error) {
	f := fields{b: b}
	r.Chain = f.hash()
	r.Proof = f.rest()
	return r, f.end("fork")
}

func (r *CutRow) check(b *Batch) error {
	switch c := &r.Chain; {
	case b.Run != nil || b.Topic == nil || b.Topic.ID != r.Topic:
		return fmt.Errorf("%w: cut of a chain without its topic, or with a run", space.ErrMalformed)
	case c.Length != 0 && c.Length != c.Head.Seq+1, c.Length == 0 && c.Head != envelope.Head{}:
		return fmt.Errorf("%w: chain of length %d", space.ErrMalformed, c.Length)
	case (len(r.Proof) > 0) != c.Forked:
		return fmt.Errorf("%w: a fork goes with its proof", space.ErrMalformed)
	}
	return nil
}

// cut stages a CutRow. Of a chain longer than atOnce bytes the end is deleted
// before that, in steps: a crash then leaves a chain that is shorter than its
// head says, which Audit counts as a gap and Repair mends.
func (w *rows) cut(s *Space, b *Batch, atOnce int) error {
	r := b.Cut
	if r == nil {
		return nil
	}
	if err := r.check(b); err != nil {
		return err
	}
	if err := w.truncate(s, r, atOnce); err != nil {
		return err
	}
	w.put(w.blinder.chain(tableCert, r.Topic, r.Chain.ID), r.Chain.Cert.Bytes())
	w.plain = appendHead(w.plain[:0], r.Topic, &r.Chain)
	w.put(w.blinder.chain(tableHead, r.Topic, r.Chain.ID), w.plain)
	if !r.Chain.Forked {
		w.batch.Delete(w.blinder.chain(tableFork, r.Topic, r.Chain.ID))
		return nil
	}
	w.plain = appendFork(w.plain[:0], r)
	w.put(w.blinder.chain(tableFork, r.Topic, r.Chain.ID), w.plain)
	return nil
}

// truncate deletes the envelopes and ids of a chain from its length on.
func (w *rows) truncate(s *Space, c *CutRow, atOnce int) error {
	r, err := s.store.reader()
	if err != nil {
		return err
	}
	defer r.release()
	n := c.Chain.Length
	for _, t := range []table{tableSegment, tableIDs} {
		p := s.key(func(b *blinder) []byte { return b.run(t, c.Topic, c.Chain.ID) })
		if err := w.shorten(s, r, t, p, n); err != nil {
			return err
		}
		within := prefix(p)
		within.Start = appendUint(p[:len(p):len(p)], n)
		if atOnce, err = w.drop(s, r, within, atOnce); err != nil {
			return err
		}
	}
	return nil
}

// shorten writes again the row that a chain of n envelopes ends in.
func (w *rows) shorten(s *Space, r *reader, t table, p []byte, n uint64) error {
	if n == 0 {
		return nil
	}
	for row, err := range r.segments(s.vault, p, n-1) {
		if err != nil {
			return err
		}
		keep := n - numberOf(row.key)
		plain := row.plain
		switch {
		case numberOf(row.key) >= n, t == tableIDs && 32*keep > uint64(len(plain)):
			return fmt.Errorf("cut: the chain is not here up to %d: %w", n, ErrDamaged)
		case t == tableIDs:
			plain = plain[:32*keep]
		default:
			run, err := envelope.ParseRun(plain)
			if err != nil {
				return fmt.Errorf("segment: %w: %w", ErrDamaged, err)
			}
			size := 0
			for _, e := range run[:min(keep, uint64(len(run)))] {
				size += e.Len()
			}
			plain = plain[:size]
		}
		if len(plain) < len(row.plain) {
			w.put(bytes.Clone(row.key), plain)
		}
		return nil
	}
	return fmt.Errorf("cut: the chain is not here up to %d: %w", n, ErrDamaged)
}

// drop stages the deletion of rows up to so many bytes, and says how many are
// left; those beyond are deleted now, from the last on.
func (w *rows) drop(s *Space, r *reader, within *util.Range, atOnce int) (int, error) {
	it := r.snap.NewIterator(within, scanning)
	defer it.Release()
	var beyond [][]byte
	for it.Next() {
		if atOnce -= len(it.Value()); atOnce >= 0 {
			w.batch.Delete(it.Key())
			continue
		}
		atOnce = 0
		beyond = append(beyond, bytes.Clone(it.Key()))
	}
	if err := it.Error(); err != nil {
		return 0, r.s.noteDamage(err)
	}
	for len(beyond) > 0 {
		step := new(batch)
		n := max(0, len(beyond)-dropRows)
		for _, key := range beyond[n:] {
			step.Delete(key)
		}
		if err := s.store.write(Derived, step); err != nil {
			return 0, err
		}
		beyond = beyond[:n]
	}
	return atOnce, nil
}

// forks compares the chains that forked with their proofs.
func (a *auditor) forks() error {
	var marked int
	for _, t := range a.topics {
		for i := range t.chains {
			if t.chains[i].chain.Forked {
				marked++
			}
		}
	}
	for row, err := range a.rows(a.s.key(func(b *blinder) []byte { return b.all(tableFork) })) {
		if err != nil {
			return err
		}
		fork, err := decodeFork(row.plain)
		if err != nil {
			return err
		}
		if proof, err := envelope.ParseFork(fork.Proof); err == nil && a.proves(&proof) {
			marked--
		} else {
			a.out.Forks++
		}
	}
	a.out.Forks += marked
	return nil
}

// proves reports whether a proof is of where its chain is marked.
func (a *auditor) proves(f *envelope.Fork) bool {
	t := a.topics[f.Topic()]
	if t == nil {
		return false
	}
	for i := range t.chains {
		if c := &t.chains[i].chain; c.ID == f.Chain() {
			return c.Forked && c.Fork == f.Seq() && c.Length <= c.Fork
		}
	}
	return false
}
