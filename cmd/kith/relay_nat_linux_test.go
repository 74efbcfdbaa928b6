package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
)

// country is a network of namespaces: a public street, on which a relay
// stands, and homes, each behind a router of its own that rewrites addresses
// (nftables, masquerade) and lets in only what answers.
type country struct {
	t    *testing.T
	name string // in front of every namespace's
	dir  string // the homes' directories
	kith string
}

// The addresses are public ones, because nobody tries to meet at others; they
// exist in these namespaces alone.
const (
	streetAddr = "5.9.0.1"
	relayPort  = "2590"
)

// newCountry builds the street. Not every machine allows it; the error says
// why.
func newCountry(t *testing.T) (*country, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("namespaces of a network want root")
	}
	kith, err := exec.LookPath("kith")
	if err != nil {
		t.Fatal(err)
	}
	c := &country{t: t, name: fmt.Sprintf("kith%d", os.Getpid()), dir: t.TempDir(), kith: kith}
	if err := c.space("street"); err != nil {
		return nil, err
	}
	return c, c.in("street",
		"ip link add street type bridge",
		"ip addr add "+streetAddr+"/24 dev street",
		"ip link set street up",
		"nft list ruleset",
	)
}

// space makes a namespace with a loopback of its own.
func (c *country) space(name string) error {
	if out, err := exec.Command("ip", "netns", "add", c.name+name).CombinedOutput(); err != nil {
		return fmt.Errorf("ip netns add: %w: %s", err, out)
	}
	c.t.Cleanup(func() { exec.Command("ip", "netns", "del", c.name+name).Run() })
	return c.in(name, "ip link set lo up")
}

// in runs commands, without quoting, in a namespace.
func (c *country) in(name string, commands ...string) error {
	for _, line := range commands {
		args := append([]string{"netns", "exec", c.name + name}, strings.Fields(line)...)
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}

// settle puts the n-th home, with its router, on the street.
func (c *country) settle(name string, n int) error {
	router, out, in := name+"-router", fmt.Sprintf("5.9.0.%d", 10+n), fmt.Sprintf("10.%d.0", n)
	for _, s := range []string{router, name} {
		if err := c.space(s); err != nil {
			return err
		}
	}
	steps := []struct{ at, line string }{
		{"street", "ip link add " + name + " type veth peer name out netns " + c.name + router},
		{"street", "ip link set " + name + " master street up"},
		{name, "ip link add home type veth peer name in netns " + c.name + router},
		{name, "ip addr add " + in + ".2/24 dev home"},
		{name, "ip link set home up"},
		{name, "ip route add default via " + in + ".1"},
		{router, "ip addr add " + out + "/24 dev out"},
		{router, "ip addr add " + in + ".1/24 dev in"},
		{router, "ip link set out up"},
		{router, "ip link set in up"},
		{router, "sysctl -qw net.ipv4.ip_forward=1"},
		{router, "nft add table ip home"},
		{router, "nft add chain ip home leave { type nat hook postrouting priority srcnat ; }"},
		{router, "nft add rule ip home leave oifname out masquerade"},
		{router, "nft add chain ip home enter { type filter hook forward priority filter ; policy drop ; }"},
		{router, "nft add rule ip home enter ct state established,related accept"},
		{router, "nft add rule ip home enter iifname in accept"},
		// What nobody asked for must leave no trace: it would take the place of the
		// answer that is to come from there.
		{router, "nft add chain ip home own { type filter hook input priority filter ; policy drop ; }"},
		// A wall between the routers, until it is taken down.
		{router, "nft add chain ip home wall { type filter hook forward priority -10 ; }"},
		{router, "nft add rule ip home wall oifname out ip daddr != " + streetAddr + " drop"},
	}
	for _, s := range steps {
		if err := c.in(s.at, s.line); err != nil {
			return err
		}
	}
	return nil
}

// run starts a node in a namespace and answers its first words. stop kills it.
func (c *country) run(name string, flags ...string) (ready node.Ready, stop func()) {
	c.t.Helper()
	home := filepath.Join(c.dir, name)
	args := append([]string{"netns", "exec", c.name + name, c.kith, "--home", home, "run", "--no-mdns", "--http", "127.0.0.1:0"}, flags...)
	cmd := exec.Command("ip", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	c.t.Cleanup(func() {
		stop()
		if c.t.Failed() {
			c.t.Logf("%s said:\n%s", name, log.String())
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		c.t.Fatalf("%s is not ready: %v\n%s", name, err, log.String())
	}
	return ready, stop
}

// ask runs a command against the node of a namespace and reads its JSON.
func (c *country) ask(name string, into any, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	all := append([]string{"netns", "exec", c.name + name, c.kith, "--home", filepath.Join(c.dir, name), "--json"}, args...)
	var diag bytes.Buffer
	cmd := exec.CommandContext(ctx, "ip", all...)
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: kith %s: %w: %s", name, strings.Join(args, " "), err, diag.String())
	}
	return json.Unmarshal(out, into)
}

// until asks again and again, with time for a loaded machine.
func (c *country) until(what string, done func() error) {
	c.t.Helper()
	begin := time.Now()
	defer func() { c.t.Logf("%s: after %v", what, time.Since(begin).Round(time.Millisecond)) }()
	deadline := time.NewTimer(90 * time.Second)
	defer deadline.Stop()
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		err := done()
		if err == nil {
			tick.Stop()
			return
		}
		select {
		case <-deadline.C:
			c.t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// connected waits until a node has a connection to a peer, directly or not.
func (c *country) connected(name, peerID string, direct bool) {
	c.t.Helper()
	c.until(fmt.Sprintf("%s connected, direct %v", name, direct), func() error {
		var got struct {
			Peers []struct {
				PeerID string
				Direct bool
			}
		}
		if err := c.ask(name, &got, "peer", "list"); err != nil {
			return err
		}
		for _, p := range got.Peers {
			if p.PeerID == peerID && p.Direct == direct {
				return nil
			}
		}
		return fmt.Errorf("peers: %+v", got.Peers)
	})
}

// carries writes a record at one node and waits for it at another.
func (c *country) carries(from, to, uri, key string) {
	c.t.Helper()
	var any map[string]any
	if err := c.ask(from, &any, "record", "put", uri, "com.example.note", key, `{"text":"here"}`); err != nil {
		c.t.Fatal(err)
	}
	c.until(key+" at "+to, func() error { return c.ask(to, &any, "record", "get", uri, "com.example.note", key) })
}

// TestNAT is two nodes, each behind a router of its own. While the routers let
// nothing pass between them, they join, write and read through the circuit of a
// relay. Then a punch opens both ways, and they go on when the relay is dead.
// Where a machine has no namespaces or no nftables, the same is shown on
// simulated links alone (testnet, TestMeetBehindNAT).
func TestNAT(t *testing.T) {
	c, err := newCountry(t)
	for i, home := range []string{"ann", "ben"} {
		if err == nil {
			err = c.settle(home, i+1)
		}
	}
	if err != nil {
		t.Logf("ran on simulated links only (TestMeetBehindNAT): no network namespaces with NAT here: %v", err)
		return
	}
	listen := []string{"--listen", "/ip4/0.0.0.0/udp/4001/quic-v1", "--listen", "/ip4/0.0.0.0/tcp/4001"}
	relay, killRelay := c.run("street", "--relay", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1",
		"--relay-listen", "/ip4/"+streetAddr+"/udp/"+relayPort+"/quic-v1")
	ann, _ := c.run("ann", listen...)
	ben, _ := c.run("ben", listen...)

	var made struct{ URI string }
	if err := c.ask("ann", &made, "space", "create", "--type", "com.example.forum", "--name", "f", "--relay", relay.Relay[0]); err != nil {
		t.Fatal(err)
	}
	c.until("a way to ann through the relay", func() error {
		var st struct{ Listen []string }
		err := c.ask("ann", &st, "status")
		if err == nil && !strings.Contains(strings.Join(st.Listen, " "), "/p2p-circuit") {
			err = fmt.Errorf("listens on %v", st.Listen)
		}
		return err
	})
	var invite struct{ Link string }
	if err := c.ask("ann", &invite, "space", "invite", made.URI); err != nil {
		t.Fatal(err)
	}
	var joined map[string]any
	if err := c.ask("ben", &joined, "space", "join", invite.Link); err != nil {
		t.Fatal(err)
	}
	c.carries("ann", "ben", made.URI, "walled")
	c.connected("ben", ann.PeerID, false)
	c.connected("ann", ben.PeerID, false)
	t.Log("network namespaces, NATs walled: joined and read through the circuit")

	for _, router := range []string{"ann-router", "ben-router"} {
		if err := c.in(router, "nft flush chain ip home wall"); err != nil {
			t.Fatal(err)
		}
	}
	c.connected("ben", ann.PeerID, true)
	c.connected("ann", ben.PeerID, true)
	killRelay()
	c.carries("ben", "ann", made.URI, "direct")
	t.Log("network namespaces, NATs open to answers: met through the circuit, punched, and went on without the relay")
}
