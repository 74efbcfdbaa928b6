package control

import (
	"fmt"

	"github.com/kithnet/kith/space"
)

// pageCodec is a wrap page: its wraps as a list, nothing around it.
var pageCodec = codec[[]Wrap]{checkPage, func(p []Wrap) []Wrap { return p }}

// EncodePage gives the plaintext of a wrap page: at most PageSlots wraps with
// rising slots. A page of PageSlots X-Wing wraps is 49 kB.
func EncodePage(wraps []Wrap) ([]byte, error) {
	b, err := pageCodec.encode(wraps)
	if err != nil {
		return nil, fmt.Errorf("wrap page: %w", err)
	}
	return b, nil
}

// DecodePage reads what EncodePage wrote, and nothing else.
func DecodePage(b []byte) ([]Wrap, error) {
	if len(b) > PageSlots*(maxSealed+64) {
		return nil, fmt.Errorf("wrap page: %w: %d bytes", space.ErrTooLarge, len(b))
	}
	p, err := pageCodec.decode(b)
	if err != nil {
		return nil, fmt.Errorf("wrap page: %w", err)
	}
	return p, nil
}

func checkPage(wraps []Wrap) error {
	if len(wraps) == 0 || len(wraps) > PageSlots {
		return malformed("%d wraps on a page", len(wraps))
	}
	for i := 1; i < len(wraps); i++ {
		if wraps[i-1].Slot >= wraps[i].Slot {
			return malformed("wrap %d is out of order", i)
		}
	}
	return checkSealed(wraps)
}
