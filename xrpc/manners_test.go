package xrpc

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kithnet/kith/space"
)

var full = flag.Bool("full", false, "run heavy tests at their full size")

// gzipped is text as gzip has it.
func gzipped(t testing.TB, text []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err1 := z.Write(text)
	if err := errors.Join(err1, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A packed body is taken, and read no further than an open one.
func TestGzip(t *testing.T) {
	good := gzipped(t, []byte(createBody(`{}`)))
	broken := bytes.Clone(good)
	broken[len(broken)-8] ^= 1 // the checksum
	for name, c := range map[string]struct {
		body   []byte
		status int
	}{
		"good": {good, 201}, "a bomb of 1:1000": {gzipped(t, make([]byte, 8<<20)), 413}, "cut off": {good[:len(good)/2], 400},
		"checksum": {broken, 400}, "not gzip": {[]byte(createBody(`{}`)), 400}, "empty": {nil, 400},
		"just too large": {gzipped(t, []byte(`{"x":"`+strings.Repeat("x", MaxBody)+`"}`)), 413},
	} {
		r := request(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(c.body)), int64(len(c.body))
			r.Header.Set("Content-Encoding", "gzip")
		})
		w := httptest.NewRecorder()
		f := newFake(t)
		newServer(f).ServeHTTP(w, r)
		if w.Code != c.status || w.Code != 201 && len(f.spaces[home].repos) != 0 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// A bomb costs no more than what was read of it.
func TestGzipBombAllocatesLittle(t *testing.T) {
	bomb := gzipped(t, make([]byte, 8<<20))
	s := newServer(newFake(t))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.ServeHTTP(httptest.NewRecorder(), request(func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(bomb)), int64(len(bomb))
		r.Header.Set("Content-Encoding", "gzip")
	}))
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8*MaxBody {
		t.Errorf("%d bytes for a refused body", grown)
	}
}

type slowReader struct{}

func (slowReader) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestSlowBody(t *testing.T) {
	w := httptest.NewRecorder()
	newServer(newFake(t)).ServeHTTP(w, request(func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(slowReader{}), 100 }))
	if w.Code != 408 || at(decoded(t, w), "error") != "RequestTimeout" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Who asks too much is told when to go on, and may then.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := crowded(t)
		s := newServer(f)
		s.TokenRate, s.NobodyRate = Rate{5, time.Minute}, Rate{3, 10 * time.Second}
		text := f.issue(readerDID, "read")
		one := func() *httptest.ResponseRecorder {
			return askWith(s, text, get, "com.atproto.space.listRecords", "space="+home.String())
		}
		for i := range 5 {
			if w := one(); w.Code != 200 || w.Header().Get("RateLimit-Remaining") != strconv.Itoa(4-i) || w.Header().Get("RateLimit-Policy") != "5;w=60" {
				t.Errorf("request %d: %d %v", i, w.Code, w.Header())
			}
		}
		w := one()
		if w.Code != 429 || at(decoded(t, w), "error") != "RateLimitExceeded" || w.Header().Get("Retry-After") != "60" {
			t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
		}
		if w := askWith(s, f.issue(other, "read"), get, "com.atproto.space.listSpaces", ""); w.Code != 200 {
			t.Errorf("another token: %d", w.Code)
		}
		nobody := func(addr, token string) int {
			r := httptest.NewRequest(get, "http://localhost/xrpc/com.atproto.space.listSpaces", nil)
			r.RemoteAddr = addr
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w.Code
		}
		var got []int
		for i := range 4 {
			got = append(got, nobody(fmt.Sprintf("192.0.2.1:%d", i+1), "guess"+strconv.Itoa(i)))
		}
		got = append(got, nobody("192.0.2.2:1", ""), nobody("192.0.2.1:9", apiToken), nobody("[2001:db8::1]:1", ""), nobody("[2001:db8::2]:1", ""),
			nobody("[2001:db8::3]:1", ""), nobody("[2001:db8::4]:1", ""), nobody("[2001:db8:0:1::4]:1", ""))
		if want := []int{401, 401, 401, 429, 401, 200, 401, 401, 401, 429, 401}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("nobody: %v, want %v", got, want)
		}
		time.Sleep(time.Minute) // of the bubble
		if w := one(); w.Code != 200 {
			t.Errorf("after the window: %d", w.Code)
		}
		for range 100 {
			if w := ask(s, get, "dev.kith.node.status", ""); w.Code != 200 || w.Header().Get("RateLimit-Limit") != "" {
				t.Fatalf("the owner: %d", w.Code)
			}
		}
	})
}

// Addresses without end do not fill the memory: those beyond share a count.
func TestRatesAreBounded(t *testing.T) {
	var rs rates
	now := time.Unix(1, 0)
	for i := range 3 * maxCounted {
		rs.take(strconv.Itoa(i), Rate{2, time.Minute}, now)
	}
	if len(rs.counts) > maxCounted+1 {
		t.Errorf("%d callers are counted", len(rs.counts))
	}
	if _, _, ok := rs.take("one more", Rate{2, time.Minute}, now.Add(time.Second)); ok {
		t.Error("beyond the bound nobody is refused")
	}
	if _, _, ok := rs.take("one more", Rate{2, time.Minute}, now.Add(time.Hour)); !ok {
		t.Error("the others are not forgotten")
	}
}

func TestHealthReasons(t *testing.T) {
	s := newServer(newFake(t))
	s.Healthy = func(context.Context) error { return errors.Join(errors.New("disk: full"), errors.New("relay: down")) }
	w := ask(s, get, "_health", "")
	if v := decoded(t, w); w.Code != 503 || at(v, "reasons.0") != "disk: full" || at(v, "reasons.1") != "relay: down" || at(v, "version") != "v0" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Floods of every kind, and honest requests all the while that are answered: in
// full, 99 of 100 within a second.
func TestX14Floods(t *testing.T) {
	slow, rude, heavy := 1500, 2000, 10
	if *full {
		slow, rude, heavy = 5000, 50_000, 250
	}
	s := newServer(seeded(t))
	s.NobodyRate = Rate{1000, time.Minute}
	base, _ := listen(t, s)
	addr := strings.TrimPrefix(base, "http://")
	longest := slowly(t, addr, slow)
	longest.SetReadDeadline(time.Now().Add(headerTimeout / 2))
	if _, err := longest.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("who has waited longest waits on")
	}
	rudely := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	t.Cleanup(rudely.CloseIdleConnections)
	var flood sync.WaitGroup
	codes := make(chan int, rude)
	for range 8 {
		flood.Go(func() {
			for range rude / 8 {
				resp, err := rudely.Get(base + "/xrpc/dev.kith.node.status")
				if err != nil {
					codes <- 0
					continue
				}
				resp.Body.Close()
				codes <- resp.StatusCode
			}
		})
	}
	flood.Go(func() {
		head := "POST /xrpc/com.atproto.space.createRecord HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + apiToken + "\r\nContent-Type: application/json\r\n"
		bomb := gzipped(t, make([]byte, 8<<20))
		for range heavy {
			if got := rawRequest(t, addr, head+"Content-Length: 1073741824\r\n\r\n{"); got != "413" {
				t.Errorf("a body of 1 GiB: %s", got)
			}
			if got := rawRequest(t, addr, fmt.Sprintf("%sContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", head, len(bomb), bomb)); got != "413" {
				t.Errorf("a body that unpacks to a thousand times its size: %s", got)
			}
		}
	})
	over := make(chan struct{})
	go func() { flood.Wait(); close(over) }()
	took := honest(t, &Client{Base: base, Token: apiToken}, over)
	close(codes)
	seen := map[int]int{}
	for c := range codes {
		seen[c]++
	}
	if seen[401] != 1000 || seen[429] != rude-1000 {
		t.Errorf("without a token: %v", seen)
	}
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("%d requests without a token, %d slow connections, %d bombs: %d honest requests, half within %v, 99 of 100 within %v, all within %v",
		rude, slow, 2*heavy, len(took), p50, p99, took[len(took)-1])
	if *full && p99 > time.Second {
		t.Errorf("99 of 100 honest requests took up to %v", p99)
	}
}

// slowly opens connections that send half a head each, and then nothing. It
// gives the first of them.
func slowly(t *testing.T, addr string, count int) (first net.Conn) {
	for range count {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if first == nil {
			first = conn
		}
		fmt.Fprintf(conn, "GET /xrpc/_health HTTP/1.1\r\nHost: localhost\r\nX-")
	}
	return first
}

// honest asks for a record, one request after the other, until a flood is over
// and a hundred times at least, and tells how long each took, ascending.
func honest(t *testing.T, c *Client, over <-chan struct{}) (took []time.Duration) {
	for ended := false; !ended || len(took) < 100; {
		at := time.Now()
		if _, err := c.Record(t.Context(), home, owner, space.Path{Collection: notes, Key: "a"}); err != nil {
			t.Errorf("an honest request: %v", err)
		}
		took = append(took, time.Since(at))
		select {
		case <-over:
			ended = true
		default:
		}
	}
	slices.Sort(took)
	return took
}

// rawRequest sends bytes and answers the first status.
func rawRequest(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return "closed"
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "closed"
	}
	return strings.Fields(line)[1]
}

// What a proxy may read otherwise than we do is refused, or means nothing.
func TestX17Smuggling(t *testing.T) {
	f := seeded(t)
	base, _ := listen(t, newServer(f))
	addr := strings.TrimPrefix(base, "http://")
	const head = " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + apiToken + "\r\nConnection: close\r\n"
	const list = "/xrpc/com.atproto.space.listSpaces"
	for name, c := range map[string]struct{ text, want string }{
		"plain":                {"GET " + list + head + "\r\n", "200"},
		"absolute form":        {"GET http://evil.example" + list + head + "\r\n", "403"},
		"absolute form of us":  {"GET http://localhost" + list + head + "\r\n", "200"},
		"two hosts":            {"GET " + list + head + "Host: evil.example\r\n\r\n", "400"},
		"no host":              {"GET " + list + " HTTP/1.1\r\n\r\n", "400"},
		"two lengths":          {"POST " + list + head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "400"},
		"a length with a sign": {"POST " + list + head + "Content-Length: +2\r\n\r\n{}", "400"},
		"chunks of another":    {"POST " + list + head + "Transfer-Encoding: xchunked\r\n\r\n", "501"},
		"a space before colon": {"GET " + list + head + "X-Y : z\r\n\r\n", "400"},
		"a bare line feed":     {"GET " + list + " HTTP/1.1\nHost: evil.example\n\n", "403"},
		"a verb in a header":   {"GET /xrpc/com.atproto.space.createRecord" + head + "X-HTTP-Method-Override: POST\r\n\r\n", "405"},
		"a host that was sent": {"GET " + list + head + "X-Forwarded-Host: evil.example\r\n\r\n", "200"},
	} {
		if got := rawRequest(t, addr, c.text); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	// Length and chunks at once: the chunks count, and nothing behind them is
	// taken for a second request.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /xrpc/com.atproto.space.createRecord HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET %s HTTP/1.1\r\nHost: evil.example\r\n\r\n", apiToken, list)
	conn.(*net.TCPConn).CloseWrite() // nothing more comes: the server ends
	all, _ := io.ReadAll(conn)
	if n := strings.Count(string(all), "HTTP/1.1 2"); n != 0 {
		t.Errorf("%d good answers: %s", n, all)
	}
}

// Keys, collections and types that could be two things are none.
func TestX7Names(t *testing.T) {
	keys := []string{"a/b", "..", ".", "", "a%2fb", "%2f", "a\x00b", strings.Repeat("k", 513), "a b", "é", "a#b", "a?b", "a\n", "*"}
	collections := []string{"note", "com.example", "com.example/note", "", "com.example.note.", ".com.example.note", "com..example.note", "com.example.note/x", "com.example.1x", strings.Repeat("a", 64) + ".example.note"}
	for _, d := range both {
		f := seeded(t)
		s := newServer(f)
		before := len(f.spaces[home].repos[owner].ops)
		try := func(collection, key, record string) {
			for _, nsid := range []string{"com.atproto.space.putRecord", "com.atproto.space.createRecord", "com.atproto.space.deleteRecord"} {
				b, _ := json.Marshal(map[string]any{"space": d.spaceURI(home), "collection": collection, "rkey": key, "record": json.RawMessage(record)})
				if strings.HasSuffix(nsid, "deleteRecord") && record != "{}" {
					continue
				}
				w := ask(s, post, nsid, string(b))
				if w.Code != 400 || at(decoded(t, w), "error") != "InvalidRequest" {
					t.Errorf("%s %q/%q %s: %d %s", nsid, collection, key, record, w.Code, w.Body)
				}
			}
		}
		for _, key := range keys {
			try("com.example.note", key, `{}`)
		}
		for _, c := range collections {
			try(c, "a", `{}`)
		}
		try("com.example.note", "fresh", `{"$type":"com.example.other"}`)
		try("com.example.note", "fresh", `{"$type":"com.example.note "}`)
		if len(f.spaces[home].repos[owner].ops) != before {
			t.Error("something was written")
		}
	}
}

// Records that have no one encoding are refused before anything is written.
func TestX8Records(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 1000) + `1` + strings.Repeat(`}`, 1000)
	for name, record := range map[string]string{
		"float": `{"a":0.5}`, "exponent": `{"a":1e2}`, "beyond 2^53": `{"a":9007199254740992}`, "below": `{"a":-9007199254740992}`,
		"key twice": `{"a":1,"a":2}`, "key twice below": `{"b":{"a":1,"a":2}}`, "deep": deep, "deep list": `{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`,
		"link beside": `{"a":{"$link":"bafyreidykglsfhoixmivffc5uwhcgshx4j465xwqntbmu43nb2dzqwfvae","b":1}}`, "bytes beside": `{"a":{"$bytes":"AA","b":1}}`,
	} {
		f := seeded(t)
		before := len(f.spaces[home].repos[owner].ops)
		w := ask(newServer(f), post, "com.atproto.space.createRecord", createBody(record))
		if w.Code != 400 || len(f.spaces[home].repos[owner].ops) != before {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for name, size := range map[string]int{"5 MB": 5 << 20, "1 MiB and a little": 1<<20 + 1} {
		f := seeded(t)
		w := ask(newServer(f), post, "com.atproto.space.createRecord", createBody(`{"a":"`+strings.Repeat("x", size)+`"}`))
		if w.Code != 413 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

// An option that is not understood never opens a space: the answer names it by
// its kind and says which it is.
func TestX10UnknownPolicies(t *testing.T) {
	const defs = "com.atproto.simplespace.defs#"
	for field, want := range map[string]string{
		`"policy":{"$type":"` + defs + `openPolicy"}`: "UnsupportedPolicy policy", `"policy":{}`: "UnsupportedPolicy needs a $type",
		`"policy":null`: "UnsupportedPolicy needs a $type", `"policy":"public"`: "InvalidRequest policy", `"mintPolicy":"open"`: "UnsupportedPolicy mint",
		`"mintPolicy":""`: "UnsupportedPolicy mint", `"appAccess":{"$type":"` + defs + `all"}`: "UnsupportedAppAccess appAccess",
		`"appAccess":{"type":"all"}`: "UnsupportedAppAccess appAccess", `"appAccess":{}`: "UnsupportedAppAccess needs a $type",
		`"appAccess":null`: "UnsupportedAppAccess needs a $type", `"appAccess":"open"`: "InvalidRequest appAccess",
		`"appAccess":{"$type":"` + defs + `open","type":"allowList"}`:                            "UnsupportedAppAccess appAccess",
		`"policy":{"$type":"` + defs + `managingAppPolicy","managingApp":"did:web:app.example"}`: "UnsupportedPolicy managingApp",
		`"policy":{"$type":"` + defs + `managingAppPolicy"}`:                                     "UnsupportedPolicy managingApp",
		`"policy":{"$type":"` + defs + `publicPolicy"},"mintPolicy":"member-list"`:               "InvalidRequest policy",
		`"keyPolicy":"static"`: "UnsupportedPolicy keyPolicy", `"keyPolicy":"static","mintPolicy":"member-list"`: "UnsupportedPolicy keyPolicy",
		`"keyPolicy":"none"`: "UnsupportedPolicy keyPolicy", `"history":"some"`: "UnsupportedPolicy history",
		`"config":{"recordsPublic":true}`: "UnsupportedPolicy recordsPublic", `"pq":"yes"`: "InvalidRequest pq",
		`"config":{"allowedCollections":[]}`: "UnsupportedPolicy allowedCollections",
	} {
		name, says, _ := strings.Cut(want, " ")
		f := newFake(t)
		before := f.text()
		for _, nsid := range []string{"com.atproto.simplespace.createSpace", "com.atproto.simplespace.updateSpace"} {
			body := `{"space":"` + home.AT() + `","type":"com.example.forum","skey":"x",` + field + `}`
			w := ask(newServer(f), post, nsid, body)
			message, _ := at(decoded(t, w), "message").(string)
			if w.Code != 400 && w.Code != 422 || errorName(t, w) != name || !strings.Contains(message, says) || f.text() != before {
				t.Errorf("%s %s: %d %s, want %s", nsid, field, w.Code, w.Body, want)
			}
		}
	}
}

// Cursors and limits are ours or an error, and no page is longer than the most.
func TestX13CursorsAndLimits(t *testing.T) {
	f := seeded(t)
	for i := range 1500 {
		f.spaces[home].members = append(f.spaces[home].members, Member{DID: space.DID(fmt.Sprintf("did:key:z%05d", i)), Level: space.LevelRead})
	}
	s := newServer(f)
	for nsid, rows := range map[string]string{
		"com.atproto.space.listSpaces": "spaces", "com.atproto.simplespace.listMembers": "members", "com.atproto.space.listRecords": "records",
		"com.atproto.space.listRepoOps": "ops", "com.atproto.space.listRepos": "repos", "dev.happyview.space.listInvites": "invites",
	} {
		in := "space=" + home.AT()
		for _, cursor := range []string{"-1", "1e9", "AAAA", "%00", "ZGlkOm", strings.Repeat("A", 10_000), "Li4vLi4v"} {
			if w := ask(s, get, nsid, in+"&cursor="+cursor); w.Code != 400 {
				t.Errorf("%s cursor %s: %d %s", nsid, clip(cursor), w.Code, w.Body)
			}
		}
		for _, limit := range []string{"-1", "0", "1e9", "x", "", "1.5", "9999999999999999999999"} {
			if w := ask(s, get, nsid, in+"&limit="+limit); w.Code != 400 {
				t.Errorf("%s limit %q: %d %s", nsid, limit, w.Code, w.Body)
			}
		}
		w := ask(s, get, nsid, in+"&limit=1000000")
		if list, _ := at(decoded(t, w), rows).([]any); w.Code == 200 && len(list) > 1000 {
			t.Errorf("%s: a page of %d", nsid, len(list))
		}
	}
}
