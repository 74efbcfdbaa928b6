package node

import (
	"context"

	"github.com/kithnet/kith/space/identity"
)

// AskIdentity is a stranger who tells a node something of c and hears what it
// knows.
func AskIdentity(ctx context.Context, addr string, c identity.Commitment, log [][]byte, list []byte) ([][]byte, []byte, error) {
	h, _, err := Machine{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}.host()
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	p, err := parsePeer(addr)
	if err != nil {
		return nil, nil, err
	}
	if err := dial(ctx, h, p); err != nil {
		return nil, nil, err
	}
	if list == nil {
		list = []byte{}
	}
	t, err := askIdentity(ctx, h, p.ID, identityAsk{
		Ver: identityVersion, C: c[:], Head: make([]byte, 32), Log: log, List: list, Device: []byte{}, Proof: []byte{},
	})
	return t.Log, t.List, err
}

// Forked counts the chains of all spaces of which two branches were seen.
func Forked(n *Node) int {
	forked := 0
	for _, r := range n.all() {
		r.mu.RLock()
		for _, e := range r.epochs {
			for c := range e.topic.Chains() {
				if c.Forked {
					forked++
				}
			}
		}
		r.mu.RUnlock()
	}
	return forked
}

// OwnLog is the node's identity log.
func OwnLog(n *Node) [][]byte { return n.self.ownLog() }

// HasNewestKey reports whether the node holds the per-user key of its log's
// newest generation.
func HasNewestKey(n *Node) bool { return n.self.ownPUK().Public().Equal(n.self.ownState().PUK) }

// EnrolDevice takes a device in as an approval does.
func EnrolDevice(n *Node, request []byte) error {
	_, err := n.enrolDevice(enrolRequest{Request: request, Name: "x"})
	return err
}

// Missing counts the spaces that the node would fetch.
func Missing(n *Node) int { return len(n.missing()) }

// CountLists does what a start does with the lists of others.
func CountLists(n *Node) { n.countLists() }

// FillLists takes all the room there is for lists of others.
func FillLists(n *Node) {
	n.listing.Lock()
	defer n.listing.Unlock()
	n.listed = maxListed
}
