package store

import (
	"slices"
	"sync"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// A set hash takes 2 KiB, and every entry changes two: its topic's and its
// repo's. So those rows are written whole only now and then. A topic's row
// names tails: chains with the seq from which on their envelopes, which stand
// in the same store, are still to be added. A repo's row is followed by a tip
// that says up to which op of the oplog it is to be brought. Reading folds the
// rest in; that it does not fit is damage.
//
// What is written thus for a while is kept in mind here: only a commit that is
// known to follow from the rows on disk leaves them as they are.

const (
	// foldMost is how many envelopes or ops one row is left behind, and so the
	// most that reading it has to fold.
	foldMost = 64
	// tailsMost bounds the tails of a row; the chains used last have one.
	tailsMost = 16
	// topicsMost and reposMost bound what is kept in mind of one space.
	topicsMost = 4
	reposMost  = 64
)

// tail says that a topic's row lacks the envelopes of a chain from a seq on.
type tail struct {
	chain envelope.ChainID
	from  uint64
}

// tip is how far a repo is beyond its row.
type tip struct {
	base  uint64 // ops in the row
	ops   uint64
	rev   space.TID
	count uint64
	stmt  stmtMark
}

// stmtMark tells statements apart, and from none.
type stmtMark struct {
	some bool
	sig  [8]byte // the first bytes of the signature
}

func markOf(s *space.Statement) (m stmtMark) {
	if s != nil {
		m.some = true
		copy(m.sig[:], s.Sig[:])
	}
	return m
}

// recent is what was committed of late to a space. Its handles share it.
type recent struct {
	mu     sync.Mutex // held while a commit that moves a topic or repo is written
	topics map[envelope.TopicID]*recentTopic
	repos  map[space.DID]*recentRepo
}

type recentTopic struct {
	count  uint64
	behind int    // envelopes that the row lacks
	tails  []tail // with the ends of the chains; the one used last comes last
}

type recentRepo struct {
	tip  tip
	stmt *space.Statement
}

func newRecent() *recent {
	return &recent{topics: make(map[envelope.TopicID]*recentTopic), repos: make(map[space.DID]*recentRepo)}
}

// recentOf is what all handles on a space share.
func (s *Store) recentOf(tag [tagSize]byte) *recent {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	m := s.recents[tag]
	if m == nil {
		m = newRecent()
		s.recents[tag] = m
	}
	return m
}

// enter begins a commit of b. Commits that move topics or repos follow each
// other: each builds on the one before.
func (m *recent) enter(b *Batch) (leave func()) {
	if b.Run == nil && b.Topic == nil && len(b.Repos)+len(b.Ops) == 0 {
		return func() {}
	}
	m.mu.Lock()
	return m.mu.Unlock
}

// forget is for a commit that failed: what it touches is written whole next.
func (m *recent) forget(b *Batch) {
	if b.Run != nil {
		delete(m.topics, b.Run.topic())
	}
	if b.Topic != nil {
		delete(m.topics, b.Topic.ID)
	}
	for i := range b.Repos {
		delete(m.repos, b.Repos[i].Author)
	}
}

// forgetAll is for rows that are changed other than by a commit. No commit may
// enter until that is done.
func (m *recent) forgetAll() {
	clear(m.topics)
	clear(m.repos)
}

// topic notes what a commit makes of its topic. It reports whether the row has
// to be written, and the tails it then has.
func (m *recent) topic(b *Batch) (tails []tail, whole bool) {
	r, t := b.Run, b.Topic
	if r == nil || t == nil || r.topic() != t.ID {
		m.forget(&Batch{Run: r, Topic: t})
		return nil, t != nil
	}
	k := m.topics[t.ID]
	if k == nil && len(r.Envs) > foldMost {
		return nil, true // catching up
	}
	if k == nil {
		makeRoom(m.topics, topicsMost)
		k = new(recentTopic)
		m.topics[t.ID] = k
	}
	follows := k.count+uint64(len(r.Envs)) == t.Count
	k.count, k.behind = t.Count, k.behind+len(r.Envs)
	if k.extend(r) && follows && k.behind <= foldMost {
		return nil, false
	}
	k.behind = 0
	return k.tails, true
}

// extend moves the tail of a chain; false if the row has none or another.
func (k *recentTopic) extend(r *RunRow) (known bool) {
	i := slices.IndexFunc(k.tails, func(t tail) bool { return t.chain == r.Chain.ID })
	if i >= 0 {
		known = k.tails[i].from+uint64(len(r.Envs)) == r.Chain.Length
		k.tails = slices.Delete(k.tails, i, i+1)
	} else if len(k.tails) == tailsMost {
		k.tails = slices.Delete(k.tails, 0, 1)
	}
	k.tails = append(k.tails, tail{r.Chain.ID, r.Chain.Length})
	return known
}

// repo notes what a commit makes of a repo. It reports whether the row has to
// be written, or else the tip, and whether the statement has.
func (m *recent) repo(b *Batch, r *RepoRow) (at tip, whole, stmt bool) {
	k := m.repos[r.Author]
	known := k != nil
	if !known {
		k = new(recentRepo)
	}
	at = tip{base: k.tip.base, ops: r.OpCount, rev: r.Rev, count: r.Count, stmt: markOf(r.Stmt)}
	whole = !known || !k.tip.leadsTo(at, b.Ops, r.Author) || at.ops-at.base > foldMost
	if whole {
		at.base = at.ops
	}
	k.tip = at
	if stmt = !known || !sameStatement(k.stmt, r.Stmt); stmt {
		k.stmt = copyStatement(r.Stmt)
	}
	if !known && opsOf(b.Ops, r.Author) <= foldMost {
		makeRoom(m.repos, reposMost)
		m.repos[r.Author] = k
	}
	return at, whole, stmt
}

// leadsTo reports whether an author's pages make of a repo at t the one at next.
func (t tip) leadsTo(next tip, pages []OpPage, author space.DID) bool {
	for i := range pages {
		p := &pages[i]
		if p.Author != author || len(p.Rows) == 0 {
			continue
		}
		if p.First != t.ops {
			return false
		}
		t.ops += uint64(len(p.Rows))
		for j := range p.Rows {
			t.count = p.Rows[j].recount(t.count)
		}
	}
	return t.ops == next.ops && t.count == next.count
}

// recount is the number of records after the op.
func (o *OpRow) recount(n uint64) uint64 {
	if !o.Prev.IsZero() {
		n--
	}
	if !o.CID.IsZero() {
		n++
	}
	return n
}

func opsOf(pages []OpPage, author space.DID) (n int) {
	for i := range pages {
		if pages[i].Author == author {
			n += len(pages[i].Rows)
		}
	}
	return n
}

func sameStatement(a, b *space.Statement) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func copyStatement(s *space.Statement) *space.Statement {
	if s == nil {
		return nil
	}
	c := *s
	return &c
}

// makeRoom drops any entry of a full map.
func makeRoom[K comparable, V any](m map[K]V, most int) {
	for k := range m {
		if len(m) < most {
			return
		}
		delete(m, k)
	}
}
