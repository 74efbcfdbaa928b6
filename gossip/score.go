package gossip

import (
	"net"
	"net/netip"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Scores, as gossipsub v1.1 calls their parts. All parts are 0 or less, so
// nothing that a peer does well can outweigh what it does badly, and 0 is the
// score of everybody who is not known to have done anything wrong:
//
//   - P1, time in the mesh, and P2, first deliveries: none. They are credit,
//     and with credit from one topic a peer can drop another.
//   - P3, too few deliveries: none. It would punish the mesh of an idle topic.
//     Who drops a topic in silence is found out by reconciliation.
//   - P4, invalid messages: kept in conduct, and told as P5. pubsub keeps it
//     for each topic, so that a peer had as many tries as there are topics, and
//     sums over all topics whenever a message comes.
//   - P6, peers at one address within scoreRetain: the connection limit bounds
//     those of one moment, this those that come back under ever new names.
//   - P7, grafts against a back-off and broken promises: beyond what an honest
//     peer can do by restarting, one of each for every topic.
const (
	gossipThreshold  = -15 // below it: no IHAVE and IWANT
	publishThreshold = -40
	graylist         = -80 // below it: nothing is read
	elsewhere        = 1.5 // faults: from there on those committed elsewhere do not count
	acceptPX         = 1   // no score is this high: peer exchange is never taken

	scoreRetain     = 30 * time.Minute
	scoreInterval   = 10 * time.Second
	scoreMemory     = 20 * time.Second // of one message; pubsub's default is 120 s
	addressWeight   = -1               // · (peers - addressPeers)²
	addressPeers    = 64
	behaviourWeight = -1
)

// scoring are the parameters and thresholds of a mesh.
func (c Config) scoring(score func(peer.ID) float64) (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	params := &pubsub.PeerScoreParams{
		Topics:           make(map[string]*pubsub.TopicScoreParams), // none has a score of its own
		AppSpecificScore: score, AppSpecificWeight: 1,
		IPColocationFactorWeight: addressWeight, IPColocationFactorThreshold: addressPeers,
		IPColocationFactorWhitelist: networks(c.Exempt),
		BehaviourPenaltyWeight:      behaviourWeight,
		BehaviourPenaltyThreshold:   float64(2 * c.MaxTopics),
		BehaviourPenaltyDecay:       pubsub.ScoreParameterDecayWithBase(scoreRetain, scoreInterval, 0.01),
		DecayInterval:               scoreInterval, DecayToZero: 0.01,
		RetainScore: scoreRetain, SeenMsgTTL: scoreMemory,
	}
	return params, &pubsub.PeerScoreThresholds{
		GossipThreshold: gossipThreshold, PublishThreshold: publishThreshold, GraylistThreshold: graylist,
		AcceptPXThreshold: acceptPX,
	}
}

func networks(prefixes []netip.Prefix) (out []*net.IPNet) {
	for _, p := range prefixes {
		out = append(out, &net.IPNet{
			IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		})
	}
	return out
}

// Blame holds a fault against a peer that it committed elsewhere. By such
// faults alone a peer leaves the meshes and is asked for nothing; it is still
// listened to.
func (m *Mesh) Blame(p peer.ID) {
	if now := time.Now(); p != m.self && m.judge.conduct.score(p, now) > price(elsewhere) {
		m.judge.conduct.blame(p, 1, now)
	}
}

// Shunned reports whether gossip does not listen to a peer.
func (m *Mesh) Shunned(p peer.ID) bool { return m.judge.conduct.shunned(p, time.Now()) }
