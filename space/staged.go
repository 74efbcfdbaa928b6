package space

import (
	"maps"
	"math"
	"slices"

	"github.com/kithnet/kith/sync/lthash"
	"github.com/tidwall/btree"
)

// Staged is a repo with batches applied that nobody else sees yet. Commit
// makes them the repo's; dropping a Staged undoes them. While one is open the
// repo may be read and not changed.
type Staged struct {
	repo    *Repo
	under   *Staged // to be committed before; nil: the repo itself
	base    uint64  // the repo's commits at Begin
	overlay map[Path]*Leaf
	moved   []moved             // not in the set hash yet
	changes []Change            // of the last Apply
	leaves  *btree.BTreeG[item] // what Commit makes the repo's; nil: not begun
	totals
}

// moved is what a change makes of the set hash.
type moved struct {
	path     Path
	old, new CID
	puts     *Puts // of the batch that new came in
}

// Puts is the set hash of all that some batches put: the longest part of
// applying them, and the one that can be done before their turn, away from the
// repo. If then all of it is put, and nothing of it was put before or is older
// than what stands there, it is taken as a whole.
type Puts struct {
	n     int
	state lthash.State
}

// Take adds what b puts, and notes in b that it did. b is applied as it is now.
func (p *Puts) Take(b *Batch) {
	var buf [512]byte
	for i := range b.Ops {
		if op := &b.Ops[i]; op.Value != nil {
			p.state.Add(AppendElement(buf[:0], op.Path, op.sum()))
			p.n++
		}
	}
	b.puts = p
}

// Begin stages changes to r.
func (r *Repo) Begin() *Staged {
	return &Staged{repo: r, base: r.commits, totals: r.totals}
}

// Begin stages changes on top of s, which is to be committed first.
func (s *Staged) Begin() *Staged {
	s.Fold(nil)
	over := &Staged{repo: s.repo, under: s, base: s.base + 1, totals: s.totals, moved: s.moved}
	s.moved = nil
	return over
}

// Grow makes room for n more changes.
func (s *Staged) Grow(n int) {
	s.moved = slices.Grow(s.moved, n)
	if s.overlay == nil {
		s.overlay = make(map[Path]*Leaf, n)
	}
}

// Apply takes in a batch and says what it changed: of two writes to a path the
// one with the later stamp stays, whatever the order they come in, and applied
// again a batch changes nothing. A batch without ops raises the revision. The
// values in the changes are the batch's own; the changes themselves hold until the
// next Apply.
func (s *Staged) Apply(b Batch, stamp Stamp) []Change {
	s.rev = max(s.rev, b.Rev)
	if s.overlay == nil {
		s.overlay = make(map[Path]*Leaf, len(b.Ops))
	}
	s.moved = slices.Grow(s.moved, len(b.Ops))
	changes := s.changes[:0]
	// From the last op to the first: all bear one stamp, so the first to
	// come at a path stays, and that must be the last of the batch.
	for i := len(b.Ops) - 1; i >= 0; i-- {
		op := &b.Ops[i]
		old, known := s.Leaf(op.Path)
		if known && stamp.Compare(old.Stamp) <= 0 {
			continue
		}
		c := Change{Path: op.Path, Old: old.CID, New: op.sum(), Stamp: stamp, Value: op.Value}
		s.set(c, b.puts)
		changes = append(changes, c)
	}
	slices.Reverse(changes)
	s.changes = changes
	return changes
}

// set replaces a leaf and keeps count and hash in step: out goes the value
// that stood there, whatever the writer believed did.
func (s *Staged) set(c Change, puts *Puts) {
	s.overlay[c.Path] = &Leaf{CID: c.New, Stamp: c.Stamp}
	if c.Old == c.New {
		return
	}
	if !c.Old.IsZero() {
		s.count--
	}
	if !c.New.IsZero() {
		s.count++
	}
	s.moved = append(s.moved, moved{c.Path, c.Old, c.New, puts})
}

// foldShare is how many changes are worth a goroutine.
const foldShare = 32

// Fold brings the set hash up to what was applied: in pieces that spread may
// run at once. Whatever reads the hash does it too, piece by piece.
func (s *Staged) Fold(spread lthash.Spread) {
	s.foldPuts()
	s.state.Fold(spread, len(s.moved), foldShare, func(part *lthash.State, i int) {
		var buf [512]byte
		c := &s.moved[i]
		if !c.old.IsZero() {
			part.Remove(AppendElement(buf[:0], c.path, c.old))
		}
		if !c.new.IsZero() {
			part.Add(AppendElement(buf[:0], c.path, c.new))
		}
	})
	clear(s.moved)
	s.moved = s.moved[:0]
}

// foldPuts takes what was put as a whole from where it was worked out.
func (s *Staged) foldPuts() {
	for to := 0; to < len(s.moved); {
		from, puts, n := to, s.moved[to].puts, 0
		for ; to < len(s.moved) && s.moved[to].puts == puts; to++ {
			if !s.moved[to].new.IsZero() {
				n++
			}
		}
		if puts == nil || n != puts.n {
			continue
		}
		s.state.Merge(&puts.state)
		for i := range s.moved[from:to] {
			s.moved[from+i].new = CID{}
		}
	}
	s.moved = slices.DeleteFunc(s.moved, func(m moved) bool { return m.old == m.new })
}

// Leaf is what stands at p, staged batches included.
func (s *Staged) Leaf(p Path) (Leaf, bool) {
	for t := s; t != nil; t = t.under {
		if l, ok := t.overlay[p]; ok {
			return *l, true
		}
	}
	return s.repo.Leaf(p)
}

// Rev is the last revision, staged batches included.
func (s *Staged) Rev() TID { return s.rev }

// Count is how many records live, staged batches included.
func (s *Staged) Count() uint64 { return s.count }

// State is a copy of the set hash, staged batches included.
func (s *Staged) State() lthash.State {
	s.Fold(nil)
	return s.state
}

// Digest is the digest of the set hash, staged batches included.
func (s *Staged) Digest() [32]byte {
	s.Fold(nil)
	return s.state.Sum()
}

// Draft begins what takes longest of Commit: the function that it returns makes
// the index that the repo will have, beside the one that it has, and may run
// while others read the repo. Nothing is applied after Draft, which panics
// where Commit would.
func (s *Staged) Draft() func() {
	s.checkBase()
	s.leaves = s.repo.leaves.Copy()
	return func() { s.index(s.leaves) }
}

func (s *Staged) checkBase() {
	if s.repo.commits != s.base {
		panic("space: Commit of a Staged that is not based on its repo's state")
	}
}

// index enters what is staged.
func (s *Staged) index(leaves *btree.BTreeG[item]) {
	for p, l := range s.overlay {
		leaves.Set(s.repo.item(p, l))
	}
}

// Commit makes the staged batches the repo's. It panics if another Staged of
// the repo was committed since Begin, or this one before: its totals would
// undo the other's.
func (s *Staged) Commit() {
	s.checkBase()
	r := s.repo
	r.commits++
	s.Fold(nil)
	if s.leaves == nil {
		s.index(r.leaves)
	} else {
		r.leaves = s.leaves
	}
	r.totals, s.under = s.totals, nil
}

// Preview is what Count and Digest would be if a batch of these ops, later
// than all there is, were applied. It changes nothing.
func (s *Staged) Preview(ops []Op) (count uint64, digest [32]byte) {
	s.Fold(nil)
	p := Staged{repo: s.repo, under: s.under, totals: s.totals, overlay: maps.Clone(s.overlay)}
	p.Apply(Batch{Ops: ops}, Stamp{Rev: math.MaxUint64})
	return p.count, p.Digest()
}
