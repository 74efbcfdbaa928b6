package space

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

func someBatch(t testing.TB) Batch {
	return Batch{
		Rev: 1 << 60,
		Ops: []Op{
			{Path: Path{"com.example.note", "a"}, Value: record(t, `{"$type":"com.example.note","n":1}`)},
			{Path: Path{"com.example.note", "b"}, Prev: Sum(nil)},
		},
		Stmt: &Statement{Count: 7, Hash: [32]byte{1}, IKM: [32]byte{2}, Sig: [64]byte{3},
			View: View{Count: 8, Digest: [32]byte{4}}, Ctl: Head{Term: 9, Seq: 10, Hash: [32]byte{5}}},
	}
}

// withBlobs is a batch of which one record refers to blobs.
func withBlobs(t testing.TB) Batch {
	b := someBatch(t)
	cid := SumRaw([]byte("bytes"))
	b.Ops[0].Value = record(t, `{"$type":"com.example.note","blob":{"$type":"blob","ref":{"$link":"`+cid.String()+`"},"mimeType":"text/plain","size":5}}`)
	b.Ops[0].Blobs = []Blob{
		{CID: cid, Size: 5, Type: "text/plain", Key: [32]byte{6}, Parts: [][32]byte{{7}}},
		{CID: SumRaw([]byte("more")), Size: BlobPart + 1, Type: "image/png", Key: [32]byte{8}, Parts: [][32]byte{{9}, {10}}},
	}
	return b
}

func TestBatch(t *testing.T) {
	full := someBatch(t)
	noStmt := full
	noStmt.Stmt = nil
	for name, want := range map[string]Batch{"full": full, "no statement": noStmt, "blobs": withBlobs(t), "no ops": {Rev: 1, Stmt: full.Stmt}, "rev alone": {Rev: 1}} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := DecodeBatch(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	b, _ := Batch{Rev: 1, Ops: []Op{{Path: Path{"a.b.c", "d"}, Value: Record("\xa0")}}}.Encode()
	if want := "820181" + "84" + "65612e622e63" + "6164" + "f6" + "a0"; hex.EncodeToString(b) != want {
		t.Errorf("%x, want %s", b, want)
	}
}

func TestBatchRefusals(t *testing.T) {
	op := Op{Path: Path{"a.b.c", "d"}}
	big := Record(appendValue(nil, map[string]any{"a": make([]byte, MaxRecord-100)}))
	for name, c := range map[string]struct {
		b    Batch
		want error
	}{
		"no rev":           {Batch{}, ErrMalformed},
		"rev of 64 bits":   {Batch{Rev: 1 << 63}, ErrMalformed},
		"no path":          {Batch{Rev: 1, Ops: []Op{{}}}, ErrMalformed},
		"bad key":          {Batch{Rev: 1, Ops: []Op{{Path: Path{"a.b.c", "x/y"}}}}, ErrMalformed},
		"no record":        {Batch{Rev: 1, Ops: []Op{{Path: op.Path, Value: Record{}}}}, ErrMalformed},
		"not canonical":    {Batch{Rev: 1, Ops: []Op{{Path: op.Path, Value: Record("\xb8\x00")}}}, ErrNotCanonical},
		"201 ops":          {Batch{Rev: 1, Ops: make([]Op, 201)}, ErrTooLarge},
		"almost 2 MiB":     {Batch{Rev: 1, Ops: []Op{{Path: op.Path, Value: big}, {Path: op.Path, Value: big}, {Path: op.Path}}}, nil},
		"over 2 MiB":       {Batch{Rev: 1, Ops: []Op{{Path: op.Path, Value: big}, {Path: op.Path, Value: big}, {Path: op.Path, Value: big}}}, ErrTooLarge},
		"count of 64 bits": {Batch{Rev: 1, Stmt: &Statement{Count: 1 << 63}}, ErrMalformed},
	} {
		b, err := c.b.Encode()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %.20x, %v, want %v", name, b, err, c.want)
		}
	}
	if _, err := DecodeBatch(make([]byte, MaxBody+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("2 MiB and one: %v", err)
	}
}

func TestDecodeBatchRefusals(t *testing.T) {
	good := "820181" + "84" + "65612e622e63" + "6164" + "f6" + "a0"
	for name, c := range map[string]struct {
		hex  string
		want error
	}{
		"good":               {good, nil},
		"nothing":            {"", ErrMalformed},
		"trailing byte":      {good + "00", ErrMalformed},
		"one part":           {"8101", ErrMalformed},
		"four parts":         {"840180f6f6", ErrMalformed},
		"null statement":     {"830180f6", ErrMalformed},
		"rev zero":           {"820080", ErrMalformed},
		"rev of 64 bits":     {"821bffffffffffffffff80", ErrMalformed},
		"rev of two bytes":   {"82180180", ErrNotCanonical},
		"negative rev":       {"822080", ErrMalformed},
		"201 ops":            {"820198c9", ErrTooLarge},
		"ops not there":      {"820118c8", ErrMalformed},
		"op of three":        {"82018183" + "65612e622e63" + "6164" + "f6", ErrMalformed},
		"bad collection":     {strings.Replace(good, "65612e622e63", "63612e62", 1), ErrMalformed},
		"bad key":            {strings.Replace(good, "6164", "612f", 1), ErrMalformed},
		"key of bytes":       {strings.Replace(good, "6164", "4164", 1), ErrMalformed},
		"prev of bytes":      {strings.Replace(good, "f6a0", "40a0", 1), ErrMalformed},
		"value a list":       {good[:len(good)-2] + "80", ErrMalformed},
		"value a float":      {good[:len(good)-2] + "f93c00", ErrMalformed},
		"value missing":      {good[:len(good)-2], ErrMalformed},
		"float in value":     {good[:len(good)-2] + "a16161f93c00", ErrMalformed},
		"2^53 in value":      {good[:len(good)-2] + "a161611b0020000000000000", ErrMalformed},
		"indefinite ops":     {"82019fff", ErrMalformed},
		"long length of ops": {"8201" + "9801" + good[6:], ErrNotCanonical},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := DecodeBatch(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestDecodeStatementRefusals(t *testing.T) {
	b, err := Batch{Rev: 1, Stmt: &Statement{Sig: [64]byte{0xee}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeBatch(b); err != nil {
		t.Fatal(err)
	}
	sig := slices.Concat([]byte{0x58, 64, 0xee}, make([]byte, 63))
	for name, with := range map[string][]byte{
		"a byte short": slices.Concat([]byte{0x58, 63, 0xee}, make([]byte, 62)),
		"a byte long":  slices.Concat([]byte{0x58, 65, 0xee}, make([]byte, 64)),
		"as text":      slices.Concat([]byte{0x78, 64, 'x'}, make([]byte, 63)),
		"null":         {simpleNull},
	} {
		if _, err := DecodeBatch(bytes.Replace(b, sig, with, 1)); !errors.Is(err, ErrMalformed) {
			t.Errorf("signature %s: %v, want ErrMalformed", name, err)
		}
	}
}

// A record too long for itself is too long in a batch that is not.
func TestBatchRecordCap(t *testing.T) {
	record := appendValue(nil, map[string]any{"a": make([]byte, MaxRecord-8)})
	if len(record) != MaxRecord {
		t.Fatal(len(record))
	}
	op := Op{Path: Path{"a.b.c", "d"}, Value: record}
	b, err := Batch{Rev: 1, Ops: []Op{op}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeBatch(b); err != nil {
		t.Error(err)
	}
	op.Value = appendValue(nil, map[string]any{"a": make([]byte, MaxRecord-7)})
	if _, err := (Batch{Rev: 1, Ops: []Op{op}}).Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("encode: %v, want ErrTooLarge", err)
	}
	b = append(bytes.TrimSuffix(b, record), op.Value...)
	if _, err := DecodeBatch(b); !errors.Is(err, ErrTooLarge) {
		t.Errorf("decode: %v, want ErrTooLarge", err)
	}
}

// A record in a batch may be as deep as one alone.
func TestBatchDepth(t *testing.T) {
	deep := any(map[string]any{})
	for range MaxDepth - 1 {
		deep = map[string]any{"a": deep}
	}
	path := Path{"a.b.c", "d"}
	b, err := Batch{Rev: 1, Ops: []Op{{Path: path, Value: appendValue(nil, deep)}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeBatch(b); err != nil {
		t.Error(err)
	}
	tooDeep := appendValue(nil, map[string]any{"a": deep})
	if _, err := (Batch{Rev: 1, Ops: []Op{{Path: path, Value: tooDeep}}}).Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one level more: %v, want ErrTooLarge", err)
	}
	if _, err := DecodeBatch(append(bytes.TrimSuffix(b, appendValue(nil, deep)), tooDeep...)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one level more: %v, want ErrTooLarge", err)
	}
}

// decodeBatchSlowly reads a body by reflection, and records one by one.
func decodeBatchSlowly(b []byte) (Batch, error) {
	type op struct {
		_          struct{} `cbor:",toarray"`
		Collection NSID
		Key        RecordKey
		Prev       CID
		Value      cbor.RawMessage
	}
	type opBlobs struct {
		_          struct{} `cbor:",toarray"`
		Collection NSID
		Key        RecordKey
		Prev       CID
		Value      cbor.RawMessage
		Blobs      []struct {
			_     struct{} `cbor:",toarray"`
			CID   CID
			Size  uint64
			Type  string
			Key   [32]byte
			Parts []byte
		}
	}
	type statement struct {
		_     struct{} `cbor:",toarray"`
		Count uint64
		Hash  [32]byte
		IKM   [32]byte
		Sig   [64]byte
		View  View
		Ctl   Head
	}
	var w2 struct {
		_   struct{} `cbor:",toarray"`
		Rev TID
		Ops []cbor.RawMessage
	}
	var w3 struct {
		_    struct{} `cbor:",toarray"`
		Rev  TID
		Ops  []cbor.RawMessage
		Stmt statement
	}
	out := Batch{}
	if len(b) > 0 && b[0] == 0x83 {
		if err := UnmarshalDepth(b, &w3, MaxDepth+3); err != nil {
			return Batch{}, err
		}
		w2.Rev, w2.Ops = w3.Rev, w3.Ops
		out.Stmt = &Statement{w3.Stmt.Count, w3.Stmt.Hash, w3.Stmt.IKM, w3.Stmt.Sig, w3.Stmt.View, w3.Stmt.Ctl}
	} else if err := UnmarshalDepth(b, &w2, MaxDepth+3); err != nil {
		return Batch{}, err
	}
	out.Rev = w2.Rev
	if out.Rev == 0 || w2.Ops == nil || len(w2.Ops) > MaxOps { // nil was null
		return Batch{}, ErrMalformed
	}
	for _, raw := range w2.Ops {
		var o op
		var blobs []Blob
		if len(raw) > 0 && raw[0] == 0x85 {
			var with opBlobs
			if err := UnmarshalDepth(raw, &with, MaxDepth+1); err != nil {
				return Batch{}, err
			}
			o = op{Collection: with.Collection, Key: with.Key, Prev: with.Prev, Value: with.Value}
			if len(with.Blobs) == 0 || len(with.Blobs) > maxBlobs || string(o.Value) == "\xf6" {
				return Batch{}, ErrMalformed
			}
			for _, b := range with.Blobs {
				blob := Blob{CID: b.CID, Size: b.Size, Type: b.Type, Key: b.Key}
				if len(b.Parts)%32 != 0 || b.CID.IsZero() {
					return Batch{}, ErrMalformed
				}
				for part := range slices.Chunk(b.Parts, 32) {
					blob.Parts = append(blob.Parts, [32]byte(part))
				}
				if err := blob.check(); err != nil {
					return Batch{}, err
				}
				blobs = append(blobs, blob)
			}
		} else if err := UnmarshalDepth(raw, &o, MaxDepth+1); err != nil {
			return Batch{}, err
		}
		if _, err := ParseNSID(string(o.Collection)); err != nil {
			return Batch{}, err
		}
		if _, err := ParseRecordKey(string(o.Key)); err != nil {
			return Batch{}, err
		}
		var value Record
		if string(o.Value) != "\xf6" {
			var err error
			if value, err = ParseRecord(o.Value); err != nil {
				return Batch{}, err
			}
		}
		out.Ops = append(out.Ops, Op{Path: Path{o.Collection, o.Key}, Prev: o.Prev, Value: value, Blobs: blobs})
	}
	return out, nil
}

func checkDecodeBatch(b []byte) error {
	fast, err := DecodeBatch(b)
	slow, err2 := decodeBatchSlowly(b)
	if (err == nil) != (err2 == nil) {
		return fmt.Errorf("%x: %v, slowly: %v", b, err, err2)
	}
	if err != nil {
		return nil
	}
	if !reflect.DeepEqual(fast, slow) {
		return fmt.Errorf("%x: %+v, slowly: %+v", b, fast, slow)
	}
	if again, err := fast.Encode(); err != nil || !bytes.Equal(again, b) {
		return fmt.Errorf("%x decoded and gave %x, %v", b, again, err)
	}
	return nil
}

func FuzzDecodeBatch(f *testing.F) {
	for _, batch := range []Batch{someBatch(f), withBlobs(f)} {
		b, err := batch.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x82\x01\x81\x84\x65a.b.c\x61d\xf6\xa0"))
	f.Add([]byte("\x82\x01\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkDecodeBatch(b); err != nil {
			t.Error(err)
		}
	})
}

func TestNaiveBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch := Batch{Rev: TID(rapid.Uint64Range(1, uint64(maxTID)).Draw(t, "rev"))}
		for range rapid.IntRange(0, 5).Draw(t, "ops") {
			op := Op{Path: Path{"com.example.note", RecordKey(rapid.StringMatching(`[a-z0-9]{1,20}`).Draw(t, "key"))}}
			if rapid.Bool().Draw(t, "has prev") {
				op.Prev = SumRaw([]byte{rapid.Byte().Draw(t, "prev")})
			}
			if rapid.Bool().Draw(t, "put") {
				op.Value = appendValue(nil, drawMap(t, 3))
			}
			batch.Ops = append(batch.Ops, op)
		}
		if rapid.Bool().Draw(t, "has statement") {
			batch.Stmt = &Statement{Count: rapid.Uint64Max(1<<63-1).Draw(t, "count"), Sig: [64]byte{rapid.Byte().Draw(t, "sig")}}
		}
		b, err := batch.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkDecodeBatch(b); err != nil {
			t.Fatal(err)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		if err := checkDecodeBatch(b); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	batch := someBatch(b)
	batch.Stmt = nil
	body, err := batch.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = batch.Encode()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = DecodeBatch(body)
		}
	})
	b.Run("decode by reflection", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = decodeBatchSlowly(body)
		}
	})
}
