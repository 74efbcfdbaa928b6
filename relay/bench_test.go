package relay

import (
	"crypto/ed25519"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/space/envelope"
)

const benchPadded = 304 // an envelope of 520 bytes

// stream is the frames of one chain, one envelope each.
type stream struct {
	w      *world
	frames [][]byte
}

// streams makes n envelopes in all, of so many chains over so many topics.
func streams(b testing.TB, name string, n, chains, topics int) []stream {
	b.Helper()
	worlds := make([]*world, topics)
	for i := range worlds {
		worlds[i] = newWorld(fmt.Sprint(name, i))
	}
	out := make([]stream, chains)
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() {
			w := worlds[i%topics]
			c := w.chain(b, fmt.Sprint(name, i), fmt.Sprint(name, i))
			out[i].w = w
			for j := range (n + chains - 1) / chains {
				if j > 0 {
					c.addSized(b, benchPadded)
				}
				f, err := c.frame(b, j, j).AppendBinary(nil)
				if err != nil {
					b.Error(err)
					return
				}
				out[i].frames = append(out[i].frames, f)
			}
		})
	}
	wg.Wait()
	return out
}

// addSized appends an entry of a padded size.
func (c *chain) addSized(t testing.TB, padded int) {
	last := c.run[len(c.run)-1]
	h := envelope.Header{Type: envelope.Entry, Topic: c.w.topic, Chain: c.id, Seq: last.Seq() + 1, Prev: last.ID()}
	raw, err := envelope.Build(h, [24]byte{}, make([]byte, padded+envelope.TagSize), func(m []byte) []byte { return ed25519.Sign(c.key, m) })
	if err != nil {
		t.Error(err)
		return
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		t.Error(err)
		return
	}
	c.run = append(c.run, e)
}

func unlimited(c *Config) {
	c.Open = Quota{Bytes: 1 << 40, Rate: 1 << 30}
	c.Limits = gossip.Limits{Frames: 1e12, Bytes: 1e15, Classes: [4]float64{1e9, 1e9, 1e9, 1e9}}
}

// leased makes a relay that holds leases on all worlds of some streams.
func leased(b testing.TB, all []stream, change ...func(*Config)) *Relay {
	b.Helper()
	r := startRelay(b, b.TempDir(), change...)
	for _, s := range all {
		if r.topic(s.w.topic) != nil {
			continue
		}
		if _, err := r.lease(b.Context(), s.w.describe(b, time.Now().Add(10*day), 0), "", "bench"); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

// ingest judges the frames as gossip's validators do, on all cores, and hands
// on what is accepted. It returns when receipts say that all is on disk.
func ingest(b testing.TB, r *Relay, judge *gossip.Judge, all []stream) {
	var wg sync.WaitGroup
	turn := make(chan stream)
	for range 2 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for s := range turn {
				top := r.topic(s.w.topic)
				for _, f := range s.frames {
					v := judge.Judge("neighbour", s.w.topic, top, f, time.Now())
					if v.Verdict != gossip.Accept {
						b.Errorf("%v", v.Reason)
						return
					}
					for _, d := range v.Deliver {
						top.heard(d.From, d.Frame)
					}
				}
			}
		})
	}
	want := map[*world]int{}
	for _, s := range all {
		want[s.w] += len(s.frames)
		turn <- s
	}
	close(turn)
	wg.Wait()
	ask := make(chan *world)
	for range 64 { // members do not wait for each other
		wg.Go(func() {
			for w := range ask {
				rec, err := r.topic(w.topic).receipt(b.Context())
				if err != nil || rec.Count != uint64(want[w]) {
					b.Errorf("%d envelopes on disk, want %d, %v", rec.Count, want[w], err)
				}
			}
		})
	}
	for w := range want {
		ask <- w
	}
	close(ask)
	wg.Wait()
}

// bare verifies the same signatures, those of the certificates too, on all
// cores and does nothing else.
func bare(all []stream) time.Duration {
	type signed struct {
		key      ed25519.PublicKey
		msg, sig []byte
	}
	var jobs []signed
	for _, s := range all {
		for _, raw := range s.frames {
			f, err := envelope.ParseFrame(raw)
			if err != nil {
				panic(err)
			}
			e := f.Last().Bytes()
			id := f.Chain()
			msg := append([]byte("sp/v1/env\x00"), e[:len(e)-64]...)
			jobs = append(jobs, signed{id[:], msg, e[len(e)-64:]})
			if f.Cert == nil {
				continue
			}
			c, topic := f.Cert.Bytes(), f.Topic()
			grant := append([]byte("sp/v1/wcert\x00"), c[:envelope.GrantSize-64]...)
			link := slices.Concat([]byte("sp/v1/chain\x00"), topic[:], id[:])
			jobs = append(jobs, signed{f.Cert.Issuer, grant, c[envelope.GrantSize-64 : envelope.GrantSize]},
				signed{f.Cert.Writer, link, c[envelope.GrantSize:]})
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(jobs)); i = next.Add(1) - 1 {
				if !ed25519.Verify(jobs[i].key, jobs[i].msg, jobs[i].sig) {
					panic("signature")
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// BenchmarkIngest: single envelopes of 520 bytes in 1, 100 and 10,000 topics,
// judged one by one and durable at the end, beside bare Ed25519 verification
// of the same signatures on all cores. ratio: bare time over the relay's.
func BenchmarkIngest(b *testing.B) {
	for _, shape := range []struct{ chains, topics int }{{64, 1}, {400, 100}, {10_000, 10_000}} {
		b.Run(fmt.Sprintf("chains=%d/topics=%d", shape.chains, shape.topics), func(b *testing.B) {
			all := streams(b, fmt.Sprint(b.Name(), b.N), max(b.N, shape.chains), shape.chains, shape.topics)
			r := leased(b, all, unlimited, func(c *Config) { c.Hosts = 1 + shape.topics/8000 })
			judge := gossip.NewJudge(r.cfg.Limits)
			n := 0
			for _, s := range all {
				n += len(s.frames)
			}
			before := bare(all)
			b.ResetTimer()
			began := time.Now()
			ingest(b, r, judge, all)
			took := time.Since(began)
			b.StopTimer()
			floor := min(before, bare(all))
			b.ReportMetric(float64(n)/took.Seconds(), "envelopes/s")
			b.ReportMetric(float64(n+2*len(all))/floor.Seconds(), "verifications/s")
			b.ReportMetric(floor.Seconds()/took.Seconds(), "ratio")
		})
	}
}

// TestAbusiveWriter: nine writers at ten envelopes a second each, while a tenth,
// of the highest class, sends as much as it can into a lease of 500 a second;
// how long the nine wait until a receipt covers what they wrote.
func TestAbusiveWriter(t *testing.T) {
	span := 2 * time.Second
	if *full {
		span = 20 * time.Second
	}
	w := newWorld("shared")
	r := startRelay(t, t.TempDir(), func(c *Config) { c.Open.Bytes = 1 << 30 })
	newMember(t).lease(t, r, w)
	top := r.topic(w.topic)
	judge := gossip.NewJudge(gossip.Limits{})
	abuser := &stream{w: w}
	c := w.chain(t, "abuser", "abuser")
	for range 30_000 {
		c.addSized(t, benchPadded)
	}
	for i := range c.run {
		b, err := c.frame(t, i, i).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		abuser.frames = append(abuser.frames, b)
	}
	var sent atomic.Int64
	ctx := t.Context()
	stop := make(chan struct{})
	var flood, wg sync.WaitGroup
	flood.Go(func() {
		for i := 0; ; i = (i + 1) % len(abuser.frames) {
			select {
			case <-stop:
				return
			default:
			}
			sent.Add(1)
			offer(judge, top, "abuser", abuser.frames[i])
		}
	})
	var mu sync.Mutex
	var waits []time.Duration
	for k := range 9 {
		wg.Go(func() {
			name := fmt.Sprint("honest ", k)
			c := w.chain(t, name, name)
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for i := 0; i < int(span/(100*time.Millisecond)); i++ {
				if i > 0 {
					c.addSized(t, benchPadded)
				}
				b, err := c.frame(t, i, i).AppendBinary(nil)
				if err != nil {
					t.Error(err)
					return
				}
				began := time.Now()
				if !offer(judge, top, peer.ID(name), b) {
					t.Errorf("%s: envelope %d refused", name, i)
				}
				if _, err := top.receipt(ctx); err != nil {
					t.Error(err)
				}
				took := time.Since(began)
				mu.Lock()
				waits = append(waits, took)
				mu.Unlock()
				<-tick.C
			}
		})
	}
	wg.Wait()
	close(stop)
	flood.Wait()
	slices.Sort(waits)
	p99 := waits[len(waits)*99/100]
	t.Logf("%d writes, p50 %v, p99 %v, max %v; the abuser sent %d", len(waits), waits[len(waits)/2], p99, waits[len(waits)-1], sent.Load())
	if p99 > 2*time.Second {
		t.Errorf("p99 of the others is %v", p99)
	}
	for k := range 9 {
		name := fmt.Sprint("honest ", k)
		if ch, ok := top.Chain(envelope.ChainID(public(keyOf("chain " + name)))); !ok || ch.Length != uint64(span/(100*time.Millisecond)) {
			t.Errorf("%s: %d envelopes on disk", name, ch.Length)
		}
	}
}

// offer judges a frame and hands it on if it is accepted.
func offer(judge *gossip.Judge, top *topic, from peer.ID, frame []byte) bool {
	v := judge.Judge(from, top.id, top, frame, time.Now())
	for _, d := range v.Deliver {
		top.heard(d.From, d.Frame)
	}
	return v.Verdict == gossip.Accept
}
