package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

// deviceProtocol takes a new machine in as a device. The machine shows a code,
// the owner types it into a device that is one:
//
//	approver -> opening   a nonce
//	machine  -> opening   a nonce
//	approver -> box 1     C
//	machine  -> box 2     its keys, the proof of them, its name
//	approver -> box 3     the identity log with the machine in it, the list
//	machine  -> box 4     it is kept
//
// Each message is u32 length ‖ DRISL. The boxes are sealed with the code, for
// these nonces and these two ends: who does not know the code can neither read
// nor answer, who sits between them has other ends, and the machine says
// nothing before box 1 has shown that the approver knows the code.
const deviceProtocol protocol.ID = "/kith/device/1"

const (
	enrolDeadline = 20 * time.Second
	maxBox        = maxIdentity
)

type opening struct {
	_     struct{} `cbor:",toarray"`
	Ver   uint64
	Nonce []byte // 32
}

type box struct {
	_      struct{} `cbor:",toarray"`
	Sealed []byte
}

type enrolWho struct {
	_    struct{} `cbor:",toarray"`
	C    []byte
	DID  space.DID
	Caps uint32
}

type enrolRequest struct {
	_       struct{} `cbor:",toarray"`
	Request []byte
	Name    string
}

type enrolGranted struct {
	_    struct{} `cbor:",toarray"`
	Log  [][]byte
	List []byte
}

type enrolDone struct {
	_  struct{} `cbor:",toarray"`
	OK bool
}

// meetingEnd is one side of an enrolment on a stream.
type meetingEnd struct {
	rw   io.ReadWriter
	code identity.Code
	m    identity.Meeting
}

// meet exchanges the nonces.
func meet(rw io.ReadWriter, code identity.Code, approver, machine peer.ID, isApprover bool) (*meetingEnd, error) {
	e := &meetingEnd{rw: rw, code: code, m: identity.Meeting{ApproverEnd: []byte(approver), NewEnd: []byte(machine)}}
	var mine [32]byte
	rand.Read(mine[:])
	send := func() error { return writeMsg(rw, opening{Ver: 1, Nonce: mine[:]}) }
	receive := func() ([32]byte, error) {
		var o opening
		if err := readMsg(rw, maxSmall, &o); err != nil {
			return [32]byte{}, err
		}
		if o.Ver != 1 || len(o.Nonce) != 32 {
			return [32]byte{}, fmt.Errorf("enrolment: %w", space.ErrMalformed)
		}
		return [32]byte(o.Nonce), nil
	}
	if isApprover {
		if err := send(); err != nil {
			return nil, err
		}
	}
	theirs, err := receive()
	if err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	e.m.ApproverNonce, e.m.NewNonce = theirs, mine
	if isApprover {
		e.m.ApproverNonce, e.m.NewNonce = mine, theirs
		return e, nil
	}
	return e, send()
}

func (e *meetingEnd) say(s identity.Step, v any) error {
	plain, err := space.Marshal(v)
	if err != nil {
		return err
	}
	sealed, err := e.code.Seal(rand.Reader, e.m, s, plain)
	if err != nil {
		return err
	}
	return writeMsg(e.rw, box{Sealed: sealed})
}

func (e *meetingEnd) hear(s identity.Step, v any) error {
	var b box
	if err := readMsg(e.rw, maxBox, &b); err != nil {
		return fmt.Errorf("enrolment: %w", err)
	}
	plain, err := e.code.Open(e.m, s, b.Sealed)
	if err != nil {
		return err
	}
	return space.Unmarshal(plain, v)
}

// ApproveDevice takes in the machine that shows code: at addr, or else at any
// node that is connected or turns up on the local network.
func (n *Node) ApproveDevice(ctx context.Context, text, addr string) (xrpc.Device, error) {
	code, err := identity.ParseCode(text)
	if err != nil {
		return xrpc.Device{}, err
	}
	var at []peer.AddrInfo
	if addr != "" {
		p, err := parsePeer(addr)
		if err != nil {
			return xrpc.Device{}, fmt.Errorf("%w: %w", space.ErrMalformed, err)
		}
		at = append(at, p)
	}
	if err := n.mayExtend(ctx); err != nil {
		return xrpc.Device{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, approveWait)
	defer cancel()
	for {
		id, err := n.approveRound(ctx, code, at)
		if err == nil {
			return n.device(id)
		}
		if !errors.Is(err, errNoAnswer) {
			return xrpc.Device{}, fmt.Errorf("approve device: %w", err)
		}
		select {
		case <-ctx.Done():
			return xrpc.Device{}, fmt.Errorf("approve device: %w, within %s: %w", err, approveWait, space.ErrUnavailable)
		case <-time.After(approveEvery):
		}
	}
}

// approveRound tries everybody once. An error that is not errNoAnswer came
// from the machine that knows the code, or from this node.
func (n *Node) approveRound(ctx context.Context, code identity.Code, at []peer.AddrInfo) (identity.DeviceID, error) {
	for _, p := range at {
		if err := n.redial.try(ctx, p); err != nil {
			n.log.Info("approve device: no way to the address", "peer", p.ID, "err", err)
		}
	}
	tries := n.host.Network().Peers()
	if len(at) > 0 {
		tries = tries[:0]
		for _, p := range at {
			tries = append(tries, p.ID)
		}
	}
	for _, p := range tries {
		id, err := n.approveAt(ctx, code, p)
		if err == nil || !errors.Is(err, errNoAnswer) {
			return id, err
		}
	}
	return identity.DeviceID{}, errNoAnswer
}

// approveAt is the approver's side of an enrolment.
func (n *Node) approveAt(ctx context.Context, code identity.Code, p peer.ID) (identity.DeviceID, error) {
	var none identity.DeviceID
	ctx, cancel := context.WithTimeout(ctx, enrolDeadline)
	defer cancel()
	s, err := n.host.NewStream(overCircuit(ctx, "device"), p, deviceProtocol)
	if err != nil {
		return none, errNoAnswer
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(enrolDeadline)); err != nil {
		return none, errNoAnswer
	}
	id, err := n.approveOn(s, code, p)
	if err != nil {
		s.Reset()
	}
	return id, err
}

func (n *Node) approveOn(rw io.ReadWriter, code identity.Code, p peer.ID) (identity.DeviceID, error) {
	var none identity.DeviceID
	e, err := meet(rw, code, n.host.ID(), p, true)
	if err != nil {
		return none, errNoAnswer
	}
	if err := e.say(identity.StepWho, enrolWho{C: n.self.c[:], DID: n.self.did, Caps: uint32(identity.CapsAll)}); err != nil {
		return none, errNoAnswer
	}
	var q enrolRequest
	if err := e.hear(identity.StepRequest, &q); err != nil {
		return none, errNoAnswer // it does not know the code, or has gone
	}
	id, err := n.enrolDevice(q)
	if err != nil {
		return none, err
	}
	list, _, ok := n.account.sealed()
	if !ok {
		return none, fmt.Errorf("the list of spaces is not sealed: %w", space.ErrUnavailable)
	}
	if err := e.say(identity.StepGranted, enrolGranted{Log: n.self.ownLog(), List: list}); err != nil {
		return none, fmt.Errorf("the machine went away before it had the keys; approve again: %w: %w", space.ErrUnavailable, err)
	}
	var done enrolDone
	if err := e.hear(identity.StepDone, &done); err != nil || !done.OK {
		return none, fmt.Errorf("the machine did not say that it kept the keys; approve again: %w", space.ErrUnavailable)
	}
	n.account.poke()
	return id, nil
}

// enrolDevice takes the device into the log, once: a machine that asks again after a
// broken connection is in it already.
func (n *Node) enrolDevice(q enrolRequest) (identity.DeviceID, error) {
	id, err := identity.RequestedBy(q.Request)
	if err != nil {
		return id, err
	}
	if len(q.Name) > 64 {
		q.Name = q.Name[:64]
	}
	_, err = n.extendOwn(func(st identity.State, puk identity.PUK) ([][]byte, identity.PUK, identity.State, error) {
		if st.Can(id, 0) {
			return nil, puk, st, nil
		}
		return st.Enrol(rand.Reader, n.self.device, q.Request, identity.CapsAll, puk, time.Now().UnixMilli())
	})
	if err != nil {
		return id, err
	}
	n.account.call(id, q.Name)
	return id, n.refreshAccount()
}

// call gives a device its name.
func (a *account) call(id identity.DeviceID, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.plain = mergeAccounts(a.plain, identity.Account{Devices: []identity.AccountDevice{{ID: id, Name: name, Addrs: []string{}}}})
	a.stale = true
}
