package seal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Sizes of sealed keys: X-Wing encapsulation ‖ payload ‖ Poly1305 tag.
const (
	encSize = 1120
	tagLen  = 16
	// WrapSize is a group key wrapped to one member.
	WrapSize = encSize + KeySize + tagLen
	// SelfWrapSize is a wrap to a member that reads only itself.
	SelfWrapSize = encSize + 3*KeySize + tagLen
)

// WrapContext is what a wrap is bound to beside the key it is sealed to. C keeps
// a member from passing off another's per-user key as its own.
type WrapContext struct {
	SpaceID [32]byte
	Epoch   uint64
	C       identity.Commitment // the recipient
}

// info is "sp/v1/wrap" 0x00 ‖ space_id ‖ u64 epoch ‖ C ‖ u32 puk_gen.
func (x WrapContext) info(gen uint32) []byte { return x.message(space.LabelWrap, gen) }

func (x WrapContext) message(l space.Label, gen uint32) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[:], x.Epoch)
	binary.BigEndian.PutUint32(n[8:], gen)
	return l.Message(x.SpaceID[:], n[:8], x.C[:], n[8:])
}

// Wrap seals an epoch's keys to a member's per-user key: 1,168 bytes for a group
// key. HPKE does not say who wrapped: the control entry it stands in does.
func Wrap(to identity.PUKPublic, ctx WrapContext, keys Keys) ([]byte, error) {
	payload := keys.Marshal()
	defer clear(payload)
	b, err := sealTo(to, ctx.info(to.Gen), payload)
	if err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	return b, nil
}

// Unwrap is the inverse of Wrap. A group key must fit kid, the log's commitment:
// a sequencer cannot give two members two keys under one epoch.
func Unwrap(puk identity.PUK, ctx WrapContext, kid [32]byte, wrap []byte) (Keys, error) {
	if len(wrap) != WrapSize && len(wrap) != SelfWrapSize {
		return Keys{}, fmt.Errorf("unwrap: %w: %d bytes", space.ErrMalformed, len(wrap))
	}
	payload, err := openWith(puk, ctx.info(puk.Gen()), wrap)
	if err != nil {
		return Keys{}, fmt.Errorf("unwrap: %w", err)
	}
	defer clear(payload)
	keys, err := UnmarshalKeys(payload, ctx.C)
	if err != nil {
		return Keys{}, fmt.Errorf("unwrap: %w", err)
	}
	if err := keys.CheckKID(kid); err != nil {
		return Keys{}, fmt.Errorf("unwrap: %w", err)
	}
	return keys, nil
}

// WrapIssuer seals an epoch's issuer to a keeper's per-user key: WrapSize bytes,
// with "sp/v1/wrap/issuer" where Wrap has "sp/v1/wrap".
func WrapIssuer(to identity.PUKPublic, ctx WrapContext, iss Issuer) ([]byte, error) {
	b, err := sealTo(to, ctx.message(space.LabelWrapIssuer, to.Gen), iss.raw())
	if err != nil {
		return nil, fmt.Errorf("wrap issuer: %w", err)
	}
	return b, nil
}

// UnwrapIssuer is the inverse of WrapIssuer. issuerPub is what the epoch's entry
// says the issuer is.
func UnwrapIssuer(puk identity.PUK, ctx WrapContext, issuerPub ed25519.PublicKey, b []byte) (Issuer, error) {
	if len(b) != WrapSize {
		return Issuer{}, fmt.Errorf("unwrap issuer: %w: %d bytes", space.ErrMalformed, len(b))
	}
	seed, err := openWith(puk, ctx.message(space.LabelWrapIssuer, puk.Gen()), b)
	if err != nil {
		return Issuer{}, fmt.Errorf("unwrap issuer: %w", err)
	}
	defer clear(seed)
	iss, err := UnmarshalIssuer(seed)
	if err != nil {
		return Issuer{}, fmt.Errorf("unwrap issuer: %w", err)
	}
	if !iss.Public().Equal(issuerPub) {
		return Issuer{}, fmt.Errorf("unwrap issuer: %w: not the issuer of this epoch", space.ErrForged)
	}
	return iss, nil
}

func sealTo(to identity.PUKPublic, info, payload []byte) ([]byte, error) {
	// What identity.PUKPublic.KEMKey would refuse beyond this the identity log has
	// refused, at the price of another agreement; a weak point fails in Seal too.
	pk, err := hpke.MLKEM768X25519().NewPublicKey(to.KEM)
	if err != nil {
		return nil, fmt.Errorf("per-user key: %w: %w", space.ErrMalformed, err)
	}
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, payload)
}

func openWith(puk identity.PUK, info, sealed []byte) ([]byte, error) {
	b, err := hpke.Open(puk.KEM(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: not sealed to this key in this place", space.ErrForged)
	}
	return b, nil
}
