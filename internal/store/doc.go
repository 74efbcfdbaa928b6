// Package store makes a node's state durable: the envelopes of its spaces, the
// records drawn from them, its control logs and its small settings, in one
// goleveldb directory.
//
// It promises: a Batch is there whole or not at all, whatever fails in
// between; an Own commit that returned nil survives a power cut; a power cut, or
// a kill, takes only a suffix of the commits of a store, never one from the middle
// without Recovered saying so (a disk may write what is not synced in any order);
// what was written reads back as it was or as an error, never as anything
// else; after a failed write nothing is acknowledged until the disk has proved
// itself; reads go on meanwhile.
//
// It refuses: a directory in use by another process (ErrInUse), of a newer
// format (ErrNewer) or under another key (ErrKey); writes on a full disk
// (ErrFull), which it takes up again by itself, and after any other failed
// write (ErrIO), which it takes up again after Reopen.
//
// Everything at rest is sealed. A row's key is the tag of its space, the byte
// of its table and a MAC of what the row is about, followed, where ranges need
// an order, by a number in the clear; its value is XChaCha20-Poly1305 with the
// key of the row as associated data. A thief of the directory learns how many
// rows each table of each space has, their sizes and those numbers.
//
// Logs under small synced commits are written ahead with zeros, see journal.go:
// such a file is longer than its log. A log is written to only when the one
// before is on disk or in a table, see logs.go.
//
// The 2 KiB set hashes of topics and repos are not written with every commit:
// reading one adds the envelopes or ops that were committed since. That those
// are not there to the last is damage, never another state.
//
// Layout of the directory: FORMAT (version and key check), LOCK, db/ (the
// engine's), and at times REPAIR (damage was met) and AUDIT (damage was
// repaired). A damaged db/ is copied to DIR.damaged-<n> before it is repaired;
// Recovered then says that rows may be missing, and Audit which.
//
// A Store and its Spaces are safe for concurrent use. Slices handed in are not
// kept; slices handed out are the caller's. Iterators read one snapshot and
// must be run to an end or broken out of: the store can not heal under an open
// one. One goroutine, ended by Close, syncs Remote commits in groups; the
// engine under it has its own, of which one outlives Close by up to a second.
package store
