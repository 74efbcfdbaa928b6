package seal

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/kithnet/kith/space"
)

// MaxObject is the most a sealed object may be.
const MaxObject = 256 << 10

// ObjectName is what a sealed object is fetched by: the hash of its sealed bytes.
func ObjectName(sealed []byte) [32]byte { return sha256.Sum256(sealed) }

// SealObject seals what a control entry names by hash instead of holding it,
// such as a page of wraps, under KDF(CK, "object", "") with
// space_id ‖ u64 epoch as associated data. CK is the control key that seals the
// entry; epoch is the one the object is about, for wraps the one they open.
func SealObject(rand io.Reader, ck ControlKey, spaceID [32]byte, epoch uint64, plain []byte) ([]byte, error) {
	if len(plain) > MaxObject-boxOver {
		return nil, fmt.Errorf("seal object: %w: %d bytes", space.ErrTooLarge, len(plain))
	}
	return wrapErr("seal object")(box(rand, derive(ck.raw(), space.LabelObject, nil), place(spaceID, epoch), plain))
}

// OpenObject is the inverse of SealObject. Whether b is the object that was
// named, ObjectName tells.
func OpenObject(ck ControlKey, spaceID [32]byte, epoch uint64, b []byte) ([]byte, error) {
	if len(b) > MaxObject {
		return nil, fmt.Errorf("open object: %w: %d bytes", space.ErrTooLarge, len(b))
	}
	return wrapErr("open object")(unbox(derive(ck.raw(), space.LabelObject, nil), place(spaceID, epoch), b))
}
