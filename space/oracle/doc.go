// Package oracle is an attacker for tests: it is given ciphertexts and secrets,
// tries every key on every ciphertext, goes on with what opened, and says in
// the end what is open. Nothing but tests imports it.
//
// It has derivations and readings of its own: what the packages of the protocol
// would refuse, because a signature or a place does not fit, it opens anyway if
// a key does. What it reads was made by tests, so it panics on what it cannot
// parse. Pure; an Attacker belongs to one goroutine.
//
// The package's own tests draw histories of spaces, in which people and their
// devices come, go, change level, keep, and are delegated to, with the real
// control log, keys and envelopes. They hand to each person and device every
// byte that was ever sent and every secret it ever held, and compare what is
// open in the end with a model that knows nothing of keys: who was in which
// epoch at which level.
package oracle
