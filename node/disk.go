package node

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
)

// mendEvery is the least time between two attempts to take up writing again
// on a disk that failed: each proves the disk with some megabytes.
const mendEvery = 500 * time.Millisecond

// mender takes up writing again after the disk failed, for all spaces at once.
type mender struct {
	store *store.Store

	mu    sync.Mutex // guards what follows
	every time.Duration
	last  time.Time
}

// mend answers nil if the store takes writes, and else why it does not.
func (m *mender) mend() error {
	if m.store.Err() == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.store.Err()
	if err == nil {
		return nil
	}
	if time.Since(m.last) < m.every {
		return diskError(err)
	}
	err = m.store.Reopen()
	m.last = time.Now()
	return diskError(err)
}

// diskError adds what the API calls it to an error of the disk.
func diskError(err error) error {
	switch {
	case err == nil || errors.Is(err, space.ErrNoSpaceLeft) || errors.Is(err, space.ErrUnavailable):
		return err
	case errors.Is(err, store.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", space.ErrNoSpaceLeft, err)
	case errors.Is(err, store.ErrIO), errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrClosed), errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w: %w", space.ErrUnavailable, err)
	}
	return err
}
