package node

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// parentTable holds what a child's nodes know of the spaces it is a member of:
// child ‖ parent -> parentRecord.
const parentTable = "parent-space"

// maxParents bounds the parents of one space: its members take part in all of
// them without being asked.
const maxParents = 16

// maxParentDevices bounds the devices that may ask for a child's descriptor.
const maxParentDevices = control.MaxKeepers * control.MaxKeeperDevices

// parentRecord is a space that another one is a member of.
type parentRecord struct {
	_       struct{} `cbor:",toarray"`
	Parent  []byte
	URI     string
	Devices [][32]byte // may ask for the child's descriptor; empty where only the sequencer is asked
	Addrs   []string
}

func (r parentRecord) check() error {
	id, err := space.ParseID(r.URI)
	switch {
	case err != nil:
		return err
	case id.AT() != r.URI || len(r.Parent) != 32:
		return fmt.Errorf("parent space: %w", space.ErrMalformed)
	case len(r.Devices) > maxParentDevices || len(r.Addrs) > seal.MaxAddrs:
		return fmt.Errorf("parent space: %w", space.ErrTooLarge)
	}
	return nil
}

// parents are the known parents of a space.
func (n *Node) parents(child [32]byte) ([]parentRecord, error) {
	all, err := n.allParents()
	return all[child], err
}

// allParents are the parents of all spaces that have some.
func (n *Node) allParents() (map[[32]byte][]parentRecord, error) {
	out := map[[32]byte][]parentRecord{}
	for kv, err := range n.store.List(parentTable) {
		if err != nil {
			return nil, fmt.Errorf("read parent spaces: %w", err)
		}
		if len(kv.Key) != 64 {
			continue
		}
		var r parentRecord
		if err := space.Unmarshal(kv.Value, &r); err != nil || r.check() != nil {
			return nil, fmt.Errorf("read parent spaces: %w", space.ErrMalformed)
		}
		child := [32]byte(kv.Key)
		out[child] = append(out[child], r)
	}
	return out, nil
}

func (n *Node) keepParent(child [32]byte, r parentRecord) error {
	if err := r.check(); err != nil {
		return err
	}
	b, err := space.Marshal(r)
	if err != nil {
		return err
	}
	return n.store.Put(parentTable, slices.Concat(child[:], r.Parent), b, store.Remote)
}

func (n *Node) dropParent(child [32]byte, parent []byte) error {
	return n.store.Delete(parentTable, slices.Concat(child[:], parent), store.Remote)
}

// adoptParent remembers a parent of a space that this node orders, or what has
// changed of it, and tells the members of a new one.
func (n *Node) adoptParent(child [32]byte, r parentRecord) error {
	if err := r.check(); err != nil {
		return err
	}
	known, err := n.parents(child)
	if err != nil {
		return err
	}
	old, ok := knownParent(known, r.Parent)
	switch {
	case [32]byte(r.Parent) == child:
		return space.ErrDelegationCycle
	case !ok && len(known) >= maxParents:
		return fmt.Errorf("a member of %d spaces already: %w", len(known), space.ErrTooLarge)
	}
	for _, a := range old.Addrs { // of other keepers of the parent
		if len(r.Addrs) < seal.MaxAddrs && !slices.Contains(r.Addrs, a) {
			r.Addrs = append(r.Addrs, a)
		}
	}
	slices.Sort(r.Addrs)
	if ok && r.URI == old.URI && slices.Equal(r.Devices, old.Devices) && slices.Equal(r.Addrs, old.Addrs) {
		return nil
	}
	if err := n.keepParent(child, r); err != nil {
		return err
	}
	if !ok {
		n.spawn(func() { n.nudgeMembers(child) })
	}
	return nil
}

func knownParent(known []parentRecord, parent []byte) (parentRecord, bool) {
	for _, k := range known {
		if string(k.Parent) == string(parent) {
			return k, true
		}
	}
	return parentRecord{}, false
}

// describe gives a parent the descriptor of a space that this node orders, and
// remembers the parent. A member that writes may make another space a parent;
// from then on that one's keepers may ask too.
func (n *Node) describe(a *actor, q question, who identity.State) (descriptorAnswer, error) {
	var r parentRecord
	if err := space.Unmarshal(q.Body, &r); err != nil {
		return descriptorAnswer{}, err
	}
	known, err := n.parents(a.sid)
	if err != nil {
		return descriptorAnswer{}, err
	}
	m, _ := a.control().Member(who.C)
	old, _ := knownParent(known, r.Parent)
	if m.Level != space.LevelWrite && !slices.Contains(old.Devices, [32]byte(q.Device)) {
		return descriptorAnswer{}, fmt.Errorf("describe: asked by no member and no parent: %w", space.ErrForbidden)
	}
	d, err := a.descriptor()
	if err != nil {
		return descriptorAnswer{}, err
	}
	raw, err := d.Encode()
	if err != nil {
		return descriptorAnswer{}, err
	}
	if err := n.adoptParent(a.sid, r); err != nil {
		return descriptorAnswer{}, err
	}
	own, _ := a.out.addrs(a.sid)
	return descriptorAnswer{Descriptor: raw, Addrs: own[:min(len(own), seal.MaxAddrs)]}, nil
}

// descriptor is a fresh descriptor of a space that this node orders.
func (a *actor) descriptor() (control.Descriptor, error) {
	a.mu.RLock()
	st, now, ill := a.ctl, a.now, a.broken != nil || a.doubt || a.proof != nil
	a.mu.RUnlock()
	switch {
	case st.Deleted:
		return control.Descriptor{}, space.ErrSpaceDeleted
	case identity.DeviceID(st.SequencerPub) != a.self.device.ID():
		return control.Descriptor{}, space.ErrNotSequencer
	case ill || now == nil || now.n != st.Epoch:
		return control.Descriptor{}, fmt.Errorf("describe %s: %w", a.id, space.ErrUnavailable)
	}
	gk, err := now.keys.Group()
	if err != nil {
		return control.Descriptor{}, err
	}
	return st.Describe(gk.DelegatePublic(), a.self.device.Sig(), time.Now().UnixMilli())
}

// tellParents names the parents of a space to who belongs to it.
func (n *Node) tellParents(a *actor, who identity.State) ([]parentRecord, error) {
	if err := a.speaksFor(); err != nil {
		return nil, err
	}
	if _, in := a.control().Member(who.C); !in && !a.hasDelegations() {
		return nil, space.ErrNotMember
	}
	known, err := n.parents(a.sid)
	if err != nil {
		return nil, err
	}
	out := []parentRecord{}
	for _, r := range known {
		out = append(out, parentRecord{Parent: r.Parent, URI: r.URI, Devices: [][32]byte{}, Addrs: r.Addrs})
	}
	return out, nil
}

// hasDelegations: whoever is sent is in no roster, and is told what members are.
func (a *actor) hasDelegations() bool {
	for range a.control().Delegations() {
		return true
	}
	return false
}

// speaksFor reports whether this node's word about who belongs to the space
// counts elsewhere: that of its sequencer and of who admits.
func (a *actor) speaksFor() error {
	st := a.control()
	switch {
	case st.Deleted:
		return space.ErrSpaceDeleted
	case !speaksFor(st, a.self.device.ID()):
		return space.ErrForbidden
	}
	return nil
}

func speaksFor(st *control.State, dev identity.DeviceID) bool {
	_, caps, _ := st.DeviceCaps(dev)
	return caps&control.CapAdmit != 0 || identity.DeviceID(st.SequencerPub) == dev
}

// levelOf is somebody's level in a space: by the roster, or by what a child of
// it vouches for.
func levelOf(st *control.State, who identity.Commitment, by []byte, nowMs int64) (space.Level, [32]byte, error) {
	m, _ := st.Member(who)
	if len(by) == 0 {
		if m.Level == space.LevelNone {
			return m.Level, [32]byte{}, space.ErrNotMember
		}
		return m.Level, [32]byte{}, nil
	}
	v, err := seal.DecodeDelegateVoucher(by)
	if err != nil {
		return space.LevelNone, [32]byte{}, err
	}
	d, ok := st.Delegation(v.Child)
	if !ok {
		return space.LevelNone, [32]byte{}, fmt.Errorf("sent by a space that is no member: %w", space.ErrNotMember)
	}
	if err := v.Verify(st.SpaceID, append(slices.Clone(d.Descriptor.Keepers), d.Descriptor.Sequencer), nowMs); err != nil {
		return space.LevelNone, [32]byte{}, err
	}
	if v.C != who || v.Epoch < d.Descriptor.Epoch {
		return space.LevelNone, [32]byte{}, fmt.Errorf("voucher of epoch %d, known is %d: %w", v.Epoch, d.Descriptor.Epoch, space.ErrStaleDescriptor)
	}
	return control.PathLevel(v.Level, d.Level), v.Child, nil
}

// vouch gives somebody who belongs to the space its word for a parent.
func (n *Node) vouch(a *actor, q question, who identity.State) ([]byte, error) {
	var b voucherBody
	if err := space.Unmarshal(q.Body, &b); err != nil {
		return nil, err
	}
	if len(b.Parent) != 32 {
		return nil, fmt.Errorf("vouch: %w", space.ErrMalformed)
	}
	if err := a.speaksFor(); err != nil {
		return nil, err
	}
	st, now := a.control(), time.Now().UnixMilli()
	level, _, err := levelOf(st, who.C, b.By, now)
	if err != nil {
		return nil, err
	}
	v, err := seal.SignDelegateVoucher(seal.DelegateVoucher{
		Child: a.sid, Parent: [32]byte(b.Parent), C: who.C, Level: level, Epoch: st.Epoch,
	}, now, a.self.device.Sig())
	if err != nil {
		return nil, err
	}
	return v.Encode()
}

// welcomeSent gives who is sent by a child what a member gets by joining.
func (n *Node) welcomeSent(a *actor, q question, who identity.State, nonce [32]byte) (welcomeAnswer, error) {
	var b welcomeBody
	if err := space.Unmarshal(q.Body, &b); err != nil {
		return welcomeAnswer{}, err
	}
	if err := space.CheckPublicKey(b.Writer); err != nil {
		return welcomeAnswer{}, fmt.Errorf("writer key: %w", err)
	}
	if !a.admits() {
		return welcomeAnswer{}, space.ErrUnavailable
	}
	st, e := a.present()
	level, via, err := levelOf(st, who.C, b.Voucher, time.Now().UnixMilli())
	if err == nil && via == ([32]byte{}) {
		err = fmt.Errorf("no voucher: %w", space.ErrMalformed)
	}
	if err != nil {
		return welcomeAnswer{}, err
	}
	n.learn(who.C, who.Head, q.Log)
	// Whom the roster does not name is a member since now.
	m := control.Member{C: who.C, DID: who.DID, Level: level, ILHead: who.Head, Epoch: e.n}
	w, keys, err := a.letter(st, e, m, b.Have, seal.MaxWelcome)
	if err != nil {
		return welcomeAnswer{}, err
	}
	if level == space.LevelWrite && st.MayWriteVia(via, e.n) {
		w.Grant = e.iss.Grant(b.Writer, memberClass, uint64(time.Now().Add(certLife).Unix()))
		w.Voucher = e.iss.VouchVia(ed25519.PublicKey(b.Writer), who.C, via)
	}
	x := seal.WelcomeContext{
		SpaceID: a.sid, Epoch: e.n, Keeper: a.self.device.ID(), C: who.C, Nonce: nonce, PUKGen: who.PUK.Gen,
	}
	sealed, err := seal.SealWelcome(who.PUK, x, keys, w, a.self.device.Sig())
	return welcomeAnswer{Epoch: e.n, Welcome: sealed}, err
}

// present is the log's state and the epoch in force, as one moment saw them.
func (a *actor) present() (*control.State, *epoch) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.ctl, a.now
}

// nudged: somebody says that a space has a new parent, or that its log moved.
func (n *Node) nudged(sid [32]byte, from peer.ID) {
	if n.bySpace(sid) != nil && n.book.knows(sid, from) {
		n.kin.lookUp(sid)
	}
}

var errNoParent = errors.New("no keeper of the parent answers")
