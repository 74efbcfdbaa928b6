package relay

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/xrpc/lexicon"
)

// lexicons are the documents that a node serves, for clients of a relay too.
func lexicons(t testing.TB) *lexicon.Catalog {
	t.Helper()
	l, err := lexicon.Read(os.DirFS("../xrpc/lexicons"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Every method has a lexicon of the right kind, every lexicon a method, and
// what is answered in JSON is what the lexicon says and nothing else.
func TestLexicons(t *testing.T) {
	l := lexicons(t)
	for name, m := range methods {
		want := map[string]string{"GET": "query", "POST": "procedure"}[m.verb]
		if name == "subscribeEnvelopes" {
			want = "subscription"
		}
		if got := l.Kind(Prefix + name); got != want {
			t.Errorf("%s: its lexicon says %q, want %q", name, got, want)
		}
	}
	for _, nsid := range l.NSIDs() {
		if name, ours := strings.CutPrefix(nsid, Prefix); ours && methods[name].verb == "" {
			t.Errorf("%s: no such method", nsid)
		}
	}
	w := newWorld("thin")
	c := newThin(t, startRelay(t, t.TempDir()), w)
	for _, q := range []struct {
		verb, method string
		body         []byte
	}{
		{"GET", "describe", nil},
		{"POST", "lease", c.leaseBody(t, "")},
		{"POST", "putEnvelopes", packed(t, w.chain(t, "alice", "alice").frame(t, 0, 0))},
		{"GET", "digest", nil},
		{"POST", "putShard?class=1", []byte("sealed")},
	} {
		nsid, _, _ := strings.Cut(Prefix+q.method, "?")
		status, _, b := c.do(t, q.verb, q.method, q.body, c.ticket())
		var v any
		if err := json.Unmarshal(b, &v); err != nil || status != 200 {
			t.Fatalf("%s: %d %s", q.method, status, b)
		}
		for _, err := range l.Output(nsid, v) {
			t.Errorf("%s: %v", nsid, err)
		}
		if more := l.Unknown(nsid, v); len(more) > 0 {
			t.Errorf("%s: the lexicon does not say %v", nsid, more)
		}
	}
}

// named reports whether a refusal's name stands in a method's lexicon, or is
// one that every method has.
func named(l *lexicon.Catalog, method, name string) bool {
	nsid, _, _ := strings.Cut(Prefix+method, "?")
	everywhere := []string{"XRPCNotSupported", "MethodNotAllowed", "UnsupportedMediaType"}
	return slices.Contains(everywhere, name) || slices.Contains(l.Errors(nsid), name)
}
