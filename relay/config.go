package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/multiformats/go-multiaddr"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/internal/store"
)

// Config says how a relay runs. Only Dir is required; zero fields take the
// value documented.
type Config struct {
	// Dir is the relay's directory: its key and its store.
	Dir string
	// Listen are the addresses of the first host; each further one listens on
	// the ports that follow, or on ports drawn for it if that is 0. Default: one
	// port drawn at each start, on all interfaces.
	Listen []string
	// Announce are the addresses told to others in the place of those listened
	// on, of the first host; likewise.
	Announce []string
	// Hosts is how many libp2p hosts share the topics: 1. Each serves at most
	// TopicsPerHost: 8,000.
	Hosts, TopicsPerHost int
	// Closed gives no lease without an access code.
	Closed bool
	// Open is the lease given to whoever asks: 16 MiB, 500 envelopes a second.
	Open Quota
	// Codes are access codes and what they are good for.
	Codes map[string]Quota
	// LeaseTime is how long a lease runs: 30 days.
	LeaseTime time.Duration
	// Retention is how long entries and shards are kept in any case while their
	// topic's lease lives: 90 days, or less if the descriptor wishes less. They
	// are dropped only when the lease has no more room.
	Retention time.Duration
	// MaxBytes is what all topics may hold together: 64 GiB. New leases are
	// refused beyond it.
	MaxBytes uint64
	// LeaseBurst and LeaseRate bound the new leases for one address (IPv4, or
	// /56 of IPv6): 500 at once, then so many a second: 0.1.
	LeaseBurst int
	LeaseRate  float64
	// NoCircuit turns off what the first host does besides: it carries
	// connections to nodes behind NATs that lease something here (ServeCircuits)
	// and tells nodes whether they can be dialled (AutoNAT v2).
	NoCircuit bool
	// Limits bound what is listened to on gossip.
	Limits gossip.Limits
	// Store tunes the store.
	Store store.Options
	// Host are further libp2p options for the i-th host, applied last.
	Host func(i int) []libp2p.Option
	// Log receives the relay's log; nil discards it.
	Log *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Network is the id of a network apart; empty: the open one.
	Network string
	// Version is what describe reports of the program.
	Version string

	// openStore opens the store; nil: store.Open. Tests give disks that fail.
	openStore func(dir string, key [32]byte) (*store.Store, error)
}

func (c Config) withDefaults() Config {
	set(&c.Hosts, 1)
	set(&c.TopicsPerHost, 8000)
	set(&c.Open.Bytes, 16<<20)
	set(&c.Open.Rate, 500)
	set(&c.LeaseTime, 30*day)
	set(&c.Retention, 90*day)
	set(&c.MaxBytes, 64<<30)
	set(&c.LeaseBurst, 500)
	set(&c.LeaseRate, 0.1)
	if len(c.Listen) == 0 {
		c.Listen = []string{"/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.openStore == nil {
		opts := c.Store
		c.openStore = func(dir string, key [32]byte) (*store.Store, error) { return store.Open(dir, key, opts) }
	}
	return c
}

// set gives a field that is zero its standard.
func set[T comparable](field *T, standard T) {
	var zero T
	if *field == zero {
		*field = standard
	}
}

// maxHosts bounds how many hosts one process runs.
const maxHosts = 64

func (c *Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("a directory is needed"))
	}
	if c.Hosts < 1 || c.Hosts > maxHosts {
		errs = append(errs, fmt.Errorf("%d hosts: want 1 to %d", c.Hosts, maxHosts))
	}
	for _, list := range [][]string{c.Listen, c.Announce} {
		for _, a := range list {
			if _, err := multiaddr.NewMultiaddr(a); err != nil {
				errs = append(errs, fmt.Errorf("address %q: %w", a, err))
			}
		}
	}
	for code := range c.Codes {
		if code == "" || len(code) > 255 {
			errs = append(errs, fmt.Errorf("access code of %d bytes: want 1 to 255", len(code)))
		}
	}
	return errors.Join(errs...)
}

// owners is how many goroutines own the topics.
func owners() int { return 2 * runtime.GOMAXPROCS(0) }

// onPort moves the ports of addresses up for the i-th host. A port of 0 stays.
func onPort(addrs []string, i int) ([]string, error) {
	var out []string
	for _, a := range addrs {
		m, err := multiaddr.NewMultiaddr(a)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", a, err)
		}
		var moved multiaddr.Multiaddr
		for _, c := range m {
			if p := c.Protocol().Code; (p == multiaddr.P_UDP || p == multiaddr.P_TCP) && c.Value() != "0" {
				port, err := strconv.ParseUint(c.Value(), 10, 16)
				if err != nil || port+uint64(i) > 65535 {
					return nil, fmt.Errorf("address %q: no port for host %d", a, i)
				}
				next, err := multiaddr.NewComponent(c.Protocol().Name, strconv.FormatUint(port+uint64(i), 10))
				if err != nil {
					return nil, fmt.Errorf("address %q: %w", a, err)
				}
				c = *next
			}
			moved = append(moved, c)
		}
		out = append(out, moved.String())
	}
	return out, nil
}

// block is the address that new leases are counted for.
func block(ip net.IP) string {
	if v4 := ip.To4(); v4 != nil {
		return v4.String()
	}
	return ip.Mask(net.CIDRMask(56, 128)).String()
}
