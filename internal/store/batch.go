package store

import (
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
)

// batch is a leveldb batch that knows how much of the write buffer it takes.
type batch struct {
	b leveldb.Batch
	n int
}

var _ leveldb.BatchReplay = (*batch)(nil)

// internalKey is what the engine adds to a key in its write buffer.
const internalKey = 8

func (b *batch) Put(key, value []byte) {
	b.b.Put(key, value)
	b.n += len(key) + len(value) + internalKey
}

func (b *batch) Delete(key []byte) {
	b.b.Delete(key)
	b.n += len(key) + internalKey
}

func (b *batch) reset() {
	b.b.Reset()
	b.n = 0
}

// pooledBytes is the most memory a batch keeps between uses.
const pooledBytes = 1 << 20

var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch { return batches.Get().(*batch) }

func (b *batch) free() {
	if cap(b.b.Dump()) <= pooledBytes {
		b.reset()
		batches.Put(b)
	}
}
