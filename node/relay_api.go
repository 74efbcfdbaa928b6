package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

// SetRelays opens an epoch that names other relays than the one before. A relay
// that is left out hears nothing of it: its topic is another one.
func (n *Node) SetRelays(ctx context.Context, id space.ID, relays []string) (uint64, error) {
	if err := checkRelays(relays); err != nil {
		return 0, err
	}
	a, err := n.byID(id)
	if err != nil {
		return 0, err
	}
	st, err := n.amend(ctx, a, func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		have, err := a.relays(st)
		if err != nil || slices.Equal(have, relays) {
			return 0, nil, nil, err
		}
		rot, err := a.rotateTo(st, control.KindEpoch, control.Rotation{}, nil, relays)
		if err != nil {
			return 0, nil, nil, err
		}
		return control.KindEpoch, *rot.body, rot.pages, nil
	})
	if err != nil {
		return 0, fmt.Errorf("relays of %s: %w", id, err)
	}
	return st.Epoch, nil
}

// relayStatus is how the relays of a space look from here.
func (n *Node) relayStatus(a *actor) (out []xrpc.RelayStatus) {
	e := a.current()
	for _, r := range n.relays.of(a.sid) {
		s := xrpc.RelayStatus{PeerID: r.ID.String(), Addrs: []string{}, Connected: connectedTo(n.host, r.ID)}
		for _, m := range r.Addrs {
			s.Addrs = append(s.Addrs, m.String()+"/p2p/"+r.ID.String())
		}
		if e != nil {
			set, _ := a.holds(e)
			n.relayed.show(&s, berth{r.ID, a.sid, e.id}, set)
		}
		for _, c := range n.relayed.caught(r.ID.String(), a.sid) {
			s.Caught = append(s.Caught, c.String())
		}
		out = append(out, s)
	}
	return out
}

// LeaseRelay asks a relay of a space for a lease that an access code pays for,
// on the topic of the epoch in force.
func (n *Node) LeaseRelay(ctx context.Context, id space.ID, at, code string) (xrpc.RelayStatus, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.RelayStatus{}, err
	}
	p, err := peer.Decode(at)
	e := a.current()
	switch {
	case err != nil:
		return xrpc.RelayStatus{}, fmt.Errorf("relay %q: not a peer id: %w", at, space.ErrMalformed)
	case e == nil:
		return xrpc.RelayStatus{}, space.ErrNoKey
	case !slices.ContainsFunc(n.relays.of(a.sid), func(r peer.AddrInfo) bool { return r.ID == p }):
		return xrpc.RelayStatus{}, fmt.Errorf("%s is no relay of %s: %w", p, id, xrpc.ErrPeerNotFound)
	case !connectedTo(n.host, p):
		return xrpc.RelayStatus{}, fmt.Errorf("relay %s is not connected: %w", p, xrpc.ErrPeerNotFound)
	}
	if err := n.relayed.pay(ctx, a, berth{p, a.sid, e.id}, code); err != nil {
		if refusedByRelay(err) {
			err = fmt.Errorf("%w: %w", err, space.ErrForbidden)
		}
		return xrpc.RelayStatus{}, fmt.Errorf("relay %s: %w", p, err)
	}
	for _, s := range n.relayStatus(a) {
		if s.PeerID == p.String() {
			return s, nil
		}
	}
	return xrpc.RelayStatus{}, xrpc.ErrPeerNotFound
}

// pay takes a lease with an access code.
func (k *relayKeeper) pay(ctx context.Context, a *actor, p berth, code string) error {
	s, c, err := k.open(ctx, p.relay)
	if err != nil {
		return err
	}
	defer s.Close()
	v := &visit{k: k, a: a, e: a.epoch(p.topic), p: p, c: c, s: s, code: code}
	if v.e == nil {
		return space.ErrNoKey
	}
	return v.lease()
}

// show fills in what is known of the epoch in force at a relay.
func (k *relayKeeper) show(s *xrpc.RelayStatus, p berth, set epochSet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.at[p]
	if t == nil {
		return
	}
	if t.Expires != 0 {
		s.LeaseExpires, s.Bytes, s.Used = int64(t.Expires)*1000, t.Bytes, t.Used
	}
	if r, err := relay.ParseReceipt(t.Last); err == nil {
		s.Signed, s.SignedAt = r.Count, int64(r.Time)
		s.HoldsAll = r.Count == set.count && r.Digest == set.digest
	}
	switch {
	case t.err != nil:
		s.LastError = t.err.Error()
	case t.hides > 1: // once may be on its way
		s.LastError = fmt.Sprintf("it signed for %d entries and gives %d so far", s.Signed, set.count)
	case s.SignedAt != 0 && !s.HoldsAll && t.wanted && time.Since(time.UnixMilli(s.SignedAt)) > lagAllowed:
		s.LastError = fmt.Sprintf("it has not signed for all %d entries yet", set.count)
	}
}

// lagAllowed is how long a relay may take to sign for what it was given.
const lagAllowed = time.Minute

// caught is what a relay was caught at in a space, of all epochs.
func (k *relayKeeper) caught(relay string, sid [32]byte) (out []charge) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, t := range k.at {
		if p.space == sid && p.relay.String() == relay {
			out = append(out, t.Charges...)
		}
	}
	slices.SortFunc(out, func(a, b charge) int { return int(a.At) - int(b.At) })
	return out
}

// relayWarnings names the relays that were caught.
func (n *Node) relayWarnings() (out []string) {
	for _, r := range n.all() {
		for _, s := range n.relayStatus(r.actor) {
			if len(s.Caught) > 0 {
				out = append(out, fmt.Sprintf("relay %s of %s was caught: %s", s.PeerID, r.id, strings.Join(s.Caught, "; ")))
			}
		}
	}
	return out
}
