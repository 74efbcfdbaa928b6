package identity

import (
	"fmt"
	"strings"

	"github.com/cosmos/go-bip39"

	"github.com/kithnet/kith/space"
)

// wordCount is what 256 bits take in BIP-39: 264 bits with the checksum.
const wordCount = 24

// maxWordsText bounds the text SeedFromWords looks at. The longest word has
// eight letters; the rest is room for odd white space.
const maxWordsText = 4096

// Words is the seed as 24 words of the English BIP-39 list, one space apart.
// They are the identity: never log them.
func (s Seed) Words() string {
	w, err := bip39.NewMnemonic(s.keys().secret[:])
	if err != nil {
		panic(fmt.Sprintf("identity: words of a seed: %v", err))
	}
	return w
}

// SeedFromWords reads what Words wrote, in any case and with any white space.
// Its errors say which word is wrong by number only, so that they may be
// logged.
func SeedFromWords(text string) (Seed, error) {
	if len(text) > maxWordsText {
		return Seed{}, fmt.Errorf("recovery words: %w: %d bytes", space.ErrTooLarge, len(text))
	}
	words := strings.Fields(strings.ToLower(text))
	for i, w := range words {
		if _, ok := bip39.ReverseWordMap[w]; !ok {
			return Seed{}, fmt.Errorf("recovery words: %w: word %d of %d is not in the word list", space.ErrMalformed, i+1, len(words))
		}
	}
	if len(words) != wordCount {
		return Seed{}, fmt.Errorf("recovery words: %w: %d words, want %d", space.ErrMalformed, len(words), wordCount)
	}
	b, err := bip39.MnemonicToByteArray(strings.Join(words, " "))
	if err != nil {
		return Seed{}, fmt.Errorf("recovery words: %w: every word is in the list but the checksum is wrong: one was mistaken for another, or two stand in the wrong order", space.ErrMalformed)
	}
	return seedOf([32]byte(b[:32])), nil
}
