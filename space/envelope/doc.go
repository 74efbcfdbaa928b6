// Package envelope is the outside of what a space stores and sends: envelopes,
// the writer certificates that vouch for their chains, the frames of gossip,
// and the keyless replica of one topic. Relays and gossip know this much and
// no more; nothing here can open anything.
//
// A topic is a set of chains. A chain is a run of envelopes under one Ed25519
// key, numbered from 0, each naming the one before it by the hash of all its
// bytes. Sequence 0 is a hello and names the SHA-256 of its certificate, in
// which the topic's issuer certifies a writer key and the writer key links the
// chain. The topic id is the hash of the issuer key, so everything here is
// checked without a registry.
//
// Which types may stand where: sequence 0 of a chain is a hello and nothing
// else; a hello too large for one envelope goes on at sequences 1 and up, so a
// hello may stand at any sequence below MaxHelloParts; entries and control
// entries stand at sequence 1 and up. Both ephemeral types stand outside the
// chain: they never enter a Topic, and their sequence and prev are the
// writer's own affair. Flags are zero, lengths are padded lengths, and each
// value has one encoding: parsing and appending again yields the same bytes.
//
// An envelope is authentic when a valid signature of its chain key stands on
// it, or on a later envelope of the chain that links back to it (coverage). A
// Topic accepts exactly the certified, covered and gapless prefix of each
// chain, below any fork it saw, so replicas that have seen the same envelopes
// hold the same set and the same digest, whatever the order of arrival.
//
// The package promises that forged, cut or re-linked runs never enter. It
// refuses everything over its caps before it allocates. It does not judge
// clocks: a certificate's expiry and quota class are facts for gossip.
//
// Parsed values are views: Parse, ParseRun and ParseFrame keep the slice they
// are given, and whoever passes it must not change it afterwards. Slices that
// Envelope's methods return are views of the same bytes, not to be changed.
// Envelope, Certificate and Frame are immutable and safe to share (Frame.Verify
// comes before that); a Topic belongs to one goroutine.
package envelope
