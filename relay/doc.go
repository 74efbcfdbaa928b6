// Package relay is where the always-on blind role will live: it stores sealed
// envelopes for members who are never online together, and forwards them.
//
// Nothing of it is built yet, and `kith run --relay` says so. What is settled
// is what it may know: package space/envelope and nothing behind it. The
// layout test refuses it every package that holds a key.
package relay
