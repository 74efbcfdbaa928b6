// Package node assembles one person's node and runs it: keys, store and
// network come together here and nowhere else.
//
// It promises that a write is acknowledged only once it is durable, with
// everything it changed, in one batch; that it is published after that; that
// what arrives by gossip and by reconciliation passes one set of rules; that a
// chain is never resumed, so that neither a crash nor a copy of the disk can
// fork it; and that a peer is called in sync only on equal digests. It refuses
// to run twice on one home.
//
// One goroutine owns one space (actor). Everything else hands it messages and
// reads what it has committed under its mutex. Times are the wall clock's;
// under testing/synctest they are the bubble's.
package node
