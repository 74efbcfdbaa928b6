package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

// extension makes entries that go behind the own log: the state before them
// and the newest per-user key in, the entries and what they lead to out. No
// entries: nothing to say.
type extension func(st identity.State, puk identity.PUK) (entries [][]byte, next identity.PUK, after identity.State, err error)

// extendOwn says something in the own identity log. It is durable before
// anybody hears of it.
func (n *Node) extendOwn(make extension) (identity.State, error) {
	n.owning.Lock()
	defer n.owning.Unlock()
	st, puk, log := n.self.ownState(), n.self.ownPUK(), n.self.ownLog()
	if st.Revoked(n.self.device.ID()) {
		return st, fmt.Errorf("this device was revoked by another one of yours: %w", space.ErrForbidden)
	}
	entries, next, after, err := make(st, puk)
	if err != nil || len(entries) == 0 {
		return st, err
	}
	log = append(log[:len(log):len(log)], entries...)
	return after, n.setOwn(st, log, after, next)
}

// learnOwn takes what other nodes hold of the own log: what another device of
// ours said, or a branch that wins over ours. What this device had said on the
// branch that lost is said again.
func (n *Node) learnOwn(entries [][]byte) {
	n.owning.Lock()
	defer n.owning.Unlock()
	known := n.self.ownLog()
	log, st, changed := follow(n.self.c, known, [32]byte{}, entries)
	if !changed {
		return
	}
	if err := n.adopt(known, log, st); err != nil {
		n.log.Error("take over the own identity log from another device", "err", err)
	}
}

func (n *Node) adopt(known, log [][]byte, st identity.State) error {
	before, puk := n.self.ownState(), n.self.ownPUK()
	if st.Revoked(n.self.device.ID()) {
		n.log.Error("this device was revoked: it takes part in nothing any more", "device", fingerprint(n.self.device.ID()))
		return n.setOwn(before, log, st, puk)
	}
	if !puk.Public().Equal(st.PUK) {
		next, err := identity.UnwrapPUK(n.self.device, st)
		if err != nil && !errors.Is(err, space.ErrNoKey) {
			return err
		}
		if err == nil {
			puk = next
		}
	}
	lost := known[common(known, log):]
	n.people.mu.Lock()
	n.people.lose(n.self.c, lost)
	n.people.mu.Unlock()
	if err := n.keepLost(n.self.c, store.Own); err != nil {
		return diskError(err)
	}
	if len(lost) > 0 && puk.Public().Equal(st.PUK) && st.Can(n.self.device.ID(), identity.CapEnroll) {
		again, next, after, err := st.Reissue(rand.Reader, n.self.device, lost, puk, time.Now().UnixMilli())
		if err != nil {
			n.log.Error("say again what a branch of the own identity log said", "err", err)
		} else {
			log, st, puk = append(log[:len(log):len(log)], again...), after, next
		}
	}
	return n.setOwn(before, log, st, puk)
}

// setOwn makes the own log durable and then known. owning is held.
func (n *Node) setOwn(before identity.State, log [][]byte, st identity.State, puk identity.PUK) error {
	if err := n.saveSelf(log, puk); err != nil {
		return diskError(err)
	}
	n.self.mu.Lock()
	n.self.log, n.self.state, n.self.puk = log, st, puk
	n.self.mu.Unlock()
	n.people.mu.Lock()
	n.people.logs[n.self.c], n.people.states[n.self.c] = log, st
	n.people.mu.Unlock()
	if _, err := describe(n.cfg.Home, st, n.self.peer); err != nil {
		n.log.Warn("write "+identityFile, "err", err)
	}
	n.moved(n.self.c, before, st)
	n.account.renew()
	return nil
}

// saveSelf keeps the log and the per-user key, in one write.
func (n *Node) saveSelf(log [][]byte, puk identity.PUK) error {
	b, err := n.keys.Read(selfName)
	if err != nil {
		return fmt.Errorf("keep the identity: %w", err)
	}
	var rec selfRecord
	if err := space.Unmarshal(b, &rec); err != nil {
		return fmt.Errorf("keep the identity: %w", err)
	}
	rec.Log, rec.PUK = log, puk.Marshal()
	if b, err = space.Marshal(rec); err != nil {
		return fmt.Errorf("keep the identity: %w", err)
	}
	if err := n.keys.Put(selfName, b); err != nil {
		return fmt.Errorf("keep the identity: %w", err)
	}
	return nil
}

// revokeDevice ends a device of the owner's and brings the next per-user key.
func (n *Node) revokeDevice(id identity.DeviceID) (identity.State, error) {
	return n.extendOwn(func(st identity.State, puk identity.PUK) ([][]byte, identity.PUK, identity.State, error) {
		switch {
		case st.Revoked(id):
			return nil, puk, st, nil // it is done
		case !st.Can(id, 0):
			return nil, puk, st, xrpc.ErrDeviceNotFound
		case id == n.self.device.ID():
			return nil, puk, st, fmt.Errorf("this device cannot revoke itself, another one can: %w", xrpc.ErrLastDevice)
		}
		raw, next, after, err := st.RevokeDevice(rand.Reader, n.self.device, id, puk, time.Now().UnixMilli())
		return [][]byte{raw}, next, after, err
	})
}
