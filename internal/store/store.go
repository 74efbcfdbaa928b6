package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
)

const (
	// A power cut takes Remote commits of at most the last syncWithin. They are
	// synced when none came for syncCalm: a sync holds up who writes.
	syncCalm   = 20 * time.Millisecond
	syncWithin = 500 * time.Millisecond
)

// Store is an open directory.
type Store struct {
	dir       string // "" is memory
	engine    *engine
	lock      *flock.Flock // nil in memory
	node      *vault
	recovered bool
	copied    string

	rmu     sync.Mutex // guards what follows
	recents map[[tagSize]byte]*recent

	unsynced atomic.Int64  // Remote commits since the last group sync began
	views    atomic.Int32  // not released
	kick     chan struct{} // 1 if there are some
	stop     chan struct{}
	stopped  sync.WaitGroup
	closing  sync.Once
	closeErr error
}

// run starts the group sync.
func (s *Store) run() {
	s.recents = make(map[[tagSize]byte]*recent)
	s.kick, s.stop = make(chan struct{}, 1), make(chan struct{})
	s.stopped.Go(s.syncGroups)
}

func (s *Store) syncGroups() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.kick:
		}
		if !s.gather() {
			return
		}
		s.unsynced.Store(0)
		_ = s.engine.sync() // a failure stays: Err has it, and the next commit
	}
}

// gather waits until no commit came for a while, or the time of the first is up.
func (s *Store) gather() bool {
	limit, calm := time.NewTimer(syncWithin), time.NewTicker(syncCalm)
	defer limit.Stop()
	defer calm.Stop()
	for seen := s.unsynced.Load(); ; {
		select {
		case <-s.stop:
			return false
		case <-limit.C:
			return true
		case <-calm.C:
			n := s.unsynced.Load()
			if n == seen {
				return true
			}
			seen = n
		}
	}
}

// write writes a batch as its class asks for.
func (s *Store) write(c Class, b *batch) error {
	if err := s.engine.write(b, c == Own); err != nil {
		if isCorrupted(err) {
			_ = s.noteDamage(err)
		}
		return err
	}
	if c == Remote {
		if s.unsynced.Add(1) == 1 {
			select {
			case s.kick <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// Sync makes durable whatever was committed before.
func (s *Store) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.engine.sync()
}

// Err is why nothing is written now: nil, ErrFull or ErrIO.
func (s *Store) Err() error {
	if f := s.engine.fault.Load(); f != nil {
		return f.err
	}
	return nil
}

// Reopen tries to take up writing again after a failure: it proves the disk,
// opens the database anew and takes back what the failed write may have left.
// It returns nil if nothing is wrong (any more), and ErrBusy if an iterator is
// open.
func (s *Store) Reopen() error { return s.engine.reopen() }

// Recovered reports whether damage was repaired at Open, this time or earlier,
// and Audited was not called since: rows may be missing. Audit says which.
func (s *Store) Recovered() bool { return s.recovered }

// Audited is to be called after a repair when every space has been audited,
// and what is missing is known to whoever will fetch it.
func (s *Store) Audited() error {
	if s.dir == "" {
		return nil
	}
	err := os.Remove(filepath.Join(s.dir, auditFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// DamagedCopy names the directory that holds the damaged database as it was
// found, if Open repaired one.
func (s *Store) DamagedCopy() string { return s.copied }

// Close syncs and closes. Commits fail from now on; it waits for iterators.
func (s *Store) Close() error {
	s.closing.Do(func() {
		close(s.stop)
		s.stopped.Wait()
		s.closeErr = s.engine.close()
		if s.lock != nil {
			s.closeErr = errors.Join(s.closeErr, s.lock.Unlock())
		}
	})
	return s.closeErr
}

// Space gives a handle on the rows of a space, sealed under dek.
func (s *Store) Space(id [32]byte, dek [32]byte) *Space {
	v := newVault(id, dek)
	return &Space{store: s, vault: v, recent: s.recentOf(v.tag)}
}

// get reads one row.
func (s *Store) get(v *vault, key []byte) ([]byte, bool, error) {
	r, err := s.reader()
	if err != nil {
		return nil, false, err
	}
	defer r.release()
	return r.get(v, key)
}

// noteDamage leaves a note for the next Open when the engine can not read what
// it wrote: a repair has to rebuild tables, which can not be done under us.
func (s *Store) noteDamage(err error) error {
	err = readError(err)
	if errors.Is(err, ErrDamaged) && s.dir != "" {
		_ = os.WriteFile(filepath.Join(s.dir, repairFile), []byte(err.Error()+"\n"), 0o600)
	}
	return fmt.Errorf("store: %w", err)
}
