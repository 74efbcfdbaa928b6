package node

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"github.com/kithnet/kith/sync/reconcile"
)

// peerBook remembers where the peers of each space were last seen. It is a
// leaf: learning something new calls save, which makes it durable, and so does
// note with when a peer was last here.
type peerBook struct {
	self peer.ID
	save func(space [32]byte, p peer.AddrInfo)
	note func(p peer.ID, at time.Time)

	mu     sync.Mutex // guards what follows
	spaces map[[32]byte]map[peer.ID][]multiaddr.Multiaddr
	seen   map[peer.ID]time.Time // when those of a space were last connected
}

const (
	maxBookPeers = 512             // peers remembered for one space
	maxBookAddrs = 12              // addresses remembered for one peer
	seenEvery    = 2 * time.Minute // how often it is noted that a peer is still here
)

func newPeerBook(self peer.ID, save func([32]byte, peer.AddrInfo), note func(peer.ID, time.Time)) *peerBook {
	return &peerBook{
		self: self, save: save, note: note,
		spaces: map[[32]byte]map[peer.ID][]multiaddr.Multiaddr{}, seen: map[peer.ID]time.Time{},
	}
}

// saw notes that a peer has connected, if some space knows it: after a restart
// it is the likeliest to be there still.
func (b *peerBook) saw(p peer.ID, now time.Time) {
	b.mu.Lock()
	in := b.inSome(p)
	if in {
		b.seen[p] = now
	}
	b.mu.Unlock()
	if in {
		b.note(p, now)
	}
}

// sees notes that a peer is connected still.
func (b *peerBook) sees(p peer.ID, now time.Time) {
	b.mu.Lock()
	due := now.Sub(b.seen[p]) >= seenEvery
	b.mu.Unlock()
	if due {
		b.saw(p, now)
	}
}

// inSome reports whether a peer is among those of any space. mu is held.
func (b *peerBook) inSome(p peer.ID) bool {
	for _, peers := range b.spaces {
		if _, ok := peers[p]; ok {
			return true
		}
	}
	return false
}

// recall puts in when a peer was last here, as it was noted, unless no space
// knows the peer any more.
func (b *peerBook) recall(p peer.ID, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.inSome(p) {
		return false
	}
	b.seen[p] = at
	return true
}

// meet adds a peer that is not among the space's yet. A connected one whose
// addresses are not told yet is the space's already: introductions tells them.
func (b *peerBook) meet(space [32]byte, p peer.AddrInfo) {
	if b.knows(space, p.ID) || b.learn(space, p) || p.ID == b.self {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spaces[space] == nil {
		b.spaces[space] = map[peer.ID][]multiaddr.Multiaddr{}
	}
	if peers := b.spaces[space]; len(peers) < maxBookPeers && peers[p.ID] == nil {
		peers[p.ID] = nil
	}
}

// learn adds what is new of p to the space's peers, and reports whether there
// was anything.
func (b *peerBook) learn(space [32]byte, p peer.AddrInfo) bool {
	if p.ID == b.self || len(p.Addrs) == 0 {
		return false
	}
	b.mu.Lock()
	peers := b.spaces[space]
	if peers == nil {
		peers = map[peer.ID][]multiaddr.Multiaddr{}
		b.spaces[space] = peers
	}
	old, known := peers[p.ID]
	if !known && len(peers) >= maxBookPeers {
		delete(peers, b.longestGone(peers)) // what is alive comes back
	}
	addrs := slices.Clone(p.Addrs) // the newest first
	for _, a := range old {
		if !multiaddr.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	addrs = addrs[:min(len(addrs), maxBookAddrs)]
	fresh := !known || len(addrs) != len(old) || !multiaddr.Contains(old, addrs[0])
	peers[p.ID] = addrs
	b.mu.Unlock()
	if fresh {
		b.save(space, peer.AddrInfo{ID: p.ID, Addrs: addrs})
	}
	return fresh
}

// longestGone is one of those peers that were not here for longest. mu is held.
func (b *peerBook) longestGone(peers map[peer.ID][]multiaddr.Multiaddr) peer.ID {
	return slices.MinFunc(slices.Collect(maps.Keys(peers)), func(x, y peer.ID) int { return b.seen[x].Compare(b.seen[y]) })
}

// load puts in what was saved.
func (b *peerBook) load(space [32]byte, p peer.AddrInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spaces[space] == nil {
		b.spaces[space] = map[peer.ID][]multiaddr.Multiaddr{}
	}
	b.spaces[space][p.ID] = p.Addrs
}

// of are the known peers of a space, in random order.
func (b *peerBook) of(space [32]byte) []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]peer.AddrInfo, 0, len(b.spaces[space]))
	for id, addrs := range b.spaces[space] {
		out = append(out, peer.AddrInfo{ID: id, Addrs: slices.Clone(addrs)})
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// lately are the known peers of a space, those that were here last first; who
// never was comes in random order.
func (b *peerBook) lately(space [32]byte) []peer.AddrInfo {
	out := b.of(space)
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.SortStableFunc(out, func(x, y peer.AddrInfo) int { return b.seen[y.ID].Compare(b.seen[x.ID]) })
	return out
}

// any reports whether a peer of a space is known.
func (b *peerBook) any(space [32]byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.spaces[space]) > 0
}

// knows reports whether a peer is among those of a space.
func (b *peerBook) knows(space [32]byte, p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.spaces[space][p]
	return ok
}

// part drops one peer of a space and reports whether it was one.
func (b *peerBook) part(space [32]byte, p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.spaces[space][p]
	delete(b.spaces[space], p)
	return ok
}

// forget drops a space's peers; each is told to drop, which undoes save.
func (b *peerBook) forget(space [32]byte, drop func(peer.ID)) {
	b.mu.Lock()
	peers := b.spaces[space]
	delete(b.spaces, space)
	b.mu.Unlock()
	for id := range peers {
		drop(id)
	}
}

// blame holds a broken sync stream against its peer, if it is the peer's fault
// and more than not being let in.
func (n *Node) blame(p peer.ID, err error) {
	if errors.Is(err, reconcile.ErrPeer) && !errors.Is(err, reconcile.ErrAuth) {
		n.stats.Blamed.Add(1)
		n.log.Warn("a peer broke the sync protocol", "peer", p, "err", err)
		n.mesh.Blame(p)
	}
}

// demoted logs a peer that gossip no longer listens to.
func (n *Node) demoted(p peer.ID) {
	n.log.Warn("gossip does not listen to a peer that sent forgeries", "peer", p)
}

// silent logs a peer that does not answer: it may be a broken link, so it is no
// warning.
func (n *Node) silent(p peer.ID) {
	n.log.Info("a peer does not answer; it is asked ever less", "peer", p)
}

// introductions notes where peers say that they listen, each time they connect.
// The addresses that the host ever heard of them come in no order, and the book
// keeps a dozen.
func (n *Node) introductions(ctx context.Context, said event.Subscription) {
	defer said.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-said.Out():
			if !ok {
				return
			}
			in := e.(event.EvtPeerIdentificationCompleted)
			for _, sid := range n.spaceIDs() {
				if n.book.knows(sid, in.Peer) {
					n.book.learn(sid, peer.AddrInfo{ID: in.Peer, Addrs: in.ListenAddrs})
				}
			}
		}
	}
}

// alive is nil if the other end of a connection answers within aliveTime.
func alive(ctx context.Context, c network.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	s, err := c.NewStream(network.WithAllowLimitedConn(ctx, "probe"))
	if err != nil {
		return err
	}
	defer s.Reset()
	if err := s.SetDeadline(time.Now().Add(aliveTime)); err != nil {
		return err
	}
	return multistream.SelectProtoOrFail(ping.ID, s)
}

// Where the node and the peers of a space are.

func (n *Node) addrs(sid [32]byte) (own, others []string) {
	own = fullAddrs(n.host)
	for _, p := range n.book.of(sid) {
		for _, a := range p.Addrs {
			others = append(others, a.String()+"/p2p/"+p.ID.String())
		}
	}
	return own, others
}

func (n *Node) meet(sid [32]byte, addrs []string) {
	for _, p := range parsePeers(addrs) {
		if n.book.learn(sid, p) {
			n.redial.moved(p.ID)
		}
	}
	n.redial.poke()
}
