package node

import (
	"context"
	"fmt"
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
// An inquiry that says nothing but the topic; the answer is receipts, one after
// the other.
const receiptProtocol protocol.ID = "/kith/receipt/1"

const (
	maxReceipts = maxKept * maxSpaceRelays
	swapGap     = 20 * time.Second // between two questions to one member about one topic
)

// swapKey names an exchange of receipts.
type swapKey struct {
	peer  peer.ID
	topic envelope.TopicID
}

func receiptInquiry() inquiry {
	return inquiry{protocol: receiptProtocol, word: "receipt", most: maxReceipts * relay.ReceiptSize, deadline: 10 * time.Second}
}

// serveReceipts shows what relays signed for a topic.
func (n *Node) serveReceipts(s network.Stream) {
	n.serveInquiry(s, receiptInquiry(), func(a *actor, e *epoch, _ []byte) []byte { return n.relayed.receipts(a.sid, e.id) })
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
// asked just now and no relay has signed anything for us since.
func (n *Node) swapReceipts(a *actor, e *epoch, with peer.ID) {
	key := swapKey{with, e.id}
	n.relayed.mu.Lock()
	last, asked := n.relayed.swaps[key]
	again := !asked || time.Since(last) > swapGap || n.relayed.signedSince(a.sid, e.id, last)
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

// signedSince reports whether a relay signed for a topic after a time. mu is
// held.
func (k *relayKeeper) signedSince(sid [32]byte, topic envelope.TopicID, at time.Time) bool {
	for p, s := range k.at {
		if p.space == sid && p.topic == topic && s.asked.After(at) {
			return true
		}
	}
	return false
}

// askReceipts asks one member for the receipts it has of a topic.
func (n *Node) askReceipts(ctx context.Context, from peer.ID, e *epoch) ([]relay.Receipt, error) {
	raw, err := n.askHolder(ctx, receiptInquiry(), from, e, nil)
	if err != nil {
		return nil, err
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
