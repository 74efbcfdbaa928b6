package node

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/sync/lthash"
)

// load reads the space from its store: at start, and again after a commit of
// which nobody knows whether it happened. The epochs' keys stay.
func (a *actor) load() error {
	epochs := maps.Clone(a.epochs)
	ctl, err := a.loadControl()
	if err != nil {
		return err
	}
	topics := map[envelope.TopicID]*envelope.Topic{}
	for id := range epochs {
		if topics[id], err = a.loadTopic(id); err != nil {
			return err
		}
	}
	for id, e := range epochs {
		if !a.inLog(ctl, e, topics[id]) {
			a.log.Info("keys of an epoch that never was, or was another", "epoch", e.n)
			delete(epochs, id)
		}
	}
	repos, err := a.loadRepos()
	if err != nil {
		return err
	}
	_, doubt, err := a.store.Meta(doubtMeta)
	if err != nil {
		return fmt.Errorf("read the space: %w", err)
	}
	proof, err := a.loadProof()
	if err != nil {
		return err
	}
	recut, err := a.loadRecut()
	if err != nil {
		return err
	}
	early, err := a.loadEarly()
	if err != nil {
		return err
	}
	held, err := a.loadHeld()
	if err != nil {
		return err
	}
	leaving, _, err := a.store.Meta(leavingMeta)
	if err != nil {
		return fmt.Errorf("read the space: %w", err)
	}
	source, _, err := a.store.Meta(unverifiedMeta)
	if err != nil {
		return fmt.Errorf("read the space: %w", err)
	}
	a.mu.Lock()
	a.early, a.leaving, a.unverified = early, leaving, peer.ID(source)
	a.ctl, a.repos, a.doubt, a.broken, a.proof, a.recut, a.held = ctl, repos, doubt, nil, proof, recut, held
	a.now, a.epochs = nil, epochs
	a.held.drawn = !a.writes() // nobody knows: they are drawn again
	for id, e := range epochs {
		e.topic = topics[id]
		if e.n <= ctl.Epoch && (a.now == nil || e.n > a.now.n) {
			a.now = e
		}
	}
	a.mu.Unlock()
	if err := a.loadChains(); err != nil {
		return err
	}
	a.pairs = map[pairKey]seal.Pair{}
	for author := range a.repos {
		a.moved[author] = true
	}
	a.verifyDue = time.Now().Add(jitter(verifyAfter))
	a.oweStatement()
	return a.restoreOutbox()
}

// inLog reports whether an epoch is one of the log's. A crash between keeping
// the keys of a new epoch and its entry leaves keys of one that never was: the
// next one of its number has others. An epoch that the log does not reach, and
// in which somebody wrote, is one that the log lost.
func (a *actor) inLog(ctl *control.State, e *epoch, t *envelope.Topic) bool {
	if kid, ok := ctl.KID(e.n); ok {
		return e.keys.CheckKID(kid) == nil
	}
	return t.Count() > 0
}

// oweStatement makes up for a statement that a crash or a failed disk kept us
// from: without it nobody else can serve a commit of the own repo.
func (a *actor) oweStatement() {
	a.unstated, a.stmtDue = 0, time.Time{}
	r := a.repos[a.self.did]
	if r == nil || r.Rev() == 0 || r.said.Statement != nil && r.said.Hash == r.Digest() {
		return
	}
	a.unstated, a.stmtDue = 1, time.Now().Add(statementSilence)
}

func (a *actor) loadControl() (*control.State, error) {
	var s *control.State
	for row, err := range a.store.Control() {
		if err != nil {
			return nil, fmt.Errorf("read the control log: %w", err)
		}
		if want := nextEntry(s); row.Seq != want {
			// Lost to damage. Peers bring it, and the rows that follow again.
			a.log.Warn("the control log has a gap; peers are asked for the rest", "entry", want)
			break
		}
		e, err := control.Parse(row.Raw)
		if err == nil {
			err = e.Open(a.keyAfter(s, e))
		}
		if err == nil {
			s, err = control.Apply(s, e)
		}
		if err != nil {
			return nil, fmt.Errorf("control log, entry %d: %w", row.Seq, err)
		}
	}
	if s == nil || s.SpaceID != a.sid {
		return nil, fmt.Errorf("control log of %s: %w", a.id, space.ErrSpaceNotFound)
	}
	return s, nil
}

// keyAfter is what opens the body of an entry that follows s.
func (a *actor) keyAfter(s *control.State, e *control.Entry) []byte {
	if s == nil || e.InClear() {
		return nil
	}
	return bytesOf(a.controlKey(s.Epoch))
}

func nextEntry(s *control.State) uint64 {
	if s == nil {
		return 0
	}
	return s.Head.Seq + 1
}

func (a *actor) loadTopic(id envelope.TopicID) (*envelope.Topic, error) {
	row, ok, err := a.store.TopicState(id)
	if err != nil {
		return nil, fmt.Errorf("read a topic: %w", err)
	}
	var state lthash.State
	var count uint64
	if ok {
		state, count = row.State, row.Count
	}
	var chains []envelope.Chain
	for ch, err := range a.store.Chains(id) {
		if err != nil {
			return nil, fmt.Errorf("read the chains of a topic: %w", err)
		}
		chains = append(chains, ch)
	}
	t, err := envelope.RestoreTopic(id, chains, count, state)
	if err != nil {
		return nil, err
	}
	a.watch(t)
	return t, nil
}

// loadChains restores how far each chain is materialised.
func (a *actor) loadChains() error {
	a.mu.Lock()
	a.chains = map[envelope.ChainID]*chain{}
	a.mu.Unlock()
	for _, e := range a.epochs {
		for head := range e.topic.Chains() {
			a.chainOf(e, head)
		}
		for row, err := range a.store.AllApplied(e.id) {
			if err != nil {
				return fmt.Errorf("read positions: %w", err)
			}
			ch := a.chains[row.Chain]
			if ch == nil && row.Seq == 0 {
				continue // nothing stands of it any more
			}
			if ch == nil {
				return fmt.Errorf("position of an unknown chain: %w", space.ErrMalformed)
			}
			at, err := a.readPosition(row)
			if err != nil {
				return fmt.Errorf("read positions: %w", err)
			}
			a.mu.Lock()
			ch.position = at
			if r := a.repos[ch.author]; r != nil {
				r.sure = max(r.sure, ch.attribution)
			}
			a.mu.Unlock()
		}
	}
	return nil
}

func (a *actor) loadRepos() (map[space.DID]*repo, error) {
	repos := map[space.DID]*repo{}
	for row, err := range a.store.Repos() {
		if err != nil {
			return nil, fmt.Errorf("read the repos: %w", err)
		}
		r := &repo{Repo: space.RestoreRepo(row.Rev, row.Count, row.State), ops: row.OpCount, said: word{Statement: row.Stmt}}
		if err := a.loadRecords(r, row); err != nil {
			return nil, fmt.Errorf("read the records of %s: %w", row.Author, err)
		}
		repos[row.Author] = r
	}
	return repos, nil
}

const (
	loadParts  = 16      // a large repo is read in
	loadLarge  = 4 << 10 // records
	loadAtOnce = 256     // records go into the index while the others wait
)

// loadRecords reads the leaves of a repo. To find, open and decode them is what
// takes long.
func (a *actor) loadRecords(r *repo, row store.RepoRow) error {
	parts := 1
	if row.Count > loadLarge {
		parts = loadParts
	}
	var mu sync.Mutex // guards r
	take := func(recs []store.RecordRow) error {
		mu.Lock()
		defer mu.Unlock()
		for i := range recs {
			r.Load(recs[i].Path, recs[i].Leaf)
			if err := a.loadBlobs(r, recs[i]); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, parts)
	inParallel(parts, func(p int) {
		recs := make([]store.RecordRow, 0, loadAtOnce)
		for rec, err := range a.store.RecordsPart(row.Author, p, parts) {
			if err == nil && len(recs) == loadAtOnce {
				err, recs = take(recs), recs[:0]
			}
			if err != nil {
				errs[p] = err
				return
			}
			if len(rec.Value.Blobs()) == 0 {
				rec.Value = nil // of no use to the index
			}
			recs = append(recs, rec)
		}
		errs[p] = take(recs)
	})
	return errors.Join(errs...)
}
