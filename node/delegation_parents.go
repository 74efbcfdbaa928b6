package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/seal"
)

// tendParents looks for spaces to take part in because one of ours is a member.
func (n *Node) tendParents() {
	for n.ctx.Err() == nil {
		known, err := n.allParents()
		if err != nil {
			n.log.Warn("parent spaces", "err", err)
		}
		for _, r := range n.all() {
			n.findParents(n.ctx, r.actor, known[r.sid])
		}
		n.rest(time.Now().Add(jitter(delegateEvery)), n.kin.looks())
	}
}

// nudgeMembers tells the connected peers of a space that it has a new parent.
func (n *Node) nudgeMembers(child [32]byte) {
	n.kin.lookUp(child)
	for _, p := range n.book.of(child) {
		if connectedTo(n.host, p.ID) {
			if err := n.nudge(p.ID, child); err != nil {
				n.log.Debug("tell of a new parent space", "peer", p.ID, "err", err)
			}
		}
	}
}

func (n *Node) nudge(p peer.ID, sid [32]byte) error {
	ctx, cancel := context.WithTimeout(n.ctx, delegateDeadline)
	defer cancel()
	s, err := n.host.NewStream(overCircuit(ctx, "delegate"), p, delegateProtocol)
	if err != nil {
		return err
	}
	defer s.Close()
	return writeMsg(s, question{
		Ver: 1, Kind: nudge, Space: sid[:], C: make([]byte, 32), Log: [][]byte{}, Device: make([]byte, 32), Body: []byte{},
	})
}

// findParents asks now and then of which spaces this one is a member, beside
// those known, and takes part in those that are new. Who orders the space is
// who knows.
func (n *Node) findParents(ctx context.Context, a *actor, known []parentRecord) {
	if a.ownLevel() == space.LevelNone {
		return
	}
	if !a.sequences() && n.kin.due(a.sid) {
		err := n.learnParents(ctx, a)
		if err != nil {
			n.log.Debug("ask for parent spaces", "space", fingerprint(a.sid), "err", err)
		}
		if known, err = n.parents(a.sid); err != nil {
			n.log.Warn("parent spaces", "err", err)
		}
	}
	for _, r := range known {
		parent := [32]byte(r.Parent)
		if p := n.bySpace(parent); p != nil && p.ownLevel() != space.LevelNone {
			continue
		}
		if n.left(parent) || !n.kin.mayEnter(parent) {
			continue
		}
		if err := n.enter(ctx, a, r); err != nil {
			n.log.Info("a parent space does not let us in yet", "parent", fingerprint(parent), "err", err)
			n.kin.notLetIn(parent)
		}
	}
}

// left reports whether the owner forgot this space: being in a child of it is
// then no reason to come back.
func (n *Node) left(sid [32]byte) bool {
	n.account.mu.Lock()
	defer n.account.mu.Unlock()
	return n.account.skipped[sid]
}

// learnParents asks those whose word counts for the parents of a space.
func (n *Node) learnParents(ctx context.Context, a *actor) error {
	err := fmt.Errorf("nobody who speaks for the space is connected: %w", space.ErrUnavailable)
	for _, p := range n.near(a.sid) {
		got, askErr := n.consult(ctx, p, askParents, a.sid, []byte{})
		var list []parentRecord
		if askErr == nil && !speaksFor(a.control(), got.by) {
			askErr = fmt.Errorf("parents told by who does not speak for the space: %w", space.ErrForbidden)
		}
		if askErr == nil {
			askErr = space.Unmarshal(got.body, &list)
		}
		if askErr != nil {
			err = errors.Join(err, askErr)
			continue
		}
		return n.takeParents(a.sid, list[:min(len(list), maxParents)])
	}
	return err
}

func (n *Node) takeParents(child [32]byte, list []parentRecord) error {
	known, err := n.parents(child)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		i := slices.IndexFunc(known, func(k parentRecord) bool { return bytes.Equal(k.Parent, r.Parent) })
		if i < 0 && len(known) < maxParents || i >= 0 && !slices.Equal(known[i].Addrs, r.Addrs) {
			errs = append(errs, n.keepParent(child, r))
		}
	}
	for _, k := range known {
		if !slices.ContainsFunc(list, func(r parentRecord) bool { return bytes.Equal(k.Parent, r.Parent) }) {
			errs = append(errs, n.dropParent(child, k.Parent))
		}
	}
	return errors.Join(errs...)
}

// enter takes part in a parent of a space this node is in: for the first time,
// or again, after the child was no member for a while.
func (n *Node) enter(ctx context.Context, child *actor, r parentRecord) error {
	parent := [32]byte(r.Parent)
	held := n.bySpace(parent)
	if held != nil && held.control().Deleted {
		return space.ErrSpaceDeleted
	}
	j, w, p, err := n.askSent(ctx, child, parent, parsePeers(r.Addrs), held)
	if err != nil {
		return err
	}
	if held != nil {
		return n.takeSent(ctx, held, j, w, p)
	}
	if _, err := n.settleIn(j, w, p, ""); err != nil {
		return err
	}
	if a := n.bySpace(parent); a != nil {
		n.restand(a)
		n.kin.lookUp(parent) // it may have parents in turn
	}
	return nil
}

// supplySent gets keys and a certificate of a space that we are sent to. It
// reports false where the roster names us and the join protocol is the way.
func (n *Node) supplySent(ctx context.Context, a *actor) (bool, error) {
	a.mu.RLock()
	via := a.sentBy(a.ctl)
	a.mu.RUnlock()
	child := n.bySpace(via)
	if child == nil {
		return false, nil
	}
	// The child's own keys may have come since.
	again := &readopt{reply: make(chan error, 1)}
	if err, sendErr := ask(ctx, a, again, again.reply); err == nil && sendErr == nil && !a.lacks() {
		return true, nil
	}
	j, w, p, err := n.askSent(ctx, child, a.sid, n.near(a.sid), a)
	if err != nil {
		return true, err
	}
	return true, n.takeSent(ctx, a, j, w, p)
}

// takeSent keeps what a keeper gave for a space that is held here.
func (n *Node) takeSent(ctx context.Context, a *actor, j *joined, w seal.Welcome, p peer.AddrInfo) error {
	n.learnAll(w.IdentityLog, j.rosterHead)
	n.book.learn(a.sid, p)
	m := &newKeys{joined: j, reply: make(chan error, 1)}
	takeErr, sendErr := ask(ctx, a, m, m.reply)
	n.kin.stir(a.sid)
	return errors.Join(takeErr, sendErr)
}

// askSent shows a keeper of a parent the word of a child that we are in it.
func (n *Node) askSent(ctx context.Context, child *actor, parent [32]byte, at []peer.AddrInfo, from *actor) (*joined, seal.Welcome, peer.AddrInfo, error) {
	var none seal.Welcome
	v, level, err := n.voucher(ctx, child, parent, 0)
	if err != nil {
		return nil, none, peer.AddrInfo{}, fmt.Errorf("voucher: %w", err)
	}
	err = errNoParent
	for _, p := range at {
		j, w, askErr := n.askWelcomeSent(ctx, p, child.sid, parent, v, level, from)
		if askErr == nil {
			return j, w, p, nil
		}
		err = errors.Join(err, askErr)
	}
	return nil, none, peer.AddrInfo{}, err
}

func (n *Node) askWelcomeSent(ctx context.Context, p peer.AddrInfo, child, parent [32]byte, v []byte, level space.Level, from *actor) (*joined, seal.Welcome, error) {
	var none seal.Welcome
	b := belief{self: n.self, via: child, level: level}
	var err error
	if b.writer, err = seal.NewWriterKey(rand.Reader); err != nil {
		return nil, none, err
	}
	if from != nil {
		b.base, b.topics, b.opened = from.known()
	}
	puk := n.self.ownPUK()
	return b.gather(func() (seal.Welcome, error) {
		body := welcomeBody{Writer: b.writer.Public(), Voucher: v, Have: b.have()}
		got, err := n.consult(ctx, p, askWelcome, parent, body)
		if err != nil {
			return none, err
		}
		var ans welcomeAnswer
		if err := space.Unmarshal(got.body, &ans); err != nil {
			return none, err
		}
		b.x = seal.WelcomeContext{
			SpaceID: parent, Epoch: ans.Epoch, Keeper: got.by, C: n.self.c, Nonce: got.nonce, PUKGen: puk.Gen(),
		}
		return seal.OpenWelcome(puk, b.x, ans.Welcome)
	})
}

// member reports whether the log that a welcome brought has a place for us:
// in its roster, or by the child that sends us. writes says whether the
// welcome must bring a certificate.
func (b *belief) member(st *control.State) (in, writes bool) {
	if b.via == ([32]byte{}) {
		_, in = st.Member(b.self.c)
		return in, st.MayWrite(b.self.c, st.Epoch)
	}
	d, in := st.Delegation(b.via)
	return in, in && control.PathLevel(d.Level, b.level) == space.LevelWrite && st.MayWriteVia(b.via, st.Epoch)
}

// voucher gets the word of a space that we are in it: our own, if this node
// speaks for it, else that of a node that does. Who is sent to the space itself
// brings the word of the child that sends.
func (n *Node) voucher(ctx context.Context, a *actor, parent [32]byte, depth int) ([]byte, space.Level, error) {
	if depth > control.MaxDelegationDepth {
		return nil, space.LevelNone, control.ErrDepth
	}
	st, now := a.control(), time.Now().UnixMilli()
	a.mu.RLock()
	via := a.sentBy(st)
	level, _ := a.standing(st)
	a.mu.RUnlock()
	by := []byte{}
	if below := n.bySpace(via); below != nil {
		var err error
		if by, _, err = n.voucher(ctx, below, a.sid, depth+1); err != nil {
			return nil, level, err
		}
	}
	if a.speaksFor() == nil {
		v, err := seal.SignDelegateVoucher(seal.DelegateVoucher{
			Child: a.sid, Parent: parent, C: n.self.c, Level: level, Epoch: st.Epoch,
		}, now, n.self.device.Sig())
		if err != nil {
			return nil, level, err
		}
		b, err := v.Encode()
		return b, level, err
	}
	err := fmt.Errorf("nobody who speaks for the space is connected: %w", space.ErrUnavailable)
	for _, p := range n.near(a.sid) {
		got, askErr := n.consult(ctx, p, askVoucher, a.sid, voucherBody{Parent: parent[:], By: by})
		if askErr != nil {
			err = errors.Join(err, askErr)
			continue
		}
		var raw []byte
		if askErr = space.Unmarshal(got.body, &raw); askErr == nil {
			var v seal.DelegateVoucher
			if v, askErr = seal.DecodeDelegateVoucher(raw); askErr == nil {
				return raw, v.Level, nil
			}
		}
		err = errors.Join(err, askErr)
	}
	return nil, level, err
}
