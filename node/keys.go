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
	Closed []closedRecord // epochs whose log alone this member may read
}

// oneEpochRecord is a spaceRecord as it was while a space had one epoch.
type oneEpochRecord struct {
	_      struct{} `cbor:",toarray"`
	ID     space.ID
	Space  []byte
	Name   string
	DEK    []byte
	Epochs []epochRecord
}

// closedRecord is the control key of an epoch before this member's time.
type closedRecord struct {
	_       struct{} `cbor:",toarray"`
	N       uint64
	Control []byte
}

func decodeSpaceRecord(b []byte) (spaceRecord, error) {
	var rec spaceRecord
	err := space.Unmarshal(b, &rec)
	if err != nil {
		var one oneEpochRecord
		if space.Unmarshal(b, &one) == nil {
			rec, err = spaceRecord{ID: one.ID, Space: one.Space, Name: one.Name, DEK: one.DEK, Epochs: one.Epochs}, nil
		}
	}
	if err == nil && (len(rec.Space) != 32 || len(rec.DEK) != 32) {
		err = space.ErrMalformed
	}
	if err != nil {
		return rec, fmt.Errorf("key record of a space: %w", err)
	}
	return rec, nil
}

// close puts a control key in the place of what is held of its epoch.
func (r *spaceRecord) close(c closedRecord) {
	for _, have := range r.Closed {
		if have.N == c.N {
			return
		}
	}
	r.Closed = append(r.Closed, c)
}

// hold puts an epoch in the place of what is held of it.
func (r *spaceRecord) hold(e epochRecord) {
	for i, have := range r.Epochs {
		if have.N == e.N {
			r.Epochs[i] = e
			return
		}
	}
	r.Epochs = append(r.Epochs, e)
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
	iss   *seal.Issuer     // held by who may admit; nil elsewhere
	cred  *seal.Credential // nil for a member that does not write, or not yet
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
