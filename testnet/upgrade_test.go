package testnet_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
	"github.com/kithnet/kith/xrpc"
)

// kept is what testdata/one-epoch.tar.gz says of its homes. They were written
// by nodes of a Net of three, in the first seconds of a bubble's clock, by the
// version in which a space had one epoch: home0 is the authority's, home1 a
// member's, locked with a passphrase and started twice, home2 a member's whose
// process died of SIGKILL while it was writing. The first two were stopped.
type kept struct {
	Space         string
	Invite, Twice string // links: one without end, one for two uses within a year
	DIDs          []string
	Records       map[string]string // URI -> CID of what all three knew and is still so
	Alone         map[string]string // and of what only home2 knew
}

const keptPassphrase = "heron"

// unpack lays the homes out in a directory of their own.
func unpack(t *testing.T) (string, kept) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open("testdata/one-epoch.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || !filepath.IsLocal(h.Name) {
			t.Fatal(h, err)
		}
		name := filepath.Join(dir, h.Name)
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(name, 0o700)
		} else {
			err = unpackFile(name, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		t.Fatal(err)
	}
	return dir, k
}

func unpackFile(name string, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o600)
}

// openKept starts nodes on the homes, as they stood.
func openKept(t *testing.T, dir string) *testnet.Net {
	t.Helper()
	w := testnet.New(t, 0, testnet.Link{Latency: 5 * time.Millisecond}, 1)
	w.Open(filepath.Join(dir, "home0"))
	w.Open(filepath.Join(dir, "home1"), func(c *node.Config) { c.Passphrase = []byte(keptPassphrase) })
	w.Open(filepath.Join(dir, "home2"))
	return w
}

// shows is nil when n shows exactly these records in the space.
func shows(t *testing.T, n *testnet.Node, id space.ID, sets ...map[string]string) error {
	recs, _, err := n.Records(t.Context(), id, xrpc.RecordQuery{Limit: 1000})
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, s := range sets {
		for uri, cid := range s {
			want[uri] = cid
		}
	}
	for _, r := range recs {
		if want[r.URI.String()] != r.CID.String() {
			return fmt.Errorf("%s has %s, want %q", r.URI, r.CID, want[r.URI.String()])
		}
		delete(want, r.URI.String())
	}
	for uri := range want {
		return fmt.Errorf("%s is missing", uri)
	}
	return nil
}

// within lets virtual time pass until check is content.
func within(t *testing.T, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestHomesOfTheFirstFormat: what the first version wrote opens, converges and
// goes on, soon after and when everything that expires has expired.
func TestHomesOfTheFirstFormat(t *testing.T) {
	waits := []time.Duration{30 * 24 * time.Hour, time.Minute}
	if testing.Short() {
		waits = waits[:1]
	}
	for _, later := range waits {
		t.Run(later.String(), func(t *testing.T) {
			testnet.Bubble(t, func(t *testing.T) {
				dir, k := unpack(t)
				id, err := space.ParseID(k.Space)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(later) // nothing runs yet
				w := openKept(t, dir)
				for i, n := range w.Nodes() {
					st, err := n.Status(t.Context())
					if err != nil || string(st.DID) != k.DIDs[i] {
						t.Fatalf("home %d is %s, want %s: %v", i, st.DID, k.DIDs[i], err)
					}
				}
				if err := shows(t, w.Node(2), id, k.Records, k.Alone); err != nil {
					t.Fatalf("the killed home on its own: %v", err)
				}
				for _, n := range w.Nodes() {
					within(t, time.Minute, "all that was known", func() error { return shows(t, n, id, k.Records, k.Alone) })
				}
				w.WaitConverged(id, time.Minute)
				goOn(t, w, id)
				for _, link := range []string{k.Invite, k.Twice} {
					if _, err := w.Add().Join(t.Context(), link); err != nil {
						t.Fatalf("an invite of then: %v", err)
					}
				}
				goOn(t, w, id)
				for _, n := range w.Nodes() {
					n.Restart()
				}
				goOn(t, w, id)
			})
		})
	}
}

// goOn lets every node write and waits until every other one shows it.
func goOn(t *testing.T, w *testnet.Net, id space.ID) {
	t.Helper()
	when := time.Now().UnixMilli()
	key := func(i int) string { return fmt.Sprintf("on-%d-%d", when, i) }
	for i, n := range w.Nodes() {
		if err := n.Put(id, key(i), "and on"); err != nil {
			t.Fatalf("node %d writes: %v", i, err)
		}
	}
	for i := range w.Nodes() {
		for j, n := range w.Nodes() {
			within(t, 2*time.Minute, fmt.Sprintf("node %d reads node %d", j, i), func() error { return n.Has(id, key(i)) })
		}
	}
	w.WaitConverged(id, time.Minute)
}

// TestNewerFormats: a home that a later version wrote is refused in words, and
// nothing in it is changed.
func TestNewerFormats(t *testing.T) {
	for name, raise := range map[string]func(home string) error{
		"store": func(home string) error {
			name := filepath.Join(home, "store", "FORMAT")
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return os.WriteFile(name, regexp.MustCompile(`kith store \d+`).ReplaceAll(b, []byte("kith store 999")), 0o600)
		},
		"key file": func(home string) error {
			id, err := os.ReadFile(filepath.Join(home, "keys", "identity.age"))
			if err != nil {
				return err
			}
			keys, err := age.ParseIdentities(bytes.NewReader(id))
			if err != nil {
				return err
			}
			var out bytes.Buffer
			w, err := age.Encrypt(&out, keys[0].(*age.X25519Identity).Recipient())
			if err != nil {
				return err
			}
			if _, err := w.Write([]byte("kith key file 999: self\nwho knows")); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(home, "keys", "self"), out.Bytes(), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := unpack(t)
			home := filepath.Join(dir, "home0")
			if err := raise(home); err != nil {
				t.Fatal(err)
			}
			before := files(t, home)
			_, err := node.New(node.Config{Home: home, NoMDNS: true})
			if err == nil || !strings.Contains(err.Error(), "newer") {
				t.Fatalf("a newer %s: %v", name, err)
			}
			if after := files(t, home); after != before {
				t.Errorf("the home changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// files is every file of dir with its content, but for locks.
func files(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		b, err := os.ReadFile(name)
		fmt.Fprintf(&out, "%s %x\n", name, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
