package control

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Transfer makes the member at Slot the authority, in a space with a DID of
// its own. The old authority proposes it, the new one accepts; both stay
// members, and the old one a keeper until it is set otherwise.
type Transfer struct {
	_            struct{} `cbor:",toarray"`
	Slot         uint32
	C            identity.Commitment
	DID          space.DID
	IdentityLog  [][]byte // the new authority's; it must hold the roster's head of it
	AuthorityPub [32]byte // id_sig of that log
	Device       [32]byte // a live device of that log, its first as the authority
	Issuer       []byte   // as in KeeperSet
	Accept       [64]byte // SignTransfer by Device
	Rotation     *Rotation
}

var transferCodec = codec[Transfer]{Transfer.check, func(t Transfer) Transfer {
	t.IdentityLog, t.Issuer, t.Rotation = absent(t.IdentityLog), absent(t.Issuer), t.Rotation.normalised()
	return t
}}

// SignTransfer is the new authority's word that it takes the space over:
// Sign(device, "transfer", space id ‖ C of the old ‖ C of the new ‖ u32 slot).
func SignTransfer(device ed25519.PrivateKey, spaceID [32]byte, from, to identity.Commitment, slot uint32) [64]byte {
	return [64]byte(space.Sign(device, space.LabelTransfer, transferMessage(spaceID, from, to, slot)))
}

func transferMessage(spaceID [32]byte, from, to identity.Commitment, slot uint32) []byte {
	b := append([]byte(nil), spaceID[:]...)
	b = append(append(b, from[:]...), to[:]...)
	return binary.BigEndian.AppendUint32(b, slot)
}

func (t Transfer) check() error {
	switch {
	case t.C == identity.Commitment{}:
		return malformed("no commitment")
	case len(t.IdentityLog) == 0 || len(t.IdentityLog) > identity.MaxEntries:
		return malformed("identity log of %d entries", len(t.IdentityLog))
	case len(t.Issuer) > maxSealed:
		return malformed("issuer wrap of %d bytes", len(t.Issuer))
	}
	if err := space.CheckPublicKey(t.AuthorityPub[:]); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := space.CheckPublicKey(t.Device[:]); err != nil {
		return fmt.Errorf("device: %w", err)
	}
	return t.Rotation.checkIf()
}

// prove holds a transfer's claims against the member's identity.
func (t Transfer) prove(spaceID [32]byte, from identity.Commitment, m *Member) error {
	log, err := provenDevice(t.IdentityLog, m, t.Device)
	switch {
	case err != nil:
		return fmt.Errorf("next authority: %w", err)
	case log.DID != t.DID || m.DID != t.DID:
		return fmt.Errorf("%w: identity log is bound to %q, the next authority is %q", space.ErrForged, log.DID, t.DID)
	case string(log.SigPub) != string(t.AuthorityPub[:]):
		return fmt.Errorf("%w: authority key is not the identity's", space.ErrForged)
	case !space.Verify(t.Device[:], space.LabelTransfer, t.Accept[:], transferMessage(spaceID, from, t.C, t.Slot)):
		return fmt.Errorf("acceptance of the next authority: %w", space.ErrForged)
	}
	return nil
}

// SignSpaceDID is Genesis.SpaceProof: the key of the space's own did:key says
// who founds the space. K-256 signatures differ each time they are made.
func SignSpaceDID(key atcrypto.PrivateKey, did space.DID, authority identity.Commitment) ([64]byte, error) {
	sig, err := key.HashAndSign(spaceDIDMessage(did, authority))
	if err != nil {
		return [64]byte{}, fmt.Errorf("sign space DID: %w", err)
	}
	return [64]byte(sig), nil
}

func spaceDIDMessage(did space.DID, authority identity.Commitment) []byte {
	return space.LabelSpaceDID.Message(authority[:], []byte(did))
}

func checkSpaceDID(did space.DID, authority identity.Commitment, sig [64]byte) error {
	if !strings.HasPrefix(string(did), "did:key:") {
		return fmt.Errorf("a space's own DID other than did:key: %w", space.ErrUnsupported)
	}
	key, err := atcrypto.ParsePublicDIDKey(string(did))
	if err != nil || key.DIDKey() != string(did) {
		return malformed("own DID %q", did)
	}
	if err := key.HashAndVerify(spaceDIDMessage(did, authority), sig[:]); err != nil {
		return fmt.Errorf("the space's own DID did not name its authority: %w", space.ErrForged)
	}
	return nil
}
