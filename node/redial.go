package node

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// redialer keeps every space connected to some of its peers, and the node to
// its bootstrap peers: links die and nothing else restores them.
type redialer struct {
	h       host.Host
	book    *peerBook
	spaces  func() [][32]byte
	always  []peer.AddrInfo
	relays  func() []peer.AddrInfo // own relays: ways to others
	dialled func() []peer.AddrInfo // these and their hosts: kept connected
	log     *slog.Logger
	wake    chan struct{}

	mu    sync.Mutex            // guards what follows
	rests map[peer.ID]time.Time // peers not to be dialled until then
	news  map[peer.ID]bool      // peers of which another address came

	// Owned by run.
	flying  map[peer.ID]bool // peers that are being dialled
	backoff map[peer.ID]*dialBackoff
	probed  map[[32]byte]time.Time // when a space with links enough got one more
}

type dialBackoff struct {
	next  time.Time
	tries int
}

const (
	dialsAtOnce  = 8
	enoughPeers  = 2 * wantPeers   // links of a space beyond which more are rare
	probeEvery   = 2 * time.Minute // for a space that has enough
	probesAtOnce = 8               // spaces that get a dial beyond what they want, each round
	dialTimeout  = 10 * time.Second
	addrTimeout  = 4 * time.Second  // one address; libp2p tries eight of a peer's at once, and old ones hang
	dialMax      = 30 * time.Second // longest pause between two tries of one peer
)

func newRedialer(h host.Host, book *peerBook, always []peer.AddrInfo, spaces func() [][32]byte, log *slog.Logger) *redialer {
	return &redialer{
		h: h, book: book, spaces: spaces, always: always, log: log,
		wake: make(chan struct{}, 1), rests: map[peer.ID]time.Time{}, news: map[peer.ID]bool{},
		flying: map[peer.ID]bool{}, backoff: map[peer.ID]*dialBackoff{}, probed: map[[32]byte]time.Time{},
	}
}

// poke makes the next round happen now: a link died, a space was joined.
func (r *redialer) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// moved says that a peer is somewhere else than where dials failed.
func (r *redialer) moved(p peer.ID) {
	r.mu.Lock()
	r.news[p] = true
	r.mu.Unlock()
	r.poke()
}

// hear forgets how dials of peers went that have moved, but for those being
// dialled where they were.
func (r *redialer) hear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.news {
		if !r.flying[p] {
			delete(r.news, p)
			delete(r.backoff, p)
		}
	}
}

// run dials until ctx is done. A dial to where nobody is takes seconds: what
// turns up meanwhile does not wait for it.
func (r *redialer) run(ctx context.Context) {
	notify := &network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { r.poke() }}
	r.h.Network().Notify(notify)
	defer r.h.Network().StopNotify(notify)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots, landed := make(chan struct{}, dialsAtOnce), make(chan landing)
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-landed:
			if r.land(l, time.Now()); !r.isNews(l.peer) {
				continue
			}
		case <-timer.C:
		case <-r.wake:
		}
		r.hear()
		for _, p := range r.missing(time.Now()) {
			r.flying[p.ID] = true
			wg.Go(func() {
				l := landing{p.ID, r.fly(ctx, p, slots)}
				select {
				case landed <- l:
				case <-ctx.Done():
				}
			})
		}
		timer.Reset(jitter(redialEvery))
	}
}

func (r *redialer) isNews(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news[p]
}

// landing is how a dial ended.
type landing struct {
	peer peer.ID
	err  error
}

// fly dials a peer when there is a slot. The few that are to be connected always
// need none.
func (r *redialer) fly(ctx context.Context, p peer.AddrInfo, slots chan struct{}) error {
	if !r.needed(p.ID) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.try(ctx, p)
}

// needed reports whether a peer is a relay of ours or a bootstrap peer.
func (r *redialer) needed(p peer.ID) bool {
	return slices.ContainsFunc(slices.Concat(r.dialled(), r.always), func(o peer.AddrInfo) bool { return o.ID == p })
}

func (r *redialer) land(l landing, now time.Time) {
	delete(r.flying, l.peer)
	if l.err != nil {
		r.failed(l.peer, now)
	} else {
		delete(r.backoff, l.peer)
	}
}

// failed puts off the next dial of a peer that did not answer.
func (r *redialer) failed(p peer.ID, now time.Time) {
	b := r.backoff[p]
	if b == nil {
		b = &dialBackoff{}
		r.backoff[p] = b
	}
	b.tries++
	b.next = now.Add(jitter(min(dialMax, redialEvery<<min(b.tries-1, 4))))
}

// rest lets a peer be for a while; 0 ends that.
func (r *redialer) rest(p peer.ID, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for old, until := range r.rests {
		if old == p || !time.Now().Before(until) {
			delete(r.rests, old)
		}
	}
	if d > 0 {
		r.rests[p] = time.Now().Add(d)
	}
}

func (r *redialer) resting(p peer.ID, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.rests[p])
}

// missing are the peers to dial now: bootstrap peers that are not connected,
// and for every space some of its known peers, less those being dialled.
func (r *redialer) missing(now time.Time) []peer.AddrInfo {
	var out []peer.AddrInfo
	seen := map[peer.ID]bool{}
	due := func(p peer.AddrInfo) bool {
		b := r.backoff[p.ID]
		return (b == nil || !now.Before(b.next)) && !r.flying[p.ID] && !r.resting(p.ID, now)
	}
	add := func(p peer.AddrInfo) {
		if !seen[p.ID] && due(p) {
			seen[p.ID] = true
			out = append(out, p)
		}
	}
	for _, p := range append(r.dialled(), r.always...) {
		if !r.connected(p.ID) {
			add(p)
		}
	}
	probes := 0
	for _, s := range r.spaces() {
		links, flying := 0, 0
		var candidates []peer.AddrInfo
		for _, p := range r.book.lately(s) {
			switch {
			case r.connected(p.ID):
				links++
			case r.flying[p.ID]:
				flying++
			case due(p):
				candidates = append(candidates, p)
			}
		}
		// One more than is wanted: a side of a partition may be well linked
		// within itself, and only a dial across it ends the partition. But
		// gossip and greetings cost something with every link: whoever has
		// lost none looks across now and then.
		n := max(0, wantPeers-links-flying)
		if flying == 0 && probes < probesAtOnce && (links < enoughPeers || now.Sub(r.probed[s]) >= probeEvery) {
			n, probes = n+1, probes+1
			r.probed[s] = now
		}
		for _, p := range r.choose(candidates, n) {
			add(p)
		}
	}
	return out
}

// choose takes n of the peers of a space, which come with those first that were
// here last. A book fills with peers that are gone, each of which takes the
// whole of dialTimeout: so half of those taken are who was here last, after
// whom fewer tries were in vain, and the others any, for peers across a
// partition and peers that came back are anywhere.
func (r *redialer) choose(from []peer.AddrInfo, n int) []peer.AddrInfo {
	n = min(n, len(from))
	slices.SortStableFunc(from, func(x, y peer.AddrInfo) int { return r.vain(x.ID) - r.vain(y.ID) })
	rest := from[(n+1)/2:]
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return from[:n]
}

// vain is how often in a row a peer did not answer.
func (r *redialer) vain(p peer.ID) int {
	if b := r.backoff[p]; b != nil {
		return b.tries
	}
	return 0
}

func (r *redialer) connected(p peer.ID) bool {
	return connectedTo(r.h, p)
}

func (r *redialer) try(ctx context.Context, p peer.AddrInfo) error {
	forgetFailures(r.h, p.ID) // our own back-off decides here
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// Where a relay of ours is up, whoever uses it too can be reached through it.
	for _, relay := range r.relays() {
		if relay.ID != p.ID && connectedTo(r.h, relay.ID) {
			p.Addrs = append(slices.Clip(p.Addrs), throughRelay(relay)...)
		}
	}
	err := dial(network.WithAllowLimitedConn(ctx, "dial"), r.h, p)
	if err != nil {
		r.log.Debug("dial failed", "peer", p.ID, "err", err)
	}
	return err
}
