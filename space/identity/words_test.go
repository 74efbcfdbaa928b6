package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/cosmos/go-bip39"
	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// Vectors of BIP-39 itself (the 256-bit ones of its reference tests).
var bip39Vectors = []struct {
	entropy byte
	words   string
}{
	{0x00, strings.Repeat("abandon ", 23) + "art"},
	{0x7f, strings.Repeat("legal winner thank year wave sausage worth useful ", 2) + "legal winner thank year wave sausage worth title"},
	{0x80, "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless"},
	{0xff, strings.Repeat("zoo ", 23) + "vote"},
}

func TestWordsVectors(t *testing.T) {
	for _, v := range bip39Vectors {
		if got := testSeed(v.entropy).Words(); got != v.words {
			t.Errorf("words of %02x×32 = %q, want %q", v.entropy, got, v.words)
		}
		s, err := SeedFromWords(v.words)
		if err != nil || !s.Equal(testSeed(v.entropy)) {
			t.Errorf("seed of %q: %v", v.words, err)
		}
	}
}

func TestWordsForms(t *testing.T) {
	words := testSeed(0x11).Words()
	for name, text := range map[string]string{
		"upper case":  strings.ToUpper(words),
		"lines":       "\n" + strings.ReplaceAll(words, " ", "\n") + "\n",
		"white space": "\t " + strings.ReplaceAll(words, " ", " \r\n ") + " ",
	} {
		if s, err := SeedFromWords(text); err != nil || !s.Equal(testSeed(0x11)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWordsRefused(t *testing.T) {
	w := strings.Fields(testSeed(0x11).Words())
	swap := func(i int, word string) string {
		c := append([]string(nil), w...)
		c[i] = word
		return strings.Join(c, " ")
	}
	for name, c := range map[string]struct {
		text, says string
		is         error
	}{
		"nothing":      {"", "0 words", space.ErrMalformed},
		"23 words":     {strings.Join(w[:23], " "), "23 words", space.ErrMalformed},
		"12 words":     {strings.TrimSpace(strings.Repeat("abandon ", 11)) + " about", "12 words", space.ErrMalformed},
		"25 words":     {strings.Join(append(w[:24:24], "zoo"), " "), "25 words", space.ErrMalformed},
		"unknown word": {swap(6, "xyzzy"), "word 7 of 24", space.ErrMalformed},
		"other word":   {swap(6, "zoo"), "checksum", space.ErrMalformed},
		"too long":     {strings.Repeat("a", maxWordsText+1), "too large", space.ErrTooLarge},
	} {
		_, err := SeedFromWords(c.text)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v and %q", name, err, c.is, c.says)
		}
		for _, word := range append(w, "xyzzy") {
			if err != nil && len(word) > 4 && strings.Contains(err.Error(), word) {
				t.Errorf("%s: the error names the word %q", name, word)
			}
		}
	}
}

func TestWordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := seedOf([32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")))
		back, err := SeedFromWords(s.Words())
		if err != nil || !back.Equal(s) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

// FuzzWords: what parses is written again as the same words, and the library's
// own check agrees.
func FuzzWords(f *testing.F) {
	for _, v := range bip39Vectors {
		f.Add(v.words)
		f.Add(strings.ToUpper(v.words) + "\n")
		f.Add(v.words[:len(v.words)-3])
	}
	f.Add("")
	f.Add("ſ K abandon\u2003zoo")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := SeedFromWords(text)
		normal := strings.Join(strings.Fields(strings.ToLower(text)), " ")
		_, libErr := bip39.MnemonicToByteArray(normal)
		valid := libErr == nil && len(strings.Fields(normal)) == wordCount && len(text) <= maxWordsText
		if (err == nil) != valid {
			t.Fatalf("%q: %v, the library says %v", text, err, libErr)
		}
		if err == nil && s.Words() != normal {
			t.Fatalf("%q became %q", text, s.Words())
		}
	})
}
