package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
	"github.com/kithnet/kith/xrpc/lexicon"
)

// Ready is what a node says once it takes requests.
type Ready struct {
	Ready     bool      `json:"ready"`
	DID       space.DID `json:"did"`
	PeerID    string    `json:"peerId"`
	Listen    []string  `json:"listen"`
	Relay     []string  `json:"relay,omitempty"` // addresses of the relay role
	HTTP      string    `json:"http"`
	Metrics   string    `json:"metrics,omitempty"`
	TokenFile string    `json:"tokenFile"`
	Roles     []string  `json:"roles"`
}

// listenAPI binds the API's address before anything else of the network is up,
// so that a taken port costs nothing. No address: no API.
func listenAPI(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; try --http 127.0.0.1:0", err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the API: %w", err)
	}
	return l, nil
}

// Run serves the API until ctx is done, then closes the node. ready is called
// once, when requests are taken.
func (n *Node) Run(ctx context.Context, ready func(Ready)) error {
	r := Ready{
		Ready: true, DID: n.self.did, PeerID: n.host.ID().String(), Listen: fullAddrs(n.host),
		Metrics:   n.meter.url(),
		TokenFile: TokenFile(n.cfg.Home), Roles: []string{"member"},
	}
	if n.cfg.Keeper {
		r.Roles = append(r.Roles, "keeper")
	}
	if r.Relay = n.relayAddrs(); r.Relay != nil {
		r.Roles = append(r.Roles, "relay")
	}
	if n.api == nil {
		ready(r)
		<-ctx.Done()
		return n.Close()
	}
	r.HTTP = "http://" + n.api.Addr().String()
	token, err := readToken(n.cfg.Home)
	if err == nil {
		err = os.WriteFile(AddrFile(n.cfg.Home), []byte(r.HTTP+"\n"), 0o600)
	}
	if err != nil {
		return errors.Join(err, n.Close())
	}
	defer os.Remove(filepath.Join(n.cfg.Home, addrFile))
	lexicons, err := readLexicons(n.cfg.Home)
	if err != nil {
		return errors.Join(err, n.Close())
	}
	srv := &xrpc.Server{
		Spaces: n, Records: n, Repos: n, Node: n, Links: n, Devices: n, Backups: n, Relays: n, Snapshots: n, Blobs: n, Events: n,
		Roster: n, Invites: n, Approvals: n, Keys: n, Keepers: n, Admin: n, Transfers: n, Exits: n, Petnames: n, Delegations: n,
		Relay:  n.relayAPI(),
		Access: n, Tokens: n, Settings: n, Lexicons: lexicons,
		Owner: n.self.did, Token: token, Origins: n.cfg.Origins, Version: n.cfg.Version, Healthy: n.healthy, Log: n.log,
	}
	ready(r)
	return errors.Join(srv.Serve(ctx, n.api), n.Close())
}

// readLexicons reads what the owner put into the folder lexicons of the home:
// records of their collections are held to them. No folder, no lexicons.
func readLexicons(home string) (*lexicon.Catalog, error) {
	dir := filepath.Join(home, lexiconsDir)
	if !exists(dir) {
		return nil, nil
	}
	c, err := lexicon.Read(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	return c, nil
}

// healthy says why the node cannot serve.
func (n *Node) healthy(ctx context.Context) error {
	var store error
	if err := n.store.Err(); err != nil {
		store = fmt.Errorf("the store does not take writes: %w", err)
	}
	return errors.Join(store, n.relayHealthy(ctx))
}

// ReadAddr is the API address of the node that runs in home.
func ReadAddr(home string) (string, error) {
	b, err := os.ReadFile(AddrFile(home))
	if err != nil {
		return "", fmt.Errorf("no node runs in %s: %w", home, err)
	}
	return strings.TrimSpace(string(b)), nil
}
