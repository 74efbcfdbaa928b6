package store

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/kithnet/kith/internal/store/storetest"
)

// bubble runs a store in fake time. The engine keeps a goroutine for up to a
// second after Close.
func bubble(t *testing.T, f func(t *testing.T, disk *storetest.Disk, s *Store, sp *Space)) {
	synctest.Test(t, func(t *testing.T) {
		disk := storetest.NewDisk()
		s := openFaulty(t, disk)
		f(t, disk, s, s.Space(historyID, historyDEK))
		closeStore(t, s)
		<-time.After(2 * time.Second)
	})
}

func entry(i int) *Batch { return &Batch{Control: []ControlRow{{uint64(i), []byte("x")}}} }

func TestSyncsByClass(t *testing.T) {
	bubble(t, func(t *testing.T, disk *storetest.Disk, s *Store, sp *Space) {
		check := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			equal(t, what, disk.Syncs(storage.TypeJournal), want)
		}
		check("opening", 0)
		for i := range 100 {
			commit(t, sp, Derived, entry(i))
		}
		<-time.After(time.Minute)
		check("derived", 0)
		for i := range 10 {
			commit(t, sp, Own, entry(i))
		}
		check("own", 10)
		commit(t, sp, Remote, entry(0))
		<-time.After(syncCalm - 1)
		check("just before it was calm", 10)
		<-time.After(2)
		check("calm", 11)
		for i := range 110 {
			commit(t, sp, Remote, entry(i))
			<-time.After(syncWithin / 50)
		}
		check("two times the limit", 13)
		<-time.After(time.Minute)
		check("nothing left", 14)
		commit(t, sp, Remote, entry(0))
		commit(t, sp, Own, entry(0))
		check("own after remote", 15)
		<-time.After(time.Minute)
		check("own has synced the remote", 15)
		commit(t, sp, Derived, entry(0))
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("Sync", 16)
		if err := errors.Join(s.Sync(t.Context()), s.Sync(t.Context())); err != nil {
			t.Fatal(err)
		}
		check("Sync of nothing", 16)
		commit(t, sp, Remote, entry(0))
		closeStore(t, s)
		check("Close", 17)
	})
}

func TestSyncIsCancelled(t *testing.T) {
	s := openMemory(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A group sync that fails is not passed over.
func TestGroupSyncFails(t *testing.T) {
	bubble(t, func(t *testing.T, disk *storetest.Disk, s *Store, sp *Space) {
		commit(t, sp, Remote, entry(0))
		disk.BreakAfter(0, syscall.EIO)
		<-time.After(time.Second)
		if err := s.Err(); !errors.Is(err, ErrIO) {
			t.Errorf("Err is %v", err)
		}
		disk.Heal()
		if err := sp.Commit(Remote, entry(1)); !errors.Is(err, ErrIO) {
			t.Errorf("commit: %v", err)
		}
		if err := s.Reopen(); err != nil {
			t.Fatal(err)
		}
		equal(t, "rows", len(collect(t, sp.Control())), 1)
	})
}

// A full disk is looked at from time to time, not at every write.
func TestFullDiskIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, disk *storetest.Disk, s *Store, sp *Space) {
		s.engine.opts.RetryAfter = retryAfter
		disk.BreakAfter(0, syscall.ENOSPC)
		if err := sp.Commit(Own, entry(0)); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		disk.Heal()
		if err := sp.Commit(Own, entry(0)); !errors.Is(err, ErrFull) {
			t.Errorf("at once: %v", err)
		}
		<-time.After(retryAfter)
		commit(t, sp, Own, entry(0))
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	})
}

// Reading goes on while an iterator keeps the store from healing.
func TestHealWaitsForIterators(t *testing.T) {
	disk := storetest.NewDisk()
	s := openFaulty(t, disk)
	sp := s.Space(historyID, historyDEK)
	for i := range 3 {
		commit(t, sp, Own, entry(i))
	}
	disk.BreakAfter(0, syscall.ENOSPC)
	if err := sp.Commit(Own, entry(9)); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	disk.Heal()
	n := 0
	for _, err := range sp.Control() {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if err := sp.Commit(Own, entry(9)); !errors.Is(err, ErrFull) {
			t.Errorf("under an iterator: %v", err)
		}
		if err := s.Reopen(); !errors.Is(err, ErrBusy) {
			t.Errorf("Reopen under an iterator: %v", err)
		}
	}
	equal(t, "rows", n, 3)
	commit(t, sp, Own, entry(9))
	closeStore(t, s)
}

// Writers, readers and a failing disk, all at once; then Close in the middle.
// What was acknowledged is there, what was refused is not.
func TestTogether(t *testing.T) {
	disk := storetest.NewDisk()
	s := openFaulty(t, disk)
	var wg, writers sync.WaitGroup
	acked := make([]map[uint64]bool, 8)
	for w := range acked {
		acked[w] = map[uint64]bool{}
		sp := s.Space([32]byte{byte(w)}, historyDEK)
		writers.Go(func() {
			for i := range uint64(150) {
				err := sp.Commit(Class(i%3), &Batch{Control: []ControlRow{{i, make([]byte, 500)}}})
				acked[w][i] = err == nil
				if err != nil && !errors.Is(err, ErrFull) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				for _, err := range sp.Control() {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	written := make(chan struct{})
	wg.Go(func() {
		writers.Wait()
		close(written)
	})
	wg.Go(func() {
		for i := range 20 {
			disk.BreakAfter(20+i, syscall.ENOSPC)
			for s.Err() == nil && i < 15 {
				select {
				case <-written:
					disk.Heal()
					return
				default:
				}
				if err := s.Sync(t.Context()); err != nil {
					break
				}
			}
			disk.Heal()
		}
	})
	wg.Wait()
	// What was refused last is only taken back by what follows it.
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	_ = s.Close() // tells of a compaction that failed
	s = openFaulty(t, disk)
	defer closeStore(t, s)
	for w := range acked {
		there := map[uint64]bool{}
		for _, row := range collect(t, s.Space([32]byte{byte(w)}, historyDEK).Control()) {
			there[row.Seq] = true
		}
		for i, ok := range acked[w] {
			if there[i] != ok {
				t.Errorf("writer %d, commit %d: acknowledged %v, there %v", w, i, ok, there[i])
			}
		}
	}
}

// Close refuses who comes later and waits for nobody but readers.
func TestCloseUnderLoad(t *testing.T) {
	s := openFaulty(t, storetest.NewDisk())
	sp := s.Space(historyID, historyDEK)
	var wg sync.WaitGroup
	started := make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if i == 1 {
					started <- struct{}{}
				}
				err := sp.Commit(Own, entry(i))
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, err := range sp.Control() {
					if err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					break
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	closeStore(t, s)
	wg.Wait()
}
