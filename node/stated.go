package node

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
)

// Equal digests of envelopes say that two nodes hold the same entries, not that
// they drew the same records from them. So every author says now and then how
// many records its repo has and what they hash to, and each node holds its own
// repo of that author against it. Where the two part although every entry is
// here, the records are drawn again from the log; where they part still, status
// shows both heads.

const (
	verifyAfter = 2 * time.Second  // from a change to the comparison
	apartFor    = 10 * time.Second // how long a difference lasts before it counts: what explains it may be on its way
)

// word is an author's last word on its repo.
type word struct {
	*space.Statement
	rev space.TID // that it is about; 0: not known since the last start
}

// word is the author's last word once the change is committed.
func (c *change) word(author space.DID) word {
	if s, ok := c.stmts[author]; ok {
		return s
	}
	if c.after != nil {
		return c.after.word(author)
	}
	if r := c.a.repos[author]; r != nil {
		return r.said
	}
	return word{}
}

// repoHead is what a repo is, or is said to be, at a revision.
type repoHead struct {
	rev   space.TID
	count uint64
	hash  [32]byte
}

// apart is an author whose last word is not what we hold.
type apart struct {
	ours, theirs repoHead
	since        time.Time
	drawn        bool // drawing the records again did not help: it is reported
}

// verdict of a comparison.
type accord uint8

const (
	unsaid accord = iota // nothing can be said: something is missing, or the word is not about this
	agreed
	differs
)

// verify holds the repos that moved against what their authors say of them.
func (a *actor) verify(now time.Time) {
	if a.broken != nil {
		return
	}
	var again []space.DID
	a.mu.Lock()
	read := a.readOf()
	for author := range a.apart {
		a.moved[author] = true
	}
	for author := range a.moved {
		if r := a.repos[author]; r == nil {
			delete(a.apart, author)
		} else if a.weighWord(author, r, read, now) {
			again = append(again, author)
		}
	}
	clear(a.moved)
	a.mu.Unlock()
	for _, author := range again {
		a.redraw(author)
	}
}

// weighWord notes how a repo compares, and reports whether its records are to
// be drawn again. mu is held for writing.
func (a *actor) weighWord(author space.DID, r *repo, read reading, now time.Time) (redraw bool) {
	old := a.apart[author]
	switch a.compareWord(author, r, read) {
	case unsaid:
		if old != nil && !old.drawn {
			delete(a.apart, author)
		}
		return false
	case agreed:
		if old != nil && old.drawn {
			a.log.Info("the records of an author are again what the author states", "author", fingerprintOf(author))
		}
		delete(a.apart, author)
		return false
	}
	next := &apart{
		ours:   repoHead{r.Rev(), r.Count(), r.Digest()},
		theirs: repoHead{r.said.rev, r.said.Count, r.said.Hash},
		since:  now,
	}
	if old != nil && old.ours.hash == next.ours.hash && old.theirs.hash == next.theirs.hash {
		next.since, next.drawn = old.since, old.drawn
	}
	a.apart[author] = next
	if author == a.self.did {
		a.answerSibling(r, now)
	}
	if next.drawn {
		return false
	}
	if wait := next.since.Add(apartFor); now.Before(wait) {
		a.verifyDue = wait
		return false
	}
	return true
}

// answerSibling states the own repo after another device of the author stated
// what this one does not hold: it had not seen what was written here. Nothing
// is said twice, so two devices that differ for good do not talk for ever.
func (a *actor) answerSibling(r *repo, now time.Time) {
	if r.Digest() == a.saidLast || !a.stmtDue.IsZero() {
		return
	}
	a.unstated, a.stmtDue = max(a.unstated, 1), now.Add(statementSilence)
}

// compareWord compares a repo with its author's last word, if that is about
// what should be here. mu is held for writing.
func (a *actor) compareWord(author space.DID, r *repo, read reading) accord {
	of := read.of[author]
	switch {
	case r.said.Statement == nil || of == nil || of.waits || !read.whole,
		of.ended && r.said.Ctl.Seq < a.ctl.Head.Seq, // the author may not have known that a chain ends
		slices.Contains(a.recut, author),
		author == a.self.did && len(a.held.rows) > 0,
		r.said.rev == 0 && !a.dateWord(author, r, of.newest),
		r.said.rev < of.newest: // the author wrote since
		return unsaid
	case r.said.Hash == r.Digest() && r.said.Count == r.Count():
		return agreed
	}
	return differs
}

// reading is how far the chains of a space are read.
type reading struct {
	whole bool // every epoch is open, and no chain waits whose author is not known
	of    map[space.DID]*readOf
}

// readOf is how far those of one author are.
type readOf struct {
	newest space.TID // of the last entry
	waits  bool      // more of them is known to be
	ended  bool      // one counts no further
}

// readOf sums up the chains. mu is held.
func (a *actor) readOf() reading {
	open := uint64(0)
	for _, e := range a.epochs {
		if e.n <= a.ctl.Epoch {
			open++
		}
	}
	r := reading{whole: open == a.ctl.Epoch, of: map[space.DID]*readOf{}}
	for _, ch := range a.chains {
		head, ok := ch.epoch.topic.Chain(ch.id)
		if !ok {
			continue
		}
		waits := ch.next < head.Length || a.ahead[ch.id] > head.Length
		if ch.author == "" {
			r.whole = r.whole && (ch.void || !waits)
			continue
		}
		of := r.of[ch.author]
		if of == nil {
			of = &readOf{}
			r.of[ch.author] = of
		}
		of.newest, of.waits, of.ended = max(of.newest, ch.rev), of.waits || waits, of.ended || ch.void
	}
	return r
}

// dateWord finds out, after a restart, whether a statement is about rev: its
// signature covers that. mu is held.
func (a *actor) dateWord(author space.DID, r *repo, rev space.TID) bool {
	pub, err := authorKey(author)
	if err != nil {
		return false
	}
	c, err := commit.FromStatement(a.id, author, rev, r.said.IKM, r.said.Sig, r.said.Hash)
	if err != nil || c.Verify(pub, a.id, author) != nil {
		return false
	}
	r.said.rev = rev
	return true
}

// redraw draws an author's records again from the log, and says what came of it.
func (a *actor) redraw(author space.DID) {
	a.log.Error("the records of an author are not what the author states; they are drawn again from the log",
		"author", fingerprintOf(author))
	a.stats.Redrawn.Add(1)
	if err := a.drawAgain(author); err != nil {
		a.fail(err)
		return
	}
	a.retry()
	if a.broken != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r, p := a.repos[author], a.apart[author]
	if r == nil || p == nil {
		return
	}
	switch a.compareWord(author, r, a.readOf()) {
	case unsaid:
		delete(a.apart, author)
		return
	case agreed:
		delete(a.apart, author)
		a.log.Warn("drawn again, the records are what the author states", "author", fingerprintOf(author))
		a.stats.Mended.Add(1)
		return
	}
	p.ours, p.drawn = repoHead{r.Rev(), r.Count(), r.Digest()}, true
	a.stats.Mismatched.Add(1)
	a.log.Error("an author states other records than its entries make",
		"author", fingerprintOf(author), "oursRev", p.ours.rev, "ours", fingerprint(p.ours.hash), "oursCount", p.ours.count,
		"statedRev", p.theirs.rev, "stated", fingerprint(p.theirs.hash), "statedCount", p.theirs.count)
}

// drawAgain is rebuild for an author whose records are not cut: what is owed is
// kept first, so that a crash in between ends in the same place.
func (a *actor) drawAgain(author space.DID) error {
	if !slices.Contains(a.recut, author) {
		c := a.begin()
		c.owe(append(slices.Clone(a.recut), author))
		if err := c.commit(store.Own); err != nil {
			return err
		}
		a.recut = append(a.recut, author)
	}
	a.rebuildOwed()
	return a.broken
}

// fingerprintOf is how an author stands in a log.
func fingerprintOf(author space.DID) string { return fingerprint(sha256.Sum256([]byte(author))) }
