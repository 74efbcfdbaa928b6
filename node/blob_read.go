package node

import (
	"errors"
	"fmt"
	"io"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/seal"
)

// blobReader reads a blob of which every part is here. It holds one part.
type blobReader struct {
	files blobFiles
	blob  space.Blob
	pos   int64
	part  int // whose bytes are in plain
	plain []byte
}

// Read gives no byte of a part that is not whole.
func (r *blobReader) Read(b []byte) (int, error) {
	if r.pos >= int64(r.blob.Size) {
		return 0, io.EOF
	}
	n := int(r.pos / space.BlobPart)
	if r.plain == nil || r.part != n {
		sealed, ok, err := r.files.read(r.blob.Parts[n])
		if err == nil && !ok {
			err = fmt.Errorf("blob: part %d is not here any more: %w", n, space.ErrUnavailable)
		}
		if err != nil {
			return 0, err
		}
		if r.plain, err = seal.OpenBlobPart(r.blob, n, sealed); err != nil {
			return 0, err
		}
		r.part = n
	}
	size := copy(b, r.plain[r.pos%space.BlobPart:])
	r.pos += int64(size)
	return size, nil
}

// Seek as io.Seeker has it.
func (r *blobReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += int64(r.blob.Size)
	}
	if offset < 0 {
		return 0, errors.New("blob: seek before its beginning")
	}
	r.pos = offset
	return offset, nil
}
