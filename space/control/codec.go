package control

import (
	"bytes"
	"fmt"

	"github.com/kithnet/kith/space"
)

// codec is a body's one encoding. check refuses what no state could accept
// (space.DID checks itself when it is decoded); normal makes empty lists nil, which encode as null.
type codec[T any] struct {
	check  func(T) error
	normal func(T) T
}

var (
	genesisCodec   = codec[Genesis]{Genesis.check, Genesis.normal}
	memberCodec    = codec[MemberAdd]{MemberAdd.check, MemberAdd.normal}
	epochCodec     = codec[Epoch]{Epoch.check, Epoch.normal}
	innerCodec     = codec[EpochInner]{EpochInner.check, EpochInner.normal}
	describedCodec = codec[describedInner]{describedInner.check, describedInner.normal}
	inviteCodec    = codec[Invite]{Invite.check, func(v Invite) Invite { return v }}
	policyCodec    = codec[space.Policy]{func(space.Policy) error { return nil }, normalPolicy}
)

func (c codec[T]) encode(v T) ([]byte, error) {
	if err := c.check(v); err != nil {
		return nil, err
	}
	return space.Marshal(c.normal(v))
}

func (c codec[T]) decode(b []byte) (T, error) {
	var v, none T
	if err := space.Unmarshal(b, &v); err != nil {
		return none, err
	}
	again, err := c.encode(v)
	if err != nil {
		return none, err
	}
	if !bytes.Equal(again, b) {
		return none, fmt.Errorf("an empty list that is not null: %w", space.ErrNotCanonical)
	}
	return v, nil
}

// decodeBody gives the body of a kind, always by value. Three kinds have two
// shapes, told apart by the length of the array.
func decodeBody(k Kind, b []byte) (any, error) {
	switch k {
	case KindGenesis:
		return decodeGenesis(b)
	case KindSequencer:
		return boxed(sequencerCodec.decode(b))
	case KindMemberAdd:
		return boxed(memberCodec.decode(b))
	case KindMemberRemove:
		return boxed(removeCodec.decode(b))
	case KindEpoch:
		if hasShape(b, 3) {
			return boxed(rotationCodec.decode(b))
		}
		return boxed(epochCodec.decode(b))
	case KindPolicy:
		if hasShape(b, 2) {
			return decodePolicyChange(b)
		}
		p, err := policyCodec.decode(b)
		return boxed(PolicyChange{Policy: p}, err)
	case KindInvite:
		return boxed(inviteCodec.decode(b))
	case KindInviteRevoke:
		return boxed(revokeCodec.decode(b))
	case KindKeeperSet:
		return boxed(keeperCodec.decode(b))
	case KindDelegationSet:
		return boxed(delegationCodec.decode(b))
	case KindCheckpoint:
		return boxed(checkpointCodec.decode(b))
	case KindDelete:
		return boxed(deleteCodec.decode(b))
	case KindMemberLevel:
		return boxed(levelCodec.decode(b))
	case KindTransfer:
		return boxed(transferCodec.decode(b))
	}
	return nil, fmt.Errorf("%w: %v", space.ErrUnsupported, k)
}

// hasShape reports whether b is a DRISL array of n < 24 items.
func hasShape(b []byte, n byte) bool { return len(b) > 0 && b[0] == 0x80|n }

func boxed[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// ownGenesis is the genesis of a space with a DID of its own.
type ownGenesis struct {
	_       struct{} `cbor:",toarray"`
	Genesis Genesis
	Proof   [64]byte
}

var ownCodec = codec[ownGenesis]{
	func(g ownGenesis) error { return g.Genesis.check() },
	func(g ownGenesis) ownGenesis { g.Genesis = g.Genesis.normal(); return g },
}

func decodeGenesis(b []byte) (any, error) {
	if !hasShape(b, 2) {
		return boxed(genesisCodec.decode(b))
	}
	g, err := ownCodec.decode(b)
	g.Genesis.SpaceProof = &g.Proof
	return boxed(g.Genesis, err)
}

func encodeGenesis(g Genesis) ([]byte, error) {
	if g.SpaceProof == nil {
		return genesisCodec.encode(g)
	}
	return ownCodec.encode(ownGenesis{Genesis: g, Proof: *g.SpaceProof})
}

func decodePolicyChange(b []byte) (any, error) {
	p, err := changeCodec.decode(b)
	if err == nil && p.Rotation == nil {
		return nil, fmt.Errorf("a policy beside no rotation: %w", space.ErrNotCanonical)
	}
	return boxed(p, err)
}

func encodePolicyChange(p PolicyChange) ([]byte, error) {
	if p.Rotation == nil {
		return policyCodec.encode(p.Policy)
	}
	return changeCodec.encode(p)
}

// encodeBody wants the body type that belongs to the kind, by value.
func encodeBody(k Kind, body any) ([]byte, error) {
	want, encode := bodyOf(body)
	if encode == nil {
		return nil, fmt.Errorf("%w: body of type %T", space.ErrUnsupported, body)
	}
	if k != want {
		return nil, malformed("%v with the body of a %v", k, want)
	}
	return encode()
}

// bodyOf gives the kind a body belongs to and what encodes it; nil if it is no
// body.
func bodyOf(body any) (Kind, func() ([]byte, error)) {
	switch b := body.(type) {
	case Genesis:
		return KindGenesis, func() ([]byte, error) { return encodeGenesis(b) }
	case Sequencer:
		return KindSequencer, func() ([]byte, error) { return sequencerCodec.encode(b) }
	case MemberAdd:
		return KindMemberAdd, func() ([]byte, error) { return memberCodec.encode(b) }
	case MemberRemove:
		return KindMemberRemove, func() ([]byte, error) { return removeCodec.encode(b) }
	case Epoch:
		return KindEpoch, func() ([]byte, error) { return epochCodec.encode(b) }
	case Rotation:
		return KindEpoch, func() ([]byte, error) { return rotationCodec.encode(b) }
	case space.Policy:
		return KindPolicy, func() ([]byte, error) { return policyCodec.encode(b) }
	case PolicyChange:
		return KindPolicy, func() ([]byte, error) { return encodePolicyChange(b) }
	case Invite:
		return KindInvite, func() ([]byte, error) { return inviteCodec.encode(b) }
	case InviteRevoke:
		return KindInviteRevoke, func() ([]byte, error) { return revokeCodec.encode(b) }
	case KeeperSet:
		return KindKeeperSet, func() ([]byte, error) { return keeperCodec.encode(b) }
	case Delegation:
		return KindDelegationSet, func() ([]byte, error) { return delegationCodec.encode(b) }
	case Checkpoint:
		return KindCheckpoint, func() ([]byte, error) { return checkpointCodec.encode(b) }
	case Delete:
		return KindDelete, func() ([]byte, error) { return deleteCodec.encode(b) }
	case MemberLevel:
		return KindMemberLevel, func() ([]byte, error) { return levelCodec.encode(b) }
	case Transfer:
		return KindTransfer, func() ([]byte, error) { return transferCodec.encode(b) }
	}
	return 0, nil
}
