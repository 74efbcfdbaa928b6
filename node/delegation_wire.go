package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// delegateProtocol carries what spaces and the members of their children ask
// each other:
//
//	asker     -> question   what is asked, of which space, by whom
//	responder -> challenge  a nonce and the responder's device key
//	asker     -> proof      the device's signature over both
//	responder -> answer     what was asked for, signed, or a refusal
//
// Each message is u32 length ‖ DRISL. A refusal does not say why. A nudge is a
// question without the rest: look again, something moved.
const delegateProtocol protocol.ID = "/kith/delegate/1"

// The kinds of questions.
const (
	askDescribe = 1 // of a child: its descriptor, by a keeper of a parent; the body is a parentRecord
	askParents  = 2 // of a child: which spaces it is a member of
	askVoucher  = 3 // of a child: its word to a parent that the asker is in it
	askWelcome  = 4 // of a parent: keys and a certificate
	nudge       = 5 // of a child: look for parents; nobody answers
)

const delegateDeadline = 15 * time.Second

type question struct {
	_      struct{} `cbor:",toarray"`
	Ver    uint64
	Kind   uint64
	Space  []byte
	C      []byte
	Log    [][]byte // the asker's identity log
	Device []byte
	Body   []byte // DRISL, by kind
}

type questionProof struct {
	_   struct{} `cbor:",toarray"`
	Sig []byte
}

type answer struct {
	_      struct{} `cbor:",toarray"`
	Reason string   // "" or refused
	Body   []byte
	Sig    []byte // by the responder's device, over question and body
}

type descriptorAnswer struct {
	_          struct{} `cbor:",toarray"`
	Descriptor []byte
	Addrs      []string // where the child is found
}

type voucherBody struct {
	_      struct{} `cbor:",toarray"`
	Parent []byte
	By     []byte // a voucher of a child of the child; empty: the roster names the asker
}

type welcomeBody struct {
	_       struct{} `cbor:",toarray"`
	Writer  []byte
	Have    space.Head
	Voucher []byte
}

type welcomeAnswer struct {
	_       struct{} `cbor:",toarray"`
	Epoch   uint64
	Welcome []byte
}

// answered is an answer whose signature was checked, and who gave it. Whether
// that device may speak for the space is for the asker to judge.
type answered struct {
	body  []byte
	by    identity.DeviceID
	nonce [32]byte
}

// consult asks one question of one peer.
func (n *Node) consult(ctx context.Context, p peer.AddrInfo, kind uint64, sid [32]byte, body any) (answered, error) {
	ctx, cancel := context.WithTimeout(ctx, delegateDeadline)
	defer cancel()
	if err := n.redial.try(ctx, p); err != nil {
		return answered{}, err
	}
	s, err := n.host.NewStream(overCircuit(ctx, "delegate"), p.ID, delegateProtocol)
	if err != nil {
		return answered{}, fmt.Errorf("ask a space: %w", err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(delegateDeadline)); err != nil {
		return answered{}, err
	}
	got, err := inquire(s, n.self, kind, sid, body)
	if err != nil {
		s.Reset()
	}
	return got, err
}

// inquire is the asker's side of a stream.
func inquire(rw io.ReadWriter, me *self, kind uint64, sid [32]byte, body any) (answered, error) {
	raw, err := space.Marshal(body)
	if err != nil {
		return answered{}, err
	}
	dev := me.device.ID()
	q := question{Ver: 1, Kind: kind, Space: sid[:], C: me.c[:], Log: me.ownLog(), Device: dev[:], Body: raw}
	if err := writeMsg(rw, q); err != nil {
		return answered{}, err
	}
	var ch challenge
	if err := readMsg(rw, maxSmall, &ch); err != nil {
		return answered{}, fmt.Errorf("read challenge: %w", err)
	}
	if len(ch.Nonce) != 32 || len(ch.Keeper) != 32 {
		return answered{}, fmt.Errorf("challenge: %w", space.ErrMalformed)
	}
	by := identity.DeviceID(ch.Keeper)
	m := seal.ChildAskMessage(byte(kind), sid, [32]byte(ch.Nonce), by, me.c, dev, raw)
	sig := seal.SignChildAsk(me.device.Sig(), m)
	if err := writeMsg(rw, questionProof{Sig: sig[:]}); err != nil {
		return answered{}, err
	}
	var a answer
	if err := readMsg(rw, maxAnswer, &a); err != nil {
		return answered{}, fmt.Errorf("read answer: %w", err)
	}
	if a.Reason != "" || len(a.Sig) != 64 {
		return answered{}, errNotAnswered
	}
	if err := seal.CheckChildAsk(by[:], seal.ChildAnswerMessage(m, a.Body), [64]byte(a.Sig)); err != nil {
		return answered{}, err
	}
	return answered{a.Body, by, [32]byte(ch.Nonce)}, nil
}

// errNotAnswered is what every refusal looks like.
var errNotAnswered = fmt.Errorf("the space's node does not answer that: %w", space.ErrForbidden)

// check verifies what a question can be checked for alone.
func (q question) check() (identity.State, error) {
	if q.Ver != 1 || len(q.Space) != 32 || len(q.C) != 32 || len(q.Device) != 32 || q.Kind == 0 || q.Kind > nudge {
		return identity.State{}, fmt.Errorf("question: %w", space.ErrMalformed)
	}
	if q.Kind == nudge {
		return identity.State{}, nil
	}
	who, err := identity.Verify(q.Log)
	if err != nil {
		return who, fmt.Errorf("question: identity log: %w", err)
	}
	if !bytes.Equal(who.C[:], q.C) || who.DID == "" {
		return who, fmt.Errorf("question: the log is another's: %w", space.ErrForged)
	}
	if _, live := who.Devices[identity.DeviceID(q.Device)]; !live {
		return who, fmt.Errorf("question: the device is not live: %w", space.ErrForbidden)
	}
	return who, nil
}

// serveDelegate is the responder's side.
func (n *Node) serveDelegate(s network.Stream) {
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(delegateDeadline)); err != nil {
		s.Reset()
		return
	}
	if err := n.respond(s, s.Conn().RemotePeer()); err != nil {
		n.log.Info("question of another space refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

func (n *Node) respond(rw io.ReadWriter, from peer.ID) error {
	var q question
	if err := readMsg(rw, maxClaim, &q); err != nil {
		return fmt.Errorf("read question: %w", err)
	}
	who, err := q.check()
	if err != nil {
		return err
	}
	if q.Kind == nudge {
		n.nudged([32]byte(q.Space), from)
		return nil
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	me := n.self.device.ID()
	if err := writeMsg(rw, challenge{Nonce: nonce[:], Keeper: me[:]}); err != nil {
		return err
	}
	var p questionProof
	if err := readMsg(rw, maxSmall, &p); err != nil {
		return fmt.Errorf("read proof: %w", err)
	}
	m := seal.ChildAskMessage(byte(q.Kind), [32]byte(q.Space), nonce, me, who.C, identity.DeviceID(q.Device), q.Body)
	if len(p.Sig) != 64 {
		err = fmt.Errorf("proof: %w", space.ErrMalformed)
	} else {
		err = seal.CheckChildAsk(q.Device, m, [64]byte(p.Sig))
	}
	var body any
	if err == nil {
		body, err = n.consulted(q, who, nonce)
	}
	var raw []byte
	if err == nil {
		raw, err = space.Marshal(body)
	}
	if err != nil {
		return errors.Join(err, writeMsg(rw, answer{Reason: refused, Body: []byte{}, Sig: []byte{}}))
	}
	sig := seal.SignChildAsk(n.self.device.Sig(), seal.ChildAnswerMessage(m, raw))
	return writeMsg(rw, answer{Body: raw, Sig: sig[:]})
}

// consulted is what is answered to somebody whose proof was good.
func (n *Node) consulted(q question, who identity.State, nonce [32]byte) (any, error) {
	a := n.bySpace([32]byte(q.Space))
	if a == nil {
		return nil, space.ErrSpaceNotFound
	}
	if err := n.checkKnown(a, who, q.Log); err != nil {
		return nil, err
	}
	switch q.Kind {
	case askDescribe:
		return n.describe(a, q, who)
	case askParents:
		return n.tellParents(a, who)
	case askVoucher:
		return n.vouch(a, q, who)
	default:
		return n.welcomeSent(a, q, who, nonce)
	}
}
