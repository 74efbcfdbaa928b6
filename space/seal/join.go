package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// RedeemMessage is what both the invite key and the device key sign to redeem an
// invite: H("invite/redeem", space_id ‖ invite_id ‖ C ‖ dev_sig ‖ nonce ‖
// keeper ‖ writer_pub). The nonce is the keeper's; the writer key is the one to
// be certified, so that nobody in between can put another in its place.
func RedeemMessage(spaceID [32]byte, inviteID [16]byte, c identity.Commitment, dev identity.DeviceID, nonce [32]byte, keeper identity.DeviceID, writer [32]byte) [32]byte {
	return space.Hash(space.LabelRedeem, spaceID[:], inviteID[:], c[:], dev[:], nonce[:], keeper[:], writer[:])
}

// SignRedeem signs a RedeemMessage.
func SignRedeem(sk ed25519.PrivateKey, m [32]byte) [64]byte {
	return [64]byte(space.Sign(sk, space.LabelRedeem, m[:]))
}

// CheckRedeem verifies what SignRedeem made.
func CheckRedeem(pk ed25519.PublicKey, m [32]byte, sig [64]byte) error {
	return checkClaim(pk, space.LabelRedeem, m, sig)
}

// AdmitMessage is what a device of a member signs to claim what is its due, keys
// or a writer certificate: H("admit", space_id ‖ nonce ‖ keeper ‖ C ‖ dev_sig ‖
// writer_pub).
func AdmitMessage(spaceID [32]byte, nonce [32]byte, keeper identity.DeviceID, c identity.Commitment, dev identity.DeviceID, writer [32]byte) [32]byte {
	return space.Hash(space.LabelAdmit, spaceID[:], nonce[:], keeper[:], c[:], dev[:], writer[:])
}

// SignAdmit signs an AdmitMessage.
func SignAdmit(sk ed25519.PrivateKey, m [32]byte) [64]byte {
	return [64]byte(space.Sign(sk, space.LabelAdmit, m[:]))
}

// CheckAdmit verifies what SignAdmit made.
func CheckAdmit(pk ed25519.PublicKey, m [32]byte, sig [64]byte) error {
	return checkClaim(pk, space.LabelAdmit, m, sig)
}

func checkClaim(pk ed25519.PublicKey, l space.Label, m [32]byte, sig [64]byte) error {
	if err := space.CheckPublicKey(pk); err != nil {
		return fmt.Errorf("check claim: %w", err)
	}
	if !space.Verify(pk, l, sig[:], m[:]) {
		return fmt.Errorf("check claim: %w: signature", space.ErrForged)
	}
	return nil
}

// ChildAskMessage is what a device signs that asks something on a delegation
// stream: H("child/ask", kind ‖ space_id ‖ nonce ‖ responder ‖ C ‖ dev_sig ‖
// SHA-256(body)). The space is the one that is asked.
func ChildAskMessage(kind byte, spaceID, nonce [32]byte, responder identity.DeviceID, c identity.Commitment, dev identity.DeviceID, body []byte) [32]byte {
	sum := sha256.Sum256(body)
	return space.Hash(space.LabelChildAsk, []byte{kind}, spaceID[:], nonce[:], responder[:], c[:], dev[:], sum[:])
}

// ChildAnswerMessage is what the device that answers signs: H("child/ask",
// 0 ‖ question ‖ SHA-256(answer)), question being the ChildAskMessage.
func ChildAnswerMessage(question [32]byte, answer []byte) [32]byte {
	sum := sha256.Sum256(answer)
	return space.Hash(space.LabelChildAsk, []byte{0}, question[:], sum[:])
}

// SignChildAsk signs a ChildAskMessage or a ChildAnswerMessage.
func SignChildAsk(sk ed25519.PrivateKey, m [32]byte) [64]byte {
	return [64]byte(space.Sign(sk, space.LabelChildAsk, m[:]))
}

// CheckChildAsk verifies what SignChildAsk made.
func CheckChildAsk(pk ed25519.PublicKey, m [32]byte, sig [64]byte) error {
	return checkClaim(pk, space.LabelChildAsk, m, sig)
}
