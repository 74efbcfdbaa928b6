// Package oracle holds no code but tests, of what the packages of the pure
// rules promise together: who can read what of a space.
//
// The tests draw histories of spaces, in which people and their devices come,
// go, change level, keep, write, and are delegated to, with the real control
// log, keys and envelopes. Then they hand to each person and device every byte
// that was ever sent and every secret it ever held, let it try every key on
// every ciphertext, go on with what opened, and compare what is open in the end
// with a model that knows nothing of keys: who was in which epoch at which
// level.
package oracle
