package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
)

// proposeProtocol takes a proposal to the sequencer:
//
//	proposer  -> u32 length ‖ topic 32 ‖ proposal and its pages, sealed as a CTL page of the topic
//	sequencer -> u32 length ‖ verdict, sealed likewise; length 0: not for you
//
// The seal keeps the body from a node that is not of the space; who proposes
// is in the proposal's own signature.
const proposeProtocol protocol.ID = "/kith/propose/1"

const (
	maxProposal     = 32 << 20 // the pages of 20,000 wraps
	proposeDeadline = time.Minute
)

type proposeRequest struct {
	_        struct{} `cbor:",toarray"`
	Have     uint64   // seq of the last entry the proposer holds
	Proposal []byte
	Pages    [][]byte
	Leave    []byte   // instead of a proposal: a member's word that it goes
	Offer    []byte   // instead: the commitment of who is asked to be the next authority
	Log      [][]byte // entries that the sequencer lacks, as the one that appoints it
}

// filled has empty lists where there are none: they have one encoding.
func (r proposeRequest) filled() proposeRequest {
	for _, b := range []*[]byte{&r.Proposal, &r.Leave, &r.Offer} {
		if *b == nil {
			*b = []byte{}
		}
	}
	for _, l := range []*[][]byte{&r.Pages, &r.Log} {
		if *l == nil {
			*l = [][]byte{}
		}
	}
	return r
}

// proposeVerdict is what the sequencer made of it. Reason is a word of
// proposeReasons.
type proposeVerdict struct {
	_      struct{} `cbor:",toarray"`
	Have   uint64   // seq of the last entry the sequencer holds
	Reason string
	Detail string
	Log    [][]byte // the entries behind the one the proposer had
	Accept []byte   // the answer to an offer
}

// proposeReasons are the answers a proposer can do something about.
var proposeReasons = []struct {
	word string
	err  error
}{
	{elsewhere, space.ErrNotSequencer},
	{"moved", errMoved},
	{"forbidden", space.ErrForbidden},
	{"invite", space.ErrInvite},
	{"frozen", space.ErrFrozen},
	{"deleted", space.ErrSpaceDeleted},
	{"refused", space.ErrMalformed},
}

// elsewhere is what a node answers that does not order the log.
const elsewhere = "elsewhere"

// proposeTo hands a proposal to the sequencer's node and applies what it
// committed.
func (n *Node) proposeTo(ctx context.Context, a *actor, p control.Proposal, pages []store.ObjectRow) (*control.State, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeDeadline)
	defer cancel()
	e := a.current()
	raw, err := p.Encode()
	if err != nil {
		return nil, err
	}
	req := proposeRequest{Have: a.control().Head.Seq, Proposal: raw}.filled()
	for _, row := range pages {
		req.Pages = append(req.Pages, row.Data)
	}
	v, err := n.askAround(ctx, a, e, req)
	if err != nil {
		return nil, fmt.Errorf("change %s: %w: %w", a.id, space.ErrNotSequencer, err)
	}
	if len(v.Log) > 0 {
		if err := a.deliverControl(ctx, v.Log); err != nil {
			return nil, fmt.Errorf("change %s: %w", a.id, err)
		}
	}
	if v.Reason == "" {
		return a.control(), nil
	}
	for _, r := range proposeReasons {
		if r.word == v.Reason {
			return nil, fmt.Errorf("change %s: the sequencer says: %s: %w", a.id, v.Detail, r.err)
		}
	}
	return nil, fmt.Errorf("change %s: the sequencer cannot now: %w", a.id, space.ErrUnavailable)
}

// proposeesAsked bounds the peers asked where nobody knows which of them
// orders the log.
const proposeesAsked = 16

// proposees are peers that may order the log, the likeliest first: where its
// sequencer was seen to run, then the others that are connected. With keepers,
// those who may admit come behind it.
func (n *Node) proposees(a *actor, keepers bool) []peer.ID {
	a.mu.RLock()
	var out []peer.ID
	if id, ok := a.homes[a.sequencerID()]; ok {
		out = append(out, id)
	}
	a.mu.RUnlock()
	if keepers {
		for _, p := range n.keepers(a) {
			out = append(out, p.ID)
		}
	}
	for _, p := range n.book.of(a.sid) {
		if len(out) < proposeesAsked && !slices.Contains(out, p.ID) && connectedTo(n.host, p.ID) {
			out = append(out, p.ID)
		}
	}
	return out
}

// reach dials a peer of the space that is not connected.
func (n *Node) reach(ctx context.Context, a *actor, id peer.ID) error {
	if connectedTo(n.host, id) {
		return nil
	}
	for _, p := range n.book.of(a.sid) {
		if p.ID == id {
			return n.redial.try(ctx, p)
		}
	}
	return fmt.Errorf("%s: no address: %w", id, space.ErrUnavailable)
}

// askAround asks until somebody who orders the log has answered.
func (n *Node) askAround(ctx context.Context, a *actor, e *epoch, req proposeRequest) (proposeVerdict, error) {
	err := error(space.ErrUnavailable)
	for _, id := range n.proposees(a, false) {
		if dialErr := n.reach(ctx, a, id); dialErr != nil {
			err = errors.Join(err, dialErr)
			continue
		}
		v, askErr := n.askSequencer(ctx, id, e, req)
		if head := a.control().Head.Seq; askErr == nil && v.Reason == elsewhere && v.Have < head {
			// It orders the log and does not know it yet.
			more := req
			if more.Log, askErr = a.entriesAfter(v.Have, maxProposal/2); askErr == nil {
				v, askErr = n.askSequencer(ctx, id, e, more)
			}
		}
		switch {
		case askErr != nil:
			err = errors.Join(err, askErr)
		case v.Reason != elsewhere:
			return v, nil
		}
	}
	return proposeVerdict{}, err
}

func (n *Node) askSequencer(ctx context.Context, to peer.ID, e *epoch, req proposeRequest) (proposeVerdict, error) {
	var v proposeVerdict
	s, err := n.host.NewStream(overCircuit(ctx, "propose"), to, proposeProtocol)
	if err != nil {
		return v, err
	}
	defer s.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(deadline); err != nil {
			return v, err
		}
	}
	b, err := sealMsg(e, req)
	if err == nil {
		err = writeFrame(s, append(e.id[:], b...))
	}
	if err != nil {
		s.Reset()
		return v, err
	}
	answer, err := readFrame(s, maxProposal)
	if err != nil {
		return v, err
	}
	if len(answer) == 0 {
		return v, errors.New("it does not take proposals from us")
	}
	return v, openMsg(e, answer, &v)
}

func sealMsg(e *epoch, v any) ([]byte, error) {
	b, err := space.Marshal(v)
	if err != nil {
		return nil, err
	}
	return seal.SealCtl(rand.Reader, e.keys.Control(), e.id, b)
}

func openMsg(e *epoch, b []byte, v any) error {
	plain, err := seal.OpenCtl(e.keys.Control(), e.id, b)
	if err != nil {
		return err
	}
	return space.Unmarshal(plain, v)
}

// servePropose is the sequencer's side.
func (n *Node) servePropose(s network.Stream) {
	defer s.Close()
	ctx, cancel := context.WithTimeout(n.ctx, proposeDeadline)
	defer cancel()
	if err := s.SetDeadline(time.Now().Add(proposeDeadline)); err != nil {
		s.Reset()
		return
	}
	if err := n.takeProposal(ctx, s); err != nil {
		s.Reset()
		n.log.Info("proposal refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

func (n *Node) takeProposal(ctx context.Context, s network.Stream) error {
	b, err := readFrame(s, maxProposal)
	if err != nil {
		return err
	}
	if len(b) < 32 {
		return space.ErrMalformed
	}
	a, e := n.byTopic(envelope.TopicID(b[:32]))
	var req proposeRequest
	if a != nil {
		err = openMsg(e, b[32:], &req)
	}
	if a == nil || err != nil {
		return errors.Join(err, writeFrame(s, nil))
	}
	v := n.decide(ctx, a, req)
	answer, err := sealMsg(e, v)
	if err != nil {
		return err
	}
	return writeFrame(s, answer)
}

// decide commits a proposal or says why not.
func (n *Node) decide(ctx context.Context, a *actor, req proposeRequest) proposeVerdict {
	v := proposeVerdict{Have: a.control().Head.Seq, Accept: []byte{}}
	err := n.carryOut(ctx, a, req, &v)
	if !errors.Is(err, space.ErrNotSequencer) {
		v.Have = a.control().Head.Seq
	}
	if err != nil {
		n.log.Info("proposal not committed", "space", fingerprint(a.sid), "err", err)
		v.Reason, v.Detail = later, err.Error()
		for _, r := range proposeReasons {
			if errors.Is(err, r.err) {
				v.Reason = r.word
				break
			}
		}
	}
	if v.Log, err = a.entriesAfter(req.Have, maxProposal/2); err != nil {
		n.log.Warn("read the control log", "err", err)
	}
	return v
}

func (n *Node) carryOut(ctx context.Context, a *actor, req proposeRequest, v *proposeVerdict) (err error) {
	if len(req.Log) > 0 {
		if err := a.deliverControl(ctx, req.Log); err != nil {
			return err
		}
	}
	if len(req.Offer) > 0 {
		if v.Accept, err = n.accept(a, req.Offer); err != nil {
			v.Accept = []byte{}
		}
		return err
	}
	if len(req.Leave) > 0 {
		return n.putOut(ctx, a, req.Leave)
	}
	// In this order: who is told "elsewhere" compares what this node held when it
	// said so, and the entry that makes it the sequencer may come at any moment.
	v.Have = a.control().Head.Seq
	if !a.sequences() {
		return space.ErrNotSequencer
	}
	p, err := control.DecodeProposal(req.Proposal)
	if err != nil {
		return err
	}
	var pages []store.ObjectRow
	for _, data := range req.Pages {
		pages = append(pages, store.ObjectRow{Hash: seal.ObjectName(data), Data: data})
	}
	_, err = a.commitProposal(ctx, p, pages)
	return err
}

// entriesAfter are the raw entries behind one, as far as they fit.
func (a *actor) entriesAfter(seq uint64, room int) ([][]byte, error) {
	out := [][]byte{}
	for row, err := range a.store.Control() {
		if err != nil {
			return out, err
		}
		if row.Seq <= seq {
			continue
		}
		if room -= len(row.Raw); room < 0 {
			break
		}
		out = append(out, row.Raw)
	}
	return out, nil
}
