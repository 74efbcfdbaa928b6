package relay

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are kept per lease, under a name that is drawn here: no topic, no
// peer, no writer and no address is in them, and their number is bounded.
func TestMetrics(t *testing.T) {
	r := startRelay(t, t.TempDir())
	var quiet *world
	for i := range maxMeasured + 5 {
		quiet = newWorld(fmt.Sprint("quiet", i))
		c := newThin(t, r, quiet)
		c.json(t, "POST", "lease", c.leaseBody(t, ""))
	}
	w := newWorld("busy")
	c := newThin(t, r, w)
	c.json(t, "POST", "lease", c.leaseBody(t, ""))
	ch := w.chain(t, "alice", "alice").grow(t, 6)
	if n, err := c.put(t, ch.frame(t, 0, 6)); err != nil || n != 7 {
		t.Fatal(n, err)
	}
	mine := r.topic(w.topic).leaseName()

	reg := prometheus.NewRegistry()
	reg.MustRegister(r.Collector())
	got, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum, own float64
	leases := map[string]bool{}
	text := ""
	for _, f := range got {
		text += f.String()
		for _, m := range f.Metric {
			for _, l := range m.Label {
				leases[l.GetValue()] = true
			}
			switch {
			case f.GetName() == "kith_relay_envelopes_total":
				sum = m.Counter.GetValue()
			case f.GetName() == "kith_relay_lease_envelopes_total" && m.Label[0].GetValue() == mine:
				own = m.Counter.GetValue()
			}
		}
	}
	if sum != 7 || own != 7 {
		t.Errorf("%v envelopes in all, %v of the lease, want 7", sum, own)
	}
	if len(leases) != maxMeasured {
		t.Errorf("%d leases have series, want %d", len(leases), maxMeasured)
	}
	cert := ch.cert.WriterKey()
	for what, b := range map[string][]byte{"topic": w.topic[:4], "quiet topic": quiet.topic[:4], "chain": ch.id[:4], "writer": cert[:4]} {
		if strings.Contains(text, hex.EncodeToString(b)) {
			t.Errorf("the metrics name a %s", what)
		}
	}
	if strings.Contains(text, "127.0.0.1") || strings.Contains(text, "12D3") {
		t.Error("the metrics name an address or a peer")
	}
}
