package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are sums over the node. No space, person or peer is in a name or a
// label: who may scrape a machine must not learn what it takes part in.

// meter is what the node shows to Prometheus, and the listener that it is
// shown on. Nil: nothing is measured for anybody.
type meter struct {
	listener net.Listener
	registry *prometheus.Registry
}

// openMetrics binds the metrics' address. It has to be on loopback: nothing
// asks who looks.
func openMetrics(addr string) (*meter, error) {
	if addr == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		err = fmt.Errorf("%q is not an address of this machine alone: want 127.0.0.1:PORT or [::1]:PORT", addr)
	}
	var l net.Listener
	if err == nil {
		l, err = net.Listen("tcp", addr)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; try --metrics 127.0.0.1:0", err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &meter{l, r}, nil
}

// measuring has libp2p count into the same registry.
func (m *meter) measuring(opts []libp2p.Option) []libp2p.Option {
	if m == nil {
		return opts
	}
	return append([]libp2p.Option{libp2p.PrometheusRegisterer(m.registry)}, opts...)
}

// url is where the metrics are; "" where there are none.
func (m *meter) url() string {
	if m == nil {
		return ""
	}
	return "http://" + m.listener.Addr().String() + "/metrics"
}

// serve answers scrapers until the listener closes.
func (m *meter) serve(n *Node) {
	m.registry.MustRegister(collector{n})
	if n.relay != nil {
		m.registry.MustRegister(n.relay.Collector())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if err := srv.Serve(m.listener); err != nil && !errors.Is(err, net.ErrClosed) {
		n.log.Warn("serve metrics", "err", err)
	}
}

// collector shows a node's counters, and what its spaces add up to.
type collector struct{ n *Node }

// Describe says nothing: counters come with what is built in.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect gives every counter of status as kith_NAME_total and the sums over
// all spaces as gauges.
func (c collector) Collect(out chan<- prometheus.Metric) {
	show := func(kind prometheus.ValueType, name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kith_"+name, help, nil, nil), kind, v)
	}
	for name, v := range c.n.counters() {
		words := wordsIn(name)
		show(prometheus.CounterValue, strings.Join(words, "_")+"_total", strings.Join(words, " ")+" since the start", float64(v))
	}
	t := c.n.tally()
	for _, g := range []struct {
		name, help string
		v          uint64
	}{
		{"peers", "connected peers", uint64(len(c.n.host.Network().Peers()))},
		{"spaces", "spaces held", t.spaces},
		{"spaces_in_sync", "spaces of which a peer shows the same digest now", t.inSync},
		{"spaces_behind", "spaces that are known to lack entries", t.late},
		{"spaces_frozen", "spaces whose control log forked", t.frozen},
		{"spaces_damaged", "spaces that lost entries to the disk and have not got them back", t.damaged},
		{"spaces_unverified", "spaces whose control log one node alone has shown", t.unverified},
		{"entries", "envelopes held", t.entries},
		{"entries_behind", "entries that are known and cannot be shown yet", t.behind},
		{"records", "live records", t.records},
		{"chains_forked", "writer chains that end early because of a fork", t.forks},
		{"mismatches", "authors and peers whose word does not fit what is here", t.mismatches},
		{"store_failing", "1 while the disk takes no writes", t.failing},
	} {
		show(prometheus.GaugeValue, g.name, g.help, float64(g.v))
	}
}

// tally is what all spaces add up to.
type tally struct {
	spaces, inSync, late, frozen, damaged, unverified uint64
	entries, behind, records, forks, mismatches       uint64
	failing                                           uint64
}

func (n *Node) tally() (t tally) {
	count := func(c *uint64, is bool) {
		if is {
			*c++
		}
	}
	for _, r := range n.all() {
		s := r.status()
		t.spaces++
		count(&t.inSync, len(s.InSyncWith) > 0)
		count(&t.late, s.Behind > 0)
		count(&t.frozen, s.Frozen)
		count(&t.damaged, s.Damaged)
		count(&t.unverified, s.UnverifiedHead)
		t.entries += s.Entries
		t.behind += s.Behind
		t.records += s.Records
		t.forks += s.Forks
		t.mismatches += uint64(len(s.Mismatches))
	}
	count(&t.failing, n.store.Err() != nil)
	return t
}

// wordsIn undoes camel.
func wordsIn(name string) (words []string) {
	begin := 0
	for i, r := range name {
		if unicode.IsUpper(r) {
			words = append(words, strings.ToLower(name[begin:i]))
			begin = i
		}
	}
	return append(words, strings.ToLower(name[begin:]))
}
