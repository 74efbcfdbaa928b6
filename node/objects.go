package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// objectProtocol serves sealed objects by hash to whoever proves to hold the
// fetch key of the topic they belong to:
//
//	holder  -> nonce 32
//	asker   -> topic 32 ‖ hash 32 ‖ Sign(fetch key, "sync/auth", "object" ‖ topic ‖ nonce ‖ asker ‖ holder ‖ hash) 64
//	holder  -> u32 length ‖ object; length 0: not here, or not for you
const objectProtocol protocol.ID = "/kith/object/1"

const (
	maxObject      = 256 << 10
	objectDeadline = 20 * time.Second
	objectRequest  = 32 + 32 + 64
)

func objectMessage(topic envelope.TopicID, nonce [32]byte, asker, holder peer.ID, hash [32]byte) [][]byte {
	return [][]byte{[]byte("object"), topic[:], nonce[:], lengthed(asker), lengthed(holder), hash[:]}
}

// lengthed puts its length in front of a peer id, which is of any.
func lengthed(p peer.ID) []byte { return append([]byte{byte(len(p))}, p...) }

// serveObject answers one request.
func (n *Node) serveObject(s network.Stream) {
	defer s.Close()
	if err := n.giveObject(s); err != nil {
		s.Reset()
		n.log.Debug("object refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

func (n *Node) giveObject(s network.Stream) error {
	if err := s.SetDeadline(time.Now().Add(objectDeadline)); err != nil {
		return err
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	if _, err := s.Write(nonce[:]); err != nil {
		return err
	}
	var req [objectRequest]byte
	if _, err := io.ReadFull(s, req[:]); err != nil {
		return err
	}
	topic, hash := envelope.TopicID(req[:32]), [32]byte(req[32:64])
	var data []byte
	if a, e := n.byTopic(topic); a != nil {
		msg := objectMessage(topic, nonce, s.Conn().RemotePeer(), n.host.ID(), hash)
		if space.Verify(e.keys.Fetch().Public().(ed25519.PublicKey), space.LabelSyncAuth, req[64:], msg...) {
			data = n.objectOf(a, e, hash)
		}
	}
	return writeFrame(s, data)
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
	ctx, cancel := context.WithTimeout(ctx, objectDeadline)
	defer cancel()
	s, err := n.host.NewStream(overCircuit(ctx, "object"), from, objectProtocol)
	if err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(objectDeadline)); err != nil {
		return nil, err
	}
	var nonce [32]byte
	if _, err := io.ReadFull(s, nonce[:]); err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	req := append(append(make([]byte, 0, objectRequest), e.id[:]...), hash[:]...)
	req = append(req, space.Sign(e.keys.Fetch(), space.LabelSyncAuth, objectMessage(e.id, nonce, n.host.ID(), from, hash)...)...)
	if _, err := s.Write(req); err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	data, err := readFrame(s, maxObject)
	if err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	if sha256.Sum256(data) != hash {
		return nil, fmt.Errorf("object: not what was asked for: %w", space.ErrUnavailable)
	}
	return data, nil
}
