package store

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space/envelope"
)

// openBare opens goleveldb alone, with the settings of the store.
func openBare(b *testing.B) *leveldb.DB {
	db := must[*leveldb.DB](b)(leveldb.OpenFile(filepath.Join(b.TempDir(), "bare"), Options{}.withDefaults().engine(strict)))
	b.Cleanup(func() { _ = db.Close() })
	return db
}

// BenchmarkReceive commits received runs of 256 entries of one record each:
// segment, chain, topic, records, oplog page, repo. Between the commits it
// writes batches of 256 puts of 300 bytes to a bare goleveldb, which is the
// measure: ratio is the time of the one to the time of the other.
func BenchmarkReceive(b *testing.B) {
	const n = 256
	s := openDisk(b, filepath.Join(b.TempDir(), "store"), Options{})
	defer closeStore(b, s)
	sp := s.Space([32]byte{1}, [32]byte{2})
	bare := openBare(b)
	c, a := newChain(b, 1, 2), newAuthor(b, testAuthor)
	topic := TopicRow{ID: c.topic}
	key, value := make([]byte, 41), make([]byte, 300)
	var ours, theirs time.Duration
	for i := range b.N {
		batch := &Batch{Run: c.next(n), Topic: &topic}
		fold(&topic, batch.Run.Envs)
		batch.Applied = []AppliedRow{{Topic: c.topic, Chain: c.chain.ID, Seq: c.chain.Head.Seq, State: make([]byte, 100)}}
		a.write(batch, i*n, n, "a note of a length that is usual for notes, more or less, give or take a few words")
		start := time.Now()
		commit(b, sp, Remote, batch)
		ours += time.Since(start)

		puts := new(leveldb.Batch)
		for range n {
			rand.Read(key)
			rand.Read(value)
			puts.Put(key, value)
		}
		start = time.Now()
		if err := bare.Write(puts, nil); err != nil {
			b.Fatal(err)
		}
		theirs += time.Since(start)
	}
	b.ReportMetric(float64(n*b.N)/ours.Seconds(), "entries/s")
	b.ReportMetric(float64(n*b.N)/theirs.Seconds(), "bare-puts/s")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
}

// BenchmarkFill seals and commits what an empty node is filled with: groups of
// four entries of 200 records of 256 bytes, in one goroutine.
func BenchmarkFill(b *testing.B) {
	const entries, n = 4, 200
	s := openDisk(b, filepath.Join(b.TempDir(), "store"), Options{})
	defer closeStore(b, s)
	sp := s.Space([32]byte{1}, [32]byte{2})
	c, a := newChain(b, 1, 2), newAuthor(b, testAuthor)
	c.size = envelope.PaddedSize(60_000)
	topic := TopicRow{ID: c.topic}
	var sealing, committing time.Duration
	for i := range b.N {
		batch := &Batch{Run: c.next(entries), Topic: &topic}
		fold(&topic, batch.Run.Envs)
		for e := range entries {
			a.write(batch, (i*entries+e)*n, n, strings.Repeat("x", 205))
		}
		batch.Repos = batch.Repos[len(batch.Repos)-1:]
		start := time.Now()
		batch.Run.Sealed = must[*SealedRun](b)(sp.SealRun(batch.Run.Envs))
		for e := range entries {
			if err := sp.SealRecords(batch.Records[e*n : (e+1)*n]); err != nil {
				b.Fatal(err)
			}
		}
		sealing += time.Since(start)
		start = time.Now()
		commit(b, sp, Remote, batch)
		committing += time.Since(start)
	}
	records := float64(b.N * entries * n)
	b.ReportMetric(records/sealing.Seconds(), "sealed/s")
	b.ReportMetric(records/committing.Seconds(), "committed/s")
}

// ownWriter makes the batches of a node's own writes of one record each, of the
// sizes they have there.
type ownWriter struct {
	c     *chainMaker
	a     *author
	topic TopicRow
}

func newOwnWriter(t testing.TB) *ownWriter {
	w := &ownWriter{c: newChain(t, 1, 2), a: newAuthor(t, testAuthor)}
	w.c.size = envelope.PaddedSize(330) // an entry of such a record
	w.topic.ID = w.c.topic
	return w
}

func (w *ownWriter) next(i int) *Batch {
	b := &Batch{Run: w.c.next(1), Topic: &w.topic}
	fold(&w.topic, b.Run.Envs)
	w.a.write(b, i, 1, strings.Repeat("x", 220))
	b.Outbox = []OutboxRow{{uint64(i), make([]byte, 75)}}
	if i > 0 {
		b.OutboxDone = []uint64{uint64(i - 1)}
	}
	b.Applied = []AppliedRow{{Topic: w.c.topic, Chain: w.c.chain.ID, Seq: w.c.chain.Head.Seq, State: make([]byte, 18)}}
	return b
}

// bytesOfOwn is what a commit of a node's own brings to the log.
func bytesOfOwn(t testing.TB) float64 {
	const n = 4 * foldMost
	disk := storetest.NewDisk()
	s := must[*Store](t)(OpenOn(disk, [32]byte{1}, Options{}))
	defer closeStore(t, s)
	sp := s.Space([32]byte{1}, [32]byte{2})
	w := newOwnWriter(t)
	for i := range n {
		commit(t, sp, Derived, w.next(i)) // not written ahead
	}
	return float64(disk.Written(storage.TypeJournal)) / n
}

// BenchmarkOwn commits single own entries, synced, and between them puts 300
// bytes into a bare goleveldb, synced.
func BenchmarkOwn(b *testing.B) {
	s := openDisk(b, filepath.Join(b.TempDir(), "store"), Options{})
	defer closeStore(b, s)
	sp := s.Space([32]byte{1}, [32]byte{2})
	bare := openBare(b)
	w := newOwnWriter(b)
	key, value := make([]byte, 41), make([]byte, 300)
	var ours, theirs time.Duration
	for i := range b.N {
		batch := w.next(i)
		start := time.Now()
		commit(b, sp, Own, batch)
		ours += time.Since(start)

		rand.Read(key)
		rand.Read(value)
		start = time.Now()
		if err := bare.Put(key, value, &opt.WriteOptions{Sync: true}); err != nil {
			b.Fatal(err)
		}
		theirs += time.Since(start)
	}
	b.ReportMetric(bytesOfOwn(b), "bytes/commit")
	b.ReportMetric(float64(b.N)/ours.Seconds(), "commits/s")
	b.ReportMetric(float64(b.N)/theirs.Seconds(), "bare-puts/s")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
}

// A record that a node writes costs few bytes of log: they cost time, and later
// table writes and wear.
func TestOwnCommitIsSmall(t *testing.T) {
	const n, most = 4 * foldMost, 2 << 10
	dir := filepath.Join(t.TempDir(), "store")
	s := openDisk(t, dir, Options{})
	defer closeStore(t, s)
	sp := s.Space([32]byte{1}, [32]byte{2})
	w := newOwnWriter(t)
	for i := range n {
		commit(t, sp, Derived, w.next(i))
	}
	logs := must[[]string](t)(filepath.Glob(filepath.Join(dir, dbDir, "*.log")))
	equal(t, "logs", len(logs), 1)
	info := must[fs.FileInfo](t)(os.Stat(logs[0]))
	if got := info.Size() / n; got > most {
		t.Errorf("%d bytes a commit, not %d at most", got, most)
	}
}

// BenchmarkLoad reads the records of an author, as a node does when it starts.
func BenchmarkLoad(b *testing.B) {
	s := openDisk(b, filepath.Join(b.TempDir(), "store"), Options{})
	defer closeStore(b, s)
	sp := s.Space([32]byte{1}, [32]byte{2})
	a := newAuthor(b, testAuthor)
	const n = 10_000
	for i := range n / 200 {
		batch := new(Batch)
		a.write(batch, i*200, 200, "a note")
		commit(b, sp, Derived, batch)
	}
	b.ResetTimer()
	for range b.N {
		if got := len(collect(b, sp.Records(testAuthor))); got != n {
			b.Fatal(got)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "records/s")
}
