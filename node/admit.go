package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// serveJoin is the keeper's side of a join stream.
func (n *Node) serveJoin(s network.Stream) {
	ctx, cancel := context.WithTimeout(n.ctx, joinDeadline)
	defer cancel()
	defer s.Close()
	most := seal.MaxWelcome
	if s.Conn().Stat().Limited {
		most = circuitWelcome
	}
	if err := n.admit(ctx, unhurried{s, time.Now().Add(joinMost)}, most); err != nil {
		n.log.Info("join refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

// circuitWelcome is how many bytes a welcome has over a connection through a
// relay. Other people's relays cut it after 128 KiB.
const circuitWelcome = 96 << 10

// admit checks a claim and answers it, with a welcome of at most so many bytes.
// Every refusal reads alike; only whose proofs were good is told to come later.
func (n *Node) admit(ctx context.Context, rw io.ReadWriter, most int) error {
	var c claim
	if err := readMsg(rw, maxClaim, &c); err != nil {
		return fmt.Errorf("read claim: %w", err)
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	me := n.self.device.ID()
	if err := writeMsg(rw, challenge{Nonce: nonce[:], Keeper: me[:]}); err != nil {
		return err
	}
	var p proof
	if err := readMsg(rw, maxSmall, &p); err != nil {
		return fmt.Errorf("read proof: %w", err)
	}
	v, err := n.judge(ctx, c, p, nonce, most)
	switch {
	case errors.Is(err, errWaiting):
		v = verdict{Welcome: []byte{}, Reason: waiting}
	case errors.Is(err, errLater):
		v = verdict{Welcome: []byte{}, Reason: later}
	case err != nil:
		v = verdict{Welcome: []byte{}, Reason: refused}
	}
	return errors.Join(err, writeMsg(rw, v))
}

// judge decides about a claim: the proofs first, then the log, and only then
// the sequencer is asked to admit.
func (n *Node) judge(ctx context.Context, c claim, p proof, nonce [32]byte, most int) (verdict, error) {
	who, err := c.check()
	if err != nil {
		return verdict{}, err
	}
	a := n.bySpace([32]byte(c.Space))
	if a == nil || !a.admits() {
		return verdict{}, space.ErrSpaceNotFound
	}
	var inv *control.InviteState
	if len(c.Invite) > 0 {
		v, ok := a.control().Invite([16]byte(c.Invite))
		if !ok {
			return verdict{}, space.ErrInvite
		}
		inv = &v
	}
	if err := checkProof(c, p, inv, nonce, n.self.device.ID()); err != nil {
		return verdict{}, err
	}
	// From here on the claim is somebody's who holds an invite or is a member:
	// that we cannot answer now is no refusal.
	if err := n.checkKnown(a, who, c.Log); err != nil {
		return verdict{}, err
	}
	st, err := n.enrol(ctx, a, who, c, inv)
	if err != nil {
		return verdict{}, orLater(err)
	}
	if err := n.checkFresh(ctx, a, st, who); err != nil {
		return verdict{}, orLater(err)
	}
	m, _ := st.Member(who.C)
	n.learn(who.C, m.ILHead, c.Log)
	v, err := a.welcome(st, m, who, c, nonce, most)
	return v, orLater(err)
}

// admits reports whether this node may let others in: it holds the issuer of
// the epoch in force and has the capability.
func (a *actor) admits() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, caps, _ := a.ctl.DeviceCaps(a.self.device.ID())
	return caps&control.CapAdmit != 0 && a.now != nil && a.now.n == a.ctl.Epoch && a.now.iss != nil && a.proof == nil
}

// checkKnown refuses an identity log that is behind what is known of its
// owner, or a branch that lost: keys would be sealed to devices that the owner
// may have revoked.
func (n *Node) checkKnown(a *actor, who identity.State, log [][]byte) error {
	known := n.identityLog(who.C)
	if len(known) > 0 {
		if best, _, err := identity.Follow(known, log); err != nil || !sameLog(best, log) {
			return fmt.Errorf("claim: an old or another identity log: %w", space.ErrForged)
		}
	}
	if m, ok := a.control().Member(who.C); ok && !n.people.stands(who.C, m.ILHead, log, nil) {
		return fmt.Errorf("claim: not the identity log that was admitted: %w", space.ErrForged)
	}
	return nil
}

// errLater: nothing speaks against the claim, but it cannot be met now.
var errLater = errors.New("not now")

func orLater(err error) error {
	for _, final := range []error{space.ErrInvite, space.ErrNotMember, space.ErrSpaceDeleted, errWaiting} {
		if err == nil || errors.Is(err, final) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errLater, err)
}

// check verifies what a claim can be checked for alone: the identity log, and
// that the device is live in it.
func (c claim) check() (identity.State, error) {
	if c.Ver != claimVersion || len(c.Space) != 32 || len(c.C) != 32 || len(c.Device) != 32 || len(c.Invite) != 0 && len(c.Invite) != 16 {
		return identity.State{}, fmt.Errorf("claim: %w", space.ErrMalformed)
	}
	if err := space.CheckPublicKey(c.Writer); err != nil {
		return identity.State{}, fmt.Errorf("claim: writer key: %w", err)
	}
	st, err := identity.Verify(c.Log)
	if err != nil {
		return st, fmt.Errorf("claim: identity log: %w", err)
	}
	if !bytes.Equal(st.C[:], c.C) || st.DID == "" {
		return st, fmt.Errorf("claim: the log is another's: %w", space.ErrForged)
	}
	if _, live := st.Devices[identity.DeviceID(c.Device)]; !live {
		return st, fmt.Errorf("claim: the device is not live: %w", space.ErrForbidden)
	}
	return st, nil
}

// checkProof verifies the signatures over our nonce: by the invite's key and
// the device, or by a member's device alone.
func checkProof(c claim, p proof, inv *control.InviteState, nonce [32]byte, keeper identity.DeviceID) error {
	who, dev := identity.Commitment(c.C), identity.DeviceID(c.Device)
	if len(p.Device) != ed25519.SignatureSize {
		return fmt.Errorf("proof: %w", space.ErrMalformed)
	}
	if inv == nil {
		m := seal.AdmitMessage([32]byte(c.Space), nonce, keeper, who, dev, [32]byte(c.Writer))
		return seal.CheckAdmit(dev[:], m, [64]byte(p.Device))
	}
	if len(p.Invite) != ed25519.SignatureSize {
		return fmt.Errorf("proof: %w", space.ErrMalformed)
	}
	m := seal.RedeemMessage([32]byte(c.Space), [16]byte(c.Invite), who, dev, nonce, keeper, [32]byte(c.Writer))
	return errors.Join(
		seal.CheckRedeem(inv.Pub[:], m, [64]byte(p.Invite)),
		seal.CheckRedeem(dev[:], m, [64]byte(p.Device)))
}

// enrol makes who a member, if it is not one. Redeeming one invite twice by
// the same person is one admission. In a public space nobody needs an invite.
func (n *Node) enrol(ctx context.Context, a *actor, who identity.State, c claim, inv *control.InviteState) (*control.State, error) {
	return n.amend(ctx, a, func(s *control.State) (control.Kind, any, []store.ObjectRow, error) {
		add := control.MemberAdd{Slot: s.NextSlot(), C: who.C, DID: who.DID, ILHead: who.Head}
		_, ok := s.Member(who.C)
		switch {
		case ok:
			return 0, nil, nil, nil // a member already: no invite is spent on it
		case inv == nil && s.Policy.Mint == space.MintPublic:
			add.Level, add.InviteID, add.Use = space.LevelWrite, control.PublicDoor[:], 1
			return control.KindMemberAdd, add, nil, n.doors.enter(a.sid)
		case inv == nil:
			return 0, nil, nil, space.ErrNotMember
		}
		v, ok := s.Invite(inv.ID)
		if !ok || !v.Live(time.Now().UnixMilli()) {
			return 0, nil, nil, space.ErrInvite
		}
		if v.NeedsApproval {
			if err := n.approvals.check(a.sid, v.ID, who, c.Log); err != nil {
				return 0, nil, nil, err
			}
		}
		add.Level, add.InviteID, add.Use = v.Level, v.ID[:], v.Uses+1
		return control.KindMemberAdd, add, nil, nil
	})
}

// welcome seals what a member needs to take part.
func (a *actor) welcome(st *control.State, m control.Member, who identity.State, c claim, nonce [32]byte, most int) (verdict, error) {
	e := a.current()
	w, keys, err := a.letter(st, e, m, c.Have, most)
	if err != nil {
		return verdict{}, err
	}
	if c.Have == (space.Head{}) {
		w.IdentityLog = a.memberLogs(st, letterRoom(w, most))
	}
	if st.MayWrite(m.C, e.n) {
		writer := ed25519.PublicKey(c.Writer)
		w.Grant = e.iss.Grant(writer, classOf(m), uint64(time.Now().Add(certLife).Unix()))
		w.Voucher = e.iss.Vouch(writer, m.C)
	}
	x := seal.WelcomeContext{
		SpaceID: a.sid, Epoch: e.n, Keeper: a.self.device.ID(), C: m.C, Nonce: nonce, PUKGen: who.PUK.Gen,
	}
	sealed, err := seal.SealWelcome(who.PUK, x, keys, w, a.self.device.Sig())
	if err != nil {
		return verdict{}, err
	}
	return verdict{Epoch: e.n, Welcome: sealed}, nil
}

// letter is what every welcome says, and the keys that go with it. Of a log
// that it has no room for, in most bytes, it holds the beginning: who comes with
// that head asks for the rest.
func (a *actor) letter(st *control.State, e *epoch, m control.Member, have space.Head, most int) (seal.Welcome, seal.Keys, error) {
	w := seal.Welcome{Head: st.Head, IssuerPub: e.iss.Public()}
	own, others := a.out.addrs(a.sid)
	w.Addrs = append(own, others...)
	w.Addrs = w.Addrs[:min(len(w.Addrs), seal.MaxAddrs)]
	keys, err := keysFor(e.keys, m.C, m.Level)
	if err == nil {
		w.Relays, err = a.relays(st)
	}
	if err == nil {
		w.Prior, err = a.prior(st, m, e.n)
	}
	if err == nil {
		w.CtlLog, err = a.entriesBetween(have, st.Head, letterRoom(w, most))
	}
	return w, keys, err
}

// letterRoom is how many bytes of logs a welcome of most bytes still holds.
func letterRoom(w seal.Welcome, most int) int {
	const (
		prior = 160     // an epoch before, at most
		text  = 8       // beside the bytes of an address or an entry
		rest  = 8 << 10 // all that is of a fixed size
	)
	room := most - rest - prior*len(w.Prior)
	for _, addr := range slices.Concat(w.Addrs, w.Relays) {
		room -= len(addr) + text
	}
	for _, raw := range w.CtlLog {
		room -= len(raw) + text
	}
	return room
}

// classOf is the quota class of a member: who came in by the public door is
// known to nobody.
func classOf(m control.Member) uint16 {
	if m.Public {
		return publicClass
	}
	return memberClass
}

// keysFor are the keys of an epoch in the amount of a level.
func keysFor(keys seal.Keys, c identity.Commitment, level space.Level) (seal.Keys, error) {
	switch {
	case level == space.LevelNone:
		return seal.Keys{}, nil
	case level == space.LevelReadSelf:
		return keys.Self(c)
	}
	return keys, nil
}

// prior are the epochs before n: their control keys, so that the log can be
// read, and their keys: where the policy opens what was before, in the amount
// of the member's level now, otherwise of the level it had then.
func (a *actor) prior(st *control.State, m control.Member, n uint64) ([]seal.Prior, error) {
	var out []seal.Prior
	for i := uint64(1); i < n; i++ {
		p := seal.Prior{Epoch: i, Control: a.lockedControlKey(i)}
		if p.Control.IsZero() {
			return nil, fmt.Errorf("welcome: the control key of epoch %d: %w", i, space.ErrNoKey)
		}
		level := m.Level
		if st.Policy.History != space.HistoryFull {
			level = st.LevelIn(m.C, i)
		}
		if e := a.numbered(i); e != nil {
			if _, err := e.keys.Group(); err == nil {
				if p.Keys, err = keysFor(e.keys, m.C, level); err != nil {
					return nil, err
				}
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func (a *actor) lockedControlKey(n uint64) seal.ControlKey {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.controlKey(n)
}

// numbered is the epoch of a number, nil if its content is closed to us.
func (a *actor) numbered(n uint64) *epoch {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, e := range a.epochs {
		if e.n == n {
			return e
		}
	}
	return nil
}

// entriesBetween are the entries behind one head of ours up to another, from
// the first if we know no such head; as many as there is room for, and one at
// least.
func (a *actor) entriesBetween(have, until space.Head, room int) ([][]byte, error) {
	from := uint64(0) // where they begin
	if have != (space.Head{}) {
		raw, ok, err := a.rawControl(have.Seq)
		if err != nil {
			return nil, err
		}
		if ok && sha256.Sum256(raw) == have.Hash {
			from = have.Seq + 1
		}
	}
	out := [][]byte{}
	for row, err := range a.store.Control() {
		if err != nil {
			return nil, err
		}
		if row.Seq < from {
			continue
		}
		if room -= len(row.Raw) + 8; row.Seq > until.Seq || room < 0 && len(out) > 0 || len(out) == seal.MaxControlLog {
			break
		}
		out = append(out, row.Raw)
	}
	return out, nil
}

// memberLogs are the identity logs of the members, as far as known: a
// newcomer checks with them whose chains it reads. Above the size at which
// chains carry tags nobody needs them; beyond room they stay out.
func (a *actor) memberLogs(st *control.State, room int) [][]byte {
	if st.Len() > seal.MaxTags {
		return nil
	}
	var out [][]byte
	for m := range st.Members() {
		log := a.out.identityLog(m.C)
		for _, e := range log {
			room -= len(e)
		}
		if room < 0 {
			break
		}
		out = append(out, log...)
	}
	return out
}
