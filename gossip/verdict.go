package gossip

import (
	"iter"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

// Verdict says what becomes of a frame.
type Verdict uint8

const (
	Ignore Verdict = iota // not passed on; nobody is to blame
	Accept                // passed on
	Reject                // not passed on; whoever sent it is to blame
)

func (v Verdict) String() string { return [...]string{"ignore", "accept", "reject"}[v] }

// Reason is why a verdict was given.
type Reason uint8

const (
	Fresh          Reason = iota // Accept: continues its chain
	Ahead                        // Accept: continues its chain after a gap
	Malformed                    // Reject: no frame of this topic
	NotServed                    // Ignore: the topic has no replica here
	Unsupported                  // Ignore: an ephemeral type
	Duplicate                    // Ignore: held already, or on its way to the store
	Throttled                    // Ignore: the neighbour sends too much
	Parked                       // Ignore: waits for its chain's certificate
	Unparked                     // Ignore: would wait, but no more fits
	BadCertificate               // Reject
	EarlyIssue                   // Ignore: the certificate runs too far ahead
	Forged                       // Reject: bad signature
	OverQuota                    // Ignore: the writer key sends too much
	ManyChains                   // Ignore: the writer key begins too many chains
	Expired                      // Ignore: the certificate has run out
	TooFar                       // Ignore, handed over: beyond the window
	Forked                       // Ignore, handed over: leaves the chain as it is here
	Proof                        // Accept: proves that a chain forked
	reasons
)

func (r Reason) String() string {
	return [...]string{"fresh", "ahead", "malformed", "not served", "unsupported", "duplicate", "throttled", "parked",
		"unparked", "bad certificate", "early issue", "forged", "over quota", "many chains", "expired", "too far", "forked", "proof"}[r]
}

// Delivery is a frame to hand over, with the neighbour it came from.
type Delivery struct {
	From  peer.ID
	Frame envelope.Frame
}

// Ruling is the judgement of a frame: what becomes of it, and what is to be
// handed over, frames that had waited for it included.
type Ruling struct {
	Verdict Verdict
	Reason  Reason
	Deliver []Delivery
	// Settled, of a parked frame, gets its final verdict if the certificate
	// comes in time, and is closed in any case. Until then the verdict is to
	// ignore it.
	Settled <-chan Verdict
}

// Counters count what became of frames since the start. They only rise.
type Counters struct {
	// Judged, by reason.
	ByReason [reasons]atomic.Uint64

	ParkExpired  atomic.Uint64 // frames whose certificate did not come in time
	ParkReleased atomic.Uint64 // frames whose certificate came
	Delivered    atomic.Uint64 // frames handed over
	Dropped      atomic.Uint64 // frames not handed over: the receiver is too slow
	Published    atomic.Uint64 // own frames
	QueueFull    atomic.Uint64 // messages dropped unjudged: too many at once
	Authored     atomic.Uint64 // messages refused because they name an author
	Outbound     atomic.Uint64 // messages not sent: the peer is too slow
	Subscribes   atomic.Uint64 // subscription lists refused: over the cap
	Graylisted   atomic.Uint64 // peers that gossip stopped listening to
}

// All yields every counter under its name.
func (c *Counters) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for r := range reasons {
			if !yield("gossip "+r.String(), c.ByReason[r].Load()) {
				return
			}
		}
		for _, n := range []struct {
			name string
			v    *atomic.Uint64
		}{
			{"park expired", &c.ParkExpired}, {"park released", &c.ParkReleased}, {"delivered", &c.Delivered},
			{"dropped", &c.Dropped}, {"published", &c.Published}, {"queue full", &c.QueueFull},
			{"authored", &c.Authored}, {"outbound dropped", &c.Outbound}, {"subscription lists refused", &c.Subscribes},
			{"peers graylisted", &c.Graylisted},
		} {
			if !yield("gossip "+n.name, n.v.Load()) {
				return
			}
		}
	}
}
