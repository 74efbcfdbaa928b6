// Package reconcile finds what two replicas of one topic lack of each other
// and moves it, in both directions, over one stream of /kith/sync/1.
//
// A Session is sans-IO: messages in, messages out. Run drives one round of it
// over a stream, Live any number for as long as the stream lives.
//
//	CHALLENGE  a nonce each; the opener names the topic
//	AUTH       a signature of the topic's fetch key; the opener proves itself first
//
// Then rounds, one after the other, each led by one side. The leader says
//
//	BEACON     its control head, its earlier epochs and its set, by hash, and
//	           what has changed in it since the two were last equal
//
// and the follower answers with the shortest thing that will do:
//
//	DONE       it has the same
//	CTL        another control log: who is ahead sends pages; BEACON again
//	VECTOR     what has changed on its side since; each sends what the other lacks
//	TREE       both descend a tree over chain ids to where they differ
//	FRONTIER   every chain with its head
//
// and as far as it is needed
//
//	SEGMENTS   where the asker lacks many segments of a chain: their heads,
//	MANIFEST   by which it fetches them in any order, see Board
//	WANT       the ranges the asker lacks, by the frontier it was told
//	RUN        consecutive envelopes of one chain, the certificate in front of seq 0
//	SERVED     all that was owed or asked for has been sent
//	DIGEST     the set now; if they still differ, one more pass from FRONTIER
//	DONE       the verdict
//
// It promises that Result.Equal is true only after one side stated count and
// digest and the other confirmed that it has the same; that nothing is said to
// a peer that has not shown the fetch key, and that a topic unknown here is
// refused like a wrong signature; that a round ends after two passes whatever
// is written meanwhile; that what a peer can make it keep is bounded (MaxChains
// chains, the 70,000 tags of a tree, one frame, one control page) and that
// lengths are checked before memory is taken.
//
// It refuses whatever is out of turn, unsorted, not asked for or over a cap,
// and blames the peer: such errors match ErrPeer and wrap the reason. Errors
// of our own replica come back as they are. Whether a run is authentic is the
// Sink's to say: each RUN is judged by its own last signature, so every prefix
// that arrived before a stream broke is kept and the next session goes on
// from there.
//
// The core has no goroutine, clock or randomness; nonces are given. A Session
// belongs to one goroutine at a time. Run and Live guard it with a mutex, so
// Replica, Sink and ControlLog are called one at a time.
// Messages share memory with the frames they were read from and with what the
// Replica returned: nobody may change it.
package reconcile
