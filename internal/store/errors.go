package store

import (
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	lderrors "github.com/syndtr/goleveldb/leveldb/errors"
)

var (
	// ErrFull: no space left on the device. Nothing of the batch was kept.
	// Writing resumes by itself once there is space.
	ErrFull = errors.New("disk full")
	// ErrIO: the disk failed a write, or failed one before and Reopen has not
	// been called since. Nothing of the batch was kept.
	ErrIO = errors.New("disk failure")
	// ErrDamaged: bytes on disk are not what was written.
	ErrDamaged = errors.New("stored data is damaged")
	// ErrInUse: another process has the directory open.
	ErrInUse = errors.New("in use by another process")
	// ErrNewer: the directory was written by a newer version.
	ErrNewer = errors.New("written by a newer version")
	// ErrKey: the directory was written under another key.
	ErrKey = errors.New("wrong key")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
	// ErrBusy: an iterator is open, so the store can not be reopened now.
	ErrBusy = errors.New("an iterator is open")
)

// writeError says in our words why a write failed.
func writeError(err error) error {
	switch {
	case errors.Is(err, leveldb.ErrClosed):
		return ErrClosed
	case isFull(err):
		return fmt.Errorf("write: %w: %w", ErrFull, err)
	}
	return fmt.Errorf("write: %w: %w", ErrIO, err)
}

// readError says in our words why a read failed.
func readError(err error) error {
	switch {
	case errors.Is(err, leveldb.ErrClosed):
		return ErrClosed
	case isCorrupted(err):
		return fmt.Errorf("read: %w: %w", ErrDamaged, err)
	}
	return fmt.Errorf("read: %w: %w", ErrIO, err)
}

func isCorrupted(err error) bool {
	var c *lderrors.ErrCorrupted
	return lderrors.IsCorrupted(err) || errors.As(err, &c) || errors.Is(err, ErrDamaged)
}
