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

	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// receiptProtocol shows members each other's receipts of a topic: two that do
// not fit together prove that a relay showed them different things.
//
//	holder -> nonce 32
//	asker  -> topic 32 ‖ Sign(fetch key, "sync/auth", "receipt" ‖ topic ‖ nonce ‖ asker ‖ holder) 64
//	holder -> u32 length ‖ receipts; length 0: none, or not for you
const receiptProtocol protocol.ID = "/kith/receipt/1"

const (
	receiptRequest  = 32 + 64
	receiptDeadline = 10 * time.Second
	maxReceipts     = maxKept * maxSpaceRelays
	swapGap         = 20 * time.Second // between two questions to one member about one topic
)

// swapKey names an exchange of receipts.
type swapKey struct {
	peer  peer.ID
	topic envelope.TopicID
}

func receiptMessage(topic envelope.TopicID, nonce [32]byte, asker, holder peer.ID) [][]byte {
	return [][]byte{[]byte("receipt"), topic[:], nonce[:], lengthed(asker), lengthed(holder)}
}

// serveReceipts shows what relays signed for a topic.
func (n *Node) serveReceipts(s network.Stream) {
	defer s.Close()
	if err := n.giveReceipts(s); err != nil {
		s.Reset()
		n.log.Debug("receipts refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

func (n *Node) giveReceipts(s network.Stream) error {
	if err := s.SetDeadline(time.Now().Add(receiptDeadline)); err != nil {
		return err
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	if _, err := s.Write(nonce[:]); err != nil {
		return err
	}
	var req [receiptRequest]byte
	if _, err := io.ReadFull(s, req[:]); err != nil {
		return err
	}
	topic := envelope.TopicID(req[:32])
	var out []byte
	if a, e := n.byTopic(topic); a != nil {
		msg := receiptMessage(topic, nonce, s.Conn().RemotePeer(), n.host.ID())
		if space.Verify(e.keys.Fetch().Public().(ed25519.PublicKey), space.LabelSyncAuth, req[32:], msg...) {
			out = n.relayed.receipts(a.sid, topic)
		}
	}
	return writeFrame(s, out)
}

// receipts are those kept of a topic, of all its relays.
func (k *relayKeeper) receipts(sid [32]byte, topic envelope.TopicID) (out []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.n.relays.of(sid) {
		s := k.at[berth{r.ID, sid, topic}]
		if s == nil {
			continue
		}
		for _, r := range s.Kept {
			out = append(out, r...)
		}
	}
	return out
}

// swapReceipts asks a member whose set is ours for its receipts, unless it was
// asked just now.
func (n *Node) swapReceipts(a *actor, e *epoch, with peer.ID) {
	key := swapKey{with, e.id}
	n.relayed.mu.Lock()
	last, asked := n.relayed.swaps[key]
	again := !asked || time.Since(last) > swapGap
	if again {
		for old, at := range n.relayed.swaps {
			if time.Since(at) > swapGap {
				delete(n.relayed.swaps, old)
			}
		}
		n.relayed.swaps[key] = time.Now()
	}
	n.relayed.mu.Unlock()
	if !again {
		return
	}
	n.spawn(func() {
		all, err := n.askReceipts(n.ctx, with, e)
		if err != nil {
			n.log.Debug("ask for receipts", "peer", with, "err", err)
			return
		}
		for _, r := range all {
			n.relayed.brought(a, e, r)
		}
	})
}

// askReceipts asks one member for the receipts it has of a topic.
func (n *Node) askReceipts(ctx context.Context, from peer.ID, e *epoch) ([]relay.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptDeadline)
	defer cancel()
	s, err := n.host.NewStream(overCircuit(ctx, "receipt"), from, receiptProtocol)
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(receiptDeadline)); err != nil {
		return nil, err
	}
	var nonce [32]byte
	if _, err := io.ReadFull(s, nonce[:]); err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	req := append(make([]byte, 0, receiptRequest), e.id[:]...)
	req = append(req, space.Sign(e.keys.Fetch(), space.LabelSyncAuth, receiptMessage(e.id, nonce, n.host.ID(), from)...)...)
	if _, err := s.Write(req); err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	raw, err := readFrame(s, maxReceipts*relay.ReceiptSize)
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	var out []relay.Receipt
	for len(raw) >= relay.ReceiptSize {
		r, err := relay.ParseReceipt(raw[:relay.ReceiptSize])
		if err != nil || r.Topic != e.id {
			return nil, fmt.Errorf("receipts: of something else: %w", space.ErrForged)
		}
		out, raw = append(out, r), raw[relay.ReceiptSize:]
	}
	return out, nil
}

// brought holds a receipt that a member has against our own of that relay.
func (k *relayKeeper) brought(a *actor, e *epoch, r relay.Receipt) {
	_, forked := a.holds(e)
	k.mu.Lock()
	var caught peer.ID
	var row stand
	for p, s := range k.at {
		if p.space != a.sid || p.topic != e.id {
			continue
		}
		if key, err := relay.KeyOf(p.relay); err == nil && key.Equal(r.Relay) {
			if s.hear(r, false, forked, time.Now()) {
				caught, row = p.relay, s.stand
			}
		}
	}
	k.mu.Unlock()
	if caught == "" {
		return
	}
	k.n.log.Warn("a relay was caught: it signed something else for another member", "relay", caught, "space", fingerprint(a.sid), "epoch", e.n)
	if err := a.keepStand(berth{caught, a.sid, e.id}, row); err != nil {
		k.n.log.Error("keep the proof", "err", err)
	}
}
