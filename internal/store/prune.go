package store

import (
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
)

// An oplog tells what happened to a repo, which the records do not need: its
// beginning is dropped after a while, page by page. A row beside the pages says
// up to where, so that what is missing there is no damage.

// Pruned says what was dropped of an oplog. Zero: nothing.
type Pruned struct {
	First uint64    // number of the first op that is kept
	Rev   space.TID // of the last op that was dropped, and its place in that rev
	Idx   int
}

// Before reports whether ops behind (rev, idx) were dropped.
func (p Pruned) Before(rev space.TID, idx int) bool {
	return p.First > 0 && (p.Rev > rev || p.Rev == rev && p.Idx > idx)
}

func (p Pruned) append(b []byte) []byte {
	b = binary.AppendUvarint(b, p.First)
	b = appendUint(b, uint64(p.Rev))
	return binary.AppendUvarint(b, uint64(p.Idx))
}

func decodePruned(b []byte) (p Pruned, err error) {
	f := fields{b: b}
	p = Pruned{First: f.uvarint(), Rev: space.TID(f.uint()), Idx: int(f.uvarint())}
	return p, f.end("pruned ops")
}

func (s *Space) pruned(r *reader, author space.DID) (Pruned, error) {
	plain, ok, err := r.get(s.vault, s.key(func(b *blinder) []byte { return b.author(tablePruned, author, macSize) }))
	if err != nil || !ok {
		return Pruned{}, err
	}
	return decodePruned(plain)
}

// prunePages is how many pages one call of PruneOps drops.
const prunePages = dropRows

// PruneOps drops, at once, the first pages of an author's oplog, as long as all
// their ops are of revs before a TID and at least keep ops, or 64 if that is
// more, stay. It gives how many ops it dropped: at most 1,024 pages of them, so
// that more may be left. The ops that stay keep their numbers.
func (s *Space) PruneOps(author space.DID, before space.TID, keep uint64) (n int, err error) {
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	if n, err = s.pruneOps(author, before, max(keep, foldMost)); err != nil {
		return 0, fmt.Errorf("prune ops: %w", s.notice(err))
	}
	return n, nil
}

func (s *Space) pruneOps(author space.DID, before space.TID, keep uint64) (int, error) {
	repo, ok, err := s.Repo(author)
	if err != nil || !ok || repo.OpCount <= keep {
		return 0, err
	}
	r, err := s.store.reader()
	if err != nil {
		return 0, err
	}
	defer r.release()
	gone, err := s.pruned(r, author)
	if err != nil {
		return 0, err
	}
	b, from := new(batch), gone.First
	p := s.key(func(b *blinder) []byte { return b.author(tableOps, author, macSize) })
	for row, err := range r.segments(s.vault, p, from) {
		if err != nil {
			return 0, err
		}
		page, err := decodeOps(author, numberOf(row.key), row.plain)
		if err != nil {
			return 0, err
		}
		if page.First != gone.First || len(page.Rows) == 0 {
			return 0, fmt.Errorf("ops from %d, not %d: %w", page.First, gone.First, errFold)
		}
		end, last := page.First+uint64(len(page.Rows)), page.Rows[len(page.Rows)-1]
		if end+keep > repo.OpCount || last.Rev >= before || b.rows == prunePages {
			break
		}
		b.Delete(row.key)
		gone = Pruned{First: end, Rev: last.Rev, Idx: last.Idx}
	}
	if gone.First == from {
		return 0, nil
	}
	w, err := s.vault.rows()
	if err != nil {
		return 0, err
	}
	defer w.free()
	w.plain = gone.append(w.plain[:0])
	w.put(w.author(tablePruned, author, macSize), w.plain)
	w.batch.add(b)
	return int(gone.First - from), s.store.write(Remote, w.batch)
}
