package relay

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kithnet/kith/space/envelope"
)

// clock is a time that a test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// What a relay refuses on its own protocol, each by its name.
func TestRefusals(t *testing.T) {
	w, other := newWorld("one"), newWorld("other")
	r := startRelay(t, t.TempDir(), func(c *Config) {
		c.Closed, c.Codes = true, map[string]Quota{"sesame": {Bytes: 40_000, Rate: 100}, "thyme": {Bytes: 1000, Rate: 100}}
	})
	m := newMember(t)
	c := m.dial(t, r)
	soon := time.Now().Add(10 * day)
	d := w.describe(t, soon, 0)
	_, err := c.Lease(d, "", w.prove)
	is(t, "no code", err, ErrRefused)
	_, err = c.Lease(d, "mint", w.prove)
	is(t, "unknown code", err, ErrRefused)
	_, err = c.Lease(d, "sesame", other.prove)
	is(t, "without the fetch key", err, ErrNoLease)
	_, err = c.Lease(w.describe(t, time.Now().Add(-time.Second), 0), "sesame", w.prove)
	is(t, "descriptor that is over", err, ErrExpired)
	_, err = c.Lease(w.describe(t, time.Now().Add(2000*day), 0), "sesame", w.prove)
	is(t, "descriptor that ends too late", err, ErrExpired)
	_, err = c.Receipt(w.topic, w.prove)
	is(t, "topic without a lease", err, ErrNoLease)
	if r.Topics() != 0 {
		t.Fatalf("%d topics of refused leases", r.Topics())
	}
	l, err := c.Lease(d, "sesame", w.prove)
	if err != nil || l.Bytes != 40_000 || l.Rate != 100 {
		t.Fatalf("%+v, %v", l, err)
	}
	again, err := c.Lease(d, "sesame", w.prove)
	if err != nil || !bytes.Equal(again.Token, l.Token) {
		t.Errorf("asked again: another lease, %v", err)
	}
	_, err = c.Lease(other.describe(t, soon, 0), "sesame", other.prove)
	is(t, "a code that serves another topic", err, ErrRefused)
	more, err := c.Lease(d, "thyme", w.prove)
	if err != nil || more.Bytes != 41_000 || bytes.Equal(more.Token, l.Token) {
		t.Errorf("a second lease: %+v, %v", more, err)
	}
	_, err = c.Renew(w.topic, Token{1}, w.prove)
	is(t, "unknown token", err, ErrRefused)
	_, err = c.Renew(w.topic, Token(l.Token), other.prove)
	is(t, "renewal without the fetch key", err, ErrNoLease)
	_, err = c.Receipt(w.topic, other.prove)
	is(t, "receipt without the fetch key", err, ErrNoLease)
	is(t, "object beyond the quota", c.Put(w.topic, Page, make([]byte, 50_000), w.prove), ErrQuota)
	is(t, "object of nothing", c.Put(w.topic, Page, nil, w.prove), ErrRequest)
	is(t, "object of no class", c.Put(w.topic, 7, []byte("x"), w.prove), ErrRequest)
	if err := writeMessage(c.rw, 99, []byte("what")); err != nil {
		t.Fatal(err)
	}
	if s, b, err := readMessage(c.rw); err != nil || refusal(status(s), "").Error() == "" || !errors.Is(refusal(status(s), string(b)), ErrRequest) {
		t.Errorf("unknown kind: %d %s %v", s, b, err)
	}
}

// A second issuer cannot take a topic over, whatever it describes.
func TestForgedDescriptor(t *testing.T) {
	w := newWorld("one")
	b := w.describe(t, time.Now().Add(10*day), 0).Bytes()
	for i := range b {
		bent := bytes.Clone(b)
		bent[i] ^= 0x20
		if _, err := envelope.ParseDescriptor(bent); err == nil {
			t.Errorf("byte %d is not covered", i)
		}
	}
}

// New leases are counted for the address that asks.
func TestLeaseRate(t *testing.T) {
	r := startRelay(t, t.TempDir(), func(c *Config) { c.LeaseBurst, c.LeaseRate = 3, 0.001 })
	c := newMember(t).dial(t, r)
	for i, name := range []string{"a", "b", "c", "d"} {
		w := newWorld(name)
		_, err := c.Lease(w.describe(t, time.Now().Add(10*day), 0), "", w.prove)
		if want := error(nil); i == 3 {
			is(t, "one lease too many", err, ErrBusy)
		} else if err != want {
			t.Fatal(err)
		}
	}
	w := newWorld("a")
	if _, err := c.Lease(w.describe(t, time.Now().Add(10*day), 0), "", w.prove); err != nil {
		t.Errorf("a lease that there is: %v", err)
	}
}

// A full relay refuses new topics and goes on with those it has.
func TestFullOfTopics(t *testing.T) {
	r := startRelay(t, t.TempDir(), func(c *Config) { c.Hosts, c.TopicsPerHost = 2, 1 })
	c := newMember(t).dial(t, r)
	var err error
	for _, name := range []string{"a", "b", "c"} {
		w := newWorld(name)
		_, err = c.Lease(w.describe(t, time.Now().Add(10*day), 0), "", w.prove)
	}
	is(t, "more topics than the hosts may serve", err, ErrNoRoom)
	if got := hostsOf(r); got[0] != 1 || got[1] != 1 {
		t.Errorf("hosts serve %v", got)
	}
}

// fill brings a chain into a relay's topic as sync does.
func fill(t testing.TB, r *Relay, c *chain, from, to int) (accepted, refused int) {
	t.Helper()
	f := c.frame(t, from, to)
	got, err := r.topic(c.w.topic).deliver(t.Context(), delivery{cert: f.Cert, run: f.Run})
	if err != nil {
		t.Fatal(err)
	}
	return got.Accepted, got.Refused
}

// A lease that is spent takes nothing more, on no way in; other topics and
// reading go on.
func TestQuota(t *testing.T) {
	w, other := newWorld("one"), newWorld("other")
	r := startRelay(t, t.TempDir(), func(c *Config) { c.Open.Bytes = 10_000 })
	m := newMember(t)
	m.lease(t, r, w)
	m.lease(t, r, other)
	c := w.chain(t, "a", "a").grow(t, 40)
	if got, _ := fill(t, r, c, 0, 9); got != 10 {
		t.Fatalf("%d accepted", got)
	}
	if got, refused := fill(t, r, c, 10, 39); got != 0 || refused != 30 {
		t.Errorf("beyond the quota: %d accepted, %d refused", got, refused)
	}
	for i := 10; i < 30; i++ {
		fill(t, r, c, i, i)
	}
	top := r.topic(w.topic)
	if n := top.held(); n > 10_000 || n < 9_000 {
		t.Errorf("holds %d bytes of 10,000", n)
	}
	is(t, "an object", m.dial(t, r).Put(w.topic, Page, make([]byte, 3000), w.prove), ErrQuota)
	rep := newReplica(w)
	rep.hold(t, c)
	res, err := m.sync(t.Context(), w, rep, r.ID())
	if err != nil || res.Equal {
		t.Errorf("sync with a spent lease: %+v, %v", res, err)
	}
	mine := newReplica(w)
	if res, err := m.sync(t.Context(), w, mine, r.ID()); err != nil || !res.Equal || res.Received == 0 {
		t.Errorf("reading from a spent lease: %+v, %v", res, err)
	}
	if got, _ := fill(t, r, other.chain(t, "b", "b"), 0, 0); got != 1 {
		t.Error("another topic's lease is spent too")
	}
	if u := r.topic(w.topic).usage.Refused.Load(); u == 0 {
		t.Error("what was refused is not counted")
	}
}

// What a topic's retention lets go of makes room for what comes, oldest first;
// ids, hellos, control envelopes, the chains that hold those, and pages stay.
func TestRetention(t *testing.T) {
	var now clock
	w, other := newWorld("one"), newWorld("other")
	r := startRelay(t, t.TempDir(), func(c *Config) { c.Open.Bytes, c.Retention, c.Now = 20_000, 10*day, now.now })
	m := newMember(t)
	m.lease(t, r, w)
	m.lease(t, r, other)
	hers := newReplica(w)
	control := w.chain(t, "keeper", "control").grow(t, 3)
	control.add(t, envelope.Control, nil)
	old, fresh := w.chain(t, "a", "old").grow(t, 20), w.chain(t, "b", "fresh").grow(t, 30)
	for _, part := range [][2]int{{0, 0}, {1, 3}, {4, 4}} {
		fill(t, r, control, part[0], part[1])
	}
	fill(t, r, old, 0, 0)
	fill(t, r, old, 1, 20)
	elsewhere := other.chain(t, "c", "c").grow(t, 20)
	fill(t, r, elsewhere, 0, 0)
	fill(t, r, elsewhere, 1, 20)
	client := m.dial(t, r)
	page, shard := []byte("page"), make([]byte, 3000)
	for class, object := range [][]byte{page, shard} {
		if err := client.Put(w.topic, Class(class), object, w.prove); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*chain{control, old, fresh} {
		hers.hold(t, c)
	}
	fill(t, r, fresh, 0, 0)
	now.advance(9 * day)
	if got, _ := fill(t, r, fresh, 1, 30); got != 0 {
		t.Error("room was made of what must be kept")
	}
	now.advance(2 * day)
	if got, _ := fill(t, r, fresh, 1, 30); got != 30 {
		t.Errorf("%d accepted", got)
	}
	top := r.topic(w.topic)
	if rec := m.receipt(t, r, w); rec.Digest != hers.digest() {
		t.Error("the digest does not stand")
	}
	for c, want := range map[*chain]int{control: 5, old: 1, fresh: 31} {
		if run, err := top.store.Run(w.topic, c.id, 0, 1000, 1<<20); err != nil || len(run) != want {
			t.Errorf("%d envelopes of a chain are here, want %d, %v", len(run), want, err)
		}
	}
	if _, ok := (ids{top}).IDAt(old.id, 20); !ok {
		t.Error("ids are gone")
	}
	for object, want := range map[string]bool{string(page): true, string(shard): false} {
		if _, ok, _ := top.store.Object(sum(object)); ok != want {
			t.Errorf("object of %d bytes is here: %v", len(object), ok)
		}
	}
	if run, _ := r.topic(other.topic).store.Run(other.topic, elsewhere.id, 0, 1000, 1<<20); len(run) != 21 {
		t.Errorf("another topic lost envelopes: %d", len(run))
	}
}

// When a lease ends nothing is taken any more and everything is read on; 400
// days from its beginning the topic is forgotten, and a lease renewed in time
// keeps it for longer than that.
func TestLeaseEnds(t *testing.T) {
	var now clock
	kept, left := newWorld("kept"), newWorld("left")
	dir := t.TempDir()
	with := func(c *Config) { c.LeaseTime, c.Now = 30*day, now.now }
	r := startRelay(t, dir, with)
	m := newMember(t)
	token := Token(m.lease(t, r, kept).Token)
	if _, err := m.dial(t, r).Lease(kept.describe(t, time.Now().Add(900*day), 0), "", kept.prove); err != nil {
		t.Fatal(err)
	}
	m.lease(t, r, left)
	a, b := kept.chain(t, "a", "a").grow(t, 5), left.chain(t, "b", "b").grow(t, 5)
	fill(t, r, a, 0, 2)
	fill(t, r, b, 0, 2)
	for i := range 15 {
		now.advance(28 * day)
		if _, err := m.dial(t, r).Renew(kept.topic, token, kept.prove); err != nil {
			t.Fatal(err)
		}
		r.Sweep()
		if i == 1 { // 56 days: one lease ended at 30
			if got, refused := fill(t, r, b, 3, 5); got != 0 || refused != 3 {
				t.Errorf("a lease that ended took %d", got)
			}
			rep := newReplica(left)
			if res, err := m.sync(t.Context(), left, rep, r.ID()); err != nil || res.Received != 3 {
				t.Errorf("reading after the end: %+v, %v", res, err)
			}
		}
	}
	if r.topic(left.topic) != nil || r.topic(kept.topic) == nil || r.Topics() != 1 {
		t.Error("after 420 days: the wrong topics are here")
	}
	if got, _ := fill(t, r, a, 3, 5); got != 3 {
		t.Errorf("a lease that was renewed took %d", got)
	}
	_, err := m.dial(t, r).Receipt(left.topic, left.prove)
	is(t, "a topic that was forgotten", err, ErrNoLease)
	m.host.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r = startRelay(t, dir, with); r.Topics() != 1 || r.topic(kept.topic).set.Count() != 6 {
		t.Errorf("started again: %d topics", r.Topics())
	}
}
