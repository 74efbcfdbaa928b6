//go:build race

package testnet

// Race: the race detector watches.
const Race = true
