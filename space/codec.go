package space

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The caps of a protocol struct's encoding.
const (
	MaxDepth    = 16
	MaxElements = 10_000
	MaxBytes    = 2 << 20
)

var encMode, decMode = modes()

func modes() (cbor.EncMode, cbor.DecMode) {
	enc, err1 := cbor.EncOptions{
		Sort:            cbor.SortLengthFirst,
		IndefLength:     cbor.IndefLengthForbidden,
		BinaryMarshaler: cbor.BinaryMarshalerNone,
	}.EncMode()
	dec, err2 := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   64, // CheckDRISL has counted before
		MaxArrayElements:  MaxElements,
		MaxMapPairs:       MaxElements,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		BinaryUnmarshaler: cbor.BinaryUnmarshalerNone,
	}.DecMode()
	if err := errors.Join(err1, err2); err != nil {
		panic(err) // the options are constants
	}
	return enc, dec
}

// Marshal encodes a protocol struct as DRISL. Structs are arrays of their
// fields if they say so with `cbor:",toarray"`. A nil slice is null and an
// empty one is empty: where the two mean the same, the type's own check has to
// refuse one of them.
func Marshal(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("encode %T: %d bytes: %w", v, len(b), ErrTooLarge)
	}
	if err := CheckDRISL(b, MaxDepth); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal decodes what Marshal wrote and nothing else: v, encoded again,
// gives b. On an error v holds nothing of use. Slices in v are copies.
func Unmarshal(b []byte, v any) error { return UnmarshalDepth(b, v, MaxDepth) }

// UnmarshalDepth is Unmarshal with another cap on the depth, at most 64.
func UnmarshalDepth(b []byte, v any, maxDepth int) error {
	if len(b) > MaxBytes {
		return fmt.Errorf("decode %T: %d bytes: %w", v, len(b), ErrTooLarge)
	}
	if err := CheckDRISL(b, min(maxDepth, 64)); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, decodeError(err))
	}
	// What the decoder is lenient about (an array a byte short, a null that
	// left a field alone) shows when it is written again.
	again, err := encMode.Marshal(v)
	if err != nil || !bytes.Equal(b, again) {
		return fmt.Errorf("decode %T: %w", v, ErrNotCanonical)
	}
	return nil
}

// decodeError gives the library's errors a sentinel of ours, and keeps those
// that our own types returned.
func decodeError(err error) error {
	var elements *cbor.MaxArrayElementsError
	var pairs *cbor.MaxMapPairsError
	switch {
	case errors.As(err, &elements), errors.As(err, &pairs):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, ErrMalformed), errors.Is(err, ErrNotCanonical), errors.Is(err, ErrTooLarge):
		return err
	default:
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
}

// unmarshalText decodes a text item into a type that parses text.
func unmarshalText(b []byte, v encoding.TextUnmarshaler) error {
	var s string
	if err := decMode.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("want text: %w", ErrMalformed)
	}
	return v.UnmarshalText([]byte(s))
}
