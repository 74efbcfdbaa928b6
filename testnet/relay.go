package testnet

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/kithnet/kith/relay"
)

// Relay is a relay of a Net. Relay is nil while it is stopped.
type Relay struct {
	*relay.Relay
	Dir string

	net    *Net
	listen []string
	host   []libp2p.Option
	change []func(*relay.Config)
}

// Relay starts a relay on the network. It ends with the test.
func (w *Net) Relay(change ...func(*relay.Config)) *Relay {
	w.t.Helper()
	r := &Relay{Dir: w.t.TempDir(), net: w, change: change}
	r.listen, r.host = w.Attach()
	w.relays = append(w.relays, r)
	r.Start()
	return r
}

// Start runs a relay that was stopped, on its directory and address, this time
// with what change makes of its configuration.
func (r *Relay) Start(change ...func(*relay.Config)) {
	r.net.t.Helper()
	cfg := relay.Config{Dir: r.Dir, Listen: r.listen, Host: func(int) []libp2p.Option { return r.host }}
	for _, f := range append(slices.Clip(r.change), change...) {
		f(&cfg)
	}
	var err error
	if r.Relay, err = relay.New(cfg); err != nil {
		r.net.t.Fatal(err)
	}
}

// Stop ends a relay; its directory stays.
func (r *Relay) Stop() {
	if r.Relay == nil {
		return
	}
	if err := r.Close(); err != nil {
		r.net.t.Errorf("close relay: %v", err)
	}
	r.Relay = nil
}

// Wipe empties a stopped relay's disk, all but its key.
func (r *Relay) Wipe() {
	r.net.t.Helper()
	if err := os.RemoveAll(filepath.Join(r.Dir, "store")); err != nil {
		r.net.t.Fatal(err)
	}
}

// Addr is where members find it.
func (r *Relay) Addr() string {
	return fmt.Sprintf("%s/p2p/%s", r.listen[0], r.ID())
}

// Twin starts a relay with the key of another one and a disk of its own: one
// that shows different things to different people.
func (w *Net) Twin(of *Relay) *Relay {
	w.t.Helper()
	key, err := os.ReadFile(filepath.Join(of.Dir, "relay.key"))
	if err != nil {
		w.t.Fatal(err)
	}
	r := &Relay{Dir: w.t.TempDir(), net: w}
	if err := os.WriteFile(filepath.Join(r.Dir, "relay.key"), key, 0o600); err != nil {
		w.t.Fatal(err)
	}
	r.listen, r.host = w.Attach()
	w.relays = append(w.relays, r)
	r.Start()
	return r
}

// Part lets no packet pass between a node and a relay, and Unpart lets them
// pass again.
func (w *Net) Part(n *Node, r *Relay) { w.wall(n.ip.String(), r.ip(), true) }

// Unpart undoes Part.
func (w *Net) Unpart(n *Node, r *Relay) { w.wall(n.ip.String(), r.ip(), false) }

// Delay lets every packet from and to a relay come so much later; 0: no more.
func (w *Net) Delay(r *Relay, by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late[r.ip()] = by
}

func (r *Relay) ip() string { return strings.Split(r.listen[0], "/")[2] }

// Attach is r's place on the network and its key, for a host that takes them
// while r is stopped: one that does what no relay of ours does.
func (r *Relay) Attach() (key crypto.PrivKey, listen []string, host []libp2p.Option) {
	r.net.t.Helper()
	seed, err := os.ReadFile(filepath.Join(r.Dir, "relay.key"))
	if err == nil {
		key, err = crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	}
	if err != nil {
		r.net.t.Fatal(err)
	}
	return key, r.listen, r.host
}

// Snapshot copies a stopped relay's disk, and Restore puts such a copy in its
// place.
func (r *Relay) Snapshot() (copy string) {
	r.net.t.Helper()
	copy = r.net.t.TempDir()
	if err := os.CopyFS(copy, os.DirFS(filepath.Join(r.Dir, "store"))); err != nil {
		r.net.t.Fatal(err)
	}
	return copy
}

// Restore undoes what happened to the disk since Snapshot.
func (r *Relay) Restore(copy string) {
	r.net.t.Helper()
	r.Wipe()
	if err := os.CopyFS(filepath.Join(r.Dir, "store"), os.DirFS(copy)); err != nil {
		r.net.t.Fatal(err)
	}
}
