package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/multiformats/go-multiaddr"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/relay"
)

// Config says how a node runs. Only Home is required: the zero value of
// everything else is a private node on loopback HTTP that finds its LAN.
type Config struct {
	// Home is the node's directory. It must hold an identity (Init makes one).
	Home string
	// Listen are the libp2p addresses; empty: QUIC and TCP on all interfaces,
	// on a port drawn once and kept in Home.
	Listen []string
	// Announce are the addresses that others are told instead of those that the
	// host listens on: of a port forwarded, of a name. Empty: those.
	Announce []string
	// HotTopics is how many spaces are heard on gossip at one time: 8,000. Of
	// more, those in use are; the cold ones live by reconciliation alone.
	HotTopics int
	// Network is the id of a network apart, such as a testnet: only its nodes
	// understand each other. Empty: the open one.
	Network string
	// HTTP is the API's host:port; empty: no HTTP. Port 0 picks one.
	HTTP string
	// Metrics is the host:port, on loopback, of Prometheus metrics and profiles;
	// empty: none. Port 0 picks one.
	Metrics string
	// CompactAfter is how long ago a value must have been superseded for its
	// entry to be dropped, where nodes that admit newcomers keep it, and how long
	// the oplogs that the API serves go back; 0: never, and for good.
	CompactAfter time.Duration
	// Bootstrap are peers (multiaddr with /p2p) dialled at start and kept.
	Bootstrap []string
	// Origins are the web origins (scheme://host[:port]) that may call the API
	// besides loopback.
	Origins []string
	// BlobsPerUser and BlobsPerSpace bound, in bytes, the blobs of one author
	// and of everybody in a space; the first also uploads that no record refers
	// to yet. 0: 1 GiB and 4 GiB.
	BlobsPerUser, BlobsPerSpace uint64
	// Keeper says, to scripts and in status, that this node is meant to stay up
	// for the spaces that made its owner a keeper. What it may do there, their
	// logs say.
	Keeper bool
	// Relay makes the node a relay as well: a role with hosts and a store of its
	// own, that sees nothing of what the node does. Empty Dir and Listen are a
	// place in Home and a port drawn once. nil: no relay.
	Relay *relay.Config
	// NoMDNS turns off looking for nodes on the local network.
	NoMDNS bool
	// Passphrase unlocks the key file; nil where it is not protected.
	Passphrase []byte
	// Rates bound what is spent on the sync streams of peers.
	Rates Rates
	// Exempt are networks in which any number of peers may share an address;
	// nil: loopback. Elsewhere an IPv4 address and an IPv6 network of 56 bits
	// have eight connections.
	Exempt []netip.Prefix
	// Host are further libp2p options, applied last (simulated networks).
	Host []libp2p.Option
	// Log receives the node's log; nil discards it.
	Log *slog.Logger
	// Version is what status and _health report.
	Version string
	// Settings are those of the environment (see xrpc.Setting…); what is set
	// through the API goes before them.
	Settings map[string]string
	// NoReconcile leaves gossip alone to spread entries. It exists for
	// negative controls: a node that runs so does not converge.
	NoReconcile bool

	// openStore opens the store in a directory; nil: store.Open. Tests give
	// disks that fail.
	openStore func(dir string, key [32]byte) (*store.Store, error)
}

// tuning holds the node's time constants. They are not configuration: each
// has one right value outside of an experiment.
const (
	statementSilence = 200 * time.Millisecond // rulings: an entry's statement follows its burst
	statementEvery   = 64                     // and rides on every 64th entry
	maxAhead         = 5 * time.Minute        // an entry further in the future is parked
	certLife         = 6 * 24 * time.Hour     // of a writer certificate; judges allow 7 days, the rest is for clocks
	syncEvery        = 60 * time.Second       // one random peer per space, jittered
	compareAfter     = time.Second            // from a change to asking peers whether they have it
	syncDeadline     = 2 * time.Minute        // one session
	joinDeadline     = 15 * time.Second       // for each step of an attempt at one keeper, while nothing moves
	joinMost         = 2 * time.Minute        // one attempt: a welcome to a large space on a slow link
	redialEvery      = 5 * time.Second        // base of the re-dialler's back-off
	healEvery        = 5 * time.Second        // a failed disk is looked at again, even if nobody writes
	wantPeers        = 6                      // connected peers per space the re-dialler aims at
)

// validate reports everything that is wrong with c at once.
func (c *Config) validate() error {
	var errs []error
	if c.Home == "" {
		errs = append(errs, errors.New("home: a directory is needed"))
	}
	for _, l := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(l); err != nil {
			errs = append(errs, fmt.Errorf("listen %q: %w", l, err))
		}
	}
	for _, l := range c.Announce {
		if _, err := multiaddr.NewMultiaddr(l); err != nil {
			errs = append(errs, fmt.Errorf("announce %q: %w", l, err))
		}
	}
	for _, b := range c.Bootstrap {
		if _, err := parsePeer(b); err != nil {
			errs = append(errs, fmt.Errorf("bootstrap: %w", err))
		}
	}
	if c.HTTP != "" {
		if _, _, err := net.SplitHostPort(c.HTTP); err != nil {
			errs = append(errs, fmt.Errorf("http %q: want host:port: %w", c.HTTP, err))
		}
	}
	return errors.Join(append(errs, validExempt(c.Exempt))...)
}

func (c *Config) open(key [32]byte) (*store.Store, error) {
	dir := filepath.Join(c.Home, storeDir)
	if c.openStore != nil {
		return c.openStore(dir, key)
	}
	return store.Open(dir, key, store.Options{})
}
