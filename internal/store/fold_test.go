package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// states is what the topics and repos of a space must read as.
type states struct {
	topics map[envelope.TopicID]TopicRow
	repos  map[space.DID]RepoRow
}

func (s *states) clone() *states { return &states{maps.Clone(s.topics), maps.Clone(s.repos)} }

// same fails unless the space reads as s, by each way of reading.
func (s *states) same(t testing.TB, sp *Space) {
	t.Helper()
	for _, row := range collect(t, sp.Topics()) {
		equal(t, "listed topic", row, s.topics[row.ID])
	}
	for id, want := range s.topics {
		got, ok, err := sp.TopicState(id)
		equal(t, "topic", []any{got, ok, err}, []any{want, true, nil})
	}
	repos := collect(t, sp.Repos())
	equal(t, "repos", len(repos), len(s.repos))
	for _, row := range repos {
		equal(t, "listed repo", row, s.repos[row.Author])
		got, ok, err := sp.Repo(row.Author)
		equal(t, "repo", []any{got, ok, err}, []any{row, true, nil})
	}
}

// traffic is what nodes commit: runs of many chains, batches of some authors.
type traffic struct {
	t       testing.TB
	chains  []*chainMaker
	authors []*author
	stmts   map[space.DID]*space.Statement
	states
}

func newTraffic(t testing.TB, chains, authors int) *traffic {
	g := &traffic{t: t, stmts: map[space.DID]*space.Statement{}}
	g.topics, g.repos = map[envelope.TopicID]TopicRow{}, map[space.DID]RepoRow{}
	for i := range chains {
		g.chains = append(g.chains, newChain(t, byte(1+i%2), byte(10+i)))
	}
	for i := range authors {
		g.authors = append(g.authors, newAuthor(t, testAuthor+space.DID(fmt.Sprint(i))))
	}
	return g
}

// run adds n envelopes of a chain to b.
func (g *traffic) run(b *Batch, c *chainMaker, n int) {
	b.Run = c.next(n)
	topic := g.topics[c.topic]
	topic.ID = c.topic
	fold(&topic, b.Run.Envs)
	b.Topic = &topic
	g.topics[c.topic] = topic
}

// write adds n ops of an author to b.
func (g *traffic) write(b *Batch, a *author, first, n int, value string) {
	a.write(b, first, n, value)
	row := &b.Repos[len(b.Repos)-1]
	row.Stmt = g.stmts[a.did]
	g.repos[a.did] = *row
}

// undo takes back a batch that was not committed.
type undo struct {
	chains  []envelope.Chain
	authors []author
	states  *states
}

func (g *traffic) mark() undo {
	u := undo{states: g.states.clone()}
	for _, c := range g.chains {
		u.chains = append(u.chains, c.chain)
	}
	for _, a := range g.authors {
		u.authors = append(u.authors, author{a.t, a.did, a.repo.Clone(), a.ops})
	}
	return u
}

func (g *traffic) back(u undo) {
	g.states = *u.states
	for i := range u.chains {
		g.chains[i].chain = u.chains[i]
	}
	for i := range u.authors {
		*g.authors[i] = u.authors[i]
	}
}

// States read back as they were committed, however commits mix, fail, and are
// interrupted by what changes rows in other ways.
func TestStatesReadBack(t *testing.T) {
	most := 60
	if testing.Short() { // the race detector: it also sees goleveldb close a channel that its compaction answers on
		most = 12
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := storetest.NewDisk()
		st := openFaulty(t, f)
		handles := func() []*Space {
			return []*Space{st.Space([32]byte{1}, [32]byte{2}), st.Space([32]byte{1}, [32]byte{2})}
		}
		sp := handles()
		g := newTraffic(t, rapid.SampledFrom([]int{1, 3, 2*tailsMost + 5}).Draw(rt, "chains"), 3)
		for range rapid.IntRange(1, most).Draw(rt, "steps") {
			s := rapid.SampledFrom(sp).Draw(rt, "handle")
			switch rapid.IntRange(0, 30).Draw(rt, "event") {
			case 0:
				closeStore(t, st)
				st = openFaulty(t, f)
				sp = handles()
			case 1:
				g.fails(rt, f, s)
			case 2:
				if err := s.DropContent(); err != nil {
					t.Fatal(err)
				}
				g.repos = map[space.DID]RepoRow{}
				for _, a := range g.authors {
					*a = *newAuthor(t, a.did)
				}
			case 5:
				if err := s.Drop(); err != nil {
					t.Fatal(err)
				}
				g = newTraffic(t, len(g.chains), len(g.authors))
			case 3:
				found, err := s.Repair(t.Context())
				equal(t, "repair", []any{found, err}, []any{&Audit{}, nil})
			case 4:
				g.same(t, s)
			default:
				commit(t, s, rapid.SampledFrom([]Class{Own, Remote, Derived}).Draw(rt, "class"), g.draw(rt))
			}
		}
		g.same(t, sp[0])
		found, err := sp[0].Audit(t.Context(), true)
		equal(t, "audit", []any{found, err}, []any{&Audit{}, nil})
		closeStore(t, st)
	})
}

func (g *traffic) draw(rt *rapid.T) *Batch {
	b := &Batch{}
	if rapid.IntRange(0, 5).Draw(rt, "run") > 0 {
		c := rapid.SampledFrom(g.chains).Draw(rt, "chain")
		g.run(b, c, rapid.SampledFrom([]int{1, 1, 1, 2, foldMost, foldMost + 1}).Draw(rt, "run of"))
	}
	for _, a := range g.authors {
		if rapid.Bool().Draw(rt, "idle") {
			continue
		}
		switch rapid.IntRange(0, 9).Draw(rt, "statement") {
		case 0:
			s := testStatement()
			s.Sig[0] = byte(rapid.IntRange(0, 9).Draw(rt, "signature"))
			g.stmts[a.did] = s
		case 1:
			g.stmts[a.did] = nil
		}
		value := rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "value")
		n := rapid.SampledFrom([]int{0, 1, 1, 2, 7, foldMost + 1}).Draw(rt, "ops")
		g.write(b, a, rapid.IntRange(0, 6).Draw(rt, "first"), n, value)
	}
	return b
}

// fails commits to a disk that is full, and then to one that is not.
func (g *traffic) fails(rt *rapid.T, f *storetest.Disk, s *Space) {
	before := g.mark()
	f.Torn = rapid.Bool().Draw(rt, "torn")
	f.BreakAfter(0, syscall.ENOSPC)
	b := g.draw(rt)
	err := s.Commit(Own, b)
	if len(b.Repos) == 0 && b.Run == nil {
		err = s.Commit(Own, &Batch{Meta: map[string][]byte{"x": {1}}})
	}
	if !errors.Is(err, ErrFull) {
		g.t.Fatal(err)
	}
	g.back(before)
	g.same(g.t, s)
	f.Heal()
	if err := s.store.Reopen(); err != nil {
		g.t.Fatal(err)
	}
}

// After a power cut the states are those of the last commit that survived.
func TestStatesAfterPowerCuts(t *testing.T) {
	f := storetest.NewDisk()
	rng, cutting := rand.New(rand.NewPCG(3, 1)), rand.New(rand.NewPCG(3, 2))
	var mu sync.Mutex // guards cutting and cuts: the engine works beside us
	var cuts []*storetest.Disk
	f.OnOp = func() {
		mu.Lock()
		defer mu.Unlock()
		if cutting.IntN(8) == 0 {
			cuts = append(cuts, f.Clone(func(n int) int { return cutting.IntN(n + 1) }))
		}
	}
	st := openFaulty(t, f)
	sp := st.Space(historyID, historyDEK)
	g := newTraffic(t, 3, 2)
	after := []*states{g.states.clone()}
	for i := range 200 {
		b := &Batch{Meta: map[string][]byte{"n": []byte(strconv.Itoa(i + 1))}}
		g.run(b, g.chains[rng.IntN(3)], 1+rng.IntN(3))
		g.write(b, g.authors[rng.IntN(2)], rng.IntN(20), 1+rng.IntN(3), fmt.Sprint("v", i%5))
		after = append(after, g.states.clone())
		commit(t, sp, Own, b)
	}
	closeStore(t, st)
	if len(cuts) < 20 {
		t.Fatalf("only %d cuts", len(cuts))
	}
	for _, disk := range cuts {
		s := openFaulty(t, disk)
		sp := s.Space(historyID, historyDEK)
		v, _, err := sp.Meta("n")
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(string(v))
		after[n].same(t, sp)
		found, err := sp.Audit(t.Context(), true)
		equal(t, "audit", []any{found, err}, []any{&Audit{}, nil})
		closeStore(t, s)
	}
}

// Whatever row is lost or as it was before: the states read as they were or
// not at all, and an audit finds it.
func TestStatesOfLostRows(t *testing.T) {
	for _, name := range []string{"topic", "head", "ids", "early ids", "last ids", "repo", "tip", "statement", "ops", "early ops", "last ops"} {
		for _, whole := range []int{5, lostRows - 2} {
			for _, lost := range []bool{true, false} {
				t.Run(fmt.Sprint(name, whole, lost), func(t *testing.T) { lostRow(t, name, whole, lost) })
			}
		}
	}
}

// lostRows is how many commits lostRow makes.
const lostRows = 20

// lostRow makes commits, of which number whole writes its rows whole, and then
// deletes a row, or puts the first there was in its place.
func lostRow(t *testing.T, name string, whole int, lost bool) {
	st := openMemory(t)
	sp := st.Space([32]byte{1}, [32]byte{2})
	g := newTraffic(t, 1, 1)
	c, a := g.chains[0], g.authors[0]
	key := sp.key(func(b *blinder) []byte { return rowOf(b, name, c, a.did) })
	var old []byte
	for i := range lostRows {
		if i == whole {
			sp.recent.forgetAll()
		}
		g.stmts[a.did] = testStatement()
		g.stmts[a.did].Sig[0] = byte(i)
		b := &Batch{}
		g.run(b, c, 1)
		g.write(b, a, 0, 1, fmt.Sprint("v", i))
		commit(t, sp, Own, b)
		if v, err := st.engine.db.Get(key, nil); err == nil && old == nil {
			old = v
		}
	}
	g.same(t, sp)
	if lost {
		deleteRow(t, st, sp, func(*blinder) []byte { return key })
	} else if err := st.engine.db.Put(key, old, nil); err != nil {
		t.Fatal(err)
	}
	g.neverOther(t, sp)
	changed := lost || !strings.HasSuffix(name, "ids") && !strings.HasSuffix(name, "ops")
	if name == "topic" && !lost {
		changed = false // an earlier row of a topic only lacks more
	}
	for _, full := range []bool{false, true} {
		found, err := sp.Audit(t.Context(), full)
		if err != nil || found.OK() == changed {
			t.Errorf("audit %v: %+v, %v", full, found, err)
		}
	}
	repaired(t, name, sp, lostRows)
}

func rowOf(b *blinder, name string, c *chainMaker, did space.DID) []byte {
	switch name {
	case "topic":
		return b.topic(c.topic)
	case "head":
		return b.chain(tableHead, c.topic, c.chain.ID)
	case "ids", "early ids", "last ids":
		b.run(tableIDs, c.topic, c.chain.ID)
	case "repo":
		return b.author(tableRepo, did, macSize)
	case "tip":
		return b.author(tableTip, did, macSize)
	case "statement":
		return b.author(tableStmt, did, macSize)
	case "ops", "early ops", "last ops":
		b.author(tableOps, did, macSize)
	}
	switch what, _, _ := strings.Cut(name, " "); what {
	case "last":
		return b.number(lostRows - 1)
	case "early":
		return b.number(7)
	}
	return b.number(lostRows - 3)
}

// neverOther fails if a state reads as another than it was committed.
func (g *traffic) neverOther(t *testing.T, sp *Space) {
	t.Helper()
	for id, want := range g.topics {
		got, ok, err := sp.TopicState(id)
		if err == nil && ok && got != want {
			t.Errorf("topic reads as of %d, not %d", got.Count, want.Count)
		}
	}
	for did, want := range g.repos {
		got, ok, err := sp.Repo(did)
		if err != nil || !ok {
			continue
		}
		stmts := []space.Statement{*got.Stmt, *want.Stmt}
		got.Stmt, want.Stmt = nil, nil
		if got != want || stmts[0] != stmts[1] {
			t.Errorf("repo reads as of %d ops, not %d", got.OpCount, want.OpCount)
		}
	}
}

// Repair writes rows too: the next commit does not build on those before.
func TestCommitAfterRepair(t *testing.T) {
	st := openMemory(t)
	sp := st.Space([32]byte{1}, [32]byte{2})
	g := newTraffic(t, 1, 1)
	c := g.chains[0]
	step := func() {
		b := &Batch{}
		g.run(b, c, 1)
		commit(t, sp, Own, b)
	}
	step()
	step()
	deleteRow(t, st, sp, func(b *blinder) []byte { return b.topic(c.topic) })
	repaired(t, "topic lost", sp, 2)
	step()
	g.same(t, sp)
}

// A batch that does not follow from the one before is taken at its word.
func TestWhatDoesNotFollow(t *testing.T) {
	for name, bend := range map[string]func(b *Batch){
		"topic without run": func(b *Batch) { b.Run = nil },
		"count":             func(b *Batch) { b.Topic.Count += 7 },
		"hole in the chain": func(b *Batch) {
			run := newChain(t, 1, 10).next(9)
			b.Run = &RunRow{Chain: run.Chain, Envs: run.Envs[8:]}
		},
		"other page": func(b *Batch) { b.Ops[0].First = 1 },
		"no page":    func(b *Batch) { b.Ops = nil },
		"records":    func(b *Batch) { b.Repos[0].Count++ },
		"ops":        func(b *Batch) { b.Repos[0].OpCount++ },
	} {
		sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
		g := newTraffic(t, 1, 1)
		for i := range 5 {
			b := &Batch{}
			g.run(b, g.chains[0], 1)
			g.write(b, g.authors[0], i, 1, "v")
			if i == 4 {
				bend(b)
				g.topics[b.Topic.ID], g.repos[testAuthor+"0"] = *b.Topic, b.Repos[0]
			}
			commit(t, sp, Own, b)
		}
		t.Log(name)
		g.same(t, sp)
	}
}

// An oplog that says something else than when its tip was written is damage.
func TestPageWrittenAnew(t *testing.T) {
	sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
	g := newTraffic(t, 1, 1)
	a := g.authors[0]
	for i := range 5 {
		b := &Batch{}
		g.write(b, a, i, 1, "v")
		commit(t, sp, Own, b)
	}
	commit(t, sp, Own, &Batch{Ops: []OpPage{{Author: a.did, First: 3, Rows: []OpRow{{Path: testPath(3)}}}}})
	if _, _, err := sp.Repo(a.did); !errors.Is(err, ErrDamaged) {
		t.Errorf("read: %v", err)
	}
	found, err := sp.Audit(t.Context(), false)
	equal(t, "audit", []any{found.Repos, err}, []any{[]space.DID{a.did}, nil})
}

// That rows do not fit is noted, so that the next Open repairs.
func TestMisfitIsNoted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	st := openDisk(t, dir, Options{})
	sp := st.Space(historyID, historyDEK)
	g := newTraffic(t, 1, 1)
	c := g.chains[0]
	for range 3 {
		b := &Batch{}
		g.run(b, c, 1)
		commit(t, sp, Own, b)
	}
	deleteRow(t, st, sp, func(b *blinder) []byte { return b.chain(tableHead, c.topic, c.chain.ID) })
	if _, _, err := sp.TopicState(c.topic); !errors.Is(err, ErrDamaged) {
		t.Errorf("read: %v", err)
	}
	closeStore(t, st)
	heals(t, "head lost", dir)
}

// What is kept in mind is bounded, and what fell out is written whole.
func TestRecentIsBounded(t *testing.T) {
	st := openMemory(t)
	sp := st.Space([32]byte{1}, [32]byte{2})
	g := newTraffic(t, 2*tailsMost+6, reposMost+5)
	for range 2 {
		for i := range max(len(g.chains), len(g.authors)) {
			b := &Batch{}
			g.run(b, g.chains[i%len(g.chains)], 1)
			g.write(b, g.authors[i%len(g.authors)], 0, 2, "v")
			commit(t, sp, Derived, b)
		}
	}
	g.same(t, sp)
	equal(t, "repos", len(sp.recent.repos), reposMost)
	for i := range 2*foldMost + 3 {
		b := &Batch{}
		g.run(b, g.chains[0], 1)
		g.write(b, g.authors[0], i%5, 1, fmt.Sprint("v", i))
		commit(t, sp, Derived, b)
		g.notFar(t, sp)
	}
	for _, k := range sp.recent.topics {
		equal(t, "tails", len(k.tails), tailsMost)
	}
}

// notFar fails if rows lack more than they may.
func (g *traffic) notFar(t *testing.T, sp *Space) {
	t.Helper()
	get := func(key func(b *blinder) []byte) []byte {
		plain, _, err := sp.store.get(sp.vault, sp.key(key))
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	c, a := g.chains[0], g.authors[0]
	topic, _, err1 := decodeTopic(get(func(b *blinder) []byte { return b.topic(c.topic) }))
	repo, _, err2 := decodeRepo(get(func(b *blinder) []byte { return b.author(tableRepo, a.did, macSize) }))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if topic.Count+foldMost < g.topics[c.topic].Count || repo.OpCount+foldMost < a.ops {
		t.Fatalf("rows of %d and %d, states of %d and %d", topic.Count, repo.OpCount, g.topics[c.topic].Count, a.ops)
	}
}
