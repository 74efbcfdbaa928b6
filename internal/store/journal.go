package store

import (
	"bufio"
	"errors"
	"io"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// The engine appends every commit to a log and syncs that. A file that grows
// has to have its new size and the place of its blocks made durable with each
// sync; one that is overwritten in place only its data. So a log under small
// synced commits is written ahead with zeros, which the commits then
// overwrite, and is synced with fdatasync. It ends where its chunks do: zeros
// that go on from there to the end of the file, which is one of whole pages,
// are no part of it.

// The layout of a log (goleveldb's): blocks, each of chunks, each of a header
// (CRC 4 ‖ length u16 little-endian ‖ type 1 to 4) and as many bytes. Fewer bytes
// than a header at the end of a block stay zero.
const (
	logBlock  = 32 << 10
	logHeader = 7
	logTypes  = 4
)

const (
	// page is what files are written ahead in.
	page = 4 << 10
	// aheadMost is how far at once, at most.
	aheadMost = 64 << 10
	// smallSync is the most that a small commit brings to a sync, and
	// smallSyncs how many of them in a row make a log be written ahead.
	// Otherwise all that is written in bulk would be written twice.
	smallSync  = 32 << 10
	smallSyncs = 4
)

// aheadOf is how far a log is written ahead with a write buffer of n bytes.
func aheadOf(n int) int64 { return min(aheadMost, int64(n)/8/page*page) }

// logFile is what a log needs of its file.
type logFile interface {
	storage.Writer
	io.WriterAt
	Truncate(size int64) error
}

// goAhead writes zeros behind the end if what was there is used up. The sync
// that follows makes them durable with the commit.
func (w *logWriter) goAhead() error {
	if w.end-w.synced > smallSync {
		w.small = 0
		return nil
	}
	w.small++
	if w.chunk == 0 || w.small < smallSyncs || w.end <= w.size || w.end+w.chunk > w.most {
		return nil
	}
	size := (w.end + w.chunk + page - 1) / page * page
	if _, err := w.f.WriteAt(make([]byte, size-w.end), w.end); err != nil {
		w.chunk = 0 // no space, perhaps: the commit needs none of it
		return w.f.Truncate(w.end)
	}
	w.size = size
	return nil
}

// logReader is a log up to its end.
type logReader struct {
	*io.SectionReader
	io.Closer
}

// openLog finds the end of a log.
func openLog(f storage.Reader) (storage.Reader, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	end, err := logEnd(f, size)
	if err != nil {
		return nil, err
	}
	return logReader{io.NewSectionReader(f, 0, end), f}, nil
}

// logEnd is where the chunks of a log end, if zeros written ahead are all that
// follows, else the size of the file: what is damaged is the engine's to judge.
// It goes by the headers alone, as a chunk may end in zeros.
func logEnd(f io.ReaderAt, size int64) (int64, error) {
	if size%page != 0 {
		return size, nil // not written ahead, or cut since
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), logBlock)
	for at := int64(0); size-at >= logHeader; {
		left := logBlock - at%logBlock
		skip := left
		if left >= logHeader {
			h, err := r.Peek(logHeader)
			if err != nil {
				return 0, err
			}
			skip = logHeader + int64(h[4]) + int64(h[5])<<8
			switch kind := h[6]; {
			case [logHeader]byte(h) == [logHeader]byte{}:
				zeros, err := onlyZeros(r)
				if err != nil || !zeros {
					return size, err
				}
				return at, nil
			case kind == 0 || kind > logTypes || skip > left || skip > size-at:
				return size, nil
			}
		}
		if _, err := r.Discard(int(skip)); err != nil {
			return 0, err
		}
		at += skip
	}
	return size, nil
}

func onlyZeros(r *bufio.Reader) (bool, error) {
	for {
		_, err := r.Peek(1)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		b, err := r.Peek(r.Buffered())
		if err != nil {
			return false, err
		}
		for _, c := range b {
			if c != 0 {
				return false, nil
			}
		}
		if _, err := r.Discard(len(b)); err != nil {
			return false, err
		}
	}
}
