package node

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"

	"github.com/kithnet/kith/space/identity"
)

// What peers may hold of this node together and each. The resource manager
// knows no good and bad ones; it refuses what comes beyond.
const (
	maxConns     = 512 // in all, half of it inbound; the connection manager trims above 192
	maxFDs       = 512
	maxStreams   = 16_384
	maxMemory    = 512 << 20 // bytes of buffers
	peerConns    = 8
	peerStreams  = 1024
	peerMemory   = 64 << 20
	addressConns = 8  // of one IPv4 address, and of one IPv6 network of 56 bits
	siteConns    = 64 // of one IPv6 network of 48 bits
)

// streamsOf are the streams of one protocol that one peer may have open with
// this node at a time, either way.
func streamsOf() map[protocol.ID]rcmgr.LimitVal {
	return map[protocol.ID]rcmgr.LimitVal{
		syncProtocol: 640, joinProtocol: 16, objectProtocol: 64, forkProtocol: 16,
		proposeProtocol: 16, delegateProtocol: 16, identityProtocol: 16,
	}
}

// limited is the option by which a host has these limits. The addresses in
// exempt may have any number of connections: those of loopback if it is nil.
// A config that names networks names all of them.
func limited(exempt []netip.Prefix) (libp2p.Option, error) {
	if exempt == nil {
		exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	base := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&base)
	each := map[protocol.ID]rcmgr.ResourceLimits{}
	for p, n := range streamsOf() {
		each[p] = rcmgr.ResourceLimits{Streams: n, StreamsInbound: n, StreamsOutbound: n}
	}
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: maxConns, ConnsInbound: maxConns / 2, ConnsOutbound: maxConns / 2, FD: maxFDs,
			Streams: maxStreams, StreamsInbound: maxStreams / 2, StreamsOutbound: maxStreams / 2, Memory: maxMemory,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: maxConns / 4, ConnsInbound: maxConns / 8, ConnsOutbound: maxConns / 4, FD: maxFDs / 4,
			Streams: maxStreams / 16, StreamsInbound: maxStreams / 32, StreamsOutbound: maxStreams / 16, Memory: maxMemory / 8,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: peerConns, ConnsInbound: peerConns, ConnsOutbound: peerConns, FD: peerConns,
			Streams: peerStreams, StreamsInbound: peerStreams, StreamsOutbound: peerStreams, Memory: peerMemory,
		},
		ProtocolPeer: each,
	}
	var v4, v6 []rcmgr.NetworkPrefixLimit
	for _, p := range exempt {
		l := rcmgr.NetworkPrefixLimit{Network: p, ConnCount: math.MaxInt}
		if p.Addr().Is4() {
			v4 = append(v4, l)
		} else {
			v6 = append(v6, l)
		}
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Build(base.AutoScale())),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: addressConns}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: addressConns}, {PrefixLength: 48, ConnCount: siteConns}}),
		rcmgr.WithNetworkPrefixLimit(append([]rcmgr.NetworkPrefixLimit{}, v4...), append([]rcmgr.NetworkPrefixLimit{}, v6...)))
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	return libp2p.ResourceManager(m), nil
}

// validExempt reports networks that are none.
func validExempt(exempt []netip.Prefix) error {
	var errs []error
	for _, p := range exempt {
		if !p.IsValid() || p != p.Masked() {
			errs = append(errs, fmt.Errorf("exempt %v: want a network, as in 10.0.0.0/8", p))
		}
	}
	return errors.Join(errs...)
}

// ownTag protects the peers that a node needs most from being trimmed when it
// has too many connections.
const ownTag = "own"

// shield protects the connections with relays and keepers of one's own spaces,
// and no others: who is one changes.
func (n *Node) shield(peers ...peer.ID) {
	own := map[peer.ID]bool{}
	for _, r := range n.relays.all() {
		own[r.ID] = true
	}
	for _, r := range n.all() {
		r.keptBy(own)
	}
	for _, p := range peers {
		if own[p] {
			n.host.ConnManager().Protect(p, ownTag)
		} else {
			n.host.ConnManager().Unprotect(p, ownTag)
		}
	}
}

// keptBy adds the peers at which devices run that may admit, or order the log.
func (a *actor) keptBy(own map[peer.ID]bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if p, ok := a.homes[a.sequencerID()]; ok {
		own[p] = true
	}
	for k := range a.ctl.Keepers() {
		for _, d := range k.Devices {
			if p, ok := a.homes[identity.DeviceID(d)]; ok {
				own[p] = true
			}
		}
	}
}
