package node

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
)

const (
	punchEvery  = 5 * time.Second  // a look at who is reached through a relay alone
	punchPause  = 10 * time.Second // before the first try of our own; it doubles
	punchMax    = 10 * time.Minute
	punchAtOnce = 4
)

// puncher tries again where a hole punch failed. The host tries once, when a
// circuit comes in: if that circuit is dropped because both sides dialled at
// the same time, or a router was slow, the two would stay with what a relay
// lets through until the circuit ends. Who dialled the circuit leaves it to
// the other side, as DCUtR has it
// (https://github.com/libp2p/specs/blob/master/relay/DCUtR.md).
type puncher struct {
	service *holepunch.Service
	log     *slog.Logger
	tries   map[peer.ID]*dialBackoff // owned by run
}

// option gives the host hole punching, and keeps hold of it.
func (p *puncher) option() libp2p.Option {
	return libp2p.EnableHolePunching(func(s *holepunch.Service) error {
		p.service = s
		return nil
	})
}

// run punches until ctx is done.
func (p *puncher) run(ctx context.Context, h host.Host) {
	t := time.NewTicker(punchEvery)
	defer t.Stop()
	done := make(chan struct{}, punchAtOnce)
	active := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-done:
			active--
		case now := <-t.C:
			// Without a public address there is nothing to offer, and the service waits.
			if !slices.Contains(h.Mux().Protocols(), holepunch.Protocol) {
				continue
			}
			for _, id := range p.due(now, circuitsInto(h)) {
				if active == punchAtOnce {
					break
				}
				active++
				p.put(id, now)
				go func() { // ends with the host at the latest
					p.connect(h, id)
					done <- struct{}{}
				}()
			}
		}
	}
}

// circuitsInto are the peers that reached h through a relay and are not
// connected in another way. Of two that reached each other at once the one
// with the smaller id is to act.
func circuitsInto(h host.Host) (in []peer.ID) {
	for _, id := range h.Network().Peers() {
		if h.Network().Connectedness(id) == network.Limited && dialled(h, id, network.DirInbound) != nil &&
			(h.ID() < id || dialled(h, id, network.DirOutbound) == nil) {
			in = append(in, id)
		}
	}
	return in
}

// dialled is a connection to a peer that one side dialled; nil: none.
func dialled(h host.Host, id peer.ID, by network.Direction) network.Conn {
	for _, c := range h.Network().ConnsToPeer(id) {
		if c.Stat().Direction == by {
			return c
		}
	}
	return nil
}

// connect punches over the circuit that the other side dialled. One that was
// dialled here has to go: the stream for it may take either.
func (p *puncher) connect(h host.Host, id peer.ID) {
	if own := dialled(h, id, network.DirOutbound); own != nil {
		own.Close()
	}
	if err := p.service.DirectConnect(id); err != nil {
		p.log.Debug("no hole was punched", "peer", id, "err", err)
	}
}

// due are those of some peers whose time has come. What is not among them is
// forgotten.
func (p *puncher) due(now time.Time, in []peer.ID) (due []peer.ID) {
	for id := range p.tries {
		if !slices.Contains(in, id) {
			delete(p.tries, id)
		}
	}
	for _, id := range in {
		switch b := p.tries[id]; {
		case b == nil: // the host is at it
			p.put(id, now)
		case !now.Before(b.next):
			due = append(due, id)
		}
	}
	return due
}

// put notes a try, and when the next one is due.
func (p *puncher) put(id peer.ID, now time.Time) {
	b := p.tries[id]
	if b == nil {
		b = &dialBackoff{}
		p.tries[id] = b
	}
	b.next = now.Add(jitter(min(punchMax, punchPause<<min(b.tries, 6))))
	b.tries++
}
