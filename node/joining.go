package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// pendingJoin is a join under way. It goes on when the caller stops waiting.
type pendingJoin struct {
	done   chan struct{} // closed when joined or refused
	joined xrpc.Joined
	err    error
}

// Join redeems an invite link: it asks the nodes the link names until one
// admits us, and returns when the keys are here and kept. When ctx ends first,
// the node goes on asking for as long as it runs.
func (n *Node) Join(ctx context.Context, text string) (xrpc.Joined, error) {
	link, err := control.ParseLink(text)
	if err != nil {
		return xrpc.Joined{}, fmt.Errorf("join: %w", err)
	}
	if a := n.bySpace(link.SpaceID); a != nil {
		info := a.info()
		return xrpc.Joined{ID: info.ID, Level: info.Level, Epoch: info.Epoch, Name: info.Name}, nil
	}
	if len(parsePeers(link.Addrs)) == 0 {
		return xrpc.Joined{}, fmt.Errorf("join: the link names no address that this node can dial: %w", space.ErrMalformed)
	}
	n.mu.Lock()
	p := n.joins[link.SpaceID]
	if p == nil {
		p = &pendingJoin{done: make(chan struct{})}
		n.joins[link.SpaceID] = p
		n.wg.Go(func() { n.keepJoining(link, p) })
	}
	n.mu.Unlock()
	select {
	case <-p.done:
		return p.joined, p.err
	case <-ctx.Done():
		return xrpc.Joined{}, fmt.Errorf("join: asked %d addresses of the link: %w", len(link.Addrs), xrpc.ErrStillWaiting)
	}
}

// keepJoining tries until somebody admits or refuses us.
func (n *Node) keepJoining(link control.Link, p *pendingJoin) {
	defer func() {
		n.mu.Lock()
		delete(n.joins, link.SpaceID)
		n.mu.Unlock()
		close(p.done)
	}()
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		var last error // the first answer that more asking would not change
		for _, keeper := range parsePeers(link.Addrs) {
			p.joined, p.err = n.joinAt(n.ctx, keeper, &link)
			if p.err == nil {
				return
			}
			if final(p.err) && last == nil {
				last = p.err
			}
			n.log.Info("join: not admitted yet", "keeper", keeper.ID, "err", p.err)
		}
		if p.err = last; last != nil {
			return
		}
		select {
		case <-n.ctx.Done():
			p.err = space.ErrUnavailable
			return
		case <-time.After(jitter(wait)):
		}
	}
}

// final reports whether asking again would not help: we were refused, or it is
// not the keeper but this node that could not go on.
func final(err error) bool {
	for _, e := range []error{errRefused, space.ErrForged, space.ErrSpaceExists, space.ErrNoSpaceLeft, store.ErrIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// joinAt asks one keeper.
func (n *Node) joinAt(ctx context.Context, keeper peer.AddrInfo, link *control.Link) (xrpc.Joined, error) {
	lid := link.InviteID()
	w, x, writer, err := n.askWelcome(ctx, keeper, link.SpaceID, lid[:], link)
	if err != nil {
		return xrpc.Joined{}, err
	}
	j, err := believe(n.self, w, x, &link.Head, writer)
	if err != nil {
		return xrpc.Joined{}, err
	}
	release, err := n.claimName(j.state.ID, "")
	if err != nil {
		return xrpc.Joined{}, err
	}
	defer release()
	n.learnAll(w.IdentityLog, j.rosterHead)
	n.book.learn(link.SpaceID, keeper)
	n.meet(link.SpaceID, w.Addrs)
	a, err := n.keep(j.rec, j.entries)
	if err != nil {
		return xrpc.Joined{}, err
	}
	n.reconcile(a.sid, keeper.ID)
	info := a.info()
	return xrpc.Joined{
		ID: info.ID, Level: info.Level, Epoch: info.Epoch, Asked: keeper.ID.String(), By: string(info.Authority),
	}, nil
}

// askWelcome runs the join protocol with a keeper.
func (n *Node) askWelcome(ctx context.Context, keeper peer.AddrInfo, sid [32]byte, invite []byte, link *control.Link) (seal.Welcome, seal.WelcomeContext, seal.WriterKey, error) {
	var none seal.WriterKey
	ctx, cancel := context.WithTimeout(ctx, joinDeadline)
	defer cancel()
	if err := n.redial.try(ctx, keeper); err != nil {
		return seal.Welcome{}, seal.WelcomeContext{}, none, err
	}
	s, err := n.host.NewStream(network.WithNoDial(ctx, "join"), keeper.ID, joinProtocol)
	if err != nil {
		return seal.Welcome{}, seal.WelcomeContext{}, none, fmt.Errorf("join: %w", err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(joinDeadline)); err != nil {
		return seal.Welcome{}, seal.WelcomeContext{}, none, err
	}
	writer, err := seal.NewWriterKey(rand.Reader)
	if err != nil {
		return seal.Welcome{}, seal.WelcomeContext{}, none, err
	}
	dev := n.self.device.ID()
	w, x, err := askKeeper(s, n.self, claim{
		Ver: 1, Space: sid[:], Invite: invite, C: n.self.c[:], Log: n.self.log, Device: dev[:], Writer: writer.Public(),
	}, link)
	if err != nil {
		s.Reset()
	}
	return w, x, writer, err
}

// renewBefore is how long before its end a writer certificate is renewed.
const renewBefore = 2 * 24 * time.Hour

// renew gets a new writer certificate when ours runs out soon: from our own
// issuer, or from a connected peer that is the space's keeper. Until then we
// write on; others take what they get by reconciliation.
func (n *Node) renew(ctx context.Context, a *actor) {
	e := a.current()
	if e.cred == nil || time.Until(time.Unix(int64(e.cred.NotAfter()), 0)) > renewBefore {
		return
	}
	cred, err := n.newCredential(ctx, a, e)
	if err != nil {
		n.log.Warn("renew the writer certificate", "space", fingerprint(a.sid), "err", err)
		return
	}
	m := &recertify{cred: *cred, reply: make(chan error, 1)}
	if _, err := ask(ctx, a, m, m.reply); err != nil {
		n.log.Warn("renew the writer certificate", "space", fingerprint(a.sid), "err", err)
	}
}

func (n *Node) newCredential(ctx context.Context, a *actor, e *epoch) (*seal.Credential, error) {
	if e.iss != nil {
		cred, err := certify(*e.iss, n.self, time.Now())
		return &cred, err
	}
	err := fmt.Errorf("no keeper is connected: %w", space.ErrUnavailable)
	for _, p := range n.book.of(a.sid) {
		if n.host.Network().Connectedness(p.ID) != network.Connected {
			continue
		}
		w, x, writer, askErr := n.askWelcome(ctx, p, a.sid, []byte{}, nil)
		if askErr != nil {
			err = errors.Join(err, askErr)
			continue
		}
		if _, believeErr := believe(n.self, w, x, nil, writer); believeErr != nil {
			err = errors.Join(err, believeErr)
			continue
		}
		if envelope.TopicOf(w.IssuerPub) != e.id {
			err = errors.Join(err, fmt.Errorf("renew: of another epoch: %w", space.ErrUnavailable))
			continue
		}
		return &seal.Credential{Grant: w.Grant, Voucher: w.Voucher, Writer: writer}, nil
	}
	return nil, err
}

// recertify puts a new credential to use: kept first, then the next chain
// begins with it.
type recertify struct {
	cred  seal.Credential
	reply chan error
}

func (m *recertify) handle(a *actor) {
	next := *a.now
	next.cred = &m.cred
	err := a.out.keepEpoch(a, &next)
	if err == nil {
		a.mu.Lock()
		a.now.cred = next.cred
		a.mu.Unlock()
		if a.writer != nil {
			a.writer.Close()
			a.writer = nil
		}
	}
	m.reply <- err
}
