package node

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

// What a hub keeps for readers that come back or fall behind.
const (
	hubEvents = 4096
	hubBytes  = 8 << 20 // of values
	hubPage   = 256     // events that a reader gets at once
)

// hub tells readers what happens in a space. It begins with the first of them
// and keeps the last events from then on. Events are numbered by what stands
// in the oplogs and the control log: a reader that had everything when the node
// stopped can go on when it runs again.
type hub struct {
	mu    sync.Mutex // guards what follows
	on    bool
	seq   uint64 // of the last event
	first uint64 // events behind this one are kept
	ring  []*xrpc.Event
	bytes int
	moved chan struct{} // closed at the next event
}

// start begins with the number of the last event.
func (h *hub) start(seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		h.on, h.seq, h.first, h.moved = true, seq, seq, make(chan struct{})
	}
}

// add numbers events and wakes who waits.
func (h *hub) add(events []*xrpc.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on || len(events) == 0 {
		return
	}
	for _, e := range events {
		h.seq++
		e.Seq = h.seq
		h.ring = append(h.ring, e)
		h.bytes += len(e.Op.Value)
	}
	drop := 0
	for len(h.ring)-drop > hubEvents || h.bytes > hubBytes && drop < len(h.ring) {
		h.bytes -= len(h.ring[drop].Op.Value)
		h.first = h.ring[drop].Seq
		h.ring[drop] = nil
		drop++
	}
	h.ring = h.ring[drop:]
	close(h.moved)
	h.moved = make(chan struct{})
}

// behind gives the events behind one, or a channel that closes when there are
// some. lost: they are not kept any more.
func (h *hub) behind(seq uint64) (events []*xrpc.Event, wait <-chan struct{}, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case seq < h.first:
		return nil, nil, true
	case seq >= h.seq:
		return nil, h.moved, false
	}
	// Numbers are consecutive within the ring.
	events = h.ring[len(h.ring)-int(h.seq-seq):]
	return slices.Clone(events[:min(len(events), hubPage)]), nil, false
}

// tell makes events of what a change shows. before is the control state it
// came from. The actor's mu is held.
func (c *change) tell(before *control.State) {
	a := c.a
	a.hub.mu.Lock()
	on := a.hub.on
	a.hub.mu.Unlock()
	if !on {
		return
	}
	now := time.Now().UnixMilli()
	var events []*xrpc.Event
	at := map[space.DID]int{}
	for i := range c.batch.Records {
		rec := &c.batch.Records[i]
		row := &c.rows[rec.Author][at[rec.Author]] // the same ops, by author
		at[rec.Author]++
		// A copy: the memory of values is used again once the change is shown.
		events = append(events, &xrpc.Event{TimeMs: now, Author: rec.Author, Op: xrpc.RepoOp{
			Rev: row.Rev, Idx: row.Idx, Path: row.Path, CID: row.CID, Prev: row.Prev, Value: bytes.Clone(rec.Value),
		}})
	}
	if c.ctl != nil && c.ctl.Head != before.Head {
		// One event for each entry, so that numbers fit those of a restart: what
		// changed stands in the last.
		for range max(1, c.ctl.Head.Seq-before.Head.Seq) - 1 {
			events = append(events, &xrpc.Event{TimeMs: now, Epoch: c.ctl.Epoch, Deleted: c.ctl.Deleted})
		}
		events = append(events, &xrpc.Event{
			TimeMs: now, Epoch: c.ctl.Epoch, Deleted: c.ctl.Deleted, Members: rosterChanges(before, c.ctl),
		})
	}
	a.hub.add(events)
}

// rosterChanges are the members whose level differs.
func rosterChanges(before, after *control.State) []xrpc.MemberChange {
	was := map[space.DID]space.Level{}
	for m := range before.Members() {
		was[m.DID] = m.Level
	}
	var out []xrpc.MemberChange
	for m := range after.Members() {
		if was[m.DID] != m.Level {
			out = append(out, xrpc.MemberChange{DID: m.DID, Level: m.Level})
		}
		delete(was, m.DID)
	}
	for m := range before.Members() {
		if _, left := was[m.DID]; left {
			out = append(out, xrpc.MemberChange{DID: m.DID})
		}
	}
	return out
}

// subscription is one reader's place.
type subscription struct {
	hub *hub
	seq uint64
}

// Subscribe follows a space.
func (n *Node) Subscribe(_ context.Context, id space.ID, after *uint64) (xrpc.Subscription, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	a.mu.RLock()
	seq := a.ctl.Head.Seq
	for _, r := range a.repos {
		seq += r.ops
	}
	a.hub.start(seq)
	a.mu.RUnlock()
	s := &subscription{hub: &a.hub}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	switch {
	case after == nil:
		s.seq = s.hub.seq
	case *after > s.hub.seq:
		return nil, xrpc.ErrFutureCursor
	case *after < s.hub.first:
		return nil, xrpc.ErrOutdatedCursor
	default:
		s.seq = *after
	}
	return s, nil
}

// Seq is the number of the last event the reader has.
func (s *subscription) Seq() uint64 { return s.seq }

// Next waits for events.
func (s *subscription) Next(ctx context.Context) ([]*xrpc.Event, error) {
	for {
		events, wait, lost := s.hub.behind(s.seq)
		if lost {
			return nil, xrpc.ErrConsumerTooSlow
		}
		if len(events) > 0 {
			s.seq = events[len(events)-1].Seq
			return events, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wait:
		}
	}
}
