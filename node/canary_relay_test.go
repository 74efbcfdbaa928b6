package node_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// relayDirEnv makes this binary a relay on that directory: a process of its
// own, so that what it has in memory is the relay's alone.
const relayDirEnv = "KITH_TEST_RELAY"

// relaySays is what the relay's process prints when it is ready.
type relaySays struct {
	Addr string
	Port string
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(relayDirEnv); dir != "" {
		if err := beRelay(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beRelay runs a relay over plain TCP until stdin ends.
func beRelay(dir string) error {
	r, err := relay.New(relay.Config{
		Dir: dir, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Announce: []string{os.Getenv(relayDirEnv + "_AT")},
		NoCircuit: true, Host: func(int) []libp2p.Option { return []libp2p.Option{libp2p.NoSecurity} },
	})
	if err != nil {
		return err
	}
	port := strings.Split(r.Listening()[0], "/")[4]
	if err := json.NewEncoder(os.Stdout).Encode(relaySays{r.Addrs()[0], port}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return r.Close()
}

// spawnRelay starts a relay in a process of its own, behind a tap.
func spawnRelay(t *testing.T, dir string) (addr string, wire *tap, pid int, stop func()) {
	t.Helper()
	wire = newTap(t)
	_, port, err := net.SplitHostPort(wire.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), relayDirEnv+"="+dir, relayDirEnv+"_AT=/ip4/127.0.0.1/tcp/"+port)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var says relaySays
	if err == nil {
		err = json.Unmarshal(line, &says)
	}
	if err != nil {
		t.Fatal(err)
	}
	wire.lead("127.0.0.1:" + says.Port)
	return says.Addr, wire, cmd.Process.Pid, func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the relay's end: %v", err)
		}
	}
}

// memoryOf is what a process has in memory, as far as it can be read: on Linux.
func memoryOf(t *testing.T, pid int) []byte {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Log("the relay's memory is not read on this system")
		return nil
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Logf("the relay's memory cannot be read here: %v", err)
		return nil
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Logf("the relay's memory cannot be read here: %v", err)
		return nil
	}
	defer mem.Close()
	var all []byte
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil || !strings.HasPrefix(perms, "rw") {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from) // what was unmapped meanwhile is gone
		all = append(all, b[:n]...)
	}
	return all
}

// TestR1RelaySeesNothing: 50 records pass through a relay to a member who was
// away. Neither its disk nor its memory nor what it hears and says above the
// transport holds any of them, a DID, a name of the space or of a collection;
// all are drawn here, so that no binary holds them either.
func TestR1RelaySeesNothing(t *testing.T) {
	plain := func(c *node.Config) {
		c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
		c.Host = append(c.Host, libp2p.NoSecurity)
	}
	dir := t.TempDir()
	addr, wire, pid, stop := spawnRelay(t, dir)
	homeA, homeB := t.TempDir(), t.TempDir()
	a, b := start(t, homeA, plain), start(t, homeB, plain)
	draw := func(kind string) string {
		var x [9]byte
		rand.Read(x[:])
		return kind + hex.EncodeToString(x[:])
	}
	policy := space.DefaultPolicy()
	policy.DisplayName = draw("title ")
	s := xrpc.NewSpace{
		Type: space.NSID("com.example." + draw("t")), Key: space.RecordKey(draw("key-")), Name: draw("petname "),
		Policy: policy, Relays: []string{addr},
	}
	collection := space.NSID("com.example." + draw("c"))
	info, err := a.CreateSpace(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := a.Invite(t.Context(), info.ID, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(t.Context(), inv.Link); err != nil {
		t.Fatal(err)
	}
	canaries := []string{
		policy.DisplayName, string(s.Type), string(s.Key), s.Name, string(collection),
		string(status(t, a).DID), string(status(t, b).DID), inv.Link,
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	var last space.Path
	for i := range 50 {
		key, text := draw("rkey-"), draw("heron ")
		canaries = append(canaries, key, text)
		rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"text":%q}`, text))
		if err != nil {
			t.Fatal(err)
		}
		last = space.Path{Collection: collection, Key: space.RecordKey(key)}
		if _, err := a.Write(t.Context(), info.ID, []xrpc.Write{{Action: xrpc.ActionPut, Path: last, Value: rec}}, xrpc.WriteOptions{}); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	relayID := addr[strings.LastIndex(addr, "/")+1:]
	eventually(t, "the relay holds all", func() error {
		for _, sp := range status(t, a).Spaces {
			if slices.ContainsFunc(sp.InSyncWith, func(p xrpc.SyncPeer) bool { return p.PeerID == relayID }) {
				return nil
			}
		}
		return fmt.Errorf("not in sync with %s", relayID)
	})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, homeB, plain)
	eventually(t, "b reads what a wrote", func() error {
		_, err := b.Record(t.Context(), info.ID, "", last)
		return err
	})
	memory := memoryOf(t, pid)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := leaks(memory, canaries); err != nil {
		t.Errorf("in the relay's memory: %v", err)
	}
	scanFiles(t, dir, canaries)
	wire.mu.Lock()
	defer wire.mu.Unlock()
	if !bytes.Contains(wire.buf.Bytes(), []byte("/kith/relay/1")) {
		t.Fatal("the tap did not see the conversation")
	}
	if err := leaks(wire.buf.Bytes(), canaries); err != nil {
		t.Errorf("on the wire: %v", err)
	}
	t.Logf("%d canaries in none of %d KiB of memory and %d KiB on the wire", len(canaries), len(memory)>>10, wire.buf.Len()>>10)
}

func status(t *testing.T, n *node.Node) xrpc.Status {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
