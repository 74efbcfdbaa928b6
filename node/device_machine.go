package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Machine is an empty home that wants to become a device of somebody.
type Machine struct {
	Home       string
	Passphrase []byte // locks the key file; nil: not protected
	Name       string // "": the host's name
	Listen     []string
	NoMDNS     bool
	Host       []libp2p.Option
	Log        *slog.Logger // nil discards
}

// Offer is what the owner carries to a device: the code, and where the machine
// is in case that the local network does not show it.
type Offer struct {
	Code  string   `json:"code"`
	Addrs []string `json:"addrs"`
}

// Enrol waits until a device of the owner's approves this machine, then keeps
// the identity in the home. show is called once, with what to carry.
func (m Machine) Enrol(ctx context.Context, show func(Offer) error) (Identity, error) {
	if err := m.vacant(); err != nil {
		return Identity{}, err
	}
	code, err := identity.NewCode(rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	dev, err := identity.NewDevice(rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	h, key, err := m.host()
	if err != nil {
		return Identity{}, err
	}
	defer h.Close()
	w := &enrolment{m: m, h: h, key: key, code: code, device: dev, done: make(chan enrolled, 1)}
	h.SetStreamHandler(deviceProtocol, func(s network.Stream) { w.serve(ctx, s) })
	if !m.NoMDNS {
		found := mdns.NewMdnsService(h, mdnsService, w)
		if err := found.Start(); err != nil {
			m.logger().Warn("no discovery on the local network: approve with the address", "err", err)
		} else {
			defer found.Close()
		}
	}
	if err := show(Offer{Code: code.String(), Addrs: fullAddrs(h)}); err != nil {
		return Identity{}, err
	}
	select {
	case r := <-w.done:
		return r.id, r.err
	case <-ctx.Done():
		return Identity{}, ctx.Err()
	}
}

// vacant refuses a home that is somebody's.
func (m Machine) vacant() error {
	if Initialised(m.Home) {
		return fmt.Errorf("%s: %w", m.Home, ErrIdentityExists)
	}
	return nil
}

// host is the libp2p host of a machine that is not a node yet, under the key
// and on the port that the node will have.
func (m Machine) host() (host.Host, crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	listen := m.Listen
	if len(listen) == 0 {
		if err := makeHome(m.Home); err != nil {
			return nil, nil, err
		}
		if listen, err = keptListen(m.Home, portFile); err != nil {
			return nil, nil, err
		}
	}
	h, err := newHost(key, listen, newReach(nil, nil, slog.New(slog.DiscardHandler)), "kith", nil, m.Host)
	return h, key, err
}

func (m Machine) logger() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}

// enrolment is a machine while it waits.
type enrolment struct {
	m      Machine
	h      host.Host
	key    crypto.PrivKey
	code   identity.Code
	device identity.Device
	done   chan enrolled // one result

	mu   sync.Mutex // held by the stream that is served; guards kept
	kept *enrolled  // nil: not yet
}

type enrolled struct {
	id  Identity
	err error
}

// HandlePeerFound connects to the nodes that mDNS names: one of them may be
// the approver, which then finds this machine among its peers.
func (w *enrolment) HandlePeerFound(p peer.AddrInfo) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		if err := dial(ctx, w.h, p); err != nil {
			w.m.logger().Debug("peer on the local network", "err", err)
		}
	}()
}

// serve is the machine's side of an enrolment. Whoever does not know the code
// costs one nonce.
func (w *enrolment) serve(ctx context.Context, s network.Stream) {
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(enrolDeadline)); err != nil {
		s.Reset()
		return
	}
	e, err := meet(s, w.code, s.Conn().RemotePeer(), w.h.ID(), false)
	if err != nil {
		s.Reset()
		return
	}
	var who enrolWho
	if err := e.hear(identity.StepWho, &who); err != nil {
		w.m.logger().Warn("somebody who does not know the code asked", "peer", s.Conn().RemotePeer())
		s.Reset()
		return
	}
	r, err := w.accept(e, who)
	if err != nil {
		w.m.logger().Warn("enrolment broke off; approve again", "err", err)
		s.Reset()
	} else {
		// The approver closes when it has read that all is kept.
		_, _ = io.Copy(io.Discard, io.LimitReader(s, maxSmall))
	}
	if r != nil {
		select {
		case w.done <- *r:
		default: // said already
		}
	}
}

// accept asks to be taken in and keeps what comes back. A result ends the
// wait: the identity is here, or the disk does not take it.
func (w *enrolment) accept(e *meetingEnd, who enrolWho) (*enrolled, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(who.C) != 32 {
		return nil, fmt.Errorf("enrolment: %w", space.ErrMalformed)
	}
	req, err := w.device.Request(identity.Commitment(who.C), identity.Caps(who.Caps))
	if err != nil {
		return nil, err
	}
	name := w.m.Name
	if name == "" {
		name = deviceName()
	}
	if err := e.say(identity.StepRequest, enrolRequest{Request: req, Name: name}); err != nil {
		return nil, err
	}
	var g enrolGranted
	if err := e.hear(identity.StepGranted, &g); err != nil {
		return nil, err
	}
	if w.kept == nil {
		c, err := w.believe(g, identity.Commitment(who.C))
		if err != nil {
			return nil, err
		}
		id, err := furnish(w.m.Home, furniture{created: c, hostKey: w.key, passphrase: w.m.Passphrase, list: g.List})
		if err != nil {
			return &enrolled{err: err}, err
		}
		w.kept = &enrolled{id: id}
	}
	return w.kept, e.say(identity.StepDone, enrolDone{OK: true})
}

// believe checks what the approver granted: a log that has this device, the
// per-user key it wraps, and the list that the key opens.
func (w *enrolment) believe(g enrolGranted, c identity.Commitment) (identity.Created, error) {
	st, err := identity.Verify(g.Log)
	if err != nil {
		return identity.Created{}, err
	}
	if st.C != c || !st.Can(w.device.ID(), 0) {
		return identity.Created{}, fmt.Errorf("enrolment: the log does not have this device: %w", space.ErrForged)
	}
	puk, err := identity.UnwrapPUK(w.device, st)
	if err != nil {
		return identity.Created{}, err
	}
	l, err := identity.ParseList(g.List)
	if err == nil {
		err = l.Check(st)
	}
	if err != nil {
		return identity.Created{}, err
	}
	a, err := l.Open(st, puk)
	if err != nil {
		return identity.Created{}, err
	}
	key, err := a.Key()
	if err != nil {
		return identity.Created{}, err
	}
	return identity.Created{Log: slices.Clone(g.Log), Device: w.device, PUK: puk, DIDKey: key, State: st}, nil
}
