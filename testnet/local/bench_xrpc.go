package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// XRPCOptions says what BenchXRPC measures.
type XRPCOptions struct {
	Kith        string       // the binary; empty: the one that is running
	Records     int          // in the repo that is read
	Subscribers int          // of one space
	Progress    func(string) // nil: nobody hears
}

const (
	xrpcRounds  = 7   // of each side, in turns
	xrpcValue   = 300 // bytes of a record
	xrpcTime    = 5 * time.Minute
	xrpcEvents  = 100
	xrpcPace    = 50 * time.Millisecond
	xrpcClients = 16
)

// BenchXRPC measures a node's HTTP API beside bare handlers that decode the
// same JSON and touch the same store engine once, in a process of their own.
// The two take turns; each figure is the median of the rounds, each ratio that
// of the two medians. Getting a repo is compared with a loop in the bare
// process that reads as many values in an order as scattered and sends nothing.
func BenchXRPC(ctx context.Context, o XRPCOptions) (_ []Row, err error) {
	ctx, cancel := context.WithTimeout(ctx, xrpcTime)
	defer cancel()
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	c, err := newCast(o.Kith, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.leave()) }()
	b := &xrpcBench{cast: c, o: o, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	if err = b.run(ctx); err == nil {
		err = c.stopAll()
	}
	if err != nil {
		return nil, c.explain(fmt.Errorf("bench xrpc: %w", err))
	}
	return b.rows, nil
}

// xrpcBench is a benchmark under way.
type xrpcBench struct {
	*cast
	o    XRPCOptions
	http *http.Client
	node *node
	id   space.ID // where it writes
	big  space.ID // what it reads
	bare string   // URL
	seq  atomic.Int64
	rows []Row
}

func (b *xrpcBench) run(ctx context.Context) error {
	b.o.Progress("starting a node and the bare handlers")
	end, err := b.setUp(ctx)
	if err != nil {
		return err
	}
	defer end()
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"createRecord", b.creates}, {"applyWrites", b.batches}, {"getRecord and listRecords", b.reads},
		{"listRepoOps", b.ops}, {"getRepo", b.repos}, {"subscribe", b.subscribers},
	} {
		b.o.Progress(part.name)
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

func (b *xrpcBench) setUp(ctx context.Context) (end func(), err error) {
	nodes, err := b.enter(ctx, "node")
	if err != nil {
		return nil, err
	}
	b.node = nodes[0]
	for _, id := range []*space.ID{&b.id, &b.big} {
		info, err := b.node.CreateSpace(ctx, xrpc.NewSpace{Type: forumType, Policy: space.DefaultPolicy()})
		if err != nil {
			return nil, err
		}
		*id = info.ID
	}
	in, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	child, out, err := spawn("the bare handlers", filepath.Join(b.dir, "bare.log"), b.kith, []string{"bench", "xrpc-bare", filepath.Join(b.dir, "bare")}, in)
	in.Close()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	end = func() {
		child.expect()
		w.Close()
		<-child.done
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var start bareStart
	if err == nil {
		err = json.Unmarshal(line, &start)
	}
	if err != nil {
		end()
		return nil, fmt.Errorf("the bare handlers do not start: %w", err)
	}
	go io.Copy(io.Discard, out)
	b.bare = start.Addr
	if err := b.fill(ctx); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// fill gives both sides as many values of one size.
func (b *xrpcBench) fill(ctx context.Context) error {
	b.o.Progress(fmt.Sprintf("writing %d records", b.o.Records))
	for from := 0; from < b.o.Records; from += xrpc.MaxWrites {
		writes := make([]xrpc.Write, 0, xrpc.MaxWrites)
		for i := from; i < min(b.o.Records, from+xrpc.MaxWrites); i++ {
			rec, err := space.RecordFromJSON(b.record(int64(i)))
			if err != nil {
				return err
			}
			writes = append(writes, xrpc.Write{Action: xrpc.ActionPut, Path: space.Path{Collection: forumPost, Key: benchKey(i)}, Value: rec})
		}
		if _, err := b.node.Write(ctx, b.big, writes, xrpc.WriteOptions{}); err != nil {
			return err
		}
	}
	_, err := b.ask(ctx, http.MethodPost, b.bare+"/fill?n="+fmt.Sprint(b.o.Records)+"&size="+fmt.Sprint(xrpcValue), nil)
	return err
}

func benchKey(i int) space.RecordKey { return space.RecordKey(fmt.Sprintf("k%07d", i)) }

// record is one of some xrpcValue bytes of DRISL.
func (b *xrpcBench) record(i int64) []byte {
	return fmt.Appendf(nil, `{"$type":%q,"n":%d,"text":"%0*d"}`, forumPost, i, xrpcValue-70, i)
}

// ask sends a request to either side and gives the answer.
func (b *xrpcBench) ask(ctx context.Context, verb, url string, body []byte) ([]byte, error) {
	resp, err := b.open(ctx, verb, url, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, out)
	}
	return out, err
}

func (b *xrpcBench) open(ctx context.Context, verb, url string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, verb, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(url, b.node.Base) {
		r.Header.Set("Authorization", "Bearer "+b.node.Token)
	}
	return b.http.Do(r)
}

func (b *xrpcBench) method(nsid, query string) string {
	return b.node.Base + "/xrpc/" + nsid + "?" + query
}

// turns measures count calls of either side by so many clients, several times
// in turns, and gives the medians.
func (b *xrpcBench) turns(clients, count int, ours, bare func() error) (o, r time.Duration, err error) {
	var os, rs []time.Duration
	for i := range xrpcRounds + 1 {
		tr, err := together(clients, count, bare)
		if err != nil {
			return 0, 0, fmt.Errorf("bare: %w", err)
		}
		to, err := together(clients, count, ours)
		if err != nil {
			return 0, 0, err
		}
		if i > 0 { // the first warms up
			os, rs = append(os, to), append(rs, tr)
		}
	}
	o, _ = quantiles(os)
	r, _ = quantiles(rs)
	return o, r, nil
}

// together makes count calls by so many clients and says how long all took.
func together(clients, count int, call func() error) (time.Duration, error) {
	errs := make([]error, clients)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for range count / clients {
				if errs[i] = call(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start), errors.Join(errs...)
}

// rate is how many a second.
func rate(count int, d time.Duration) float64 { return float64(count) / d.Seconds() }

func (b *xrpcBench) row(name string, value float64, unit string) {
	b.rows = append(b.rows, Row{name, value, unit, xrpcRounds})
}

// compare adds the rows of a figure, of its baseline and of their ratio, all
// the better the higher.
func (b *xrpcBench) compare(name, unit string, ours, bare float64) {
	b.row(name, ours, unit)
	b.row(name+"-bare", bare, unit)
	b.row(name+"-ratio", ours/bare, "x")
}

func (b *xrpcBench) creates(ctx context.Context) error {
	for _, clients := range []int{1, xrpcClients} {
		count := 40 * clients
		body := func() []byte {
			return fmt.Appendf(nil, `{"space":%q,"collection":%q,"record":%s}`, b.id, forumPost, b.record(b.seq.Add(1)))
		}
		ours, bare, err := b.turns(clients, count,
			func() error {
				_, err := b.ask(ctx, http.MethodPost, b.method("com.atproto.space.createRecord", ""), body())
				return err
			},
			func() error { _, err := b.ask(ctx, http.MethodPost, b.bare+"/put", body()); return err })
		if err != nil {
			return err
		}
		b.compare(fmt.Sprintf("createRecord-%d", clients), "1/s", rate(count, ours), rate(count, bare))
	}
	return nil
}

func (b *xrpcBench) batches(ctx context.Context) error {
	const count = 10
	body := func() []byte {
		out := fmt.Appendf(nil, `{"space":%q,"writes":[`, b.id)
		for i := range xrpc.MaxWrites {
			if i > 0 {
				out = append(out, ',')
			}
			n := b.seq.Add(1)
			out = fmt.Appendf(out, `{"action":"create","collection":%q,"rkey":"b%d","value":%s}`, forumPost, n, b.record(n))
		}
		return append(out, `]}`...)
	}
	for _, clients := range []int{1, 4} {
		n := count * clients
		bodies := make(chan []byte, 2*n*(xrpcRounds+1))
		for range cap(bodies) {
			bodies <- body()
		}
		ours, bare, err := b.turns(clients, n,
			func() error {
				_, err := b.ask(ctx, http.MethodPost, b.method("com.atproto.space.applyWrites", ""), <-bodies)
				return err
			},
			func() error { _, err := b.ask(ctx, http.MethodPost, b.bare+"/batch", <-bodies); return err })
		if err != nil {
			return err
		}
		b.compare(fmt.Sprintf("applyWrites-200-%d", clients), "records/s", rate(n*xrpc.MaxWrites, ours), rate(n*xrpc.MaxWrites, bare))
	}
	return nil
}

func (b *xrpcBench) reads(ctx context.Context) error {
	in := "space=" + b.big.String() + "&collection=" + string(forumPost)
	for _, clients := range []int{1, xrpcClients} {
		count := 200 * clients
		next := func() int { return int(b.seq.Add(7919)) % b.o.Records }
		ours, bare, err := b.turns(clients, count,
			func() error {
				_, err := b.ask(ctx, http.MethodGet, b.method("com.atproto.space.getRecord", in+"&rkey="+string(benchKey(next()))), nil)
				return err
			},
			func() error {
				_, err := b.ask(ctx, http.MethodGet, b.bare+"/get?n="+fmt.Sprint(next()), nil)
				return err
			})
		if err != nil {
			return err
		}
		b.compare(fmt.Sprintf("getRecord-%d", clients), "1/s", rate(count, ours), rate(count, bare))
	}
	const count = 20
	ours, bare, err := b.turns(1, count,
		func() error {
			_, err := b.ask(ctx, http.MethodGet, b.method("com.atproto.space.listRecords", in+"&limit=100"), nil)
			return err
		},
		func() error {
			_, err := b.ask(ctx, http.MethodGet, b.bare+"/list?n=0&count=100", nil)
			return err
		})
	if err != nil {
		return err
	}
	b.row("listRecords-100", ms(ours/count), "ms")
	b.row("listRecords-100-bare", ms(bare/count), "ms")
	return nil
}

// repos reads a whole repo: first from a node that has just started, then in
// turns with the bare loop.
func (b *xrpcBench) repos(ctx context.Context) error {
	if err := b.node.stop(); err != nil {
		return err
	}
	var err error
	if b.node, err = b.again(ctx, b.node); err != nil {
		return err
	}
	scan, err := b.loop(ctx)
	if err != nil {
		return err
	}
	before := rss(b.node.cmd.Process.Pid)
	cold, _, size, err := b.repo(ctx)
	if err != nil {
		return err
	}
	var first, whole, bare []time.Duration
	most := rss(b.node.cmd.Process.Pid)
	for range xrpcRounds {
		d, err := b.loop(ctx)
		if err != nil {
			return err
		}
		f, w, _, err := b.repo(ctx)
		if err != nil {
			return err
		}
		first, whole, bare = append(first, f), append(whole, w), append(bare, d)
		most = max(most, rss(b.node.cmd.Process.Pid))
	}
	f, _ := quantiles(first)
	w, _ := quantiles(whole)
	l, _ := quantiles(bare)
	values := float64(b.o.Records) * xrpcValue / 1e6
	b.compare("getRepo", "MB of values/s", values/w.Seconds(), values/l.Seconds())
	b.row("getRepo-bytes", float64(size), "B")
	b.row("getRepo-first-byte", ms(f), "ms")
	b.row("getRepo-first-byte-cold", ms(cold), "ms")
	b.row("getRepo-bare-loop-cold", ms(scan), "ms")
	if before > 0 {
		b.row("getRepo-rss-growth", float64(most-before)/(1<<20), "MiB")
	}
	return nil
}

func (b *xrpcBench) loop(ctx context.Context) (time.Duration, error) {
	out, err := b.ask(ctx, http.MethodGet, b.bare+"/loop?n="+fmt.Sprint(b.o.Records), nil)
	var v struct{ NS int64 }
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	return time.Duration(v.NS), err
}

// repo reads a repo to its end: how long to the first byte, to the last, and
// how many there were.
func (b *xrpcBench) repo(ctx context.Context) (first, whole time.Duration, size int64, err error) {
	start := time.Now()
	resp, err := b.open(ctx, http.MethodGet, b.method("com.atproto.space.getRepo", "space="+b.big.AT()), nil)
	if err != nil {
		return 0, 0, 0, err
	}
	defer resp.Body.Close()
	one := make([]byte, 1)
	if _, err := io.ReadFull(resp.Body, one); err != nil || resp.StatusCode != 200 {
		return 0, 0, 0, fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	first = time.Since(start)
	size, err = io.Copy(io.Discard, resp.Body)
	return first, time.Since(start), size + 1, err
}

// subscribers measures from just before a write until each of many sockets has
// its event, and until as many bare sockets have a message of the same size.
func (b *xrpcBench) subscribers(ctx context.Context) error {
	n := b.o.Subscribers
	ours, err := b.fanOut(ctx, n, "ws"+strings.TrimPrefix(b.method("dev.kith.space.subscribe", "encoding=json&space="+b.id.AT()), "http"), func(i int) error {
		body := fmt.Appendf(nil, `{"space":%q,"collection":%q,"rkey":"e%d","record":%s}`, b.id, forumPost, i, b.record(int64(i)))
		_, err := b.ask(ctx, http.MethodPost, b.method("com.atproto.space.putRecord", ""), body)
		return err
	})
	if err != nil {
		return err
	}
	bare, err := b.fanOut(ctx, n, "ws"+strings.TrimPrefix(b.bare, "http")+"/feed", func(i int) error {
		_, err := b.ask(ctx, http.MethodPost, b.bare+"/publish", b.record(int64(i)))
		return err
	})
	if err != nil {
		return err
	}
	for name, all := range map[string][]time.Duration{"subscribe": ours, "subscribe-bare": bare} {
		p50, p99 := quantiles(all)
		b.rows = append(b.rows, Row{name + "-p50", ms(p50), "ms", len(all)}, Row{name + "-p99", ms(p99), "ms", len(all)})
	}
	slices.SortStableFunc(b.rows, func(x, y Row) int {
		if strings.HasPrefix(x.Name, "subscribe") && strings.HasPrefix(y.Name, "subscribe") {
			return strings.Compare(x.Name, y.Name)
		}
		return 0
	})
	return nil
}

// fanOut opens n sockets, causes events at a pace and gives every delay.
func (b *xrpcBench) fanOut(ctx context.Context, n int, url string, cause func(i int) error) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	starts := make([]atomic.Int64, xrpcEvents)
	delays := make([][]time.Duration, n)
	errs := make([]error, n)
	var open, done sync.WaitGroup
	open.Add(n)
	gate := make(chan struct{}, 32) // so many shake hands at once
	for i := range n {
		done.Go(func() {
			gate <- struct{}{}
			conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + b.node.Token}}})
			if err == nil {
				_, _, err = conn.Read(ctx)
			}
			<-gate
			open.Done()
			if errs[i] = err; err != nil {
				return
			}
			defer conn.CloseNow()
			for e := range xrpcEvents {
				if _, _, errs[i] = conn.Read(ctx); errs[i] != nil {
					return
				}
				delays[i] = append(delays[i], time.Duration(time.Now().UnixNano()-starts[e].Load()))
			}
		})
	}
	open.Wait()
	for e := range xrpcEvents {
		starts[e].Store(time.Now().UnixNano())
		if err := cause(e); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(xrpcPace):
		}
	}
	done.Wait()
	var all []time.Duration
	for _, d := range delays {
		all = append(all, d...)
	}
	return all, errors.Join(errs...)
}
