package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/kithnet/kith/internal/store/storetest"
)

// A batch that fills the write buffer to the last byte makes the engine begin
// a new log after it, not before. The old one must be synced all the same.
func TestLogsAreSyncedBeforeTheyEnd(t *testing.T) {
	for _, less := range []int{0, 1, 7, 8, 9, 30, 4095, 4096, 4097} {
		disk := storetest.NewDisk()
		s := openFaulty(t, disk)
		b := new(batch)
		b.Put(markerKey, marker(0))
		size := b.n // of the marker that will be added
		b.reset()
		key := []byte("fits")
		b.Put(key, make([]byte, minWriteBuffer-size-internalKey-len(key)-less))
		if err := s.engine.write(b, false); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			b := new(batch)
			b.Put(fmt.Append(nil, "after ", i), nil)
			if err := s.engine.write(b, i == 2); err != nil {
				t.Fatal(err)
			}
		}
		after := openFaulty(t, disk.Clone(nil))
		for _, k := range []string{"fits", "after 0", "after 1", "after 2"} {
			if ok, err := after.engine.db.Has([]byte(k), nil); !ok || err != nil {
				t.Errorf("%d bytes left: %q is there: %v, %v", less, k, ok, err)
			}
		}
		closeStore(t, after)
		closeStore(t, s)
	}
}

// If what was acknowledged is gone when the database is opened again after a
// failure, as after a failed sync it may be, nothing is written any more.
func TestNoHealingOverALoss(t *testing.T) {
	disk := storetest.NewDisk()
	s := openFaulty(t, disk)
	sp := s.Space(historyID, historyDEK)
	commit(t, sp, Own, entry(0))
	commit(t, sp, Derived, entry(1))
	disk.BreakAfter(0, syscall.ENOSPC)
	if err := sp.Commit(Own, entry(2)); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	disk.Heal()
	disk.Forget(storage.TypeJournal)
	for range 3 {
		if err := sp.Commit(Own, entry(2)); !errors.Is(err, ErrIO) && !errors.Is(err, ErrFull) {
			t.Errorf("commit: %v", err)
		}
		if err := s.Reopen(); !errors.Is(err, ErrIO) {
			t.Errorf("Reopen: %v", err)
		}
	}
	equal(t, "rows", len(collect(t, sp.Control())), 1)
	closeStore(t, s)
}

// A log that ends within a record opens as recovered, not in silence.
func TestTornLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openDisk(t, dir, Options{})
	commit(t, s.Space(historyID, historyDEK), Own, entry(0))
	closeStore(t, s)
	logs := must[[]string](t)(filepath.Glob(filepath.Join(dir, dbDir, "*.log")))
	f, err := os.OpenFile(logs[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// A chunk header that promises 100 bytes, the first of more chunks.
	_, err = f.Write([]byte{1, 2, 3, 4, 100, 0, 2, 'x'})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s = openDisk(t, dir, Options{})
	if !s.Recovered() {
		t.Error("not recovered")
	}
	equal(t, "rows", len(collect(t, s.Space(historyID, historyDEK).Control())), 1)
	closeStore(t, s)
	s = openDisk(t, dir, Options{})
	if !s.Recovered() || s.DamagedCopy() != "" {
		t.Errorf("before Audited: recovered %v, copied to %q", s.Recovered(), s.DamagedCopy())
	}
	if err := errors.Join(s.Audited(), s.Audited()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openDisk(t, dir, Options{})
	if s.Recovered() {
		t.Error("recovered after Audited")
	}
	closeStore(t, s)
}

// Around a block that can not be read, all else is kept.
func TestSalvage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openDisk(t, dir, Options{WriteBufferBytes: minWriteBuffer})
	sp := s.Space(historyID, historyDEK)
	const rows = 400
	for i := range rows {
		commit(t, sp, Derived, &Batch{Control: []ControlRow{{uint64(i), make([]byte, 1000)}}})
	}
	closeStore(t, s)
	closeStore(t, openDisk(t, dir, Options{})) // turns the log into a table
	tables := must[[]string](t)(filepath.Glob(filepath.Join(dir, dbDir, "*.ldb")))
	data := must[[]byte](t)(os.ReadFile(tables[0]))
	data[10_000] ^= 1
	if err := os.WriteFile(tables[0], data, 0o600); err != nil {
		t.Fatal(err)
	}

	s = openDisk(t, dir, Options{})
	var err error
	for _, e := range s.Space(historyID, historyDEK).Control() {
		err = errors.Join(err, e)
	}
	if !errors.Is(err, ErrDamaged) || s.Recovered() {
		t.Fatalf("reads %v, recovered %v", err, s.Recovered())
	}
	closeStore(t, s)
	s = openDisk(t, dir, Options{})
	defer closeStore(t, s)
	n := len(collect(t, s.Space(historyID, historyDEK).Control()))
	if !s.Recovered() || n == rows || n < rows-10 {
		t.Errorf("recovered %v, %d rows", s.Recovered(), n)
	}
}

// An interrupted replacement of the database is taken up again.
func TestReplacingIsTakenUp(t *testing.T) {
	for name, c := range map[string]struct {
		interrupt func(db string) error
		rows      int
	}{
		"copying":                  {func(db string) error { return os.Mkdir(db+".new", 0o700) }, 1},
		"old one out of the way":   {func(db string) error { return os.Rename(db, db+".new") }, 1},
		"new one in place":         {func(db string) error { return os.MkdirAll(db+".old/x", 0o700) }, 1},
		"nothing left (by others)": {os.RemoveAll, 0},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		s := openDisk(t, dir, Options{})
		commit(t, s.Space(historyID, historyDEK), Own, entry(0))
		closeStore(t, s)
		db := filepath.Join(dir, dbDir)
		if err := c.interrupt(db); err != nil {
			t.Fatal(err)
		}
		s = openDisk(t, dir, Options{})
		equal(t, name, len(collect(t, s.Space(historyID, historyDEK).Control())), c.rows)
		equal(t, name+": recovered", s.Recovered(), c.rows == 0)
		closeStore(t, s)
		for _, left := range []string{".new", ".old"} {
			if _, err := os.Stat(db + left); err == nil {
				t.Errorf("%s: %s is left", name, left)
			}
		}
	}
}

// The same envelopes may be stored in segments that overlap.
func TestSegmentsMayOverlap(t *testing.T) {
	sp := openMemory(t).Space(historyID, historyDEK)
	c := newChain(t, 1, 2)
	r := c.next(10)
	commit(t, sp, Own, &Batch{Run: r})
	commit(t, sp, Own, &Batch{Run: &RunRow{Chain: r.Chain, Envs: r.Envs[5:]}})
	commit(t, sp, Own, &Batch{Run: c.next(5)})
	for from := range uint64(15) {
		run, err := sp.Run(c.topic, c.chain.ID, from, 20, 1<<20)
		if err != nil || len(run) != 15-int(from) {
			t.Fatalf("from %d: %d envelopes, %v", from, len(run), err)
		}
		for i, e := range run {
			equal(t, "seq", e.Seq(), from+uint64(i))
		}
	}
}
