package store

import (
	"errors"
	"os"
	"syscall"
)

// datasyncs: files can be synced without what reading them does not need.
const datasyncs = true

// datasync makes a file's data durable, and its size if that changed.
func datasync(f logFile) error {
	c, ok := f.(syscall.Conn)
	if !ok {
		return f.Sync()
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if syncErr = syscall.Fdatasync(int(fd)); !errors.Is(syncErr, syscall.EINTR) {
				return
			}
		}
	})
	if syncErr != nil {
		syncErr = os.NewSyscallError("fdatasync", syncErr)
	}
	return errors.Join(err, syncErr)
}
