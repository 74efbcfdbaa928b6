package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/internal/netid"
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// Node is one person's node.
type Node struct {
	cfg      Config
	log      *slog.Logger
	self     *self
	keys     *keyfile.Store
	store    *store.Store
	storeKey [32]byte
	host     host.Host
	mesh     *gossip.Mesh
	people   *people
	book     *peerBook
	sched    *scheduler
	rates    *rates
	talks    talks
	redial   *redialer
	relays   *ownRelays
	relay    *relay.Relay // the relay role; nil: none
	outside  *reach       // how others get here
	relayed  *relayKeeper // what relays hold for us
	hot      hot          // which spaces are in use
	mender   *mender
	blobs    *blobs
	stats    stats
	api      net.Listener // nil without Config.HTTP
	meter    *meter       // nil without Config.Metrics
	persona
	desk

	ctx    context.Context // done when the node stops
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ending sync.RWMutex // held while cancel is called: nothing is spawned after it

	mu     sync.RWMutex // guards what follows
	spaces map[[32]byte]*running
	sorted []*running // spaces, see all; nil since one came or went
	topics map[envelope.TopicID]*actor
	joins  map[[32]byte]*pendingJoin

	doors     doors
	approvals approvals
	audits    chan struct{} // wakes the wrap auditor
	refolds   chan struct{} // wakes the refolder

	kin   kin    // the spaces that are members of each other
	forks trades // chains that forked

	naming sync.Mutex // held while a space gets its address and name
}

// running is an actor with what keeps it going.
type running struct {
	*actor
	topics map[envelope.TopicID]*gossip.Topic // those heard; none beyond the hot-topic cap: reconciliation alone
	ctx    context.Context                    // done when the space ends
	cancel context.CancelFunc
}

// stop ends the space when it has said what it owes.
func (r *running) stop() {
	r.cancel()
	r.inbox.end(r.actor)
	<-r.ended
}

// New opens the home and assembles the node: keys, store, host, mesh, spaces.
// It listens when it returns. Close ends it.
func New(cfg Config) (_ *Node, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Log, spaces: map[[32]byte]*running{},
		topics: map[envelope.TopicID]*actor{}, joins: map[[32]byte]*pendingJoin{}, audits: make(chan struct{}, 1), refolds: make(chan struct{}, 1),
		relays: newOwnRelays(),
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()

	n.keys, err = keyfile.Open(filepath.Join(cfg.Home, keysDir), keyfile.Unlock{Passphrase: cfg.Passphrase})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", cfg.Home, ErrNoIdentity)
	} else if err != nil {
		return nil, err
	}
	if n.self, n.storeKey, err = openSelf(n.keys); err != nil {
		return nil, err
	}
	if n.desk, err = openDesk(n.keys, cfg.Settings); err != nil {
		return nil, err
	}
	if n.store, err = cfg.open(n.storeKey); err != nil {
		return nil, err
	}
	if n.blobs, err = openBlobs(cfg.Home, n.store); err != nil {
		return nil, err
	}
	n.mender = &mender{store: n.store, every: mendEvery}
	if n.people, err = loadPeople(n.store, n.self); err != nil {
		return nil, err
	}
	if err = n.openPersona(); err != nil {
		return nil, err
	}
	if n.api, err = listenAPI(cfg.HTTP); err != nil {
		return nil, err
	}
	if n.meter, err = openMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	listen := cfg.Listen
	if len(listen) == 0 {
		if listen, err = keptListen(cfg.Home, portFile); err != nil {
			return nil, err
		}
	}
	n.outside = newReach(n.relays.all, parseAddrs(cfg.Announce), n.log)
	if n.host, err = newHost(n.self.peer, listen, n.outside, "kith/"+cfg.Version, cfg.Exempt, n.meter.measuring(cfg.Host)); err != nil {
		return nil, err
	}
	n.host = netid.Of(n.host, cfg.Network)
	if n.mesh, err = gossip.New(n.ctx, n.host, gossip.Config{MaxTopics: cfg.HotTopics, Demoted: n.demoted, Exempt: cfg.Exempt}); err != nil {
		return nil, err
	}
	n.book = newPeerBook(n.host.ID(), n.savePeer, n.saveSeen)
	n.rates = newRates(cfg.Rates)
	n.sched = newScheduler(n.reconcileWith, n.rates.moved)
	n.sched.mute = n.silent
	n.redial = newRedialer(n.host, n.book, parsePeers(cfg.Bootstrap), n.spaceIDs, n.log)
	n.redial.relays, n.redial.dialled = n.relays.all, n.relays.dialled
	n.relayed = newRelayKeeper(n)
	if err := n.loadPeers(); err != nil {
		return nil, err
	}
	if !cfg.NoReconcile {
		n.sched.start(n.ctx)
	}
	if err := n.openSpaces(); err != nil {
		return nil, err
	}
	n.onIdentity(func(identity.Commitment, identity.State, identity.State) { n.auditNow() })
	if err := n.startRelay(); err != nil {
		return nil, err
	}
	n.serve()
	return n, nil
}

// serve takes streams and starts what runs beside the spaces. They are open: a
// peer that asks for one is not told that it is unknown here.
func (n *Node) serve() {
	n.host.SetStreamHandler(joinProtocol, n.serveJoin)
	n.host.SetStreamHandler(objectProtocol, n.serveObject)
	n.host.SetStreamHandler(receiptProtocol, n.serveReceipts)
	n.host.SetStreamHandler(forkProtocol, n.serveFork)
	n.host.SetStreamHandler(proposeProtocol, n.servePropose)
	n.host.SetStreamHandler(delegateProtocol, n.serveDelegate)
	if !n.cfg.NoReconcile {
		n.host.SetStreamHandler(syncProtocol, n.serveSync)
	}
	n.host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) { n.spawn(func() { n.connected(c) }) },
		DisconnectedF: func(_ network.Network, c network.Conn) {
			if !connectedTo(n.host, c.RemotePeer()) {
				n.outside.dropped(c.RemotePeer())
				n.sched.leave(c.RemotePeer())
			}
		},
	})
	if said, err := n.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted)); err == nil {
		n.wg.Go(func() { n.introductions(n.ctx, said) })
	}
	n.wg.Go(func() { n.redial.run(n.ctx) })
	n.wg.Go(func() { n.outside.run(n.ctx, n.host) })
	n.wg.Go(func() { n.outside.punch.run(n.ctx, n.host) })
	n.wg.Go(func() { n.relayed.run(n.ctx) })
	n.wg.Go(func() { n.heartbeat(n.ctx) })
	n.wg.Go(func() { n.tendBlobs(n.ctx) })
	n.wg.Go(n.tendChildren)
	n.wg.Go(n.tendParents)
	n.wg.Go(func() { n.auditor(n.ctx) })
	n.keepUp()
	if n.meter != nil {
		n.wg.Go(func() { n.meter.serve(n) })
	}
	n.servePersona()
	if !n.cfg.NoMDNS {
		n.startMDNS()
	}
}

// spawn runs f beside what goes on, unless the node is closing; Close waits for
// it.
func (n *Node) spawn(f func()) {
	n.ending.RLock()
	defer n.ending.RUnlock()
	if n.ctx.Err() == nil {
		n.wg.Go(f)
	}
}

const (
	// staleAfter is how much older than a new connection another one of the
	// same peer is before it counts as dead. Two nodes that dial each other at
	// once make two that are younger: those are asked.
	staleAfter = 2 * time.Second
	aliveTime  = 2 * time.Second // for the answer
)

// connected takes a new connection. A peer that is connected already has no
// reason to dial: it crashed and came back, and the old connection is dead
// though nobody has noticed. It is closed, so that pubsub greets the peer
// again. A connection through a relay says nothing of that kind. Then every space
// that we know the peer from is reconciled.
func (n *Node) connected(c network.Conn) {
	p := c.RemotePeer()
	for _, old := range n.host.Network().ConnsToPeer(p) {
		age := c.Stat().Opened.Sub(old.Stat().Opened)
		if old == c || age < 0 || c.Stat().Limited || old.Stat().Limited {
			continue
		}
		if age > staleAfter {
			n.log.Debug("a peer came back beside its old connection", "peer", p)
			old.Close()
			continue
		}
		n.spawn(func() {
			if err := alive(n.ctx, old); err != nil && n.ctx.Err() == nil {
				n.log.Debug("a young connection of a peer that came back is dead", "peer", p, "err", err)
				old.Close()
			}
		})
	}
	n.sched.welcome(p)
	n.shield(p)
	n.outside.poke()
	n.relayed.connected(p)
	n.book.saw(p, time.Now())
	for _, sid := range n.spaceIDs() {
		if n.book.knows(sid, p) {
			n.reconcile(sid, p)
			if a := n.bySpace(sid); a != nil {
				n.need(a) // it may have what is waited for
			}
		}
	}
}

// Close stops the node: no new streams, the spaces say what they owe, then
// the network and the store end.
func (n *Node) Close() error {
	n.ending.Lock()
	n.cancel()
	n.ending.Unlock()
	if n.api != nil {
		n.api.Close() // an error means that the server closed it
	}
	if n.meter != nil {
		n.meter.listener.Close() // an error means that it is closed
	}
	if n.host != nil {
		n.host.RemoveStreamHandler(syncProtocol)
		n.host.RemoveStreamHandler(joinProtocol)
		n.host.RemoveStreamHandler(objectProtocol)
		n.host.RemoveStreamHandler(receiptProtocol)
		n.host.RemoveStreamHandler(forkProtocol)
		n.host.RemoveStreamHandler(proposeProtocol)
		n.host.RemoveStreamHandler(delegateProtocol)
		n.host.RemoveStreamHandler(identityProtocol)
	}
	if n.sched != nil {
		n.sched.wait()
	}
	n.mu.Lock()
	all := make([]*running, 0, len(n.spaces))
	for _, r := range n.spaces {
		all = append(all, r)
	}
	n.mu.Unlock()
	for _, r := range all {
		r.stop()
		n.deafen(r)
	}
	errs := []error{n.stopRelay()}
	if n.mesh != nil {
		errs = append(errs, n.mesh.Close())
	}
	if n.host != nil {
		errs = append(errs, n.host.Close())
	}
	n.wg.Wait()
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

// openSpaces starts every space the key file holds. A space that cannot be
// opened is said and left: the others go on.
func (n *Node) openSpaces() error {
	names, err := n.keys.List()
	if err != nil {
		return fmt.Errorf("list the spaces: %w", err)
	}
	if err := n.unmade(names); err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, spaceKeyPrefix) })
	if len(names) >= manySpaces {
		defer debug.SetGCPercent(debug.SetGCPercent(startGC))
		defer n.spawn(func() {
			n.rest(time.Now().Add(settleTime), nil)
			debug.FreeOSMemory()
		})
	}
	whole := true
	for some := range slices.Chunk(names, openTogether) {
		read, errs := make([]*actor, len(some)), make([]error, len(some))
		inParallel(len(some), func(i int) { read[i], errs[i] = n.readSpace(some[i]) })
		for i, name := range some {
			err := errs[i]
			if err == nil {
				err = n.startRead(read[i])
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				n.log.Error("space does not open", "key", name, "err", err)
				n.stats.Unopened.Add(1)
				whole = false
			}
		}
	}
	if n.store.Recovered() && whole {
		return n.store.Audited()
	}
	return nil
}

// manySpaces leave more garbage when they are read, and take up what a stop
// interrupted, than a quiet node would use again: meanwhile it is collected
// sooner, at startGC percent, and what is left is given back settleTime later.
const (
	manySpaces = 1000
	settleTime = 10 * time.Second
	startGC    = 50
)

// openTogether is how many spaces are read at one time, on all processors: most
// of it is to verify what their logs begin with.
const openTogether = 64

// readSpace makes an actor of what the key file and the store hold.
func (n *Node) readSpace(name string) (*actor, error) {
	rec, err := n.readKeys(name)
	if err != nil {
		return nil, err
	}
	a, err := n.newActor(rec)
	if err != nil {
		return nil, err
	}
	if n.store.Recovered() {
		if err := a.audit(n.ctx); err != nil {
			return nil, err
		}
	}
	return a, a.load()
}

func (n *Node) startRead(a *actor) error {
	a.rebuildOwed() // what a crash interrupted is there before anybody reads
	if n.store.Recovered() {
		a.retry() // and what was dropped
	}
	return n.start(a)
}

// newActor is an actor that has not read its store yet.
func (n *Node) newActor(rec spaceRecord) (*actor, error) {
	a := &actor{
		id: rec.ID, sid: [32]byte(rec.Space), name: rec.Name,
		self: n.self, out: n, stats: &n.stats, ended: make(chan struct{}),
		wants: make(chan struct{}, 1), closed: map[uint64]seal.ControlKey{}, homes: map[identity.DeviceID]peer.ID{},
		apart: map[space.DID]*apart{}, moved: map[space.DID]bool{}, epochs: map[envelope.TopicID]*epoch{}, syncs: map[peer.ID]map[uint64]xrpc.SyncPeer{}, rounds: map[peer.ID]xrpc.Round{},
		claims: map[peer.ID]map[uint64]boast{}, belied: map[peer.ID]belied{}, barren: map[peer.ID]int{}, ahead: map[envelope.ChainID]uint64{}, pairs: map[pairKey]seal.Pair{},
	}
	a.log = n.log.With("space", fingerprint(a.sid))
	a.store = n.store.Space(a.sid, [32]byte(rec.DEK))
	for _, er := range rec.Epochs {
		e, err := er.open(n.self.c)
		if err != nil {
			return nil, err
		}
		a.epochs[e.id] = e
	}
	if err := n.loadDoor(a); err != nil {
		return nil, err
	}
	return a, a.close(rec.Closed)
}

// close notes epochs of which the log alone is open to this member.
func (a *actor) close(closed []closedRecord) error {
	for _, c := range closed {
		k, err := seal.UnmarshalControlKey(c.Control)
		if err != nil {
			return fmt.Errorf("control key of epoch %d: %w", c.N, err)
		}
		a.closed[c.N] = k
	}
	return nil
}

// start makes a loaded actor run, listen to gossip and be found.
func (n *Node) start(a *actor) error {
	ctx, cancel := context.WithCancel(n.ctx)
	r := &running{actor: a, topics: map[envelope.TopicID]*gossip.Topic{}, ctx: ctx, cancel: cancel}
	n.mu.Lock()
	n.spaces[a.sid], n.sorted = r, nil
	for id := range a.epochs {
		n.topics[id] = a
	}
	n.mu.Unlock()
	var err error
	if e := a.current(); e != nil && a.takesPart() {
		err = n.hear(r, e)
	}
	n.noteRelays(a)
	a.inbox.begin(a) // what it owes to gossip, it can say now
	n.redial.poke()
	n.account.poke()
	return err
}

// takesPart reports whether this member has a place in the space.
func (a *actor) takesPart() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, in := a.standing(a.ctl)
	return in && !a.ctl.Deleted
}

// hear joins the topic of an epoch.
func (n *Node) hear(r *running, e *epoch) error {
	topic, err := n.mesh.Join(e.id, &heads{a: r.actor, id: e.id}, n.gossiped(r.actor), n.peerJoined(r.actor))
	switch {
	case errors.Is(err, gossip.ErrTooManyTopics) && n.makeRoom(r):
		return n.hear(r, e)
	case errors.Is(err, gossip.ErrTooManyTopics):
		n.log.Debug("too many live topics: this space is kept by reconciliation alone", "space", fingerprint(r.sid))
		return nil
	case errors.Is(err, gossip.ErrJoined), errors.Is(err, gossip.ErrClosed):
		return nil
	case err != nil:
		return err
	}
	n.mu.Lock()
	r.topics[e.id] = topic
	n.mu.Unlock()
	return nil
}

// graceOf is how long the topic of an epoch that is over is heard on: entries
// of those who do not know the new one come late.
const graceOf = 10 * time.Minute

// partAfter is how long the nodes of those whom an epoch leaves out still count
// as the space's: it is from them that they hear of it.
const partAfter = 30 * time.Second

// opened hears a new epoch's topic, and in a while no more those before it.
func (n *Node) opened(a *actor, e *epoch) {
	n.mu.Lock()
	r := n.spaces[a.sid]
	n.topics[e.id] = a
	n.mu.Unlock()
	if r == nil {
		return // start does it
	}
	if e == a.current() {
		if err := n.hear(r, e); err != nil {
			n.log.Error("hear a new epoch", "space", fingerprint(a.sid), "err", err)
		}
		n.spawn(func() { n.noteRelays(a) })
	}
	time.AfterFunc(partAfter, func() { n.part(a) })
	time.AfterFunc(graceOf, func() { n.forgetTopics(r) })
	n.compare(a.sid)
}

// departed leaves the topics of a space of which the owner is no member.
func (n *Node) departed(a *actor) {
	n.mu.RLock()
	r := n.spaces[a.sid]
	n.mu.RUnlock()
	if r != nil {
		n.spawn(func() { n.deafen(r) })
	}
}

// forgetTopics leaves the topics of epochs that are over.
func (n *Node) forgetTopics(r *running) {
	now := r.current()
	n.mu.Lock()
	var old []*gossip.Topic
	for id, t := range r.topics {
		if now != nil && id != now.id {
			old = append(old, t)
			delete(r.topics, id)
		}
	}
	n.mu.Unlock()
	for _, t := range old {
		t.Close()
	}
}

// deafen leaves all topics of a space.
func (n *Node) deafen(r *running) {
	n.mu.Lock()
	topics := slices.Collect(maps.Values(r.topics))
	clear(r.topics)
	n.mu.Unlock()
	for _, t := range topics {
		t.Close()
	}
}

// gossiped hands a frame that the judge accepted to the actor. Gossip is a
// hint: when the inbox is full it is dropped and reconciliation brings it.
func (n *Node) gossiped(a *actor) func(peer.ID, envelope.Frame) {
	return func(from peer.ID, f envelope.Frame) {
		if !a.offer(&runIn{topic: f.Topic(), from: from, cert: f.Cert, run: f.Run, fork: f.Fork}) {
			n.stats.Dropped.Add(1)
			n.reconcile(a.sid, from)
		}
	}
}

// peerJoined reconciles with every peer that turns up in the topic, and
// remembers where it is.
func (n *Node) peerJoined(a *actor) func(peer.ID) {
	return func(p peer.ID) {
		n.book.meet(a.sid, peer.AddrInfo{ID: p, Addrs: n.host.Peerstore().Addrs(p)})
		n.book.saw(p, time.Now())
		n.reconcile(a.sid, p)
		n.account.poke()
	}
}

// heartbeat reconciles each space with one random connected peer now and
// then, and renews writer certificates.
func (n *Node) heartbeat(ctx context.Context) {
	t := time.NewTimer(jitter(syncEvery))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			t.Reset(jitter(syncEvery))
		}
		peers := n.host.Network().Peers()
		n.shield(peers...)
		for _, p := range peers {
			n.book.sees(p, time.Now())
		}
		for _, r := range n.all() {
			for _, p := range n.book.of(r.sid) {
				if connectedTo(n.host, p.ID) {
					n.reconcile(r.sid, p.ID)
					break
				}
			}
			n.need(r.actor)
		}
	}
}

// keep stores a new space's keys and its control log with settings, in that order, under a
// marker: a marked key record without a log is a space that never was, see
// unmade.
func (n *Node) keep(rec spaceRecord, entries []*control.Entry, meta map[string][]byte) (*actor, error) {
	a, err := n.newActor(rec)
	if err != nil {
		return nil, err
	}
	if err := n.mend(); err != nil {
		return nil, err
	}
	key := spaceKeyName(n.storeKey, a.sid)
	marker := markerPrefix + strings.TrimPrefix(key, spaceKeyPrefix)
	if err := n.keys.Put(marker, nil); err != nil {
		return nil, diskError(err)
	}
	err = n.saveKeys(rec)
	if err == nil {
		b := store.Batch{Meta: meta}
		for _, e := range entries {
			b.Control = append(b.Control, store.ControlRow{Seq: e.Seq, Raw: e.Raw()})
		}
		err = a.store.Commit(store.Own, &b)
	}
	if err != nil {
		return nil, diskError(errors.Join(err, n.keys.Delete(key), n.keys.Delete(marker)))
	}
	if err := n.keys.Delete(marker); err != nil {
		n.log.Warn("the next start looks whether the space is there", "err", err)
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, n.start(a)
}

func (n *Node) readKeys(name string) (spaceRecord, error) {
	b, err := n.keys.Read(name)
	if err != nil {
		return spaceRecord{}, err
	}
	return decodeSpaceRecord(b)
}

func (n *Node) saveKeys(rec spaceRecord) error {
	b, err := space.Marshal(rec)
	if err != nil {
		return fmt.Errorf("keep the space's keys: %w", err)
	}
	if err := n.keys.Put(spaceKeyName(n.storeKey, [32]byte(rec.Space)), b); err != nil {
		return fmt.Errorf("keep the space's keys: %w", err)
	}
	return nil
}

// keepEpochs stores epochs of a space whose keys are new or have changed.
func (n *Node) keepEpochs(a *actor, closed []closedRecord, epochs ...*epoch) error {
	rec, err := n.readKeys(spaceKeyName(n.storeKey, a.sid))
	if err != nil {
		return fmt.Errorf("keep the space's keys: %w", err)
	}
	for _, c := range closed {
		rec.close(c)
	}
	for _, e := range epochs {
		rec.hold(e.record())
	}
	return n.saveKeys(rec)
}

// The outlet of the actors.

var _ outlet = (*Node)(nil)

func (n *Node) mend() error { return n.mender.mend() }

func (n *Node) publish(f envelope.Frame) {
	if len(n.host.Network().Peers()) == 0 {
		return // whoever comes reconciles; gossip would keep the frame for seconds
	}
	n.mu.RLock()
	var t *gossip.Topic
	if a := n.topics[f.Topic()]; a != nil {
		if r := n.spaces[a.sid]; r != nil {
			t = r.topics[f.Topic()]
		}
	}
	n.mu.RUnlock()
	if t == nil {
		return
	}
	b, err := f.AppendBinary(nil)
	if err == nil {
		err = t.Publish(n.ctx, b)
	}
	if err != nil {
		n.log.Debug("publish", "err", err)
	}
}

func (n *Node) reconcile(sid [32]byte, with peer.ID) {
	if !n.cfg.NoReconcile && with != "" {
		n.sched.want(exchange{sid, with})
	}
}

// comparePeers is how many peers are asked after a space moved.
const comparePeers = 2

func (n *Node) compare(sid [32]byte) {
	n.warm(sid)
	asked := 0
	if a := n.bySpace(sid); a != nil && len(n.relays.of(sid)) > 0 {
		n.relayed.moved(a)
	}
	for _, p := range n.book.of(sid) {
		if asked < comparePeers && connectedTo(n.host, p.ID) {
			n.reconcile(sid, p.ID)
			asked++
		}
	}
}

// Look-ups.
