package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

const (
	// delegateEvery is how often a keeper asks the children of its spaces
	// whether they moved.
	delegateEvery = 20 * time.Second
	// delegateStale is how long a child may be silent before status says so.
	delegateStale = time.Hour
	// delegateAsked is how many connected peers are asked in one round, and
	// delegateDialled how many others.
	delegateAsked   = 8
	delegateDialled = 2
	refreshesAtOnce = 8
)

func (n *Node) kinMoved(sid [32]byte) { n.kin.stir(sid) }

// tendChildren keeps spaces up to date about their children: by which of them
// this person is sent, and what their descriptors say. It looks at all of them
// now and then, and at the parents of a space whose log moved at once.
func (n *Node) tendChildren() {
	next := time.Now()
	for n.ctx.Err() == nil {
		moved := n.kin.stirred()
		all := !time.Now().Before(next)
		if all {
			next = time.Now().Add(jitter(delegateEvery))
		}
		// One space after the other in each goroutine: nodes that do not answer
		// hold up one of them.
		queue := make(chan *actor)
		var wg sync.WaitGroup
		for range refreshesAtOnce {
			wg.Go(func() {
				for a := range queue {
					n.refreshChildren(n.ctx, a, all)
				}
			})
		}
		for _, r := range n.all() {
			if all || moved[r.sid] || hasChildIn(r.control(), moved) {
				n.restand(r.actor)
				if r.hasChildren() {
					queue <- r.actor
				}
			}
		}
		close(queue)
		wg.Wait()
		n.rest(next, n.kin.stirs())
	}
}

// rest waits until a time, or until there is something to do.
func (n *Node) rest(until time.Time, woken <-chan struct{}) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-n.ctx.Done():
	case <-t.C:
	case <-woken:
	}
}

func (a *actor) hasChildren() bool {
	for range a.control().Delegations() {
		return true
	}
	return false
}

func hasChildIn(st *control.State, set map[[32]byte]bool) bool {
	for d := range st.Delegations() {
		if set[d.Child] {
			return true
		}
	}
	return false
}

// refreshChildren fetches the descriptors of a space's children, where this
// node may bring them into the log, and opens a new epoch for each that moved:
// who left the child must not read on. Between rounds only the sequencer does:
// keepers that all begin at once would all but one draw an epoch for nothing.
func (n *Node) refreshChildren(ctx context.Context, a *actor, all bool) {
	if !a.admits() || !all && !a.sequences() {
		return
	}
	for d := range a.control().Delegations() {
		n.kin.silent(a.sid, d.Child)
		fresh, err := n.fetchDescriptor(ctx, a, d.Child, d.Descriptor.Sequencer)
		if err != nil {
			n.log.Debug("descriptor of a child space", "space", fingerprint(a.sid), "child", fingerprint(d.Child), "err", err)
			continue
		}
		n.kin.hear(a.sid, d.Child)
		if !moved(d.Descriptor, fresh) {
			continue
		}
		_, err = n.amend(ctx, a, a.delegate(fresh, func(st *control.State) space.Level {
			now, ok := st.Delegation(fresh.Space)
			if !ok || !moved(now.Descriptor, fresh) {
				return space.LevelNone // somebody else was faster
			}
			return now.Level
		}))
		if err != nil {
			n.log.Warn("refresh a child space", "space", fingerprint(a.sid), "child", fingerprint(d.Child), "err", err)
		}
	}
}

// moved reports whether a descriptor says something new that a parent acts on.
// Who was added to the child since is the child's own affair.
func moved(old, fresh control.Descriptor) bool {
	return fresh.Epoch != old.Epoch || fresh.Sequencer != old.Sequencer || fresh.Depth != old.Depth ||
		!slices.Equal(fresh.Keepers, old.Keepers) || !slices.Equal(fresh.Descendants, old.Descendants)
}

// delegate is the amendment that makes a space a member by its descriptor, or
// brings a newer one. level says at which; space.LevelNone: nothing to do.
func (a *actor) delegate(d control.Descriptor, level func(*control.State) space.Level) amendment {
	return func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		raw, err := d.Encode()
		if err != nil {
			return 0, nil, nil, err
		}
		body := control.Delegation{Slot: st.NextSlot(), Child: d.Space, Level: level(st), Descriptor: raw}
		if body.Level == space.LevelNone {
			return 0, nil, nil, nil
		}
		if known, ok := st.Delegation(d.Space); ok {
			body.Slot = known.Slot
		}
		return a.rotated(st, control.KindDelegationSet, body)
	}
}

// undelegate is the amendment that takes a child out.
func (a *actor) undelegate(child [32]byte) amendment {
	return func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		d, ok := st.Delegation(child)
		if !ok {
			return 0, nil, nil, fmt.Errorf("space %s: %w", fingerprint(child), space.ErrMemberNotFound)
		}
		return a.rotated(st, control.KindDelegationSet, control.Delegation{Slot: d.Slot, Child: child})
	}
}

// rotated gives a body the rotation it needs, if it needs one.
func (a *actor) rotated(st *control.State, kind control.Kind, body any) (control.Kind, any, []store.ObjectRow, error) {
	needed, err := control.MustRotate(st, kind, body)
	if err != nil || !needed {
		return kind, body, nil, err
	}
	rot, err := a.rotate(st, kind, body, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	return kind, control.WithRotation(body, *rot.body), rot.pages, nil
}

// fetchDescriptor gets a fresh descriptor of a child: our own word, if this
// node orders it, else that of the node that does. sequencer is the one known
// so far; a replica of the child here knows better.
func (n *Node) fetchDescriptor(ctx context.Context, a *actor, child, sequencer [32]byte) (control.Descriptor, error) {
	var head space.Head
	if c := n.bySpace(child); c != nil {
		st := c.control()
		sequencer, head = [32]byte(st.SequencerPub), st.Head
		if identity.DeviceID(sequencer) == n.self.device.ID() {
			return n.ownDescriptor(a, c)
		}
	}
	err := fmt.Errorf("the sequencer of space %s is not connected: %w", fingerprint(child), space.ErrUnavailable)
	for _, p := range n.near(child, a.sid) {
		got, askErr := n.consult(ctx, p, askDescribe, child, n.asParent(a))
		var d control.Descriptor
		if askErr == nil {
			d, askErr = n.believeDescriptor(got, child, sequencer, head)
		}
		if askErr == nil {
			return d, nil
		}
		err = errors.Join(err, askErr)
	}
	return control.Descriptor{}, err
}

// ownDescriptor describes a child that this node orders.
func (n *Node) ownDescriptor(a, child *actor) (control.Descriptor, error) {
	if err := n.adoptParent(child.sid, n.asParent(a)); err != nil {
		return control.Descriptor{}, err
	}
	return child.descriptor()
}

// asParent is what a child is told of its parent.
func (n *Node) asParent(a *actor) parentRecord {
	st := a.control()
	own, _ := a.out.addrs(a.sid)
	return parentRecord{
		Parent: a.sid[:], URI: st.ID.AT(), Devices: admitters(st), Addrs: own[:min(len(own), seal.MaxAddrs)],
	}
}

// admitters are the devices that may ask for a child's descriptor.
func admitters(st *control.State) [][32]byte {
	out := [][32]byte{}
	for k := range st.Keepers() {
		if k.Caps&control.CapAdmit != 0 {
			out = append(out, k.Devices...)
		}
	}
	return out
}

// believeDescriptor holds an answer against what is known: who orders the
// child, and how far its log had come.
func (n *Node) believeDescriptor(got answered, child, sequencer [32]byte, head space.Head) (control.Descriptor, error) {
	var ans descriptorAnswer
	if err := space.Unmarshal(got.body, &ans); err != nil {
		return control.Descriptor{}, err
	}
	d, err := control.ParseDescriptor(ans.Descriptor)
	if err == nil {
		err = d.Verify(time.Now().UnixMilli())
	}
	if err == nil { // else every later rotation would fail
		_, err = identity.PUKPublic{KEM: d.Delegate}.KEMKey()
	}
	switch {
	case err != nil:
		return d, err
	case d.Space != child || d.Sequencer != sequencer:
		return d, fmt.Errorf("descriptor: of another space or by another sequencer: %w", space.ErrForged)
	case d.Head.Term < head.Term || d.Head.Term == head.Term && d.Head.Seq < head.Seq:
		return d, fmt.Errorf("descriptor: of entry %d, the log is at %d: %w", d.Head.Seq, head.Seq, space.ErrStaleDescriptor)
	}
	for _, p := range parsePeers(ans.Addrs[:min(len(ans.Addrs), seal.MaxAddrs)]) {
		n.book.learn(child, p)
	}
	return d, nil
}

// near are peers of the spaces named: those known to keep them, then others
// that are connected, then a few that would have to be dialled.
func (n *Node) near(spaces ...[32]byte) []peer.AddrInfo {
	var known, linked, rest []peer.AddrInfo
	seen := map[peer.ID]bool{n.host.ID(): true}
	for _, sid := range spaces {
		if a := n.bySpace(sid); a != nil {
			for _, p := range n.keepers(a) {
				if !seen[p.ID] {
					known = append(known, p)
				}
				seen[p.ID] = true
			}
		}
		for _, p := range n.book.of(sid) {
			switch {
			case seen[p.ID]:
			case connectedTo(n.host, p.ID):
				linked = append(linked, p)
			default:
				rest = append(rest, p)
			}
			seen[p.ID] = true
		}
	}
	linked = linked[:min(len(linked), delegateAsked)]
	return slices.Concat(known, linked, rest[:min(len(rest), delegateDialled)])
}
