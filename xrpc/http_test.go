package xrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
)

// logTo collects the server's log.
func logTo(s *Server) *bytes.Buffer {
	buf := new(bytes.Buffer)
	s.Log = slog.New(slog.NewTextHandler(buf, nil))
	return buf
}

func createBody(record string) string {
	return `{"space":"` + home.String() + `","collection":"com.example.note","record":` + record + `}`
}

// Bodies that are not what they should be never reach the node.
func TestBadBodies(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 1000) + `1` + strings.Repeat(`}`, 1000)
	for _, c := range []struct {
		name, body string
		status     int
		err        string
	}{
		{"empty", ``, 400, "InvalidRequest"},
		{"no json", `{`, 400, "InvalidRequest"},
		{"text behind", createBody(`{}`) + `x`, 400, "InvalidRequest"},
		{"two objects", createBody(`{}`) + createBody(`{}`), 400, "InvalidRequest"},
		{"a list", `[]`, 422, "InvalidRequest"},
		{"null", `null`, 422, "InvalidRequest"},
		{"key twice", `{"space":"a","space":"b"}`, 400, "InvalidRequest"},
		{"key twice by escape", `{"space":"a","sp\u0061ce":"b"}`, 400, "InvalidRequest"},
		{"key twice deep in an unknown field", `{"x":[{"a":{"b":1,"b":1}}]}`, 400, "InvalidRequest"},
		{"key twice among many", `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"r":1,"s":1,"a":1}`, 400, "InvalidRequest"},
		{"comma", `{"space":"a",}`, 400, "InvalidRequest"},
		{"comment", `{/*x*/}`, 400, "InvalidRequest"},
		{"single quotes", `{'space':'a'}`, 400, "InvalidRequest"},
		{"not utf-8", "{\"x\":\"\xff\"}", 400, "InvalidRequest"},
		{"half a surrogate", `{"x":"\ud800"}`, 400, "InvalidRequest"},
		{"other half", `{"x":"\udc00"}`, 400, "InvalidRequest"},
		{"halves that are no pair", `{"x":"\ud800\u0041"}`, 400, "InvalidRequest"},
		{"two other halves", `{"x":"\udc00\udc00"}`, 400, "InvalidRequest"},
		{"a pair", `{"x":"\ud83d\ude00"}`, 422, "InvalidRequest"},
		{"control character", "{\"x\":\"a\nb\"}", 400, "InvalidRequest"},
		{"byte order mark", "\ufeff{}", 400, "InvalidRequest"},
		{"leading zero", `{"x":01}`, 400, "InvalidRequest"},
		{"plus", `{"x":+1}`, 400, "InvalidRequest"},
		{"nan", `{"x":NaN}`, 400, "InvalidRequest"},
		{"space is a number", `{"space":1}`, 422, "InvalidRequest"},
		{"deep", createBody(deep), 400, "InvalidRequest"},
		{"deep lists", createBody(strings.Repeat("[", 100_000)), 400, "InvalidRequest"},
		{"float", createBody(`{"a":1e3}`), 400, "InvalidRequest"},
		{"link that is none", createBody(`{"a":{"$link":"bafy"}}`), 400, "InvalidRequest"},
		{"nul in a key", createBody(`{}`)[:2] + `\u0000` + createBody(`{}`)[2:], 422, "InvalidRequest"},
		{"large", `{"x":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "PayloadTooLarge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			w := ask(newServer(f), post, "com.atproto.space.createRecord", c.body)
			if w.Code != c.status || at(decoded(t, w), "error") != c.err {
				t.Errorf("status %d, want %d %s: %s", w.Code, c.status, c.err, w.Body)
			}
			if len(f.spaces[home].repos) != 0 {
				t.Error("something was written")
			}
		})
	}
}

// A body full of keys takes time in proportion to its size.
func TestManyKeys(t *testing.T) {
	b := []byte(`{"":0`)
	for i := 0; len(b) < MaxBody-20; i++ {
		b = fmt.Appendf(b, `,"%x":0`, i)
	}
	if w := ask(newServer(newFake(t)), post, "com.atproto.space.createRecord", string(b)+"}"); w.Code != 422 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

// request is a good one that a test spoils.
func request(spoil func(*http.Request)) *http.Request {
	r := httptest.NewRequest(post, "http://localhost:2580/xrpc/com.atproto.space.createRecord", strings.NewReader(createBody(`{}`)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+apiToken)
	spoil(r)
	return r
}

func TestRequests(t *testing.T) {
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	for _, c := range []struct {
		name   string
		spoil  func(*http.Request)
		status int
		err    string
	}{
		{"good", func(*http.Request) {}, 201, ""},
		{"charset", header("Content-Type", "application/json; charset=UTF-8"), 201, ""},
		{"identity", header("Content-Encoding", "identity"), 201, ""},
		{"method override", header("X-Http-Method-Override", "GET"), 201, ""},
		{"forwarded host", header("X-Forwarded-Host", "evil.example"), 201, ""},
		{"no content type", header("Content-Type"), 415, "UnsupportedMediaType"},
		{"form", header("Content-Type", "application/x-www-form-urlencoded"), 415, "UnsupportedMediaType"},
		{"text", header("Content-Type", "text/plain"), 415, "UnsupportedMediaType"},
		{"other json", header("Content-Type", "application/jsonp"), 415, "UnsupportedMediaType"},
		{"latin", header("Content-Type", "application/json; charset=latin1"), 415, "UnsupportedMediaType"},
		{"zstd", header("Content-Encoding", "zstd"), 415, "UnsupportedMediaType"},
		{"gzip that is none", header("Content-Encoding", "gzip"), 400, "InvalidRequest"},

		{"no token", header("Authorization"), 401, "AuthenticationRequired"},
		{"empty", header("Authorization", ""), 401, "InvalidToken"},
		{"empty token", header("Authorization", "Bearer "), 401, "InvalidToken"},
		{"other token", header("Authorization", "Bearer "+apiToken+"x"), 401, "InvalidToken"},
		{"start of the token", header("Authorization", "Bearer "+apiToken[:5]), 401, "InvalidToken"},
		{"other scheme", header("Authorization", "DPoP "+apiToken), 401, "InvalidToken"},
		{"two tokens", header("Authorization", "Bearer "+apiToken, "Bearer "+apiToken), 401, "InvalidToken"},
		{"scheme in lower case", header("Authorization", "bearer "+apiToken), 201, ""},
		{"token in the query", func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "token=" + apiToken }, 401, "AuthenticationRequired"},
		{"token in a cookie", func(r *http.Request) { r.Header.Del("Authorization"); r.Header.Set("Cookie", "token="+apiToken) }, 401, "AuthenticationRequired"},

		{"loopback", host("127.0.0.1:2580"), 201, ""},
		{"loopback 6", host("[::1]:2580"), 201, ""},
		{"loopback 6 without port", host("[::1]"), 201, ""},
		{"mapped loopback", host("[::ffff:127.0.0.1]:1"), 201, ""},
		{"localhost", host("LOCALHOST"), 201, ""},
		{"configured", host("node.example"), 201, ""},
		{"configured, other port", host("node.example:8443"), 201, ""},
		{"configured with port", host("other.example:444"), 201, ""},
		{"configured with port, other port", host("other.example:445"), 403, "InvalidHost"},
		{"rebound", host("evil.example:2580"), 403, "InvalidHost"},
		{"subdomain", host("x.node.example"), 403, "InvalidHost"},
		{"suffix", host("localhost.evil.example"), 403, "InvalidHost"},
		{"no host", host(""), 403, "InvalidHost"},
		{"address", host("192.0.2.1:2580"), 403, "InvalidHost"},
		{"any address", host("0.0.0.0"), 403, "InvalidHost"},
		{"zone", host("[::1%25eth0]"), 403, "InvalidHost"},
		{"bad port", host("localhost:x"), 403, "InvalidHost"},
		{"other path", func(r *http.Request) { r.URL.Path = "/x" }, 404, "XRPCNotSupported"},
		{"the page takes nothing", func(r *http.Request) { r.URL.Path = "/" }, 405, "MethodNotAllowed"},
		{"traversal", func(r *http.Request) { r.URL.Path = "/xrpc/../xrpc/com.atproto.space.createRecord" }, 404, "XRPCNotSupported"},
		{"put", func(r *http.Request) { r.Method = "PUT" }, 405, "MethodNotAllowed"},
		{"get", func(r *http.Request) { r.Method = "GET" }, 405, "MethodNotAllowed"},
		{"length lies", func(r *http.Request) { r.ContentLength = MaxBody + 1 }, 413, "PayloadTooLarge"},
		{"too long without a length", func(r *http.Request) {
			r.ContentLength = -1
			r.Body = io.NopCloser(strings.NewReader(`{"x":"` + strings.Repeat("x", MaxBody) + `"}`))
		}, 413, "PayloadTooLarge"},
		{"body breaks off", func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), errReader{}))
		}, 400, "InvalidRequest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(newFake(t))
			s.Origins = []string{"https://node.example", "https://other.example:444/"}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, request(c.spoil))
			got, _ := decoded(t, w)["error"].(string)
			if w.Code != c.status || got != c.err {
				t.Errorf("status %d %s, want %d %s: %s", w.Code, got, c.status, c.err, w.Body)
			}
			if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", w.Header())
			}
			if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
				t.Errorf("WWW-Authenticate %q", w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Without a token configured nobody gets in, also not with an empty one.
func TestNoTokenConfigured(t *testing.T) {
	s := newServer(newFake(t))
	for _, s.Token = range []string{"", "\n"} {
		for _, auth := range []string{"Bearer ", "Bearer", "Bearer  "} {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, request(func(r *http.Request) { r.Header.Set("Authorization", auth) }))
			if w.Code != 401 {
				t.Errorf("%q: status %d", auth, w.Code)
			}
		}
	}
	s.Token = apiToken + "\n" // as it stands in the file
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, request(func(*http.Request) {})); w.Code != 201 {
		t.Errorf("token with a line end: status %d", w.Code)
	}
}

func TestPreflight(t *testing.T) {
	s := newServer(newFake(t))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, request(func(r *http.Request) {
		r.Method = http.MethodOptions
		r.Header.Del("Authorization")
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Access-Control-Request-Headers", "x-evil")
	}))
	h := w.Header()
	if w.Code != 204 || w.Body.Len() != 0 {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":      "*",
		"Access-Control-Allow-Headers":     "authorization, content-type, dpop, x-client-key",
		"Access-Control-Allow-Methods":     "GET, HEAD, POST, PUT, DELETE",
		"Access-Control-Allow-Credentials": "",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, h.Get(name), want)
		}
	}
	for _, name := range []string{"DPoP-Nonce", "WWW-Authenticate", "RateLimit-Limit", "RateLimit-Reset", "Retry-After"} {
		if !strings.Contains(h.Get("Access-Control-Expose-Headers"), name) {
			t.Errorf("%s is not exposed", name)
		}
	}
	w = httptest.NewRecorder()
	s.ServeHTTP(w, request(func(r *http.Request) { r.Method = http.MethodOptions; r.Host = "evil.example" }))
	if w.Code != 403 || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of a foreign host: %d %v", w.Code, w.Header())
	}
}

func TestPanicsAreRecovered(t *testing.T) {
	f := newFake(t)
	f.panics = true
	s := newServer(f)
	log := logTo(s)
	w := ask(s, get, "dev.kith.node.status", "")
	if w.Code != 500 || strings.Contains(w.Body.String(), "told to") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "told to") {
		t.Errorf("log %s", log)
	}
}

func TestHealth(t *testing.T) {
	s := newServer(newFake(t))
	s.Token = ""
	if w := ask(s, get, "_health", ""); w.Code != 200 {
		t.Errorf("status %d", w.Code)
	}
	s.Healthy = func(context.Context) error { return errors.New("store: disk is full") }
	if w := ask(s, get, "_health", ""); w.Code != 503 || at(decoded(t, w), "error") != "store: disk is full" {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if w := ask(s, post, "_health", ""); w.Code != 405 {
		t.Errorf("status %d", w.Code)
	}
}

// listen serves s on a loopback port until the test ends.
func listen(t testing.TB, s *Server) (base string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { stop() })
	return "http://" + l.Addr().String(), stop
}

func TestHead(t *testing.T) {
	base, _ := listen(t, newServer(seeded(t)))
	r, err := http.NewRequest(http.MethodHead, base+"/xrpc/com.atproto.space.getSpace?space="+home.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+apiToken)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || len(body) != 0 || resp.ContentLength < 100 || err != nil {
		t.Errorf("status %d, %d bytes of %d, %v", resp.StatusCode, len(body), resp.ContentLength, err)
	}
}

// A stop lets the request under way finish and takes no other.
func TestServeStopsGracefully(t *testing.T) {
	f := newFake(t)
	inside, finish := make(chan bool), make(chan bool)
	f.joins = func(context.Context, string) (Joined, error) {
		inside <- true
		<-finish
		return Joined{ID: home, Level: space.LevelRead}, nil
	}
	base, stop := listen(t, newServer(f))
	c := &Client{Base: base, Token: apiToken}
	joined := make(chan error, 1)
	go func() { _, err := c.Join(t.Context(), "x"); joined <- err }()
	<-inside
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until the listener is closed
		if _, err := c.Health(t.Context()); errors.Is(err, ErrUnreachable) {
			break
		}
	}
	close(finish)
	if err := <-joined; err != nil {
		t.Errorf("the join under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestServeFailsWithItsListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := newServer(newFake(t)).Serve(t.Context(), l); err == nil {
		t.Error("served a closed listener")
	}
}

// A join that is not granted in time says so, and got the time it asked for.
func TestJoinWaits(t *testing.T) {
	for wait, most := range map[string]time.Duration{`,"waitSeconds":0`: 0, `,"waitSeconds":600`: 600 * time.Second, ``: 30 * time.Second} {
		f := newFake(t)
		f.joins = func(ctx context.Context, _ string) (Joined, error) {
			deadline, ok := ctx.Deadline()
			if left := time.Until(deadline); !ok || left > most || left < most-10*time.Second {
				t.Errorf("%s: %v left", wait, left)
			}
			return Joined{}, fmt.Errorf("ask keepers: %w", context.DeadlineExceeded)
		}
		w := ask(newServer(f), post, "dev.kith.space.join", `{"link":"x"`+wait+`}`)
		if w.Code != 503 || at(decoded(t, w), "error") != "StillWaiting" {
			t.Errorf("%s: %d %s", wait, w.Code, w.Body)
		}
	}
}

// deadlines is an answer whose connection has deadlines.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }

// A long join moves the deadlines that would cut it off; nothing else does.
func TestDeadlines(t *testing.T) {
	for wait, most := range map[string]time.Duration{"0": answerTimeout, "600": 600*time.Second + answerTimeout} {
		r := httptest.NewRequest(post, "http://localhost/xrpc/dev.kith.space.join", strings.NewReader(`{"link":"kith:j#secret","waitSeconds":`+wait+`}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+apiToken)
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		newServer(newFake(t)).ServeHTTP(w, r)
		for _, at := range []time.Time{w.read, w.write} {
			if left := time.Until(at); w.Code != 200 || left > most || left < most-10*time.Second {
				t.Errorf("wait %s: status %d, deadline in %v, want %v", wait, w.Code, left, most)
			}
		}
	}
	hs := newServer(newFake(t)).httpServer()
	if hs.ReadHeaderTimeout == 0 || hs.ReadTimeout == 0 || hs.WriteTimeout == 0 || hs.IdleTimeout == 0 || hs.MaxHeaderBytes == 0 {
		t.Errorf("a connection can last for ever: %+v", hs)
	}
}

// A client that went away gets no answer that could pass for one.
func TestClientGoneAway(t *testing.T) {
	f := newFake(t)
	f.fail = context.Canceled
	s := newServer(f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("recovered %v", v)
			}
		}()
		s.ServeHTTP(w, request(func(r *http.Request) { *r = *r.WithContext(ctx) }))
	}()
	if w.Body.Len() != 0 {
		t.Errorf("answered %s", w.Body)
	}
	if w := ask(s, get, "dev.kith.node.status", ""); w.Code != 503 {
		t.Errorf("a node that stops: %d", w.Code)
	}
}

// The page runs what it brings, loads nothing and stands in nobody's frame.
func TestPageHeaders(t *testing.T) {
	s := newServer(newFake(t))
	s.Token = ""
	w := askPath(s, "GET", "/", "")
	csp := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "script-src 'sha256-", "style-src 'sha256-"} {
		if !strings.Contains(csp, want) {
			t.Errorf("%s is not in %s", want, csp)
		}
	}
	if w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "" || strings.Contains(w.Body.String(), "http://") || strings.Count(w.Body.String(), "<script") != 1 {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := askPath(s, "HEAD", "/", ""); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
	r := request(func(r *http.Request) { r.Host = "evil.example"; r.URL.Path = "/"; r.Method = "GET" })
	rec := httptest.NewRecorder()
	if s.ServeHTTP(rec, r); rec.Code != 403 {
		t.Errorf("under a foreign name: %d", rec.Code)
	}
}
