package space

import (
	"bytes"
	"fmt"
	"strings"
)

// The caps of a blob. A part is what one sealed object holds of it.
const (
	MaxBlob     = 64 << 20
	BlobPart    = 256<<10 - 16
	maxBlobMIME = 127 // bytes of a media type with its parameters
	maxBlobs    = 64  // of one record
)

// Blob says where the bytes of a blob are and how to open them: in sealed
// objects, each named by the SHA-256 of its ciphertext, under a key that was
// drawn for this blob. It travels in the op whose record refers to the blob, as
// the array [cid, size, type, key, parts], parts being their names one after
// the other.
type Blob struct {
	CID   CID // of the bytes, codec raw
	Size  uint64
	Type  string // media type, as the uploader said
	Key   [32]byte
	Parts [][32]byte // Size / BlobPart of them, rounded up; one if it is empty
}

// blobParts is how many parts a blob of a size has.
func blobParts(size uint64) uint64 { return max(1, (size+BlobPart-1)/BlobPart) }

func (b *Blob) check() error {
	switch {
	case b.CID.IsZero() || b.CID.b[1] != codecRaw:
		return fmt.Errorf("blob: its cid is not one of raw bytes: %w", ErrMalformed)
	case b.Size > MaxBlob:
		return fmt.Errorf("blob of %d bytes: %w", b.Size, ErrTooLarge)
	case uint64(len(b.Parts)) != blobParts(b.Size):
		return fmt.Errorf("blob of %d bytes in %d parts: %w", b.Size, len(b.Parts), ErrMalformed)
	}
	if err := CheckMediaType(b.Type); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	seen := make(map[[32]byte]bool, len(b.Parts))
	for _, p := range b.Parts {
		if seen[p] {
			return fmt.Errorf("blob: a part stands twice: %w", ErrMalformed)
		}
		seen[p] = true
	}
	return nil
}

// CheckMediaType reports whether s may stand for a media type: printable ASCII,
// at most 127 bytes, something on either side of a slash. What it means is for
// whoever serves the blob.
func CheckMediaType(s string) error {
	if len(s) > maxBlobMIME {
		return malformed("media type", s, "at most 127 bytes")
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return malformed("media type", s, "printable ASCII only")
		}
	}
	if kind, rest, ok := strings.Cut(s, "/"); !ok || kind == "" || rest == "" {
		return malformed("media type", s, "want type/subtype")
	}
	return nil
}

// Encode gives the array alone, for a store.
func (b Blob) Encode() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	return b.append(nil), nil
}

func (b *Blob) append(out []byte) []byte {
	out = appendHead(out, majorArray, 5)
	out = appendCID(out, b.CID)
	out = appendUint(out, b.Size)
	out = appendText(out, b.Type)
	out = appendBytes(out, b.Key[:])
	out = appendHead(out, majorBytes, uint64(32*len(b.Parts)))
	for i := range b.Parts {
		out = append(out, b.Parts[i][:]...)
	}
	return out
}

// DecodeBlob reads what Encode gives and nothing else.
func DecodeBlob(b []byte) (Blob, error) {
	r := batchReader{c: checker{b: b, maxDepth: MaxDepth}}
	out := r.blob()
	if r.err == nil && r.c.off != len(b) {
		r.fail(r.c.errorf(ErrMalformed, "%d bytes after the blob", len(b)-r.c.off))
	}
	if r.err != nil {
		return Blob{}, fmt.Errorf("decode blob: %w", r.err)
	}
	return out, nil
}

func (r *batchReader) blob() (b Blob) {
	r.array(5, "a blob of 5 parts")
	b.CID = r.cid()
	b.Size = r.uint("a size")
	b.Type = r.text(maxBlobMIME, "a media type")
	r.bytes(b.Key[:], "a key")
	n := r.expect(majorBytes, "names of parts")
	if r.err == nil && (b.Size > MaxBlob || n != 32*blobParts(b.Size)) {
		r.fail(r.c.errorf(ErrMalformed, "%d bytes of names for a blob of %d", n, b.Size))
	}
	names := r.take(n)
	if r.err != nil {
		return Blob{}
	}
	b.Parts = make([][32]byte, n/32)
	for i := range b.Parts {
		b.Parts[i] = [32]byte(names[32*i:])
	}
	r.fail(b.check())
	return b
}

// rawLink is how a link to raw bytes begins in a record.
const rawLink = cidHead + "\x01\x55\x12\x20"

// Blobs are the CIDs of raw bytes that the record links to, wherever they
// stand in it, each once: those of the blobs it keeps alive.
func (r Record) Blobs() []CID {
	if !bytes.Contains(r, []byte(rawLink)) || r.check() != nil {
		return nil
	}
	var out []CID
	c := checker{b: r, maxDepth: MaxDepth, record: true, linked: func(cid CID) {
		if cid.b[1] != codecRaw {
			return
		}
		for _, have := range out {
			if have == cid {
				return
			}
		}
		out = append(out, cid)
	}}
	_ = c.whole() // it was checked
	return out
}

// TypedBlobs are the CIDs in the record's blob objects, {"$type": "blob", "ref":
// a link to raw bytes, …}, each once. Who writes the record must have the blobs.
func (r Record) TypedBlobs() []CID {
	if !bytes.Contains(r, []byte(rawLink)) || r.check() != nil {
		return nil
	}
	w := blobWalker{checker: checker{b: r, maxDepth: MaxDepth}}
	w.value()
	return w.found
}

// blobWalker walks a record that has been checked: nothing in it can fail.
type blobWalker struct {
	checker
	found []CID
}

func (w *blobWalker) value() {
	major, arg, _ := w.head()
	switch major {
	case majorBytes, majorText:
		_, _ = w.take(arg)
	case majorArray:
		for range arg {
			w.value()
		}
	case majorMap:
		w.object(arg)
	case majorTag:
		_, _ = w.take(uint64(len(cidHead) - 2 + CIDSize))
	}
}

func (w *blobWalker) object(n uint64) {
	var isBlob bool
	var ref CID
	for range n {
		key, _ := w.key()
		start := w.off
		w.value()
		switch v := w.b[start:w.off]; string(key) {
		case "$type":
			isBlob = string(v) == "\x64blob"
		case "ref":
			_ = ref.UnmarshalCBOR(v) // no link: stays zero
		}
	}
	if !isBlob || ref.IsZero() || ref.b[1] != codecRaw {
		return
	}
	for _, have := range w.found {
		if have == ref {
			return
		}
	}
	w.found = append(w.found, ref)
}
