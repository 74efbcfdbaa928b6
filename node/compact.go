package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// A member's node drops entries all of whose values were superseded long ago.
// Their ids stay, so digests, links and cuts are as before. What is kept of an
// author is every entry that still decides something: the last write to each
// path, a deletion like any other, and its last statement. So nothing that was
// deleted comes back, and drawing the records again gives the same.
//
// An id is the hash of a whole envelope: who holds an id alone can prove nothing
// to a newcomer. So somebody keeps the envelopes: who may admit newcomers drops
// nothing, and the others drop only what such a node has shown to hold. Only
// what the log made final goes: of that no branch, and no proof, is asked for.

// compactEvery is how often a node looks for what it may drop.
const compactEvery = 24 * time.Hour

// compactor drops what was superseded before a while, and ops from before it.
func (n *Node) compactor(ctx context.Context) {
	t := time.NewTimer(jitter(compactEvery / 24))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			t.Reset(jitter(compactEvery))
		}
		for _, r := range n.all() {
			before := time.Now().Add(-n.cfg.CompactAfter)
			if err := n.compact(ctx, r.actor, before); err != nil && ctx.Err() == nil {
				n.log.Warn("drop what was superseded", "space", fingerprint(r.sid), "err", err)
			}
			if err := n.prune(ctx, r.actor, before); err != nil && ctx.Err() == nil {
				n.log.Warn("drop old ops", "space", fingerprint(r.sid), "err", err)
			}
		}
	}
}

// compact drops a space's entries that were superseded before a time, if others
// keep them.
func (n *Node) compact(ctx context.Context, a *actor, before time.Time) error {
	if a.admits() {
		return nil
	}
	plan, err := a.superseded(ctx, before, a.keptElsewhere())
	if err != nil || len(plan.chains) == 0 {
		return err
	}
	m := &thinOut{plan: plan, reply: make(chan error, 1)}
	err, sendErr := ask(ctx, a, m, m.reply)
	return errors.Join(err, sendErr)
}

// keptElsewhere are the epochs that a node which admits newcomers has shown to
// hold as we do.
func (a *actor) keptElsewhere() map[uint64]bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	keepers := map[peer.ID]bool{}
	for dev, home := range a.homes {
		if _, caps, authority := a.ctl.DeviceCaps(dev); authority || caps&control.CapAdmit != 0 {
			keepers[home] = true
		}
	}
	out := map[uint64]bool{}
	for with, shown := range a.syncs {
		if !keepers[with] {
			continue
		}
		for _, e := range a.epochs {
			if p, ok := shown[e.n]; ok && p.Digest != "" && a.equalNow(p, e) {
				out[e.n] = true
			}
		}
	}
	return out
}

// thinning is what may be dropped, as a state of the log has it.
type thinning struct {
	head   space.Head
	chains []thinChain
}

type thinChain struct {
	topic envelope.TopicID
	chain envelope.ChainID
	seqs  []uint64 // ascending
}

// finalChain is a chain of which something is final.
type finalChain struct {
	*epoch
	keys   seal.Keys
	id     envelope.ChainID
	cert   envelope.Certificate
	author space.DID
	device identity.DeviceID
	final  uint64
}

// finalChains are the chains in these epochs that have something final.
func (a *actor) finalChains(epochs map[uint64]bool) (out []finalChain, st *control.State, words map[space.DID]space.TID) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	words = map[space.DID]space.TID{}
	for author, r := range a.repos {
		words[author] = r.said.rev
	}
	for _, ch := range a.chains {
		final, ok := a.finalOf(ch.id)
		head, stands := ch.epoch.topic.Chain(ch.id)
		if !ok || !stands || ch.author == "" || ch.void || !epochs[ch.epoch.n] || head.Forked || final.Seq > head.Head.Seq || ch.next <= final.Seq {
			continue
		}
		out = append(out, finalChain{ch.epoch, ch.epoch.keys, ch.id, head.Cert, ch.author, ch.device, final.Seq})
	}
	return out, a.ctl, words
}

// stale is an entry that may be dropped if the entries that superseded it are
// final.
type stale struct {
	from, to uint64 // its envelopes
	by       []space.Stamp
}

// superseded finds the entries that decide nothing any more, and have not since
// before a time. It opens every final entry, and stops nobody meanwhile.
func (a *actor) superseded(ctx context.Context, before time.Time, epochs map[uint64]bool) (thinning, error) {
	chains, st, words := a.finalChains(epochs)
	plan := thinning{head: st.Head}
	repos := a.snapshot("")
	final := map[envelope.ID]bool{}
	found := make([][]stale, len(chains))
	for i, ch := range chains {
		repo := repos[ch.author]
		if repo == nil || words[ch.author] == 0 {
			continue // nobody knows yet what its last word is
		}
		err := a.opened(ch.epoch.id, ch.id, ch.cert, ch.keys, st, ch.final, func(o openEntry) error {
			final[o.id] = true
			if s, ok := o.stale(repo, ch.device, words[ch.author], before); ok && o.last < ch.final {
				found[i] = append(found[i], s)
			}
			return ctx.Err()
		})
		if err != nil {
			return thinning{}, fmt.Errorf("read a chain again: %w", err)
		}
	}
	for i, ch := range chains {
		t := thinChain{topic: ch.epoch.id, chain: ch.id}
		for _, s := range found[i] {
			if slices.ContainsFunc(s.by, func(by space.Stamp) bool { return !final[by.Entry] }) {
				continue
			}
			for seq := s.from; seq <= s.to; seq++ {
				t.seqs = append(t.seqs, seq)
			}
		}
		if len(t.seqs) > 0 {
			plan.chains = append(plan.chains, t)
		}
	}
	return plan, nil
}

// stale reports whether an entry decides nothing any more: each of its writes
// was followed by another one before a time, and its statement, if it has one,
// is not the author's last.
func (o *openEntry) stale(repo *space.Repo, device identity.DeviceID, word space.TID, before time.Time) (s stale, ok bool) {
	s = stale{from: o.first, to: o.last}
	if o.batch.Stmt != nil && o.batch.Rev >= word || o.batch.Rev == repo.Rev() ||
		!time.UnixMicro(o.batch.Rev.Micros()).Before(before) {
		return s, false
	}
	own := space.Stamp{Rev: o.batch.Rev, Device: device, Entry: o.id}
	for _, op := range o.batch.Ops {
		leaf, known := repo.Leaf(op.Path)
		if !known || leaf.Stamp.Compare(own) <= 0 || !time.UnixMicro(leaf.Stamp.Rev.Micros()).Before(before) {
			return s, false
		}
		s.by = append(s.by, leaf.Stamp)
	}
	return s, true
}

// thinOut drops what a plan names, unless the log moved meanwhile: what is final
// and who writes may then be another matter.
type thinOut struct {
	plan  thinning
	reply chan error // buffered
}

func (m *thinOut) handle(a *actor) {
	if a.broken != nil || len(a.recut) > 0 || a.ctl.Head != m.plan.head {
		m.reply <- a.broken
		return
	}
	for _, t := range m.plan.chains {
		n, size, err := a.store.Thin(t.topic, t.chain, t.seqs)
		a.stats.Compacted.Add(uint64(n))
		a.stats.CompactedBytes.Add(uint64(size))
		if err != nil {
			m.reply <- diskError(err)
			return
		}
	}
	m.reply <- nil
}

// openEntry is an entry of a chain with the envelopes it takes.
type openEntry struct {
	first, last uint64
	id          envelope.ID // of the last
	batch       space.Batch
}

// opened opens a chain from its beginning up to a seq, apart from how far it is
// materialised. What was dropped is passed over. It stops at the first error of
// each, and without one where the chain ends here or does not open.
func (a *actor) opened(topic envelope.TopicID, chain envelope.ChainID, cert envelope.Certificate, keys seal.Keys, st *control.State, to uint64, each func(openEntry) error) error {
	r, err := seal.NewReader(keys, chain, cert)
	if err != nil {
		return err
	}
	r.Guess(members(st))
	for r.Next() <= to {
		envs, err := a.store.Run(topic, chain, r.Next(), to, backlogMax)
		if err != nil {
			return err
		}
		if len(envs) == 0 {
			next, gone, err := a.store.Thinned(topic, chain, r.Next())
			c, known := r.Author()
			if err != nil || !gone || !known {
				return err
			}
			device, _ := r.Device()
			if r, err = seal.RestoreReader(keys, chain, cert, seal.ReaderStateVia(c, device, r.Via(), next)); err != nil {
				return err
			}
			continue
		}
		for _, env := range envs {
			first := r.Position()
			body, done, err := r.Open(env)
			if err != nil {
				return err
			}
			if !done || env.Type() != envelope.Entry {
				continue
			}
			b, err := space.DecodeBatch(body)
			if err == nil {
				err = each(openEntry{first, env.Seq(), env.ID(), b})
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// passOver moves a chain's position over what was dropped here: it decides
// nothing. It reports whether there was something.
func (a *actor) passOver(c *change, ch *chain) bool {
	if ch.next == 0 || ch.author == "" {
		return false
	}
	next, gone, err := a.store.Thinned(ch.epoch.id, ch.id, ch.next)
	if err != nil {
		a.log.Error("read back a chain", "chain", ch.id, "from", ch.next, "err", err)
	}
	if err != nil || !gone {
		return false
	}
	at := ch.position
	at.next, at.reader = next, string(seal.ReaderStateVia(at.c, at.device, at.via, next))
	ch.reader = nil
	c.applied[ch] = at
	return true
}
