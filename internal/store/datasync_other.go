//go:build !linux

package store

// datasyncs: not here.
const datasyncs = false

// datasync makes a file durable.
func datasync(f logFile) error { return f.Sync() }
