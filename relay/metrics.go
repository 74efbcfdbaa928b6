package relay

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// maxMeasured is how many leases have series of their own: those that hold
// most.
const maxMeasured = 200

// Collector shows the relay to Prometheus: sums over all topics, gossip's
// counters, and series for each of the leases that hold most. A lease has a
// name there that says nothing of its topic, so that who may scrape a machine
// does not learn what it carries; no series is about a person, and none about
// an address.
func (r *Relay) Collector() prometheus.Collector { return collector{r} }

type collector struct{ r *Relay }

// Describe says nothing: counters come with what is built in.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect gives kith_relay_NAME, and kith_relay_lease_NAME with a label lease.
func (c collector) Collect(out chan<- prometheus.Metric) {
	show := func(kind prometheus.ValueType, name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kith_relay_"+name, help, nil, nil), kind, v)
	}
	failing := 0.0
	if c.r.Healthy() != nil {
		failing = 1
	}
	show(prometheus.GaugeValue, "topics", "topics carried", float64(c.r.Topics()))
	show(prometheus.GaugeValue, "held_bytes", "bytes of all topics on disk", float64(c.r.Held()))
	show(prometheus.GaugeValue, "max_bytes", "bytes beyond which no new lease is given", float64(c.r.cfg.MaxBytes))
	show(prometheus.GaugeValue, "failing", "1 while the disk takes no writes", failing)
	peers := 0
	for _, h := range c.r.hosts {
		peers += len(h.Network().Peers())
	}
	show(prometheus.GaugeValue, "peers", "connected peers, of all hosts", float64(peers))
	for name, v := range c.r.Counters() {
		show(prometheus.CounterValue, name+"_total", strings.ReplaceAll(name, "_", " ")+" since the start", float64(v))
	}
	all := slices.Collect(c.r.Usages())
	for _, s := range series {
		total := uint64(0)
		for i := range all {
			total += s.of(&all[i])
		}
		show(s.kind, s.name, s.help+", of all leases", float64(total))
	}
	slices.SortFunc(all, func(a, b Usage) int { return cmp.Compare(b.Held, a.Held) })
	for i := range all[:min(len(all), maxMeasured)] {
		for _, s := range series {
			d := prometheus.NewDesc("kith_relay_lease_"+s.name, s.help, []string{"lease"}, nil)
			out <- prometheus.MustNewConstMetric(d, s.kind, float64(s.of(&all[i])), all[i].Lease)
		}
	}
}

// series is what is measured of every lease.
var series = [...]struct {
	name, help string
	kind       prometheus.ValueType
	of         func(*Usage) uint64
}{
	{"stored_bytes", "bytes on disk", prometheus.GaugeValue, func(u *Usage) uint64 { return u.Held }},
	{"quota_bytes", "bytes that the lease allows", prometheus.GaugeValue, func(u *Usage) uint64 { return u.Bytes }},
	{"envelopes_total", "envelopes taken since the start", prometheus.CounterValue, func(u *Usage) uint64 { return u.Envelopes }},
	{"received_bytes_total", "bytes of envelopes taken since the start", prometheus.CounterValue, func(u *Usage) uint64 { return u.Received }},
	{"refused_total", "envelopes refused since the start", prometheus.CounterValue, func(u *Usage) uint64 { return u.Refused }},
	{"objects_total", "objects taken since the start", prometheus.CounterValue, func(u *Usage) uint64 { return u.Objects }},
	{"rounds_total", "reconciliations since the start", prometheus.CounterValue, func(u *Usage) uint64 { return u.Rounds }},
	{"receipts_total", "receipts signed since the start", prometheus.CounterValue, func(u *Usage) uint64 { return u.Signed }},
}

// leaseName is the topic's name in metrics: drawn from its key on this disk.
func (t *topic) leaseName() string { return hex.EncodeToString(t.mark[:6]) }
