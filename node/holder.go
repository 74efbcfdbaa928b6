package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// inquiry is one question about a topic, answered to whoever proves to hold
// the fetch key of that topic:
//
//	holder  -> nonce 32
//	asker   -> topic 32 ‖ what ‖ Sign(fetch key, "sync/auth", word ‖ topic ‖ nonce ‖ asker ‖ holder ‖ what) 64
//	holder  -> u32 length ‖ answer; length 0: nothing here, or not for you
//
// A peer id in the signed message has its length, one byte, in front.
type inquiry struct {
	protocol protocol.ID
	word     string // keeps one kind's signatures from being another's
	what     int    // bytes that say what is asked for
	most     int    // bytes of an answer
	deadline time.Duration
}

func (q inquiry) message(topic envelope.TopicID, nonce [32]byte, asker, holder peer.ID, what []byte) [][]byte {
	return [][]byte{[]byte(q.word), topic[:], nonce[:], lengthed(asker), lengthed(holder), what}
}

// lengthed puts its length in front of a peer id, which is of any.
func lengthed(p peer.ID) []byte { return append([]byte{byte(len(p))}, p...) }

// serveInquiry answers one inquiry with what give finds for a topic that is
// held here.
func (n *Node) serveInquiry(s network.Stream, q inquiry, give func(a *actor, e *epoch, what []byte) []byte) {
	defer s.Close()
	if err := n.answerInquiry(s, q, give); err != nil {
		s.Reset()
		n.log.Debug(q.word+" refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

func (n *Node) answerInquiry(s network.Stream, q inquiry, give func(a *actor, e *epoch, what []byte) []byte) error {
	if err := s.SetDeadline(time.Now().Add(q.deadline)); err != nil {
		return err
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	if _, err := s.Write(nonce[:]); err != nil {
		return err
	}
	req := make([]byte, 32+q.what+ed25519.SignatureSize)
	if _, err := io.ReadFull(s, req); err != nil {
		return err
	}
	topic, what, sig := envelope.TopicID(req[:32]), req[32:32+q.what], req[32+q.what:]
	var out []byte
	if a, e := n.byTopic(topic); a != nil {
		msg := q.message(topic, nonce, s.Conn().RemotePeer(), n.host.ID(), what)
		if space.Verify(e.keys.Fetch().Public().(ed25519.PublicKey), space.LabelSyncAuth, sig, msg...) {
			out = give(a, e, what)
		}
	}
	return writeFrame(s, out)
}

// askHolder asks one peer about a topic.
func (n *Node) askHolder(ctx context.Context, q inquiry, from peer.ID, e *epoch, what []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, q.deadline)
	defer cancel()
	s, err := n.host.NewStream(overCircuit(ctx, q.word), from, q.protocol)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.word, err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(q.deadline)); err != nil {
		return nil, err
	}
	var nonce [32]byte
	if _, err := io.ReadFull(s, nonce[:]); err != nil {
		return nil, fmt.Errorf("%s: %w", q.word, err)
	}
	req := append(append([]byte{}, e.id[:]...), what...)
	req = append(req, space.Sign(e.keys.Fetch(), space.LabelSyncAuth, q.message(e.id, nonce, n.host.ID(), from, what)...)...)
	if _, err := s.Write(req); err != nil {
		return nil, fmt.Errorf("%s: %w", q.word, err)
	}
	data, err := readFrame(s, q.most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.word, err)
	}
	return data, nil
}
