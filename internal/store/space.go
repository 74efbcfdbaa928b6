package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

const (
	// segmentEnvelopes and segmentBytes bound one value of a run.
	segmentEnvelopes = 256
	segmentBytes     = 1 << 20
	// maxBatch bounds what one commit may write.
	maxBatch = 64 << 20
)

// Space is a handle on the rows of one space. It holds keys.
type Space struct {
	store  *Store
	vault  *vault
	recent *recent
}

// LogValue says which space by its tag on disk.
func (s *Space) LogValue() slog.Value { return slog.StringValue(hex.EncodeToString(s.vault.tag[:6])) }

// Commit writes a batch whole or not at all. An error means that nothing of it
// will be read back by this process, whatever reached the disk. The states in a
// batch must be what its run and its ops make of those before: they are written
// only now and then, and drawn from runs and ops in between. Commits that move
// topics and repos of a space wait for each other.
func (s *Space) Commit(c Class, b *Batch) error {
	w, err := s.vault.rows()
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	defer w.free()
	w.batch.room(sizeOf(b))
	if err := w.run(b.Run); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := w.objects(b); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	defer s.recent.enter(b)()
	if err := w.cut(s, b, cutAtOnce); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	w.replica(b, s.recent)
	w.content(b, s.recent)
	w.queues(b)
	err = w.fits()
	if err == nil && w.batch.rows > 0 {
		err = s.store.write(c, w.batch)
	}
	if err != nil {
		s.recent.forget(b)
		return fmt.Errorf("commit: %w", err)
	}
	b.free()
	return nil
}

func (w *rows) fits() error {
	if w.batch.n > maxBatch {
		return fmt.Errorf("%w: %d bytes", space.ErrTooLarge, w.batch.n)
	}
	return nil
}

// run writes the head of a chain and its new envelopes.
func (w *rows) run(r *RunRow) error {
	if r == nil {
		return nil
	}
	if err := r.check(); err != nil {
		return err
	}
	topic := r.topic()
	if r.Cert != nil {
		w.put(w.chain(tableCert, topic, r.Chain.ID), r.Cert)
	}
	w.plain = appendHead(w.plain[:0], topic, &r.Chain)
	w.put(w.chain(tableHead, topic, r.Chain.ID), w.plain)
	if r.Sealed.of(r.Envs) {
		w.batch.add(r.Sealed.rows)
	} else {
		w.envelopes(r.Envs)
	}
	return nil
}

// envelopes writes envelopes of one chain and their ids.
func (w *rows) envelopes(envs []envelope.Envelope) {
	for len(envs) > 0 {
		part, size := segment(envs)
		topic, chain, first := envs[0].Topic(), envs[0].Chain(), envs[0].Seq()
		w.blinder.run(tableSegment, topic, chain)
		w.lay(w.number(first), size, func(to []byte) []byte {
			for i := range part {
				to = append(to, part[i].Bytes()...)
			}
			return to
		})
		w.blinder.run(tableIDs, topic, chain)
		w.lay(w.number(first), len(part)*len(envelope.ID{}), func(to []byte) []byte {
			for i := range part {
				id := part[i].ID()
				to = append(to, id[:]...)
			}
			return to
		})
		envs = envs[len(part):]
	}
}

func (r *RunRow) topic() envelope.TopicID {
	if len(r.Envs) > 0 {
		return r.Envs[0].Topic()
	}
	return envelope.TopicOf(r.Chain.Cert.Issuer)
}

// segment is the first envelopes, as many as one value holds, and their size.
func segment(envs []envelope.Envelope) (part []envelope.Envelope, size int) {
	n := 0
	for n < min(len(envs), segmentEnvelopes) && (n == 0 || size+envs[n].Len() <= segmentBytes) {
		size += envs[n].Len()
		n++
	}
	return envs[:n], size
}

// check refuses a run that would leave a hole: a mistake of the caller.
func (r *RunRow) check() error {
	if r.Cert != nil && len(r.Cert) != envelope.CertificateSize {
		return fmt.Errorf("%w: certificate of %d bytes", space.ErrMalformed, len(r.Cert))
	}
	if r.Chain.Length != r.Chain.Head.Seq+1 {
		return fmt.Errorf("%w: chain of length %d", space.ErrMalformed, r.Chain.Length)
	}
	for i, e := range r.Envs {
		if e.Chain() != r.Chain.ID || e.Seq() != r.Envs[0].Seq()+uint64(i) {
			return fmt.Errorf("%w: run is not consecutive at %d", space.ErrMalformed, i)
		}
	}
	if n := len(r.Envs); n > 0 && r.Envs[n-1].Head() != r.Chain.Head {
		return fmt.Errorf("%w: run does not end at the chain's head", space.ErrMalformed)
	}
	return nil
}

// replica writes what is known of topics and how far they are applied.
func (w *rows) replica(b *Batch, m *recent) {
	if tails, whole := m.topic(b); whole {
		w.plain = b.Topic.append(w.plain[:0], tails)
		w.put(w.topic(b.Topic.ID), w.plain)
	}
	for i := range b.Applied {
		a := &b.Applied[i]
		w.plain = a.append(w.plain[:0])
		w.put(w.chain(tableApplied, a.Topic, a.Chain), w.plain)
	}
	for i := range b.Control {
		w.put(w.numbered(tableControl, b.Control[i].Seq), b.Control[i].Raw)
	}
}

// content writes records, repos and oplogs.
func (w *rows) content(b *Batch, m *recent) {
	w.records(b.Records)
	for i := range b.Repos {
		w.repo(b, &b.Repos[i], m)
	}
	for i := range b.Ops {
		p := &b.Ops[i]
		if len(p.Rows) == 0 {
			continue
		}
		w.plain = p.append(w.plain[:0])
		w.author(tableOps, p.Author, macSize)
		w.put(w.number(p.First), w.plain)
	}
}

// recordShare is how many records are worth a goroutine.
const recordShare = 64

// records seals many records in several goroutines, unless they are sealed.
func (w *rows) records(records []RecordRow) {
	if w.sealedRecords(records) {
		return
	}
	parts := min(len(records)/recordShare, runtime.GOMAXPROCS(0))
	if parts > 1 && records[0].ahead() != nil {
		parts = 1 // most of them
	}
	n := len(records) / max(parts, 1)
	first, rest := records[:n], records[n:]
	var wg sync.WaitGroup
	var helpers []*rows
	for p := 1; p < parts; p++ {
		h, err := w.v.rows()
		if err != nil {
			break
		}
		helpers = append(helpers, h)
		share := rest[:n]
		rest = rest[n:]
		wg.Go(func() { h.someRecords(share) })
	}
	w.someRecords(first)
	wg.Wait()
	for _, h := range helpers { // of one path the last has to come last
		w.batch.add(h.batch)
		h.free()
	}
	w.someRecords(rest)
}

func (w *rows) someRecords(records []RecordRow) {
	for i := range records {
		r := &records[i]
		if sealed := r.ahead(); sealed != nil {
			w.batch.addRow(sealed)
			continue
		}
		w.plain = r.append(w.plain[:0])
		w.put(w.record(r.Author, r.Path), w.plain)
	}
}

// repo writes the row of a repo or its tip, and the statement if it is new.
func (w *rows) repo(b *Batch, r *RepoRow, m *recent) {
	at, whole, stmt := m.repo(b, r)
	if whole {
		w.plain = r.append(w.plain[:0])
		w.put(w.author(tableRepo, r.Author, macSize), w.plain)
		w.batch.Delete(w.author(tableTip, r.Author, macSize))
	} else {
		w.plain = at.append(w.plain[:0])
		w.put(w.author(tableTip, r.Author, macSize), w.plain)
	}
	switch {
	case stmt && r.Stmt == nil:
		w.batch.Delete(w.author(tableStmt, r.Author, macSize))
	case stmt:
		w.plain = appendStatement(w.plain[:0], r.Stmt)
		w.put(w.author(tableStmt, r.Author, macSize), w.plain)
	}
}

// objects writes sealed objects. One under another's name would be served as
// that: a mistake of the caller.
func (w *rows) objects(b *Batch) error {
	for i := range b.Objects {
		o := &b.Objects[i]
		if len(o.Data) > MaxObject {
			return fmt.Errorf("%w: object of %d bytes", space.ErrTooLarge, len(o.Data))
		}
		if sha256.Sum256(o.Data) != o.Hash {
			return fmt.Errorf("%w: object under another hash", space.ErrMalformed)
		}
		w.put(w.object(o.Hash), o.Data)
	}
	for _, hash := range b.ObjectsDone {
		w.batch.Delete(w.object(hash))
	}
	return nil
}

// queues writes the outbox, what is held and the settings of the space.
func (w *rows) queues(b *Batch) {
	for i := range b.Outbox {
		w.put(w.numbered(tableOutbox, b.Outbox[i].Seq), b.Outbox[i].Frame)
	}
	for _, n := range b.OutboxDone {
		w.batch.Delete(w.numbered(tableOutbox, n))
	}
	for i := range b.Held {
		w.put(w.numbered(tableHeld, b.Held[i].Seq), b.Held[i].Body)
	}
	for _, n := range b.HeldDone {
		w.batch.Delete(w.numbered(tableHeld, n))
	}
	for name, value := range b.Meta {
		if value == nil {
			w.batch.Delete(w.name(name))
			continue
		}
		w.plain = append(appendText(w.plain[:0], name), value...)
		w.put(w.name(name), w.plain)
	}
}
