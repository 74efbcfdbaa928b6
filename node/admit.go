package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

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
	if err := s.SetDeadline(time.Now().Add(joinDeadline)); err != nil {
		s.Reset()
		return
	}
	if err := n.admit(ctx, s); err != nil {
		n.log.Info("join refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

// admit checks a claim and answers it. Every refusal reads alike; only whose
// proofs were good is told to come later.
func (n *Node) admit(ctx context.Context, rw io.ReadWriter) error {
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
	v, err := n.judge(ctx, c, p, nonce)
	switch {
	case errors.Is(err, errLater):
		v = verdict{Welcome: []byte{}, Reason: later}
	case err != nil:
		v = verdict{Welcome: []byte{}, Reason: refused}
	}
	return errors.Join(err, writeMsg(rw, v))
}

// judge decides about a claim: the proofs first, then the log, and only then
// the sequencer is asked to admit.
func (n *Node) judge(ctx context.Context, c claim, p proof, nonce [32]byte) (verdict, error) {
	who, err := c.check()
	if err != nil {
		return verdict{}, err
	}
	a := n.bySpace([32]byte(c.Space))
	if a == nil || a.current().iss == nil {
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
	if err := a.roomToWelcome(); err != nil {
		return verdict{}, orLater(err)
	}
	st, err := a.admit(ctx, who, inv)
	if err != nil {
		return verdict{}, orLater(err)
	}
	m, _ := st.Member(who.C)
	n.learn(who.C, m.ILHead, c.Log)
	v, err := a.welcome(st, m, who, c, nonce)
	return v, orLater(err)
}

// checkKnown refuses an identity log that is behind what is known of its
// owner: keys would be sealed to devices that the owner may have revoked.
func (n *Node) checkKnown(a *actor, who identity.State, log [][]byte) error {
	if known, ok := n.identity(who.C); ok {
		if _, ok := identity.Since(log, known.Head); !ok {
			return fmt.Errorf("claim: an old or another identity log: %w", space.ErrForged)
		}
	}
	if m, ok := a.control().Member(who.C); ok {
		if _, ok := identity.Since(log, m.ILHead); !ok {
			return fmt.Errorf("claim: not the identity log that was admitted: %w", space.ErrForged)
		}
	}
	return nil
}

// errLater: nothing speaks against the claim, but it cannot be met now.
var errLater = errors.New("not now")

func orLater(err error) error {
	if err == nil || errors.Is(err, space.ErrInvite) || errors.Is(err, space.ErrNotMember) {
		return err
	}
	return fmt.Errorf("%w: %w", errLater, err)
}

// check verifies what a claim can be checked for alone: the identity log, and
// that the device is live in it.
func (c claim) check() (identity.State, error) {
	if c.Ver != 1 || len(c.Space) != 32 || len(c.C) != 32 || len(c.Device) != 32 || len(c.Invite) != 0 && len(c.Invite) != 16 {
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

// admit makes who a member, if it is not one. Redeeming one invite twice by
// the same person is one admission.
func (a *actor) admit(ctx context.Context, who identity.State, inv *control.InviteState) (*control.State, error) {
	return a.sequence(ctx, control.KindMemberAdd, func(s *control.State) (any, error) {
		_, ok := s.Member(who.C)
		switch {
		case ok:
			return nil, nil // a member already: no invite is spent on it
		case inv == nil:
			return nil, space.ErrNotMember
		}
		v, ok := s.Invite(inv.ID)
		if !ok || !v.Live(time.Now().UnixMilli()) {
			return nil, space.ErrInvite
		}
		return control.MemberAdd{
			Slot: s.NextSlot(), C: who.C, DID: who.DID, Level: v.Level, ILHead: who.Head,
			InviteID: v.ID[:], Use: v.Uses + 1,
		}, nil
	})
}

// welcome seals what a member needs to take part.
func (a *actor) welcome(st *control.State, m control.Member, who identity.State, c claim, nonce [32]byte) (verdict, error) {
	e := a.current()
	w := seal.Welcome{Head: st.Head, IssuerPub: e.iss.Public()}
	own, others := a.out.addrs(a.sid)
	w.Addrs = append(own, others...)
	w.Addrs = w.Addrs[:min(len(w.Addrs), seal.MaxAddrs)]
	room := welcomeRoom
	for row, err := range a.store.Control() {
		if err != nil {
			return verdict{}, err
		}
		if row.Seq <= st.Head.Seq {
			w.CtlLog = append(w.CtlLog, row.Raw)
			room -= len(row.Raw)
		}
	}
	w.IdentityLog = a.memberLogs(st, room)
	if m.Level >= space.LevelWrite {
		writer := ed25519.PublicKey(c.Writer)
		w.Grant = e.iss.Grant(writer, memberClass, uint64(time.Now().Add(certLife).Unix()))
		w.Voucher = e.iss.Vouch(writer, m.C)
	}
	x := seal.WelcomeContext{
		SpaceID: a.sid, Epoch: e.n, Keeper: a.self.device.ID(), C: m.C, Nonce: nonce, PUKGen: who.PUK.Gen,
	}
	sealed, err := seal.SealWelcome(who.PUK, x, e.keys, w, a.self.device.Sig())
	if err != nil {
		return verdict{}, err
	}
	return verdict{Epoch: e.n, Welcome: sealed}, nil
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

// welcomeRoom is what a welcome holds of logs; the rest is for all else in it.
const welcomeRoom = seal.MaxWelcome - 64<<10

// roomToWelcome refuses to admit anybody whom the welcome could not be sent
// to: a control log that long has to travel in another way.
func (a *actor) roomToWelcome() error {
	size := 0
	for row, err := range a.store.Control() {
		if err != nil {
			return err
		}
		size += len(row.Raw)
	}
	if size > welcomeRoom {
		return fmt.Errorf("admit to %s: a control log of %d bytes: %w", a.id, size, space.ErrTooLarge)
	}
	return nil
}
