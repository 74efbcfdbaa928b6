package space

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

const testLink = "d82a582500" + "0171" + "1220" + "0000000000000000000000000000000000000000000000000000000000000000"

// drislCases are bytes in hex and what is wrong with them.
var drislCases = []struct {
	name string
	hex  string
	want error
}{
	{"zero", "00", nil},
	{"largest short int", "17", nil},
	{"24", "1818", nil},
	{"256", "190100", nil},
	{"65536", "1a00010000", nil},
	{"2^32", "1b0000000100000000", nil},
	{"2^63-1", "1b7fffffffffffffff", nil},
	{"-2^63", "3b7fffffffffffffff", nil},
	{"bytes", "43010203", nil},
	{"text", "63e282ac", nil},
	{"array", "820102", nil},
	{"map", "a26161016162f5", nil},
	{"shorter keys first", "a2617a0162616102", nil},
	{"link", testLink, nil},
	{"raw link", strings.Replace(testLink, "0171", "0155", 1), nil},
	{"null", "f6", nil},

	{"nothing", "", ErrMalformed},
	{"trailing byte", "0000", ErrMalformed},
	{"23 in two bytes", "1817", ErrNotCanonical},
	{"255 in three", "1900ff", ErrNotCanonical},
	{"65535 in five", "1a0000ffff", ErrNotCanonical},
	{"2^32-1 in nine", "1b00000000ffffffff", ErrNotCanonical},
	{"long length of text", "780161", ErrNotCanonical},
	{"2^63", "1b8000000000000000", ErrMalformed},
	{"-2^63-1", "3b8000000000000000", ErrMalformed},
	{"cut head", "19", ErrMalformed},
	{"cut bytes", "4401", ErrMalformed},
	{"huge bytes", "5b7fffffffffffffff", ErrMalformed},
	{"huge array", "9b7fffffffffffffff", ErrMalformed},
	{"huge map", "bb7fffffffffffffff", ErrMalformed},
	{"huge bytes, top bit", "5bffffffffffffffff", ErrMalformed},
	{"indefinite bytes", "5f41ffff", ErrMalformed},
	{"indefinite array", "9fff", ErrMalformed},
	{"reserved length", "1c", ErrMalformed},
	{"reserved length, bytes behind", "1c" + strings.Repeat("ff", 16), ErrMalformed},
	{"tag 0 of 40 bytes", "c05825" + testLink[8:], ErrMalformed},
	{"tag 43 of a CID", "d82b" + testLink[4:], ErrMalformed},
	{"break", "ff", ErrMalformed},
	{"undefined", "f7", ErrMalformed},
	{"simple 32", "f820", ErrMalformed},
	{"simple 20 in two", "f814", ErrMalformed},
	{"half float", "f93c00", ErrMalformed},
	{"float", "fa3f800000", ErrMalformed},
	{"double", "fb3ff0000000000000", ErrMalformed},
	{"not UTF-8", "61ff", ErrMalformed},
	{"key not UTF-8", "a161ff01", ErrMalformed},
	{"keys out of order", "a2616201616101", ErrNotCanonical},
	{"longer key first", "a262616101617a02", ErrNotCanonical},
	{"key twice", "a2616101616102", ErrMalformed},
	{"int key", "a10101", ErrMalformed},
	{"key without value", "a16161", ErrMalformed},
	{"tag 0", "c060", ErrMalformed},
	{"tag 42 in three bytes", "d9002a" + testLink[4:], ErrNotCanonical},
	{"tag 42 of text", "d82a6161", ErrMalformed},
	{"tag 42 cut", testLink[:len(testLink)-2], ErrMalformed},
	{"tag 42 alone", "d82a", ErrMalformed},
	{"link without its zero", strings.Replace(testLink, "582500", "582501", 1), ErrMalformed},
	{"link of SHA-1", strings.Replace(testLink, "1220", "1120", 1), ErrMalformed},
	{"link of another codec", strings.Replace(testLink, "0171", "0170", 1), ErrMalformed},
}

func TestCheckDRISL(t *testing.T) {
	for _, c := range drislCases {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckDRISL(b, MaxDepth); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestCheckDRISLDepth(t *testing.T) {
	nested := func(n int) []byte { return append(bytes.Repeat([]byte{0x81}, n), 0) }
	if err := CheckDRISL(nested(16), 16); err != nil {
		t.Errorf("16 deep: %v", err)
	}
	if err := CheckDRISL(nested(17), 16); !errors.Is(err, ErrTooLarge) {
		t.Errorf("17 deep: %v, want ErrTooLarge", err)
	}
	if err := CheckDRISL([]byte{0x81, 0}, 0); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an array at depth 0: %v, want ErrTooLarge", err)
	}
	if err := CheckDRISL(bytes.Repeat([]byte{0x81}, 1<<20), 16); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a megabyte of arrays: %v, want ErrTooLarge", err)
	}
}

func TestCheckDRISLAllocatesNothing(t *testing.T) {
	b, _ := hex.DecodeString("a3616183010243010203616263e282ac616c" + testLink)
	if err := CheckDRISL(b, MaxDepth); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = CheckDRISL(b, MaxDepth) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var strictDecoder = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:       cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels: 256,
		IndefLength:     cbor.IndefLengthForbidden,
		DefaultMapType:  reflect.TypeFor[map[string]any](),
		BignumTag:       cbor.BignumTagForbidden,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

var canonicalEncoder = func() cbor.EncMode {
	m, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical}.EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// checkDRISLSlowly is the rule as it is usually stated: decode, look at every
// value, encode again, compare.
func checkDRISLSlowly(b []byte, maxDepth int) error {
	var v any
	if err := strictDecoder.Unmarshal(b, &v); err != nil {
		return err
	}
	if err := checkTree(v, maxDepth); err != nil {
		return err
	}
	again, err := canonicalEncoder.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return errors.New("encoded again it differs")
	}
	return nil
}

func checkTree(v any, depth int) error {
	children := func(list []any) error {
		if depth == 0 {
			return errors.New("too deep")
		}
		for _, item := range list {
			if err := checkTree(item, depth-1); err != nil {
				return err
			}
		}
		return nil
	}
	switch v := v.(type) {
	case nil, bool, string, []byte, int64:
		return nil
	case uint64:
		if v > 1<<63-1 {
			return errors.New("too large an integer")
		}
		return nil
	case []any:
		return children(v)
	case map[string]any:
		list := make([]any, 0, len(v))
		for _, item := range v {
			list = append(list, item)
		}
		return children(list)
	case cbor.Tag:
		b, ok := v.Content.([]byte)
		if v.Number != 42 || !ok || len(b) != 37 || b[0] != 0 {
			return errors.New("not a link")
		}
		_, err := CIDFromBytes(b[1:])
		return err
	default:
		return fmt.Errorf("%T", v)
	}
}

func FuzzCheckDRISL(f *testing.F) {
	for _, c := range drislCases {
		b, _ := hex.DecodeString(c.hex)
		f.Add(b)
	}
	f.Add(append(bytes.Repeat([]byte{0x81}, 17), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		fast, slow := CheckDRISL(b, MaxDepth), checkDRISLSlowly(b, MaxDepth)
		if (fast == nil) != (slow == nil) {
			t.Errorf("%x: %v, decoding and encoding again: %v", b, fast, slow)
		}
	})
}

// drawTree draws what a record may hold.
func drawTree(t *rapid.T, depth int) any {
	kinds := 7
	if depth > 0 {
		kinds = 9
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return rapid.Int64Range(-maxSafeInt, maxSafeInt).Draw(t, "int")
	case 1:
		return rapid.String().Draw(t, "text")
	case 2:
		return rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")
	case 3:
		return rapid.Bool().Draw(t, "bool")
	case 4:
		return nil
	case 5:
		return Sum(rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "linked"))
	case 6:
		return rapid.Int64Range(-300, 300).Draw(t, "small int")
	case 7:
		list := []any{}
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			list = append(list, drawTree(t, depth-1))
		}
		return list
	default:
		return drawMap(t, depth-1)
	}
}

func drawMap(t *rapid.T, depth int) map[string]any {
	m := map[string]any{}
	for range rapid.IntRange(0, 5).Draw(t, "fields") {
		key := rapid.StringN(0, 6, -1).Draw(t, "key")
		m[key] = drawTree(t, depth)
	}
	return m
}

// Our encoder, their encoder and the checker agree on what is drawn, and the
// two checkers on it with a byte changed.
func TestNaiveDRISL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawTree(t, 4)
		ours := appendValue(nil, v)
		theirs, err := canonicalEncoder.Marshal(v)
		if err != nil || !bytes.Equal(ours, theirs) {
			t.Fatalf("%v: %x, want %x, %v", v, ours, theirs, err)
		}
		if err := CheckDRISL(ours, MaxDepth); err != nil {
			t.Fatalf("%x: %v", ours, err)
		}
		i := rapid.IntRange(0, len(ours)-1).Draw(t, "at")
		ours[i] = rapid.Byte().Draw(t, "byte")
		if fast, slow := CheckDRISL(ours, MaxDepth), checkDRISLSlowly(ours, MaxDepth); (fast == nil) != (slow == nil) {
			t.Fatalf("%x: %v, slowly: %v", ours, fast, slow)
		}
	})
}
