package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// renewBefore is how long before its end a writer certificate is renewed.
const renewBefore = 2 * 24 * time.Hour

const (
	needBase = time.Second // first pause after keys or a certificate could not be had
	needMax  = 30 * time.Second
	// keepersAsked is how many peers are asked in one round where nobody knows
	// which of them may admit.
	keepersAsked = 4
)

// need has the space tended, if it lacks something; who tends it already is
// woken.
func (n *Node) need(a *actor) {
	select {
	case a.wants <- struct{}{}:
	default:
	}
	n.mu.RLock()
	r := n.spaces[a.sid]
	n.mu.RUnlock()
	if r != nil && r.needs() && a.tended.CompareAndSwap(false, true) {
		n.spawn(func() { n.tend(r) })
	}
}

// needs reports whether there is something to get, or to say.
func (a *actor) needs() bool { return a.lacks() || a.farewell() != nil }

// tend gets what a space lacks: keys of a new epoch that were not at hand, and
// writer certificates, new and renewed. It asks those who may admit, until
// nothing is lacking.
func (n *Node) tend(r *running) {
	a, wait := r.actor, needBase
	for r.ctx.Err() == nil && a.needs() {
		select {
		case <-a.wants: // what woke us until now is what we see to
		default:
		}
		err := n.supply(r.ctx, a)
		switch {
		case err == nil && !a.needs():
			continue
		case err != nil:
			n.log.Info("a space lacks keys or a certificate", "space", fingerprint(a.sid), "err", err)
		default:
			// What was brought was not enough. Taking it woke us: without a
			// pause this would go round and round.
			select {
			case <-a.wants:
			default:
			}
		}
		t := time.NewTimer(jitter(wait))
		select {
		case <-r.ctx.Done():
		case <-a.wants:
		case <-t.C:
			wait = min(2*wait, needMax)
		}
		t.Stop()
	}
	a.tended.Store(false)
	if r.ctx.Err() == nil && a.needs() {
		n.need(a) // since we looked
	}
}

// supply tries once.
func (n *Node) supply(ctx context.Context, a *actor) error {
	if a.farewell() != nil {
		return n.sayLeave(ctx, a)
	}
	if a.helpsItself() {
		m := &recertify{reply: make(chan error, 1)}
		err, sendErr := ask(ctx, a, m, m.reply)
		return errors.Join(err, sendErr)
	}
	page, e, paged := a.missingPage()
	if paged && n.fetchObject(ctx, a, e, page) == nil {
		m := &readopt{reply: make(chan error, 1)}
		err, sendErr := ask(ctx, a, m, m.reply)
		if errors.Join(err, sendErr) == nil {
			return nil
		}
	}
	done, err := n.supplySent(ctx, a)
	if !done {
		err = n.askKeepers(ctx, a)
	}
	if err == nil {
		n.spawn(func() { n.keepPage(ctx, a) })
	}
	return err
}

// pageTries is how often a page is asked for of which the keys came from a
// keeper: within two minutes or so.
const pageTries = 8

// keepPage gets the own wrap page of the epoch in force after its keys: others
// whose keys stand on it may find nobody else who has it. A keeper that is
// asked for a certificate gives the keys of an epoch whose entry was not here yet.
func (n *Node) keepPage(ctx context.Context, a *actor) {
	page, before, ok := a.pageInForce()
	if !ok {
		return
	}
	wait := needBase
	for range pageTries {
		if _, ok, err := a.store.Object(page); ok || err != nil || n.fetchObject(ctx, a, before, page) == nil {
			return
		}
		t := time.NewTimer(jitter(wait))
		select {
		case <-ctx.Done():
		case <-t.C:
			wait = min(2*wait, needMax)
		}
		t.Stop()
	}
	n.log.Debug("a wrap page was not to be had", "space", fingerprint(a.sid), "epoch", before.n+1)
}

// pageInForce is the page of the epoch in force on which the own keys stand,
// and the epoch under whose fetch key it is to be had.
func (a *actor) pageInForce() (page [32]byte, before *epoch, ok bool) {
	st := a.control()
	rot, err := a.rotationOfEpoch(st)
	if err != nil || rot == nil || len(rot.Epoch.Pages) == 0 {
		return page, nil, false
	}
	if before = a.numbered(st.Epoch - 1); before == nil {
		return page, nil, false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	page, ok = ownPage(st, rot, a.reader())
	return page, before, ok
}

// helpsItself reports whether the epoch in force is here with its issuer, and
// nothing is missing but a certificate, which the roster gives. A keeper that
// was raised asks for keys like others, one that a child lets write shows
// another keeper the word of the child.
func (a *actor) helpsItself() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.now != nil && a.now.n == a.ctl.Epoch && a.now.iss != nil && !a.lacksKeys() && a.ctl.MayWrite(a.self.c, a.now.n)
}

// askKeepers asks those who may admit for a welcome to the space we are in.
func (n *Node) askKeepers(ctx context.Context, a *actor) error {
	err := fmt.Errorf("nobody who may admit is connected: %w", space.ErrUnavailable)
	for _, p := range n.keepers(a) {
		j, w, askErr := n.askWelcome(ctx, p, asking{space: a.sid, invite: []byte{}, from: a})
		if askErr != nil {
			err = errors.Join(err, askErr)
			continue
		}
		n.learnAll(w.IdentityLog, j.rosterHead)
		m := &newKeys{joined: j, reply: make(chan error, 1)}
		takeErr, sendErr := ask(ctx, a, m, m.reply)
		return errors.Join(takeErr, sendErr)
	}
	return err
}

// keepers are connected peers on which a device with the capability to admit
// runs, then a few others: not every device says in a hello where it is.
func (n *Node) keepers(a *actor) []peer.AddrInfo {
	a.mu.RLock()
	var known []peer.ID
	for k := range a.ctl.Keepers() {
		for _, d := range k.Devices {
			if id, ok := a.homes[identity.DeviceID(d)]; ok && k.Caps&control.CapAdmit != 0 {
				known = append(known, id)
			}
		}
	}
	a.mu.RUnlock()
	var first, rest []peer.AddrInfo
	for _, p := range n.book.of(a.sid) {
		_, relays := n.relays.serving(a.sid, p.ID)
		switch {
		case relays: // and lets nobody in
		case slices.Contains(known, p.ID):
			first = append(first, p)
		case connectedTo(n.host, p.ID):
			rest = append(rest, p)
		}
	}
	return append(first, rest[:min(len(rest), keepersAsked)]...)
}

// located notes where a device runs.
func (a *actor) located(h seal.Hello) {
	for _, p := range parsePeers(h.Addrs) {
		a.mu.Lock()
		a.homes[h.Device] = p.ID
		a.mu.Unlock()
		return
	}
}

// strangers are the nodes of those who wrote here and are members no more.
func (a *actor) strangers() []peer.ID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out []peer.ID
	for _, ch := range a.chains {
		at, known := a.homes[ch.device]
		if _, in := a.ctl.Member(ch.c); known && !in && ch.via == ([32]byte{}) {
			out = append(out, at)
		}
	}
	return out
}

// door is where a keeper of a space was found. Its device says so itself in a
// hello, but a keeper that writes nothing in an epoch says none, and whoever
// holds writes back for want of a certificate has to find it.
type door struct {
	space  [32]byte
	device identity.DeviceID
	at     peer.ID
}

// keepDoor keeps the last one for each space, over restarts too.
func (n *Node) keepDoor(d door) {
	if err := n.store.Put(doorTable, d.space[:], append(d.device[:], d.at...), store.Remote); err != nil {
		n.log.Warn("keep where a keeper is", "err", err)
	}
	if a := n.bySpace(d.space); a != nil {
		a.mu.Lock()
		a.homes[d.device] = d.at
		a.mu.Unlock()
	}
}

// loadDoor puts the one kept in; hellos may know better.
func (n *Node) loadDoor(a *actor) error {
	v, ok, err := n.store.Read(doorTable, a.sid[:])
	if err != nil || !ok || len(v) <= len(identity.DeviceID{}) {
		return err
	}
	d := identity.DeviceID(v[:len(identity.DeviceID{})])
	a.homes[d] = peer.ID(v[len(d):])
	return nil
}

// recertify gives a device that holds the issuer a new certificate.
type recertify struct {
	reply chan error // buffered
}

func (m *recertify) handle(a *actor) {
	e := *a.now
	err := a.certifySelf(a.ctl, &e)
	if err == nil {
		err = a.takeKeys(nil, &e)
	}
	m.reply <- err
}

// opening finds the entry that opened the epoch after the newest one held, and
// the state after it, which is the head's: what follows cannot be read without
// its keys.
func (a *actor) opening() (*control.Rotation, bool) {
	want := uint64(1)
	if a.now != nil {
		want = a.now.n + 1
	}
	at, ok := a.ctl.Opened(want)
	if !ok {
		return nil, false
	}
	raw, ok, err := a.rawControl(at.Seq)
	if err != nil || !ok {
		return nil, false
	}
	e, err := control.Parse(raw)
	if err == nil {
		err = e.Open(bytesOf(a.controlKey(want - 1)))
	}
	if err != nil {
		return nil, false
	}
	rot := e.Rotation()
	return rot, rot != nil
}

// missingPage is the wrap page that has to be fetched, and the epoch under
// whose fetch key.
func (a *actor) missingPage() ([32]byte, *epoch, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.now == nil || a.now.n >= a.ctl.Epoch {
		return [32]byte{}, nil, false
	}
	rot, ok := a.opening()
	if !ok || len(rot.Epoch.Pages) == 0 {
		return [32]byte{}, nil, false
	}
	page, ok := ownPage(a.ctl, rot, a.reader())
	return page, a.now, ok
}

// readopt takes the keys of a new epoch once its page is here.
type readopt struct {
	reply chan error // buffered
}

func (m *readopt) handle(a *actor) {
	rot, ok := a.opening()
	if !ok {
		m.reply <- nil // somebody brought them already
		return
	}
	e, err := a.unwrap(a.ctl, rot)
	if err == nil {
		err = a.takeKeys(nil, e)
	}
	m.reply <- err
}

// acquaintances is how many nodes are asked for the log of one member.
const acquaintances = 6

// acquaint asks nodes of the space, keepers first, for identity logs.
func (n *Node) acquaint(a *actor, members []control.Member) {
	if len(members) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, proposeDeadline)
	defer cancel()
	peers := n.proposees(a, true)
	for _, m := range members {
		for _, p := range peers[:min(len(peers), acquaintances)] {
			log, _, err := fetchIdentity(ctx, n.host, p, m.C)
			if err != nil {
				n.log.Debug("ask for a member's identity log", "peer", p, "err", err)
				continue
			}
			n.learn(m.C, m.ILHead, log)
			if _, known := n.identity(m.C); known {
				break
			}
		}
	}
}
