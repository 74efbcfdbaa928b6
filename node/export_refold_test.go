package node

import (
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/lthash"
)

// Spoil changes one byte of a set hash that a node keeps: of the epoch in
// force, or of its owner's records; on disk, in memory, or in both, as if a
// wrong one had been read.
func (n *Node) Spoil(id space.ID, records, disk, memory bool) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	reply := make(chan error, 1)
	err, sendErr := ask(n.ctx, a, errand(func() { reply <- a.spoil(records, disk, memory) }), reply)
	if sendErr != nil {
		return sendErr
	}
	return err
}

// errand is done by the goroutine that owns the space.
type errand func()

func (f errand) handle(*actor) { f() }

func (a *actor) spoil(records, disk, memory bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if records {
		r := a.repos[a.self.did]
		state := flipped(r.State())
		row := store.RepoRow{Author: a.self.did, Rev: r.Rev(), Count: r.Count(), State: state, Stmt: r.said.Statement, OpCount: r.ops}
		if memory {
			wrong := space.RestoreRepo(r.Rev(), r.Count(), state)
			for p, l := range r.Ascend(space.Path{}, "") {
				wrong.Load(p, l)
			}
			r.Repo = wrong
		}
		if !disk {
			return nil
		}
		// A count that does not follow makes the store write the row whole.
		if err := a.store.Commit(store.Own, &store.Batch{Repos: []store.RepoRow{{Author: a.self.did, Count: 1 << 40, OpCount: r.ops}}}); err != nil {
			return err
		}
		return a.store.Commit(store.Own, &store.Batch{Repos: []store.RepoRow{row}})
	}
	e := a.now
	state := flipped(e.topic.State())
	if memory {
		var chains []envelope.Chain
		for c := range e.topic.Chains() {
			chains = append(chains, c)
		}
		t, err := envelope.RestoreTopic(e.id, chains, e.topic.Count(), state)
		if err != nil {
			return err
		}
		a.watch(t)
		e.topic = t
	}
	if !disk {
		return nil
	}
	return a.store.Commit(store.Own, &store.Batch{Topic: &store.TopicRow{ID: e.id, Count: e.topic.Count(), State: state}})
}

func flipped(s lthash.State) lthash.State {
	b, _ := s.AppendBinary(nil)
	b[1000] ^= 0x40
	if err := s.UnmarshalBinary(b); err != nil {
		panic(err)
	}
	return s
}
