package identity

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func testSeed(b byte) Seed { return seedOf([32]byte(bytes.Repeat([]byte{b}, 32))) }

func TestCommitmentVector(t *testing.T) {
	const want = "4cab13ac917b0cdeb99964fe0256a9f3393564fed58e0d47fcc85e18eaa71b50"
	c := testSeed(0x11).Commitment()
	if got := hex.EncodeToString(c[:]); got != want {
		t.Errorf("commitment of 11×32 = %s, want %s", got, want)
	}
}
