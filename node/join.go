package node

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// joinProtocol admits newcomers and renews writer certificates:
//
//	newcomer -> claim      who asks, and by which right
//	keeper   -> challenge  a nonce and the keeper's device key
//	newcomer -> proof      signatures over both
//	keeper   -> answer     a welcome sealed to the newcomer, or a refusal
//
// Each message is u32 length ‖ DRISL. A stranger learns nothing from the
// challenge, and one generic refusal from the answer.
const joinProtocol protocol.ID = "/kith/join/1"

const (
	maxClaim  = 512 << 10
	maxAnswer = seal.MaxWelcome + 64<<10
	maxSmall  = 4 << 10
)

type claim struct {
	_      struct{} `cbor:",toarray"`
	Ver    uint64
	Space  []byte
	Invite []byte // 16 bytes; empty: a member renews
	C      []byte
	Log    [][]byte
	Device []byte
	Writer []byte     // public writer key to certify
	Have   space.Head // of the control log that the claimant holds; zero: none
}

// claimVersion 2 has Have.
const claimVersion = 2

type challenge struct {
	_      struct{} `cbor:",toarray"`
	Nonce  []byte
	Keeper []byte
}

type proof struct {
	_      struct{} `cbor:",toarray"`
	Invite []byte   // by the invite's key; empty without one
	Device []byte
}

type verdict struct {
	_       struct{} `cbor:",toarray"`
	Epoch   uint64
	Welcome []byte // empty: refused
	Reason  string
}

// refused is what strangers hear, whatever the reason.
const refused = "refused"

// later is what those hear who may ask again: their proofs were good.
const later = "later"

func writeMsg(w io.Writer, v any) error {
	b, err := space.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, b)
}

// writeFrame writes u32 length ‖ b.
func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readMsg(r io.Reader, limit int, v any) error {
	b, err := readFrame(r, limit)
	if err != nil {
		return err
	}
	return space.Unmarshal(b, v)
}

// readFrame reads what writeFrame wrote.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > uint32(limit) {
		return nil, fmt.Errorf("message of %d bytes: %w", size, space.ErrTooLarge)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}

// waiting is what those hear whom somebody has to approve.
const waiting = "waiting"

// errWaiting: the invite needs an approval that nobody has given yet.
var errWaiting = fmt.Errorf("the request is known and waits for an approval: %w", space.ErrUnavailable)

// errRefused is what a keeper that says no looks like from outside.
var errRefused = fmt.Errorf("the space's node refused: a link may be spent, expired or revoked; ask for a new one: %w", space.ErrInvite)

// askKeeper runs one attempt at one keeper: proves the claim and opens the
// welcome. sign makes the proof.
func askKeeper(rw io.ReadWriter, s *self, c claim, link *control.Link) (seal.Welcome, seal.WelcomeContext, error) {
	var x seal.WelcomeContext
	if err := writeMsg(rw, c); err != nil {
		return seal.Welcome{}, x, err
	}
	var ch challenge
	if err := readMsg(rw, maxSmall, &ch); err != nil {
		return seal.Welcome{}, x, fmt.Errorf("read challenge: %w", err)
	}
	if len(ch.Nonce) != 32 || len(ch.Keeper) != 32 {
		return seal.Welcome{}, x, fmt.Errorf("challenge: %w", space.ErrMalformed)
	}
	x = seal.WelcomeContext{
		SpaceID: [32]byte(c.Space), Keeper: identity.DeviceID(ch.Keeper), C: s.c,
		Nonce: [32]byte(ch.Nonce), PUKGen: s.ownPUK().Gen(),
	}
	if err := writeMsg(rw, prove(s, x, link, [32]byte(c.Writer))); err != nil {
		return seal.Welcome{}, x, err
	}
	var v verdict
	if err := readMsg(rw, maxAnswer, &v); err != nil {
		return seal.Welcome{}, x, fmt.Errorf("read answer: %w", err)
	}
	if len(v.Welcome) == 0 {
		switch v.Reason {
		case later:
			return seal.Welcome{}, x, fmt.Errorf("the space's node cannot admit now: %w", space.ErrUnavailable)
		case waiting:
			return seal.Welcome{}, x, errWaiting
		}
		return seal.Welcome{}, x, errRefused
	}
	x.Epoch = v.Epoch
	w, err := seal.OpenWelcome(s.ownPUK(), x, v.Welcome)
	return w, x, err
}

func prove(s *self, x seal.WelcomeContext, link *control.Link, writer [32]byte) proof {
	if link == nil {
		m := seal.AdmitMessage(x.SpaceID, x.Nonce, x.Keeper, s.c, s.device.ID(), writer)
		sig := seal.SignAdmit(s.device.Sig(), m)
		return proof{Invite: []byte{}, Device: sig[:]}
	}
	m := seal.RedeemMessage(x.SpaceID, link.InviteID(), s.c, s.device.ID(), x.Nonce, x.Keeper, writer)
	inv, dev := seal.SignRedeem(link.InviteKey(), m), seal.SignRedeem(s.device.Sig(), m)
	return proof{Invite: inv[:], Device: dev[:]}
}

// joined is a welcome that was believed: what to keep of a space.
type joined struct {
	epochs  []*epoch // by rising number; those whose content is open to us
	closed  []closedRecord
	entries []*control.Entry  // new ones, in order
	keeper  identity.DeviceID // who gave it
	state   *control.State
	named   bool // an entry that the log had to contain is in it
}

// record is the key record of a space that was not held before.
func (j *joined) record() spaceRecord {
	r := spaceRecord{ID: j.state.ID, Space: j.state.SpaceID[:], DEK: newDEK(), Closed: j.closed}
	for _, e := range j.epochs {
		r.hold(e.record())
	}
	return r
}

// rosterHead is the head of a member's identity log that the roster names.
func (j *joined) rosterHead(c identity.Commitment) ([32]byte, bool) {
	m, ok := j.state.Member(c)
	return m.ILHead, ok
}

// belief is what welcomes are held against.
type belief struct {
	self   *self
	x      seal.WelcomeContext
	head   *[32]byte      // an entry that the log must contain; nil: none in particular
	base   *control.State // what of the log is held; nil: nothing
	topics map[uint64]envelope.TopicID
	opened *control.Epoch // what base says of an epoch whose keys are not held; nil: nothing
	writer seal.WriterKey
	via    [32]byte    // the child space that sends us; zero: the roster names us
	level  space.Level // what that child says of us

	entries []*control.Entry // that welcomes brought
	seen    bool             // head is one of them, or was held before
}

// maxWelcomes bounds how many welcomes a control log comes in: 128 MiB of it.
const maxWelcomes = 64

// gather asks until the log is as long as the keeper says, mostly once, and
// believes the last welcome. ask asks for what is behind base, and sets x.
func (b *belief) gather(ask func() (seal.Welcome, error)) (*joined, seal.Welcome, error) {
	var logs [][]byte
	for range maxWelcomes {
		w, err := ask()
		if err != nil {
			return nil, w, err
		}
		logs = append(logs, w.IdentityLog...)
		had := len(b.entries)
		if err := b.follow(w); err != nil {
			return nil, w, err
		}
		if b.base != nil && b.base.Head.Seq >= w.Head.Seq {
			w.IdentityLog = logs
			j, err := b.believe(w)
			return j, w, err
		}
		if len(b.entries) == had {
			return nil, w, fmt.Errorf("welcome: a log that ends before its head: %w", space.ErrForged)
		}
	}
	return nil, seal.Welcome{}, fmt.Errorf("welcome: a control log beyond %d welcomes: %w", maxWelcomes, space.ErrTooLarge)
}

// have is the head of what of the log is held.
func (b *belief) have() space.Head {
	if b.base == nil {
		return space.Head{}
	}
	return b.base.Head
}

// follow replays the log that a welcome carries.
func (b *belief) follow(w seal.Welcome) error {
	keys := map[uint64]seal.ControlKey{b.x.Epoch: w.Control()}
	for _, p := range w.Prior {
		keys[p.Epoch] = p.Control
	}
	for _, raw := range w.CtlLog {
		e, err := control.Parse(raw)
		if err == nil && b.base != nil {
			err = e.Open(bytesOf(keys[b.base.Epoch]))
		} else if err == nil {
			err = e.Open(nil)
		}
		var next *control.State
		if err == nil {
			next, err = control.Apply(b.base, e)
		}
		if isStale(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("welcome: %w", err)
		}
		b.base, b.entries = next, append(b.entries, e)
		b.seen = b.seen || b.head != nil && e.Hash() == *b.head
	}
	return nil
}

// believe takes nothing from the keeper that the log does not say: the space,
// that the link's head is in it, that the keeper may admit, the group keys'
// commitments, and that we are in.
func (b *belief) believe(w seal.Welcome) (*joined, error) {
	j := &joined{state: b.base, keeper: b.x.Keeper, entries: b.entries, named: b.head != nil}
	_, caps, _ := j.state.DeviceCaps(b.x.Keeper)
	switch {
	case j.state.SpaceID != b.x.SpaceID:
		return nil, fmt.Errorf("welcome: another space: %w", space.ErrForged)
	case b.head != nil && !b.seen:
		return nil, fmt.Errorf("welcome: the log does not contain the link's head: %w", space.ErrForged)
	case caps&control.CapAdmit == 0:
		return nil, fmt.Errorf("welcome: the keeper is not one of the space: %w", space.ErrForged)
	case b.x.Epoch != j.state.Epoch:
		return nil, fmt.Errorf("welcome: of epoch %d, the log is at %d: %w", b.x.Epoch, j.state.Epoch, space.ErrForged)
	}
	return j, b.takeKeys(j, w)
}

// takeKeys checks each epoch's keys against the log.
func (b *belief) takeKeys(j *joined, w seal.Welcome) error {
	in, writes := b.member(j.state)
	if !in {
		return fmt.Errorf("welcome: %w", space.ErrNotMember)
	}
	kid, _ := j.state.KID(j.state.Epoch)
	keys, err := w.Keys(kid)
	if err != nil {
		return err
	}
	issuers, err := b.issuers(j, keys, w)
	if err != nil {
		return err
	}
	for _, p := range w.Prior {
		id, known := issuers[p.Epoch]
		kid, inLog := j.state.KID(p.Epoch)
		switch {
		case p.Keys.IsZero():
			j.closed = append(j.closed, closedRecord{N: p.Epoch, Control: p.Control.Marshal()})
		case !known || !inLog:
			return fmt.Errorf("welcome: keys of epoch %d, which the log does not name: %w", p.Epoch, space.ErrForged)
		default:
			if err := p.Keys.CheckKID(kid); err != nil {
				return fmt.Errorf("welcome: epoch %d: %w", p.Epoch, err)
			}
			j.epochs = append(j.epochs, &epoch{n: p.Epoch, id: id, keys: p.Keys})
		}
	}
	id, known := issuers[j.state.Epoch]
	if !known || envelope.TopicOf(w.IssuerPub) != id {
		return fmt.Errorf("welcome: an issuer that the log does not name: %w", space.ErrForged)
	}
	e := &epoch{n: j.state.Epoch, id: id, keys: keys}
	if writes {
		e.cred = &seal.Credential{Grant: w.Grant, Voucher: w.Voucher, Writer: b.writer, Via: b.via}
		if err := e.cred.Check(e.id, b.self.c); err != nil {
			return fmt.Errorf("welcome: writer certificate: %w", err)
		}
	}
	j.epochs = append(j.epochs, e)
	return nil
}

// issuers are the topics of the epochs: as they are known already, and as the
// entries of the welcome name them under the keys that came with it.
func (b *belief) issuers(j *joined, keys seal.Keys, w seal.Welcome) (map[uint64]envelope.TopicID, error) {
	out := map[uint64]envelope.TopicID{}
	for n, id := range b.topics {
		out[n] = id
	}
	held := map[uint64]seal.Keys{b.x.Epoch: keys}
	for _, p := range w.Prior {
		held[p.Epoch] = p.Keys
	}
	var bodies []control.Epoch
	if b.opened != nil {
		bodies = append(bodies, *b.opened)
	}
	for _, e := range j.entries {
		if body, ok := epochOf(e); ok {
			bodies = append(bodies, body)
		}
	}
	for _, body := range bodies {
		if held[body.N].IsZero() {
			continue
		}
		inner, err := openInner(j.state.SpaceID, held[body.N], body)
		if err != nil {
			return nil, fmt.Errorf("welcome: %w", err)
		}
		out[body.N] = envelope.TopicOf(inner.Issuer())
	}
	return out, nil
}

// epochOf is the epoch that an entry's body opens.
func epochOf(entry *control.Entry) (control.Epoch, bool) {
	if e, ok := entry.Body().(control.Epoch); ok {
		return e, true
	}
	if rot := entry.Rotation(); rot != nil {
		return rot.Epoch, true
	}
	return control.Epoch{}, false
}
