package node

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// identityProtocol brings two nodes to the same knowledge of one person: the
// identity log and the sealed list of the person's spaces.
//
//	asker  -> ask   whose; what the asker has of it, and what it has to say
//	answer -> told  what the asker lacks
//
// Each message is u32 length ‖ DRISL. Whoever knows C is answered, whoever
// speaks is believed what verifies. A node keeps what is said of its owner and
// of people it shares a space with, and of nobody else.
const identityProtocol protocol.ID = "/kith/identity/1"

const (
	identityVersion  = 1
	identityDeadline = 10 * time.Second
	// maxIdentity bounds a message: a list, and as much of a log as fits.
	maxIdentity  = 2<<20 - 64<<10
	maxLogPart   = maxIdentity - identity.MaxList - 64<<10
	maxLogParts  = 64 // of one log: more than the longest has
	askersAtOnce = 16
)

type identityAsk struct {
	_       struct{} `cbor:",toarray"`
	Ver     uint64
	C       []byte
	Head    []byte // of the log the asker has; 32 zeros: none
	Gen     uint32 // and of its list; 0: none
	Version uint64
	Log     [][]byte // entries the asker has to say, whole or behind an earlier head
	List    []byte   // its list; empty: none
	Device  []byte   // the asker's device, if it is one of C's; else empty
	Proof   []byte   // by it, over C and both ends of the connection
}

type identityTold struct {
	_    struct{} `cbor:",toarray"`
	Log  [][]byte // what the asker lacks, or the whole log
	More bool     // and more behind it
	List []byte   // empty: none, or not newer
}

// listTable keeps the lists of others: commitment -> sealed list.
const listTable = "account-list"

func (n *Node) serveIdentity(s network.Stream) {
	defer s.Close()
	select {
	case n.askers <- struct{}{}:
		defer func() { <-n.askers }()
	default:
		s.Reset() // as many as there may be ask already
		return
	}
	if err := s.SetDeadline(time.Now().Add(identityDeadline)); err != nil {
		s.Reset()
		return
	}
	if err := n.answerIdentity(s, s.Conn().RemotePeer()); err != nil {
		n.log.Debug("identity stream", "peer", s.Conn().RemotePeer(), "err", err)
		s.Reset()
	}
}

// answerIdentity takes what the asker says and tells what it lacks.
func (n *Node) answerIdentity(rw io.ReadWriter, from peer.ID) error {
	var q identityAsk
	if err := readMsg(rw, maxIdentity, &q); err != nil {
		return fmt.Errorf("read identity ask: %w", err)
	}
	if q.Ver != identityVersion || len(q.C) != 32 || len(q.Head) != 32 {
		return fmt.Errorf("identity ask: %w", space.ErrMalformed)
	}
	c := identity.Commitment(q.C)
	if roster, ours := n.concerns(c); ours {
		if len(q.Log) > 0 {
			n.learn(c, roster, q.Log)
		}
		if len(q.List) > 0 {
			n.takeList(q.List)
		}
	}
	if c == n.self.c && len(q.Device) == 32 && n.isTwin(q, from) {
		n.twins.add(from)
	}
	return writeMsg(rw, n.tell(c, [32]byte(q.Head), q.Gen, q.Version))
}

// concerns reports whether this node keeps what is said of c: its owner, and
// members of its spaces. roster is the head that a control log vouches for.
func (n *Node) concerns(c identity.Commitment) (roster [32]byte, ok bool) {
	if c == n.self.c {
		return roster, true
	}
	for _, r := range n.all() {
		if m, in := r.control().Member(c); in {
			return m.ILHead, true
		}
	}
	return roster, false
}

// tell is what somebody lacks of c, as far as it is known here.
func (n *Node) tell(c identity.Commitment, head [32]byte, gen uint32, version uint64) identityTold {
	t := identityTold{List: []byte{}}
	log := n.identityLog(c)
	rest, ok := identity.Since(log, head)
	if !ok {
		rest = log
	}
	t.Log, t.More = part(rest)
	if raw, l, ok := n.listOf(c); ok && l.Newer(identity.List{Gen: gen, Version: version}) {
		t.List = raw
	}
	return t
}

// part is as much of a log as goes into one message.
func part(log [][]byte) (some [][]byte, more bool) {
	size := 0
	for i, e := range log {
		if size += len(e) + 8; size > maxLogPart {
			return log[:i], true
		}
	}
	return log, false
}

// listOf is the sealed list of c that is kept here.
func (n *Node) listOf(c identity.Commitment) ([]byte, identity.List, bool) {
	if c == n.self.c {
		return n.account.sealed()
	}
	raw, ok, err := n.store.Read(listTable, c[:])
	if err != nil || !ok {
		return nil, identity.List{}, false
	}
	l, err := identity.ParseList(raw)
	return raw, l, err == nil
}

// takeList keeps a list that a device of a person signed, the newest one.
func (n *Node) takeList(raw []byte) {
	l, err := identity.ParseList(raw)
	if err != nil {
		return
	}
	st, ok := n.identity(l.C)
	if !ok || l.Check(st) != nil {
		return
	}
	if l.C == n.self.c {
		if err := n.account.take(raw, l); err != nil && st.Can(n.self.device.ID(), 0) {
			n.log.Warn("take over the list of spaces from another device", "err", err)
		}
		return
	}
	n.listing.Lock()
	defer n.listing.Unlock()
	before, have, ok := n.listOf(l.C)
	if ok && !l.Newer(have) && have.Check(st) == nil {
		return
	}
	if grown := len(raw) - len(before); n.listed+grown > maxListed {
		n.log.Debug("no room for another list of a member's", "held", n.listed)
		return
	} else if err := n.store.Put(listTable, l.C[:], raw, store.Remote); err != nil {
		n.log.Warn("keep a member's list", "err", err)
	} else {
		n.listed += grown
	}
}

// maxListed bounds what is kept of the lists of others, in bytes.
const maxListed = 32 << 20

// countLists drops the lists of people with whom no space is shared any more,
// and counts the rest.
func (n *Node) countLists() {
	n.listing.Lock()
	defer n.listing.Unlock()
	n.listed = 0
	var gone [][]byte
	for kv, err := range n.store.List(listTable) {
		if err != nil {
			n.log.Warn("read the lists of members", "err", err)
			return
		}
		if _, ours := n.concerns(identity.Commitment(kv.Key)); !ours {
			gone = append(gone, kv.Key)
			continue
		}
		n.listed += len(kv.Value)
	}
	for _, c := range gone {
		if err := n.store.Delete(listTable, c, store.Remote); err != nil {
			n.log.Warn("drop a list", "err", err)
		}
	}
}

// askOwn asks about the owner, as a device of the owner's.
func (n *Node) askOwn(with peer.ID, log [][]byte) identityAsk {
	st, id := n.self.ownState(), n.self.device.ID()
	q := identityAsk{
		Ver: identityVersion, C: n.self.c[:], Head: st.Head[:], Log: log, List: []byte{}, Device: id[:],
		Proof: space.Sign(n.self.device.Sig(), space.LabelIdentityAsk, twinParts(n.self.c, n.host.ID(), with)...),
	}
	if raw, l, ok := n.account.sealed(); ok {
		q.Gen, q.Version = l.Gen, l.Version
		if log != nil {
			q.List = raw
		}
	}
	return q
}

// publishIdentity makes sure that a node has the owner's log and list.
func (n *Node) publishIdentity(ctx context.Context, with peer.ID) error {
	log := n.self.ownLog()
	first, more := part(log)
	told, err := askIdentity(ctx, n.host, with, n.askOwn(with, first))
	for at := len(first); err == nil && more; {
		var next [][]byte
		next, more = part(log[at:])
		at += len(next)
		told, err = askIdentity(ctx, n.host, with, n.askOwn(with, next))
	}
	if err != nil {
		return err
	}
	if len(told.Log) > 0 {
		n.learnOwn(told.Log)
	}
	if len(told.List) > 0 {
		n.takeList(told.List)
	}
	return nil
}

// askIdentity asks one node once.
func askIdentity(ctx context.Context, h host.Host, with peer.ID, q identityAsk) (identityTold, error) {
	var t identityTold
	ctx, cancel := context.WithTimeout(ctx, identityDeadline)
	defer cancel()
	s, err := h.NewStream(overCircuit(ctx, "identity"), with, identityProtocol)
	if err != nil {
		return t, fmt.Errorf("ask about an identity: %w", err)
	}
	defer s.Close()
	if err = s.SetDeadline(time.Now().Add(identityDeadline)); err == nil {
		if err = writeMsg(s, q); err == nil {
			err = readMsg(s, maxIdentity, &t)
		}
	}
	if err != nil {
		s.Reset()
		return t, fmt.Errorf("ask about an identity: %w", err)
	}
	return t, nil
}

// fetchIdentity gets the whole log of c and its list from one node.
func fetchIdentity(ctx context.Context, h host.Host, from peer.ID, c identity.Commitment) (log [][]byte, list []byte, err error) {
	var head [32]byte
	for range maxLogParts {
		t, err := askIdentity(ctx, h, from, identityAsk{
			Ver: identityVersion, C: c[:], Head: head[:], List: []byte{}, Device: []byte{}, Proof: []byte{},
		})
		if err != nil {
			return nil, nil, err
		}
		if len(t.List) > 0 {
			list = t.List
		}
		if len(t.Log) == 0 {
			break
		}
		log = append(log, t.Log...)
		if !t.More {
			break
		}
		st, err := identity.Verify(log)
		if err != nil {
			return nil, nil, err
		}
		head = st.Head
	}
	if len(log) == 0 {
		return nil, nil, fmt.Errorf("%s knows nothing of this identity: %w", from, space.ErrUnavailable)
	}
	return log, list, nil
}

// How often the owner's identity is published and looked after.
const (
	identityEvery   = 5 * time.Second // a look at what changed
	identitySoon    = 50 * time.Millisecond
	identityAgain   = 10 * time.Minute // a node that was told is asked again
	identityPeers   = 16               // nodes told in one round
	identityRefused = time.Minute      // a node that did not answer is left alone
)

// told is what the loop remembers of a node it told.
type told struct {
	mark [32]byte // what was told
	at   time.Time
	next time.Time
}

// stands reports whether a node need not be told again: it knows, and it was
// there all the time. Who was away may have lost what it was told.
func (s told) stands(n *Node, p peer.ID, mark [32]byte, now time.Time) bool {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if c.Stat().Opened.After(s.at) {
			return false
		}
	}
	return now.Before(s.next) && (s.mark == mark || s.mark == [32]byte{})
}

// tendIdentity keeps the nodes of the owner's spaces told of the owner's log
// and list, and learns from them what other devices of the owner's did.
func (n *Node) tendIdentity(ctx context.Context) {
	n.countLists()
	seen := map[peer.ID]told{}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.account.wake:
			select { // what comes together is told together
			case <-ctx.Done():
				return
			case <-time.After(identitySoon):
			}
		case <-t.C:
		}
		if err := n.refreshAccount(); err != nil {
			n.log.Warn("keep the list of spaces", "err", err)
		}
		n.tellIdentity(ctx, seen)
		t.Reset(jitter(identityEvery))
	}
}

// tellIdentity tells the connected nodes that the owner shares spaces with,
// those that may admit before others.
func (n *Node) tellIdentity(ctx context.Context, seen map[peer.ID]told) {
	mark := n.account.mark(n.self.ownState().Head)
	now := time.Now()
	for _, p := range n.confidants() {
		if s, ok := seen[p]; ok && s.stands(n, p, mark, now) {
			continue
		}
		err := n.publishIdentity(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			seen[p] = told{at: now, next: now.Add(jitter(identityRefused))}
			n.log.Debug("publish the own identity", "peer", p, "err", err)
			continue
		}
		n.account.confirmed(p)
		n.caughtUp()
		seen[p] = told{mark: n.account.mark(n.self.ownState().Head), at: now, next: now.Add(jitter(identityAgain))}
	}
	for p, s := range seen {
		if now.After(s.next.Add(identityAgain)) {
			delete(seen, p)
		}
	}
}

// caughtUp ends the caution of a restored home: another node has told what it
// knows of the own log.
func (n *Node) caughtUp() {
	if n.copied.Load() == nil {
		return
	}
	if err := n.keys.Delete(copyName); err != nil {
		n.log.Warn("keep that this copy has caught up", "err", err)
		return
	}
	n.copied.Store(nil)
}

// confidants are the connected nodes that get the owner's list: of each space
// a few, keepers and the owner's other devices first.
func (n *Node) confidants() []peer.ID {
	var out []peer.ID
	most := min(identityPeers, len(n.host.Network().Peers()))
	add := func(p peer.ID) {
		if p != n.host.ID() && len(out) < most && !slices.Contains(out, p) &&
			connectedTo(n.host, p) {
			out = append(out, p)
		}
	}
	for _, p := range n.account.siblings() {
		add(p)
	}
	all := n.all()
	for _, r := range all {
		if len(out) >= most {
			return out
		}
		for _, p := range n.keepers(r.actor) {
			add(p.ID)
		}
	}
	for _, r := range all {
		for _, p := range n.book.of(r.sid) {
			add(p.ID)
		}
	}
	return out
}

// twinParts is what a device signs on an identity stream.
func twinParts(c identity.Commitment, asker, asked peer.ID) [][]byte {
	return [][]byte{c[:], {byte(len(asker))}, []byte(asker), []byte(asked)}
}

// isTwin reports whether another node runs with this device's keys: a copy of
// this home.
func (n *Node) isTwin(q identityAsk, from peer.ID) bool {
	id := n.self.device.ID()
	return identity.DeviceID(q.Device) == id && from != n.host.ID() &&
		space.Verify(id[:], space.LabelIdentityAsk, q.Proof, twinParts(n.self.c, from, n.host.ID())...)
}
