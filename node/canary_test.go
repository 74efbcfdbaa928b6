package node_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

// tap is a TCP proxy that keeps every byte it carries, both ways.
type tap struct {
	l net.Listener

	mu  sync.Mutex // guards what follows
	to  string
	buf bytes.Buffer
}

func newTap(t *testing.T) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{l: l}
	t.Cleanup(func() { l.Close() })
	go p.run()
	return p
}

// lead says where to; before that everybody is turned away.
func (p *tap) lead(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

func (p *tap) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.to
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *tap) run() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.target())
		if err != nil {
			c.Close()
			continue
		}
		pipe := func(dst, src net.Conn) {
			io.Copy(io.MultiWriter(dst, p), src)
			dst.Close()
		}
		go pipe(up, c)
		go pipe(c, up)
	}
}

// spellings are the ways in which a text may stand in bytes.
func spellings(s string) [][]byte {
	utf16 := make([]byte, 0, 2*len(s))
	for _, b := range []byte(s) {
		utf16 = append(utf16, b, 0)
	}
	out := [][]byte{[]byte(s), []byte(hex.EncodeToString([]byte(s))), utf16}
	// Base64 of a text inside another depends on where it begins.
	for shift := range 3 {
		e := base64.StdEncoding.EncodeToString(append(make([]byte, shift), s...))
		out = append(out, []byte(e[4:len(e)-4]))
	}
	return out
}

func leaks(hay []byte, canaries []string) error {
	for _, c := range canaries {
		for _, needle := range spellings(c) {
			if bytes.Contains(hay, needle) {
				return fmt.Errorf("%q stands in clear", c)
			}
		}
	}
	return nil
}

// TestNothingInClear lets two nodes talk over an unencrypted transport through
// a tap: what is above the transport, on disk and in the logs must not hold
// any name or text of the space.
func TestNothingInClear(t *testing.T) {
	plain := func(c *node.Config) {
		c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
		c.Host = append(c.Host, libp2p.NoSecurity)
	}
	var logs bytes.Buffer
	var mu sync.Mutex
	logged := func(c *node.Config) {
		c.Log = slog.New(slog.NewJSONHandler(lockedWriter{&mu, &logs}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	canaries := []string{
		"quixotic-space-key", "com.zanzibar.typename", "com.wolverine.collname", "petrichor-rkey-1", "petrichor-rkey-2",
		"vermilion petname", "the heron eats the first canary", "the heron eats the second canary", "Sesquipedalian title",
	}
	homeA, homeB := t.TempDir(), t.TempDir()
	a, b := start(t, homeA, plain, logged), start(t, homeB, plain, logged)
	policy := space.DefaultPolicy()
	policy.DisplayName = canaries[8]
	info, err := a.CreateSpace(t.Context(), xrpc.NewSpace{
		Type: space.NSID(canaries[1]), Key: space.RecordKey(canaries[0]), Name: canaries[5], Policy: policy,
	})
	if err != nil {
		t.Fatal(err)
	}
	wire := throughTap(t, a, b, info.ID)
	write := func(n *node.Node, key, text string) space.CID {
		rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"text":%q}`, text))
		if err != nil {
			t.Fatal(err)
		}
		w, err := n.Write(t.Context(), info.ID, []xrpc.Write{{
			Action: xrpc.ActionPut, Path: space.Path{Collection: space.NSID(canaries[2]), Key: space.RecordKey(key)}, Value: rec,
		}}, xrpc.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return w.Records[0].CID
	}
	arrived := func(n *node.Node, key string, cid space.CID) func() error {
		return func() error {
			r, err := n.Record(t.Context(), info.ID, "", space.Path{Collection: space.NSID(canaries[2]), Key: space.RecordKey(key)})
			if err == nil && r.CID != cid {
				err = fmt.Errorf("another record")
			}
			return err
		}
	}
	eventually(t, "b reads a", arrived(b, canaries[3], write(a, canaries[3], canaries[6])))
	eventually(t, "a reads b", arrived(a, canaries[4], write(b, canaries[4], canaries[7])))
	eventually(t, "digests meet", inSync(info.ID, a, b))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	wire.mu.Lock()
	defer wire.mu.Unlock()
	if !bytes.Contains(wire.buf.Bytes(), []byte("/kith/sync/1")) {
		t.Fatal("the tap did not see the conversation")
	}
	if err := leaks(wire.buf.Bytes(), canaries); err != nil {
		t.Errorf("on the wire: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if err := leaks(logs.Bytes(), canaries); err != nil {
		t.Errorf("in the logs: %v", err)
	}
	for _, home := range []string{homeA, homeB} {
		scanFiles(t, home, canaries)
	}
}

// throughTap lets b join a's space by way of a tap and returns it.
func throughTap(t *testing.T, a, b *node.Node, id space.ID) *tap {
	t.Helper()
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	link, err := control.ParseLink(inv.Link)
	if err != nil {
		t.Fatal(err)
	}
	var port, peer string
	if _, err := fmt.Sscanf(strings.NewReplacer("/ip4/127.0.0.1/tcp/", "", "/p2p/", " ").Replace(link.Addrs[0]), "%s %s", &port, &peer); err != nil {
		t.Fatalf("%q: %v", link.Addrs[0], err)
	}
	wire := newTap(t)
	wire.lead("127.0.0.1:" + port)
	_, tapPort, err := net.SplitHostPort(wire.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	link.Addrs = []string{"/ip4/127.0.0.1/tcp/" + tapPort + "/p2p/" + peer}
	if _, err := b.Join(t.Context(), link.String()); err != nil {
		t.Fatal(err)
	}
	return wire
}

func scanFiles(t *testing.T, dir string, canaries []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := leaks(append(b, path...), canaries); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Fatalf("scanned %d files: %v", files, err)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
