package gossip

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// tracer counts what pubsub drops before or beside the judge, and announces
// the peers with which the mesh forms a link. pubsub calls it from its one
// loop.
type tracer struct{ m *Mesh }

var _ pubsub.RawTracer = tracer{}

func (t tracer) Graft(p peer.ID, topic string) {
	if top := t.m.topic(topic); top != nil {
		top.queue.peer(p)
	}
}

func (t tracer) RejectMessage(m *pubsub.Message, reason string) {
	c := t.m.Counters()
	switch reason {
	case pubsub.RejectValidationQueueFull, pubsub.RejectValidationThrottled:
		c.QueueFull.Add(1)
	case pubsub.RejectUnexpectedAuthInfo, pubsub.RejectUnexpectedSignature:
		c.Authored.Add(1)
		t.m.judge.conduct.blame(m.ReceivedFrom, 1, time.Now())
	}
}

func (t tracer) DropRPC(*pubsub.RPC, peer.ID) { t.m.Counters().Outbound.Add(1) }

func (tracer) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (tracer) OnClosedOutboundStream(peer.ID)           {}
func (tracer) Join(string)                              {}
func (tracer) Leave(string)                             {}
func (tracer) Prune(peer.ID, string)                    {}
func (tracer) ValidateMessage(*pubsub.Message)          {}
func (tracer) DeliverMessage(*pubsub.Message)           {}
func (tracer) DuplicateMessage(*pubsub.Message)         {}
func (tracer) ThrottlePeer(peer.ID)                     {}
func (tracer) RecvRPC(*pubsub.RPC)                      {}
func (tracer) SendRPC(*pubsub.RPC, peer.ID)             {}
func (tracer) UndeliverableMessage(*pubsub.Message)     {}
