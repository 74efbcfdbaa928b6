package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/testnet/local"
)

// netDir is where the network of this machine lies unless told otherwise.
func (a *app) netDir(dir string) (string, error) {
	if dir == "" {
		dir = a.Home + "-testnet"
	}
	return filepath.Abs(dir)
}

type testnetUpCmd struct {
	Members  int    `help:"Nodes of members. Standard: 3." default:"3" placeholder:"N"`
	Relays   int    `help:"Relays. Standard: 1." default:"1" placeholder:"N"`
	Keepers  int    `help:"Nodes that let others in. Standard: 1." default:"1" placeholder:"N"`
	Dir      string `help:"Where homes and logs go. Standard: beside the home." placeholder:"DIR"`
	Listen   string `help:"IP to listen on. Standard: 127.0.0.1, for this machine alone." placeholder:"IP"`
	Announce string `help:"IP to tell others. Standard: the one listened on." placeholder:"IP"`
	Detach   bool   `help:"Come back once it is up; kith testnet down ends it."`
}

// Run starts a network. Unless it is to stay, it ends with an interrupt.
func (c *testnetUpCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Members < 1 || c.Relays < 0 || c.Keepers < 0 || c.Members+c.Relays+c.Keepers > 64 {
		return usage("--members 3 --relays 1 --keepers 1", "want one member at least and 64 nodes at most")
	}
	dir, err := a.netDir(c.Dir)
	if err != nil {
		return err
	}
	w, err := local.Up(a.ctx, local.NetOptions{
		Dir: dir, Members: c.Members, Relays: c.Relays, Keepers: c.Keepers, Listen: c.Listen, Announce: c.Announce,
	})
	if err != nil {
		return err
	}
	if err := a.answer(w, func(out io.Writer) { showNet(out, w) }); err != nil {
		return err
	}
	a.say("next", "kith testnet manifest --dir %s > FILE; they: kith testnet join FILE", dir)
	if c.Detach {
		a.say("", "it stays up: kith testnet down --dir %s", dir)
		return nil
	}
	<-a.ctx.Done()
	_, err = local.Down(a.ctx, dir)
	return err
}

func showNet(out io.Writer, w local.Network) {
	line(out, "network", "%s", w.ID)
	line(out, "space", "%s", w.Space)
	line(out, "link", "%s", w.Invite)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, n := range w.Nodes {
		state := "up"
		if !n.Up {
			state = "down"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Role, state, n.HTTP, n.Home)
	}
	t.Flush()
}

type testnetStatusCmd struct {
	Dir string `help:"Where it lies. Standard: beside the home." placeholder:"DIR"`
}

// Run shows which nodes are up.
func (c *testnetStatusCmd) Run(a *app) error {
	dir, err := a.netDir(c.Dir)
	if err != nil {
		return err
	}
	w, err := local.ReadNetwork(a.ctx, dir)
	if err != nil {
		return noNet(a, err)
	}
	return a.answer(w, func(out io.Writer) { showNet(out, w) })
}

// noNet makes an error of a missing network what scripts expect of it.
func noNet(a *app, err error) error {
	if errors.Is(err, local.ErrNoNetwork) {
		return &failure{code: exitNotFound, name: "NoTestnet", message: err.Error(), hint: a.kith("testnet up --detach")}
	}
	return err
}

type testnetDownCmd struct {
	Dir string `help:"Where it lies. Standard: beside the home." placeholder:"DIR"`
}

// Run stops the network.
func (c *testnetDownCmd) Run(a *app) error {
	dir, err := a.netDir(c.Dir)
	if err != nil {
		return err
	}
	w, err := local.Down(a.ctx, dir)
	if err != nil {
		return noNet(a, err)
	}
	return a.answer(w, func(out io.Writer) { line(out, "down", "%d nodes; their homes lie in %s", len(w.Nodes), dir) })
}

type testnetManifestCmd struct {
	Dir string `help:"Where it lies. Standard: beside the home." placeholder:"DIR"`
}

// Run prints the manifest, which is JSON in any case.
func (c *testnetManifestCmd) Run(a *app) error {
	dir, err := a.netDir(c.Dir)
	if err != nil {
		return err
	}
	w, err := local.ReadNetwork(a.ctx, dir)
	if err != nil {
		return noNet(a, err)
	}
	m, err := w.Manifest(baseVersion, time.Now())
	if err != nil {
		return err
	}
	return a.answer(m, func(out io.Writer) {
		enc := json.NewEncoder(out)
		enc.SetIndent("", " ")
		_ = enc.Encode(m) // into a buffer
	})
}

type testnetJoinCmd struct {
	Manifest string `arg:"" help:"A file or https address of what kith testnet manifest printed, or the link of a space."`
	Wait     span   `help:"How long to wait to be let in. Standard: 30s." default:"30s" placeholder:"DUR"`
}

// Run joins, in a home of its own unless one is named.
func (c *testnetJoinCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if strings.HasPrefix(c.Manifest, "kith:") {
		return (&spaceJoinCmd{Link: c.Manifest, Wait: c.Wait}).Run(a)
	}
	raw, err := c.read(a)
	if err != nil {
		return err
	}
	m, err := local.ParseManifest(raw)
	switch {
	case errors.Is(err, local.ErrManifestVersion):
		return &failure{code: exitFailed, name: "WrongVersion", message: err.Error(), hint: "get the kith of who runs it, or ask for a new manifest"}
	case err != nil:
		return usage("ask for a new one: kith testnet manifest", "%v", err)
	}
	home := a.ownNetHome(m.Network)
	j, err := local.JoinNet(a.ctx, "", home, m, time.Duration(c.Wait))
	if err != nil {
		return err
	}
	return a.answer(j, func(out io.Writer) {
		line(out, "network", "%s", j.Network)
		line(out, "space", "%s", j.URI)
		line(out, "peers", "%d", j.Peers)
		line(out, "home", "%s, whose node runs on", home)
		a.say("next", "kith --home %s record create %s com.example.commons.note '{\"text\":\"hello\"}'", home, j.URI)
	})
}

// ownNetHome is the home of a network's node: the one named, else one beside
// the standard.
func (a *app) ownNetHome(network string) string {
	if a.Home != a.standardHome {
		return a.Home
	}
	return a.Home + "-" + network
}

// read gets the manifest.
func (c *testnetJoinCmd) read(a *app) ([]byte, error) {
	const most = 64 << 10
	if !strings.HasPrefix(c.Manifest, "https://") {
		b, err := os.ReadFile(c.Manifest)
		if err != nil {
			return nil, usage("name a file that kith testnet manifest printed", "%v", err)
		}
		return b, nil
	}
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, c.Manifest, nil)
	if err != nil {
		return nil, usage("https://HOST/FILE", "%v", err)
	}
	client := &http.Client{Timeout: 15 * time.Second}
	answer, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch the manifest: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the manifest: %s", answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, most+1))
}

type testnetLeaveCmd struct {
	Network string `arg:"" optional:"" help:"Its id; not needed with --home."`
}

// Run stops the node that joined.
func (c *testnetLeaveCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Network == "" && a.Home == a.standardHome {
		return usage("kith testnet leave NETWORK, or name the home with --home", "which network?")
	}
	j, err := local.LeaveNet(a.ownNetHome(c.Network))
	if err != nil {
		return noNet(a, err)
	}
	return a.answer(map[string]any{"network": j.Network, "home": j.Home, "left": true}, func(out io.Writer) {
		line(out, "left", "network %s; what was written there lies in %s", j.Network, j.Home)
	})
}
