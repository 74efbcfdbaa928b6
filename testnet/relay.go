package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p"

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

// Start runs a relay that was stopped, on its directory and address.
func (r *Relay) Start() {
	r.net.t.Helper()
	cfg := relay.Config{Dir: r.Dir, Listen: r.listen, Host: func(int) []libp2p.Option { return r.host }}
	for _, f := range r.change {
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

// Part lets no packet pass between a node and a relay.
func (w *Net) Part(n *Node, r *Relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := strings.Split(r.listen[0], "/")[2]
	w.walls[[2]string{n.ip.String(), at}] = true
	w.walls[[2]string{at, n.ip.String()}] = true
}
