// Package reconcile finds what two replicas of one topic lack of each other
// and moves it, in both directions, over one stream of /kith/sync/1.
//
// A Session is sans-IO: messages in, messages out. Run drives it over a
// stream. The steps of a session, both sides doing the same:
//
//	CHALLENGE  a nonce each; the opener names the topic
//	AUTH       a signature of the topic's fetch key; the opener proves itself first
//	CTL        the head of the control log; who is ahead sends the pages the other lacks
//	DIGEST     epoch, count and hash of the set of envelope ids
//	FRONTIER   if they differ: every chain with its head, sorted, 1,000 to a page
//	WANT       the ranges the asker lacks, by the frontier it was told
//	RUN        consecutive envelopes of one chain, the certificate in front of seq 0
//	SERVED     all that was asked for has been sent
//	DIGEST     again; if they still differ, one more pass from FRONTIER
//	DONE       the verdict
//
// From CTL on this is a round. One authenticated stream carries any number of
// rounds, one after the other.
//
// It promises that Result.Equal is true only after both sides stated the same
// count and digest; that nothing is said to a peer that has not shown the
// fetch key, and that a topic unknown here is refused like a wrong signature;
// that a session ends after two passes whatever is written meanwhile; that
// what a peer can make it keep is bounded (MaxChains chains, one frame, one
// control page) and that lengths are checked before memory is taken.
//
// It refuses whatever is out of turn, unsorted, not asked for or over a cap,
// and blames the peer: such errors match ErrPeer and wrap the reason. Errors
// of our own replica come back as they are. Whether a run is authentic is the
// Sink's to say: each RUN is judged by its own last signature, so every prefix
// that arrived before a stream broke is kept and the next session goes on
// from there.
//
// The core has no goroutine, clock or randomness; nonces are given. A Session
// belongs to one goroutine at a time. Run starts one writer and guards the
// session with a mutex: Replica, Sink and ControlLog are called one at a time.
// Messages share memory with the frames they were read from and with what the
// Replica returned: nobody may change it.
package reconcile
