package store

import (
	"errors"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// errFold: rows do not lead from what was written whole to what was last.
var errFold = fmt.Errorf("rows do not fit each other: %w", ErrDamaged)

// unfit reports whether err is about what rows say, and not the engine's.
func unfit(err error) bool { return errors.Is(err, errFold) || errors.Is(err, errRow) }

// notice leaves a note for the next Open if rows do not fit: the audit that
// then follows mends it.
func (s *Space) notice(err error) error {
	if errors.Is(err, errFold) {
		return s.store.noteDamage(err)
	}
	return err
}

// topicRow gives a topic as its row and the tails have it.
func (s *Space) topicRow(r *reader, plain []byte) (TopicRow, error) {
	t, tails, err := decodeTopic(plain)
	if err != nil {
		return t, err
	}
	for i := range tails {
		if err := s.addTail(r, &t, tails[i]); err != nil {
			return t, fmt.Errorf("topic: %w", err)
		}
	}
	return t, nil
}

// addTail adds the envelopes of a chain up to its head. There must be all of
// them and no more.
func (s *Space) addTail(r *reader, t *TopicRow, tail tail) error {
	plain, ok, err := r.get(s.vault, s.key(func(b *blinder) []byte { return b.chain(tableHead, t.ID, tail.chain) }))
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("chain without head: %w", errFold)
	}
	_, chain, err := decodeHead(plain)
	if err != nil {
		return err
	}
	n, last := tail.from, chain.Head.ID
	p := s.key(func(b *blinder) []byte { return b.run(tableIDs, t.ID, tail.chain) })
	for row, err := range r.segments(s.vault, p, n) {
		if err != nil {
			return err
		}
		first, ids := numberOf(row.key), row.plain
		end := first + uint64(len(ids)/len(last))
		if end <= n {
			continue
		}
		if first > n {
			return fmt.Errorf("chain with a gap at %d: %w", n, errFold)
		}
		for ids = ids[(n-first)*32:]; len(ids) >= 32; ids = ids[32:] {
			t.State.Add(ids[:32])
			last = envelope.ID(ids[:32])
		}
		t.Count += end - n
		n = end
	}
	if n != chain.Length || last != chain.Head.ID {
		return fmt.Errorf("chain of %d with %d envelopes: %w", chain.Length, n, errFold)
	}
	return nil
}

// repoRow gives a repo as its row, its tip and the ops between have it.
func (s *Space) repoRow(r *reader, plain []byte) (RepoRow, error) {
	row, mark, err := decodeRepo(plain)
	if err != nil {
		return row, err
	}
	plain, ok, err := r.get(s.vault, s.key(func(b *blinder) []byte { return b.author(tableTip, row.Author, macSize) }))
	if ok {
		mark, err = s.followTip(r, &row, plain)
	}
	if err == nil {
		err = s.statement(r, &row, mark)
	}
	if err != nil {
		return row, fmt.Errorf("repo: %w", err)
	}
	return row, nil
}

// followTip brings a repo from what its row says to what the tip says.
func (s *Space) followTip(r *reader, row *RepoRow, plain []byte) (stmtMark, error) {
	t, err := decodeTip(plain)
	if err != nil {
		return t.stmt, err
	}
	if t.base != row.OpCount {
		return t.stmt, fmt.Errorf("tip of a row of %d ops at one of %d: %w", t.base, row.OpCount, errFold)
	}
	if err := s.foldOps(r, row, t.ops); err != nil {
		return t.stmt, err
	}
	if row.Count != t.count {
		return t.stmt, fmt.Errorf("%d records after all ops, not %d: %w", row.Count, t.count, errFold)
	}
	row.Rev = t.rev
	return t.stmt, nil
}

// foldOps applies to a repo the ops up to number end.
func (s *Space) foldOps(r *reader, row *RepoRow, end uint64) error {
	if row.OpCount == end {
		return nil
	}
	p := s.key(func(b *blinder) []byte { return b.author(tableOps, row.Author, macSize) })
	for page, err := range r.segments(s.vault, p, row.OpCount) {
		if err != nil {
			return err
		}
		ops, err := decodeOps(row.Author, numberOf(page.key), page.plain)
		if err != nil {
			return err
		}
		if ops.First+uint64(len(ops.Rows)) <= row.OpCount {
			continue
		}
		if ops.First != row.OpCount {
			break
		}
		for i := range ops.Rows {
			row.apply(&ops.Rows[i])
		}
		if row.OpCount >= end {
			break
		}
	}
	if row.OpCount != end {
		return fmt.Errorf("ops to %d, not %d: %w", row.OpCount, end, errFold)
	}
	return nil
}

// apply takes an op into count and set hash.
func (r *RepoRow) apply(o *OpRow) {
	var buf [512]byte
	if !o.Prev.IsZero() {
		r.State.Remove(space.AppendElement(buf[:0], o.Path, o.Prev))
	}
	if !o.CID.IsZero() {
		r.State.Add(space.AppendElement(buf[:0], o.Path, o.CID))
	}
	r.Count = o.recount(r.Count)
	r.OpCount++
}

// statement reads the statement that mark is of.
func (s *Space) statement(r *reader, row *RepoRow, mark stmtMark) error {
	plain, ok, err := r.get(s.vault, s.key(func(b *blinder) []byte { return b.author(tableStmt, row.Author, macSize) }))
	if err != nil {
		return err
	}
	if ok {
		row.Stmt, err = decodeStatement(plain)
	}
	if err == nil && markOf(row.Stmt) != mark {
		return fmt.Errorf("another statement: %w", errFold)
	}
	return err
}
