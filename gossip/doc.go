// Package gossip spreads the frames of topics among the peers that share them.
// It moves sealed bytes and judges their outside; it holds no key and opens
// nothing. It is the only importer of go-libp2p-pubsub.
//
// A Mesh is one pubsub instance on one libp2p host. What neighbours send is
// judged before it is passed on, cheapest test first (docs/protocol.md,
// "Validator"):
//
//  1. form: length, version, flags, padded size, order and links, topic; else Reject
//  2. the topic is served here, else Ignore
//  3. new, else Ignore
//  4. within the token buckets of the neighbour, and of neighbour and topic, else Ignore
//  5. of a certified chain. A bad certificate: Reject; one that runs too far
//     ahead: Ignore; none yet: park, Ignore
//  6. signed, at the run's last envelope, else Reject
//  7. within the quota of the writer key, in envelopes and in chains begun, and
//     before its expiry, else Ignore
//  8. within 256 of the chain's head: Accept, with or without a gap. Beyond,
//     or leaving the chain: Ignore
//
// Reject is for bytes that could never be valid; an honest peer never forwards
// them. Three of them within minutes, in whatever topics, and a neighbour is not
// read any more for a while; score.go has what else lowers a score, and why
// nothing raises it. Whatever could be judged otherwise at another time or place is
// ignored. What is accepted is handed over, and so is what is authentic and
// yet ignored at step 8, as a hint to reconcile.
//
// Gossip promises nothing: messages are lost when queues are full, while a
// mesh forms, and when neighbours fail. Every loss is counted; reconciliation
// is what makes replicas equal. A node therefore reconciles with each peer
// that its callback announces.
//
// The package refuses messages that carry an author, topics that were not
// joined, subscriptions beyond its caps, and topics beyond Config.MaxTopics:
// the packet that greets a new peer lists all of them and has to fit a message.
//
// Frames handed over are the receiver's; a frame given to Publish belongs to
// the package. All methods may be called from any goroutine. The callbacks of
// one topic come one at a time from a goroutine of the package's; what they do
// not keep up with is dropped and counted, they never block pubsub.
package gossip
