package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

var _ xrpc.Exits = (*Node)(nil)

// leavingMeta holds the statement of a member that leaves until the log says
// that it is out.
const leavingMeta = "leaving"

// Leave says to the space that this member goes, now or when somebody who may
// hear it is there, and takes part no more.
func (n *Node) Leave(ctx context.Context, id space.ID) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	st := a.control()
	m, ok := st.Member(n.self.c)
	switch {
	case !ok:
		return fmt.Errorf("leave %s: %w", id, space.ErrSpaceNotFound)
	case m.C == st.Authority.C:
		return fmt.Errorf("leave %s: %w", id, space.ErrLastAuthority)
	}
	word, err := control.SignLeave(a.sid, m, n.self.ownLog(), n.self.device.Sig()).Encode()
	if err != nil {
		return fmt.Errorf("leave %s: %w", id, err)
	}
	msg := &leaveMsg{word: word, reply: make(chan error, 1)}
	if err, sendErr := ask(ctx, a, msg, msg.reply); err != nil || sendErr != nil {
		return fmt.Errorf("leave %s: %w", id, errors.Join(err, sendErr))
	}
	if err := n.sayLeave(ctx, a); err != nil {
		n.log.Info("leaving: nobody could be told yet", "space", fingerprint(a.sid), "err", err)
		n.need(a)
	}
	return nil
}

// leaveMsg makes the wish to leave durable, or with no word its end.
type leaveMsg struct {
	word  []byte
	reply chan error // buffered
}

func (m *leaveMsg) handle(a *actor) {
	if m.word == nil && a.leaving == nil {
		m.reply <- nil
		return
	}
	err := a.store.Commit(store.Own, &store.Batch{Meta: map[string][]byte{leavingMeta: m.word}})
	if err == nil {
		a.mu.Lock()
		a.leaving = m.word
		a.mu.Unlock()
	}
	m.reply <- diskError(err)
}

// farewell is the statement that is still to be delivered.
func (a *actor) farewell() []byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, in := a.ctl.Member(a.self.c); !in {
		return nil
	}
	return a.leaving
}

// sayLeave hands the statement to somebody who may put it into the log.
func (n *Node) sayLeave(ctx context.Context, a *actor) error {
	word := a.farewell()
	if word == nil {
		return nil
	}
	e := a.current()
	req := proposeRequest{Have: a.control().Head.Seq, Leave: word}.filled()
	var errs []error
	for _, p := range n.proposees(a, true) {
		v, err := n.askSequencer(ctx, p, e, req)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(v.Log) > 0 {
			errs = append(errs, a.deliverControl(ctx, v.Log))
		}
		if a.farewell() == nil {
			return nil
		}
	}
	return errors.Join(append(errs, space.ErrUnavailable)...)
}

// putOut takes a member out on its own word.
func (n *Node) putOut(ctx context.Context, a *actor, raw []byte) error {
	word, err := control.DecodeLeave(raw)
	if err != nil {
		return err
	}
	if !a.admits() {
		return space.ErrForbidden
	}
	_, err = n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		m, in := st.Member(identity.Commitment(word.C))
		if !in || m.Slot != word.Slot {
			return 0, nil, nil, nil
		}
		return a.removal(st, m, raw)
	})
	return err
}

// Forget destroys the keys of a space, and with them all that this node holds
// of it; then the rows that nobody can read any more.
func (n *Node) Forget(_ context.Context, id space.ID) error {
	a := n.anyByID(id)
	if a == nil {
		return fmt.Errorf("forget %s: %w", id, space.ErrSpaceNotFound)
	}
	_, in := a.control().Member(n.self.c)
	if err := n.skipSpace(a.sid, !in); err != nil {
		return fmt.Errorf("forget %s: %w", id, err)
	}
	n.naming.Lock()
	defer n.naming.Unlock()
	n.mu.Lock()
	r := n.spaces[a.sid]
	delete(n.spaces, a.sid)
	n.sorted = nil
	n.relays.set(a.sid, nil)
	n.relayed.forget(a.sid)
	n.mu.Unlock()
	if r == nil {
		return fmt.Errorf("forget %s: %w", id, space.ErrSpaceNotFound)
	}
	r.stop()
	n.mu.Lock() // now that no epoch can open its topic any more
	for topic, other := range n.topics {
		if other == a {
			delete(n.topics, topic)
		}
	}
	n.mu.Unlock()
	n.deafen(r)
	if err := n.keys.Delete(spaceKeyName(n.storeKey, a.sid)); err != nil {
		return fmt.Errorf("forget %s: %w", id, diskError(err))
	}
	n.book.forget(a.sid, func(p peer.ID) { n.dropPeer(a.sid, p) })
	if err := n.store.Delete(doorTable, a.sid[:], store.Remote); err != nil {
		n.log.Debug("forget where a keeper is", "err", err)
	}
	if err := a.store.Drop(); err != nil {
		// Nobody can read the rows any more; they only take room.
		n.log.Warn("rows of a forgotten space are still on the disk", "err", err)
	}
	return nil
}
