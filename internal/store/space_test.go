package store

import (
	"bytes"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// collect fails on the first error.
func collect[T any](t testing.TB, seq iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestEveryRowReadsBack(t *testing.T) {
	s := openMemory(t).Space([32]byte{1}, [32]byte{2})
	c := newChain(t, 1, 2)
	run := c.next(300)
	topic := TopicRow{ID: c.topic}
	fold(&topic, run.Envs)
	a := newAuthor(t, testAuthor)
	b := &Batch{
		Run: run, Topic: &topic,
		Applied: []AppliedRow{{Topic: c.topic, Chain: c.chain.ID, Seq: 299, State: []byte("state")}},
		Control: []ControlRow{{0, []byte("genesis")}, {1, []byte("epoch")}},
		Outbox:  []OutboxRow{{5, []byte("five")}, {6, []byte("six")}, {300, []byte("later")}},
		Meta:    map[string][]byte{"a": []byte("1"), "empty": {}, "": []byte("no name")},
	}
	a.write(b, 0, 3, "v")
	b.Repos[0].Stmt = testStatement()
	commit(t, s, Own, b)
	commit(t, s, Own, &Batch{OutboxDone: []uint64{6}, Meta: map[string][]byte{"a": nil}})

	equal(t, "topics", collect(t, s.Topics()), []TopicRow{topic})
	got, ok, err := s.TopicState(c.topic)
	equal(t, "topic", []any{got, ok, err}, []any{topic, true, nil})
	equal(t, "chains", collect(t, s.Chains(c.topic)), []envelope.Chain{c.chain})
	applied, ok, err := s.Applied(c.topic, c.chain.ID)
	equal(t, "applied", []any{applied, ok, err}, []any{b.Applied[0], true, nil})
	equal(t, "all applied", collect(t, s.AllApplied(c.topic)), b.Applied)
	equal(t, "control", collect(t, s.Control()), b.Control)
	equal(t, "outbox", collect(t, s.Outbox()), []OutboxRow{b.Outbox[0], b.Outbox[2]})
	equal(t, "repos", collect(t, s.Repos()), b.Repos)
	repo, ok, err := s.Repo(testAuthor)
	equal(t, "repo", []any{repo, ok, err}, []any{b.Repos[0], true, nil})
	equal(t, "ops", collect(t, s.Ops(testAuthor, 0)), b.Ops)
	records := collect(t, s.Records(testAuthor))
	slices.SortFunc(records, func(a, b RecordRow) int { return a.Path.Compare(b.Path) })
	equal(t, "records", records, b.Records)
	for _, parts := range []int{2, 7, 16, 256} {
		var inParts []RecordRow
		for p := range parts {
			inParts = append(inParts, collect(t, s.RecordsPart(testAuthor, p, parts))...)
		}
		slices.SortFunc(inParts, func(a, b RecordRow) int { return a.Path.Compare(b.Path) })
		equal(t, "records in parts", inParts, b.Records)
	}
	record, ok, err := s.Record(testAuthor, testPath(1))
	equal(t, "record", []any{record, ok, err}, []any{b.Records[1], true, nil})
	for name, want := range map[string][]byte{"empty": {}, "": []byte("no name")} {
		v, ok, err := s.Meta(name)
		if !ok || err != nil || !bytes.Equal(v, want) {
			t.Fatalf("meta %q: %q %v %v", name, v, ok, err)
		}
	}
	_, ok, err = s.Meta("a")
	equal(t, "deleted meta", []any{ok, err}, []any{false, nil})
}

func TestNothingThere(t *testing.T) {
	s := openMemory(t).Space([32]byte{1}, [32]byte{2})
	c := newChain(t, 1, 2)
	if n := len(collect(t, s.Topics())) + len(collect(t, s.Chains(c.topic))) + len(collect(t, s.Repos())) +
		len(collect(t, s.Records(testAuthor))) + len(collect(t, s.Ops(testAuthor, 7))) + len(collect(t, s.Control())) +
		len(collect(t, s.Outbox())) + len(collect(t, s.AllApplied(c.topic))); n != 0 {
		t.Errorf("%d rows in an empty space", n)
	}
	_, topic, err1 := s.TopicState(c.topic)
	_, applied, err2 := s.Applied(c.topic, c.chain.ID)
	_, repo, err3 := s.Repo(testAuthor)
	_, record, err4 := s.Record(testAuthor, testPath(0))
	_, meta, err5 := s.Meta("x")
	_, id, err6 := s.IDAt(c.topic, c.chain.ID, 0)
	equal(t, "found", []bool{topic, applied, repo, record, meta, id}, make([]bool, 6))
	equal(t, "errors", []error{err1, err2, err3, err4, err5, err6}, make([]error, 6))
	run, err := s.Run(c.topic, c.chain.ID, 0, 9, 1<<20)
	equal(t, "run", []any{len(run), err}, []any{0, nil})
	commit(t, s, Own, &Batch{})
	audit, err := s.Audit(t.Context(), true)
	equal(t, "audit", []any{audit.OK(), err}, []any{true, nil})
}

// Two spaces, and the same space under another key, see nothing of each other.
func TestSpacesAreApart(t *testing.T) {
	st := openMemory(t)
	a := st.Space([32]byte{1}, [32]byte{2})
	commit(t, a, Own, &Batch{Meta: map[string][]byte{"x": []byte("a")}, Control: []ControlRow{{0, []byte("a")}}})
	for _, other := range []*Space{st.Space([32]byte{2}, [32]byte{2}), st.Space([32]byte{1}, [32]byte{3})} {
		if _, ok, err := other.Meta("x"); ok || err != nil {
			t.Error("another space sees a row", err)
		}
		if len(collect(t, other.Control())) > 0 {
			t.Error("another space lists a row")
		}
		if err := other.Drop(); err != nil {
			t.Fatal(err)
		}
	}
	if len(collect(t, a.Control())) != 1 {
		t.Error("another space's Drop took a row")
	}
}

func TestRunIsChecked(t *testing.T) {
	s := openMemory(t).Space([32]byte{1}, [32]byte{2})
	for name, spoil := range map[string]func(r *RunRow){
		"other head":        func(r *RunRow) { r.Chain.Head.ID[0]++ },
		"other length":      func(r *RunRow) { r.Chain.Length++ },
		"other chain":       func(r *RunRow) { r.Chain.ID[0]++ },
		"hole":              func(r *RunRow) { r.Envs = slices.Delete(r.Envs, 1, 2) },
		"short certificate": func(r *RunRow) { r.Cert = r.Cert[1:] },
	} {
		r := newChain(t, 1, 2).next(4)
		spoil(r)
		if err := s.Commit(Own, &Batch{Run: r}); err == nil {
			t.Errorf("%s: committed", name)
		}
	}
}

// Rows written in many ways read back as from plain maps.
func TestNaive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := storetest.NewDisk()
		st := openFaulty(t, f)
		naive := newNaive(t)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			if rapid.IntRange(0, 5).Draw(rt, "reopen") == 0 {
				closeStore(t, st)
				st = openFaulty(t, f)
			}
			naive.step(rt, st.Space([32]byte{1}, [32]byte{2}))
		}
		naive.compare(rt, st.Space([32]byte{1}, [32]byte{2}))
		closeStore(t, st)
	})
}

// naive is a space in maps.
type naive struct {
	t       testing.TB
	chains  []*chainMaker
	envs    map[envelope.ChainID][]envelope.Envelope
	topic   TopicRow
	author  *author
	records map[space.Path]RecordRow
	ops     []OpRow
	outbox  map[uint64][]byte
	next    uint64
}

func newNaive(t testing.TB) *naive {
	n := &naive{
		t: t, envs: map[envelope.ChainID][]envelope.Envelope{}, author: newAuthor(t, testAuthor),
		records: map[space.Path]RecordRow{}, outbox: map[uint64][]byte{},
	}
	for i := range byte(3) {
		n.chains = append(n.chains, newChain(t, 1, 10+i))
	}
	n.topic.ID = n.chains[0].topic
	return n
}

func (n *naive) step(rt *rapid.T, s *Space) {
	b := &Batch{}
	if rapid.Bool().Draw(rt, "run") {
		c := rapid.SampledFrom(n.chains).Draw(rt, "chain")
		// Segments end after 256 envelopes, or before 1 MiB.
		shape := rapid.SampledFrom([][2]int{{0, 1}, {1000, 2}, {0, 40}, {0, 257}, {30_000, 40}}).Draw(rt, "run of")
		c.size = envelope.PaddedSize(shape[0])
		b.Run = c.next(shape[1])
		n.envs[c.chain.ID] = append(n.envs[c.chain.ID], b.Run.Envs...)
		fold(&n.topic, b.Run.Envs)
		b.Topic = &n.topic
	}
	if rapid.Bool().Draw(rt, "write") {
		value := rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "value")
		n.author.write(b, rapid.IntRange(0, 6).Draw(rt, "first"), rapid.IntRange(1, 5).Draw(rt, "records"), value)
		for _, r := range b.Records {
			n.records[r.Path] = r
		}
		n.ops = append(n.ops, b.Ops[0].Rows...)
	}
	for range rapid.IntRange(0, 3).Draw(rt, "frames") {
		frame := fmt.Appendf(nil, "frame %d", n.next)
		b.Outbox = append(b.Outbox, OutboxRow{n.next, frame})
		n.outbox[n.next] = frame
		n.next++
	}
	if done := rapid.Uint64Range(0, 9).Draw(rt, "done"); n.outbox[done] != nil && done < n.next-uint64(len(b.Outbox)) {
		b.OutboxDone = []uint64{done}
		delete(n.outbox, done)
	}
	commit(n.t, s, rapid.SampledFrom([]Class{Own, Remote, Derived}).Draw(rt, "class"), b)
}

func (n *naive) compare(rt *rapid.T, s *Space) {
	for _, c := range n.chains {
		envs := n.envs[c.chain.ID]
		for range 5 {
			from, to := rapid.Uint64Range(0, 300).Draw(rt, "from"), rapid.Uint64Range(0, 600).Draw(rt, "to")
			limit := rapid.SampledFrom([]int{0, 2000, 100_000, 1 << 30}).Draw(rt, "limit")
			run, err := s.Run(c.topic, c.chain.ID, from, to, limit)
			equal(n.t, "run", []any{run, err}, []any{naiveRun(envs, from, to, limit), nil})
			n.follow(rt, s, c, from, to)
			id, ok, err := s.IDAt(c.topic, c.chain.ID, from)
			var want envelope.ID
			if from < uint64(len(envs)) {
				want = envs[from].ID()
			}
			equal(n.t, "id", []any{id, ok, err}, []any{want, from < uint64(len(envs)), nil})
		}
	}
	for path, want := range n.records {
		got, ok, err := s.Record(testAuthor, path)
		equal(n.t, "record", []any{got, ok, err}, []any{want, true, nil})
	}
	equal(n.t, "records", len(collect(n.t, s.Records(testAuthor))), len(n.records))
	from := rapid.Uint64Range(0, 30).Draw(rt, "from op")
	var ops []OpRow
	for _, p := range collect(n.t, s.Ops(testAuthor, from)) {
		for i, o := range p.Rows {
			if p.First+uint64(i) >= from {
				ops = append(ops, o)
			}
		}
	}
	equal(n.t, "ops", len(ops), max(0, len(n.ops)-int(from)))
	if len(ops) > 0 {
		equal(n.t, "ops", ops, n.ops[from:])
	}
	for _, o := range collect(n.t, s.Outbox()) {
		equal(n.t, "frame", o.Frame, n.outbox[o.Seq])
		delete(n.outbox, o.Seq)
	}
	equal(n.t, "frames missing", len(n.outbox), 0)
	audit, err := s.Audit(n.t.Context(), true)
	equal(n.t, "audit", []any{audit, err}, []any{&Audit{}, nil})
}

// follow reads on with one cursor: whatever is asked of it, it gives the beginning
// of what is here, and something of it.
func (n *naive) follow(rt *rapid.T, s *Space, c *chainMaker, from, to uint64) {
	envs := n.envs[c.chain.ID]
	cur := s.Cursor(c.topic)
	defer cur.Close()
	for from <= to {
		limit := rapid.SampledFrom([]int{0, 2000, 100_000}).Draw(rt, "limit of the cursor")
		end := from + rapid.SampledFrom([]uint64{0, 1, 100, to - from}).Draw(rt, "asked for")
		want := naiveRun(envs, from, end, limit)
		run, err := cur.Run(c.chain.ID, from, end, limit)
		if err != nil || len(run) > len(want) || len(run) == 0 && len(want) > 0 {
			n.t.Fatalf("%d of %d envelopes from %d: %v", len(run), len(want), from, err)
		}
		equal(n.t, "run of a cursor", run, want[:len(run):len(run)])
		if len(run) == 0 {
			return
		}
		from += uint64(len(run)) + rapid.SampledFrom([]uint64{0, 0, 0, 0, 1, 70}).Draw(rt, "passed over")
	}
}

func naiveRun(envs []envelope.Envelope, from, to uint64, limit int) (run []envelope.Envelope) {
	size := 0
	for i, e := range envs {
		if uint64(i) < from || uint64(i) > to {
			continue
		}
		if size += e.Len(); size > limit && len(run) > 0 {
			return run
		}
		run = append(run, e)
	}
	return run
}

func TestDrop(t *testing.T) {
	st := openMemory(t)
	s, other := st.Space([32]byte{1}, [32]byte{2}), st.Space([32]byte{3}, [32]byte{4})
	a := newAuthor(t, testAuthor)
	c := newChain(t, 1, 2)
	for range 25 {
		b := &Batch{Run: c.next(2)}
		a.write(b, int(a.ops), 100, "v")
		commit(t, s, Derived, b)
	}
	commit(t, other, Own, &Batch{Control: []ControlRow{{0, []byte("x")}}})
	if err := s.DropContent(); err != nil {
		t.Fatal(err)
	}
	if len(collect(t, s.Records(testAuthor)))+len(collect(t, s.Repos()))+len(collect(t, s.Ops(testAuthor, 0))) > 0 {
		t.Error("content is still there")
	}
	if len(collect(t, s.Chains(c.topic))) != 1 {
		t.Error("chains are gone with the content")
	}
	if err := s.Drop(); err != nil {
		t.Fatal(err)
	}
	r := must[*reader](t)(st.reader())
	defer r.release()
	for range r.keys(prefix(s.vault.tag[:])) {
		t.Fatal("a row is still there")
	}
	if len(collect(t, other.Control())) != 1 {
		t.Error("the other space is gone too")
	}
}

// A reader sees one state, whatever is written while it reads.
func TestSnapshot(t *testing.T) {
	s := openMemory(t).Space([32]byte{1}, [32]byte{2})
	write := func(n string) {
		b := &Batch{}
		for i := range uint64(50) {
			b.Control = append(b.Control, ControlRow{i, []byte(n)})
		}
		commit(t, s, Derived, b)
	}
	write("before")
	n := 0
	for row, err := range s.Control() {
		if err != nil || string(row.Raw) != "before" {
			t.Fatalf("%q %v", row.Raw, err)
		}
		write("after")
		n++
	}
	equal(t, "rows", n, 50)
	equal(t, "now", string(collect(t, s.Control())[49].Raw), "after")
}

func TestSettings(t *testing.T) {
	s := openMemory(t)
	for _, k := range []string{"b", "a", ""} {
		if err := s.Put("peers", []byte(k), []byte("of "+k), Own); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put("peersa", []byte(""), []byte("other table"), Remote); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("peers", []byte("b"), Own); err != nil {
		t.Fatal(err)
	}
	v, ok, err := s.Read("peers", []byte("a"))
	equal(t, "read", []any{string(v), ok, err}, []any{"of a", true, nil})
	_, ok, err = s.Read("peers", []byte("b"))
	equal(t, "deleted", []any{ok, err}, []any{false, nil})
	var got []string
	for _, kv := range collect(t, s.List("peers")) {
		got = append(got, string(kv.Key)+"="+string(kv.Value))
	}
	equal(t, "list", got, []string{"=of ", "a=of a"})
}
