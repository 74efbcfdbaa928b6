package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// mode says how a database is opened.
type mode uint8

const (
	strict   mode = iota // refuse any damage
	lenient              // drop damaged log records
	readOnly             // write nothing; drop damaged log records
	probe                // write nothing, refuse any damage
	salvage              // write nothing, read around damage
)

// Options tunes a Store. The zero value is fit for a small node.
type Options struct {
	// CacheBytes bounds the cache of table blocks, 8 MiB if zero. Machines
	// with memory to spare scan faster with 64 MiB.
	CacheBytes int
	// WriteBufferBytes is how much is gathered in memory and in the log
	// before it becomes a table, 8 MiB if zero. Three times that is in use at
	// times.
	WriteBufferBytes int
	// RetryAfter is how long a full disk is left alone before a write looks at
	// it again, half a second if zero; below zero every write looks.
	RetryAfter time.Duration

	ahead bool // logs are written ahead
}

// Medium is where a database is kept: a directory, or a disk that fails, in
// tests.
type Medium interface {
	// Files gives the files of the database. The engine holds them from Lock
	// until it unlocks; then they are closed. The writers of logs have to
	// write at a place and truncate as well, if a power cut is to leave a prefix
	// of all commits.
	Files(readOnly bool) (storage.Storage, error)
	// Settle makes durable what the manifest says, and its name.
	Settle() error
	// Probe proves that n more bytes can be written and synced.
	Probe(n int) error
	// Names makes the names of files durable.
	Names() error
}

const (
	defaultCache       = 8 << 20
	defaultWriteBuffer = 8 << 20
	minWriteBuffer     = 64 << 10
	openTables         = 192 // file descriptors kept for tables
	filterBits         = 10  // Bloom filter bits a key
	tableSize          = 4 << 20
	levelSize          = 32 << 20 // of level 1; each further level has ten times that
	// Writers wait a millisecond each when this many tables overlap, and until
	// they are compacted when there are half as many again. All keys being
	// random, all new tables overlap.
	slowdown = 48
	// overlapping is how many tables overlap before they are merged with all of
	// level 1: what an empty node is filled with would be merged again and again.
	overlapping = 32
)

func (o Options) withDefaults() Options {
	if o.CacheBytes <= 0 {
		o.CacheBytes = defaultCache
	}
	if o.WriteBufferBytes <= 0 {
		o.WriteBufferBytes = defaultWriteBuffer
	}
	o.WriteBufferBytes = max(o.WriteBufferBytes, minWriteBuffer)
	if o.RetryAfter == 0 {
		o.RetryAfter = retryAfter
	}
	return o
}

func (o Options) engine(m mode) *opt.Options {
	e := &opt.Options{
		BlockCacheCapacity:     o.CacheBytes,
		WriteBuffer:            o.WriteBufferBytes,
		OpenFilesCacheCapacity: openTables,
		Filter:                 filter.NewBloomFilter(filterBits),
		Compression:            opt.NoCompression, // ciphertext
		CompactionTableSize:    tableSize,
		CompactionTotalSize:    levelSize,
		CompactionL0Trigger:    overlapping,
		WriteL0SlowdownTrigger: slowdown,
		WriteL0PauseTrigger:    slowdown * 3 / 2,
		// A large batch goes through the log like every other: the order of
		// commits after a crash hangs on it.
		DisableLargeBatchTransaction: true,
		// StrictRecovery: a recovery leaves damaged tables out. Otherwise it
		// rewrites them in the order of another comparer, and reading them
		// panics (goleveldb v1.0.0).
		Strict:   opt.DefaultStrict | opt.StrictRecovery,
		ReadOnly: m == readOnly || m == probe || m == salvage,
	}
	if m == strict {
		e.Strict |= opt.StrictJournal | opt.StrictManifest
	}
	if m == probe {
		e.Strict = opt.StrictAll
	}
	if m == salvage {
		e.Strict = opt.StrictJournalChecksum | opt.StrictBlockChecksum
	}
	return e
}

// disk is a directory; "" is memory.
type disk struct{ dir string }

var _ Medium = (*disk)(nil)

func (d *disk) Files(readOnly bool) (storage.Storage, error) {
	if d.dir == "" {
		return storage.NewMemStorage(), nil
	}
	return storage.OpenFile(d.dir, readOnly)
}

// Settle does what the engine does not: it begins a manifest at every open and
// points to it without syncing it, having removed the one before.
func (d *disk) Settle() error {
	if d.dir == "" {
		return nil
	}
	files, err := listFiles(d.dir)
	if err != nil {
		return err
	}
	for _, name := range files {
		if !strings.HasPrefix(name, "MANIFEST-") {
			continue
		}
		f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(d.dir)
}

func (d *disk) Probe(n int) (err error) {
	if d.dir == "" {
		return nil
	}
	f, err := os.CreateTemp(d.dir, "probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	b := make([]byte, 64<<10)
	for ; n > 0; n -= len(b) {
		if _, err := f.Write(b[:min(n, len(b))]); err != nil {
			return err
		}
	}
	return f.Sync()
}

func (d *disk) Names() error {
	if d.dir == "" {
		return nil
	}
	return syncDir(d.dir)
}

// listFiles names the files of a directory; none if it is not there.
func listFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
