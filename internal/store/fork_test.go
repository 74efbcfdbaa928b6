package store

import (
	"fmt"
	"slices"
	"testing"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space/envelope"
)

// line is a chain and its topic as they are in a store.
type line struct {
	c     *chainMaker
	topic TopicRow
	envs  []envelope.Envelope
}

func newLine(t testing.TB) *line {
	c := newChain(t, 3, 4)
	return &line{c: c, topic: TopicRow{ID: c.topic}}
}

// grow commits n more envelopes, page by page.
func (l *line) grow(t testing.TB, sp *Space, pages ...int) {
	t.Helper()
	for _, n := range pages {
		r := l.c.next(n)
		l.envs = append(l.envs, r.Envs...)
		fold(&l.topic, r.Envs)
		row := l.topic
		commit(t, sp, Own, &Batch{Run: r, Topic: &row})
	}
}

// fork is the batch that cuts the chain at n and marks it there.
func (l *line) fork(t testing.TB, n int) *Batch {
	t.Helper()
	other := *l.c
	other.size = 2 * envelope.MinPadded
	other.chain.Length, other.chain.Head = uint64(n), envelope.Head{}
	if n > 0 {
		other.chain.Head = l.envs[n-1].Head()
	}
	p := envelope.Fork{Cert: l.c.cert, A: l.envs[n : n+1], B: other.next(1).Envs}
	raw, err := p.AppendBinary(nil)
	if err != nil {
		p.A, p.B = p.B, p.A
		raw = must[[]byte](t)(p.AppendBinary(nil))
	}
	b := l.cut(n)
	b.Cut.Chain.Forked, b.Cut.Chain.Fork, b.Cut.Proof = true, uint64(n), raw
	return b
}

// cut is the batch that cuts the chain at n.
func (l *line) cut(n int) *Batch {
	chain := l.c.chain
	chain.Length, chain.Head = uint64(n), envelope.Head{}
	if n > 0 {
		chain.Head = l.envs[n-1].Head()
	}
	topic := TopicRow{ID: l.topic.ID}
	fold(&topic, l.envs[:n])
	return &Batch{Cut: &CutRow{Topic: l.c.topic, Chain: chain}, Topic: &topic}
}

// stands fails unless the store holds the first n envelopes and nothing else.
func (l *line) stands(t testing.TB, sp *Space, n int, want *Batch) {
	t.Helper()
	run := must[[]envelope.Envelope](t)(sp.Run(l.c.topic, l.c.chain.ID, 0, 1<<40, 1<<40))
	equal(t, "envelopes", slices.EqualFunc(run, l.envs[:n], func(a, b envelope.Envelope) bool { return a.ID() == b.ID() }), true)
	for _, i := range []int{0, n - 1, n, len(l.envs) - 1} {
		if i < 0 {
			continue
		}
		id, ok, err := sp.IDAt(l.c.topic, l.c.chain.ID, uint64(i))
		if err != nil || ok != (i < n) || ok && id != l.envs[i].ID() {
			t.Fatalf("id at %d of %d: %v, %v", i, n, ok, err)
		}
	}
	chains := collect(t, sp.Chains(l.c.topic))
	equal(t, "chains", chains, []envelope.Chain{want.Cut.Chain})
	row, ok, err := sp.TopicState(l.c.topic)
	if err != nil || !ok || row.Count != uint64(n) || !row.State.Equal(&want.Topic.State) {
		t.Fatalf("topic of %d: %v, %v", row.Count, ok, err)
	}
	proof, ok, err := sp.Fork(l.c.topic, l.c.chain.ID)
	if err != nil || ok != want.Cut.Chain.Forked || string(proof) != string(want.Cut.Proof) {
		t.Fatalf("proof: %v, %v", ok, err)
	}
	if found := must[*Audit](t)(sp.Audit(t.Context(), true)); !found.OK() {
		t.Fatalf("audit: %+v", found)
	}
}

func TestCutChain(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 4, 299, 300, 301, 555, 556, 600, 604} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
			l := newLine(t)
			l.grow(t, sp, 1, 2, 297, 300, 5)
			b := l.fork(t, n)
			commit(t, sp, Own, b)
			l.stands(t, sp, n, b)
			if n < 4 { // a fork below that one
				return
			}
			lower := l.fork(t, n-3)
			commit(t, sp, Own, lower)
			l.stands(t, sp, n-3, lower)
			unmarked := l.cut(n - 3)
			commit(t, sp, Own, unmarked)
			l.stands(t, sp, n-3, unmarked)
			l.c.chain, l.topic, l.envs = unmarked.Cut.Chain, *unmarked.Topic, l.envs[:n-3]
			l.grow(t, sp, 1, 300)
			l.stands(t, sp, n+298, l.cut(n+298))
		})
	}
}

// A mark can come before anything of its chain.
func TestForkBeforeChain(t *testing.T) {
	sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
	l := newLine(t)
	l.grow(t, openMemory(t).Space([32]byte{1}, [32]byte{2}), 9)
	b := l.fork(t, 5)
	b.Cut.Chain.Length, b.Cut.Chain.Head, b.Topic = 0, envelope.Head{}, &TopicRow{ID: l.c.topic}
	commit(t, sp, Own, b)
	l.stands(t, sp, 0, b)
	run := &RunRow{Cert: l.c.cert.Bytes(), Chain: l.fork(t, 5).Cut.Chain, Envs: l.envs[:5]}
	after := l.fork(t, 5)
	commit(t, sp, Remote, &Batch{Run: run, Topic: after.Topic})
	l.stands(t, sp, 5, after)
}

func TestCutRefuses(t *testing.T) {
	sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
	l := newLine(t)
	l.grow(t, sp, 9)
	for name, bad := range map[string]func(*Batch){
		"no topic":   func(b *Batch) { b.Topic = nil },
		"no proof":   func(b *Batch) { b.Cut.Proof = nil },
		"no mark":    func(b *Batch) { b.Cut.Chain.Forked = false },
		"length":     func(b *Batch) { b.Cut.Chain.Length++ },
		"empty head": func(b *Batch) { b.Cut.Chain.Length = 0 },
		"beyond":     func(b *Batch) { b.Cut.Chain.Length, b.Cut.Chain.Head.Seq = 90, 89 },
		"with a run": func(b *Batch) { b.Run = &RunRow{Chain: l.c.chain} },
	} {
		b := l.fork(t, 5)
		bad(b)
		if err := sp.Commit(Own, b); err == nil {
			t.Errorf("%s: committed", name)
		}
		l.stands(t, sp, 9, l.cut(9))
	}
}

// An audit tells of a mark without its proof, and of a proof without its mark.
func TestAuditForks(t *testing.T) {
	for name, spoil := range map[string]func(*Space, *line) []byte{
		"no proof": func(sp *Space, l *line) []byte {
			return sp.key(func(b *blinder) []byte { return b.chain(tableFork, l.c.topic, l.c.chain.ID) })
		},
		"no mark": func(sp *Space, l *line) []byte {
			return sp.key(func(b *blinder) []byte { return b.chain(tableHead, l.c.topic, l.c.chain.ID) })
		},
	} {
		st := openMemory(t)
		sp := st.Space([32]byte{1}, [32]byte{2})
		l := newLine(t)
		l.grow(t, sp, 9)
		commit(t, sp, Own, l.fork(t, 5))
		b := new(batch)
		b.Delete(spoil(sp, l))
		if err := st.write(Own, b); err != nil {
			t.Fatal(err)
		}
		if found := must[*Audit](t)(sp.Audit(t.Context(), false)); found.OK() || found.Forks != 1 {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// What is longer than one batch takes goes in steps, and all of it.
func TestCutLongChain(t *testing.T) {
	sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
	l := newLine(t)
	l.c.size = envelope.MaxPadded
	for range 40 {
		l.grow(t, sp, 3, 13)
	}
	b := l.fork(t, 5)
	commit(t, sp, Own, b)
	l.stands(t, sp, 5, b)
}

// Wherever the power is cut while a chain is: it is whole, or cut with its
// topic and its proof.
func TestCrashWhileCutting(t *testing.T) {
	f := storetest.NewDisk()
	power := cutsOf(f)
	st := openFaulty(t, f)
	sp := st.Space(historyID, historyDEK)
	l := newLine(t)
	l.grow(t, sp, 1, 40, 300, 2)
	whole, cut := l.cut(343), l.fork(t, 38)
	cuts := power.during(func() { commit(t, sp, Own, cut) })
	closeStore(t, st)
	for i, disk := range cuts {
		st := openFaulty(t, disk)
		sp := st.Space(historyID, historyDEK)
		_, done, err := sp.Fork(l.c.topic, l.c.chain.ID)
		if err != nil || i == len(cuts)-1 && !done {
			t.Fatalf("cut %d of %d: %v, %v", i, len(cuts), done, err)
		}
		if done {
			l.stands(t, sp, 38, cut)
		} else {
			l.stands(t, sp, 343, whole)
		}
		closeStore(t, st)
	}
}

// A mark of the time when it was not known where a chain forked is none.
func TestHeadOfOld(t *testing.T) {
	l := newLine(t)
	l.c.next(9)
	row := appendHead(nil, l.c.topic, &l.c.chain)
	row[len(row)-1] = 1
	_, c, err := decodeHead(row)
	if err != nil || c.Forked || c.Length != 9 {
		t.Fatalf("%+v, %v", c, err)
	}
}
