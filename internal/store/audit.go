package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/lthash"
)

// Audit is what does not add up in a space.
type Audit struct {
	// Gaps are the chains whose envelopes are not all here.
	Gaps []Gap
	// Topics are those whose count (or, in a full audit, set hash) is not that
	// of their chains.
	Topics []envelope.TopicID
	// Repos are those with a count, set hash or op count that is not that of
	// their records and ops. DropContent and apply the chains again.
	Repos []space.DID
	// Strays is how many oplogs and (in a full audit) authors' records belong
	// to no repo: one was lost, or DropAuthor was interrupted. DropContent and
	// apply the chains again.
	Strays int
	// Forks is how many chains that forked lack their proof, and how many
	// proofs are of no such chain.
	Forks int
	// ControlHave of ControlWant entries of the control log are here without
	// a gap.
	ControlHave, ControlWant uint64
	// Unreadable is how many rows do not open.
	Unreadable int
}

// Gap is a chain of which Have envelopes are here without a gap, and which has
// Want by its head. Have is more if the head was lost and an older one is back.
type Gap struct {
	Topic envelope.TopicID
	Chain envelope.ChainID
	Have  uint64
	Want  uint64
}

// OK reports whether nothing is amiss.
func (a *Audit) OK() bool {
	return len(a.Gaps)+len(a.Topics)+len(a.Repos)+a.Strays+a.Forks+a.Unreadable == 0 && a.ControlHave == a.ControlWant
}

// sampleEvery is one in how many segments an audit that is not full opens.
const sampleEvery = 100

// Audit compares what the rows of a space say of each other: chains with their
// heads, topics with their chains, oplogs with their repos. If full is set it
// opens every envelope and record and computes every set hash again. It reads
// one snapshot. ErrDamaged means that the engine itself found damage: closing
// and opening the store repairs that.
func (s *Space) Audit(ctx context.Context, full bool) (*Audit, error) {
	a, err := s.auditor(ctx, full)
	if err != nil {
		return nil, err
	}
	defer a.r.release()
	err = a.walkTopics()
	if err == nil {
		err = a.forks()
	}
	if err == nil {
		err = a.repos()
	}
	if err == nil {
		err = a.control()
	}
	if err == nil {
		err = a.plainRows()
	}
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return &a.out, nil
}

type auditor struct {
	ctx  context.Context
	s    *Space
	r    *reader
	full bool
	out  Audit
	seen int // segments

	topics map[envelope.TopicID]*topicSum
}

// topicSum is a topic as its chains have it.
type topicSum struct {
	chains []chainSum
	row    *TopicRow
	count  uint64
	state  lthash.State
}

// chainSum is a chain as its envelopes have it.
type chainSum struct {
	chain  envelope.Chain
	have   uint64
	last   envelope.ID // of the last, if have > 0
	beyond bool        // rows follow that do not belong to it
	cert   bool
}

func (s *Space) auditor(ctx context.Context, full bool) (*auditor, error) {
	r, err := s.store.reader()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return &auditor{ctx: ctx, s: s, r: r, full: full, topics: make(map[envelope.TopicID]*topicSum)}, nil
}

// rows are the rows that open of those with prefix p.
func (a *auditor) rows(p []byte) iter.Seq2[row, error] {
	return a.readable(a.r.scan(a.s.vault, prefix(p)))
}

func (a *auditor) readable(rows iter.Seq2[row, error]) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for row, err := range rows {
			if errors.Is(err, errRow) {
				a.out.Unreadable++
				continue
			}
			if err == nil {
				err = a.ctx.Err()
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

func (a *auditor) topic(id envelope.TopicID) *topicSum {
	t := a.topics[id]
	if t == nil {
		t = new(topicSum)
		a.topics[id] = t
	}
	return t
}

// walkTopics sums up topics from their chains and reports what differs.
func (a *auditor) walkTopics() error {
	if err := a.sumTopics(); err != nil {
		return err
	}
	for id, t := range a.topics {
		for _, c := range t.chains {
			if !c.whole() {
				a.out.Gaps = append(a.out.Gaps, Gap{Topic: id, Chain: c.chain.ID, Have: c.have, Want: c.chain.Length})
			}
		}
		if !t.whole(a.full) {
			a.out.Topics = append(a.out.Topics, id)
		}
	}
	return nil
}

// whole: the chain is here as its head says, and nothing else.
func (c *chainSum) whole() bool {
	return c.cert && !c.beyond && c.have == c.chain.Length && c.last == c.chain.Head.ID
}

func (t *topicSum) whole(full bool) bool {
	return t.row != nil && t.row.Count == t.count && (!full || t.row.State.Equal(&t.state))
}

func (a *auditor) sumTopics() error {
	for row, err := range a.rows(a.s.key(func(b *blinder) []byte { return b.all(tableTopic) })) {
		if err != nil {
			return err
		}
		t, err := a.s.topicRow(a.r, row.plain)
		if err != nil && !unfit(err) {
			return err
		}
		sum := a.topic(t.ID)
		if err == nil {
			sum.row = &t
		}
	}
	for row, err := range a.rows(a.s.key(func(b *blinder) []byte { return b.all(tableHead) })) {
		if err != nil {
			return err
		}
		id, chain, err := decodeHead(row.plain)
		if err != nil {
			return err
		}
		t := a.topic(id)
		sum, err := a.sumChain(t, id, chain)
		if err != nil {
			return err
		}
		t.count += sum.have
		t.chains = append(t.chains, sum)
	}
	return nil
}

// sumChain walks the ids of a chain.
func (a *auditor) sumChain(t *topicSum, topic envelope.TopicID, chain envelope.Chain) (c chainSum, err error) {
	c.chain = chain
	cert := a.s.key(func(b *blinder) []byte { return b.chain(tableCert, topic, chain.ID) })
	switch _, ok, err := a.r.get(a.s.vault, cert); {
	case errors.Is(err, errRow):
		a.out.Unreadable++
	case err != nil:
		return c, err
	default:
		c.cert = ok
	}
	p := a.s.key(func(b *blinder) []byte { return b.run(tableIDs, topic, chain.ID) })
	segments := a.s.key(func(b *blinder) []byte { return b.run(tableSegment, topic, chain.ID) })
	thinned := a.s.key(func(b *blinder) []byte { return b.run(tableThinned, topic, chain.ID) })
	for row, err := range a.rows(p) {
		if err != nil {
			return c, err
		}
		ok, err := a.segment(segments, thinned, row)
		if err != nil {
			return c, err
		}
		if !ok || c.beyond || numberOf(row.key) != c.have {
			c.beyond = true
			continue
		}
		for ids := row.plain; len(ids) > 0; ids = ids[32:] {
			if a.full {
				t.state.Add(ids[:32])
			}
			c.have++
			c.last = envelope.ID(ids[:32])
		}
	}
	return c, nil
}

// segment checks that the envelopes are there to which a row of ids belongs, or
// were dropped on purpose.
func (a *auditor) segment(p, thinned []byte, ids row) (ok bool, err error) {
	if len(ids.plain) == 0 || len(ids.plain)%32 != 0 {
		return false, nil
	}
	if a.seen++; !a.full && a.seen%sampleEvery != 1 {
		return true, nil
	}
	first := numberOf(ids.key)
	plain, ok, err := a.r.get(a.s.vault, appendUint(p[:len(p):len(p)], first))
	if errors.Is(err, errRow) {
		a.out.Unreadable++
		return false, nil
	}
	if err == nil && !ok {
		_, ok, err = a.r.get(a.s.vault, appendUint(thinned[:len(thinned):len(thinned)], first))
		return ok, err
	}
	if err != nil {
		return false, err
	}
	run, err := envelope.ParseRun(plain)
	if err != nil || run[0].Seq() != first || len(run) != len(ids.plain)/32 {
		return false, nil
	}
	for i, e := range run {
		if e.ID() != envelope.ID(ids.plain[32*i:][:32]) {
			return false, nil
		}
	}
	return true, nil
}

// repos compares repos with their records and ops.
func (a *auditor) repos() error {
	known := make(map[string]bool) // prefixes of the rows of repos
	for row, err := range a.rows(a.s.key(func(b *blinder) []byte { return b.all(tableRepo) })) {
		if err != nil {
			return err
		}
		repo, err := a.s.repoRow(a.r, row.plain)
		if err != nil && !unfit(err) {
			return err
		}
		fits := err == nil
		known[string(a.s.key(func(b *blinder) []byte { return b.author(tableOps, repo.Author, macSize) }))] = true
		known[string(a.s.key(func(b *blinder) []byte { return b.author(tableRecord, repo.Author, groupSize) }))] = true
		ops, err := a.ops(repo.Author)
		if err != nil {
			return err
		}
		ok := fits && ops == repo.OpCount
		if ok && a.full {
			if ok, err = a.records(&repo); err != nil {
				return err
			}
		}
		if !ok {
			a.out.Repos = append(a.out.Repos, repo.Author)
		}
	}
	return a.strays(known)
}

// strays counts oplogs and authors' records without a repo.
func (a *auditor) strays(known map[string]bool) error {
	ops, err := a.groups(tableOps, macSize, known)
	if err != nil || !a.full {
		a.out.Strays = ops
		return err
	}
	records, err := a.groups(tableRecord, groupSize, known)
	a.out.Strays = ops + records
	return err
}

// groups counts the groups of a table's rows that are not known, a group being
// the rows whose keys share n bytes after the table.
func (a *auditor) groups(t table, n int, known map[string]bool) (unknown int, err error) {
	p := a.s.key(func(b *blinder) []byte { return b.all(t) })
	last := ""
	for key, err := range a.r.keys(prefix(p)) {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return unknown, err
		}
		if group := key[:min(len(key), len(p)+n)]; string(group) != last {
			last = string(group)
			if !known[last] {
				unknown++
			}
		}
	}
	return unknown, nil
}

// plainRows opens the rows of which nothing speaks but themselves. Objects can
// be large: unless the audit is full it opens one in sampleEvery of them.
func (a *auditor) plainRows() error {
	for _, t := range []table{tableTip, tableStmt, tablePruned, tableOutbox, tableHeld, tableMeta} {
		for _, err := range a.rows(a.s.key(func(b *blinder) []byte { return b.all(t) })) {
			if err != nil {
				return err
			}
		}
	}
	n := 0
	p := a.s.key(func(b *blinder) []byte { return b.all(tableObject) })
	for key, err := range a.r.keys(prefix(p)) {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return err
		}
		if n++; !a.full && n%sampleEvery != 1 {
			continue
		}
		switch _, _, err := a.r.get(a.s.vault, key); {
		case errors.Is(err, errRow):
			a.out.Unreadable++
		case err != nil:
			return err
		}
	}
	return nil
}

// ops counts the ops that are here without a gap, or were dropped on purpose.
func (a *auditor) ops(author space.DID) (n uint64, err error) {
	gone, err := a.s.pruned(a.r, author)
	if errors.Is(err, errRow) {
		return 0, nil // counted among the plain rows
	}
	if err != nil {
		return 0, err
	}
	n = gone.First
	p := a.s.key(func(b *blinder) []byte { return b.author(tableOps, author, macSize) })
	for row, err := range a.rows(p) {
		if err != nil {
			return n, err
		}
		page, err := decodeOps(author, numberOf(row.key), row.plain)
		if err != nil || page.First != n {
			return n, err
		}
		n += uint64(len(page.Rows))
	}
	return n, nil
}

// records folds the records of a repo again.
func (a *auditor) records(repo *RepoRow) (ok bool, err error) {
	index := space.RestoreRepo(repo.Rev, repo.Count, repo.State)
	p := a.s.key(func(b *blinder) []byte { return b.author(tableRecord, repo.Author, groupSize) })
	for row, err := range a.rows(p) {
		if err != nil {
			return false, err
		}
		r, err := decodeRecord(repo.Author, row.plain)
		if err != nil {
			return false, err
		}
		index.Load(r.Path, r.Leaf)
	}
	return index.Check() == nil, nil
}

func (a *auditor) control() error {
	for row, err := range a.rows(a.s.key(func(b *blinder) []byte { return b.all(tableControl) })) {
		if err != nil {
			return err
		}
		n := numberOf(row.key)
		if n == a.out.ControlHave {
			a.out.ControlHave++
		}
		a.out.ControlWant = n + 1
	}
	return nil
}
