package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"

	"github.com/kithnet/kith/space/envelope"
)

// thin is a client over HTTP that holds the keys of a world.
type thin struct {
	base string
	r    *Relay
	w    *world
}

func newThin(t testing.TB, r *Relay, w *world) *thin {
	t.Helper()
	srv := httptest.NewServer(r.Handler())
	t.Cleanup(srv.Close)
	return &thin{srv.URL, r, w}
}

func (c *thin) ticket() string {
	return NewTicket(c.w.topic, c.r.Key(), time.Now().Add(time.Minute), [16]byte{1}, c.w.prove)
}

// do makes a request and answers status, headers and body.
func (c *thin) do(t testing.TB, verb, method string, body []byte, ticket string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), verb, c.base+"/xrpc/"+Prefix+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if ticket != "" {
		req.Header.Set("Authorization", "Fetch "+ticket)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, b
}

func (c *thin) json(t testing.TB, verb, method string, body []byte) map[string]any {
	t.Helper()
	status, _, b := c.do(t, verb, method, body, c.ticket())
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil || status != 200 {
		t.Fatalf("%s: %d %s", method, status, b)
	}
	return out
}

func (c *thin) leaseBody(t testing.TB, code string) []byte {
	d := c.w.describe(t, time.Now().Add(100*day), 0)
	return append(append(d.Bytes(), byte(len(code))), code...)
}

// packed are frames, each behind its length.
func packed(t testing.TB, frames ...envelope.Frame) (out []byte) {
	t.Helper()
	for _, f := range frames {
		b, err := f.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
	}
	return out
}

func unpacked(t testing.TB, b []byte) (out []envelope.Frame) {
	t.Helper()
	for len(b) > 0 {
		n := binary.BigEndian.Uint32(b)
		f, err := envelope.ParseFrame(b[4 : 4+n])
		if err != nil {
			t.Fatal(err)
		}
		out, b = append(out, f), b[4+n:]
	}
	return out
}

// A thin client writes, reads, follows and stores objects by HTTP alone.
func TestHTTP(t *testing.T) {
	w := newWorld("thin")
	r := startRelay(t, t.TempDir())
	c := newThin(t, r, w)
	if l := c.json(t, "POST", "lease", c.leaseBody(t, "")); l["bytes"] != float64(16<<20) {
		t.Fatalf("lease %v", l)
	}
	ch := w.chain(t, "alice", "alice").grow(t, 9)
	put := packed(t, ch.frame(t, 0, 0), ch.frame(t, 1, 4), ch.frame(t, 5, 9))
	got := c.json(t, "POST", "putEnvelopes", put)
	if got["accepted"] != float64(10) || got["refused"] != float64(0) {
		t.Fatalf("put %v", got)
	}
	raw, _ := text.DecodeString(got["receipt"].(string))
	if rec, err := ParseReceipt(raw); err != nil || rec.Count != 10 || rec.Topic != w.topic {
		t.Fatalf("receipt %+v, %v", rec, err)
	}
	if again := c.json(t, "POST", "putEnvelopes", put); again["duplicate"] != float64(10) || again["accepted"] != float64(0) {
		t.Fatalf("put again %v", again)
	}

	mine := newReplica(w)
	cursor, pages := "", 0
	for ; ; pages++ {
		status, h, b := c.do(t, "GET", "getEnvelopes?limit=1&cursor="+cursor, nil, c.ticket())
		if status != 200 {
			t.Fatalf("%d %s", status, b)
		}
		for _, f := range unpacked(t, b) {
			if _, err := mine.Deliver(f.Cert, f.Run); err != nil {
				t.Fatal(err)
			}
		}
		if cursor = h.Get(cursorKey); len(b) == 0 {
			break
		}
	}
	if d := c.json(t, "GET", "digest", nil); pages != 3 || d["digest"] != digestText(mine) {
		t.Errorf("%d pages, digest %v, mine %v", pages, d, digestText(mine))
	}

	object := bytes.Repeat([]byte{7}, 5000)
	sum := sha256.Sum256(object)
	if o := c.json(t, "POST", "putShard?class=1", object); o["hash"] != text.EncodeToString(sum[:]) {
		t.Errorf("object %v", o)
	}
	if _, _, b := c.do(t, "GET", "getShard?hash="+text.EncodeToString(sum[:]), nil, c.ticket()); !bytes.Equal(b, object) {
		t.Errorf("object of %d bytes", len(b))
	}
	c.follow(t, ch, cursor)
}

func digestText(r *replica) string {
	d := r.digest()
	return text.EncodeToString(d[:])
}

// follow subscribes behind a cursor and gets what is written then.
func (c *thin) follow(t *testing.T, ch *chain, cursor string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	url := "ws" + strings.TrimPrefix(c.base, "http") + "/xrpc/" + Prefix + "subscribeEnvelopes?cursor=" + cursor + "&ticket=" + c.ticket()
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	n := len(ch.run)
	ch.grow(t, 3)
	c.json(t, "POST", "putEnvelopes", packed(t, ch.frame(t, n, n+2)))
	_, b, err := ws.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var head streamHead
	var body streamFrame
	rest, err := cbor.UnmarshalFirst(b, &head)
	if err == nil {
		err = cbor.Unmarshal(rest, &body)
	}
	if err != nil || head.Op != 1 || head.T != "#frame" {
		t.Fatalf("%+v %v", head, err)
	}
	f, err := envelope.ParseFrame(body.Frame)
	if err != nil || len(f.Run) != 3 || f.Run[2].ID() != ch.run[n+2].ID() {
		t.Errorf("frame of %d, %v", len(f.Run), err)
	}
	if _, _, b := c.do(t, "GET", "getEnvelopes?cursor="+body.Cursor, nil, c.ticket()); len(b) != 0 {
		t.Errorf("%d bytes behind the last frame", len(b))
	}
}

// Every refusal has its name and status, and the headers that a page needs.
func TestHTTPRefusals(t *testing.T) {
	w, other := newWorld("thin"), newWorld("other")
	r := startRelay(t, t.TempDir(), func(c *Config) { c.Open.Bytes = 20_000 })
	c := newThin(t, r, w)
	c.json(t, "POST", "lease", c.leaseBody(t, ""))
	ch := w.chain(t, "alice", "alice").grow(t, 60)
	good := packed(t, ch.frame(t, 0, 5))
	bent := bytes.Clone(good)
	bent[len(bent)-1] ^= 1
	elsewhere := other.chain(t, "alice", "alice")
	expired := NewTicket(w.topic, r.Key(), time.Now().Add(-time.Second), [16]byte{}, w.prove)
	far := NewTicket(w.topic, r.Key(), time.Now().Add(time.Hour), [16]byte{}, w.prove)
	foreign := NewTicket(w.topic, keyPub("another relay"), time.Now().Add(time.Minute), [16]byte{}, w.prove)
	forged := NewTicket(w.topic, r.Key(), time.Now().Add(time.Minute), [16]byte{}, other.prove)
	unknown := NewTicket(other.topic, r.Key(), time.Now().Add(time.Minute), [16]byte{}, other.prove)
	ok := c.ticket()
	descriptor := c.leaseBody(t, "")
	descriptor[100] ^= 1
	l := lexicons(t)
	for name, q := range map[string]struct {
		verb, method string
		body         []byte
		ticket       string
		status       int
		error        string
	}{
		"no ticket":           {"GET", "digest", nil, "", 403, "NoLease"},
		"expired ticket":      {"GET", "digest", nil, expired, 403, "NoLease"},
		"ticket too long":     {"GET", "digest", nil, far, 403, "NoLease"},
		"another relay's":     {"GET", "digest", nil, foreign, 403, "NoLease"},
		"forged ticket":       {"GET", "digest", nil, forged, 403, "NoLease"},
		"unknown topic":       {"GET", "digest", nil, unknown, 403, "NoLease"},
		"not a ticket":        {"GET", "digest", nil, "abc", 403, "NoLease"},
		"another topic":       {"GET", "digest?topic=AAAA", nil, ok, 400, "InvalidRequest"},
		"unknown method":      {"GET", "plaintext", nil, ok, 404, "XRPCNotSupported"},
		"wrong verb":          {"GET", "putEnvelopes", nil, ok, 405, "MethodNotAllowed"},
		"no media type":       {"POST", "putEnvelopes", nil, ok, 415, "UnsupportedMediaType"},
		"plaintext":           {"POST", "putEnvelopes", []byte("{\"text\":\"hello\"}"), ok, 400, "InvalidRequest"},
		"cut frame":           {"POST", "putEnvelopes", good[:len(good)-9], ok, 400, "InvalidRequest"},
		"bad signature":       {"POST", "putEnvelopes", bent, ok, 400, "InvalidRequest"},
		"frame of another":    {"POST", "putEnvelopes", packed(t, elsewhere.frame(t, 0, 0)), ok, 400, "InvalidRequest"},
		"spent":               {"POST", "putEnvelopes", packed(t, ch.frame(t, 0, 60)), ok, 507, "QuotaExceeded"},
		"too large":           {"POST", "putEnvelopes", make([]byte, maxPut+1), ok, 413, "PayloadTooLarge"},
		"large object":        {"POST", "putShard?class=1", make([]byte, MaxObject+1), ok, 413, "PayloadTooLarge"},
		"object of no class":  {"POST", "putShard?class=2", []byte("x"), ok, 400, "InvalidRequest"},
		"object beyond quota": {"POST", "putShard?class=1", make([]byte, 30_000), ok, 507, "QuotaExceeded"},
		"unknown object":      {"GET", "getShard?hash=" + text.EncodeToString(make([]byte, 32)), nil, ok, 404, "ObjectNotFound"},
		"not a hash":          {"GET", "getShard?hash=zz", nil, ok, 400, "InvalidRequest"},
		"bad cursor":          {"GET", "getEnvelopes?cursor=zz", nil, ok, 400, "InvalidCursor"},
		"another's cursor":    {"GET", "getEnvelopes?cursor=" + text.EncodeToString(make([]byte, 16)), nil, ok, 400, "OutdatedCursor"},
		"bad limit":           {"GET", "getEnvelopes?limit=-1", nil, ok, 400, "InvalidRequest"},
		"bad descriptor":      {"POST", "lease", descriptor, ok, 400, "InvalidDescriptor"},
		"no descriptor":       {"POST", "lease", []byte("x"), ok, 400, "InvalidRequest"},
		"bad code":            {"POST", "lease", c.leaseBody(t, "sesame"), ok, 403, "LeaseRefused"},
	} {
		status, h, b := c.do(t, q.verb, q.method, q.body, q.ticket)
		var e struct{ Error, Message string }
		if err := json.Unmarshal(b, &e); err != nil || status != q.status || e.Error != q.error || e.Message == "" {
			t.Errorf("%s: %d %s", name, status, b)
		}
		if !named(l, q.method, e.Error) {
			t.Errorf("%s: the lexicon of %s does not say %s", name, q.method, e.Error)
		}
		if h.Get("Access-Control-Allow-Origin") != "*" || q.status != 404 && q.status != 405 && h.Get("RateLimit-Remaining") == "" {
			t.Errorf("%s: headers %v", name, h)
		}
	}
	if d := c.json(t, "GET", "digest", nil); d["count"] != float64(0) {
		t.Errorf("something was kept: %v", d)
	}
}

func keyPub(name string) []byte { return public(keyOf(name)) }

// Frames that somebody bends in a writer's name are not paid for by the writer.
func TestForgedFramesCostNothing(t *testing.T) {
	w := newWorld("thin")
	w.class = 0 // ten envelopes at once
	c := newThin(t, startRelay(t, t.TempDir()), w)
	c.json(t, "POST", "lease", c.leaseBody(t, ""))
	ch := w.chain(t, "alice", "alice").grow(t, 4)
	if n, err := c.put(t, ch.frame(t, 0, 1)); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	bent := packed(t, ch.frame(t, 2, 4))
	bent[len(bent)-1] ^= 1
	for range 20 {
		if status, _, b := c.do(t, "POST", "putEnvelopes", bent, c.ticket()); status != 400 {
			t.Fatalf("%d %s", status, b)
		}
	}
	if n, err := c.put(t, ch.frame(t, 2, 4)); err != nil || n != 3 {
		t.Errorf("the writer's own: %d accepted, %v", n, err)
	}
}
