package conformance_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
	"github.com/kithnet/kith/xrpc/conformance"
)

// start runs a node in a home of its own until the test ends.
func start(t *testing.T, keeper bool) *xrpc.Client {
	t.Helper()
	home := t.TempDir()
	if _, _, err := node.Init(home, nil); err != nil {
		t.Fatal(err)
	}
	n, err := node.New(node.Config{Home: home, HTTP: "127.0.0.1:0", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, Keeper: keeper, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan node.Ready, 1), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func(r node.Ready) { ready <- r }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r := <-ready
	token, err := os.ReadFile(r.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return &xrpc.Client{Base: r.HTTP, Token: strings.TrimSpace(string(token))}
}

// suite runs the suite and tells what does not hold.
func suite(t *testing.T, cfg conformance.Config) conformance.Report {
	t.Helper()
	r, err := conformance.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r.Results {
		if x.Err != nil {
			t.Errorf("%s: %v", x.Name, x.Err)
		}
	}
	t.Logf("%d hold, %d do not, %d skipped", r.Passed, r.Failed, r.Skipped)
	return r
}

// token makes a token on the node for somebody.
func token(t *testing.T, c *xrpc.Client, who space.DID) string {
	t.Helper()
	text, _, err := c.CreateToken(t.Context(), xrpc.Token{DID: who, Scope: xrpc.Scope{Level: space.LevelRead}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// meet has the owner of one node known to the other: they share a space.
func meet(t *testing.T, host, guest *xrpc.Client) space.DID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	info, err := host.CreateSpace(ctx, xrpc.NewSpace{Type: "com.example.meeting", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	invite, err := host.Invite(ctx, info.ID, xrpc.InviteOptions{Level: space.LevelRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Join(ctx, invite.Link); err != nil {
		t.Fatal(err)
	}
	st, err := guest.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return st.DID
}

// A person's own node, asked by its owner alone: what needs others is skipped
// and said.
func TestPersonalNode(t *testing.T) {
	c := start(t, false)
	r := suite(t, conformance.Config{Base: c.Base, Owner: c.Token})
	if r.Passed < 250 || r.Skipped == 0 {
		t.Errorf("%d hold, %d skipped", r.Passed, r.Skipped)
	}
}

// A keeper with people on it: nothing is skipped.
func TestKeeper(t *testing.T) {
	c, guest := start(t, true), start(t, false)
	did := meet(t, c, guest)
	r := suite(t, conformance.Config{
		Base: c.Base, Owner: c.Token, Reader: token(t, c, did), Stranger: token(t, c, "did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
	})
	if r.Passed < 250 || r.Skipped != 0 {
		t.Errorf("%d hold, %d skipped", r.Passed, r.Skipped)
	}
}
