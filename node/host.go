package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// newHost makes the libp2p host: QUIC, TCP and WebSocket, Noise or TLS. It
// tells the addresses that at makes of those it listens on, reaches others
// through their relays and then, where NATs let it, directly, and lets peers
// find out how reachable they are. On a simulated network, which extra brings,
// nobody finds out anything.
func newHost(key crypto.PrivKey, listen []string, at *reach, agent string, exempt []netip.Prefix, extra []libp2p.Option) (host.Host, error) {
	cm, err := connmgr.NewConnManager(96, 192, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, fmt.Errorf("connection manager: %w", err)
	}
	limits, err := limited(exempt)
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.Identity(key), limits,
		libp2p.ListenAddrStrings(listen...),
		libp2p.ConnectionManager(cm),
		libp2p.AddrsFactory(at.addrs),
		libp2p.EnableRelay(),
		at.punch.option(),
		libp2p.SwarmOpts(swarm.WithDialTimeout(addrTimeout), swarm.WithDialTimeoutLocal(addrTimeout), swarm.WithDialRanker(rankDials)),
		libp2p.UserAgent(agent),
	}
	if len(extra) == 0 {
		opts = append(opts, libp2p.EnableAutoNATv2(),
			libp2p.Transport(quic.NewTransport), libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(websocket.New))
	}
	h, err := libp2p.New(append(opts, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", strings.Join(listen, ", "), err)
	}
	return h, nil
}

// rankDials says when each address of a peer is dialled. It is libp2p's order
// but for one thing: on this machine and in private networks TCP is first and
// QUIC after it, not the other way round. The kernel moves TCP in large pieces,
// so that a fill takes a seventh less of processor time, and what QUIC does
// better needs a network that loses packets or a NAT. First of all is what leads
// to this very machine: elsewhere it is refused at once.
func rankDials(addrs []multiaddr.Multiaddr) []network.AddrDelay {
	ranked := swarm.DefaultDialRanker(addrs)
	for class, offset := 0, time.Duration(0); class < farAway; class++ {
		first := time.Duration(-1)
		for _, r := range ranked {
			if nearness(r.Addr) == class && (first < 0 || r.Delay < first) {
				first = r.Delay
			}
		}
		if first < 0 {
			continue
		}
		for i, r := range ranked {
			if nearness(r.Addr) == class {
				ranked[i].Delay += offset - first
			}
		}
		offset += swarm.PrivateTCPDelay
	}
	return ranked
}

// What rankDials puts one after the other.
const (
	loopbackTCP = iota
	nearTCP
	nearElse
	farAway
)

func nearness(a multiaddr.Multiaddr) int {
	_, last := multiaddr.SplitLast(a)
	isTCP := last != nil && last.Protocol().Code == multiaddr.P_TCP
	switch {
	case isCircuit(a) || !manet.IsPrivateAddr(a):
		return farAway
	case isTCP && manet.IsIPLoopback(a):
		return loopbackTCP
	case isTCP:
		return nearTCP
	}
	return nearElse
}

// portFile keeps the port drawn at the first start, so that addresses given
// out in invites stay good.
const portFile = "listen.port"

// keptListen answers the addresses to listen on when none are configured:
// every interface on the port that a file in HOME keeps. A port that somebody else took
// meanwhile is replaced by a new one: peers learn it from hellos.
func keptListen(home, file string) ([]string, error) {
	name := filepath.Join(home, file)
	port := 0
	if b, err := os.ReadFile(name); err == nil {
		port, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the listen port: %w", err)
	}
	free, err := freePort(port)
	if err != nil {
		return nil, err
	}
	if free != port {
		if err := os.WriteFile(name, []byte(strconv.Itoa(free)+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("keep the listen port: %w", err)
		}
	}
	p := strconv.Itoa(free)
	return []string{
		"/ip4/0.0.0.0/udp/" + p + "/quic-v1", "/ip6/::/udp/" + p + "/quic-v1",
		"/ip4/0.0.0.0/tcp/" + p, "/ip6/::/tcp/" + p,
	}, nil
}

// freePort answers want if it is free for both UDP and TCP, else a port that is.
func freePort(want int) (int, error) {
	for range 64 {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(want))
		if err != nil {
			want = 0
			continue
		}
		got := l.Addr().(*net.TCPAddr).Port
		l.Close()
		u, err := net.ListenPacket("udp", ":"+strconv.Itoa(got))
		if err != nil {
			want = 0
			continue
		}
		u.Close()
		return got, nil
	}
	return 0, errors.New("listen: no port is free for both UDP and TCP; name one with --listen")
}

// parseAddrs reads multiaddrs that were checked before.
func parseAddrs(texts []string) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for _, t := range texts {
		if m, err := multiaddr.NewMultiaddr(t); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// parsePeer reads a multiaddr that ends in /p2p/PEERID.
func parsePeer(s string) (peer.AddrInfo, error) {
	m, err := multiaddr.NewMultiaddr(strings.TrimSpace(s))
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("address %q is not a multiaddr: %w", s, err)
	}
	info, err := peer.AddrInfoFromP2pAddr(m)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("address %q does not end in /p2p/PEERID: %w", s, err)
	}
	return *info, nil
}

// parsePeers groups multiaddrs by peer and leaves out what cannot be read:
// addresses come from others.
func parsePeers(addrs []string) []peer.AddrInfo {
	var ms []multiaddr.Multiaddr
	for _, a := range addrs {
		if m, err := multiaddr.NewMultiaddr(a); err == nil {
			if _, err := peer.AddrInfoFromP2pAddr(m); err == nil {
				ms = append(ms, m)
			}
		}
	}
	infos, err := peer.AddrInfosFromP2pAddrs(ms...)
	if err != nil {
		return nil
	}
	return infos
}

// fullAddrs are h's addresses with /p2p: what goes into invites, hellos and
// the ready line. One through a relay stands first, for it is the one that
// works from everywhere, then direct ones, other ways through relays, and
// loopback last.
func fullAddrs(h host.Host) []string {
	var first, far, round, near []string
	for _, a := range h.Addrs() {
		s := a.String() + "/p2p/" + h.ID().String()
		switch {
		case isCircuit(a) && len(first) == 0:
			first = append(first, s)
		case isCircuit(a):
			round = append(round, s)
		case manet.IsIPLoopback(a):
			near = append(near, s)
		default:
			far = append(far, s)
		}
	}
	return slices.Concat(first, far, round, near)
}

// isCircuit reports whether an address leads through a relay.
func isCircuit(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_CIRCUIT)
	return err == nil
}

// dial connects to one peer within the time of ctx.
func dial(ctx context.Context, h host.Host, to peer.AddrInfo) error {
	if to.ID == h.ID() {
		return errors.New("that is this node's own address")
	}
	err := h.Connect(ctx, to)
	for tries := 1; err != nil && crossed(err) && tries < crossings; tries++ {
		select {
		case <-time.After(rand.N(crossingPause)):
		case <-ctx.Done():
			return fmt.Errorf("connect to %s: %w", to.ID, err)
		}
		forgetFailures(h, to.ID)
		err = h.Connect(ctx, to)
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", to.ID, err)
	}
	return nil
}

const (
	crossings     = 4 // dials of one peer that may cross its own
	crossingPause = 100 * time.Millisecond
)

// crossed reports whether a dial failed because the peer dialled this node in
// the same instant: both dial from the port they listen on, TCP makes one
// connection of the two SYNs (RFC 9293, 3.5), and on it both are TLS clients.
// Both see it fail. crypto/tls has no error value for this.
func crossed(err error) bool {
	return strings.Contains(err.Error(), "unexpected handshake message of type *tls.clientHelloMsg") ||
		strings.Contains(err.Error(), "remote error: tls: unexpected message")
}

// forgetFailures lets a peer be dialled although it just failed: the swarm's
// own back-off grows to minutes.
func forgetFailures(h host.Host, p peer.ID) {
	if s, ok := h.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(p)
	}
}
