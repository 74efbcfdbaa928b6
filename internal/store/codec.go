package store

import (
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/lthash"
)

// Rows are fields one after the other: integers big-endian, texts after their
// length as a varint, what is optional after a byte 0 or 1. Sealing vouches
// for them: a row that does not decode was written by other code.

// Flags of a chain's head. The lowest bit once said that a fork was seen, not
// where: it is not heeded, and the fork shows again.
const (
	flagForked = 2 // a sequence follows
	flagEmpty  = 4 // nothing of the chain stands
)

func appendUint(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendCID(b []byte, c space.CID) []byte {
	if c.IsZero() {
		return append(b, 0)
	}
	return append(append(b, 1), c.Bytes()...)
}

func appendState(b []byte, s *lthash.State) []byte {
	b, _ = s.AppendBinary(b) // never fails
	return b
}

func (t *TopicRow) append(b []byte, tails []tail) []byte {
	b = append(b, t.ID[:]...)
	b = appendUint(b, t.Count)
	b = appendState(b, &t.State)
	for i := range tails {
		b = append(b, tails[i].chain[:]...)
		b = appendUint(b, tails[i].from)
	}
	return b
}

func appendHead(b []byte, topic envelope.TopicID, c *envelope.Chain) []byte {
	b = append(b, topic[:]...)
	b = append(b, c.ID[:]...)
	b = appendUint(b, c.Head.Seq)
	b = append(b, c.Head.ID[:]...)
	var flags byte
	if c.Length == 0 {
		flags |= flagEmpty
	}
	if !c.Forked {
		return append(b, flags)
	}
	return appendUint(append(b, flags|flagForked), c.Fork)
}

func (a *AppliedRow) append(b []byte) []byte {
	b = append(b, a.Chain[:]...)
	b = appendUint(b, a.Seq)
	return append(b, a.State...)
}

func (r *RecordRow) append(b []byte) []byte {
	b = appendText(b, r.Path.Collection)
	b = appendText(b, r.Path.Key)
	b = appendCID(b, r.Leaf.CID)
	b = appendUint(b, uint64(r.Leaf.Stamp.Rev))
	b = append(b, r.Leaf.Stamp.Device[:]...)
	b = append(b, r.Leaf.Stamp.Entry[:]...)
	return append(b, r.Value...)
}

func (r *RepoRow) append(b []byte) []byte {
	b = appendText(b, r.Author)
	b = appendUint(b, uint64(r.Rev))
	b = appendUint(b, r.Count)
	b = appendUint(b, r.OpCount)
	b = appendState(b, &r.State)
	return markOf(r.Stmt).append(b)
}

func (m stmtMark) append(b []byte) []byte {
	if !m.some {
		return append(b, 0)
	}
	return append(append(b, 1), m.sig[:]...)
}

func (t *tip) append(b []byte) []byte {
	b = binary.AppendUvarint(b, t.base)
	b = binary.AppendUvarint(b, t.ops-t.base)
	b = appendUint(b, uint64(t.rev))
	b = binary.AppendUvarint(b, t.count)
	return t.stmt.append(b)
}

func appendStatement(b []byte, s *space.Statement) []byte {
	b = appendUint(b, s.Count)
	b = append(b, s.Hash[:]...)
	b = append(b, s.IKM[:]...)
	b = append(b, s.Sig[:]...)
	b = appendUint(b, s.View.Count)
	b = append(b, s.View.Digest[:]...)
	b = appendUint(b, s.Ctl.Term)
	b = appendUint(b, s.Ctl.Seq)
	return append(b, s.Ctl.Hash[:]...)
}

func (p *OpPage) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.Rows)))
	for i := range p.Rows {
		o := &p.Rows[i]
		b = appendUint(b, uint64(o.Rev))
		b = binary.AppendUvarint(b, uint64(o.Idx))
		b = appendText(b, o.Path.Collection)
		b = appendText(b, o.Path.Key)
		b = appendCID(b, o.CID)
		b = appendCID(b, o.Prev)
	}
	return b
}

// fields reads a row. After a failure it gives zeros; end reports it.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n < 0 || n > len(f.b) {
		f.bad = true
		return nil
	}
	b := f.b[:n:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint() uint64 {
	if b := f.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (f *fields) uvarint() uint64 {
	n, size := binary.Uvarint(f.b)
	if f.bad || size <= 0 {
		f.bad = true
		return 0
	}
	f.b = f.b[size:]
	return n
}

func (f *fields) text() []byte {
	n := f.uvarint()
	if n > uint64(len(f.b)) {
		f.bad = true
		return nil
	}
	return f.take(int(n))
}

func (f *fields) hash() (h [32]byte) {
	copy(h[:], f.take(32))
	return h
}

func (f *fields) cid() space.CID {
	if f.byte() == 0 {
		return space.CID{}
	}
	c, err := space.CIDFromBytes(f.take(space.CIDSize))
	f.bad = f.bad || err != nil
	return c
}

func (f *fields) path() space.Path {
	return space.Path{Collection: space.NSID(f.text()), Key: space.RecordKey(f.text())}
}

func (f *fields) state() (s lthash.State) {
	if err := s.UnmarshalBinary(f.take(lthash.Size)); err != nil {
		f.bad = true
	}
	return s
}

// rest is all that is left.
func (f *fields) rest() []byte { return f.take(len(f.b)) }

// end refuses a row that was too short or too long.
func (f *fields) end(what string) error {
	if f.bad || len(f.b) > 0 {
		return fmt.Errorf("decode %s: %w", what, ErrDamaged)
	}
	return nil
}

func decodeTopic(b []byte) (t TopicRow, tails []tail, err error) {
	f := fields{b: b}
	t.ID = f.hash()
	t.Count = f.uint()
	t.State = f.state()
	for len(f.b) > 0 && !f.bad {
		tails = append(tails, tail{chain: f.hash(), from: f.uint()})
	}
	return t, tails, f.end("topic")
}

// decodeHead leaves the certificate out.
func decodeHead(b []byte) (topic envelope.TopicID, c envelope.Chain, err error) {
	f := fields{b: b}
	topic = f.hash()
	c.ID = f.hash()
	c.Head.Seq = f.uint()
	c.Head.ID = f.hash()
	c.Length = c.Head.Seq + 1
	flags := f.byte()
	if flags&flagEmpty != 0 {
		c.Length = 0
	}
	if c.Forked = flags&flagForked != 0; c.Forked {
		c.Fork = f.uint()
	}
	return topic, c, f.end("chain head")
}

func decodeApplied(topic envelope.TopicID, b []byte) (a AppliedRow, err error) {
	f := fields{b: b}
	a.Topic = topic
	a.Chain = f.hash()
	a.Seq = f.uint()
	a.State = f.rest()
	return a, f.end("applied")
}

func decodeRecord(author space.DID, b []byte) (r RecordRow, err error) {
	f := fields{b: b}
	r.Author = author
	r.Path = f.path()
	r.Leaf.CID = f.cid()
	r.Leaf.Stamp.Rev = space.TID(f.uint())
	r.Leaf.Stamp.Device = f.hash()
	r.Leaf.Stamp.Entry = f.hash()
	if v := f.rest(); len(v) > 0 {
		r.Value = v
	}
	return r, f.end("record")
}

// decodeValue reads what stands in a record's row besides its place; nothing
// from no row.
func decodeValue(b []byte) (cid space.CID, value space.Record, err error) {
	if b == nil {
		return cid, nil, nil
	}
	f := fields{b: b}
	f.text()
	f.text()
	cid = f.cid()
	f.take(8 + 32 + 32) // the stamp
	if v := f.rest(); len(v) > 0 {
		value = v
	}
	return cid, value, f.end("record")
}

// decodeRepo leaves the statement out.
func decodeRepo(b []byte) (r RepoRow, m stmtMark, err error) {
	f := fields{b: b}
	r.Author = space.DID(f.text())
	r.Rev = space.TID(f.uint())
	r.Count = f.uint()
	r.OpCount = f.uint()
	r.State = f.state()
	m = f.mark()
	return r, m, f.end("repo")
}

func (f *fields) mark() (m stmtMark) {
	if m.some = f.byte() == 1; m.some {
		copy(m.sig[:], f.take(len(m.sig)))
	}
	return m
}

func decodeTip(b []byte) (t tip, err error) {
	f := fields{b: b}
	t.base = f.uvarint()
	t.ops = t.base + f.uvarint()
	t.rev = space.TID(f.uint())
	t.count = f.uvarint()
	t.stmt = f.mark()
	return t, f.end("repo tip")
}

func decodeStatement(b []byte) (*space.Statement, error) {
	f := fields{b: b}
	s := &space.Statement{Count: f.uint(), Hash: f.hash(), IKM: f.hash()}
	copy(s.Sig[:], f.take(len(s.Sig)))
	s.View = space.View{Count: f.uint(), Digest: f.hash()}
	s.Ctl = space.Head{Term: f.uint(), Seq: f.uint(), Hash: f.hash()}
	return s, f.end("statement")
}

// after reports whether o stands behind (rev, idx) in its oplog.
func (o *OpRow) after(rev space.TID, idx int) bool { return o.Rev > rev || o.Rev == rev && o.Idx > idx }

// minOp is the least an op takes in a page.
const minOp = 8 + 1 + 1 + 1 + 1 + 1

// opCount reads how many ops a page has.
func (f *fields) opCount() (int, error) {
	size := len(f.b)
	n := f.uvarint()
	if n > uint64(size/minOp) {
		return 0, fmt.Errorf("decode ops: %w: %d in %d bytes", ErrDamaged, n, size)
	}
	return int(n), nil
}

func decodeOps(author space.DID, first uint64, b []byte) (p OpPage, err error) {
	f := fields{b: b}
	p.Author, p.First = author, first
	n, err := f.opCount()
	if err != nil {
		return p, err
	}
	p.Rows = make([]OpRow, n)
	var last space.NSID // a page often has one collection: it is held once
	for i := range p.Rows {
		o := &p.Rows[i]
		o.Rev, o.Idx = space.TID(f.uint()), int(f.uvarint())
		if in := f.text(); string(in) != string(last) {
			last = space.NSID(in)
		}
		o.Path = space.Path{Collection: last, Key: space.RecordKey(f.text())}
		o.CID, o.Prev = f.cid(), f.cid()
	}
	return p, f.end("ops")
}

// placeIn says how many ops of a page are not behind (rev, idx), and how many
// it has, without making any.
func placeIn(b []byte, rev space.TID, idx int) (before, all uint64, err error) {
	f := fields{b: b}
	n, err := f.opCount()
	if err != nil {
		return 0, 0, err
	}
	for range n {
		o := OpRow{Rev: space.TID(f.uint()), Idx: int(f.uvarint())}
		if o.after(rev, idx) {
			return before, uint64(n), nil
		}
		before++
		f.text()
		f.text()
		f.cid()
		f.cid()
	}
	return before, uint64(n), f.end("ops")
}

func decodeKV(b []byte) (kv KV, err error) {
	f := fields{b: b}
	kv.Key = f.text()
	kv.Value = f.rest()
	return kv, f.end("setting")
}
