package space

import "fmt"

// The caps of an entry's body.
const (
	MaxBody = 2 << 20
	MaxOps  = 200
)

// Op puts a record at a path, or deletes it if Value is nil. Prev says what
// the writer saw there; it is told to readers of the oplog and decides nothing.
type Op struct {
	Path  Path
	Prev  CID
	Value Record
	Blobs []Blob // to which Value refers; how others open them
	Sum   CID    // of Value, or zero: not computed yet. It is not encoded
}

// Head is the end of a control log.
type Head struct {
	_    struct{} `cbor:",toarray"`
	Term uint64   `json:"term"`
	Seq  uint64   `json:"seq"`
	Hash [32]byte `json:"hash"`
}

// View is what a writer's replica of the topic held when it wrote.
type View struct {
	_      struct{} `cbor:",toarray"`
	Count  uint64   `json:"count"`
	Digest [32]byte `json:"digest"`
}

// Statement is the author's word on its repo after a batch: how many records,
// their digest, and a signature any reader can serve as a commit.
type Statement struct {
	Count uint64
	Hash  [32]byte
	IKM   [32]byte
	Sig   [64]byte
	View  View
	Ctl   Head
}

// Batch is the body of an entry: operations that take effect together, under
// one revision. It stands in the entry as the DRISL array
//
//	[rev, ops] or [rev, ops, stmt]
//	op   = [collection, rkey, prev | null, value | null] or
//	       [collection, rkey, prev | null, value, [blob, ...]]
//	stmt = [count, hash, ikm, sig, [count, digest], [term, seq, hash]]
//
// value being the record itself, not its bytes. A path may stand in it twice:
// the last op on it wins.
type Batch struct {
	Rev  TID
	Ops  []Op
	Stmt *Statement

	puts *Puts // which holds what the batch puts; nil: none does
}

// Encode gives the body. It refuses what DecodeBatch would.
func (b Batch) Encode() ([]byte, error) {
	if b.Rev == 0 || b.Rev > maxTID {
		return nil, fmt.Errorf("encode batch: rev %d: %w", uint64(b.Rev), ErrMalformed)
	}
	if len(b.Ops) > MaxOps {
		return nil, fmt.Errorf("encode batch: %d ops: %w", len(b.Ops), ErrTooLarge)
	}
	size := 256
	for i := range b.Ops {
		op := &b.Ops[i]
		if err := op.check(); err != nil {
			return nil, fmt.Errorf("encode batch: op %d: %w", i, err)
		}
		size += len(op.Path.Collection) + len(op.Path.Key) + CIDSize + len(op.Value) + 16
		for j := range op.Blobs {
			size += 256 + 32*len(op.Blobs[j].Parts)
		}
	}
	out := make([]byte, 0, size)
	n := uint64(2)
	if b.Stmt != nil {
		n = 3
	}
	out = appendUint(appendHead(out, majorArray, n), uint64(b.Rev))
	out = appendHead(out, majorArray, uint64(len(b.Ops)))
	for i := range b.Ops {
		out = b.Ops[i].append(out)
	}
	if b.Stmt != nil {
		if err := b.Stmt.check(); err != nil {
			return nil, fmt.Errorf("encode batch: %w", err)
		}
		out = b.Stmt.append(out)
	}
	if len(out) > MaxBody {
		return nil, fmt.Errorf("encode batch: %d bytes: %w", len(out), ErrTooLarge)
	}
	return out, nil
}

func (op *Op) check() error {
	if _, err := parseNSID("collection", string(op.Path.Collection)); err != nil {
		return err
	}
	if _, err := parseRecordKey("rkey", string(op.Path.Key)); err != nil {
		return err
	}
	if len(op.Blobs) > maxBlobs || len(op.Blobs) > 0 && op.Value == nil {
		return fmt.Errorf("%d blobs: %w", len(op.Blobs), ErrTooLarge)
	}
	for i := range op.Blobs {
		if err := op.Blobs[i].check(); err != nil {
			return err
		}
	}
	if op.Value == nil {
		return nil
	}
	return op.Value.check()
}

// Sum computes the CIDs of the values, which Apply then need not do.
func (b Batch) Sum() {
	for i := range b.Ops {
		b.Ops[i].Sum = b.Ops[i].sum()
	}
}

func (op *Op) sum() CID {
	if op.Value == nil || !op.Sum.IsZero() {
		return op.Sum
	}
	return Sum(op.Value)
}

func (op *Op) append(b []byte) []byte {
	parts := uint64(4)
	if len(op.Blobs) > 0 {
		parts = 5
	}
	b = appendHead(b, majorArray, parts)
	b = appendText(b, string(op.Path.Collection))
	b = appendText(b, string(op.Path.Key))
	b = appendCID(b, op.Prev)
	if op.Value == nil {
		return append(b, simpleNull)
	}
	b = append(b, op.Value...)
	if len(op.Blobs) > 0 {
		b = appendHead(b, majorArray, uint64(len(op.Blobs)))
		for i := range op.Blobs {
			b = op.Blobs[i].append(b)
		}
	}
	return b
}

// check keeps the counts in the range of DRISL's integers.
func (s *Statement) check() error {
	if max(s.Count, s.View.Count, s.Ctl.Term, s.Ctl.Seq) > 1<<63-1 {
		return fmt.Errorf("statement: integer needs more than 64 bits with sign: %w", ErrMalformed)
	}
	return nil
}

func (s *Statement) append(b []byte) []byte {
	b = appendUint(appendHead(b, majorArray, 6), s.Count)
	b = appendBytes(b, s.Hash[:])
	b = appendBytes(b, s.IKM[:])
	b = appendBytes(b, s.Sig[:])
	b = appendUint(appendHead(b, majorArray, 2), s.View.Count)
	b = appendBytes(b, s.View.Digest[:])
	b = appendUint(appendHead(b, majorArray, 3), s.Ctl.Term)
	b = appendUint(b, s.Ctl.Seq)
	return appendBytes(b, s.Ctl.Hash[:])
}

// DecodeBatch reads a body. The records in the batch are slices of b, which
// the caller must leave alone from then on.
func DecodeBatch(b []byte) (Batch, error) {
	if len(b) > MaxBody {
		return Batch{}, fmt.Errorf("decode batch: %d bytes: %w", len(b), ErrTooLarge)
	}
	r := batchReader{c: checker{b: b, maxDepth: MaxDepth, record: true}}
	out := r.batch()
	if r.err == nil && r.c.off != len(b) {
		r.fail(r.c.errorf(ErrMalformed, "%d bytes after the batch", len(b)-r.c.off))
	}
	if r.err != nil {
		return Batch{}, fmt.Errorf("decode batch: %w", r.err)
	}
	return out, nil
}

// batchReader reads what is expected next, until the first error.
type batchReader struct {
	c   checker
	err error
}

func (r *batchReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// expect reads a head of the major type and gives its argument.
func (r *batchReader) expect(major byte, what string) uint64 {
	if r.err != nil {
		return 0
	}
	got, arg, err := r.c.head()
	if err == nil && got != major {
		err = r.c.errorf(ErrMalformed, "want %s", what)
	}
	r.fail(err)
	return arg
}

func (r *batchReader) array(n uint64, what string) {
	if got := r.expect(majorArray, what); r.err == nil && got != n {
		r.fail(r.c.errorf(ErrMalformed, "want %s", what))
	}
}

func (r *batchReader) uint(what string) uint64 {
	v := r.expect(majorUint, what)
	if v > 1<<63-1 {
		r.fail(r.c.errorf(ErrMalformed, "%s needs more than 64 bits with sign", what))
	}
	return v
}

func (r *batchReader) bytes(dst []byte, what string) {
	n := r.expect(majorBytes, what)
	if r.err == nil && n != uint64(len(dst)) {
		r.fail(r.c.errorf(ErrMalformed, "%s of %d bytes, want %d", what, n, len(dst)))
		return
	}
	s := r.take(n)
	copy(dst, s)
}

func (r *batchReader) take(n uint64) []byte {
	if r.err != nil {
		return nil
	}
	s, err := r.c.take(n)
	r.fail(err)
	return s
}

func (r *batchReader) text(limit uint64, what string) string {
	n := r.expect(majorText, what)
	if r.err == nil && n > limit {
		r.fail(r.c.errorf(ErrMalformed, "%s of %d bytes", what, n))
	}
	return string(r.take(n))
}

// null reports whether a null stands next, and passes it.
func (r *batchReader) null() bool {
	if r.err == nil && r.c.off < len(r.c.b) && r.c.b[r.c.off] == simpleNull {
		r.c.off++
		return true
	}
	return false
}

func (r *batchReader) batch() (b Batch) {
	n := r.expect(majorArray, "a batch")
	if r.err == nil && n != 2 && n != 3 {
		r.fail(r.c.errorf(ErrMalformed, "a batch has 2 or 3 parts, not %d", n))
	}
	b.Rev = TID(r.uint("a rev"))
	if r.err == nil && b.Rev == 0 {
		r.fail(r.c.errorf(ErrMalformed, "rev is zero"))
	}
	ops := r.expect(majorArray, "ops")
	if ops > MaxOps {
		r.fail(r.c.errorf(ErrTooLarge, "%d ops", ops))
	}
	if r.err == nil && ops > 0 {
		b.Ops = make([]Op, ops)
	}
	for i := range b.Ops {
		if r.op(&b.Ops[i]); r.err != nil {
			return b
		}
	}
	if n == 3 {
		b.Stmt = r.statement()
	}
	return b
}

func (r *batchReader) op(op *Op) {
	parts := r.expect(majorArray, "an op")
	if r.err == nil && parts != 4 && parts != 5 {
		r.fail(r.c.errorf(ErrMalformed, "an op has 4 or 5 parts, not %d", parts))
	}
	collection := r.text(MaxNSID, "a collection")
	key := r.text(MaxRecordKey, "an rkey")
	if r.err != nil {
		return
	}
	var err error
	op.Path.Collection, err = parseNSID("collection", collection)
	r.fail(err)
	op.Path.Key, err = parseRecordKey("rkey", key)
	r.fail(err)
	if !r.null() {
		op.Prev = r.cid()
	}
	if !r.null() {
		op.Value = r.record()
	}
	if parts == 5 {
		r.blobs(op)
	}
}

func (r *batchReader) blobs(op *Op) {
	n := r.expect(majorArray, "blobs")
	if r.err == nil && (n == 0 || n > maxBlobs || op.Value == nil) {
		r.fail(r.c.errorf(ErrMalformed, "%d blobs of an op", n))
	}
	for range n {
		if r.err != nil {
			return
		}
		op.Blobs = append(op.Blobs, r.blob())
	}
}

func (r *batchReader) cid() CID {
	start := r.c.off
	tag := r.expect(majorTag, "a link")
	if r.err != nil {
		return CID{}
	}
	if err := r.c.link(tag); err != nil {
		r.fail(err)
		return CID{}
	}
	return CID{[CIDSize]byte(r.c.b[start+len(cidHead) : r.c.off])}
}

func (r *batchReader) record() Record {
	if r.err != nil {
		return nil
	}
	start := r.c.off
	if start < len(r.c.b) && r.c.b[start]>>5 != majorMap {
		r.fail(r.c.errorf(ErrMalformed, "a record is a map"))
		return nil
	}
	if err := r.c.item(0); err != nil {
		r.fail(err)
		return nil
	}
	if size := r.c.off - start; size > MaxRecord {
		r.fail(r.c.errorf(ErrTooLarge, "record of %d bytes", size))
	}
	return r.c.b[start:r.c.off:r.c.off]
}

func (r *batchReader) statement() *Statement {
	s := new(Statement)
	r.array(6, "a statement of 6 parts")
	s.Count = r.uint("a count")
	r.bytes(s.Hash[:], "a hash")
	r.bytes(s.IKM[:], "an ikm")
	r.bytes(s.Sig[:], "a signature")
	r.array(2, "a view of 2 parts")
	s.View.Count = r.uint("a count")
	r.bytes(s.View.Digest[:], "a digest")
	r.array(3, "a control head of 3 parts")
	s.Ctl.Term = r.uint("a term")
	s.Ctl.Seq = r.uint("a seq")
	r.bytes(s.Ctl.Hash[:], "a hash")
	return s
}
