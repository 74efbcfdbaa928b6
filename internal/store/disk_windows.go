package store

import (
	"errors"
	"syscall"
)

// The Windows errors for a full device (winerror.h).
const (
	errorHandleDiskFull = syscall.Errno(39)
	errorDiskFull       = syscall.Errno(112)
)

// isFull reports whether err says that the device is full.
func isFull(err error) bool {
	return errors.Is(err, errorDiskFull) || errors.Is(err, errorHandleDiskFull) || errors.Is(err, syscall.ENOSPC)
}

// syncDir does nothing: NTFS journals names.
func syncDir(string) error { return nil }
