package space

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kithnet/kith/sync/lthash"
	"pgregory.net/rapid"
)

// naiveRepo is the model: everything in maps, the hash folded from nothing.
type naiveRepo struct {
	rev    TID
	leaves map[Path]Leaf
}

func (n *naiveRepo) apply(b Batch, stamp Stamp) {
	n.rev = max(n.rev, b.Rev)
	last := map[Path]Op{}
	for _, op := range b.Ops {
		last[op.Path] = op
	}
	for p, op := range last {
		old, ok := n.leaves[p]
		if ok && old.Stamp.Compare(stamp) >= 0 {
			continue
		}
		leaf := Leaf{Stamp: stamp}
		if op.Value != nil {
			leaf.CID = op.Value.CID()
		}
		n.leaves[p] = leaf
	}
}

func (n *naiveRepo) live() (paths []Path, state lthash.State) {
	for p, l := range n.leaves {
		if !l.CID.IsZero() {
			paths = append(paths, p)
			state.Add([]byte(p.String() + "/" + l.CID.String()))
		}
	}
	slices.SortFunc(paths, Path.Compare)
	return paths, state
}

type readable interface {
	Leaf(Path) (Leaf, bool)
	Rev() TID
	Count() uint64
	Digest() [32]byte
}

// compare says how r differs from the model.
func (n *naiveRepo) compare(r readable) error {
	paths, state := n.live()
	if r.Count() != uint64(len(paths)) {
		return fmt.Errorf("%d records, want %d", r.Count(), len(paths))
	}
	if r.Rev() != n.rev {
		return fmt.Errorf("rev %d, want %d", r.Rev(), n.rev)
	}
	if r.Digest() != state.Sum() {
		return errors.New("the digest is not that of the records")
	}
	for p, want := range n.leaves {
		if got, ok := r.Leaf(p); !ok || got != want {
			return fmt.Errorf("%s: %v %v, want %v", p, got, ok, want)
		}
	}
	return nil
}

type stampedBatch struct {
	batch Batch
	stamp Stamp
}

// drawHistory draws batches on few paths, so that they collide, from few
// devices and revisions, so that stamps nearly tie. No two stamps are equal.
func drawHistory(t *rapid.T) []stampedBatch {
	var out []stampedBatch
	for i := range rapid.IntRange(1, 12).Draw(t, "batches") {
		b := Batch{Rev: TID(rapid.Uint64Range(1, 5).Draw(t, "rev"))}
		for range rapid.IntRange(0, 4).Draw(t, "ops") {
			op := Op{Path: Path{
				NSID(rapid.SampledFrom([]string{"a.b.c", "a.b.c-d.e"}).Draw(t, "collection")),
				RecordKey(rapid.SampledFrom([]string{"x", "y", "longer-a", "longer-key", "longer-key-2"}).Draw(t, "key")),
			}}
			if rapid.IntRange(0, 2).Draw(t, "kind") > 0 {
				op.Value = appendValue(nil, map[string]any{"n": int64(rapid.IntRange(0, 3).Draw(t, "value"))})
			}
			if rapid.Bool().Draw(t, "lies about prev") {
				op.Prev = SumRaw([]byte("never was"))
			}
			b.Ops = append(b.Ops, op)
		}
		out = append(out, stampedBatch{b, Stamp{
			Rev:    b.Rev,
			Device: [32]byte{byte(rapid.IntRange(0, 1).Draw(t, "device"))},
			Entry:  [32]byte{rapid.Byte().Draw(t, "entry"), byte(i)},
		}})
	}
	return out
}

// Staged against the model: any order, any grouping into stages, dropped
// stages, batches twice.
func TestNaiveRepo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := drawHistory(t)
		repo, model := NewRepo(), &naiveRepo{leaves: map[Path]Leaf{}}
		staged := repo.Begin()
		var below []*Staged
		commit := func() {
			for _, s := range append(below, staged) {
				if rapid.Bool().Draw(t, "draft") {
					s.Draft()()
				}
				s.Commit()
			}
			below = nil
		}
		shared := new(Puts)
		for i, sb := range history {
			switch rapid.IntRange(0, 3).Draw(t, "first") {
			case 0: // put a stage on top
				below, staged = append(below, staged), staged.Begin()
			case 1: // commit them but for the last
				for _, s := range below {
					s.Commit()
				}
				below = nil
			case 2: // drop a stage
				commit()
				repo.Begin().Apply(history[len(history)-1].batch, history[len(history)-1].stamp)
				staged = repo.Begin()
			}
			switch rapid.IntRange(0, 3).Draw(t, "ahead") { // what the batch puts is hashed before its turn
			case 0:
				shared = new(Puts)
				fallthrough
			case 1:
				shared.Take(&sb.batch)
			}
			if rapid.Bool().Draw(t, "unseen") { // what was looked at is hashed
				staged.Apply(sb.batch, sb.stamp)
				model.apply(sb.batch, sb.stamp)
				continue
			}
			before := staged.Digest()
			changes := staged.Apply(sb.batch, sb.stamp)
			model.apply(sb.batch, sb.stamp)
			if err := model.compare(staged); err != nil {
				t.Fatalf("after batch %d: %v", i, err)
			}
			checkChanges(t, staged, sb, changes)
			if again := staged.Apply(sb.batch, sb.stamp); len(again) != 0 {
				t.Fatalf("batch %d twice changed %v", i, again)
			}
			if len(changes) == 0 && staged.Digest() != before {
				t.Fatalf("batch %d changed nothing but the digest", i)
			}
		}
		commit()
		if err := errors.Join(model.compare(repo), repo.Check()); err != nil {
			t.Fatal(err)
		}
		checkListing(t, repo, model)
		permuted := rapid.Permutation(history).Draw(t, "order")
		checkOrder(t, model, permuted)
	})
}

func checkChanges(t *rapid.T, s *Staged, sb stampedBatch, changes []Change) {
	seen := map[Path]bool{}
	for _, c := range changes {
		leaf, ok := s.Leaf(c.Path)
		if seen[c.Path] || !ok || leaf.CID != c.New || leaf.Stamp != sb.stamp || c.Stamp != sb.stamp {
			t.Fatalf("change %+v, leaf %+v", c, leaf)
		}
		if c.New.IsZero() != (c.Value == nil) || c.Value != nil && c.Value.CID() != c.New {
			t.Fatalf("change %+v carries the wrong value", c)
		}
		seen[c.Path] = true
	}
}

// checkOrder applies the batches in another order, each in a stage of its own.
func checkOrder(t *rapid.T, want *naiveRepo, history []stampedBatch) {
	repo := NewRepo()
	for _, sb := range history {
		s := repo.Begin()
		s.Apply(sb.batch, sb.stamp)
		s.Commit()
	}
	if err := want.compare(repo); err != nil {
		t.Fatalf("in another order: %v", err)
	}
}

func checkListing(t *rapid.T, repo *Repo, model *naiveRepo) {
	paths, _ := model.live()
	in := NSID(rapid.SampledFrom([]string{"", "a.b.c", "a.b.c-d.e", "a.b.d"}).Draw(t, "in"))
	from := Path{}
	if rapid.Bool().Draw(t, "from somewhere") {
		from = Path{NSID(rapid.SampledFrom([]string{"a.a.a", "a.b.c", "a.b.c-d.e", "b.b.b"}).Draw(t, "from")), "y"}
	}
	var up, down []Path
	for _, p := range paths {
		if in != "" && p.Collection != in {
			continue
		}
		if p.Compare(from) >= 0 {
			up = append(up, p)
		}
		if (from == Path{}) || p.Compare(from) <= 0 {
			down = append(down, p)
		}
	}
	slices.Reverse(down)
	var gotUp, gotDown []Path
	for p, l := range repo.Ascend(from, in) {
		if l != model.leaves[p] {
			t.Fatalf("%s: %v", p, l)
		}
		gotUp = append(gotUp, p)
	}
	for p := range repo.Descend(from, in) {
		gotDown = append(gotDown, p)
	}
	if !slices.Equal(gotUp, up) || !slices.Equal(gotDown, down) {
		t.Fatalf("from %v in %q: up %v, want %v; down %v, want %v", from, in, gotUp, up, gotDown, down)
	}
}

func put(key RecordKey, n int64) Op {
	return Op{Path: Path{"a.b.c", key}, Value: appendValue(nil, map[string]any{"n": n})}
}

func del(key RecordKey) Op { return Op{Path: Path{"a.b.c", key}} }

// The rules one by one, where a reader looks for them.
func TestLastWriterWins(t *testing.T) {
	repo := NewRepo()
	apply := func(rev TID, ops ...Op) []Change {
		s := repo.Begin()
		c := s.Apply(Batch{Rev: rev, Ops: ops}, Stamp{Rev: rev})
		s.Commit()
		return c
	}
	if c := apply(10, put("x", 1)); len(c) != 1 || !c[0].Old.IsZero() {
		t.Errorf("create: %+v", c)
	}
	if c := apply(5, put("x", 2)); c != nil {
		t.Errorf("an older write changed %+v", c)
	}
	if c := apply(20, del("x")); len(c) != 1 || c[0].Old != put("x", 1).Value.CID() || !c[0].New.IsZero() || repo.Count() != 0 {
		t.Errorf("delete: %+v, %d records", c, repo.Count())
	}
	if c := apply(15, put("x", 3)); c != nil || repo.Count() != 0 {
		t.Errorf("an older write raised the dead: %+v", c)
	}
	if c := apply(30, del("never")); len(c) != 1 || c[0].Old != c[0].New {
		t.Errorf("delete of nothing: %+v, want a stamp to keep", c)
	}
	if c := apply(25, put("never", 1)); c != nil {
		t.Errorf("a write before the delete of nothing: %+v", c)
	}
	if c := apply(40, put("y", 1), put("y", 2), del("y"), put("y", 3)); len(c) != 1 || c[0].New != put("y", 3).Value.CID() {
		t.Errorf("a path four times in a batch: %+v", c)
	}
	if c := apply(41, put("y", 3)); len(c) != 1 || c[0].Old != c[0].New || repo.Count() != 1 {
		t.Errorf("the same value again: %+v", c)
	}
	if c := apply(99); c != nil || repo.Rev() != 99 {
		t.Errorf("no ops: %+v, rev %d", c, repo.Rev())
	}
	if c := apply(1); c != nil || repo.Rev() != 99 {
		t.Errorf("an older rev: rev %d", repo.Rev())
	}
	if err := repo.Check(); err != nil {
		t.Error(err)
	}
}

func TestChangesKeepTheOrderOfOps(t *testing.T) {
	c := NewRepo().Begin().Apply(Batch{Rev: 1, Ops: []Op{put("b", 1), put("a", 1), put("b", 2), put("c", 1)}}, Stamp{Rev: 1})
	var keys []RecordKey
	for _, c := range c {
		keys = append(keys, c.Path.Key)
	}
	if !slices.Equal(keys, []RecordKey{"a", "b", "c"}) {
		t.Error(keys)
	}
}

func TestStagedIsInvisible(t *testing.T) {
	repo := NewRepo()
	empty := repo.Digest()
	s := repo.Begin()
	s.Apply(Batch{Rev: 5, Ops: []Op{put("x", 1)}}, Stamp{Rev: 5})
	if _, ok := repo.Leaf(put("x", 1).Path); ok || repo.Rev() != 0 || repo.Count() != 0 || repo.Digest() != empty {
		t.Error("a stage shows before Commit")
	}
	s.Commit()
	if _, ok := repo.Leaf(put("x", 1).Path); !ok || repo.Rev() != 5 || repo.Count() != 1 || repo.Digest() != s.Digest() {
		t.Error("a stage does not show after Commit")
	}
}

func TestCommitOfAStaleStage(t *testing.T) {
	repo := NewRepo()
	a, b := repo.Begin(), repo.Begin()
	a.Commit()
	for name, s := range map[string]*Staged{"another": b, "the same again": a} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was committed", name)
				}
			}()
			s.Commit()
		}()
	}
}

func TestRestoreRepo(t *testing.T) {
	repo := NewRepo()
	s := repo.Begin()
	s.Apply(Batch{Rev: 5, Ops: []Op{put("x", 1), put("y", 1), del("z")}}, Stamp{Rev: 5})
	s.Commit()
	state := repo.State()
	restored := RestoreRepo(repo.Rev(), repo.Count(), state)
	for _, key := range []RecordKey{"z", "x", "y"} {
		l, _ := repo.Leaf(Path{"a.b.c", key})
		restored.Load(Path{"a.b.c", key}, l)
	}
	if err := restored.Check(); err != nil || restored.Digest() != repo.Digest() {
		t.Errorf("%v", err)
	}
	for name, broken := range map[string]*Repo{
		"count": RestoreRepo(5, 3, state),
		"hash":  RestoreRepo(5, 2, lthash.State{}),
		"rev":   RestoreRepo(4, 2, state),
	} {
		for _, key := range []RecordKey{"x", "y", "z"} {
			l, _ := repo.Leaf(Path{"a.b.c", key})
			broken.Load(Path{"a.b.c", key}, l)
		}
		if err := broken.Check(); !errors.Is(err, ErrMalformed) {
			t.Errorf("a wrong %s passes: %v", name, err)
		}
	}
}

// A clone stands still while the repo goes on, also on another goroutine.
func TestClone(t *testing.T) {
	repo := NewRepo()
	write := func(rev TID) {
		s := repo.Begin()
		s.Apply(Batch{Rev: rev, Ops: []Op{put(RecordKey(rev.String()), int64(rev))}}, Stamp{Rev: rev})
		s.Commit()
	}
	for rev := TID(1); rev <= 500; rev++ {
		write(rev)
	}
	clone, done := repo.Clone(), make(chan int)
	go func() {
		n := 0
		for range clone.Ascend(Path{}, "") {
			n++
		}
		done <- n
	}()
	for rev := TID(501); rev <= 1000; rev++ {
		write(rev)
	}
	if n := <-done; n != 500 || clone.Count() != 500 || clone.Check() != nil {
		t.Errorf("the clone has %d records, %v", n, clone.Check())
	}
	if repo.Count() != 1000 || repo.Check() != nil {
		t.Errorf("the repo has %d records, %v", repo.Count(), repo.Check())
	}
}

func TestListingStops(t *testing.T) {
	repo := NewRepo()
	s := repo.Begin()
	s.Apply(Batch{Rev: 1, Ops: []Op{put("a", 1), put("b", 1), put("c", 1)}}, Stamp{Rev: 1})
	s.Commit()
	n := 0
	for range repo.Ascend(Path{}, "") {
		n++
		break
	}
	for range repo.Descend(Path{}, "") {
		n++
		break
	}
	if n != 2 {
		t.Error(n)
	}
}

// One entry of a million: decode, apply, commit, with the set hash. Keys that
// are TIDs ascend; scattered ones are the worst an index can be given.
func BenchmarkApply(b *testing.B) {
	ascending := func(i uint64) RecordKey { return RecordKey(TID(1<<60 + i<<10).String()) }
	for _, c := range []struct {
		name string
		size int
		key  func(uint64) RecordKey
	}{
		{"ascending", 0, ascending},
		{"scattered", 0, benchKey},
		{"scattered on 1M", 1_000_000, benchKey},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkApply(b, c.size, c.key) })
	}
}

func benchmarkApply(b *testing.B, size int, key func(uint64) RecordKey) {
	repo := NewRepo()
	for i := range uint64(size) {
		repo.Load(Path{"com.example.note", key(i)}, Leaf{CID: SumRaw(binary.BigEndian.AppendUint64(nil, i))})
	}
	value := appendValue(nil, map[string]any{"$type": "com.example.note", "text": string(make([]byte, 200))})
	batch := Batch{Rev: 1, Ops: []Op{{Path: Path{"com.example.note", key(0)}, Value: value}}}
	body, err := batch.Encode()
	if err != nil {
		b.Fatal(err)
	}
	at := bytes.Index(body, []byte(key(0)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		copy(body[at:], key(uint64(i)*7))
		batch, err := DecodeBatch(body)
		if err != nil {
			b.Fatal(err)
		}
		s := repo.Begin()
		s.Apply(batch, Stamp{Rev: TID(i + 1)})
		s.Commit()
	}
}

// benchKey scatters keys over the index.
func benchKey(i uint64) RecordKey {
	return RecordKey(TID(i * 0x9e3779b97f4a7c15 >> 1).String())
}
