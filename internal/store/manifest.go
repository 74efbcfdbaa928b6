package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/syndtr/goleveldb/leveldb/journal"
)

// The fields of a record of goleveldb's manifest: a varint tag, then varints
// and byte strings after their length. A record changes the state before it.
const (
	tagComparer = 1 // name
	tagLog      = 2 // number of the oldest log that counts
	tagNextFile = 3 // number
	tagSeq      = 4 // number
	tagPointer  = 5 // level, key
	tagDelete   = 6 // level, number
	tagTable    = 7 // level, number, size, first key, last key
	tagPrevLog  = 9 // number

	// maxManifestField bounds a key in a manifest: ours are of 60 bytes.
	maxManifestField = 1 << 16
)

// manifest is what the engine believes to have.
type manifest struct {
	log    uint64
	tables map[uint64]int64 // sizes by number
}

// readManifest reads a manifest, refusing any damage.
func readManifest(name string) (m manifest, err error) {
	f, err := os.Open(name)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	m.tables = make(map[uint64]int64)
	for records := journal.NewReader(f, nil, true, true); ; {
		r, err := records.Next()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return m, err
		}
		if err := m.record(&manifestReader{r: bufio.NewReader(r)}); err != nil {
			return m, err
		}
	}
}

type manifestReader struct {
	r   *bufio.Reader
	err error
}

func (r *manifestReader) uint() uint64 {
	if r.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(r.r)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	r.err = err
	return n
}

func (r *manifestReader) skip() {
	n := r.uint()
	if n > maxManifestField {
		r.err = fmt.Errorf("field of %d bytes: %w", n, ErrDamaged)
	}
	if r.err == nil {
		_, r.err = r.r.Discard(int(n))
	}
}

func (m *manifest) record(r *manifestReader) error {
	for r.err == nil {
		if _, err := r.r.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		switch tag := r.uint(); tag {
		case tagComparer:
			r.skip()
		case tagLog:
			m.log = r.uint()
		case tagNextFile, tagSeq, tagPrevLog:
			r.uint()
		case tagPointer:
			r.uint()
			r.skip()
		case tagDelete:
			r.uint()
			delete(m.tables, r.uint())
		case tagTable:
			r.uint()
			num := r.uint()
			m.tables[num] = int64(r.uint())
			r.skip()
			r.skip()
		default:
			if r.err == nil {
				r.err = fmt.Errorf("field %d: %w", tag, ErrDamaged)
			}
		}
	}
	return r.err
}
