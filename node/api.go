package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// The node serves the HTTP API as its owner.
var (
	_ xrpc.Spaces  = (*Node)(nil)
	_ xrpc.Records = (*Node)(nil)
	_ xrpc.Repos   = (*Node)(nil)
	_ xrpc.Node    = (*Node)(nil)
)

// CreateSpace founds a space of the owner's and makes it durable.
func (n *Node) CreateSpace(ctx context.Context, s xrpc.NewSpace) (xrpc.SpaceInfo, error) {
	if err := s.Policy.Validate(); err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("create space: %w", err)
	}
	if err := checkRelays(s.Relays); err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("create space: %w", err)
	}
	now := time.Now()
	if s.Key == "" {
		s.Key = space.RecordKey(space.NextTID(now.UnixMicro(), n.self.clock, 0).String())
	}
	id := space.ID{Authority: n.self.did, Type: s.Type, Key: s.Key}
	var own *ownDID
	if s.OwnDID {
		var err error
		if own, err = drawDID(n.self.c); err != nil {
			return xrpc.SpaceInfo{}, fmt.Errorf("create space: %w", err)
		}
		id.Authority = own.did
	}
	release, err := n.claimName(id, s.Name)
	if err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("create space: %w", err)
	}
	defer release()
	f, err := found(n.self, id, s.Name, s.Policy, own, s.Relays, now)
	if err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("create space: %w", err)
	}
	if own != nil {
		if err := n.keepDID(f.state.SpaceID, own); err != nil {
			return xrpc.SpaceInfo{}, fmt.Errorf("create space: %w", err)
		}
	}
	a, err := n.keep(f.rec, f.entries, nil)
	if err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("create space: %w", err)
	}
	m := &announce{entries: f.entries, reply: make(chan error, 1)}
	if err, sendErr := ask(ctx, a, m, m.reply); sendErr != nil || err != nil {
		n.log.Warn("the founding entries wait for the next write", "err", err)
	}
	return a.info(), nil
}

// claimName holds an address and a petname while a space of that name is
// made: two requests at once do not both get it.
func (n *Node) claimName(id space.ID, name string) (release func(), err error) {
	n.naming.Lock()
	for _, r := range n.all() {
		if r.id == id && r.place() == live {
			err = fmt.Errorf("%s: %w", id, space.ErrSpaceExists)
		} else if name != "" && r.petname() == name {
			err = fmt.Errorf("name %q: %w", name, xrpc.ErrPetnameTaken)
		}
	}
	if err != nil {
		n.naming.Unlock()
		return nil, err
	}
	return n.naming.Unlock, nil
}

// Space shows one space.
func (n *Node) Space(_ context.Context, id space.ID) (xrpc.SpaceInfo, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.SpaceInfo{}, err
	}
	return a.info(), nil
}

// Spaces lists the owner's spaces.
func (n *Node) Spaces(context.Context) ([]xrpc.SpaceInfo, error) {
	var out []xrpc.SpaceInfo
	for _, r := range n.all() {
		if r.place() == live {
			out = append(out, r.info())
		}
	}
	return out, nil
}

func (a *actor) info() xrpc.SpaceInfo {
	a.mu.RLock()
	defer a.mu.RUnlock()
	level, _ := a.standing(a.ctl)
	info := xrpc.SpaceInfo{
		ID: a.id, SpaceID: a.sid, Authority: a.ctl.Authority.DID, Creator: a.ctl.Creator, Policy: a.ctl.Policy,
		Level: level, Epoch: a.ctl.Epoch, Name: a.name, CreatedMs: a.ctl.CreatedMs,
		Frozen: a.proof != nil, UnverifiedHead: a.unverified != "",
	}
	for _, r := range a.repos {
		info.Rev = max(info.Rev, r.Rev())
	}
	return info
}

// Write applies the owner's writes as one batch.
func (n *Node) Write(ctx context.Context, id space.ID, writes []xrpc.Write, o xrpc.WriteOptions) (xrpc.Written, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Written{}, err
	}
	blobs, err := n.blobsFor(ctx, a, writes)
	if err != nil {
		return xrpc.Written{}, err
	}
	return a.write(ctx, &writeRequest{writes: writes, opts: o, blobs: blobs, quota: [2]uint64{n.userQuota(), n.spaceQuota()}})
}

// Status is the node in words and numbers.
func (n *Node) Status(ctx context.Context) (xrpc.Status, error) {
	peers, err := n.Peers(ctx)
	if err != nil {
		return xrpc.Status{}, err
	}
	s := xrpc.Status{
		Version: n.cfg.Version, DID: n.self.did, PeerID: n.host.ID().String(), Home: n.cfg.Home,
		Listen: fullAddrs(n.host), Peers: peers, Spaces: []xrpc.SpaceStatus{}, Warnings: n.warnings(),
		Counters: n.counters(), Keeper: n.cfg.Keeper, Relay: n.relay != nil, Reach: string(n.outside.seen()), Metrics: n.meter.url(),
	}
	for _, r := range n.all() {
		row := r.status()
		row.Relays = n.relayStatus(r.actor)
		s.Spaces = append(s.Spaces, row)
	}
	return s, nil
}

// warnings are what the owner should know and do something about.
func (n *Node) warnings() []string {
	w := n.keys.Warnings()
	if !n.keys.Protected() {
		w = append(w, "the key file has no passphrase: whoever gets this disk can read everything")
	}
	if exists(WordsFile(n.cfg.Home)) {
		w = append(w, "the recovery words still lie in "+WordsFile(n.cfg.Home)+": write them down, then: kith id words --confirm")
	}
	if n.store.Recovered() && n.store.DamagedCopy() != "" {
		w = append(w, "the store was damaged and repaired; a copy of it is in "+n.store.DamagedCopy())
	}
	for _, r := range n.all() {
		if r.inDoubt() {
			w = append(w, r.id.String()+" was repaired, and no other member's node has said yet that nothing is missing")
		}
	}
	w = append(w, n.deviceWarnings()...)
	w = append(w, n.delegationWarnings()...)
	w = append(w, n.keeperWarnings()...)
	w = append(w, n.relayWarnings()...)
	if err := n.store.Err(); err != nil {
		w = append(w, "the store does not take writes: "+err.Error())
	}
	return w
}

// Peers are the connected libp2p peers.
func (n *Node) Peers(context.Context) ([]xrpc.Peer, error) {
	out := []xrpc.Peer{}
	for _, p := range n.host.Network().Peers() {
		out = append(out, n.peer(p))
	}
	return out, nil
}

func (n *Node) peer(id peer.ID) xrpc.Peer {
	p := xrpc.Peer{PeerID: id.String(), Addrs: []string{}}
	if agent, err := n.host.Peerstore().Get(id, "AgentVersion"); err == nil {
		p.Version, _ = strings.CutPrefix(fmt.Sprint(agent), "kith/")
	}
	for _, c := range n.host.Network().ConnsToPeer(id) {
		p.Addrs = append(p.Addrs, c.RemoteMultiaddr().String())
		p.Direct = p.Direct || !strings.Contains(c.RemoteMultiaddr().String(), "p2p-circuit")
		if at := c.Stat().Opened.UnixMilli(); p.Since == 0 || at < p.Since {
			p.Since = at
		}
	}
	return p
}

// Connect dials an address that ends in /p2p/PEERID, once: a peer that turns
// out to share a space is remembered, any other is not.
func (n *Node) Connect(ctx context.Context, addr string) (xrpc.Peer, error) {
	info, err := parsePeer(addr)
	if err != nil {
		return xrpc.Peer{}, fmt.Errorf("%w: %w", space.ErrMalformed, err)
	}
	n.redial.rest(info.ID, 0)
	if err := n.redial.try(network.WithForceDirectDial(ctx, "asked for"), info); err != nil {
		return xrpc.Peer{}, fmt.Errorf("%w: %w", space.ErrUnavailable, err)
	}
	return n.peer(info.ID), nil
}

// letBe is how long a peer that the owner disconnected is not dialled to keep
// spaces connected. It may dial itself.
const letBe = 10 * time.Minute

// Disconnect closes the connections to a peer.
func (n *Node) Disconnect(_ context.Context, peerID string) error {
	id, err := peer.Decode(peerID)
	if err != nil || n.host.Network().Connectedness(id) == network.NotConnected {
		return fmt.Errorf("disconnect %.64q: %w", peerID, xrpc.ErrPeerNotFound)
	}
	n.redial.rest(id, letBe)
	return n.host.Network().ClosePeer(id)
}
