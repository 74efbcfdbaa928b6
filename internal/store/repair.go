package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/kithnet/kith/space/envelope"
)

// Repair audits a space in full and makes its topics agree with the envelopes
// that are here: every chain ends before its first gap, at the head found
// there, and count and set hash of its topic follow. What is cut off can be
// fetched again. It does not touch records, repos, oplogs and the control log.
// The report is of what it found. Nothing may be committed meanwhile.
func (s *Space) Repair(ctx context.Context) (*Audit, error) {
	found, err := s.Audit(ctx, true)
	if err != nil || len(found.Gaps)+len(found.Topics) == 0 {
		return found, err
	}
	a, err := s.auditor(ctx, true)
	if err != nil {
		return nil, err
	}
	defer a.r.release()
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	s.recent.forgetAll()
	if err := a.sumTopics(); err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	for id, t := range a.topics {
		if t.whole(true) && !slices.ContainsFunc(t.chains, func(c chainSum) bool { return !c.whole() }) {
			continue
		}
		if err := a.mend(id, t); err != nil {
			return nil, fmt.Errorf("repair: %w", err)
		}
	}
	return found, nil
}

// mend writes a topic as its envelopes have it, in one batch.
func (a *auditor) mend(id envelope.TopicID, t *topicSum) error {
	w, err := a.s.vault.rows()
	if err != nil {
		return err
	}
	defer w.free()
	// The sum counts what is here of chains without a certificate too.
	row := TopicRow{ID: id, Count: t.count, State: t.state}
	for i := range t.chains {
		c := &t.chains[i]
		if c.whole() {
			continue
		}
		keep := c.have
		if !c.cert {
			if err := a.subtract(&row, id, c); err != nil {
				return err
			}
			keep = 0
		}
		if err := a.cut(w, id, c, keep); err != nil {
			return err
		}
	}
	w.plain = row.append(w.plain[:0], nil)
	w.put(w.topic(id), w.plain)
	return a.s.store.write(Own, w.batch)
}

// cut ends a chain after its first keep envelopes.
func (a *auditor) cut(w *rows, topic envelope.TopicID, c *chainSum, keep uint64) error {
	for _, t := range []table{tableIDs, tableSegment, tableThinned} {
		p := a.s.key(func(b *blinder) []byte { return b.run(t, topic, c.chain.ID) })
		for row, err := range a.r.keys(prefix(p)) {
			if err != nil {
				return err
			}
			if numberOf(row) >= keep {
				w.batch.Delete(row)
			}
		}
	}
	if keep == 0 && !(c.cert && c.chain.Forked) {
		w.batch.Delete(w.chain(tableHead, topic, c.chain.ID))
		w.batch.Delete(w.chain(tableCert, topic, c.chain.ID))
		return nil
	}
	chain := c.chain
	chain.Head, chain.Length = envelope.Head{}, keep
	if keep > 0 {
		chain.Head = envelope.Head{Seq: keep - 1, ID: c.last}
	}
	w.plain = appendHead(w.plain[:0], topic, &chain)
	w.put(w.chain(tableHead, topic, chain.ID), w.plain)
	return nil
}

// subtract takes the envelopes of a chain out of a topic's sum.
func (a *auditor) subtract(row *TopicRow, topic envelope.TopicID, c *chainSum) error {
	p := a.s.key(func(b *blinder) []byte { return b.run(tableIDs, topic, c.chain.ID) })
	left := c.have
	for r, err := range a.rows(p) {
		if err != nil {
			return err
		}
		for ids := r.plain; len(ids) >= 32 && left > 0; ids = ids[32:] {
			row.State.Remove(ids[:32])
			row.Count--
			left--
		}
	}
	return nil
}
