package space

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type sample struct {
	_     struct{} `cbor:",toarray"`
	Who   DID
	What  NSID
	Key   RecordKey
	Where ID
	When  TID
	Level Level
	Link  CID
	Hash  [32]byte
	Blob  []byte
	N     int64
	List  []uint64
	Inner *View
}

func someSample() sample {
	return sample{
		Who: "did:web:a.example", What: "com.example.note", Key: "self",
		Where: ID{"did:web:a.example", "com.example.group", "main"},
		When:  1 << 60, Level: LevelWrite, Link: Sum(nil), Hash: [32]byte{1}, Blob: []byte("x"),
		N: -5, List: []uint64{1, 2}, Inner: &View{Count: 3},
	}
}

func TestMarshal(t *testing.T) {
	want := someSample()
	b, err := Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got sample
	if err := Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	again, err := Marshal(got)
	if err != nil || !bytes.Equal(b, again) || got.Where != want.Where || got.Inner.Count != 3 {
		t.Errorf("%+v came back as %+v", want, got)
	}
	if !bytes.Contains(b, []byte("at://did:web:a.example/space/")) {
		t.Error("a space stands in another form than at://")
	}
}

func TestMarshalRefusals(t *testing.T) {
	deep := any(0)
	for range MaxDepth + 1 {
		deep = []any{deep}
	}
	for name, v := range map[string]any{
		"float":           struct{ F float64 }{1},
		"2^63":            uint64(1 << 63),
		"tid of 64 bits":  TID(1 << 63),
		"int key":         map[int]int{1: 1},
		"text, not UTF-8": "\xff",
		"too deep":        deep,
		"too long":        make([]byte, MaxBytes),
	} {
		if b, err := Marshal(v); err == nil {
			t.Errorf("%s: %.20x", name, b)
		}
	}
}

func TestUnmarshalRefusals(t *testing.T) {
	type pair struct {
		_ struct{} `cbor:",toarray"`
		A [2]byte
		B uint8
	}
	type named struct {
		A []byte `cbor:"a"`
		B uint64 `cbor:"b"`
	}
	for _, c := range []struct {
		name, hex string
		v         any
		want      error
	}{
		{"fits", "8242010203", new(pair), nil},
		{"array a byte short", "82410103", new(pair), ErrNotCanonical},
		{"array a byte long", "824301020303", new(pair), ErrNotCanonical},
		{"array as list", "8282010203", new(pair), ErrNotCanonical},
		{"null for a number", "82420102f6", new(pair), ErrNotCanonical},
		{"a part short", "81420102", new(pair), ErrMalformed},
		{"a part long", "834201020304", new(pair), ErrMalformed},
		{"number too large", "8242010219ffff", new(pair), ErrMalformed},
		{"trailing byte", "824201020300", new(pair), ErrMalformed},
		{"long form", "824201021803", new(pair), ErrNotCanonical},
		{"map fits", "a2616141016162" + "02", new(named), nil},
		{"field missing", "a161614101", new(named), ErrNotCanonical},
		{"field unknown", "a3616141016162026163f6", new(named), ErrMalformed},
		{"other case", "a2614141016162" + "02", new(named), ErrMalformed},
		{"empty did", "60", new(DID), ErrMalformed},
		{"bad nsid", "6161", new(NSID), ErrMalformed},
		{"bad key", "622e2e", new(RecordKey), ErrMalformed},
		{"did of bytes", "4161", new(DID), ErrMalformed},
		{"tid of 64 bits", "1bffffffffffffffff", new(TID), ErrMalformed},
		{"tid as text", "6d33" + hex.EncodeToString([]byte("kbcq3p7ad422")), new(TID), ErrMalformed},
		{"level 4", "04", new(Level), ErrMalformed},
		{"space as ats", hex.EncodeToString(appendText(nil, "ats://did:web:a/a.b.c/d")), new(ID), ErrNotCanonical},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unmarshal(b, c.v); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestUnmarshalCaps(t *testing.T) {
	var list []uint8
	long := appendHead(nil, majorArray, MaxElements+1)
	long = append(long, make([]byte, MaxElements+1)...)
	if err := Unmarshal(long, &list); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d elements: %v, want ErrTooLarge", MaxElements+1, err)
	}
	if err := Unmarshal(make([]byte, MaxBytes+1), &list); !errors.Is(err, ErrTooLarge) {
		t.Errorf("2 MiB and one: %v, want ErrTooLarge", err)
	}
	var v any
	deep := append(bytes.Repeat([]byte{0x81}, 20), 0)
	if err := Unmarshal(deep, &v); !errors.Is(err, ErrTooLarge) {
		t.Errorf("20 deep: %v, want ErrTooLarge", err)
	}
	if err := UnmarshalDepth(deep, &v, 20); err != nil {
		t.Errorf("20 deep of 20: %v", err)
	}
	// A promise of many elements costs nothing: the bytes are not there.
	if n := testing.AllocsPerRun(10, func() {
		_ = CheckDRISL([]byte("\x9a\x7f\xff\xff\xff"), MaxDepth)
	}); n > 10 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, err := Marshal(someSample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var v sample
		if Unmarshal(b, &v) != nil {
			return
		}
		again, err := Marshal(v)
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%x decoded and gave %x, %v", b, again, err)
		}
	})
}

// Whatever Marshal takes comes back.
func TestMarshalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := someSample()
		s.When = TID(rapid.Uint64Max(uint64(maxTID)).Draw(t, "tid"))
		s.N = rapid.Int64().Draw(t, "n")
		s.Key = RecordKey(rapid.StringMatching(`[a-zA-Z0-9_~:-]{1,20}`).Draw(t, "key"))
		s.Blob = rapid.SliceOf(rapid.Byte()).Draw(t, "blob")
		b, err := Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back sample
		if err := Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back.When != s.When || back.N != s.N || back.Key != s.Key || !bytes.Equal(back.Blob, s.Blob) {
			t.Fatalf("%+v came back as %+v", s, back)
		}
	})
}

func TestErrorsSayWhere(t *testing.T) {
	err := CheckDRISL([]byte{0x82, 0x01, 0xf7}, MaxDepth)
	if err == nil || !strings.Contains(err.Error(), "byte 2") {
		t.Errorf("%v does not name the byte", err)
	}
}
