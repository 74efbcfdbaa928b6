// Package keyfile keeps a node's secret keys on disk, in one directory.
//
// identity.age holds an age X25519 identity: in plain when there is no
// passphrase, wrapped with scrypt when there is one. Every other file is
// encrypted to that identity, so the passphrase locks one small file and the
// others are written without it. Both kinds are ordinary age files: without
// this program, `age -d -i identity.age NAME` opens any of them.
//
// It promises that Put is durable when it returns (temporary file, fsync,
// rename, fsync of the directory), that a crash at any point leaves a readable
// generation, and that the generation before is kept as NAME.1: Read falls back
// to it when the newest is damaged, and Warnings says so. identity.age has a
// second copy for the same reason. The name is sealed with the content, so that
// files cannot be swapped. Directories are 0700, files 0600; wider ones are
// narrowed and reported.
//
// It refuses to overwrite: Create fails where any key is. It does not defend
// against a reader of an unprotected directory (Protected tells), against an
// older copy put back by somebody who can write to the disk, or against the
// storage keeping what was deleted.
//
// A Store may be used by many goroutines; a directory belongs to one process at
// a time, which the caller sees to. Bytes passed in are not kept, bytes
// returned are the caller's.
package keyfile
