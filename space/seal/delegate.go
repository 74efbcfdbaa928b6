package seal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// DelegatePublic is the X-Wing key to which parent spaces seal their group key:
// of DeriveKeyPair(KDF(GK, "delegate", "")), 1,216 bytes. Whoever reads the
// child in this epoch opens what is sealed to it.
func (k GroupKey) DelegatePublic() []byte { return k.delegate().PublicKey().Bytes() }

func (k GroupKey) delegate() hpke.PrivateKey {
	seed := derive(k.raw(), space.LabelDelegate, nil)
	defer seed.Clear()
	sk, err := hpke.MLKEM768X25519().DeriveKeyPair(seed.raw())
	if err != nil {
		panic(fmt.Sprintf("seal: derive delegate key: %v", err)) // never for 32 bytes
	}
	return sk
}

// DelegateContext is what a parent's wrap to a child is bound to.
type DelegateContext struct {
	Parent     [32]byte
	Epoch      uint64 // of the parent, whose group key it is
	Child      [32]byte
	ChildEpoch uint64 // of the child, whose group key opens it
}

// info is "sp/v1/wrap/child" 0x00 ‖ parent ‖ u64 epoch ‖ child ‖ u64 child_epoch.
func (x DelegateContext) info() []byte {
	var n [16]byte
	binary.BigEndian.PutUint64(n[:], x.Epoch)
	binary.BigEndian.PutUint64(n[8:], x.ChildEpoch)
	return space.LabelWrapChild.Message(x.Parent[:], n[:8], x.Child[:], n[8:])
}

// WrapDelegate seals a parent's group key to the delegate key of a child:
// WrapSize bytes, one for all members of the child.
func WrapDelegate(pub []byte, ctx DelegateContext, gk GroupKey) ([]byte, error) {
	pk, err := identity.PUKPublic{KEM: pub}.KEMKey()
	if err != nil {
		return nil, fmt.Errorf("wrap for child: delegate key: %w", err)
	}
	b, err := hpke.Seal(pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), ctx.info(), gk.raw())
	if err != nil {
		return nil, fmt.Errorf("wrap for child: %w", err)
	}
	return b, nil
}

// UnwrapDelegate is the inverse of WrapDelegate for who holds the child's group
// key of the epoch in ctx. kid is the parent log's commitment.
func UnwrapDelegate(childKey GroupKey, ctx DelegateContext, kid [32]byte, b []byte) (GroupKey, error) {
	if len(b) != WrapSize {
		return GroupKey{}, fmt.Errorf("unwrap as child: %w: %d bytes", space.ErrMalformed, len(b))
	}
	raw, err := hpke.Open(childKey.delegate(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), ctx.info(), b)
	if err != nil {
		return GroupKey{}, fmt.Errorf("unwrap as child: %w: not sealed to this child in this place", space.ErrForged)
	}
	defer clear(raw)
	gk, err := UnmarshalGroupKey(raw)
	if err != nil {
		return GroupKey{}, fmt.Errorf("unwrap as child: %w", err)
	}
	if err := gk.CheckKID(kid); err != nil {
		return GroupKey{}, fmt.Errorf("unwrap as child: %w", err)
	}
	return gk, nil
}

// VoucherLifeMs is how long a DelegateVoucher may hold.
const VoucherLifeMs = 10 * 60 * 1000

const delegateVoucherVersion = 1

// DelegateVoucher is a child space's word, to the keepers of one parent, that
// somebody reads or writes in it: directly, or by a space that is in turn its
// child. The parent accepts it from the sequencer and the keepers that the
// child's descriptor names.
type DelegateVoucher struct {
	Child      [32]byte
	Parent     [32]byte
	C          identity.Commitment
	Level      space.Level
	Epoch      uint64 // the child's
	NotAfterMs int64
	Signer     [32]byte // device of the child's sequencer or keeper
	Sig        [64]byte
}

type voucherWire struct {
	_        struct{} `cbor:",toarray"`
	Ver      uint64
	Child    [32]byte
	Parent   [32]byte
	C        identity.Commitment
	Level    space.Level
	Epoch    uint64
	NotAfter uint64
	Signer   [32]byte
	Sig      [64]byte
}

// SignDelegateVoucher makes a voucher that holds from nowMs for VoucherLifeMs.
func SignDelegateVoucher(v DelegateVoucher, nowMs int64, signer ed25519.PrivateKey) (DelegateVoucher, error) {
	v.NotAfterMs = nowMs + VoucherLifeMs
	v.Signer = [32]byte(signer.Public().(ed25519.PublicKey))
	if err := v.check(); err != nil {
		return DelegateVoucher{}, fmt.Errorf("sign delegate voucher: %w", err)
	}
	v.Sig = [64]byte(space.Sign(signer, space.LabelChildVouch, v.signed()))
	return v, nil
}

// signed is child ‖ parent ‖ C ‖ level ‖ u64 epoch ‖ u64 not_after ‖ signer.
func (v DelegateVoucher) signed() []byte {
	b := slices.Concat(v.Child[:], v.Parent[:], v.C[:], []byte{byte(v.Level)})
	b = binary.BigEndian.AppendUint64(b, v.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(v.NotAfterMs))
	return append(b, v.Signer[:]...)
}

func (v DelegateVoucher) check() error {
	switch {
	case v.Level < space.LevelReadSelf || v.Level > space.LevelWrite:
		return fmt.Errorf("%w: level %d", space.ErrMalformed, v.Level)
	case v.Child == v.Parent:
		return fmt.Errorf("%w: a space as its own child", space.ErrMalformed)
	case v.Epoch == 0 || v.Epoch > math.MaxInt64:
		return fmt.Errorf("%w: epoch %d", space.ErrMalformed, v.Epoch)
	case v.NotAfterMs <= 0:
		return fmt.Errorf("%w: ends at %d", space.ErrMalformed, v.NotAfterMs)
	}
	return nil
}

// Encode is the DRISL array [ver, child, parent, C, level, epoch, not_after,
// signer, sig].
func (v DelegateVoucher) Encode() ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("encode delegate voucher: %w", err)
	}
	return wrapErr("encode delegate voucher")(space.Marshal(voucherWire{
		Ver: delegateVoucherVersion, Child: v.Child, Parent: v.Parent, C: v.C, Level: v.Level,
		Epoch: v.Epoch, NotAfter: uint64(v.NotAfterMs), Signer: v.Signer, Sig: v.Sig,
	}))
}

// DecodeDelegateVoucher is the inverse of Encode. It verifies nothing.
func DecodeDelegateVoucher(b []byte) (DelegateVoucher, error) {
	var w voucherWire
	if err := space.Unmarshal(b, &w); err != nil {
		return DelegateVoucher{}, fmt.Errorf("decode delegate voucher: %w", err)
	}
	if w.Ver != delegateVoucherVersion {
		return DelegateVoucher{}, fmt.Errorf("decode delegate voucher: %w: version %d", space.ErrUnsupported, w.Ver)
	}
	v := DelegateVoucher{
		Child: w.Child, Parent: w.Parent, C: w.C, Level: w.Level, Epoch: w.Epoch,
		NotAfterMs: int64(w.NotAfter), Signer: w.Signer, Sig: w.Sig,
	}
	if err := v.check(); err != nil {
		return DelegateVoucher{}, fmt.Errorf("decode delegate voucher: %w", err)
	}
	return v, nil
}

// Verify accepts the voucher at nowMs if one of signers, the keys the child's
// descriptor names, has signed it, it is for parent, and it neither has ended
// nor ends later than a voucher made now would. Who shows it must also prove to
// be C.
func (v DelegateVoucher) Verify(parent [32]byte, signers [][32]byte, nowMs int64) error {
	switch {
	case v.Parent != parent:
		return fmt.Errorf("verify delegate voucher: %w: for another parent", space.ErrForged)
	case !slices.Contains(signers, v.Signer):
		return fmt.Errorf("verify delegate voucher: %w: not signed by the child's sequencer or a keeper of it", space.ErrForged)
	case v.NotAfterMs <= nowMs || v.NotAfterMs-nowMs > VoucherLifeMs+voucherSkewMs:
		return fmt.Errorf("verify delegate voucher: %w: ends at %d", space.ErrForbidden, v.NotAfterMs)
	}
	if err := space.CheckPublicKey(v.Signer[:]); err != nil {
		return fmt.Errorf("verify delegate voucher: %w", err)
	}
	if !space.Verify(v.Signer[:], space.LabelChildVouch, v.Sig[:], v.signed()) {
		return fmt.Errorf("verify delegate voucher: %w: signature", space.ErrForged)
	}
	return nil
}

// voucherSkewMs is how far ahead the clock of who vouches may be.
const voucherSkewMs = 60 * 1000
