// Package control is a space's control log: one line of entries, each signed
// by who proposes it and by the sequencer that orders it, and Apply, the one
// function that says what the next entry makes of a state.
//
// It promises that two nodes that hold the same entries hold the same state
// (members, levels, invites, policy, keepers, delegations, epochs, and how far
// each chain of each past or lowered member counts), that a state never changes
// once it is returned, that under rotating keys nothing takes a key from
// somebody without opening an epoch in the same entry, and that a genesis is
// accepted only when the identity in it is proven: nobody opens a space in the
// name of another's DID. It refuses a second encoding of anything, an entry by
// anyone but the sequencer, a proposer that lacks the capability where it stood
// or now, a log that forks, and every option that is not built
// (space.ErrUnsupported): nothing is accepted and ignored. It does not look
// into sealed keys: whether a wrap opens, its reader tells.
//
// # Entry
//
// Integers are big-endian.
//
//	off  len  field
//	0    4    "SPC1"
//	4    1    kind (the Kind constants)
//	5    3    flags = 0
//	8    8    term: 0, and one more with every new sequencer
//	16   8    seq: 0 for genesis, then one more each entry
//	24   32   space id (zero in genesis)
//	56   32   prev: SHA-256 of the whole entry before (zero in genesis)
//	88   8    epoch in force after this entry
//	96   8    time in Unix milliseconds, at most 2^53-1; advisory, never an order
//	104  32   proposer: an Ed25519 device key
//	136  32   proposal hash: SHA-256(kind ‖ space id ‖ plaintext)
//	168  4    n, at most 262,144
//	172  24   nonce (zero when the body is in clear)
//	196  n    the plaintext, or XChaCha20-Poly1305(CK, nonce, plaintext,
//	          AAD = bytes 0 to 195) with CK the control key of the epoch before
//	196+n 64  Sign(proposer, "ctl/propose", proposal hash)
//	260+n 64  Sign(sequencer, "ctl/commit", bytes 0 to 259+n); of a sequencer
//	          entry by its proposer
//
// The plaintext is base head 32 ‖ salt 16 ‖ body in DRISL. The base head is
// the hash of the entry the proposer stood on, one of the last Recent. The body of a genesis, of a sequencer entry and of
// the epoch entry at seq 1 is in clear, all others are sealed. The space id is
// Hash("space", plaintext of the genesis). An entry's hash is SHA-256 of all
// its bytes. The framing does not name the sequencer's key: Parse checks the
// proposer's signature, Apply (or VerifyCommit) the sequencer's.
//
// # Rules
//
// docs/protocol.md, "Control log", has them all. In short: seq 0 is the
// genesis, whose authority becomes the member of slot 0; seq 1 is epoch 1. The
// authority proposes everything, keepers with CapAdmit what must go on while it
// is away. Slots are never reused. A Rotation fits the roster that its entry
// leaves: a wrap for each reader and no other, the issuer for each who admits
// and no other. Whom an entry removes or lowers, and whom a rotation lists, is
// bounded by its cuts in all epochs before. A Sequencer entry is the
// authority's alone; it may go on from an earlier head, and what stood behind
// that is void.
//
// Who builds an entry that must rotate asks Preview for the roster it will
// leave, draws keys for that, and puts them in with WithRotation.
//
// # Invite link
//
// kith:j#FRAG or https://HOST/j/ID#FRAG, ID the invite id in hex, FRAG the
// unpadded base64url of
//
//	version 1 ‖ secret 32 ‖ space id 32 ‖ log head 32 ‖ n 1 ‖ n × (u16 length ‖ multiaddr as text)
//
// with n at most 16 and a length of at most 256. The secret gives the invite
// key; the log holds only its public half.
//
// # Ownership and concurrency
//
// Pure: no I/O, no clock, no randomness of its own, no lock. Bytes passed in
// are copied, bytes and slices returned belong to the Entry or State and are
// not to be changed. A State, and an Entry once opened, may be read and
// applied from any number of goroutines.
package control
