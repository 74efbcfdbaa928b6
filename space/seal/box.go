package seal

import (
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// boxOver is what a box adds: nonce 24 ‖ ciphertext ‖ tag 16.
const boxOver = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

// box seals under a key that has one use, bound to the place aad names.
func box(rand io.Reader, key secret, aad, plain []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key.raw())
	if err != nil {
		return nil, err
	}
	b := make([]byte, chacha20poly1305.NonceSizeX, boxOver+len(plain))
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	return aead.Seal(b, b, plain, aad), nil
}

func unbox(key secret, aad, b []byte) ([]byte, error) {
	if len(b) < boxOver {
		return nil, fmt.Errorf("%w: box of %d bytes", space.ErrMalformed, len(b))
	}
	aead, err := chacha20poly1305.NewX(key.raw())
	if err != nil {
		return nil, err
	}
	n := chacha20poly1305.NonceSizeX
	plain, err := aead.Open(nil, b[:n], b[n:], aad)
	if err != nil {
		return nil, fmt.Errorf("%w: seal does not fit", space.ErrForged)
	}
	return plain, nil
}

// place is space_id ‖ u64 epoch.
func place(spaceID [32]byte, epoch uint64) []byte {
	return binary.BigEndian.AppendUint64(spaceID[:], epoch)
}

// SealInner seals the inner body of an epoch entry, which only who is let into
// the epoch may read, under KDF(CK, "ctl/inner", "") with
// space_id ‖ u64 epoch as associated data.
func SealInner(rand io.Reader, ck ControlKey, spaceID [32]byte, epoch uint64, inner []byte) ([]byte, error) {
	return wrapErr("seal inner body")(box(rand, derive(ck.raw(), space.LabelCtlInner, nil), place(spaceID, epoch), inner))
}

// OpenInner is the inverse of SealInner.
func OpenInner(ck ControlKey, spaceID [32]byte, epoch uint64, b []byte) ([]byte, error) {
	return wrapErr("open inner body")(unbox(derive(ck.raw(), space.LabelCtlInner, nil), place(spaceID, epoch), b))
}

// SealCtl seals a page of control entries for a sync stream, under
// KDF(CK, "ctl/sync", "") with the topic id as associated data.
func SealCtl(rand io.Reader, ck ControlKey, topic envelope.TopicID, page []byte) ([]byte, error) {
	return wrapErr("seal control page")(box(rand, derive(ck.raw(), space.LabelCtlSync, nil), topic[:], page))
}

// OpenCtl is the inverse of SealCtl.
func OpenCtl(ck ControlKey, topic envelope.TopicID, b []byte) ([]byte, error) {
	return wrapErr("open control page")(unbox(derive(ck.raw(), space.LabelCtlSync, nil), topic[:], b))
}

// LinkControl seals the control key before epoch under that of epoch, so that a
// newcomer can verify the log from genesis: KDF(CK, "ctl/link", ""), and
// space_id ‖ u64 epoch as associated data.
func LinkControl(rand io.Reader, ck, before ControlKey, spaceID [32]byte, epoch uint64) ([]byte, error) {
	return wrapErr("link control key")(box(rand, derive(ck.raw(), space.LabelCtlLink, nil), place(spaceID, epoch), before.raw()))
}

// FollowControl is the inverse of LinkControl.
func FollowControl(ck ControlKey, spaceID [32]byte, epoch uint64, link []byte) (ControlKey, error) {
	b, err := unbox(derive(ck.raw(), space.LabelCtlLink, nil), place(spaceID, epoch), link)
	if err != nil {
		return ControlKey{}, fmt.Errorf("follow control link: %w", err)
	}
	defer clear(b)
	return UnmarshalControlKey(b)
}

// LinkGroup seals the group key before epoch under that of epoch, where a space
// gives newcomers its history: KDF(GK, "prev", ""), and space_id ‖ u64 epoch
// as associated data.
func LinkGroup(rand io.Reader, gk, before GroupKey, spaceID [32]byte, epoch uint64) ([]byte, error) {
	return wrapErr("link group key")(box(rand, derive(gk.raw(), space.LabelPrev, nil), place(spaceID, epoch), before.raw()))
}

// FollowGroup is the inverse of LinkGroup; kid is the log's commitment to the
// key before epoch.
func FollowGroup(gk GroupKey, spaceID [32]byte, epoch uint64, kid [32]byte, link []byte) (GroupKey, error) {
	b, err := unbox(derive(gk.raw(), space.LabelPrev, nil), place(spaceID, epoch), link)
	if err != nil {
		return GroupKey{}, fmt.Errorf("follow group link: %w", err)
	}
	defer clear(b)
	before, err := UnmarshalGroupKey(b)
	if err != nil {
		return GroupKey{}, fmt.Errorf("follow group link: %w", err)
	}
	if err := before.CheckKID(kid); err != nil {
		return GroupKey{}, fmt.Errorf("follow group link: %w", err)
	}
	return before, nil
}

func wrapErr(step string) func([]byte, error) ([]byte, error) {
	return func(b []byte, err error) ([]byte, error) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step, err)
		}
		return b, nil
	}
}
