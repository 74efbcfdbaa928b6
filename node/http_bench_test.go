package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// BenchmarkPutRecord is a durable putRecord over HTTP beside a bare handler
// that decodes the same JSON and does one synced store write. The two take
// turns in blocks; "ratio" is bare time over ours, of the medians.
func BenchmarkPutRecord(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			ours, body := serveNode(b)
			bare := serveBare(b)
			const block = 64
			var tours, tbare []time.Duration
			var seq atomic.Int64
			b.ResetTimer()
			for range max(1, b.N/block) {
				tbare = append(tbare, post(b, bare, clients, block, body, &seq))
				tours = append(tours, post(b, ours, clients, block, body, &seq))
			}
			b.ReportMetric(float64(median(tours).Microseconds())/block, "us/put")
			b.ReportMetric(float64(median(tbare).Microseconds())/block, "us/bare")
			b.ReportMetric(float64(median(tbare))/float64(median(tours)), "ratio")
		})
	}
}

type target struct{ url, token string }

// BenchmarkBatch is a durable applyWrites of 200 records over HTTP, by one
// client.
func BenchmarkBatch(b *testing.B) {
	to, at := serveSpace(b)
	to.url += "com.atproto.space.applyWrites"
	var seq, posts atomic.Int64
	start := time.Now()
	for b.Loop() {
		post(b, to, 1, 1, func(int64) []byte { return batchBody(at, &seq) }, &posts)
	}
	b.ReportMetric(float64(seq.Load())/time.Since(start).Seconds(), "records/s")
}

// batchBody is a batch of 200 creates of 300 bytes.
func batchBody(at space.ID, seq *atomic.Int64) []byte {
	out := fmt.Appendf(make([]byte, 0, 100<<10), `{"space":%q,"writes":[`, at)
	for i := range xrpc.MaxWrites {
		if i > 0 {
			out = append(out, ',')
		}
		n := seq.Add(1)
		out = fmt.Appendf(out, `{"action":"create","collection":"com.example.forum.post","rkey":"k%d","value":{"$type":"com.example.forum.post","n":%d,"text":"%0230d"}}`, n, n, n)
	}
	return append(out, `]}`...)
}

// BenchmarkRepoOps is one page of 1,000 ops with values out of an oplog of
// 20,000, over HTTP.
func BenchmarkRepoOps(b *testing.B) {
	const all, page = 20000, 1000
	to, at := serveSpace(b)
	var seq, posts atomic.Int64
	fill := to
	fill.url += "com.atproto.space.applyWrites"
	for seq.Load() < all {
		post(b, fill, 1, 1, func(int64) []byte { return batchBody(at, &seq) }, &posts)
	}
	cursor, got := "", 0
	var body bytes.Buffer
	for b.Loop() {
		req, err := http.NewRequest("GET", to.url+"com.atproto.space.listRepoOps?limit=1000&space="+at.AT()+"&cursor="+cursor, nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+to.token)
		resp, err := keepAlive.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		body.Reset()
		if _, err := body.ReadFrom(resp.Body); err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		if n := bytes.Count(body.Bytes(), []byte(`"value":`)); n != page {
			b.Fatalf("status %d: %d values", resp.StatusCode, n)
		}
		got += page
		tail := body.Bytes()[bytes.LastIndex(body.Bytes(), []byte(`"cursor":"`))+len(`"cursor":"`):]
		cursor = string(tail[:bytes.IndexByte(tail, '"')])
		if got%all == 0 {
			cursor = ""
		}
	}
	b.ReportMetric(float64(got)/b.Elapsed().Seconds(), "ops/s")
}

func serveNode(b *testing.B) (target, func(int64) []byte) {
	to, at := serveSpace(b)
	to.url += "com.atproto.space.putRecord"
	text := strings.Repeat("x", 220)
	return to, func(i int64) []byte {
		return fmt.Appendf(nil, `{"space":%q,"collection":"com.example.forum.post","rkey":"k%d","record":{"$type":"com.example.forum.post","text":%q}}`,
			at, i, text)
	}
}

// serveSpace runs a node with one space and gives the place of its methods.
func serveSpace(b *testing.B) (target, space.ID) {
	home := b.TempDir()
	if _, _, err := node.Init(home, nil); err != nil {
		b.Fatal(err)
	}
	n, err := node.New(node.Config{Home: home, Listen: loopback, NoMDNS: true, HTTP: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	info, err := n.CreateSpace(b.Context(), xrpc.NewSpace{Type: "com.example.forum", Policy: space.DefaultPolicy()})
	if err != nil {
		b.Fatal(err)
	}
	ready := make(chan node.Ready, 1)
	done := make(chan error, 1)
	go func() { done <- n.Run(b.Context(), func(r node.Ready) { ready <- r }) }()
	b.Cleanup(func() { <-done })
	r := <-ready
	token, err := os.ReadFile(r.TokenFile)
	if err != nil {
		b.Fatal(err)
	}
	return target{r.HTTP + "/xrpc/", strings.TrimSpace(string(token))}, info.ID
}

func serveBare(b *testing.B) target {
	db, err := leveldb.OpenFile(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	var seq atomic.Int64
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var in struct {
			Space, Collection, Rkey string
			Record                  map[string]any
		}
		if err == nil {
			err = json.Unmarshal(raw, &in)
		}
		if err == nil {
			err = db.Put(fmt.Appendf(nil, "%s/%s/%d", in.Collection, in.Rkey, seq.Add(1)), raw, &opt.WriteOptions{Sync: true})
		}
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"uri": in.Space + in.Collection + in.Rkey})
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	b.Cleanup(func() { s.Close(); db.Close() })
	return target{url: "http://" + l.Addr().String()}
}

var keepAlive = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// post sends count requests from that many clients and returns how long it took.
func post(b *testing.B, to target, clients, count int, body func(int64) []byte, seq *atomic.Int64) time.Duration {
	start := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range count / clients {
				req, err := http.NewRequest("POST", to.url, bytes.NewReader(body(seq.Add(1))))
				if err != nil {
					b.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", "Bearer "+to.token)
				resp, err := keepAlive.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				out, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode >= 300 {
					b.Errorf("status %d: %s", resp.StatusCode, out)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}
