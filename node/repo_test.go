package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
	"github.com/kithnet/kith/xrpc"
)

// serve runs a node with its API and gives a client of it.
func serve(t testing.TB, change ...func(*node.Config)) (*node.Node, *xrpc.Client) {
	t.Helper()
	home := t.TempDir()
	if _, _, err := node.Init(home, nil); err != nil {
		t.Fatal(err)
	}
	n, api, _ := serveHome(t, home, change...)
	return n, api
}

// serveHome runs the node of a home with its API, until the test ends or stop is
// called.
func serveHome(t testing.TB, home string, change ...func(*node.Config)) (n *node.Node, api *xrpc.Client, stop func()) {
	t.Helper()
	cfg := node.Config{Home: home, Listen: loopback, NoMDNS: true, HTTP: "127.0.0.1:0"}
	for _, f := range change {
		f(&cfg)
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan node.Ready, 1)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- n.Run(ctx, func(r node.Ready) { ready <- r }) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	r := <-ready
	token, err := os.ReadFile(r.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return n, &xrpc.Client{Base: r.HTTP, Token: strings.TrimSpace(string(token))}, stop
}

// repoOf says whose snapshot to verify. Authors of tests have did:keys.
func repoOf(t testing.TB, id space.ID, author space.DID) car.Repo {
	t.Helper()
	key, err := atcrypto.ParsePublicDIDKey(string(author))
	if err != nil {
		t.Fatal(err)
	}
	return car.Repo{Space: id, Author: author, Key: key}
}

// fill writes n records of size bytes, 200 at a time.
func fill(t testing.TB, n *node.Node, id space.ID, count, size int) {
	t.Helper()
	text := strings.Repeat("x", size-60)
	for from := 0; from < count; from += xrpc.MaxWrites {
		var writes []xrpc.Write
		for i := from; i < min(count, from+xrpc.MaxWrites); i++ {
			rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"com.example.forum.post","n":%d,"text":%q}`, i, text))
			if err != nil {
				t.Fatal(err)
			}
			path := space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(fmt.Sprintf("k%07d", i))}
			writes = append(writes, xrpc.Write{Action: xrpc.ActionPut, Path: path, Value: rec})
		}
		if _, err := n.Write(context.Background(), id, writes, xrpc.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// verify reads a snapshot to its end.
func verify(ctx context.Context, api *xrpc.Client, of car.Repo) (*car.Reader, int, error) {
	body, err := api.Repo(ctx, of.Space, of.Author, of.IndexOnly)
	if err != nil {
		return nil, 0, err
	}
	defer body.Close()
	d, err := car.NewReader(body, of)
	if err != nil {
		return nil, 0, err
	}
	for n := 0; ; n++ {
		if _, _, err := d.Next(); err == io.EOF {
			return d, n, nil
		} else if err != nil {
			return nil, 0, err
		}
	}
}

// TestSnapshotsUnderWrites takes 100 snapshots, four at a time, while somebody
// writes 40 times a second: each is one state of the repo, and each verifies.
func TestSnapshotsUnderWrites(t *testing.T) {
	n, api := serve(t)
	id := create(t, n, "busy")
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := repoOf(t, id, st.DID)
	fill(t, n, id, 600, 300)
	ctx, stop := context.WithCancel(t.Context())
	var wrote atomic.Int64
	moved := make(chan struct{}, 4) // so that no snapshot is of a state seen before
	var writing sync.WaitGroup
	writing.Go(func() {
		defer close(moved)
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// Other versions of what is there, new records and deletions.
			path := space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(fmt.Sprintf("k%07d", i%700))}
			w := xrpc.Write{Action: xrpc.ActionPut, Path: path, Value: mustRecord(t, fmt.Sprint("other ", i))}
			if i%5 == 4 {
				w = xrpc.Write{Action: xrpc.ActionDelete, Path: path, IfExists: true}
			}
			if _, err := n.Write(context.Background(), id, []xrpc.Write{w}, xrpc.WriteOptions{}); err != nil {
				t.Error(err)
				return
			}
			wrote.Add(1)
			select {
			case moved <- struct{}{}:
			default:
			}
		}
	})
	var left atomic.Int64
	left.Store(100)
	var reading sync.WaitGroup
	for range 4 {
		reading.Go(func() {
			var last space.TID
			for left.Add(-1) >= 0 {
				<-moved
				d, records, err := verify(t.Context(), api, of)
				if err != nil {
					t.Error(err)
					return
				}
				if d.Commit.Rev < last || records != len(d.Index) {
					t.Errorf("%d records of %d at %s, before it %s", records, len(d.Index), d.Commit.Rev, last)
				}
				last = d.Commit.Rev
			}
		})
	}
	reading.Wait()
	stop()
	writing.Wait()
	if wrote.Load() < 100 {
		t.Errorf("only %d writes meanwhile", wrote.Load())
	}
	t.Logf("100 snapshots during %d writes", wrote.Load())
}

func mustRecord(t testing.TB, text string) space.Record {
	rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"com.example.forum.post","text":%q}`, text))
	if err != nil {
		t.Error(err)
	}
	return rec
}

// TestFollowNode: a repo fetched whole and one fetched op by op are the same,
// at the author's node and at another member's.
func TestFollowNode(t *testing.T) {
	a, apiA := serve(t)
	b, apiB := serve(t)
	id := create(t, a, "club")
	join(t, a, b, id)
	st, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := repoOf(t, id, st.DID)
	fill(t, a, id, 450, 200)
	last := put(t, a, id, "last", "of the first part")
	eventually(t, "b has it", has(b, id, "last", last))
	follower := func(api *xrpc.Client) *xrpc.Follower {
		fo := &xrpc.Follower{Source: api, Repo: of}
		eventually(t, "the first sync", func() error { return fo.Sync(t.Context()) })
		return fo
	}
	fa, fb := follower(apiA), follower(apiB)
	for i := range 30 {
		put(t, a, id, fmt.Sprintf("k%07d", i*7), fmt.Sprint("another ", i))
	}
	w := []xrpc.Write{{Action: xrpc.ActionDelete, Path: space.Path{Collection: "com.example.forum.post", Key: "k0000001"}}}
	if _, err := a.Write(t.Context(), id, w, xrpc.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	last = put(t, a, id, "last", "of the second part")
	eventually(t, "b has it too", has(b, id, "last", last))
	for name, fo := range map[string]*xrpc.Follower{"author's": fa, "member's": fb} {
		var d *car.Reader
		api := fo.Source.(*xrpc.Client)
		eventually(t, name, func() error {
			if err := fo.Sync(t.Context()); err != nil {
				return err
			}
			var err error
			if d, _, err = verify(t.Context(), api, of); err != nil {
				return err
			}
			if d.State.Sum() != fo.State.Sum() || d.Commit.Rev != fo.Rev {
				return fmt.Errorf("by ops %x at %s, whole %x at %s", fo.State.Sum(), fo.Rev, d.State.Sum(), d.Commit.Rev)
			}
			return nil
		})
		for _, e := range d.Index {
			if fo.Records[e.Path].CID != e.CID {
				t.Errorf("%s: %s differs", name, e.Path)
			}
		}
	}
	if fa.Recovered != 1 {
		t.Errorf("at the author's node the whole repo was read %d times", fa.Recovered)
	}
	if fa.State.Sum() != fb.State.Sum() {
		t.Error("the two nodes show two repos")
	}
}

// TestX19 breaks downloads off at every 64 KiB and reads many at once: nothing
// stays behind of them. Ranges are not served: each answer has its own commit.
func TestX19(t *testing.T) {
	n, api := serve(t)
	id := create(t, n, "big")
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := repoOf(t, id, st.DID)
	fill(t, n, id, 4000, 300)
	if _, _, err := verify(t.Context(), api, of); err != nil {
		t.Fatal(err)
	}
	settled := func() int {
		api.HTTP.CloseIdleConnections()
		runtime.GC()
		return runtime.NumGoroutine()
	}
	api.HTTP = &http.Client{Transport: &http.Transport{}}
	before := settled()
	size := 0
	for at := int64(64 << 10); ; at += 64 << 10 {
		ctx, cancel := context.WithCancel(t.Context())
		body, err := api.Repo(ctx, id, st.DID, false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.CopyN(io.Discard, body, at)
		cancel()
		body.Close()
		if errors.Is(err, io.EOF) {
			size = int(got)
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// A hundred readers stop in the middle: what lives then is what they cost.
	live := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	heap := live()
	var halfway, many sync.WaitGroup
	goOn := make(chan struct{})
	halfway.Add(100)
	for range 100 {
		many.Go(func() {
			body, err := api.Repo(t.Context(), id, st.DID, false)
			if err == nil {
				defer body.Close()
				_, err = io.CopyN(io.Discard, body, 64<<10)
			}
			halfway.Done()
			<-goOn
			if err == nil {
				var rest int64
				if rest, err = io.Copy(io.Discard, body); rest != int64(size)-64<<10 {
					t.Errorf("%d bytes after the middle, not %d", rest, size-64<<10)
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	halfway.Wait()
	grown := live() - heap
	t.Logf("%d bytes a snapshot; %d KiB more live with 100 readers", size, grown>>10)
	if grown > 100*(4<<20) { // a connection, and what is read ahead
		t.Errorf("the heap grew by %d bytes", grown)
	}
	close(goOn)
	many.Wait()
	eventually(t, "goroutines end", func() error {
		if now := settled(); now > before+2 {
			return fmt.Errorf("%d goroutines, %d before", now, before)
		}
		return nil
	})
	if open := node.OpenViews(n); open != 0 {
		t.Errorf("%d snapshots are left open", open)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.Base+"/xrpc/com.atproto.space.getRepo?space="+id.AT()+"&repo="+string(st.DID), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+api.Token)
	r.Header.Set("Range", "bytes=100-200")
	resp, err := api.HTTP.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if whole, err := io.Copy(io.Discard, resp.Body); resp.StatusCode != 200 || err != nil || whole != int64(size) {
		t.Errorf("a range: %d, %d bytes, %v", resp.StatusCode, whole, err)
	}
}
