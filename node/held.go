package node

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// held are own batches that are acknowledged, durable and visible here, and
// not sealed yet: there is no certificate for the epoch in force, or it is not
// sure that this is the epoch in force. They are sealed in their order as soon
// as there is one. Who may not write any more is not shown them either: nobody
// else will ever see them, unless that level comes back.
type held struct {
	rows []store.HeldRow
	next uint64
	// drawn: their records are among the author's.
	drawn bool
}

// canSeal reports whether entries can go into a chain now.
func (a *actor) canSeal() bool {
	return a.now != nil && a.now.n == a.ctl.Epoch && a.now.cred != nil && !a.lagging()
}

// holdBatch applies a batch of this device's own and keeps it to be sealed.
func (a *actor) holdBatch(c *change, b space.Batch) error {
	body, err := b.Encode()
	if err != nil {
		return err
	}
	row := store.HeldRow{Seq: a.held.next + uint64(len(c.batch.Held)), Body: body}
	c.batch.Held = append(c.batch.Held, row)
	c.apply(a.self.did, b, space.Stamp{Rev: b.Rev, Device: a.self.device.ID()})
	return nil
}

// releaseMax bounds the batches sealed at once.
const releaseMax = 64

// release seals what was held, once that is possible. Their records stand
// already: an envelope's id decides only between two batches of one device and
// rev, and there are none.
func (a *actor) release() {
	a.weighHeld()
	for len(a.held.rows) > 0 && a.canSeal() && a.mayWrite() == nil {
		rows, err := a.rising(a.held.rows[:min(len(a.held.rows), releaseMax)])
		if err != nil {
			a.log.Error("read what was held", "err", err)
			return
		}
		c := a.begin()
		if err := a.sealHeld(c, rows); err != nil {
			a.log.Error("seal what was held", "err", err)
			return
		}
		if err := a.commitOwn(c); err != nil {
			return
		}
		a.mu.Lock()
		a.held.rows = a.held.rows[len(rows):]
		a.mu.Unlock()
		a.unstated = max(a.unstated, 1)
		a.stmtDue = time.Now().Add(statementSilence)
		a.flushOutbox()
	}
}

// weighHeld draws the own records again where what is held began to count, or
// ceased to.
func (a *actor) weighHeld() {
	if len(a.held.rows) == 0 || a.held.drawn == a.stillWrites() || slices.Contains(a.recut, a.self.did) {
		return
	}
	a.recut = append(a.recut, a.self.did)
	a.rebuildOwed()
}

// applyHeld draws what is held, for who may write: no chain has it.
func (a *actor) applyHeld(c *change) error {
	if a.held.drawn = a.stillWrites(); !a.held.drawn {
		return nil
	}
	for _, row := range a.held.rows {
		b, err := space.DecodeBatch(row.Body)
		if err != nil {
			return fmt.Errorf("read what is held: %w", err)
		}
		c.apply(a.self.did, b, space.Stamp{Rev: b.Rev, Device: a.self.device.ID()})
	}
	return nil
}

// rising are the first rows that one chain can carry: its revs only rise. A
// chain that has gone beyond the first of them is ended.
func (a *actor) rising(rows []store.HeldRow) ([]store.HeldRow, error) {
	var last space.TID
	for i, row := range rows {
		b, err := space.DecodeBatch(row.Body)
		if err != nil {
			return nil, err
		}
		if i > 0 && b.Rev <= last {
			return rows[:i], nil
		}
		if i == 0 && a.writer != nil {
			if ch := a.chains[a.writer.Chain()]; ch != nil && ch.rev >= b.Rev {
				a.endChain()
			}
		}
		last = b.Rev
	}
	return rows, nil
}

func (a *actor) sealHeld(c *change, rows []store.HeldRow) error {
	for _, row := range rows {
		if err := a.openChain(c); err != nil {
			return err
		}
		envs, err := a.writer.Seal(rand.Reader, envelope.Entry, row.Body)
		if err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		c.sealed = append(c.sealed, envs...)
		c.batch.HeldDone = append(c.batch.HeldDone, row.Seq)
	}
	return nil
}

// loadHeld reads what was held when the node last stopped.
func (a *actor) loadHeld() (held, error) {
	var h held
	for row, err := range a.store.Held() {
		if err != nil {
			return h, fmt.Errorf("read what is held: %w", err)
		}
		h.rows = append(h.rows, row)
		h.next = row.Seq + 1
	}
	return h, nil
}

// lagging reports whether nobody has confirmed the log's head for longer than
// the policy allows: a removed member could still read what is written now.
func (a *actor) lagging() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	limit := time.Duration(a.ctl.Policy.MaxEpochLagSeconds) * time.Second
	return limit > 0 && a.sequencerID() != a.self.device.ID() && time.Since(a.confirmed) > limit
}
