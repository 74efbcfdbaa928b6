package testnet

import (
	"github.com/libp2p/go-libp2p"
	"github.com/marcopolo/simnet"
)

// NAT puts a node behind a box of its own that lets a packet in only from an
// address that the node has sent one to. Nobody can dial it; two such nodes
// meet by sending at the same time. Addresses are not rewritten.
func (n *Node) NAT() {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.net.boxed[n.ip.String()] = map[string]bool{}
}

// Wall lets no packet pass between two nodes.
func (w *Net) Wall(a, b *Node) { w.wall(a.ip.String(), b.ip.String(), true) }

// Unwall lets them pass again.
func (w *Net) Unwall(a, b *Node) { w.wall(a.ip.String(), b.ip.String(), false) }

func (w *Net) wall(a, b string, up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.walls[[2]string{a, b}], w.walls[[2]string{b, a}] = up, up
}

// Attach is a place on the network for a host that is no Node. As every place
// it is taken for good.
func (w *Net) Attach() (listen []string, host []libp2p.Option) {
	w.strangers++
	return w.attach(simnet.IntToPublicIPv4(firstStranger + w.strangers))
}

// firstStranger is behind all addresses of nodes.
const firstStranger = 10_000

// stopped reports whether a box on its way stops a packet, and opens the
// sender's for the answer. mu is held.
func (w *Net) stopped(p *simnet.Packet) bool {
	from, to := hostOf(p.From), hostOf(p.To)
	if w.walls[[2]string{from, to}] {
		return true
	}
	if sent := w.boxed[from]; sent != nil {
		sent[p.To.String()] = true
	}
	let := w.boxed[to]
	return let != nil && !let[p.From.String()]
}
