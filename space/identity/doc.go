// Package identity is who somebody is: a 24-word seed, the commitment C that
// names the person for ever, and the hash-chained identity log that says which
// devices act for C, which per-user key (PUK) reaches them and which DID is
// theirs.
//
// It promises one verdict for every log: Verify and Apply are pure functions
// of bytes, and an entry has one encoding. The genesis entry is a pure function
// of the seed, so the words alone find the same log again. A DID is in a State
// only when both sides signed: the DID's key signed C, the identity key signed
// the DID. The per-user key is wrapped to every live device and to the seed,
// and to nobody else, or the entry is refused.
//
// A device is revoked together with a new per-user key, in one entry, and its
// id never comes back. Where two logs of one person part, Choose says which
// one everybody goes by; Follow does for who knows one of them already.
//
// Besides the log it has what a person's devices hand each other: the Account,
// sealed under the per-user key; the Code and the messages with which a device
// is taken in; and the file that holds the seed under a passphrase.
//
// It refuses entries out of order, signers that may not sign, public keys of
// small order or in a second encoding, anything over its caps, and, with
// space.ErrUnsupported, the kinds whose numbers are reserved (prekeys, retire)
// and DIDs other than did:key. A did:key can be neither rotated nor revoked:
// whoever holds the words holds it for good.
//
// Device keys are random and never derived from the seed; the seed and its
// signing key are never marshalled, only shown as words or sealed under a
// passphrase. Randomness is passed in, with two exceptions the libraries
// impose: HPKE encapsulation and K-256 signing draw their own.
//
// States and bytes returned are the caller's to read, not to change: a State
// shares its slices with the ones it came from. Bytes passed in are copied.
// Nothing here locks; States and keys may be read by many goroutines at once.
package identity
