package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
)

// A space that is being made leaves a marker beside its key record from before
// the record is there until its control log is durable.
const markerPrefix = "making-"

// unmade removes what a crash left of spaces that were never there: their key
// record, if the store has nothing under it. Only marked records go; a record
// whose rows are missing for another reason is kept.
func (n *Node) unmade(names []string) error {
	for _, name := range names {
		rest, marker := strings.CutPrefix(name, markerPrefix)
		if !marker {
			continue
		}
		key := spaceKeyPrefix + rest
		made, err := n.made(key)
		if err == nil && !made {
			n.log.Warn("removing a space that was never finished: the node stopped while it was made", "key", key)
			err = n.keys.Delete(key)
		}
		if err == nil {
			err = n.keys.Delete(name)
		}
		if err != nil {
			return fmt.Errorf("clear up after an unfinished space: %w", err)
		}
	}
	return nil
}

// made reports whether the space of a key record has a control log.
func (n *Node) made(key string) (bool, error) {
	rec, err := n.readKeys(key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if n.store.Recovered() {
		return true, nil // nobody knows: what is missing may have been there
	}
	for _, err := range n.store.Space([32]byte(rec.Space), [32]byte(rec.DEK)).Control() {
		return err == nil, err
	}
	return false, nil
}

// doubtMeta marks a space whose store was repaired and of which no peer has
// said since that nothing is missing.
const doubtMeta = "doubt"

// audit makes a space fit to be loaded after its store was repaired: chains
// end before their first gap, and if anything is missing, what is drawn from
// the envelopes is dropped, to be drawn again. Peers bring the rest.
func (a *actor) audit(ctx context.Context) error {
	found, err := a.store.Repair(ctx)
	if err != nil {
		return err
	}
	if !found.OK() {
		a.log.Warn("the repaired store lacks something of this space; peers are asked for it",
			"chains", len(found.Gaps), "topics", len(found.Topics), "repos", len(found.Repos),
			"control", fmt.Sprintf("%d of %d", found.ControlHave, found.ControlWant), "unreadable", found.Unreadable)
	}
	ok, err := a.drawn()
	if err != nil {
		return err
	}
	if !ok || !found.OK() {
		if err := a.store.DropContent(); err != nil {
			return err
		}
	}
	return a.store.Commit(store.Own, &store.Batch{Meta: map[string][]byte{doubtMeta: {1}}})
}

// drawn reports whether the repos hold what the positions of the chains say
// was drawn from them.
func (a *actor) drawn() (bool, error) {
	for id := range a.epochs {
		for row, err := range a.store.AllApplied(id) {
			if err != nil {
				return false, err
			}
			at, err := a.readPosition(row)
			if err != nil {
				return false, err
			}
			if at.rev == 0 {
				continue
			}
			repo, ok, err := a.store.Repo(at.author)
			if err != nil {
				return false, err
			}
			if !ok || repo.Rev < at.rev {
				return false, nil
			}
		}
	}
	return true, nil
}

// trust ends the doubt: a peer and we hold the same.
type trust struct{}

func (trust) handle(a *actor) {
	if !a.doubt {
		return
	}
	if err := a.store.Commit(store.Own, &store.Batch{Meta: map[string][]byte{doubtMeta: nil}}); err != nil {
		a.log.Warn("keep that the space is whole again", "err", err)
		return
	}
	a.mu.Lock()
	a.doubt = false
	a.mu.Unlock()
	a.log.Info("the repaired space is whole again")
}

// inDoubt is doubt, for other goroutines.
func (a *actor) inDoubt() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.doubt
}

// maySequence refuses to append to a control log of which entries may be
// missing: a second entry in the place of one would split the space. Where
// nobody else was ever seen there is nobody to ask.
func (a *actor) maySequence() error {
	if !a.doubt || !a.othersSeen() {
		return nil
	}
	return fmt.Errorf("change %s: the store was repaired, and no member's node has said yet that nothing is missing: %w",
		a.id, space.ErrUnavailable)
}

// othersSeen reports whether anybody else may hold entries of this space.
func (a *actor) othersSeen() bool {
	for _, ch := range a.chains {
		if ch.c != a.self.c {
			return true
		}
	}
	for range a.ctl.Invites() {
		return true // somebody may have come by it
	}
	_, others := a.out.addrs(a.sid)
	return a.ctl.Len() > 1 || len(others) > 0
}
