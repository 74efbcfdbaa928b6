// Package relay is the always-on blind role: it stores the sealed envelopes
// and objects of topics it holds a lease on and forwards them to members who
// are never online together (docs/protocol.md, "Relays").
//
// It promises: what is acknowledged by a receipt or the answer to a put is on
// disk; what is served passed the keyless rules of package space/envelope;
// nothing of a topic is dropped to make room for another; hellos, control
// envelopes and pages stay while any lease of their topic lives, and at least
// 400 days; on a full disk reads go on. A topic is known here by its
// descriptor, a writer by a certificate, a reader by a signature of the
// topic's fetch key; nothing else is known of anybody, and statistics are kept
// per lease.
//
// It refuses: topics without a lease, what is beyond the quota of a lease or
// the rate of a writer key's class, and readers who do not prove the fetch
// key, in the same way whether the topic is here or not. It links no package
// that could open an envelope, which the layout test holds it to.
//
// A ledger says what was promised for a topic; it is pure, and the time is
// told to it. One goroutine, an owner, changes the topics that fall to it and
// writes them; streams, HTTP and gossip hand it what came and wait. The hosts
// of a relay share its topics among them, because gossip on one host serves no
// more than some thousand (gossip.Shards).
//
// The package also has what members need to speak to a relay: Client, Receipt
// and the wire of /kith/relay/1. They hold no keys.
//
// All methods may be called from any goroutine.
package relay
