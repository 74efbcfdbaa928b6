package node

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// spaceRecord is what the key file holds of one space. Deleting it is the
// crypto-erase of the space: the rows in the store cannot be read without it.
type spaceRecord struct {
	_      struct{} `cbor:",toarray"`
	ID     space.ID
	Space  []byte // space id, 32 bytes
	Name   string // local petname
	DEK    []byte // key of the space's rows in the store, 32 bytes
	Epochs []epochRecord
}

type epochRecord struct {
	_          struct{} `cbor:",toarray"`
	N          uint64
	Keys       []byte // seal.Keys
	Topic      []byte // topic id, 32 bytes
	Issuer     []byte // seal.Issuer; empty unless held
	Credential []byte // seal.Credential; empty for a member that does not write
}

// spaceKeyName is the name of a space's record in the key file. It tells
// nobody which space it is.
func spaceKeyName(storeKey, sid [32]byte) string {
	m := space.MAC(storeKey[:], space.LabelStoreIndex, sid[:])
	return spaceKeyPrefix + hex.EncodeToString(m[:16])
}

const spaceKeyPrefix = "space-"

func newDEK() []byte {
	k := make([]byte, 32)
	rand.Read(k)
	return k
}

// epoch is one epoch of a space as this node holds it.
type epoch struct {
	n     uint64
	id    envelope.TopicID
	keys  seal.Keys
	iss   *seal.Issuer     // held by the authority's node; nil elsewhere
	cred  *seal.Credential // nil for a member that does not write
	topic *envelope.Topic  // guarded by the actor's mu
}

func (e *epoch) record() epochRecord {
	r := epochRecord{N: e.n, Keys: e.keys.Marshal(), Topic: e.id[:], Issuer: []byte{}, Credential: []byte{}}
	if e.iss != nil {
		r.Issuer = e.iss.Marshal()
	}
	if e.cred != nil {
		r.Credential = e.cred.Marshal()
	}
	return r
}

// open makes the record usable again.
func (r epochRecord) open(c identity.Commitment) (*epoch, error) {
	if len(r.Topic) != 32 {
		return nil, fmt.Errorf("keys of epoch %d: topic: %w", r.N, space.ErrMalformed)
	}
	e := &epoch{n: r.N, id: envelope.TopicID(r.Topic)}
	var err error
	if e.keys, err = seal.UnmarshalKeys(r.Keys, c); err != nil {
		return nil, fmt.Errorf("keys of epoch %d: %w", r.N, err)
	}
	if len(r.Credential) > 0 {
		cred, err := seal.UnmarshalCredential(r.Credential)
		if err != nil {
			return nil, fmt.Errorf("credential of epoch %d: %w", r.N, err)
		}
		e.cred = &cred
	}
	if len(r.Issuer) > 0 {
		iss, err := seal.UnmarshalIssuer(r.Issuer)
		if err != nil {
			return nil, fmt.Errorf("issuer of epoch %d: %w", r.N, err)
		}
		e.iss = &iss
	}
	return e, nil
}
