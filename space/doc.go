// Package space is the domain: what a space, a record and a repo are, which
// writes are valid and what they change.
//
// It promises one encoding for each value (DRISL, checked byte by byte),
// identifiers that exist only in valid form, and a per-author set hash that is
// updated with every applied op and with nothing else. It refuses floats,
// second encodings, and anything over its caps.
//
// It is pure: no I/O, no clock, no randomness, no goroutine, no logger. Time
// comes in as microseconds since the Unix epoch. Values returned are the
// caller's; byte slices passed in are not kept unless the doc says so. Nothing
// here locks: one goroutine owns a Repo.
package space
