// Package seal turns bodies into envelopes that only members open, and hands
// the keys of an epoch to those who may have them.
//
// It holds the key tree of an epoch (docs/protocol.md, "Keys inside an epoch"):
// a random group key; from it the control key, one author key per member, the
// key of hellos and the fetch key; beside it the issuer, which only the
// sequencer and keepers hold. A Writer seals one chain, a Reader opens one;
// Wrap and SealWelcome carry keys to a member's per-user key.
//
// It promises: a sealed body opens to the very bytes that were sealed, and to
// nothing else, only at its place in its chain, its topic and its epoch; one
// encoding per body (exact padding, full parts, canonical hello); a group key
// that was accepted fits the commitment in the control log; CheckHello alone
// decides whose a chain is. It refuses, with an error and never a panic,
// whatever comes from outside: space.ErrForged for a seal or signature that
// does not fit, space.ErrMalformed for an inside that may not be,
// space.ErrNoKey for what this holder cannot open, space.ErrTooLarge over a cap.
//
// Keys are opaque: they do not compare, print or marshal by accident, and a
// zero key panics when used. Marshal methods give the caller bytes it then
// owns and should clear. Bodies returned are the caller's; slices passed in are
// not kept. Randomness is passed in, but for crypto/hpke, which draws its own.
// Key types may be shared between goroutines; a Writer or Reader belongs to one.
package seal
