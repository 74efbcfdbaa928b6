package store

import (
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// To seal is most of the work of a commit, and asks for nothing that the commits
// before it decide. So it can be done before its turn, by any goroutine. What was
// sealed and is not committed is thrown away.

// SealedRun is the rows of a run, sealed before the commit that brings them.
type SealedRun struct {
	rows        batch
	first, last envelope.ID
}

// SealRun seals the rows of a consecutive run of one chain.
func (s *Space) SealRun(run []envelope.Envelope) (*SealedRun, error) {
	w, err := s.vault.rows()
	if err != nil {
		return nil, fmt.Errorf("seal a run: %w", err)
	}
	defer w.free()
	w.batch.room(sizeOfRun(run))
	w.envelopes(run)
	return &SealedRun{rows: w.keep(), first: run[0].ID(), last: run[len(run)-1].ID()}, nil
}

// of reports whether r is of this very run, which is linked: its ends tell.
func (r *SealedRun) of(run []envelope.Envelope) bool {
	return r != nil && len(run) > 0 && r.first == run[0].ID() && r.last == run[len(run)-1].ID()
}

// SealRecords seals the rows of records. What they say must not change after.
func (s *Space) SealRecords(records []RecordRow) error {
	w, err := s.vault.rows()
	if err != nil {
		return fmt.Errorf("seal records: %w", err)
	}
	defer w.free()
	w.batch.room(sizeOfRecords(records))
	ends := make([]int, len(records))
	var author space.DID
	var group int
	for i := range records {
		r := &records[i]
		if i == 0 || r.Author != author {
			author, group = r.Author, len(w.author(tableRecord, r.Author, groupSize))
		}
		w.plain = r.append(w.plain[:0])
		w.put(w.recordOf(group, author, r.Path), w.plain)
		ends[i] = len(w.batch.raw)
	}
	raw, from := w.keep().raw, 0
	for i, end := range ends {
		records[i].sealed = raw[from:end:end]
		from = end
	}
	return nil
}

// What a row takes besides its longest part: key, nonce and tag, and the rest.
const (
	aroundEnvelope = 40 // its share of two rows
	aroundRecord   = 320
)

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
