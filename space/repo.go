package space

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/kithnet/kith/sync/lthash"
	"github.com/tidwall/btree"
)

// Stamp orders the writes to one path: the last by revision wins, then by
// device, then by entry.
type Stamp struct {
	Rev    TID
	Device [32]byte
	Entry  [32]byte // the id of the envelope that completes the batch
}

// Compare is negative if s is before t, positive if after.
func (s Stamp) Compare(t Stamp) int {
	if c := cmp.Compare(s.Rev, t.Rev); c != 0 {
		return c
	}
	if c := bytes.Compare(s.Device[:], t.Device[:]); c != 0 {
		return c
	}
	return bytes.Compare(s.Entry[:], t.Entry[:])
}

// Leaf is what a repo knows of a path. A zero CID marks a deleted record: it
// stays, so that an older write arriving later does not raise it.
type Leaf struct {
	CID   CID
	Stamp Stamp
}

// Change is a path whose leaf a batch replaced. Old and New are zero where no
// record is. They may be equal, if the same value was written again or what
// was not there was deleted: then only the stamp is new.
type Change struct {
	Path     Path
	Old, New CID
	Stamp    Stamp
	Value    Record // nil if New is zero
}

// Repo is the index of one author's records in a space: what stands at each
// path, how many records live, their set hash. Values are elsewhere. One
// goroutine owns it; Clone gives others something to read.
type Repo struct {
	leaves *btree.BTreeG[item]
	names  map[NSID]NSID // collections, each held in memory once
	totals
	commits uint64
}

// item is small, so that the few cache lines a search touches hold many:
// prefix decides most comparisons without a look at the key's bytes.
type item struct {
	prefix uint64 // the first 8 bytes of the key
	path   Path
	leaf   *Leaf // never changed, only replaced: clones share it
}

func newItem(p Path, l *Leaf) item {
	var b [8]byte
	copy(b[:], p.Key)
	return item{binary.BigEndian.Uint64(b[:]), p, l}
}

func (a item) less(b item) bool {
	if a.path.Collection != b.path.Collection {
		return a.path.Collection < b.path.Collection
	}
	if a.prefix != b.prefix {
		return a.prefix < b.prefix
	}
	return a.path.Key < b.path.Key
}

// totals is what a batch changes besides leaves.
type totals struct {
	rev   TID
	count uint64
	state lthash.State
}

// NewRepo is the repo of an author who never wrote.
func NewRepo() *Repo { return RestoreRepo(0, 0, lthash.State{}) }

// RestoreRepo is a repo of which the totals are known; Load adds its leaves.
func RestoreRepo(rev TID, count uint64, state lthash.State) *Repo {
	return &Repo{
		leaves: btree.NewBTreeGOptions(item.less, btree.Options{NoLocks: true}),
		names:  map[NSID]NSID{},
		totals: totals{rev, count, state},
	}
}

// Load puts a leaf in while a repo is restored, fastest in the order of paths.
// The totals stay as they are.
func (r *Repo) Load(p Path, l Leaf) { r.leaves.Load(r.item(p, &l)) }

func (r *Repo) item(p Path, l *Leaf) item {
	name, ok := r.names[p.Collection]
	if !ok {
		name = p.Collection
		r.names[name] = name
	}
	p.Collection = name
	return newItem(p, l)
}

// Check folds all leaves again and compares with the totals.
func (r *Repo) Check() error {
	var t totals
	var element []byte
	r.leaves.Scan(func(i item) bool {
		t.rev = max(t.rev, i.leaf.Stamp.Rev)
		if !i.leaf.CID.IsZero() {
			t.count++
			element = AppendElement(element[:0], i.path, i.leaf.CID)
			t.state.Add(element)
		}
		return true
	})
	switch {
	case t.count != r.count:
		return fmt.Errorf("repo: %d records, not %d: %w", t.count, r.count, ErrMalformed)
	case !t.state.Equal(&r.state):
		return fmt.Errorf("repo: set hash does not match the records: %w", ErrMalformed)
	case t.rev > r.rev:
		return fmt.Errorf("repo: rev %s is before a record's %s: %w", r.rev, t.rev, ErrMalformed)
	}
	return nil
}

// Leaf is what stands at p, deleted records included.
func (r *Repo) Leaf(p Path) (Leaf, bool) {
	if i, ok := r.leaves.Get(newItem(p, nil)); ok {
		return *i.leaf, true
	}
	return Leaf{}, false
}

// Rev is the last revision seen, that of batches that changed nothing included.
func (r *Repo) Rev() TID { return r.rev }

// Count is how many records live.
func (r *Repo) Count() uint64 { return r.count }

// State is a copy of the set hash.
func (r *Repo) State() lthash.State { return r.state }

// Digest is the digest of the set hash.
func (r *Repo) Digest() [32]byte { return r.state.Sum() }

// Clone is the repo as it is now, for another goroutine. Neither sees what
// the other does afterwards. It costs little: the two share what neither has
// changed since.
func (r *Repo) Clone() *Repo {
	c := RestoreRepo(r.rev, r.count, r.state)
	c.leaves = r.leaves.Copy()
	return c
}

// Ascend yields the live records in the order of paths, beginning with from
// itself; the zero Path is before all. If in is not empty, only that
// collection is visited. The repo must not change meanwhile.
func (r *Repo) Ascend(from Path, in NSID) iter.Seq2[Path, Leaf] {
	if in != "" && from.Compare(Path{in, ""}) < 0 {
		from = Path{in, ""}
	}
	return func(yield func(Path, Leaf) bool) {
		r.leaves.Ascend(newItem(from, nil), func(i item) bool {
			if in != "" && i.path.Collection != in {
				return false
			}
			return i.leaf.CID.IsZero() || yield(i.path, *i.leaf)
		})
	}
}

// Descend is Ascend in the other direction; the zero Path is after all.
func (r *Repo) Descend(from Path, in NSID) iter.Seq2[Path, Leaf] {
	const afterKeys = "\x7f" // the characters of keys are all below
	if last := (Path{in, afterKeys}); in != "" && (from == Path{} || from.Compare(last) > 0) {
		from = last
	}
	return func(yield func(Path, Leaf) bool) {
		visit := func(i item) bool {
			if in != "" && i.path.Collection != in {
				return false
			}
			return i.leaf.CID.IsZero() || yield(i.path, *i.leaf)
		}
		if from == (Path{}) {
			r.leaves.Reverse(visit)
		} else {
			r.leaves.Descend(newItem(from, nil), visit)
		}
	}
}

// AppendElement appends the element that a live record is in the set hash of
// its repo: "collection/rkey/cid".
func AppendElement(b []byte, p Path, c CID) []byte {
	b = append(b, p.Collection...)
	b = append(b, '/')
	b = append(b, p.Key...)
	b = append(b, '/')
	return c.appendText(b)
}
