package testnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// Link is what every link of a Net is like.
type Link struct {
	Latency time.Duration // one way
	Jitter  time.Duration // added to it, up to this
	Loss    float64       // share of packets that never arrive
	Mbps    int           // of each node's up- and downlink; 0 is 100
	// Slot puts arrivals on the next multiple of it: packets of one instant are
	// handled at once, by all processors, and the clock makes fewer steps. A
	// third of the processor time of a big net goes without it.
	Slot time.Duration
}

// nowhere is where lost packets go: nobody has the address.
var nowhere = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}

// Net is a number of nodes on one simulated network.
type Net struct {
	t         *testing.T
	sim       *simnet.Simnet
	link      Link
	nodes     []*Node
	strangers int // hosts that are no nodes
	relays    []*Relay

	mu    sync.Mutex // guards what follows: the network asks for every packet
	rand  *rand.Rand
	group map[string]int             // IP -> side of the partition; empty: none
	calm  bool                       // nothing is lost on the way
	mute  map[string]bool            // IPs that nothing comes from and nothing gets to
	boxed map[string]map[string]bool // IP behind a NAT -> addresses it has sent to
	walls map[[2]string]bool         // pairs of IPs between which nothing passes
	late  map[string]time.Duration   // IP -> how much later than others
}

// everywhere is the side of who reaches all sides.
const everywhere = -1

// Node is one node of a Net. Node is nil while it is stopped.
type Node struct {
	*node.Node
	Home string

	net    *Net
	ip     net.IP
	change []func(*node.Config)
}

// New starts a network of n nodes with identities of their own. seed draws
// loss and jitter. It ends with the test.
func New(t *testing.T, n int, link Link, seed uint64, change ...func(*node.Config)) *Net {
	t.Helper()
	w := &Net{t: t, link: link, rand: rand.New(rand.NewPCG(seed, 0)), group: map[string]int{}, mute: map[string]bool{},
		boxed: map[string]map[string]bool{}, walls: map[[2]string]bool{}, late: map[string]time.Duration{}}
	w.sim = &simnet.Simnet{LatencyFunc: w.latency, Logger: slog.New(slog.DiscardHandler)}
	w.sim.Start()
	t.Cleanup(w.close)
	for range n {
		w.Add(change...)
	}
	return w
}

// close stops the nodes, then the network, and lets a second pass, so that
// nothing of the bubble still waits.
func (w *Net) close() {
	var wg sync.WaitGroup
	for _, n := range w.nodes {
		wg.Go(n.Stop)
	}
	for _, r := range w.relays {
		wg.Go(r.Stop)
	}
	wg.Wait()
	w.sim.Close()
	time.Sleep(time.Second)
}

// Add starts one more node.
func (w *Net) Add(change ...func(*node.Config)) *Node {
	w.t.Helper()
	home := w.t.TempDir()
	if _, _, err := node.Init(home, nil); err != nil {
		w.t.Fatal(err)
	}
	return w.Open(home, change...)
}

// Open starts one more node on a home that exists. The n-th node of a Net has
// the address that the n-th node of any other Net has.
func (w *Net) Open(home string, change ...func(*node.Config)) *Node {
	w.t.Helper()
	n := &Node{Home: home, net: w, ip: simnet.IntToPublicIPv4(len(w.nodes) + 1), change: change}
	w.nodes = append(w.nodes, n)
	n.Start()
	return n
}

// Machine is an empty home on the network, at the address of the node that Open
// starts on it once it is somebody's.
func (w *Net) Machine(home string) node.Machine {
	m := node.Machine{Home: home, NoMDNS: true}
	m.Listen, m.Host = w.attach(simnet.IntToPublicIPv4(len(w.nodes) + 1))
	return m
}

// attach is what puts a host on the network.
func (w *Net) attach(ip net.IP) (listen []string, host []libp2p.Option) {
	mbps := w.link.Mbps
	if mbps == 0 {
		mbps = 100
	}
	half := simnet.LinkSettings{BitsPerSecond: mbps * simnet.Mibps}
	return []string{fmt.Sprintf("/ip4/%s/udp/4001/quic-v1", ip)}, []libp2p.Option{
		simlibp2p.QUICSimnet(w.sim, simnet.NodeBiDiLinkSettings{Downlink: half, Uplink: half}),
		libp2p.DisableIdentifyAddressDiscovery(), // its timers never let a bubble rest
	}
}

// Node is the i-th node.
func (w *Net) Node(i int) *Node { return w.nodes[i] }

// Nodes are all nodes.
func (w *Net) Nodes() []*Node { return w.nodes }

// Start runs a node that was stopped, on its home and address.
func (n *Node) Start() {
	n.net.t.Helper()
	n.net.silence(n, false)
	cfg := node.Config{Home: n.Home, NoMDNS: true}
	cfg.Listen, cfg.Host = n.net.attach(n.ip)
	if testing.Verbose() && os.Getenv("KITH_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.ip)
	}
	for _, f := range n.change {
		f(&cfg)
	}
	var err error
	if n.Node, err = node.New(cfg); err != nil {
		n.net.t.Fatal(err)
	}
}

// Stop ends a node; its home stays.
func (n *Node) Stop() {
	if n.Node == nil {
		return
	}
	if err := n.Close(); err != nil {
		n.net.t.Errorf("close node %s: %v", n.ip, err)
	}
	n.Node = nil
}

// Crash ends a node as SIGKILL does: what it has written to files stays,
// nothing more is written, and nobody is told. Its connections are dead on the
// other side for as long as nobody notices.
func (n *Node) Crash() {
	n.net.t.Helper()
	n.net.silence(n, true)
	synctest.Wait() // nobody is in the middle of a write
	home := n.net.t.TempDir()
	if err := os.CopyFS(home, os.DirFS(n.Home)); err != nil {
		n.net.t.Fatal(err)
	}
	_ = n.Close() // of what nobody will ever read
	if err := os.RemoveAll(n.Home); err != nil {
		n.net.t.Error(err)
	}
	n.Home, n.Node = home, nil
}

// Restart stops a node and starts it again with a changed configuration.
func (n *Node) Restart(change ...func(*node.Config)) {
	n.net.t.Helper()
	n.Stop()
	n.change = append(n.change, change...)
	n.Start()
}

// Partition cuts every link between the groups. Nodes in no group are on a
// side of their own together.
func (w *Net) Partition(groups ...[]*Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.group)
	for i, g := range groups {
		for _, n := range g {
			w.group[n.ip.String()] = i + 1
		}
	}
}

// bridge lets a node reach both sides of a partition.
func (w *Net) bridge(n *Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.group[n.ip.String()] = everywhere
}

// silence lets nothing through from and to a node, or everything again.
func (w *Net) silence(n *Node, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute[n.ip.String()] = mute
}

// Calm lets links lose nothing while it is true.
func (w *Net) Calm(calm bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = calm
}

// Heal restores every link.
func (w *Net) Heal() { w.Partition() }

func (w *Net) latency(p *simnet.Packet) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.passes(hostOf(p.From), hostOf(p.To)) || w.stopped(p) || !w.calm && w.rand.Float64() < w.link.Loss {
		p.To = nowhere // a latency longer than the test would keep it in memory
		return 0
	}
	late := w.link.Latency + w.late[hostOf(p.From)] + w.late[hostOf(p.To)]
	if w.link.Jitter > 0 {
		late += time.Duration(w.rand.Int64N(int64(w.link.Jitter)))
	}
	if w.link.Slot == 0 {
		return late
	}
	now := time.Now()
	return now.Add(late + w.link.Slot - 1).Truncate(w.link.Slot).Sub(now)
}

// passes reports whether there is a way from one address to another. mu is held.
func (w *Net) passes(from, to string) bool {
	a, b := w.group[from], w.group[to]
	return !w.mute[from] && !w.mute[to] && (a == b || a == everywhere || b == everywhere)
}

// hostOf is the IP of an address of the network.
func hostOf(a net.Addr) string {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.IP.String()
	}
	return ""
}

// Space creates a space on the first node and lets all others join it.
func (w *Net) Space() space.ID {
	w.t.Helper()
	ctx := w.t.Context()
	info, err := w.nodes[0].CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.forum", Name: "forum", Policy: space.DefaultPolicy()})
	if err != nil {
		w.t.Fatal(err)
	}
	inv, err := w.nodes[0].Invite(ctx, info.ID, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		w.t.Fatal(err)
	}
	for wave := range slices.Chunk(w.nodes[1:], joinWave) {
		errs := make([]error, len(wave))
		var wg sync.WaitGroup
		for i, n := range wave {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
				defer cancel()
				_, errs[i] = n.Join(ctx, inv.Link)
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			w.t.Fatal(err)
		}
	}
	return info.ID
}

// joinWave is how many nodes join at once: all of them come to the first one.
const joinWave = 40

// collection is where the records of Put go.
const collection = "com.example.forum.post"

// Put writes one record of n's owner.
func (n *Node) Put(id space.ID, key, text string) error {
	_, err := n.put(id, key, text)
	return err
}

func (n *Node) put(id space.ID, key, text string) (xrpc.RecordRef, error) {
	rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":%q,"text":%q}`, collection, text))
	if err != nil {
		return xrpc.RecordRef{}, err
	}
	w, err := n.Write(context.Background(), id, []xrpc.Write{{
		Action: xrpc.ActionPut, Path: space.Path{Collection: collection, Key: space.RecordKey(key)}, Value: rec,
	}}, xrpc.WriteOptions{})
	if err != nil {
		return xrpc.RecordRef{}, err
	}
	return w.Records[0], nil
}

// Has is nil when n can read the record that any author put under key.
func (n *Node) Has(id space.ID, key string) error {
	_, err := n.Record(context.Background(), id, "", space.Path{Collection: collection, Key: space.RecordKey(key)})
	return err
}

// SpaceStatus is how n sees a space.
func (n *Node) SpaceStatus(id space.ID) (xrpc.SpaceStatus, error) {
	st, err := n.Status(context.Background())
	if err != nil {
		return xrpc.SpaceStatus{}, err
	}
	for _, s := range st.Spaces {
		if s.URI == id.String() {
			return s, nil
		}
	}
	return xrpc.SpaceStatus{}, space.ErrSpaceNotFound
}

// Converged is nil when all running nodes hold the same entries, by digest,
// and the same records.
func (w *Net) Converged(id space.ID) error {
	var first xrpc.SpaceStatus
	for i, n := range w.nodes {
		if n.Node == nil {
			continue
		}
		s, err := n.SpaceStatus(id)
		if err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
		if first.Digest == "" {
			first = s
		}
		if s.Digest != first.Digest || s.Records != first.Records {
			return fmt.Errorf("node %d holds %d entries, %d records, digest %.8s; another %d, %d, %.8s; they say %q and %q",
				i, s.Entries, s.Records, s.Digest, first.Entries, first.Records, first.Digest, s.LastError, first.LastError)
		}
	}
	return nil
}

// WaitConverged lets time pass until the net has converged, at most limit.
// It returns how long that took, in virtual time.
func (w *Net) WaitConverged(id space.ID, limit time.Duration) time.Duration {
	w.t.Helper()
	start := time.Now()
	for {
		err := w.Converged(id)
		took := time.Since(start)
		if err == nil {
			return took
		}
		if took > limit {
			w.t.Fatalf("not converged after %v: %v", took, err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// Attach is n's place on the network, for a host that takes it while n is
// stopped.
func (n *Node) Attach() (listen []string, host []libp2p.Option) { return n.net.attach(n.ip) }
