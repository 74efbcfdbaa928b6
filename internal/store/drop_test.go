package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
)

// dump is what stands in the database under a tag, as it stands there.
func dump(t testing.TB, st *Store, tag Tag) map[string]string {
	t.Helper()
	all := map[string]string{}
	it := st.engine.db.NewIterator(prefix(tag[:]), nil)
	defer it.Release()
	for it.Next() {
		all[string(it.Key())] = string(it.Value())
	}
	if err := it.Error(); err != nil {
		t.Fatal(err)
	}
	return all
}

// without is rows less those whose keys begin with any of prefixes.
func without(rows map[string]string, prefixes ...[]byte) map[string]string {
	left := maps.Clone(rows)
	for key := range rows {
		for _, p := range prefixes {
			if strings.HasPrefix(key, string(p)) {
				delete(left, key)
			}
		}
	}
	return left
}

func authorPrefixes(sp *Space, did space.DID) (all [][]byte) {
	for _, t := range []table{tableRepo, tableTip, tableStmt, tableOps, tablePruned} {
		all = append(all, sp.key(func(b *blinder) []byte { return b.author(t, did, macSize) }))
	}
	return append(all, sp.key(func(b *blinder) []byte { return b.author(tableRecord, did, groupSize) }))
}

func object(text string) ObjectRow { return ObjectRow{sha256.Sum256([]byte(text)), []byte(text)} }

// fill writes rows of every table, of two authors.
func fill(t testing.TB, sp *Space, commits int) *traffic {
	t.Helper()
	g := newTraffic(t, 2, 2)
	for i := range commits {
		b := &Batch{
			Control: []ControlRow{{uint64(i), []byte("entry")}},
			Outbox:  []OutboxRow{{uint64(i), []byte("frame")}},
			Held:    []HeldRow{{uint64(i), []byte("body")}},
			Objects: []ObjectRow{object(fmt.Sprint("object ", i))},
			Meta:    map[string][]byte{fmt.Sprint("meta ", i): []byte("x")},
		}
		a := g.authors[i%2]
		g.stmts[a.did] = testStatement()
		g.run(b, g.chains[i%2], 2)
		g.write(b, a, i, 3, fmt.Sprint("v", i))
		commit(t, sp, Own, b)
	}
	return g
}

func TestHeldAndObjects(t *testing.T) {
	s := openMemory(t).Space([32]byte{1}, [32]byte{2})
	one, two := object("one"), object("two")
	b := &Batch{Held: []HeldRow{{7, []byte("seven")}, {300, []byte("later")}}, Objects: []ObjectRow{one, two}}
	commit(t, s, Own, b)
	equal(t, "held", collect(t, s.Held()), b.Held)
	data, ok, err := s.Object(two.Hash)
	equal(t, "object", []any{data, ok, err}, []any{two.Data, true, nil})
	_, ok, err = s.Object([32]byte{1})
	equal(t, "another object", []any{ok, err}, []any{false, nil})
	commit(t, s, Own, &Batch{HeldDone: []uint64{7, 8}, ObjectsDone: [][32]byte{two.Hash, {9}}})
	equal(t, "held", collect(t, s.Held()), b.Held[1:])
	_, ok, err = s.Object(two.Hash)
	equal(t, "deleted object", []any{ok, err}, []any{false, nil})
	data, ok, err = s.Object(one.Hash)
	equal(t, "object", []any{data, ok, err}, []any{one.Data, true, nil})

	for what, bad := range map[string]ObjectRow{
		"another hash": {one.Hash, two.Data},
		"too large":    object(strings.Repeat("x", MaxObject+1)),
	} {
		if err := s.Commit(Own, &Batch{Objects: []ObjectRow{bad}, Held: []HeldRow{{9, nil}}}); err == nil {
			t.Errorf("%s: committed", what)
		}
	}
	largest := object(strings.Repeat("x", MaxObject))
	commit(t, s, Own, &Batch{Objects: []ObjectRow{largest}})
	data, ok, err = s.Object(largest.Hash)
	equal(t, "largest object", []any{len(data), ok, err}, []any{MaxObject, true, nil})
	equal(t, "held", collect(t, s.Held()), b.Held[1:])
}

// Rows that nothing else speaks of are opened by an audit.
func TestAuditOpensAll(t *testing.T) {
	for _, full := range []bool{false, true} {
		st := openMemory(t)
		sp := st.Space([32]byte{1}, [32]byte{2})
		fill(t, sp, 2)
		keys := [][]byte{
			sp.key(func(b *blinder) []byte { return b.numbered(tableHeld, 1) }),
			sp.key(func(b *blinder) []byte { return b.numbered(tableOutbox, 0) }),
			sp.key(func(b *blinder) []byte { return b.name("meta 1") }),
		}
		if full {
			keys = append(keys, sp.key(func(b *blinder) []byte { return b.object(object("object 1").Hash) }))
		}
		for _, key := range keys {
			if err := st.engine.db.Put(key, []byte("not what was sealed there"), nil); err != nil {
				t.Fatal(err)
			}
		}
		found, err := sp.Audit(t.Context(), full)
		if err != nil || found.Unreadable != len(keys) || found.OK() {
			t.Errorf("full %v: %+v, %v", full, found, err)
		}
	}
}

func TestDropAuthor(t *testing.T) {
	for _, atOnce := range []int{dropAtOnce, 5} {
		st := openMemory(t)
		sp := st.Space([32]byte{1}, [32]byte{2})
		g := fill(t, sp, 40)
		before := dump(t, st, sp.Tag())
		gone, stays := g.authors[0], g.authors[1]
		want := without(before, authorPrefixes(sp, gone.did)...)
		if len(want) > len(before)-40 {
			t.Fatalf("%d of %d rows are not the author's", len(want), len(before))
		}
		if err := sp.dropAuthor(gone.did, atOnce); err != nil {
			t.Fatal(err)
		}
		equal(t, "rows", dump(t, st, sp.Tag()), want)
		delete(g.repos, gone.did)
		g.same(t, sp)
		equal(t, "records", len(collect(t, sp.Records(gone.did)))+len(collect(t, sp.Ops(gone.did, 0))), 0)
		if len(collect(t, sp.Records(stays.did))) == 0 {
			t.Error("the other author's records are gone")
		}
		found, err := sp.Audit(t.Context(), true)
		equal(t, "audit", []any{*found, err}, []any{Audit{ControlHave: 40, ControlWant: 40}, nil})

		// The author comes again, from nothing.
		again := newAuthor(t, gone.did)
		for i := range 3 {
			b := &Batch{}
			g.write(b, again, i, 2, "again")
			commit(t, sp, Own, b)
		}
		g.same(t, sp)
		found, err = sp.Audit(t.Context(), true)
		equal(t, "audit", []any{found.OK(), err}, []any{true, nil})
	}
}

func TestTruncateControl(t *testing.T) {
	st := openMemory(t)
	sp := st.Space([32]byte{1}, [32]byte{2})
	fill(t, sp, 12)
	rows := dump(t, st, sp.Tag())
	for _, after := range []uint64{math.MaxUint64, math.MaxUint64 - 1, 11, 400, 7, 7, 0} {
		want := maps.Clone(rows)
		for n := range uint64(12) {
			if n > after {
				delete(want, string(sp.key(func(b *blinder) []byte { return b.numbered(tableControl, n) })))
			}
		}
		if err := sp.TruncateControl(after); err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprint("rows after ", after), dump(t, st, sp.Tag()), want)
	}
	commit(t, sp, Own, &Batch{Control: []ControlRow{{1, []byte("another term")}}})
	equal(t, "control", collect(t, sp.Control()), []ControlRow{{0, []byte("entry")}, {1, []byte("another term")}})
}

func TestForget(t *testing.T) {
	st := openMemory(t)
	sp, other := st.Space([32]byte{1}, [32]byte{2}), st.Space([32]byte{2}, [32]byte{2})
	fill(t, sp, 300)
	fill(t, other, 3)
	if err := st.Put("spaces", []byte("a"), []byte("b"), Own); err != nil {
		t.Fatal(err)
	}
	stays := dump(t, st, other.Tag())
	if n := len(dump(t, st, sp.Tag())); n < 2*dropRows {
		t.Fatalf("only %d rows", n)
	}
	if err := st.Forget(sp.Tag()); err != nil {
		t.Fatal(err)
	}
	equal(t, "rows", len(dump(t, st, sp.Tag())), 0)
	equal(t, "rows of the other", dump(t, st, other.Tag()), stays)
	if err := st.Forget(st.node.tag); err == nil {
		t.Error("forgot the node's settings")
	}
	if _, ok, err := st.Read("spaces", []byte("a")); !ok || err != nil {
		t.Error("a setting is gone", err)
	}
	// What the handle kept in mind of the rows is gone with them.
	fill(t, sp, 3).same(t, sp)
}

// drops are the ways to delete many rows. small ones happen at once.
var drops = []struct {
	name  string
	small bool
	drop  func(st *Store, sp *Space, g *traffic) error
	want  func(sp *Space, rows map[string]string, g *traffic) map[string]string
}{
	{
		"author", true,
		func(_ *Store, sp *Space, g *traffic) error { return sp.DropAuthor(g.authors[0].did) },
		wantNoAuthor,
	},
	{
		"large author", false,
		func(_ *Store, sp *Space, g *traffic) error { return sp.dropAuthor(g.authors[0].did, 12) },
		wantNoAuthor,
	},
	{
		"control", true,
		func(_ *Store, sp *Space, _ *traffic) error { return sp.TruncateControl(0) },
		func(sp *Space, rows map[string]string, _ *traffic) map[string]string {
			first := sp.key(func(b *blinder) []byte { return b.numbered(tableControl, 0) })
			want := without(rows, sp.key(func(b *blinder) []byte { return b.all(tableControl) }))
			want[string(first)] = rows[string(first)]
			return want
		},
	},
	{
		"space", false,
		func(st *Store, sp *Space, _ *traffic) error { return st.Forget(sp.Tag()) },
		func(*Space, map[string]string, *traffic) map[string]string { return map[string]string{} },
	},
}

func wantNoAuthor(sp *Space, rows map[string]string, g *traffic) map[string]string {
	return without(rows, authorPrefixes(sp, g.authors[0].did)...)
}

// Wherever the power is cut: what goes at once is there whole or gone whole,
// of what goes in steps nothing else is gone, and doing it again ends it. Of an
// author the repo goes first, so nothing reads as if it did not add up.
func TestCrashWhileDropping(t *testing.T) {
	for _, c := range drops {
		t.Run(c.name, func(t *testing.T) {
			f := storetest.NewDisk()
			power := cutsOf(f)
			st := openFaulty(t, f)
			sp, other := st.Space(historyID, historyDEK), st.Space([32]byte{9}, historyDEK)
			g := fill(t, sp, 200)
			fill(t, other, 2)
			before, stays := dump(t, st, sp.Tag()), dump(t, st, other.Tag())
			want := c.want(sp, before, g)
			cuts := power.during(func() {
				if err := c.drop(st, sp, g); err != nil {
					t.Fatal(err)
				}
			})
			equal(t, "rows", dump(t, st, sp.Tag()), want)
			closeStore(t, st)
			for i, disk := range cuts {
				st := openFaulty(t, disk)
				sp := st.Space(historyID, historyDEK)
				rows := dump(t, st, sp.Tag())
				whole := maps.Equal(rows, before)
				done := maps.Equal(rows, want)
				if c.small && !whole && !done || i == len(cuts)-1 && !done {
					t.Fatalf("cut %d of %d: %d rows; %d before, %d wanted", i, len(cuts), len(rows), len(before), len(want))
				}
				for key, value := range rows {
					if before[key] != value {
						t.Fatal("another row came up")
					}
				}
				for key := range want {
					if _, ok := rows[key]; !ok {
						t.Fatal("a row is gone that was not to go")
					}
				}
				if c.name == "large author" {
					found, err := sp.Audit(t.Context(), true)
					if err != nil || found.OK() != (whole || done) || len(found.Repos) > 0 {
						t.Fatalf("audit: %+v, %v", found, err)
					}
				}
				if err := c.drop(st, sp, g); err != nil {
					t.Fatal(err)
				}
				equal(t, "rows", dump(t, st, sp.Tag()), want)
				equal(t, "rows of the other", dump(t, st, st.Space([32]byte{9}, historyDEK).Tag()), stays)
				closeStore(t, st)
			}
		})
	}
}

// A disk that fails in the middle is told of; what goes at once is not gone
// then, and all of it can be done again.
func TestDropOnFailingDisk(t *testing.T) {
	for _, c := range drops {
		for n := range 12 {
			f := storetest.NewDisk()
			f.Torn = n%2 == 0
			// Nothing becomes a table meanwhile: the engine's own goroutines
			// race when a disk fails under that.
			st := must[*Store](t)(OpenOn(f, [32]byte{1}, Options{RetryAfter: -1}))
			sp := st.Space(historyID, historyDEK)
			g := fill(t, sp, 200)
			before := dump(t, st, sp.Tag())
			want := c.want(sp, before, g)
			f.BreakAfter(n/2, syscall.EIO)
			err := c.drop(st, sp, g)
			f.Heal()
			if err == nil {
				equal(t, "rows", dump(t, st, sp.Tag()), want)
				_ = st.Close() // tells of a compaction that failed
				continue
			}
			if !errors.Is(err, ErrIO) {
				t.Fatalf("%s, op %d: %v", c.name, n, err)
			}
			if rows := dump(t, st, sp.Tag()); c.small && !maps.Equal(rows, before) {
				t.Fatalf("%s, op %d: %d of %d rows are left", c.name, n, len(rows), len(before))
			}
			if err := st.Reopen(); err != nil {
				t.Fatal(err)
			}
			if rows := dump(t, st, sp.Tag()); c.small && !maps.Equal(rows, before) {
				t.Fatalf("%s, op %d: %d of %d rows are left after Reopen", c.name, n, len(rows), len(before))
			}
			if err := c.drop(st, sp, g); err != nil {
				t.Fatal(err)
			}
			equal(t, "rows", dump(t, st, sp.Tag()), want)
			closeStore(t, st)
		}
	}
}

// Whatever a row decodes to is written as that row again.
func FuzzDecodeRow(f *testing.F) {
	g := newTraffic(f, 1, 1)
	b := &Batch{}
	g.run(b, g.chains[0], 2)
	g.stmts[g.authors[0].did] = testStatement()
	g.write(b, g.authors[0], 0, 2, "v")
	seeds := [][]byte{
		b.Topic.append(nil, []tail{{chain: b.Run.Chain.ID, from: 1}}),
		appendHead(nil, b.Topic.ID, &b.Run.Chain),
		(&AppliedRow{State: []byte("x")}).append(nil),
		b.Records[0].append(nil),
		b.Repos[0].append(nil),
		(&tip{base: 1, ops: 300, stmt: stmtMark{some: true}}).append(nil),
		appendStatement(nil, testStatement()),
		b.Ops[0].append(nil),
		append(appendText(nil, "name"), "value"...),
	}
	for i, s := range seeds {
		f.Add(byte(i), s)
		f.Add(byte(i), s[:len(s)-1])
		f.Add(byte(i), append(bytes.Clone(s), 0xff))
	}
	f.Fuzz(func(t *testing.T, kind byte, row []byte) {
		again, err := recode(kind, row)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		twice, err := recode(kind, again)
		if err != nil || !bytes.Equal(again, twice) {
			t.Fatalf("%x reads back as %x, %v", again, twice, err)
		}
		if len(again) > len(row) {
			t.Fatalf("%d bytes became %d", len(row), len(again))
		}
	})
}

// recode decodes a row and writes it again.
func recode(kind byte, row []byte) ([]byte, error) {
	switch kind % 9 {
	case 0:
		t, tails, err := decodeTopic(row)
		return t.append(nil, tails), err
	case 1:
		topic, c, err := decodeHead(row)
		return appendHead(nil, topic, &c), err
	case 2:
		a, err := decodeApplied([32]byte{}, row)
		return a.append(nil), err
	case 3:
		r, err := decodeRecord(testAuthor, row)
		return r.append(nil), err
	case 4:
		r, m, err := decodeRepo(row)
		b := r.append(nil)
		return m.append(b[:len(b)-1]), err
	case 5:
		t, err := decodeTip(row)
		return t.append(nil), err
	case 6:
		s, err := decodeStatement(row)
		return appendStatement(nil, s), err
	case 7:
		p, err := decodeOps(testAuthor, 0, row)
		return p.append(nil), err
	}
	kv, err := decodeKV(row)
	return append(appendText(nil, kv.Key), kv.Value...), err
}
