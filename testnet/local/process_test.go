package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// childMode makes the test binary play a kith that goes wrong in one way.
const childMode = "TESTNET_LOCAL_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "":
		code := m.Run()
		if dir, _ := binaryDir(); dir != "" {
			os.RemoveAll(dir)
		}
		os.Exit(code)
	case "dies":
		fmt.Fprintln(os.Stderr, "the store is locked")
		fmt.Fprintln(os.Stderr, "hint: stop the other node")
		os.Exit(3)
	case "quiet":
		os.Exit(0)
	case "babbles":
		fmt.Println("hello")
		io.Copy(io.Discard, os.Stdin)
		select {}
	case "mute":
		fmt.Fprintln(os.Stderr, "waiting for the moon")
		select {}
	case "gossip-peer":
		if err := GossipPeer(context.Background(), os.Args[3:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// A node that does not come up says why.
func TestBadStarts(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string][]string{
		"dies":    {"ada", "exit status 3", "the store is locked | hint: stop the other node"},
		"quiet":   {"ada", "exit status 0", "said nothing"},
		"babbles": {"ada", `"hello\n"`, "not a ready line"},
		"mute":    {"ada", "not ready", "waiting for the moon"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Setenv(childMode, mode)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if mode == "mute" {
				ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
			}
			defer cancel()
			c, err := newCast(self, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.enter(ctx, "ada")
			if err == nil {
				t.Fatal("started")
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v: lacks %q", err, w)
				}
			}
		})
	}
}

func TestDemoSaysWhatIsMissing(t *testing.T) {
	if _, err := Demo(t.Context(), DemoOptions{Kith: filepath.Join(t.TempDir(), "kith")}); err == nil || !strings.Contains(err.Error(), "the kith binary") {
		t.Errorf("no binary: %v", err)
	}
	if _, err := Demo(t.Context(), DemoOptions{Import: filepath.Join(t.TempDir(), "f.jsonl")}); err == nil || !strings.Contains(err.Error(), "import: ") {
		t.Errorf("no file: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(childMode, "dies")
	t.Setenv("TMPDIR", t.TempDir())
	r, err := Demo(t.Context(), DemoOptions{Kith: self})
	if err != nil || r.OK || len(r.Steps) != 1 || !strings.Contains(r.Steps[0].Detail, "the store is locked") {
		t.Errorf("nodes that die: %+v, %v", r, err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "ben"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err = Demo(t.Context(), DemoOptions{Kith: self, Dir: dir})
	if err != nil || r.OK || !strings.Contains(r.Steps[0].Detail, "exists already") {
		t.Errorf("a home that exists: %+v, %v", r, err)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := BenchPropagate(t.Context(), BenchOptions{Kith: self, N: -1}); err == nil {
		t.Error("a bench of -1 samples")
	}
}

// A process that dies later is named by whoever fails for it, unless its end
// was asked for.
func TestExplain(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(childMode, "dies")
	run := func() *node {
		p, _, err := spawn("ben", filepath.Join(t.TempDir(), "log"), self, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &node{process: p}
	}
	dead, killed := run(), run()
	killed.expect()
	<-dead.done
	killed.kill()
	c := &cast{nodes: []*node{dead, killed}}
	want := "ben ended by itself (exit status 3); its last words: the store is locked | hint: stop the other node; no answer"
	if err := c.explain(fmt.Errorf("no answer")); err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestTail(t *testing.T) {
	var tl tail
	for i := range 1000 {
		fmt.Fprintf(&tl, "line %d\n", i)
	}
	if s := tl.String(); len(s) > 2*tailSize || !strings.HasSuffix(s, "line 998 | line 999") {
		t.Errorf("%d bytes: …%s", len(s), s[len(s)-30:])
	}
}

// Children do not act on the user's own node.
func TestCleanEnv(t *testing.T) {
	got := cleanEnv([]string{"PATH=/bin", "KITH_HOME=/home/me/kith", "KITH_PASSPHRASE_FILE=x", "CREDENTIALS_DIRECTORY=/run/x", "HOME=/"})
	if !slices.Equal(got, []string{"PATH=/bin", "HOME=/"}) {
		t.Errorf("%v", got)
	}
}

// Two processes with nothing but gossipsub hear each other, and the clock
// between them makes sense.
func TestBaseline(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(childMode, "gossip-peer")
	b, err := newBaseline(t.Context(), self, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := b.meet(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		took, err := b.round(t.Context())
		if err != nil || took <= 0 || took > 5*time.Second {
			t.Errorf("took %v, %v", took, err)
		}
	}
	b.child.kill()
	if _, err := b.round(t.Context()); err == nil {
		t.Error("a round with nobody")
	}
	if err := GossipPeer(t.Context(), nil, os.Stdin, io.Discard); err == nil {
		t.Error("a peer without an address")
	}
}
