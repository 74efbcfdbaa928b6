package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// To seal is most of the work of a commit, and asks for nothing that the commits
// before it decide. So it can be done before its turn, by any goroutine. What was
// sealed and is not committed is thrown away; what is committed is used up, and its
// memory is used again: rows that are committed once more are sealed anew.

// SealedRun is the rows of a run, sealed before the commit that brings them.
type SealedRun struct {
	rows        *batch // nil: used
	first, last envelope.ID
}

// SealRun seals the rows of a consecutive run of one chain.
func (s *Space) SealRun(run []envelope.Envelope) (*SealedRun, error) {
	w, err := s.vault.rowsFrom(&runBatches)
	if err != nil {
		return nil, fmt.Errorf("seal a run: %w", err)
	}
	defer w.free()
	w.batch.room(sizeOfRun(run))
	w.envelopes(run)
	return &SealedRun{rows: w.keep(), first: run[0].ID(), last: run[len(run)-1].ID()}, nil
}

// sealedRecords is the rows of records that were sealed together.
type sealedRecords struct {
	rows atomic.Pointer[batch] // nil: used up
	left atomic.Int32          // records that were not committed
}

// ahead is the row of a record that was sealed ahead, or nil.
func (r *RecordRow) ahead() []byte {
	if r.sealed == nil {
		return nil
	}
	rows := r.sealed.rows.Load()
	if rows == nil {
		return nil
	}
	return rows.raw[r.from:r.to]
}

// free is for a batch that was committed.
func (b *Batch) free() {
	if b.Run != nil && b.Run.Sealed != nil && b.Run.Sealed.rows != nil {
		b.Run.Sealed.rows.free()
		b.Run.Sealed.rows = nil
	}
	for i := range b.Records {
		r := b.Records[i].sealed
		if r == nil || r.left.Add(-1) > 0 {
			continue
		}
		if rows := r.rows.Swap(nil); rows != nil {
			rows.free()
		}
	}
}

// of reports whether r is of this very run, which is linked: its ends tell.
func (r *SealedRun) of(run []envelope.Envelope) bool {
	return r != nil && r.rows != nil && len(run) > 0 && r.first == run[0].ID() && r.last == run[len(run)-1].ID()
}

// SealRecords seals the rows of records. What they say must not change after.
func (s *Space) SealRecords(records []RecordRow) error {
	w, err := s.vault.rowsFrom(&recordBatches)
	if err != nil {
		return fmt.Errorf("seal records: %w", err)
	}
	defer w.free()
	w.batch.room(sizeOfRecords(records))
	all := new(sealedRecords)
	var author space.DID
	var group int
	for i := range records {
		r := &records[i]
		if i == 0 || r.Author != author {
			author, group = r.Author, len(w.author(tableRecord, r.Author, groupSize))
		}
		w.plain = r.append(w.plain[:0])
		r.from = uint32(len(w.batch.raw))
		w.put(w.recordOf(group, author, r.Path), w.plain)
		r.sealed, r.to = all, uint32(len(w.batch.raw))
	}
	all.left.Store(int32(len(records)))
	all.rows.Store(w.keep())
	return nil
}

// recordMAC is where in a sealed record's row the bytes of its key begin in which
// it differs from others of its author.
const recordMAC = 1 + 1 + tagSize + 1 + groupSize

// place is where a row stands that is to be sorted.
type place struct {
	mac uint64
	at  int
}

// sealedRecords writes records if all are sealed: by ascending keys, those of one
// key as they come. The engine sorts what is nearly sorted in half the time.
func (w *rows) sealedRecords(records []RecordRow) bool {
	order := make([]place, len(records))
	for i := range records {
		sealed := records[i].ahead()
		if sealed == nil {
			return false
		}
		order[i] = place{binary.BigEndian.Uint64(sealed[recordMAC:]), i}
	}
	slices.SortFunc(order, func(a, b place) int { return cmp.Or(cmp.Compare(a.mac, b.mac), a.at-b.at) })
	for _, p := range order {
		w.batch.addRow(records[p.at].ahead())
	}
	return true
}

// What a row takes besides its longest part: key, nonce and tag, and the rest.
const (
	aroundEnvelope = 40 // its share of two rows
	aroundRecord   = 320
)

// sizeOf is about how much the rows of a batch take.
func sizeOf(b *Batch) int {
	n := sizeOfRecords(b.Records)
	if b.Run != nil {
		n += sizeOfRun(b.Run.Envs)
	}
	return n
}

func sizeOfRun(run []envelope.Envelope) int {
	n := 256
	for i := range run {
		n += run[i].Len() + aroundEnvelope
	}
	return n
}

func sizeOfRecords(records []RecordRow) int {
	n := 0
	for i := range records {
		n += len(records[i].Value) + aroundRecord
	}
	return n
}
