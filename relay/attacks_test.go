package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space/envelope"
)

func sum(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// onDisk makes a relay's store one on a disk that tests break and copy.
func onDisk(d *storetest.Disk) func(*Config) {
	return func(c *Config) {
		c.openStore = func(_ string, key [32]byte) (*store.Store, error) {
			return store.OpenOn(d, key, store.Options{RetryAfter: -1})
		}
	}
}

// R2: a relay that lost the end of a chain, or hides it, signs less than it
// signed before, and less than members hold.
func TestR2WithheldTail(t *testing.T) {
	w := newWorld("one")
	honest, liar := startRelay(t, t.TempDir()), startRelay(t, t.TempDir())
	m := newMember(t)
	c := w.chain(t, "a", "a").grow(t, 20)
	for _, r := range []*Relay{honest, liar} {
		m.lease(t, r, w)
		fill(t, r, c, 0, 20)
	}
	before := m.receipt(t, liar, w)
	top := liar.topic(w.topic)
	top.mu.Lock() // from now on it shows a topic without the last ten
	top.set = envelope.NewTopic(w.topic)
	adv, err := top.set.Check(&c.cert, c.run[:11])
	if err != nil {
		t.Fatal(err)
	}
	top.set.Commit(adv)
	top.mu.Unlock()
	after := m.receipt(t, liar, w)
	if after.Count >= before.Count || after.Time < before.Time || m.receipt(t, honest, w).Count < before.Count {
		t.Errorf("receipts of %d and then %d envelopes", before.Count, after.Count)
	}
	rep := newReplica(w)
	if res, err := m.sync(t.Context(), w, rep, liar.ID()); err != nil || res.Received != 11 {
		t.Fatalf("%+v %v", res, err)
	}
	if res, err := m.sync(t.Context(), w, rep, honest.ID()); err != nil || !res.Equal || res.Received != 10 {
		t.Errorf("the second relay: %+v, %v", res, err)
	}
}

// R4: reordered, doubled and bent in any byte, what a relay passes on is
// refused or changes nothing.
func TestR4BentEnvelopes(t *testing.T) {
	w := newWorld("one")
	r := startRelay(t, t.TempDir())
	thinClient := newThin(t, r, w)
	thinClient.json(t, "POST", "lease", thinClient.leaseBody(t, ""))
	c := w.chain(t, "a", "a").grow(t, 4)
	fill(t, r, c, 0, 1)
	top := r.topic(w.topic)
	_, digest := top.summary()
	good, err := c.frame(t, 2, 3).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	judge := gossip.NewJudge(gossip.Limits{Frames: 1e9, Bytes: 1e12})
	for i := range good {
		bent := bytes.Clone(good)
		bent[i] ^= 0x01
		if v := judge.Judge("peer", w.topic, top, bent, time.Now()); v.Verdict == gossip.Accept {
			t.Fatalf("byte %d: accepted", i)
		}
		if i%7 == 0 { // each way in has the same rules; HTTP is slower
			body := append(binary.BigEndian.AppendUint32(nil, uint32(len(bent))), bent...)
			thinClient.do(t, "POST", "putEnvelopes", body, thinClient.ticket())
		}
	}
	hello := c.frame(t, 0, 0)
	for _, f := range []envelope.Frame{hello, c.frame(t, 1, 1), c.frame(t, 4, 4), hello} { // doubled, out of order
		if _, err := thinClient.put(t, f); err != nil {
			t.Fatal(err)
		}
	}
	if _, now := top.summary(); now != digest {
		t.Error("something of it counts")
	}
	if got, err := thinClient.put(t, c.frame(t, 2, 3)); err != nil || got != 3 { // and what waited behind it
		t.Errorf("the envelopes as they were written: %d accepted, %v", got, err)
	}
}

// put sends one frame and says how many envelopes were new.
func (c *thin) put(t testing.TB, f envelope.Frame) (int, error) {
	t.Helper()
	status, _, b := c.do(t, "POST", "putEnvelopes", packed(t, f), c.ticket())
	if status != 200 {
		return 0, errors.New(string(b))
	}
	var n int
	if i := bytes.Index(b, []byte(`"accepted":`)); i >= 0 {
		n = int(b[i+len(`"accepted":`)] - '0')
	}
	return n, nil
}

// R5: the whole topic of one epoch, sent to that of the next, is rejected.
func TestR5ReplayIntoTheNextEpoch(t *testing.T) {
	one, next := newWorld("epoch 1"), newWorld("epoch 2")
	r := startRelay(t, t.TempDir())
	m := newMember(t)
	m.lease(t, r, one)
	m.lease(t, r, next)
	c := one.chain(t, "a", "a").grow(t, 20)
	judge := gossip.NewJudge(gossip.Limits{})
	for i := range c.run {
		b, err := c.frame(t, i, i).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if v := judge.Judge("peer", next.topic, r.topic(next.topic), b, time.Now()); v.Verdict != gossip.Reject {
			t.Fatalf("envelope %d: %v", i, v.Verdict)
		}
	}
	if _, err := r.topic(next.topic).deliver(t.Context(), delivery{cert: &c.cert, run: c.run}); err == nil {
		t.Error("taken as a run")
	}
	if n, _ := r.topic(next.topic).summary(); n != 0 {
		t.Errorf("%d envelopes of another epoch", n)
	}
}

// R7: a relay that lost everything but its key is filled again by its clients;
// chains go on where they were.
func TestR7WipedRelay(t *testing.T) {
	w := newWorld("one")
	dir := t.TempDir()
	r := startRelay(t, dir)
	m, rep := newMember(t), newReplica(w)
	m.lease(t, r, w)
	c := w.chain(t, "a", "a").grow(t, 50)
	rep.hold(t, c)
	if res, err := m.sync(t.Context(), w, rep, r.ID()); err != nil || !res.Equal {
		t.Fatalf("%+v %v", res, err)
	}
	before := m.receipt(t, r, w)
	m.host.Network().ClosePeer(r.ID())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, storeDir)); err != nil {
		t.Fatal(err)
	}
	r = startRelay(t, dir)
	_, err := m.dial(t, r).Receipt(w.topic, w.prove)
	is(t, "a topic that was lost", err, ErrNoLease)
	m.lease(t, r, w)
	if lost := m.receipt(t, r, w); lost.Count >= before.Count {
		t.Error("the loss does not show")
	}
	if res, err := m.sync(t.Context(), w, rep, r.ID()); err != nil || !res.Equal {
		t.Fatalf("%+v %v", res, err)
	}
	if got := m.receipt(t, r, w); got.Digest != before.Digest || got.Count != before.Count {
		t.Error("not the same set")
	}
	c.grow(t, 5)
	if got, _ := fill(t, r, c, 51, 55); got != 5 {
		t.Errorf("the chain goes on by %d", got)
	}
}

// R8: whatever a receipt or the answer to a put says is on disk, at every
// moment the power could fail.
func TestR8ReceiptsAreDurable(t *testing.T) {
	disk := storetest.NewDisk()
	dir := t.TempDir()
	r := startRelay(t, dir, onDisk(disk))
	w := newWorld("one")
	m := newMember(t)
	m.lease(t, r, w)
	client := m.dial(t, r)
	c := w.chain(t, "a", "a").grow(t, 60)
	object := []byte("a sealed object")
	type word struct {
		receipt Receipt
		objects int
		disk    *storetest.Disk
	}
	var said []word
	for i := range c.run {
		fill(t, r, c, i, i)
		if i%6 != 0 {
			continue
		}
		rec, err := client.Receipt(w.topic, w.prove)
		if err != nil || rec.Count != uint64(i+1) {
			t.Fatalf("receipt %+v, %v", rec, err)
		}
		if i == 30 {
			if err := client.Put(w.topic, Page, object, w.prove); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		if i >= 30 {
			n = 1
		}
		said = append(said, word{rec, n, disk.Clone(func(int) int { return 0 })}) // nothing unsynced survives
	}
	for _, s := range said {
		after := startRelay(t, dir, onDisk(s.disk))
		top := after.topic(w.topic)
		if top == nil {
			t.Fatal("the lease was not durable")
		}
		if count, digest := top.summary(); count != s.receipt.Count || digest != s.receipt.Digest {
			t.Errorf("receipt of %d, %d after the crash", s.receipt.Count, count)
		}
		if _, ok, err := top.store.Object(sum(string(object))); ok != (s.objects == 1) || err != nil {
			t.Errorf("object here: %v, %v", ok, err)
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// On a full disk a relay takes nothing and says so, on every way in; it reads
// on, signs nothing new, and takes up again by itself.
func TestFullDisk(t *testing.T) {
	disk := storetest.NewDisk()
	r := startRelay(t, t.TempDir(), onDisk(disk))
	w := newWorld("one")
	m := newMember(t)
	m.lease(t, r, w)
	client, web := m.dial(t, r), newThin(t, r, w)
	c := w.chain(t, "a", "a").grow(t, 20)
	fill(t, r, c, 0, 5)
	before := m.receipt(t, r, w)
	disk.BreakAfter(0, syscall.ENOSPC)
	for range 3 {
		f := c.frame(t, 6, 6)
		_, err := r.topic(w.topic).deliver(t.Context(), delivery{run: f.Run})
		is(t, "a run", err, ErrNoRoom)
	}
	is(t, "an object", client.Put(w.topic, Page, []byte("x"), w.prove), ErrNoRoom)
	_, err := client.Lease(newWorld("two").describe(t, time.Now().Add(10*day), 0), "", newWorld("two").prove)
	is(t, "a lease", err, ErrNoRoom)
	status, _, b := web.do(t, "POST", "putEnvelopes", packed(t, c.frame(t, 6, 6)), web.ticket())
	if status != 507 || !bytes.Contains(b, []byte("NotEnoughResources")) {
		t.Errorf("HTTP: %d %s", status, b)
	}
	b, err = c.frame(t, 6, 6).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := gossip.NewJudge(gossip.Limits{}).Judge("peer", w.topic, r.topic(w.topic), b, time.Now()); v.Verdict != gossip.Ignore {
		t.Errorf("gossip: %v", v.Verdict)
	}
	rep := newReplica(w)
	if res, err := m.sync(t.Context(), w, rep, r.ID()); err != nil || res.Received != 6 {
		t.Errorf("reading: %+v, %v", res, err)
	}
	disk.Heal()
	eventually(t, "writing goes on", func() bool {
		f := c.frame(t, 6, 6)
		_, err := r.topic(w.topic).deliver(t.Context(), delivery{run: f.Run})
		return err == nil || errors.Is(err, envelope.ErrDuplicate)
	})
	fill(t, r, c, 7, 20)
	after := m.receipt(t, r, w)
	rep = newReplica(w)
	rep.hold(t, c)
	if after.Count != 21 || after.Digest != rep.digest() || after.Time < before.Time {
		t.Errorf("after the disk was full: %d envelopes", after.Count)
	}
}

// R10: two relays that pool what they hold of two epochs find no field in
// common. What is left is traffic.
func TestR10NothingLinksEpochs(t *testing.T) {
	one, next := newWorld("epoch 1"), newWorld("epoch 2")
	a, b := startRelay(t, t.TempDir()), startRelay(t, t.TempDir())
	m := newMember(t)
	seen := map[string]bool{}
	for i, side := range []struct {
		r *Relay
		w *world
	}{{a, one}, {b, next}} {
		l := m.lease(t, side.r, side.w)
		// The same device writes in both: keys of the writer and of the chain are
		// new for each epoch, as seal makes them.
		c := side.w.chain(t, string(rune('a'+i)), string(rune('a'+i))).grow(t, 20)
		fill(t, side.r, c, 0, 20)
		got, _, err := side.r.topic(side.w.topic).pieces(0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		held := append(side.r.topic(side.w.topic).described().Bytes()[:65], l.Token...)
		for _, p := range got {
			held = append(held, fields(t, p.frame)...)
		}
		for j := 0; j+8 <= len(held); j++ {
			window := string(held[j : j+8])
			if i == 1 && seen[window] {
				t.Fatalf("the relays share %x", window)
			}
			if i == 0 {
				seen[window] = true
			}
		}
	}
}

// fields are the bytes of a frame but for numbers: keys, hashes, nonces,
// ciphertext and signatures.
func fields(t *testing.T, frame []byte) (out []byte) {
	t.Helper()
	f, err := envelope.ParseFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	if f.Cert != nil {
		b := f.Cert.Bytes()
		out = append(append(out, b[1:65]...), b[75:]...) // without class and end
	}
	for _, e := range f.Run {
		b := e.Bytes()
		out = append(append(out, b[4:68]...), b[76:108]...)
		out = append(out, b[136:]...) // the tests' nonces are all zero
	}
	return out
}

// Whoever has no fetch key learns nothing, and not even whether a topic is here.
func TestStrangers(t *testing.T) {
	w, absent := newWorld("one"), newWorld("absent")
	r := startRelay(t, t.TempDir())
	m := newMember(t)
	m.lease(t, r, w)
	fill(t, r, w.chain(t, "a", "a").grow(t, 3), 0, 3)
	thief := &world{issuer: w.issuer, fetch: keyOf("not it"), topic: w.topic}
	for what, x := range map[string]*world{"wrong key": thief, "unknown topic": absent} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		rep := newReplica(x)
		res, err := m.sync(ctx, x, rep, r.ID())
		cancel()
		if err == nil || res.Received > 0 || rep.set.Count() > 0 {
			t.Errorf("%s: %+v, %v", what, res, err)
		}
		_, err = m.dial(t, r).Receipt(x.topic, x.prove)
		is(t, what, err, ErrNoLease)
	}
}
