package space

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// B4: a description of a blob that could not be true is refused, whatever it
// promises, before anything is allocated for it.
func TestB4(t *testing.T) {
	good := withBlobs(t).Ops[0].Blobs[1]
	if b, err := good.Encode(); err != nil {
		t.Fatal(err)
	} else if again, err := DecodeBlob(b); err != nil || fmt.Sprint(again) != fmt.Sprint(good) {
		t.Fatalf("%+v, %v", again, err)
	}
	for name, bend := range map[string]func(*Blob){
		"size 2^63":    func(b *Blob) { b.Size = 1 << 63 },
		"over the cap": func(b *Blob) { b.Size = MaxBlob + 1 },
		"over the cap in as many parts": func(b *Blob) {
			b.Size, b.Parts = MaxBlob+1, nil
			for i := range blobParts(b.Size) {
				b.Parts = append(b.Parts, [32]byte{byte(i), byte(i >> 8)})
			}
		},
		"a part missing":  func(b *Blob) { b.Parts = b.Parts[:1] },
		"a part too many": func(b *Blob) { b.Parts = append(slices.Clone(b.Parts), [32]byte{11}) },
		"no part":         func(b *Blob) { b.Parts, b.Size = nil, 0 },
		"a part twice":    func(b *Blob) { b.Parts = [][32]byte{{9}, {9}} },
		"cid of a record": func(b *Blob) { b.CID = Sum([]byte{0xa0}) },
		"no cid":          func(b *Blob) { b.CID = CID{} },
		"no type":         func(b *Blob) { b.Type = "" },
		"a type with newlines": func(b *Blob) {
			b.Type = "text/html\r\nSet-Cookie: a"
		},
		"a long type": func(b *Blob) { b.Type = "text/" + strings.Repeat("x", 200) },
	} {
		bad := good
		bend(&bad)
		_, err := DecodeBlob(bad.append(nil))
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := bad.Encode(); err == nil {
			t.Errorf("%s: encodes", name)
		}
		batch := withBlobs(t)
		batch.Ops[0].Blobs[1] = bad
		if _, err := batch.Encode(); err == nil {
			t.Errorf("%s: encodes in a batch", name)
		}
	}
	// Ten million parts are promised and a few bytes follow.
	head := good.append(nil)
	head = head[:len(head)-64-2]
	promise := append(slices.Clone(head), 0x5a, 0x13, 0x12, 0xd0, 0x00)
	if n := testing.AllocsPerRun(10, func() {
		if _, err := DecodeBlob(promise); err == nil {
			t.Error("a promise of ten million parts passes")
		}
	}); n > 30 {
		t.Errorf("%v allocations for it", n)
	}
	// An identity hash is no CID here at all.
	if _, err := CIDFromBytes(append([]byte{1, 0x55, 0, 32}, make([]byte, 32)...)); err == nil {
		t.Error("a CID of an identity hash passes")
	}
}

func TestRecordBlobs(t *testing.T) {
	one, two, rec := SumRaw([]byte("1")), SumRaw([]byte("2")), Sum([]byte{0xa0})
	link := func(c CID) string { return `{"$link":"` + c.String() + `"}` }
	r := record(t, `{"a":[`+link(two)+`,{"b":`+link(one)+`},`+link(rec)+`],"c":`+link(two)+`,"d":"`+one.String()+`"}`)
	if typed := r.TypedBlobs(); typed != nil {
		t.Errorf("no blob objects, but %v", typed)
	}
	if have := r.Blobs(); !slices.Equal(have, []CID{two, one}) {
		t.Errorf("%v", have)
	}
	if have := record(t, `{"a":`+link(rec)+`}`).Blobs(); have != nil {
		t.Errorf("links to records: %v", have)
	}
	// Bytes that look like a link are none.
	fake := append([]byte{0xa1, 0x61, 'a', 0x58, 41}, rawLink...)
	fake = append(fake, make([]byte, 32)...)
	if have := Record(fake).Blobs(); have != nil {
		t.Errorf("bytes that look like a link: %v", have)
	}
}

func TestTypedBlobs(t *testing.T) {
	one, two, rec := SumRaw([]byte("1")), SumRaw([]byte("2")), Sum([]byte{0xa0})
	blob := func(typ string, c CID) string {
		return `{"$type":"` + typ + `","ref":{"$link":"` + c.String() + `"},"mimeType":"text/plain","size":1}`
	}
	r := record(t, `{"$type":"blob","a":[`+blob("blob", two)+`,[`+blob("blob", one)+`]],"b":`+blob("blob", two)+`,"c":`+blob("other", SumRaw(nil))+`,"d":`+blob("blob", rec)+`}`)
	if have := r.TypedBlobs(); !slices.Equal(have, []CID{two, one}) {
		t.Errorf("%v", have)
	}
}
