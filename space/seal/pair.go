package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// Pair is the key two members share in a space for attribution tags. It changes
// with either's per-user key; callers keep it per generation, for it costs an
// X25519 agreement.
type Pair struct{ secret }

// PairKey is the key of two members, the same from both sides:
// KDF(Extract(salt = space_id, X25519), "hello/pair", C‖gen of the member with
// the lower C ‖ C‖gen of the other).
func PairKey(spaceID [32]byte, mine identity.PUK, myC identity.Commitment, theirs identity.PUKPublic, theirC identity.Commitment) (Pair, error) {
	if myC == theirC {
		return Pair{}, fmt.Errorf("pair key: %w: a member with itself", space.ErrMalformed)
	}
	pub, err := theirs.DHKey()
	if err != nil {
		return Pair{}, fmt.Errorf("pair key: %w", err)
	}
	dh, err := mine.DH().ECDH(pub)
	if err != nil {
		return Pair{}, fmt.Errorf("pair key: %w: agreement: %w", space.ErrMalformed, err)
	}
	defer clear(dh)
	prk, err := hkdf.Extract(sha256.New, dh, spaceID[:])
	if err != nil {
		return Pair{}, fmt.Errorf("pair key: %w", err)
	}
	defer clear(prk)
	a := binary.BigEndian.AppendUint32(myC[:], mine.Gen())
	b := binary.BigEndian.AppendUint32(theirC[:], theirs.Gen)
	if bytes.Compare(a, b) > 0 {
		a, b = b, a
	}
	return Pair{derive(prk, space.LabelHelloPair, append(a, b...))}, nil
}

// PairTag is what either of a pair can make, and so proves to the other, and to
// nobody else, that it made the chain: MAC(pair, "hello", space_id ‖ u64 epoch ‖
// chain_id), 16 bytes.
func PairTag(p Pair, spaceID [32]byte, epoch uint64, chain envelope.ChainID) [16]byte {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], epoch)
	m := space.MAC(p.raw(), space.LabelHello, spaceID[:], n[:], chain[:])
	return [16]byte(m[:16])
}

// CheckTag compares in constant time.
func CheckTag(p Pair, spaceID [32]byte, epoch uint64, chain envelope.ChainID, tag [16]byte) bool {
	own := PairTag(p, spaceID, epoch, chain)
	return subtle.ConstantTimeCompare(own[:], tag[:]) == 1
}
