package node

import (
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// A space may be a member of a space. Who belongs to the child then has a
// place in the parent though the parent's roster does not name it: it is sent.
// Its keys are wrapped to the child's group key, its certificate comes from a
// keeper of the parent who was shown the child's word, and the voucher in its
// hellos names the child.

// sentLevel is what the child gives. mu is held, or run's goroutine asks, as in
// what follows.
func (a *actor) sentLevel(st *control.State) space.Level {
	d, ok := st.Delegation(a.sent.via)
	if !ok {
		return space.LevelNone
	}
	return control.PathLevel(d.Level, a.sent.level)
}

// standing is what this node's person may do in the space, by the roster or by
// a child space; in says whether it has any place.
func (a *actor) standing(st *control.State) (level space.Level, in bool) {
	m, _ := st.Member(a.self.c)
	level = max(m.Level, a.sentLevel(st))
	return level, level != space.LevelNone
}

// sentBy is the child space to which this person owes its standing; zero where
// the roster gives as much.
func (a *actor) sentBy(st *control.State) [32]byte {
	m, _ := st.Member(a.self.c)
	if a.sentLevel(st) > m.Level {
		return a.sent.via
	}
	return [32]byte{}
}

// reader is under whose name this person's wrap of an epoch stands.
func (a *actor) reader() identity.Commitment {
	if via := a.sentBy(a.ctl); via != ([32]byte{}) {
		return identity.Commitment(via)
	}
	return a.self.c
}

// authorOf is whose chain a hello begins, in the epoch n. known is false where
// the control log says nothing of the author yet. Of an author that a child
// sends nobody's roster knows more than its own identity log, which the hello
// therefore brings whole: where that proves no commitment and no DID, the chain
// is void for everybody.
func authorOf(st *control.State, n uint64, h seal.Hello) (m control.Member, known, void bool) {
	if h.Via == ([32]byte{}) {
		m, known = st.Author(h.C)
		return m, known, false
	}
	if !st.MayWriteVia(h.Via, n) {
		return control.Member{}, false, false
	}
	who, err := identity.Verify(h.IdentityLog)
	if err != nil || who.C != h.C || who.DID == "" {
		return control.Member{}, true, true
	}
	return control.Member{C: who.C, DID: who.DID, Level: space.LevelWrite, ILHead: who.Head}, true, false
}

// boundOf is how far a chain counts whose hello was read.
func boundOf(st *control.State, at *position, n uint64, chain envelope.ChainID) control.Bound {
	if at.via != ([32]byte{}) {
		return st.BoundVia(at.via, n, chain)
	}
	return st.Bound(at.c, n, chain)
}

// authorWrites reports whether a chain's author could write in its epoch.
func authorWrites(st *control.State, at *position, n uint64) bool {
	if at.via != ([32]byte{}) {
		return st.MayWriteVia(at.via, n)
	}
	return st.MayWrite(at.c, n)
}

// endsVia are the child spaces whose chains a rotation in body ends.
func endsVia(body any) map[[32]byte]bool {
	if d, ok := body.(control.Delegation); ok {
		return map[[32]byte]bool{d.Child: true}
	}
	return nil
}

// unwrapSent opens the keys of a new epoch with those of the child that sends
// us. Who reads only itself in the child gets them from a keeper.
func (a *actor) unwrapSent(st *control.State, rot *control.Rotation) (*epoch, error) {
	d, ok := st.Delegation(a.sent.via)
	if !ok {
		return nil, fmt.Errorf("no child sends us: %w", space.ErrNotMember)
	}
	w, err := a.wrapOf(st, rot, identity.Commitment(d.Child))
	if err != nil {
		return nil, err
	}
	child, err := a.out.childKey(d.Child, d.Descriptor.Epoch)
	if err != nil {
		return nil, err
	}
	x := seal.DelegateContext{Parent: a.sid, Epoch: rot.Epoch.N, Child: d.Child, ChildEpoch: d.Descriptor.Epoch}
	gk, err := seal.UnwrapDelegate(child, x, rot.Epoch.KID, w.Sealed)
	if err != nil {
		return nil, err
	}
	keys := seal.Full(gk)
	inner, err := openInner(a.sid, keys, rot.Epoch)
	if err != nil {
		return nil, err
	}
	return &epoch{n: rot.Epoch.N, id: envelope.TopicOf(inner.Issuer()), keys: keys}, nil
}

// family is what an actor asks about the spaces around its own.
type family interface {
	// childKey is the group key of an epoch of a space that is held here.
	childKey(child [32]byte, epoch uint64) (seal.GroupKey, error)
	// kinMoved tells that the space's log moved.
	kinMoved(space [32]byte)
}

var _ family = (*Node)(nil)

func (n *Node) childKey(child [32]byte, epoch uint64) (seal.GroupKey, error) {
	a := n.bySpace(child)
	if a == nil {
		return seal.GroupKey{}, fmt.Errorf("child space: %w", space.ErrSpaceNotFound)
	}
	e := a.numbered(epoch)
	if e == nil {
		return seal.GroupKey{}, fmt.Errorf("epoch %d of the child space: %w", epoch, space.ErrNoKey)
	}
	return e.keys.Group()
}

// resent tells an actor by which child its person is sent now.
type resent struct{ sent sending }

func (m resent) handle(a *actor) {
	_, was := a.standing(a.ctl)
	a.mu.Lock()
	a.sent = m.sent
	a.mu.Unlock()
	if _, is := a.standing(a.ctl); is && !was && a.now != nil {
		a.out.opened(a, a.now)
		a.retry()
	}
	if a.lacks() {
		a.out.need(a)
	}
}

// restand finds the child space that gives this node's person most in a space,
// and tells its actor if that changed.
func (n *Node) restand(a *actor) {
	st := a.control()
	var best sending
	top := space.LevelNone
	for d := range st.Delegations() {
		child := n.bySpace(d.Child)
		if child == nil {
			continue
		}
		level := child.ownLevel()
		if through := control.PathLevel(d.Level, level); through > top {
			best, top = sending{d.Child, level}, through
		}
	}
	a.mu.RLock()
	same := a.sent == best
	a.mu.RUnlock()
	if !same {
		a.offer(resent{best}) // a full inbox: the next round comes
	}
}

// ownLevel is what this node's person may do in the space.
func (a *actor) ownLevel() space.Level {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.ctl.Deleted {
		return space.LevelNone
	}
	level, _ := a.standing(a.ctl)
	return level
}
