package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
)

// objectProtocol serves sealed objects by hash: an inquiry about the topic they
// belong to, which says the hash, 32 bytes.
const objectProtocol protocol.ID = "/kith/object/1"

const maxObject = 256 << 10

func objectInquiry() inquiry {
	return inquiry{protocol: objectProtocol, word: "object", what: 32, most: maxObject, deadline: 20 * time.Second}
}

// serveObject answers one request.
func (n *Node) serveObject(s network.Stream) {
	n.serveInquiry(s, objectInquiry(), func(a *actor, e *epoch, hash []byte) []byte { return n.objectOf(a, e, [32]byte(hash)) })
}

// objectOf is a sealed object of a space, or a part of one of its blobs; nil: not
// here. Blobs are given to who holds the newest epoch: who was removed has older
// ones.
func (n *Node) objectOf(a *actor, e *epoch, hash [32]byte) []byte {
	if data, ok, err := a.store.Object(hash); ok || err != nil {
		return data
	}
	a.mu.RLock()
	newest := e == a.now
	a.mu.RUnlock()
	if !newest || !a.keepsPart(hash) {
		return nil
	}
	data, _, err := n.blobs.files.read(hash)
	if err != nil {
		n.log.Warn("a blob's part cannot be served", "err", err)
	}
	return data
}

// fetchObject asks peers of the space for an object until one has it.
func (n *Node) fetchObject(ctx context.Context, a *actor, e *epoch, hash [32]byte) error {
	err := fmt.Errorf("object: nobody who is connected has it: %w", space.ErrUnavailable)
	for _, p := range n.book.of(a.sid) {
		if !connectedTo(n.host, p.ID) {
			continue
		}
		data, askErr := n.askObject(ctx, p.ID, e, hash)
		if askErr != nil {
			err = errors.Join(err, askErr)
			continue
		}
		return a.store.Commit(store.Own, &store.Batch{Objects: []store.ObjectRow{{Hash: hash, Data: data}}})
	}
	return err
}

func (n *Node) askObject(ctx context.Context, from peer.ID, e *epoch, hash [32]byte) ([]byte, error) {
	data, err := n.askHolder(ctx, objectInquiry(), from, e, hash[:])
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(data) != hash {
		return nil, fmt.Errorf("object: not what was asked for: %w", space.ErrUnavailable)
	}
	return data, nil
}
