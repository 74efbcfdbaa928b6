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

func serveNode(b *testing.B) (target, func(int64) []byte) {
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
	text := strings.Repeat("x", 220)
	body := func(i int64) []byte {
		return fmt.Appendf(nil, `{"space":%q,"collection":"com.example.forum.post","rkey":"k%d","record":{"$type":"com.example.forum.post","text":%q}}`,
			info.ID, i, text)
	}
	return target{r.HTTP + "/xrpc/com.atproto.space.putRecord", strings.TrimSpace(string(token))}, body
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
