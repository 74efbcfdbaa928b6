package node

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
)

const (
	relayDeadline = 30 * time.Second // one request
	leaseRenew    = 3                // a lease is renewed when a third of its time is left
	leaseBack     = 10 * time.Minute // after a relay refused
	leaseDelay    = 3 * time.Second  // members leave new leases to the keepers for so long
	standIdle     = time.Hour        // a topic at a relay is looked at so often at least
	descriptorFor = 990 * 24 * time.Hour
	retentionWish = 400 // days
	hidesAfter    = 3   // receipts in a row that sign for more than is given, receiptGap apart
)

// berth names a topic at a relay: the relay by the peer id that the log names.
type berth struct {
	relay peer.ID
	space [32]byte
	topic envelope.TopicID
}

// tenancy is a stand with what the process alone remembers of it.
type tenancy struct {
	stand
	due    time.Time
	fresh  bool      // the lease was asked for since the relay was connected
	shown  time.Time // the relay last showed the set that we hold
	asked  time.Time // for a receipt
	pace   pace      // of receipts
	wanted bool      // a receipt is
	hides  int       // receipts in a row that sign for more than is given
	hid    time.Time // the last of these that counted
	err    error     // of the last visit
}

// short takes whether a receipt signs for more than the relay gives, and
// reports whether that is one too many. Receipts that follow each other closely
// count as one: what they sign for may be on its way here.
func (s *tenancy) short(more bool, now time.Time) bool {
	switch {
	case !more:
		s.hides, s.hid = 0, time.Time{}
		return false
	case now.Sub(s.hid) >= receiptGap:
		s.hides++
		s.hid = now
	}
	return s.hides >= hidesAfter
}

// relayKeeper keeps the topics of this node's spaces at their relays: it takes
// and renews leases, brings pages, keeps receipts and holds them against each
// other. One visit at a time goes to a relay. Safe for concurrent use.
type relayKeeper struct {
	n    *Node
	wake chan struct{}

	mu    sync.Mutex // guards what follows
	at    map[berth]*tenancy
	busy  map[peer.ID]bool
	swaps map[swapKey]time.Time
}

func newRelayKeeper(n *Node) *relayKeeper {
	return &relayKeeper{
		n: n, wake: make(chan struct{}, 1), at: map[berth]*tenancy{}, busy: map[peer.ID]bool{}, swaps: map[swapKey]time.Time{},
	}
}

// run visits relays until ctx is done.
func (k *relayKeeper) run(ctx context.Context) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		next := k.begin(ctx)
		t.Reset(max(0, time.Until(next)))
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-t.C:
		}
	}
}

func (k *relayKeeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// begin sends visits to the relays where something is due, and answers when to
// look again.
func (k *relayKeeper) begin(ctx context.Context) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	next := now.Add(standIdle)
	todo := map[peer.ID][]berth{}
	for p, s := range k.at {
		switch {
		case k.busy[p.relay] || !connectedTo(k.n.host, p.relay):
		case !s.due.After(now):
			todo[p.relay] = append(todo[p.relay], p)
		case s.due.Before(next):
			next = s.due
		}
	}
	for r, places := range todo {
		k.busy[r] = true
		places = places[:min(len(places), relay.MaxRequests/8)]
		k.n.spawn(func() {
			k.visit(ctx, r, places)
			k.mu.Lock()
			delete(k.busy, r)
			k.mu.Unlock()
			k.poke()
		})
	}
	return next
}

// took makes what a space names at its relays known here, after a start and
// whenever it changed.
func (k *relayKeeper) took(a *actor) {
	relays := k.n.relays.of(a.sid)
	epochs := a.descending()
	k.mu.Lock()
	for p := range k.at {
		if p.space == a.sid && !slices.ContainsFunc(relays, func(r peer.AddrInfo) bool { return r.ID == p.relay }) {
			delete(k.at, p)
		}
	}
	for _, r := range relays {
		for _, e := range epochs {
			p := berth{r.ID, a.sid, e.id}
			s := k.at[p]
			if s == nil {
				s = &tenancy{stand: a.loadStand(p)}
				k.at[p] = s
				for _, h := range parsePeers(s.Addrs) {
					k.n.relays.host(r.ID, h)
				}
			}
			s.due = time.Now()
			if e.iss == nil {
				s.due = s.due.Add(jitter(leaseDelay))
			}
		}
	}
	k.mu.Unlock()
	k.poke()
}

// forget drops a space.
func (k *relayKeeper) forget(sid [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p := range k.at {
		if p.space == sid {
			delete(k.at, p)
		}
	}
}

// leased reports whether a relay took a topic since it was connected, and
// serves it at the host named.
func (k *relayKeeper) leased(p berth, at peer.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.at[p]
	return s != nil && s.fresh && slices.Contains(s.hosts(p.relay), at)
}

// connected asks a relay that came for everything again: it may have been
// restarted, or be another machine with nothing on it.
func (k *relayKeeper) connected(r peer.ID) {
	k.mu.Lock()
	found := false
	for p, s := range k.at {
		if p.relay == r {
			s.fresh, s.due, found = false, time.Now(), true
			s.asked, s.pace, s.wanted = time.Time{}, pace{}, s.wanted || len(s.Last) > 0 // before it is filled again
		}
	}
	k.mu.Unlock()
	if found {
		k.poke()
	}
}

// moved compares a space of which more is held now with its relays, and wants
// their receipts.
func (k *relayKeeper) moved(a *actor) {
	e := a.current()
	if e == nil {
		return
	}
	for _, r := range k.n.relays.serve(a.sid) {
		if connectedTo(k.n.host, r) {
			k.n.reconcile(a.sid, r)
		}
	}
	k.want(a.sid, e.id, "", receiptSoon)
}

// want makes a receipt due at a relay, or at all of them.
func (k *relayKeeper) want(sid [32]byte, topic envelope.TopicID, of peer.ID, after time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.n.relays.of(sid) {
		s := k.at[berth{r.ID, sid, topic}]
		if s == nil || of != "" && of != r.ID {
			continue
		}
		due := time.Now().Add(after)
		if earliest := s.pace.next(); due.Before(earliest) {
			due = earliest
		}
		if s.wanted = true; due.Before(s.due) {
			s.due = due
		}
	}
	k.poke()
}

// showed notes what a round with a peer has shown about an epoch.
func (k *relayKeeper) showed(a *actor, e *epoch, with peer.ID, equal bool) {
	r, serving := k.n.relays.serving(a.sid, with)
	switch {
	case !equal:
	case serving:
		k.mu.Lock()
		if s := k.at[berth{r, a.sid, e.id}]; s != nil {
			s.shown = time.Now()
		}
		k.mu.Unlock()
		k.want(a.sid, e.id, r, receiptAfter)
	case len(k.n.relays.of(a.sid)) > 0:
		k.n.swapReceipts(a, e, with)
	}
}

// visit looks after some topics at one relay.
func (k *relayKeeper) visit(ctx context.Context, r peer.ID, places []berth) {
	s, c, err := k.open(ctx, r)
	if err != nil {
		k.put(places, err)
		return
	}
	defer s.Close()
	for i, p := range places {
		a := k.n.bySpace(p.space)
		if a == nil || a.epoch(p.topic) == nil {
			k.mu.Lock()
			delete(k.at, p)
			k.mu.Unlock()
			continue
		}
		v := &visit{k: k, a: a, e: a.epoch(p.topic), p: p, c: c, s: s}
		err := v.run(ctx)
		k.put(places[i:i+1], err)
		if err != nil && !refusedByRelay(err) {
			s.Reset()
			k.put(places[i+1:], err)
			return
		}
	}
}

// open opens a stream to a relay that is connected.
func (k *relayKeeper) open(ctx context.Context, r peer.ID) (network.Stream, *relay.Client, error) {
	s, err := k.n.host.NewStream(overCircuit(ctx, "relay"), r, relay.Protocol)
	if err != nil {
		return nil, nil, fmt.Errorf("reach the relay: %w", err)
	}
	err = s.SetDeadline(time.Now().Add(relayDeadline))
	var c *relay.Client
	if err == nil {
		c, err = relay.NewClient(s, k.n.host.ID(), r)
	}
	if err != nil {
		s.Reset()
		return nil, nil, err
	}
	return s, c, nil
}

// put notes how visits went and when the next is due.
func (k *relayKeeper) put(places []berth, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range places {
		s := k.at[p]
		if s == nil {
			continue
		}
		s.err = err
		switch {
		case refusedByRelay(err):
			s.due = time.Now().Add(jitter(leaseBack))
		case err != nil:
			s.due = time.Now().Add(jitter(receiptGap))
		case s.wanted:
			s.due = time.Now().Add(max(receiptSoon, time.Until(s.pace.next())))
		default:
			s.due = time.Now().Add(jitter(standIdle))
		}
	}
}

// refusedByRelay reports whether a relay answered, and the answer was no.
func refusedByRelay(err error) bool {
	for _, e := range []error{relay.ErrRefused, relay.ErrNoLease, relay.ErrQuota, relay.ErrNoRoom, relay.ErrBusy, relay.ErrExpired, relay.ErrDescriptor, errNoDescriptor} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// visit is one topic looked after at one relay.
type visit struct {
	k *relayKeeper
	a *actor
	e *epoch
	p berth
	c *relay.Client
	s network.Stream

	code string // pays for the lease; "": the open one
}

func (v *visit) prove(m []byte) []byte { return v.e.proveToRelay(m) }

// proveToRelay signs what shows a relay that one holds the epoch's fetch key.
func (e *epoch) proveToRelay(m []byte) []byte { return space.Sign(e.keys.Fetch(), space.LabelLease, m) }

// now is what is known of the place.
func (v *visit) now() tenancy {
	v.k.mu.Lock()
	defer v.k.mu.Unlock()
	if s := v.k.at[v.p]; s != nil {
		return *s
	}
	return tenancy{}
}

// change changes what is known of the place and keeps it.
func (v *visit) change(f func(*tenancy)) error {
	v.k.mu.Lock()
	s := v.k.at[v.p]
	if s == nil {
		v.k.mu.Unlock()
		return nil
	}
	f(s)
	row := s.stand
	v.k.mu.Unlock()
	return v.a.keepStand(v.p, row)
}

func (v *visit) run(ctx context.Context) error {
	if err := v.lease(); err != nil {
		return err
	}
	if err := v.pages(); err != nil {
		return err
	}
	if s := v.now(); s.wanted && !time.Now().Before(s.pace.next()) {
		return v.receipt()
	}
	return nil
}

// lease takes or renews the lease, once each time that the relay was
// connected, and early before its end.
func (v *visit) lease() error {
	s := v.now()
	left := time.Until(time.Unix(int64(s.Expires), 0))
	early := 30 * 24 * time.Hour / leaseRenew
	if v.e.iss == nil {
		early /= 2 // keepers first
	}
	if s.fresh && left > early && v.code == "" {
		return nil
	}
	if err := v.s.SetDeadline(time.Now().Add(relayDeadline)); err != nil {
		return err
	}
	l, err := v.leased(s.Token)
	if err != nil {
		return err
	}
	hosts := parsePeers(l.Addrs)
	for _, h := range hosts {
		v.k.n.relays.host(v.p.relay, h)
		v.k.n.book.learn(v.a.sid, h)
	}
	err = v.change(func(s *tenancy) {
		s.Token, s.Expires, s.Bytes, s.Used, s.Addrs, s.fresh = l.Token, l.Expires, l.Bytes, l.Used, l.Addrs, true
	})
	if !s.fresh {
		v.k.n.outside.poke() // whom the relay knows, it lets be reached
	}
	if len(hosts) == 0 {
		hosts = []peer.AddrInfo{{ID: v.p.relay}}
	}
	for _, h := range hosts {
		if connectedTo(v.k.n.host, h.ID) {
			v.k.n.sync1(v.a, v.e, h.ID)
		} else {
			v.k.n.redial.poke()
		}
	}
	return err
}

// leased renews the lease that a token is of, which somebody may have paid for;
// the relay may know nothing of it any more. A code, or no token, asks anew.
func (v *visit) leased(token []byte) (l relay.Lease, err error) {
	if v.code == "" && len(token) == len(relay.Token{}) {
		if l, err = v.c.Renew(v.p.topic, relay.Token(token), v.prove); err == nil || !refusedByRelay(err) {
			return l, err
		}
	}
	d, err := v.a.topicDescriptor(v.e)
	if err != nil {
		return l, err
	}
	return v.c.Lease(d, v.code, v.prove)
}

// sync1 leads a round about one epoch, whatever is known of it already.
func (n *Node) sync1(a *actor, e *epoch, with peer.ID) {
	if e == a.current() {
		n.reconcile(a.sid, with)
		return
	}
	a.mu.Lock()
	delete(a.syncs[with], e.n)
	a.mu.Unlock()
	n.reconcile(a.sid, with)
}

// pages brings the pages of the epoch that follows, which its readers fetch
// under this one's key, as far as they are here.
func (v *visit) pages() error {
	if v.now().Pages {
		return nil
	}
	hashes, closed, err := v.a.pagesAfter(v.e)
	if err != nil || !closed {
		return err
	}
	for _, h := range hashes {
		box, ok, err := v.a.store.Object(h)
		if err != nil || !ok {
			continue // somebody who has it brings it
		}
		if err := v.s.SetDeadline(time.Now().Add(relayDeadline)); err != nil {
			return err
		}
		if err := v.c.Put(v.p.topic, relay.Page, box, v.prove); err != nil {
			return err
		}
	}
	return v.change(func(s *tenancy) { s.Pages = true })
}

// receipt asks what the relay holds and judges the answer.
func (v *visit) receipt() error {
	if err := v.s.SetDeadline(time.Now().Add(relayDeadline)); err != nil {
		return err
	}
	before, forked := v.a.holds(v.e)
	r, err := v.c.Receipt(v.p.topic, v.prove)
	if err != nil {
		return err
	}
	key, err := relay.KeyOf(v.p.relay)
	if err != nil {
		return err
	}
	if !key.Equal(r.Relay) {
		return fmt.Errorf("receipt of another relay: %w", space.ErrForged)
	}
	after, _ := v.a.holds(v.e)
	now := time.Now()
	var caught, behind bool
	err = v.change(func(s *tenancy) {
		s.asked, s.wanted = now, false
		s.pace.take(now)
		caught = s.hear(r, true, forked, now)
		more := before == after && r.Count > after.count && !s.shown.IsZero()
		if s.short(more, now) {
			said := r.Bytes()
			caught = s.charged(charge{Kind: chargeHides, At: uint64(now.UnixMilli()), Said: said, Then: []byte{}, Held: after.count}) || caught
		}
		split := before == after && r.Count == after.count && r.Digest != after.digest && !forked
		behind = more || r.Count < after.count || split
		s.wanted = behind
	})
	if caught {
		v.k.n.log.Warn("a relay was caught", "relay", v.p.relay, "space", fingerprint(v.a.sid), "epoch", v.e.n)
	}
	if behind {
		row := v.now()
		for _, h := range row.hosts(v.p.relay) {
			v.k.n.sync1(v.a, v.e, h)
		}
	}
	return err
}

// hosts are the peers at which a relay serves the topic.
func (s *stand) hosts(relay peer.ID) []peer.ID {
	var out []peer.ID
	for _, h := range parsePeers(s.Addrs) {
		out = append(out, h.ID)
	}
	if len(out) == 0 {
		out = append(out, relay)
	}
	return out
}

// holds is the set of an epoch as it is here, and whether a chain of it was
// cut at a fork.
func (a *actor) holds(e *epoch) (epochSet, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	forked := false
	for ch := range e.topic.Chains() {
		if _, cut := e.topic.Fork(ch.ID); cut {
			forked = true
			break
		}
	}
	return epochSet{e.n, e.topic.Count(), e.topic.Digest()}, forked
}

// errNoDescriptor: the log names none, and this node does not hold the issuer.
var errNoDescriptor = fmt.Errorf("the topic has no descriptor here: %w", space.ErrNoKey)

// topicDescriptor is what relays are told of an epoch's topic.
func (a *actor) topicDescriptor(e *epoch) (envelope.Descriptor, error) {
	inner, err := a.inner(a.control(), e)
	if err != nil {
		return envelope.Descriptor{}, err
	}
	raw := inner.Descriptor
	if len(raw) == 0 {
		if e.iss == nil {
			return envelope.Descriptor{}, errNoDescriptor
		}
		d := describeTopic(*e.iss, e.keys.Fetch().Public().(ed25519.PublicKey), time.Now())
		raw = d[:]
	}
	return envelope.ParseDescriptor(raw)
}

// describeTopic makes the descriptor of an epoch that begins now.
func describeTopic(iss seal.Issuer, fetch ed25519.PublicKey, now time.Time) [envelope.DescriptorSize]byte {
	return iss.Describe(fetch, envelope.MaxSize, uint64(now.Add(descriptorFor).Unix()), retentionWish)
}

// pagesAfter are the wrap pages of the epoch that follows e; closed: there is
// one.
func (a *actor) pagesAfter(e *epoch) (hashes [][32]byte, closed bool, err error) {
	at, ok := a.control().Opened(e.n + 1)
	if !ok {
		return nil, false, nil
	}
	raw, ok, err := a.rawControl(at.Seq)
	if err != nil || !ok {
		return nil, false, err
	}
	entry, err := control.Parse(raw)
	if err == nil {
		err = entry.Open(e.keys.Control().Bytes())
	}
	if err != nil {
		return nil, false, err
	}
	body, ok := epochOf(entry)
	return body.Pages, ok, nil
}

// standName is the row of a place in the space's store.
func standName(p berth) string {
	return "relay/" + hex.EncodeToString([]byte(p.relay)) + "/" + hex.EncodeToString(p.topic[:])
}

// loadStand reads what is kept of a place; what cannot be read is nothing.
func (a *actor) loadStand(p berth) stand {
	var s stand
	raw, ok, err := a.store.Meta(standName(p))
	if err == nil && ok {
		err = space.Unmarshal(raw, &s)
	}
	if err != nil {
		a.log.Warn("what is known of a relay cannot be read", "err", err)
		return stand{}
	}
	return s
}

func (a *actor) keepStand(p berth, s stand) error {
	s.Token, s.Last = orEmpty(s.Token), orEmpty(s.Last)
	raw, err := space.Marshal(s)
	if err == nil {
		err = a.store.Commit(store.Remote, &store.Batch{Meta: map[string][]byte{standName(p): raw}})
	}
	if err != nil {
		return fmt.Errorf("keep what is known of a relay: %w", err)
	}
	return nil
}

// orEmpty is b, or no bytes in the place of nil.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
