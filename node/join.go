package node

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

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
	Writer []byte // public writer key to certify
}

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
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readMsg(r io.Reader, limit int, v any) error {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > uint32(limit) {
		return fmt.Errorf("message of %d bytes: %w", size, space.ErrTooLarge)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return space.Unmarshal(b, v)
}

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
		Nonce: [32]byte(ch.Nonce), PUKGen: s.puk.Gen(),
	}
	if err := writeMsg(rw, prove(s, x, link, [32]byte(c.Writer))); err != nil {
		return seal.Welcome{}, x, err
	}
	var v verdict
	if err := readMsg(rw, maxAnswer, &v); err != nil {
		return seal.Welcome{}, x, fmt.Errorf("read answer: %w", err)
	}
	if len(v.Welcome) == 0 {
		if v.Reason == later {
			return seal.Welcome{}, x, fmt.Errorf("the space's node cannot admit now: %w", space.ErrUnavailable)
		}
		return seal.Welcome{}, x, errRefused
	}
	x.Epoch = v.Epoch
	w, err := seal.OpenWelcome(s.puk, x, v.Welcome)
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
	rec     spaceRecord
	entries []*control.Entry
	state   *control.State
}

// rosterHead is the head of a member's identity log that the roster names.
func (j *joined) rosterHead(c identity.Commitment) ([32]byte, bool) {
	m, ok := j.state.Member(c)
	return m.ILHead, ok
}

// believe replays the log a welcome carries and takes nothing from the keeper
// that the log does not say: the space, that the link's head is in it, that
// the keeper is its sequencer, the group key's commitment, and that we are in.
func believe(s *self, w seal.Welcome, x seal.WelcomeContext, head *[32]byte, writer seal.WriterKey) (*joined, error) {
	ck := w.Control().Bytes()
	st, err := control.Replay(w.CtlLog, func(uint64) []byte { return ck })
	if err != nil {
		return nil, fmt.Errorf("welcome: %w", err)
	}
	seen := head == nil
	var entries []*control.Entry
	for _, raw := range w.CtlLog {
		e, err := control.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("welcome: %w", err)
		}
		entries = append(entries, e)
		seen = seen || e.Hash() == *head
	}
	switch {
	case st.SpaceID != x.SpaceID:
		return nil, fmt.Errorf("welcome: another space: %w", space.ErrForged)
	case !seen:
		return nil, fmt.Errorf("welcome: the log does not contain the link's head: %w", space.ErrForged)
	case identity.DeviceID(st.SequencerPub) != x.Keeper:
		return nil, fmt.Errorf("welcome: the keeper is not the space's: %w", space.ErrForged)
	}
	me, ok := st.Member(s.c)
	if !ok {
		return nil, fmt.Errorf("welcome: %w", space.ErrNotMember)
	}
	keys, err := w.Keys(st.EpochKID)
	if err != nil {
		return nil, err
	}
	issuer, err := issuerOf(st, entries, keys)
	if err != nil {
		return nil, err
	}
	if x.Epoch != st.Epoch || !issuer.Equal(w.IssuerPub) {
		return nil, fmt.Errorf("welcome: an epoch or issuer that the log does not name: %w", space.ErrForged)
	}
	e := &epoch{n: x.Epoch, id: envelope.TopicOf(issuer), keys: keys}
	if me.Level >= space.LevelWrite {
		e.cred = &seal.Credential{Grant: w.Grant, Voucher: w.Voucher, Writer: writer}
		if err := e.cred.Check(e.id, s.c); err != nil {
			return nil, fmt.Errorf("welcome: writer certificate: %w", err)
		}
	}
	return &joined{
		rec:     spaceRecord{ID: st.ID, Space: st.SpaceID[:], DEK: newDEK(), Epochs: []epochRecord{e.record()}},
		entries: entries, state: st,
	}, nil
}

// issuerOf reads the issuer's key of the newest epoch out of the log, and
// checks that the fetch key named beside it is the one of our keys.
func issuerOf(st *control.State, entries []*control.Entry, keys seal.Keys) (ed25519.PublicKey, error) {
	for _, e := range slices.Backward(entries) {
		if e.Kind != control.KindEpoch {
			continue
		}
		if err := e.Open(keys.Control().Bytes()); err != nil {
			return nil, fmt.Errorf("welcome: %w", err)
		}
		body := e.Body().(control.Epoch)
		raw, err := seal.OpenInner(keys.Control(), st.SpaceID, body.N, body.Inner)
		if err != nil {
			return nil, fmt.Errorf("welcome: %w", err)
		}
		inner, err := control.DecodeEpochInner(raw)
		if err != nil {
			return nil, fmt.Errorf("welcome: %w", err)
		}
		if !keys.Fetch().Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(inner.FetchPub[:])) {
			return nil, fmt.Errorf("welcome: the log names another fetch key: %w", space.ErrForged)
		}
		return inner.IssuerPub[:], nil
	}
	return nil, fmt.Errorf("welcome: no epoch in the log: %w", space.ErrForged)
}
