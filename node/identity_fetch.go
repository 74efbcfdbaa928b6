package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// missing are the spaces of the owner's that are not on this device and should
// be.
func (n *Node) missing() []identity.AccountSpace {
	a := n.account
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []identity.AccountSpace
	for _, s := range a.plain.Spaces {
		if !s.Gone && !a.skipped[s.Space] && n.bySpace(s.Space) == nil {
			out = append(out, s)
		}
	}
	return out
}

// How missing spaces are fetched.
const (
	fetchEvery  = time.Second
	fetchMax    = time.Minute
	fetchAtOnce = 8
)

// restoreSpaces brings the owner's spaces to this device: it claims membership
// at whoever may admit, for as long as one is missing.
func (n *Node) restoreSpaces(ctx context.Context) {
	wait := fetchEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(wait)):
		}
		todo := n.missing()
		if len(todo) == 0 {
			wait = fetchEvery
			continue
		}
		before := len(todo)
		var wg sync.WaitGroup
		wg.Go(func() { n.meetSiblings(ctx) })
		n.fetchSpaces(ctx, todo)
		wg.Wait()
		if len(n.missing()) < before {
			wait = fetchEvery
		} else {
			wait = min(2*wait, fetchMax)
		}
	}
}

// meetSiblings connects to the owner's other devices.
func (n *Node) meetSiblings(ctx context.Context) {
	for _, p := range parsePeers(n.account.ways()) {
		if !connectedTo(n.host, p.ID) && p.ID != n.host.ID() {
			if err := n.redial.try(ctx, p); err == nil {
				n.account.poke()
			}
		}
	}
}

func (n *Node) fetchSpaces(ctx context.Context, todo []identity.AccountSpace) {
	slots := make(chan struct{}, fetchAtOnce)
	var wg sync.WaitGroup
	for _, s := range todo {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := n.fetchSpace(ctx, s); err != nil && ctx.Err() == nil {
				n.log.Info("a space of the owner's is not here yet", "space", fingerprint(s.Space), "err", err)
			}
		})
	}
	wg.Wait()
}

// fetchSpace claims membership of one space: at the addresses the account
// names for it, at the owner's other devices, then at whoever is connected.
func (n *Node) fetchSpace(ctx context.Context, s identity.AccountSpace) error {
	tries := parsePeers(append(slices.Clone(s.Addrs), n.account.ways()...))
	for _, p := range n.host.Network().Peers() {
		if !slices.ContainsFunc(tries, func(t peer.AddrInfo) bool { return t.ID == p }) && len(tries) < identityPeers {
			tries = append(tries, peer.AddrInfo{ID: p, Addrs: n.host.Peerstore().Addrs(p)})
		}
	}
	return n.race(ctx, tries, func(ctx context.Context, p peer.AddrInfo) error { return n.rejoin(ctx, p, s) })
}

// headStart is what a node has before the next one is asked beside it.
const headStart = 300 * time.Millisecond

// race asks nodes until one answers: the next one when the one before failed,
// or has not answered for a while. Old addresses take long to fail.
func (n *Node) race(ctx context.Context, peers []peer.AddrInfo, ask func(context.Context, peer.AddrInfo) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := fmt.Errorf("no address is known: %w", space.ErrUnavailable)
	results := make(chan error, len(peers))
	for waiting := 0; ; {
		if len(peers) > 0 {
			p := peers[0]
			peers = peers[1:]
			if p.ID == n.host.ID() {
				continue
			}
			waiting++
			n.spawn(func() { results <- ask(ctx, p) })
		}
		if waiting == 0 {
			return err
		}
		var next <-chan time.Time
		if len(peers) > 0 {
			next = time.After(headStart)
		}
		select {
		case err = <-results:
			if waiting--; err == nil {
				return nil
			}
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rejoin asks one node for a space that the owner is a member of.
func (n *Node) rejoin(ctx context.Context, keeper peer.AddrInfo, s identity.AccountSpace) error {
	q := asking{space: s.Space, invite: []byte{}}
	if s.Head != [32]byte{} {
		q.head = &s.Head
	}
	j, w, err := n.askWelcome(ctx, keeper, q)
	if err != nil {
		return err
	}
	if n.bySpace(s.Space) != nil {
		return nil // it came by another way meanwhile
	}
	name := s.Name
	for _, r := range n.all() {
		if r.petname() == name {
			name = ""
		}
	}
	_, err = n.settleIn(j, w, keeper, name)
	if errors.Is(err, space.ErrSpaceExists) {
		return nil
	}
	return err
}
