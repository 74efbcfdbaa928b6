package local

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// NetOptions say what Up starts.
type NetOptions struct {
	Kith                     string // the binary; empty: the one that is running
	Dir                      string // homes, logs and what Status and Down need
	Members, Keepers, Relays int
	// Listen is the IP that nodes listen on, empty: 127.0.0.1. Announce is the
	// one that others are told; empty: the same.
	Listen, Announce string
}

// NetNode is one node of a network that stays up.
type NetNode struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"` // member, keeper, relay
	DID       space.DID `json:"did"`
	PeerID    string    `json:"peerId"`
	HTTP      string    `json:"http"`
	Listen    []string  `json:"listen"`
	Relay     []string  `json:"relay,omitempty"` // for space create --relay
	TokenFile string    `json:"tokenFile"`
	Home      string    `json:"home"`
	PID       int       `json:"pid"`
	Up        bool      `json:"up"`
}

// Network is a network as its operator knows it.
type Network struct {
	ID     string    `json:"network"`
	Dir    string    `json:"dir"`
	Space  space.ID  `json:"space"`
	Invite string    `json:"invite"` // opens no door: the space is public
	Nodes  []NetNode `json:"nodes"`
}

const (
	stateFile = "testnet.json"
	operator  = "operator.key" // 32 bytes: what a manifest is signed with
	netType   = space.NSID("com.example.commons")
)

// ErrNoNetwork: the directory holds no network.
var ErrNoNetwork = errors.New("no testnet here")

// Up starts a network that stays up when this process ends: relays, keepers and
// members, with a public space that all of them share. What it started is
// stopped again if it cannot be brought to its end.
func Up(ctx context.Context, o NetOptions) (_ Network, err error) {
	kith, err := executable(o.Kith)
	if err != nil {
		return Network{}, err
	}
	if exists(filepath.Join(o.Dir, stateFile)) {
		return Network{}, fmt.Errorf("%s holds a testnet already; end it first: kith testnet down --dir %s", o.Dir, o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return Network{}, err
	}
	key, err := operatorKey(o.Dir)
	if err != nil {
		return Network{}, err
	}
	w := Network{ID: networkID(key.Public().(ed25519.PublicKey)), Dir: o.Dir}
	defer func() {
		if err != nil {
			w.stop()
		}
	}()
	if err := w.launchAll(kith, o); err != nil {
		return Network{}, err
	}
	if err := w.share(ctx); err != nil {
		return Network{}, err
	}
	return w, w.keep()
}

// launchAll starts the nodes, all at once.
func (w *Network) launchAll(kith string, o NetOptions) error {
	for _, group := range []struct {
		role, letter string
		n            int
	}{{"relay", "r", o.Relays}, {"keeper", "k", o.Keepers}, {"member", "m", max(1, o.Members)}} {
		for i := range group.n {
			w.Nodes = append(w.Nodes, NetNode{Name: group.letter + strconv.Itoa(i+1), Role: group.role})
		}
	}
	errs := make([]error, len(w.Nodes))
	var wg sync.WaitGroup
	for i := range w.Nodes {
		n := &w.Nodes[i]
		n.Home = filepath.Join(o.Dir, n.Name)
		args, err := listenArgs(o, n.Role == "relay")
		if err != nil {
			return err
		}
		if n.Role == "keeper" {
			args = append(args, "--keeper")
		}
		wg.Go(func() { errs[i] = launch(kith, n, append(args, "--network", w.ID)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// listenArgs draws ports and says where a node listens and what it tells.
func listenArgs(o NetOptions, relay bool) ([]string, error) {
	at, told := o.Listen, o.Announce
	if at == "" {
		at = "127.0.0.1"
	}
	port, err := drawPort(at)
	if err != nil {
		return nil, err
	}
	form := func(ip string, port int) []string {
		family := "ip4"
		if strings.Contains(ip, ":") {
			family = "ip6"
		}
		return []string{fmt.Sprintf("/%s/%s/udp/%d/quic-v1", family, ip, port), fmt.Sprintf("/%s/%s/tcp/%d", family, ip, port)}
	}
	var args []string
	for _, a := range form(at, port) {
		args = append(args, "--listen", a)
	}
	if told != "" {
		for _, a := range form(told, port) {
			args = append(args, "--announce", a)
		}
	}
	if !relay {
		return args, nil
	}
	if port, err = drawPort(at); err != nil {
		return nil, err
	}
	args = append(args, "--relay")
	for _, a := range form(at, port) {
		args = append(args, "--relay-listen", a)
	}
	if told != "" {
		for _, a := range form(told, port) {
			args = append(args, "--relay-announce", a)
		}
	}
	return args, nil
}

// drawPort finds a port that is free for both TCP and UDP.
func drawPort(ip string) (int, error) {
	for range 32 {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		u, err := net.ListenPacket("udp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err == nil {
			u.Close()
			return port, nil
		}
	}
	return 0, errors.New("no port is free for both TCP and UDP")
}

// launch starts a node that goes on when this process ends: nothing of it is
// tied to ours. It waits for the ready line.
func launch(kith string, n *NetNode, args []string) error {
	if err := os.MkdirAll(n.Home, 0o700); err != nil {
		return err
	}
	outName := filepath.Join(n.Home, "ready.json")
	out, err := os.Create(outName)
	if err != nil {
		return err
	}
	defer out.Close()
	log, err := os.OpenFile(logOf(n.Home), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(kith, append([]string{"run", "--home", n.Home, "--http", "127.0.0.1:0", "--no-mdns"}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = cleanEnv(os.Environ()), out, log, ownGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	n.PID = cmd.Process.Pid
	died := make(chan struct{})
	go func() {
		cmd.Wait()
		close(died)
	}()
	for start := time.Now(); time.Since(start) < readyTime; {
		b, err := os.ReadFile(outName)
		if line, _, whole := bytes.Cut(b, []byte("\n")); err == nil && whole {
			var r ready
			if err := json.Unmarshal(line, &r); err != nil {
				return fmt.Errorf("start %s: its first line is no ready line: %w", n.Name, err)
			}
			n.DID, n.PeerID, n.HTTP, n.Listen, n.TokenFile, n.Relay, n.Up = r.DID, r.PeerID, r.HTTP, r.Listen, r.TokenFile, r.Relay, true
			return nil
		}
		select {
		case <-died:
			return fmt.Errorf("start %s: it ended; why stands in %s", n.Name, logOf(n.Home))
		case <-time.After(50 * time.Millisecond):
		}
	}
	cmd.Process.Kill()
	return fmt.Errorf("start %s: not ready within %v; see %s", n.Name, readyTime, logOf(n.Home))
}

// client speaks to the node.
func (n NetNode) client() (*xrpc.Client, error) {
	token, err := os.ReadFile(n.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("%s: read its token: %w", n.Name, err)
	}
	return &xrpc.Client{Base: n.HTTP, Token: strings.TrimSpace(string(token))}, nil
}

// alive reports whether the node that was started still answers at its address.
func (n NetNode) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := n.client()
	if err != nil {
		return false
	}
	st, err := c.Status(ctx)
	return err == nil && st.PeerID == n.PeerID
}

// share makes the public space and lets everybody into it.
func (w *Network) share(ctx context.Context) error {
	var relays []string
	for _, n := range w.Nodes {
		if n.Role == "relay" && len(n.Relay) > 0 {
			relays = append(relays, n.Relay[0])
		}
	}
	at := slices.IndexFunc(w.Nodes, func(n NetNode) bool { return n.Role == "member" })
	founder, err := w.Nodes[at].client()
	if err != nil {
		return err
	}
	policy := space.DefaultPolicy()
	policy.Mint, policy.DisplayName = space.MintPublic, "Commons"
	info, err := founder.CreateSpace(ctx, xrpc.NewSpace{Type: netType, Name: "commons", Relays: relays, Policy: policy})
	if err != nil {
		return fmt.Errorf("make the public space: %w", err)
	}
	w.Space = info.ID
	inv, err := founder.Invite(ctx, info.ID, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		return fmt.Errorf("make a link: %w", err)
	}
	if w.Invite, err = signpost(inv.Link); err != nil {
		return err
	}
	errs := make([]error, len(w.Nodes))
	var wg sync.WaitGroup
	for i, n := range w.Nodes {
		if i == at || n.Role == "relay" {
			continue
		}
		wg.Go(func() {
			c, err := n.client()
			if err == nil {
				_, err = c.JoinWait(ctx, w.Invite, 30*time.Second)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for i, n := range w.Nodes {
		if n.Role == "keeper" && errs[i] == nil {
			_, errs[i] = founder.SetKeeper(ctx, w.Space, n.DID, xrpc.AllCaps)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("let everybody in: %w", err)
	}
	// Made again, so that it names the keepers.
	if inv, err = founder.Invite(ctx, info.ID, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1}); err == nil {
		w.Invite, err = signpost(inv.Link)
	}
	return err
}

// keep writes down what Status and Down need.
func (w *Network) keep() error {
	b, err := json.MarshalIndent(w, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.Dir, stateFile), append(b, '\n'), 0o600)
}

// ReadNetwork reads what Up wrote, and looks which nodes are up.
func ReadNetwork(ctx context.Context, dir string) (Network, error) {
	var w Network
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return w, fmt.Errorf("%s: %w", dir, ErrNoNetwork)
	}
	if err == nil {
		err = json.Unmarshal(b, &w)
	}
	if err != nil {
		return w, fmt.Errorf("read the testnet of %s: %w", dir, err)
	}
	var wg sync.WaitGroup
	for i := range w.Nodes {
		wg.Go(func() { w.Nodes[i].Up = w.Nodes[i].alive(ctx) })
	}
	wg.Wait()
	return w, nil
}

// Down stops the nodes of a network. Their homes stay.
func Down(ctx context.Context, dir string) (Network, error) {
	w, err := ReadNetwork(ctx, dir)
	if err != nil {
		return w, err
	}
	if err := w.stop(); err != nil {
		return w, err
	}
	return w, os.Remove(filepath.Join(dir, stateFile))
}

// stop ends the nodes that answer: a process id alone says nothing, it may be
// somebody else's by now.
func (w *Network) stop() error {
	errs := make([]error, len(w.Nodes))
	var wg sync.WaitGroup
	for i := range w.Nodes {
		wg.Go(func() { errs[i] = w.Nodes[i].stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (n *NetNode) stop() error {
	if n.PID == 0 || !n.alive(context.Background()) {
		n.Up = false
		return nil
	}
	p, err := os.FindProcess(n.PID)
	if err != nil {
		return err
	}
	if err := p.Signal(os.Interrupt); err != nil {
		return errors.Join(p.Kill())
	}
	for start := time.Now(); time.Since(start) < 2*stopTime; time.Sleep(50 * time.Millisecond) {
		if !n.alive(context.Background()) {
			n.Up = false
			return nil
		}
	}
	return fmt.Errorf("%s did not stop within %v", n.Name, 2*stopTime)
}

// operatorKey is the key of who runs the network, drawn once.
func operatorKey(dir string) (ed25519.PrivateKey, error) {
	name := filepath.Join(dir, operator)
	seed, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		seed = make([]byte, ed25519.SeedSize)
		rand.Read(seed)
		err = os.WriteFile(name, seed, 0o600)
	}
	if err == nil && len(seed) != ed25519.SeedSize {
		err = fmt.Errorf("%s: not a key", name)
	}
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
