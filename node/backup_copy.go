package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/space"
)

// copyName is the record that says that a home is a copy.
const copyName = "copy"

// copyRecord is when the backup was made and when it was restored. It goes
// when another node was reached.
type copyRecord struct {
	_          struct{} `cbor:",toarray"`
	MadeMs     int64
	RestoredMs int64
}

// at is when the backup was made.
func (c *copyRecord) at() string {
	return time.UnixMilli(c.MadeMs).UTC().Format(time.DateTime) + " UTC"
}

func keepCopy(keys *keyfile.Store, c copyRecord) error {
	b, err := space.Marshal(c)
	if err != nil {
		return err
	}
	return keys.Put(copyName, b)
}

// readCopy reads the record; nil: this home is no copy, or one that has caught
// up.
func readCopy(keys *keyfile.Store) (*copyRecord, error) {
	b, err := keys.Read(copyName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read whether this home is a copy: %w", err)
	}
	var c copyRecord
	if err := space.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("read whether this home is a copy: %w", err)
	}
	return &c, nil
}

// renewHost gives the identity record of a copy a host key of its own: two
// nodes under one peer id would take each other's place. It answers the key of
// the store.
func renewHost(keys *keyfile.Store) (storeKey [32]byte, err error) {
	b, err := keys.Read(selfName)
	if err != nil {
		return storeKey, fmt.Errorf("the backup holds no identity: %w", err)
	}
	var rec selfRecord
	if err := space.Unmarshal(b, &rec); err != nil {
		return storeKey, fmt.Errorf("the backup's identity: %w", err)
	}
	if len(rec.StoreKey) != len(storeKey) {
		return storeKey, fmt.Errorf("the backup's identity: %w", space.ErrMalformed)
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return storeKey, err
	}
	if rec.Peer, err = crypto.MarshalPrivateKey(key); err != nil {
		return storeKey, err
	}
	if b, err = space.Marshal(rec); err != nil {
		return storeKey, err
	}
	return [32]byte(rec.StoreKey), keys.Put(selfName, b)
}
