package node

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
)

func (n *Node) bySpace(sid [32]byte) *actor {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if r := n.spaces[sid]; r != nil {
		return r.actor
	}
	return nil
}

func (n *Node) byTopic(id envelope.TopicID) (*actor, *epoch) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	a := n.topics[id]
	if a == nil {
		return nil, nil
	}
	e := a.epoch(id)
	if e == nil {
		return nil, nil
	}
	return a, e
}

// byID finds a space by its address, for its member: one that was removed, or
// leaves, is told that there is none. An address names at most one live space
// of a home.
func (n *Node) byID(id space.ID) (*actor, error) {
	a := n.anyByID(id)
	switch {
	case a == nil || a.place() == gone:
		return nil, fmt.Errorf("%s: %w", id, space.ErrSpaceNotFound)
	case a.place() == deleted:
		return nil, fmt.Errorf("%s: %w", id, space.ErrSpaceDeleted)
	}
	return a, nil
}

// anyByID finds a space by its address, whatever became of it; a live one
// first. Nil: none.
func (n *Node) anyByID(id space.ID) *actor {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var found *actor
	for _, r := range n.spaces {
		if r.id == id && (found == nil || r.place() == live) {
			found = r.actor
		}
	}
	return found
}

// place is what a space is to this member.
type place uint8

const (
	live    place = iota
	gone          // removed, or leaving
	deleted       // it has a tombstone
)

func (a *actor) place() place {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, in := a.standing(a.ctl)
	switch {
	case !in || a.leaving != nil:
		return gone
	case a.ctl.Deleted:
		return deleted
	}
	return live
}

// all are the spaces by ascending id: for reading, others read the same slice.
func (n *Node) all() []*running {
	n.mu.RLock()
	out := n.sorted
	n.mu.RUnlock()
	if out != nil {
		return out
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sorted = slices.SortedFunc(maps.Values(n.spaces), func(a, b *running) int { return bytes.Compare(a.sid[:], b.sid[:]) })
	return n.sorted
}

func (n *Node) spaceIDs() [][32]byte {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([][32]byte, 0, len(n.spaces))
	for sid := range n.spaces {
		out = append(out, sid)
	}
	return out
}

// current is the newest epoch, for other goroutines than the actor's.
func (a *actor) current() *epoch {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.now
}

// epoch is the epoch of a topic, for other goroutines.
func (a *actor) epoch(id envelope.TopicID) *epoch {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.epochs[id]
}

// control is the committed control state, for other goroutines.
func (a *actor) control() *control.State {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.ctl
}

// fingerprint is how an id stands in a log.
func fingerprint(id [32]byte) string { return hex.EncodeToString(id[:4]) }
