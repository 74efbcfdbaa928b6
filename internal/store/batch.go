package store

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
)

// batch is what one write brings, in the encoding of a leveldb batch: rows can
// be sealed into it in place, and batches joined, without taking them apart.
type batch struct {
	raw  []byte // rows, each: 1 ‖ varint ‖ key ‖ varint ‖ value, or 0 ‖ varint ‖ key
	rows int
	n    int // how much of the write buffer they take
	last leveldb.Batch
	pool *batchPool // it came from; of one that is freed
}

var _ leveldb.BatchReplay = (*batch)(nil)

const (
	rowDelete = 0
	rowPut    = 1
	// internalKey is what the engine adds to a key in its write buffer.
	internalKey = 8
)

func (b *batch) Put(key, value []byte) {
	b.begin(key, len(value))
	b.raw = append(b.raw, value...)
}

// begin writes a row up to its value, for which it makes room.
func (b *batch) begin(key []byte, value int) {
	b.raw = slices.Grow(b.raw, 1+2*binary.MaxVarintLen32+len(key)+value)
	b.raw = binary.AppendUvarint(append(b.raw, rowPut), uint64(len(key)))
	b.raw = binary.AppendUvarint(append(b.raw, key...), uint64(value))
	b.rows, b.n = b.rows+1, b.n+len(key)+value+internalKey
}

// room makes room for n more bytes.
func (b *batch) room(n int) { b.raw = slices.Grow(b.raw, n) }

func (b *batch) Delete(key []byte) {
	b.raw = binary.AppendUvarint(append(b.raw, rowDelete), uint64(len(key)))
	b.raw = append(b.raw, key...)
	b.rows, b.n = b.rows+1, b.n+len(key)+internalKey
}

// add joins the rows of another batch.
func (b *batch) add(o *batch) {
	b.raw = append(b.raw, o.raw...)
	b.rows, b.n = b.rows+o.rows, b.n+o.n
}

// addRow joins one row as it stands in another batch.
func (b *batch) addRow(raw []byte) {
	key, n := binary.Uvarint(raw[1:])
	value := raw[1+n+int(key):]
	size, _ := binary.Uvarint(value)
	b.raw = append(b.raw, raw...)
	b.rows, b.n = b.rows+1, b.n+int(key+size)+internalKey
}

// engine is the batch as the engine takes it. It holds until the next change.
func (b *batch) engine() *leveldb.Batch {
	_ = b.last.Load(b.raw) // fails of nothing that was written here
	return &b.last
}

// replay hands out the rows.
func (b *batch) replay(r leveldb.BatchReplay) error { return b.engine().Replay(r) }

func (b *batch) reset() {
	b.raw, b.rows, b.n = b.raw[:0], 0, 0
	b.last.Reset()
}

// pooledBytes is the most memory a batch keeps between uses, spareBytes if it is
// kept for good.
const (
	pooledBytes = 4 << 20
	spareBytes  = 2 << 20
)

// batchPool keeps batches for their next use. What one needs is as much as all
// that a commit brings: where few are in use at once, spares are shared by all
// processors and stay, for a sync.Pool has one for each and loses them while much
// is written.
type batchPool struct {
	spares chan *batch
	others sync.Pool
}

// A batch is used again for what it was used for before: it has the size.
var (
	commitBatches = batchPool{spares: make(chan *batch, 1)}
	runBatches    = batchPool{spares: make(chan *batch, 3)}
	recordBatches batchPool
)

func newBatch() *batch { return commitBatches.get() }

func (p *batchPool) get() *batch {
	select {
	case b := <-p.spares:
		return b
	default:
	}
	if b, ok := p.others.Get().(*batch); ok {
		return b
	}
	return &batch{pool: p}
}

func (p *batchPool) put(b *batch) {
	if cap(b.raw) <= spareBytes {
		select {
		case p.spares <- b:
			return
		default:
		}
	}
	p.others.Put(b)
}

func (b *batch) free() {
	if cap(b.raw) <= pooledBytes {
		b.reset()
		b.pool.put(b)
	}
}
