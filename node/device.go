package node

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

var (
	_ xrpc.Devices = (*Node)(nil)
	_ xrpc.Backups = (*Node)(nil)
)

// persona is what a node has to do with its owner as a person: the identity
// log, the list of spaces, the other devices.
type persona struct {
	owning  sync.Mutex    // held while the own identity log grows
	listing sync.Mutex    // held while a member's list is replaced; guards listed
	listed  int           // bytes kept of members' lists
	askers  chan struct{} // bounds identity streams that are served at once
	account *account
	twins   twins
	copied  atomic.Pointer[copyRecord] // this home was restored from a backup; nil: it was not, or has caught up
}

// openPersona reads what the home holds of it.
func (n *Node) openPersona() (err error) {
	n.askers = make(chan struct{}, askersAtOnce)
	n.self.twin.began = time.Now()
	if n.account, err = openAccount(n.keys, n.self); err != nil {
		return err
	}
	c, err := readCopy(n.keys)
	n.copied.Store(c)
	return err
}

// servePersona takes identity streams and starts what looks after the owner's
// identity.
func (n *Node) servePersona() {
	n.host.SetStreamHandler(identityProtocol, n.serveIdentity)
	n.host.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if slices.Contains(n.account.siblings(), c.RemotePeer()) {
			n.account.poke()
		}
	}})
	n.wg.Go(func() { n.tendIdentity(n.ctx) })
	n.wg.Go(func() { n.restoreSpaces(n.ctx) })
}

// Devices lists the owner's devices, the revoked ones too.
func (n *Node) Devices(context.Context) ([]xrpc.Device, error) {
	st := n.self.ownState()
	names := n.account.names()
	var out []xrpc.Device
	for _, h := range identity.Devices(n.self.ownLog()) {
		d := xrpc.Device{
			ID: hex.EncodeToString(h.ID[:]), Name: names[h.ID], Caps: h.Caps.Names(), This: h.ID == n.self.device.ID(),
			Revoked: st.Revoked(h.ID), AddedMs: h.AddedMs, RevokedMs: h.RevokedMs,
		}
		out = append(out, d)
	}
	return out, nil
}

// names are what people call the devices.
func (a *account) names() map[identity.DeviceID]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[identity.DeviceID]string{}
	for _, d := range a.plain.Devices {
		out[d.ID] = d.Name
	}
	return out
}

// RevokeDevice ends a device: the next per-user key is sealed to those that
// remain, and every space of the owner's gets a new epoch when it hears.
func (n *Node) RevokeDevice(ctx context.Context, id string) (xrpc.Device, error) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 32 {
		return xrpc.Device{}, fmt.Errorf("device id %q: want 64 hex digits: %w", id, space.ErrMalformed)
	}
	if err := n.mayExtend(ctx); err != nil {
		return xrpc.Device{}, err
	}
	if _, err := n.revokeDevice(identity.DeviceID(b)); err != nil {
		return xrpc.Device{}, fmt.Errorf("revoke device %s: %w", id, err)
	}
	return n.device(identity.DeviceID(b))
}

func (n *Node) device(id identity.DeviceID) (xrpc.Device, error) {
	all, err := n.Devices(context.Background())
	if err != nil {
		return xrpc.Device{}, err
	}
	want := hex.EncodeToString(id[:])
	i := slices.IndexFunc(all, func(d xrpc.Device) bool { return d.ID == want })
	if i < 0 {
		return xrpc.Device{}, fmt.Errorf("device %s: %w", want, xrpc.ErrDeviceNotFound)
	}
	return all[i], nil
}

// mayExtend refuses to say anything new in the own identity log while this
// home is a copy and nobody has said yet that the log went no further: a
// second entry in the place of one would part it.
func (n *Node) mayExtend(ctx context.Context) error {
	if n.copied.Load() == nil || n.account.isConfirmed() {
		return nil
	}
	n.account.poke()
	alone := len(n.self.ownState().Devices) == 1
	for _, r := range n.all() {
		alone = alone && r.control().Len() == 1
	}
	if alone {
		return nil
	}
	return fmt.Errorf("this home was restored from a backup, and no other node has said yet that nothing happened since: %w",
		space.ErrUnavailable)
}

// errNoAnswer: no machine answered to the code.
var errNoAnswer = errors.New("no machine that shows this code answered")

// How long an approval looks for the machine that shows the code.
const (
	approveWait  = 30 * time.Second
	approveEvery = 500 * time.Millisecond
)

// twins are nodes that run with this device's keys.
type twins struct {
	mu   sync.Mutex // guards seen
	seen map[peer.ID]time.Time
}

func (t *twins) add(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = map[peer.ID]time.Time{}
	}
	t.seen[p] = time.Now()
}

func (t *twins) all() []peer.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []peer.ID
	for p := range t.seen {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// twinWatch notices that somebody else writes with this device's keys: in a
// chain that this process did not open, later than it began.
type twinWatch struct {
	began time.Time

	mu     sync.Mutex // guards what follows
	opened map[envelope.ChainID]bool
	wrote  bool
}

// opens notes a chain of this process.
func (w *twinWatch) opens(chain envelope.ChainID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened == nil {
		w.opened = map[envelope.ChainID]bool{}
	}
	w.opened[chain] = true
}

// isOurs reports whether this process opened the chain, and so wrote all of it.
func (w *twinWatch) isOurs(chain envelope.ChainID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened[chain]
}

// saw looks at an entry of this device's that somebody brought.
func (w *twinWatch) saw(chain envelope.ChainID, rev space.TID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.opened[chain] && time.UnixMicro(rev.Micros()).After(w.began) {
		w.wrote = true
	}
}

func (w *twinWatch) isSeen() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote
}

// deviceWarnings are what the owner should know about devices, copies and what
// exists only once.
func (n *Node) deviceWarnings() []string {
	var w []string
	st := n.self.ownState()
	switch me := n.self.device.ID(); {
	case st.Revoked(me):
		w = append(w, "this device was revoked by another one of yours: it takes part in nothing any more; read what is here, then remove its home")
	case !st.Can(me, 0):
		w = append(w, "your identity log went on without this device, on another branch: enrol it anew, with kith device add in another home")
	}
	if c := n.copied.Load(); c != nil && !n.account.isConfirmed() && len(n.all()) > 0 {
		w = append(w, "this home was restored from a backup of "+c.at()+", and no other node has been reached since: what was written after it may be missing")
	}
	for _, p := range n.twins.all() {
		w = append(w, "another node runs with the keys of this device ("+p.String()+"): a copy of this home; stop one of the two, or revoke the device")
	}
	if n.self.twin.isSeen() && len(n.twins.all()) == 0 {
		w = append(w, "another node writes with the keys of this device: a copy of this home; stop one of the two, or revoke the device")
	}
	if missing := len(n.missing()); missing > 0 {
		w = append(w, fmt.Sprintf("%d of your spaces are not on this device yet: they come when another node of theirs is reachable", missing))
	}
	return append(w, n.onlyCopies(st)...)
}

// onlyCopies tells what would be gone with this disk.
func (n *Node) onlyCopies(st identity.State) []string {
	var w []string
	if len(st.Devices) == 1 && !st.Revoked(n.self.device.ID()) {
		w = append(w, "this is your only device: without the 24 words, a second device or a backup, your identity is gone with its disk")
	}
	for _, r := range n.all() {
		s := r.status()
		if !r.takesPart() || r.equalLately() {
			continue
		}
		if s.Entries > 0 && len(s.InSyncWith) == 0 && r.control().Len() == 1 && len(st.Devices) == 1 {
			w = append(w, "only this node holds "+called(r.actor)+": nobody else is in it; a backup, a second device or another member would keep a copy")
		} else if s.Entries > 0 && len(s.InSyncWith) == 0 {
			w = append(w, "no other node is known to hold all of "+called(r.actor)+" since this one started")
		}
	}
	return w
}

// called is a space as its owner knows it.
func called(a *actor) string {
	return cmp.Or(a.petname(), a.id.String())
}
