package relay

import (
	"encoding/binary"
	"time"

	"github.com/kithnet/kith/internal/store"
)

// evict drops entries and shards that are older than the topic's retention,
// oldest first, until need bytes are free or nothing may go any more. Chains
// that hold control envelopes stay whole: what stands behind a gap is of no use
// to anybody. It runs on the owner.
func (t *topic) evict(need uint64, now time.Time) error {
	before := now.Add(-t.retention())
	if _, until := t.ledger.live(now); !now.Before(until) {
		before = now // no lease: everything that may go
	}
	whole, err := t.needed()
	if err != nil {
		return err
	}
	freed := uint64(0)
	var rows []store.OutboxRow
	for row, err := range t.store.OutboxFrom(0) {
		if err != nil {
			return err
		}
		a, err := parseArrival(row.Frame)
		if err != nil {
			return err
		}
		if freed >= need || a.at >= uint64(max(0, before.Unix())) {
			break
		}
		if row.Seq+1 != t.next && a.droppable(before) && (a.object || !whole[a.id]) {
			rows, freed = append(rows, row), freed+uint64(a.bytes)
		}
	}
	for _, row := range rows {
		if err := t.drop(row); err != nil {
			return err
		}
	}
	return nil
}

// needed are the chains that hold something else than entries beyond their
// beginning.
func (t *topic) needed() (map[[32]byte]bool, error) {
	const control = 1 << 3
	whole := map[[32]byte]bool{}
	for row, err := range t.store.OutboxFrom(0) {
		if err != nil {
			return nil, err
		}
		a, err := parseArrival(row.Frame)
		if err != nil {
			return nil, err
		}
		if !a.object && a.types&control != 0 {
			whole[a.id] = true
		}
	}
	return whole, nil
}

// drop gives up what one arrival brought.
func (t *topic) drop(row store.OutboxRow) error {
	a, err := parseArrival(row.Frame)
	if err != nil {
		return err
	}
	freed := t.freed + uint64(a.bytes)
	b := &store.Batch{Meta: map[string][]byte{freedMeta: binary.BigEndian.AppendUint64(nil, freed)}}
	if a.object {
		b.ObjectsDone, b.OutboxDone = [][32]byte{a.id}, []uint64{row.Seq}
	} else if err := t.store.Prune(t.id, a.id, a.from, a.from+uint64(a.count)-1, row.Seq); err != nil {
		return diskError(err)
	}
	if err := t.store.Commit(store.Derived, b); err != nil {
		return diskError(err)
	}
	t.mu.Lock()
	t.freed = freed
	t.mu.Unlock()
	t.relay.held.Add(-int64(a.bytes))
	return nil
}

// retention is how long entries stay while there is room for them or not.
func (t *topic) retention() time.Duration {
	t.mu.Lock()
	wish := time.Duration(t.desc.RetentionDays) * day
	t.mu.Unlock()
	if wish > 0 {
		return min(wish, t.relay.cfg.Retention)
	}
	return t.relay.cfg.Retention
}
