package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// pendingJoin is a join under way. It goes on when the caller stops waiting.
type pendingJoin struct {
	done   chan struct{} // closed when joined or refused
	joined xrpc.Joined
	err    error
}

// Join redeems an invite link: it asks the nodes the link names until one
// admits us, and returns when the keys are here and kept. When ctx ends first,
// the node goes on asking for as long as it runs.
func (n *Node) Join(ctx context.Context, text string) (xrpc.Joined, error) {
	link, err := control.ParseLink(text)
	if err != nil {
		return xrpc.Joined{}, fmt.Errorf("join: %w", err)
	}
	if a := n.bySpace(link.SpaceID); a != nil && a.place() != gone {
		info := a.info()
		return xrpc.Joined{ID: info.ID, Level: info.Level, Epoch: info.Epoch, Name: info.Name}, nil
	}
	if len(parsePeers(link.Addrs)) == 0 {
		return xrpc.Joined{}, fmt.Errorf("join: the link names no address that this node can dial: %w", space.ErrMalformed)
	}
	n.mu.Lock()
	p := n.joins[link.SpaceID]
	if p == nil {
		p = &pendingJoin{done: make(chan struct{})}
		n.joins[link.SpaceID] = p
		n.spawn(func() { n.keepJoining(link, p) })
	}
	n.mu.Unlock()
	select {
	case <-p.done:
		return p.joined, p.err
	case <-ctx.Done():
		return xrpc.Joined{}, fmt.Errorf("join: asked %d addresses of the link: %w", len(link.Addrs), xrpc.ErrStillWaiting)
	}
}

// keepJoining tries until somebody admits or refuses us.
func (n *Node) keepJoining(link control.Link, p *pendingJoin) {
	defer func() {
		n.mu.Lock()
		delete(n.joins, link.SpaceID)
		n.mu.Unlock()
		close(p.done)
	}()
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		if p.joined, p.err = n.joinAtAny(n.ctx, link); p.err == nil || final(p.err) {
			return
		}
		if errors.Is(p.err, errWaiting) {
			wait = min(wait, approvalEvery)
		}
		select {
		case <-n.ctx.Done():
			p.err = space.ErrUnavailable
			return
		case <-time.After(jitter(wait)):
		}
	}
}

// approvalEvery is how often who waits for an approval asks again.
const approvalEvery = 4 * time.Second

// joinAtAny asks the nodes that a link names until one admits us. Its error is
// the first that more asking would not change, if there is one.
func (n *Node) joinAtAny(ctx context.Context, link control.Link) (xrpc.Joined, error) {
	q := asking{space: link.SpaceID, invite: []byte{}, head: &link.Head, from: n.bySpace(link.SpaceID)}
	if link.Secret != ([32]byte{}) {
		lid := link.InviteID()
		q.invite, q.link = lid[:], &link
	}
	var mu sync.Mutex // held while a welcome is settled: the first one counts
	var joined xrpc.Joined
	var done bool
	var last error
	err := n.race(ctx, parsePeers(link.Addrs), func(ctx context.Context, keeper peer.AddrInfo) error {
		j, w, err := n.askWelcome(ctx, keeper, q)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case done:
			return nil
		case err == nil && q.from != nil:
			joined, err = n.comeBack(ctx, q.from, j, keeper)
		case err == nil:
			joined, err = n.settleIn(j, w, keeper, "")
		}
		if err != nil {
			n.log.Info("join: not admitted yet", "keeper", keeper.ID, "err", err)
			if last == nil && final(err) {
				last = err
			}
		}
		done = err == nil
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	if err != nil && last != nil {
		err = last
	}
	return joined, err
}

// comeBack takes up again a space that this member was out of.
func (n *Node) comeBack(ctx context.Context, a *actor, j *joined, keeper peer.AddrInfo) (xrpc.Joined, error) {
	m := &newKeys{joined: j, reply: make(chan error, 1)}
	if err, sendErr := ask(ctx, a, m, m.reply); err != nil || sendErr != nil {
		return xrpc.Joined{}, errors.Join(err, sendErr)
	}
	stay := &leaveMsg{reply: make(chan error, 1)} // no word of leaving stands any more
	if err, sendErr := ask(ctx, a, stay, stay.reply); err != nil || sendErr != nil {
		return xrpc.Joined{}, errors.Join(err, sendErr)
	}
	n.reconcile(a.sid, keeper.ID)
	return n.joinedAs(a, j, keeper), nil
}

// joinedAs is what is said of a join.
func (n *Node) joinedAs(a *actor, j *joined, keeper peer.AddrInfo) xrpc.Joined {
	info := a.info()
	out := xrpc.Joined{
		ID: info.ID, Level: info.Level, Epoch: info.Epoch, Asked: keeper.ID.String(), By: string(info.Authority), Name: info.Name,
	}
	if slot, _, ok := j.state.DeviceCaps(j.keeper); ok || slot != 0 {
		if m, ok := j.state.AtSlot(slot); ok {
			out.By = string(m.DID)
		}
	}
	return out
}

// final reports whether asking again would not help: we were refused, or it is
// not the keeper but this node that could not go on.
func final(err error) bool {
	for _, e := range []error{errRefused, space.ErrForged, space.ErrSpaceExists, space.ErrNoSpaceLeft, store.ErrIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// settleIn keeps a space that a welcome brought and starts it.
func (n *Node) settleIn(j *joined, w seal.Welcome, keeper peer.AddrInfo, name string) (xrpc.Joined, error) {
	release, err := n.claimName(j.state.ID, name)
	if err != nil {
		return xrpc.Joined{}, err
	}
	defer release()
	n.learnAll(w.IdentityLog, j.rosterHead)
	n.book.learn(j.state.SpaceID, keeper)
	n.book.saw(keeper.ID, time.Now())
	n.meet(j.state.SpaceID, w.Addrs)
	rec := j.record()
	rec.Name = name
	a, err := n.keep(rec, j.entries, j.unverified(keeper.ID))
	if err != nil {
		return xrpc.Joined{}, err
	}
	n.reconcile(a.sid, keeper.ID)
	return n.joinedAs(a, j, keeper), nil
}

// asking is what is asked of a keeper.
type asking struct {
	space  [32]byte
	invite []byte        // empty: as a member
	link   *control.Link // what the invite is proven with
	head   *[32]byte     // an entry that the log must contain
	from   *actor        // who holds part of the space already; nil: nobody
}

// joinSilence is how long a keeper may take to say its first word. It has
// nothing to look up for it: who is silent crashed, and the connection is
// closed, so that the next attempt finds where the keeper is now.
const joinSilence = 5 * time.Second

// heard calls got when the other side has said something.
type heard struct {
	io.ReadWriter
	got func()
}

func (r heard) Read(b []byte) (int, error) {
	n, err := r.ReadWriter.Read(b)
	if n > 0 {
		r.got()
	}
	return n, err
}

// askWelcome runs the join protocol with a keeper, again while its log is
// longer than a welcome, and checks its answers.
func (n *Node) askWelcome(ctx context.Context, keeper peer.AddrInfo, q asking) (*joined, seal.Welcome, error) {
	var none seal.Welcome
	dialCtx, cancel := context.WithTimeout(ctx, joinDeadline)
	defer cancel()
	if err := n.redial.try(dialCtx, keeper); err != nil {
		return nil, none, err
	}
	b := belief{self: n.self, head: q.head}
	var err error
	if b.writer, err = seal.NewWriterKey(rand.Reader); err != nil {
		return nil, none, err
	}
	if q.from != nil {
		b.base, b.topics, b.opened = q.from.known()
		if q.head != nil {
			if b.seen, err = q.from.logged(*q.head); err != nil {
				return nil, none, err
			}
		}
	}
	dev := n.self.device.ID()
	c := claim{
		Ver: claimVersion, Space: q.space[:], Invite: q.invite, C: n.self.c[:], Log: n.self.ownLog(), Device: dev[:],
		Writer: b.writer.Public(),
	}
	j, w, err := b.gather(func() (seal.Welcome, error) {
		c.Have = b.have()
		if len(b.entries) > 0 { // it let us in already
			c.Invite, q.link = []byte{}, nil
			return n.askOn(ctx, keeper, c, &b.x)
		}
		var w seal.Welcome
		w, b.x, err = n.askOnce(ctx, keeper.ID, c, q.link)
		return w, err
	})
	if err == nil {
		n.keepDoor(door{q.space, j.keeper, keeper.ID})
	}
	return j, w, err
}

// circuitTries is how often what follows in a log is asked for over circuits
// that break, about a second apart, before all begins anew. While libp2p still
// tries other addresses of the peer, addrTimeout each, a dial answers with the
// connection that was closed.
const circuitTries = 10

// askOn asks for what follows of a log. Where there is no connection but through
// a relay it takes another one each time, for a welcome uses one up.
func (n *Node) askOn(ctx context.Context, keeper peer.AddrInfo, c claim, x *seal.WelcomeContext) (w seal.Welcome, err error) {
	for try := range circuitTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return w, ctx.Err()
			case <-time.After(jitter(needBase)):
			}
		}
		if err = n.renewCircuit(ctx, keeper); err == nil {
			w, *x, err = n.askOnce(ctx, keeper.ID, c, nil)
		}
		if err == nil || errors.Is(err, space.ErrInvite) || errors.Is(err, space.ErrUnavailable) || errors.Is(err, space.ErrForged) {
			break
		}
	}
	return w, err
}

// renewCircuit takes another connection to a peer to which there are none but
// limited ones.
func (n *Node) renewCircuit(ctx context.Context, to peer.AddrInfo) error {
	conns := n.host.Network().ConnsToPeer(to.ID)
	if slices.ContainsFunc(conns, func(c network.Conn) bool { return !c.Stat().Limited }) {
		return nil
	}
	for _, c := range conns {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, joinDeadline)
	defer cancel()
	return n.redial.try(ctx, to)
}

// askOnce runs the join protocol once.
func (n *Node) askOnce(ctx context.Context, keeper peer.ID, c claim, link *control.Link) (w seal.Welcome, x seal.WelcomeContext, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinDeadline)
	defer cancel()
	s, err := n.host.NewStream(overCircuit(ctx, "join"), keeper, joinProtocol)
	if err != nil {
		return w, x, fmt.Errorf("join: %w", err)
	}
	defer s.Close()
	silent := time.AfterFunc(joinSilence, func() { s.Conn().Close() })
	w, x, err = askKeeper(heard{unhurried{s, time.Now().Add(joinMost)}, func() { silent.Stop() }}, n.self, c, link)
	silent.Stop()
	if err != nil {
		s.Reset()
	}
	return w, x, err
}

// known is what is held of a space's log, the topics of its epochs, and the
// body that opens an epoch whose keys are not here, if the log has come that far.
func (a *actor) known() (*control.State, map[uint64]envelope.TopicID, *control.Epoch) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	topics := map[uint64]envelope.TopicID{}
	for _, e := range a.epochs {
		topics[e.n] = e.id
	}
	if rot, ok := a.opening(); ok {
		return a.ctl, topics, &rot.Epoch
	}
	return a.ctl, topics, nil
}

// logged reports whether an entry of a hash is in the log that is held.
func (a *actor) logged(hash [32]byte) (bool, error) {
	for row, err := range a.store.Control() {
		if err != nil {
			return false, err
		}
		if sha256.Sum256(row.Raw) == hash {
			return true, nil
		}
	}
	return false, nil
}
