package identity

import (
	"bytes"
	"encoding/hex"
	"regexp"
	"testing"
)

func TestCommitmentVector(t *testing.T) {
	const want = "4cab13ac917b0cdeb99964fe0256a9f3393564fed58e0d47fcc85e18eaa71b50"
	c := testSeed(0x11).Commitment()
	if got := hex.EncodeToString(c[:]); got != want {
		t.Errorf("commitment of 11×32 = %s, want %s", got, want)
	}
}

// Everything that follows from the seed alone, pinned: it is what the words
// bring back.
func TestSeedVectors(t *testing.T) {
	s := testSeed(0x11)
	genesis := must[[]byte](t)(Genesis(s))
	st := must[State](t)(Verify([][]byte{genesis}))
	pub, err := DIDKey(s).PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want string }{
		"words":       {s.Words(), wordsVector},
		"did":         {pub.DIDKey(), didVector},
		"id_sig":      {hex.EncodeToString(st.SigPub), sigVector},
		"genesis":     {hex.EncodeToString(st.Head[:]), genesisVector},
		"fingerprint": {Fingerprint(s.Commitment()), fingerprintVector},
	} {
		if c.got != c.want {
			t.Errorf("%s of 11×32 = %s, want %s", name, c.got, c.want)
		}
	}
}

func TestGenesisIsAFunctionOfTheSeed(t *testing.T) {
	a, b := must[[]byte](t)(Genesis(testSeed(7))), must[[]byte](t)(Genesis(testSeed(7)))
	if !bytes.Equal(a, b) {
		t.Error("two genesis entries of one seed differ")
	}
	one := must[Created](t)(New(testRand(1), testSeed(7), now))
	two := must[Created](t)(New(testRand(2), testSeed(7), now+1))
	if !bytes.Equal(one.Log[0], a) || !bytes.Equal(two.Log[0], a) {
		t.Error("New begins with another genesis")
	}
	if bytes.Equal(a, must[[]byte](t)(Genesis(testSeed(8)))) {
		t.Error("two seeds have one genesis")
	}
}

func TestFingerprint(t *testing.T) {
	form := regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){8}[0-9A-HJKMNP-TV-Z]{4}$`)
	base := testSeed(0x11).Commitment()
	f := Fingerprint(base)
	if !form.MatchString(f) {
		t.Errorf("fingerprint %s has not the form", f)
	}
	for i := range fingerprintBytes * 8 {
		c := base
		c[i/8] ^= 0x80 >> (i % 8)
		g := Fingerprint(c)
		if g[:40] == f[:40] {
			t.Errorf("bit %d does not show", i)
		}
		if g[40:] == f[40:] {
			t.Errorf("bit %d does not show in the check characters", i)
		}
	}
	// Crockford's alphabet in order, as the encoding of 0..31 has it.
	var zero Commitment
	if got := Fingerprint(zero)[:9]; got != "0000-0000" {
		t.Errorf("fingerprint of zero begins %s", got)
	}
	if got := Fingerprint(Commitment{0x00, 0x44, 0x32, 0x14, 0xc7})[:9]; got != "0123-4567" {
		t.Errorf("fingerprint of 0,1,…7 begins %s", got)
	}
}

// The values of the seed 11×32, beside its commitment.
const (
	wordsVector = "baby mass dust captain baby mass dust captain baby mass dust captain " +
		"baby mass dust captain baby mass dust captain baby mass dust cake"
	didVector         = "did:key:zQ3shw5y88EibNmkosQZbaWUVjMzbcY8gpt8c8X5mbG5qYGaT"
	sigVector         = "306a9b27ade5a5184c88f430f2e054f556b2830133e9669db893c4c2b4aa4ba7"
	genesisVector     = "afa62b1b82ccf219b915d3dbb2cb4fd5b41204748f335dfdc4a74d62a4ffd978"
	fingerprintVector = "9JNH-7B4H-FC6D-XECS-CKZ0-4NN9-YCWK-AS7Y-D392"
)
