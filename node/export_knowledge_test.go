package node

import (
	"context"
	"crypto/rand"
	"io"
	"sync"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// Holdings is what a home holds: the secrets of its owner, and of each space
// the keys and all that was ever received and kept.
type Holdings struct {
	C      identity.Commitment
	Device identity.Device
	PUK    identity.PUK
	DIDKey []byte
	Log    [][]byte // own identity log
	Spaces map[space.ID]*HeldSpace
}

// HeldSpace is one space in Holdings.
type HeldSpace struct {
	SpaceID   [32]byte
	Control   [][]byte
	Envelopes map[envelope.TopicID][]envelope.Envelope
	Keys      map[uint64][]byte // seal.Keys, by epoch
	Topics    map[envelope.TopicID]uint64
	Issuers   map[uint64][]byte
	Closed    map[uint64][]byte // control keys
}

// Dump reads a running node's home.
func Dump(n *Node) (*Holdings, error) {
	h := &Holdings{
		C: n.self.c, Device: n.self.device, PUK: n.self.ownPUK(), DIDKey: n.self.didKey.(atcrypto.PrivateKeyExportable).Bytes(),
		Log: n.self.ownLog(), Spaces: map[space.ID]*HeldSpace{},
	}
	for _, r := range n.all() {
		a := r.actor
		s := &HeldSpace{
			SpaceID: a.sid, Envelopes: map[envelope.TopicID][]envelope.Envelope{}, Keys: map[uint64][]byte{},
			Issuers: map[uint64][]byte{}, Closed: map[uint64][]byte{}, Topics: map[envelope.TopicID]uint64{},
		}
		for row, err := range a.store.Control() {
			if err != nil {
				return nil, err
			}
			s.Control = append(s.Control, row.Raw)
		}
		a.mu.RLock()
		for id, e := range a.epochs {
			s.Topics[id], s.Keys[e.n] = e.n, e.keys.Marshal()
			if e.iss != nil {
				s.Issuers[e.n] = e.iss.Marshal()
			}
		}
		for e, k := range a.closed {
			s.Closed[e] = k.Bytes()
		}
		a.mu.RUnlock()
		for id := range s.Topics {
			for ch, err := range a.store.Chains(id) {
				if err != nil {
					return nil, err
				}
				if ch.Length == 0 {
					continue
				}
				run, err := a.store.Run(id, ch.ID, 0, ch.Head.Seq, 64<<20)
				if err != nil {
					return nil, err
				}
				s.Envelopes[id] = append(s.Envelopes[id], run...)
			}
		}
		h.Spaces[a.id] = s
	}
	return h, nil
}

// Tap lets w see every byte of the streams that n serves, both ways.
func Tap(n *Node, w io.Writer) {
	for id, serve := range map[protocol.ID]network.StreamHandler{
		joinProtocol: n.serveJoin, objectProtocol: n.serveObject, proposeProtocol: n.servePropose, syncProtocol: n.serveSync,
		delegateProtocol: n.serveDelegate, identityProtocol: n.serveIdentity, forkProtocol: n.serveFork,
	} {
		n.host.SetStreamHandler(id, func(s network.Stream) { serve(&tapped{Stream: s, w: w}) })
	}
}

// EnrolTapped is Machine.Enrol, except that w sees every byte of the stream.
func EnrolTapped(ctx context.Context, m Machine, w io.Writer, show func(Offer)) error {
	code, err := identity.NewCode(rand.Reader)
	if err != nil {
		return err
	}
	dev, err := identity.NewDevice(rand.Reader)
	if err != nil {
		return err
	}
	h, key, err := m.host()
	if err != nil {
		return err
	}
	defer h.Close()
	e := &enrolment{m: m, h: h, key: key, code: code, device: dev, done: make(chan enrolled, 1)}
	h.SetStreamHandler(deviceProtocol, func(s network.Stream) { e.serve(ctx, &tapped{Stream: s, w: w}) })
	show(Offer{Code: code.String(), Addrs: fullAddrs(h)})
	select {
	case r := <-e.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

type tapped struct {
	network.Stream
	mu sync.Mutex // serialises w
	w  io.Writer
}

func (t *tapped) Read(b []byte) (int, error) {
	n, err := t.Stream.Read(b)
	t.keep(b[:n])
	return n, err
}

func (t *tapped) Write(b []byte) (int, error) {
	t.keep(b)
	return t.Stream.Write(b)
}

func (t *tapped) keep(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.w.Write(b)
}
