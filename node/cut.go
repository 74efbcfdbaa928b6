package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
)

// What is materialised is a function of the control log and of the envelopes
// that are here, and of nothing else: not of the order in which they came. A
// removal says by hash how far the chains of the removed count. Where more of
// them is materialised already, the author's records are drawn again.

// verdict says whether an entry counts.
type countVerdict uint8

const (
	countsNow countVerdict = iota
	countsNot              // beyond where its chain counts: so is all behind it
	mayCount               // its author may not write as far as we know the log
)

// weigh says whether an entry of ch counts as the control log stands.
func (a *actor) weigh(st *control.State, ch *chain, at *position, env envelope.Envelope) countVerdict {
	b := boundOf(st, at, ch.epoch.n, ch.id)
	switch {
	case b.Bounded && (b.None || env.Seq() > b.Seq || env.Seq() == b.Seq && env.ID() != b.ID):
		return countsNot
	case !authorWrites(st, at, ch.epoch.n):
		return mayCount
	}
	return countsNow
}

// recutMeta names the authors whose records are to be drawn again: from the
// commit that cut a chain of theirs until the records are drawn, all of them.
const recutMeta = "recut"

// recount marks the authors of whom more is materialised than counts after an
// entry of the control log. Most entries cut nothing, and what was cut before
// is drawn as it should be.
func (c *change) recount(s, next *control.State, body any, rot *control.Rotation) {
	if _, removed := body.(control.MemberRemove); !removed && rot == nil {
		return
	}
	for _, ch := range c.a.chains {
		at := ch.position
		if staged, ok := c.applied[ch]; ok {
			at = staged
		}
		if at.rev == 0 || at.author == "" || slices.Contains(c.recut, at.author) {
			continue
		}
		b := boundOf(next, &at, ch.epoch.n, ch.id)
		if b.Bounded && (b.None || at.next > b.Seq+1) && b != boundOf(s, &at, ch.epoch.n, ch.id) {
			c.recut = append(c.recut, at.author)
		}
	}
	if len(c.recut) > 0 {
		c.owe(append(slices.Clone(c.a.recut), c.recut...))
	}
}

// owe keeps with the batch whose records are to be drawn again.
func (c *change) owe(authors []space.DID) {
	if c.batch.Meta == nil {
		c.batch.Meta = map[string][]byte{}
	}
	c.batch.Meta[recutMeta] = nil
	if len(authors) == 0 {
		return
	}
	b, err := space.Marshal(authors)
	if err != nil {
		panic("node: encode DIDs: " + err.Error())
	}
	c.batch.Meta[recutMeta] = b
}

// loadRecut reads whose records a crash kept from being drawn again.
func (a *actor) loadRecut() (authors []space.DID, err error) {
	b, ok, err := a.store.Meta(recutMeta)
	if err == nil && ok {
		err = space.Unmarshal(b, &authors)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is to be drawn again: %w", err)
	}
	return authors, nil
}

// rebuildOwed draws the records of marked authors again, while nobody reads.
func (a *actor) rebuildOwed() {
	if len(a.recut) == 0 || a.broken != nil {
		return
	}
	a.drawing.Lock()
	defer a.drawing.Unlock()
	for len(a.recut) > 0 && a.broken == nil {
		if err := a.rebuild(a.recut[0]); err != nil {
			a.fail(err)
			return
		}
	}
}

// rebuild forgets what is drawn from one author's entries and draws it anew.
// What this device itself wrote beyond the cut, while it is a member, it
// writes again: it was acknowledged.
func (a *actor) rebuild(author space.DID) error {
	var again []space.Batch
	if author == a.self.did && a.stillWrites() {
		var err error
		if again, err = a.beyondCuts(); err != nil {
			return err
		}
	}
	if err := a.forgetRepo(author); err != nil {
		return err
	}
	c := a.begin()
	c.owe(a.recut) // until all is drawn
	for _, ch := range a.chains {
		if ch.author == author {
			c.applied[ch] = position{attribution: ch.attribution}
			ch.reader = nil
		}
	}
	if author == a.self.did {
		if err := a.applyHeld(c); err != nil {
			return err
		}
	}
	for _, b := range again {
		if err := a.holdBatch(c, b); err != nil {
			return err
		}
	}
	if err := c.commit(store.Own); err != nil {
		return err
	}
	a.catchUpAll() // also what a crash left unread of this author's chains
	if a.broken != nil {
		return a.broken
	}
	done := a.begin()
	done.owe(a.recut[1:])
	if err := done.commit(store.Derived); err != nil {
		return err
	}
	a.recut = a.recut[1:]
	a.log.Info("records drawn again", "author", fingerprintOf(author), "held", len(again))
	return nil
}

// forgetRepo drops what is drawn from an author's entries.
func (a *actor) forgetRepo(author space.DID) error {
	a.still.Lock()
	defer a.still.Unlock()
	if err := a.store.DropAuthor(author); err != nil {
		return fmt.Errorf("draw the records of %s again: %w", author, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.repos[author]; old != nil {
		a.repos[author] = &repo{Repo: space.NewRepo(), sure: old.sure}
	}
	return nil
}

func (a *actor) stillWrites() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.writes()
}

// beyondCuts are the batches of this device's chains that a cut left out, in the
// order in which they were written, but for those that it has written again: the
// rev of a batch stays.
func (a *actor) beyondCuts() ([]space.Batch, error) {
	lost, kept := map[space.TID]space.Batch{}, map[space.TID]bool{}
	for _, cut := range []bool{true, false} {
		if !cut && len(lost) == 0 {
			break // nothing that could have been written again
		}
		for _, ch := range a.chains {
			b := boundOf(a.ctl, &ch.position, ch.epoch.n, ch.id)
			head, ok := ch.epoch.topic.Chain(ch.id)
			beyond := b.Bounded && (b.None || head.Head.Seq > b.Seq)
			if !ok || beyond != cut || ch.c != a.self.c || ch.device != a.self.device.ID() {
				continue
			}
			err := a.batches(ch, head, func(seq uint64, batch space.Batch) {
				switch {
				case len(batch.Ops) == 0:
				case cut && (b.None || seq > b.Seq):
					batch.Stmt = nil
					lost[batch.Rev] = batch
				default:
					kept[batch.Rev] = true
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	for _, row := range a.held.rows {
		b, err := space.DecodeBatch(row.Body)
		if err != nil {
			return nil, fmt.Errorf("read what is held: %w", err)
		}
		kept[b.Rev] = true
	}
	maps.DeleteFunc(lost, func(rev space.TID, _ space.Batch) bool { return kept[rev] })
	out := make([]space.Batch, 0, len(lost))
	for _, rev := range slices.Sorted(maps.Keys(lost)) {
		out = append(out, lost[rev])
	}
	return out, nil
}

// batches opens a whole chain again, apart from how far it is materialised.
// The seq is that of a batch's last envelope.
func (a *actor) batches(ch *chain, head envelope.Chain, each func(uint64, space.Batch)) error {
	return a.opened(ch.epoch.id, ch.id, head.Cert, ch.epoch.keys, a.ctl, head.Head.Seq, func(o openEntry) error {
		each(o.last, o.batch)
		return nil
	})
}

// refusedByCut counts this device's envelopes that a cut left out for good:
// somebody who was removed wrote them, and nobody who was asked knew them; and
// batches that were never sealed before that. mu is held.
func (a *actor) refusedByCut() (n uint64) {
	if a.writes() {
		return 0 // they were written again
	}
	n = uint64(len(a.held.rows))
	for _, ch := range a.chains {
		if ch.c != a.self.c || ch.device != a.self.device.ID() {
			continue
		}
		head, ok := ch.epoch.topic.Chain(ch.id)
		if !ok {
			continue
		}
		switch b := boundOf(a.ctl, &ch.position, ch.epoch.n, ch.id); {
		case b.None:
			n += head.Length - 1 // the hello says nothing
		case b.Bounded && head.Head.Seq > b.Seq:
			n += head.Head.Seq - b.Seq
		}
	}
	return n
}

// checkpointEvery is how often the sequencer makes final what is there.
const checkpointEvery = 24 * time.Hour

// checkpoint is the entry that makes an epoch's history final as it is here.
func (a *actor) checkpoint(e *epoch) amendment {
	return func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		a.mu.RLock()
		defer a.mu.RUnlock()
		body := control.Checkpoint{Epoch: e.n, Topic: e.id, Count: e.topic.Count(), Digest: e.topic.Digest()}
		for ch := range e.topic.Chains() {
			body.Heads = append(body.Heads, control.Cut{Chain: ch.ID, Seq: ch.Head.Seq, ID: ch.Head.ID})
		}
		if body.Count == 0 || len(body.Heads) > control.MaxCuts {
			return 0, nil, nil, nil
		}
		return control.KindCheckpoint, body, nil, nil
	}
}

// checkpointed is what the sequencer remembers of its last checkpoint.
type checkpointed struct {
	_     struct{} `cbor:",toarray"`
	At    int64    // Unix milliseconds
	Epoch uint64
	Count uint64
}

const checkpointMeta = "checkpoint"

// checkpointDue reports whether the epoch in force has entries that a day has
// not made final, and what to remember once it has.
func (a *actor) checkpointDue(now time.Time) (*epoch, []byte, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var last checkpointed
	raw, ok, err := a.store.Meta(checkpointMeta)
	if err == nil && ok {
		err = space.Unmarshal(raw, &last)
	}
	if err != nil || a.now == nil || a.now.topic.Count() == 0 {
		return nil, nil, err
	}
	next := checkpointed{At: now.UnixMilli(), Epoch: a.now.n, Count: a.now.topic.Count()}
	if last.At == 0 { // the day begins with the first look
		last.At = a.ctl.CreatedMs
	}
	if now.Sub(time.UnixMilli(last.At)) < checkpointEvery || last.Epoch == next.Epoch && last.Count == next.Count {
		return nil, nil, nil
	}
	b, err := space.Marshal(next)
	return a.now, b, err
}

// forkMeta keeps the proof that the sequencer signed two entries for one place.
const forkMeta = "fork"

// forkProof is two raw control entries of one term and seq.
type forkProof struct {
	_    struct{} `cbor:",toarray"`
	A, B []byte
}

// conflict takes up an error of the log that is no mere refusal: a fork, which
// freezes the space with its proof kept, or a sequencer whose term was ended
// earlier than we knew. It reports whether err was one.
func (a *actor) conflict(err error) bool {
	var fork control.ErrFork
	var term newTerm
	switch {
	case errors.As(err, &fork):
		a.freeze(fork)
	case errors.As(err, &term):
		a.supersede(term)
	default:
		return false
	}
	return true
}

// freeze keeps the proof of a fork. Nothing is written from then on until a
// new sequencer's entry says which branch stands.
func (a *actor) freeze(f control.ErrFork) {
	if a.proof != nil || f.Entry == nil {
		return
	}
	ours, ok, err := a.rawControl(f.Entry.Seq)
	if err != nil || !ok {
		a.log.Error("a forked log, and our entry is not here", "seq", f.Entry.Seq, "err", err)
		return
	}
	p := &forkProof{A: ours, B: f.Entry.Raw()}
	if err := control.VerifyFork(a.ctl, p.A, p.B); err != nil {
		return // not two entries of one place: the next entries will tell
	}
	raw, err := space.Marshal(p)
	if err != nil {
		a.log.Error("keep the proof of a fork", "err", err)
		return
	}
	if err := a.store.Commit(store.Own, &store.Batch{Meta: map[string][]byte{forkMeta: raw}}); err != nil {
		a.log.Error("keep the proof of a fork", "err", err)
		return
	}
	a.mu.Lock()
	a.proof = p
	a.mu.Unlock()
	a.log.Error("the sequencer signed two entries for one place: the space is frozen", "seq", f.Entry.Seq)
	a.out.compare(a.sid) // others learn of it as we did
}

// head is what a frozen space states as the head of its log: the same wherever
// the same two entries are known, and ahead of what has no proof.
func (p *forkProof) head() space.Head {
	x, y := sha256.Sum256(p.A), sha256.Sum256(p.B)
	if bytes.Compare(x[:], y[:]) > 0 {
		x, y = y, x
	}
	return space.Head{Term: control.TermOf(p.A), Seq: forkSeq, Hash: sha256.Sum256(append(x[:], y[:]...))}
}

// forkSeq stands for a seq that no log reaches.
const forkSeq = 1 << 62

// loadProof reads whether the space is frozen.
func (a *actor) loadProof() (*forkProof, error) {
	raw, ok, err := a.store.Meta(forkMeta)
	if err != nil || !ok {
		return nil, err
	}
	var p forkProof
	if err := space.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("read the proof of a fork: %w", err)
	}
	return &p, nil
}

// rawControl is the entry of our log at a seq.
func (a *actor) rawControl(seq uint64) ([]byte, bool, error) {
	for row, err := range a.store.Control() {
		if err != nil {
			return nil, false, err
		}
		if row.Seq == seq {
			return row.Raw, true, nil
		}
	}
	return nil, false, nil
}

// supersede drops the entries of a term that ended earlier than we knew, goes
// over to the new one, and draws everything again. The old entries are still in
// the chains: they are stale once the new term has begun.
func (a *actor) supersede(s newTerm) {
	a.log.Warn("a new sequencer ended the term earlier than we knew", "accepted", s.Accept.Seq)
	keep := s.Accept.Seq
	if !s.Known {
		keep = 1 // where the logs part is not known here: from the first epoch on
	}
	err := a.store.TruncateControl(keep)
	if err == nil {
		err = a.store.DropContent()
	}
	if err == nil {
		err = a.store.Commit(store.Own, &store.Batch{Meta: map[string][]byte{forkMeta: nil}})
	}
	if err == nil {
		a.endChain()
		err = a.load()
	}
	if err != nil {
		a.fail(err)
		return
	}
	if err := a.ingestControl([][]byte{s.raw}); err != nil {
		a.log.Info("the new term waits for what comes before it", "err", err)
		a.retry()
	}
	a.checkDue = time.Now()
}
