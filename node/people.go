package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/multiformats/go-multiaddr"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Tables of the store's node-level settings.
const (
	logTable  = "identity-log"  // commitment -> log
	lostTable = "identity-lost" // commitment -> hashes of entries on branches that lost
	peerTable = "peer"          // space id ‖ peer id -> addresses
	seenTable = "peer-seen"     // peer id -> when it was last connected, unix seconds (8, big endian)
	doorTable = "door"          // space id -> device ‖ peer id of the keeper that welcomed last
)

// people is what this node knows of other identities: the logs it verified.
type people struct {
	store   *store.Store
	keeping sync.Mutex // held while a log is made durable: the newest one is to stay

	mu     sync.RWMutex                     // guards what follows
	logs   map[identity.Commitment][][]byte // the own one, and those that the store does not hold yet
	states map[identity.Commitment]identity.State
	lost   map[identity.Commitment][][]byte
	watch  []watcher
}

// maxLost bounds the entries of lost branches that are remembered of a person.
const maxLost = 256

// watcher hears that a log moved: c's, from what old says to what new says.
type watcher func(c identity.Commitment, old, new identity.State)

func loadPeople(st *store.Store, s *self) (*people, error) {
	p := &people{
		store:  st,
		logs:   map[identity.Commitment][][]byte{s.c: s.ownLog()},
		states: map[identity.Commitment]identity.State{s.c: s.ownState()},
		lost:   map[identity.Commitment][][]byte{},
	}
	for kv, err := range st.List(lostTable) {
		var lost [][]byte
		if err == nil {
			err = space.Unmarshal(kv.Value, &lost)
		}
		if err != nil || len(kv.Key) != 32 {
			return nil, fmt.Errorf("read identity logs: %w", errors.Join(err, space.ErrMalformed))
		}
		p.lost[identity.Commitment(kv.Key)] = lost
	}
	for kv, err := range st.List(logTable) {
		if err != nil {
			return nil, fmt.Errorf("read identity logs: %w", err)
		}
		var log [][]byte
		if err := space.Unmarshal(kv.Value, &log); err != nil {
			return nil, fmt.Errorf("read identity logs: %w", err)
		}
		state, err := identity.Verify(log)
		if err != nil {
			return nil, fmt.Errorf("read identity logs: %w", err)
		}
		if state.C != s.c {
			p.states[state.C] = state
		}
	}
	return p, nil
}

// known is the log of c and what it says; nil if there is none. It is read from
// the store unless it is on its way there: of ten thousand people the logs are
// seldom asked for.
func (p *people) known(c identity.Commitment) ([][]byte, identity.State) {
	for {
		p.mu.RLock()
		log, st := p.logs[c], p.states[c]
		p.mu.RUnlock()
		if log != nil || st.Head == ([32]byte{}) {
			return log, st
		}
		b, ok, err := p.store.Read(logTable, c[:])
		if err != nil || !ok || space.Unmarshal(b, &log) != nil {
			return nil, st // damaged: somebody tells it again
		}
		p.mu.RLock()
		still := p.states[c].Head == st.Head
		p.mu.RUnlock()
		if still {
			return log, st
		}
	}
}

// keep makes the log of c durable.
func (p *people) keep(c identity.Commitment, class store.Class) error {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	p.mu.RLock()
	log, head := p.logs[c], p.states[c].Head
	p.mu.RUnlock()
	if log == nil {
		return nil // it is
	}
	b, err := space.Marshal(log)
	if err == nil {
		err = p.store.Put(logTable, c[:], b, class)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.states[c].Head == head {
		delete(p.logs, c)
	}
	return nil
}

// take verifies entries as c's log, whole or behind what is known, and goes by
// what identity.Follow says of the two. roster is the head that the control
// log vouches for, see vouched.
func (p *people) take(c identity.Commitment, roster [32]byte, entries [][]byte) (log [][]byte, old, new identity.State, changed bool) {
	for {
		var known [][]byte
		known, old = p.known(c)
		log, new, changed = follow(c, known, roster, entries)
		if !changed || !p.stands(c, roster, log, known) {
			return known, old, old, false
		}
		p.mu.Lock()
		if p.states[c].Head != old.Head {
			p.mu.Unlock() // somebody was faster; look again
			continue
		}
		p.logs[c], p.states[c] = log, new
		p.lose(c, known[common(known, log):])
		p.mu.Unlock()
		return log, old, new, true
	}
}

// follow finds the log that entries make with what is known of c.
func follow(c identity.Commitment, known [][]byte, roster [32]byte, entries [][]byte) ([][]byte, identity.State, bool) {
	if len(entries) == 0 {
		return nil, identity.State{}, false
	}
	tries := [][][]byte{entries}
	if !identity.IsGenesis(entries[0]) {
		tries = [][][]byte{slices.Concat(known, entries)}
		if rest, ok := identity.Since(known, roster); ok && len(rest) > 0 {
			tries = append(tries, slices.Concat(known[:len(known)-len(rest)], entries))
		}
	}
	for _, try := range tries {
		if len(try) <= len(known) && slices.EqualFunc(try, known[:len(try)], bytes.Equal) {
			continue
		}
		log, st, err := identity.Follow(known, try)
		if err != nil || st.C != c || sameLog(log, known) {
			continue
		}
		return log, st, true
	}
	return nil, identity.State{}, false
}

// stands reports whether the word of a control log for a head of c's is met:
// log holds it, or goes on where a branch that held it lost.
func (p *people) stands(c identity.Commitment, head [32]byte, log, known [][]byte) bool {
	for _, l := range [][][]byte{log, known} {
		if _, in := identity.Since(l, head); in && len(l) > 0 {
			return true
		}
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.ContainsFunc(p.lost[c], func(h []byte) bool { return bytes.Equal(h, head[:]) })
}

// lose remembers the entries of a branch that lost. mu is held.
func (p *people) lose(c identity.Commitment, branch [][]byte) {
	if len(branch) == 0 {
		return
	}
	lost := slices.Clone(p.lost[c])
	for _, e := range branch {
		h := sha256.Sum256(e)
		lost = append(lost, h[:])
	}
	p.lost[c] = lost[max(0, len(lost)-maxLost):]
}

// common is the number of entries that two logs begin with together.
func common(a, b [][]byte) int {
	i := 0
	for i < min(len(a), len(b)) && bytes.Equal(a[i], b[i]) {
		i++
	}
	return i
}

func sameLog(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// identity is what the log of c says, if we have it.
func (n *Node) identity(c identity.Commitment) (identity.State, bool) {
	n.people.mu.RLock()
	defer n.people.mu.RUnlock()
	s, ok := n.people.states[c]
	return s, ok
}

// identityLog is the log of c, if we have it.
func (n *Node) identityLog(c identity.Commitment) [][]byte {
	log, _ := n.people.known(c)
	return log
}

// onIdentity has f called, in a goroutine of its own, whenever a log that this
// node knows moves, the own one included; old is zero for somebody new.
func (n *Node) onIdentity(f func(c identity.Commitment, old, new identity.State)) {
	n.people.mu.Lock()
	defer n.people.mu.Unlock()
	n.people.watch = append(n.people.watch, f)
}

// moved tells those who watch.
func (n *Node) moved(c identity.Commitment, old, new identity.State) {
	n.people.mu.RLock()
	watch := n.people.watch
	n.people.mu.RUnlock()
	for _, f := range watch {
		n.spawn(func() { f(c, old, new) })
	}
}

// learn takes what somebody says of c's log; only what verifies stays.
func (n *Node) learn(c identity.Commitment, roster [32]byte, entries [][]byte) {
	if c == n.self.c {
		n.learnOwn(entries)
		return
	}
	_, old, st, changed := n.people.take(c, roster, entries)
	if !changed {
		return
	}
	class := store.Remote
	if old.Head != ([32]byte{}) {
		class = store.Own // who told us tells us once: a revocation must not be forgotten
	}
	err := n.people.keep(c, class)
	if err == nil {
		err = n.keepLost(c, class)
	}
	if err != nil {
		n.log.Warn("keep an identity log", "err", err)
	}
	n.moved(c, old, st)
}

// keepLost makes durable which entries of a person's lost.
func (n *Node) keepLost(c identity.Commitment, class store.Class) error {
	n.people.mu.RLock()
	lost := n.people.lost[c]
	n.people.mu.RUnlock()
	if len(lost) == 0 {
		return nil
	}
	b, err := space.Marshal(lost)
	if err != nil {
		return err
	}
	return n.store.Put(lostTable, c[:], b, class)
}

// learnAll sorts a welcome's identity log entries by person: each log begins
// with its genesis.
func (n *Node) learnAll(entries [][]byte, roster func(identity.Commitment) ([32]byte, bool)) {
	var log [][]byte
	flush := func() {
		if len(log) == 0 {
			return
		}
		if s, err := identity.Verify(log); err == nil {
			if head, ok := roster(s.C); ok {
				n.learn(s.C, head, log)
			}
		}
		log = nil
	}
	for _, e := range entries {
		if identity.IsGenesis(e) {
			flush()
		}
		log = append(log, e)
	}
	flush()
}

// savePeer makes what the peer book learnt durable.
func (n *Node) savePeer(sid [32]byte, p peer.AddrInfo) {
	addrs := make([]string, len(p.Addrs))
	for i, a := range p.Addrs {
		addrs[i] = a.String()
	}
	b, err := space.Marshal(addrs)
	if err == nil {
		err = n.store.Put(peerTable, append(sid[:], p.ID...), b, store.Remote)
	}
	if err != nil {
		n.log.Warn("keep a peer's address", "err", err)
	}
}

// loadPeers fills the peer book with what earlier runs learnt.
func (n *Node) loadPeers() error {
	for kv, err := range n.store.List(peerTable) {
		if err != nil {
			return fmt.Errorf("read peers: %w", err)
		}
		var addrs []string
		if err := space.Unmarshal(kv.Value, &addrs); err != nil || len(kv.Key) <= 32 {
			return fmt.Errorf("read peers: %w", space.ErrMalformed)
		}
		info := peer.AddrInfo{ID: peer.ID(kv.Key[32:])}
		for _, a := range addrs {
			if m, err := multiaddr.NewMultiaddr(a); err == nil {
				info.Addrs = append(info.Addrs, m)
			}
		}
		n.book.load([32]byte(kv.Key[:32]), info)
	}
	for kv, err := range n.store.List(seenTable) {
		if err != nil {
			return fmt.Errorf("read peers: %w", err)
		}
		if len(kv.Value) != 8 {
			return fmt.Errorf("read peers: %w", space.ErrMalformed)
		}
		if n.book.recall(peer.ID(kv.Key), time.Unix(int64(binary.BigEndian.Uint64(kv.Value)), 0)) {
			continue
		}
		if err := n.store.Delete(seenTable, kv.Key, store.Remote); err != nil {
			return fmt.Errorf("forget a peer: %w", diskError(err))
		}
	}
	return nil
}

// saveSeen makes durable when a peer of some space was last connected.
func (n *Node) saveSeen(p peer.ID, at time.Time) {
	v := binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))
	if err := n.store.Put(seenTable, []byte(p), v, store.Remote); err != nil {
		n.log.Warn("keep when a peer was seen", "err", err)
	}
}

// part forgets where the nodes of those are who are members no more. A node
// that serves the space as a relay stays known.
func (n *Node) part(a *actor) {
	for _, p := range a.strangers() {
		if _, relays := n.relays.serving(a.sid, p); relays || !n.book.part(a.sid, p) {
			continue
		}
		n.dropPeer(a.sid, p)
	}
}

// dropPeer undoes savePeer.
func (n *Node) dropPeer(sid [32]byte, p peer.ID) {
	if err := n.store.Delete(peerTable, append(sid[:], p...), store.Remote); err != nil {
		n.log.Debug("forget a peer", "err", err)
	}
}

// mdnsService is what Kith nodes look for on the local network.
const mdnsService = "_kith._udp"

// startMDNS looks for nodes on the local network. Where multicast does not
// work the node runs without.
func (n *Node) startMDNS() {
	s := mdns.NewMdnsService(n.host, mdnsService, nearby{n})
	if err := s.Start(); err != nil {
		n.log.Warn("no discovery on the local network", "err", err)
		return
	}
	n.spawn(func() {
		<-n.ctx.Done()
		if err := s.Close(); err != nil {
			n.log.Debug("stop mdns", "err", err)
		}
	})
}

// nearby connects to the nodes that mDNS names.
type nearby struct{ n *Node }

func (f nearby) HandlePeerFound(p peer.AddrInfo) {
	f.n.spawn(func() {
		if p.ID != f.n.host.ID() && f.n.ctx.Err() == nil {
			if err := f.n.redial.try(f.n.ctx, p); err != nil {
				f.n.log.Debug("peer on the local network", "err", err)
			}
		}
	})
}
