package gossip

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

var (
	start  = time.Unix(1_800_000_000, 0)
	member = grant{issuer: 0x33, writer: 0x55, class: 2, notAfter: 1_800_086_400}
)

const (
	alice peer.ID = "alice"
	mal   peer.ID = "mal"
)

// court is a Judge with a topic and a clock.
type court struct {
	t       testing.TB
	judge   *Judge
	topic   envelope.TopicID
	replica *replica
	now     time.Time
}

func newCourt(t testing.TB, l Limits) *court {
	topic := topicOf(member.issuer)
	return &court{t: t, judge: NewJudge(l), topic: topic, replica: newReplica(topic), now: start}
}

func (c *court) ask(from peer.ID, frame []byte) Ruling {
	return c.judge.Judge(from, c.topic, c.replica, frame, c.now)
}

// expect asks and compares; deliver is how many frames are handed over.
func (c *court) expect(from peer.ID, frame []byte, v Verdict, r Reason, deliver int) Ruling {
	c.t.Helper()
	got := c.ask(from, frame)
	if got.Verdict != v || got.Reason != r || len(got.Deliver) != deliver {
		c.t.Errorf("%v, %v, %d delivered; want %v, %v, %d", got.Verdict, got.Reason, len(got.Deliver), v, r, deliver)
	}
	return got
}

// apply hands deliveries to the replica, as the node would.
func (c *court) apply(r Ruling) {
	for _, d := range r.Deliver {
		_ = c.replica.take(d.Frame) // hints are refused
	}
}

// Each case is one step of the order; the replica holds 0 to 4 of the chain.
func TestJudgeSteps(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 700)
	branch := c.fork(2).grow(t, 8, 'b')
	atHead := c.fork(4).grow(t, 2, 'b')
	unknown := newChain(t, member, 0x45).grow(t, 3)
	outsider := newChain(t, grant{0x66, 0x55, 2, member.notAfter}, 0x46)
	early := newChain(t, grant{0x33, 0x55, 2, uint64(start.Add(maxAhead).Unix()) + 1}, 0x47)
	latest := newChain(t, grant{0x33, 0x55, 2, uint64(start.Add(maxAhead).Unix())}, 0x48)
	ended := newChain(t, grant{0x33, 0x57, 2, uint64(start.Unix()) - 1}, 0x49)
	ending := newChain(t, grant{0x33, 0x57, 2, uint64(start.Unix())}, 0x4a)
	renamed := bytes.Clone(outsider.frame(t, 0, 0)) // another issuer's hello, said to be for our topic
	copy(renamed[2+envelope.CertificateSize+4:], c.topic[:])
	clear, sealed := c.add(t, envelope.Clear, 256), c.add(t, envelope.Sealed, 256)

	for _, s := range []struct {
		name    string
		frame   []byte
		verdict Verdict
		reason  Reason
		deliver int
	}{
		{"1 nothing", nil, Reject, Malformed, 0},
		{"1 one byte", []byte{7}, Reject, Malformed, 0},
		{"1 noise", bytes.Repeat([]byte{7}, 700), Reject, Malformed, 0},
		{"1 too long", make([]byte, envelope.MaxFrame+1), Reject, Malformed, 0},
		{"1 cut", c.frame(t, 5, 5)[:400], Reject, Malformed, 0},
		{"1 trailing byte", append(c.frame(t, 5, 5), 0), Reject, Malformed, 0},
		{"1 another topic's", outsider.frame(t, 0, 0), Reject, Malformed, 0},
		{"1 hello behind another certificate", recertified(t, unknown), Reject, Malformed, 0},
		{"1 re-linked", append(c.frame(t, 5, 6), branch.run[7].Bytes()...), Reject, Malformed, 0},
		{"1 clear, no chain", append([]byte{0, 0}, clear.Bytes()...), Ignore, Unsupported, 0},
		{"1 sealed, no chain", append([]byte{0, 0}, sealed.Bytes()...), Ignore, Unsupported, 0},
		{"3 held", c.frame(t, 3, 4), Ignore, Duplicate, 0},
		{"3 held hello", c.frame(t, 0, 0), Ignore, Duplicate, 0},
		{"5 not certified", unknown.frame(t, 1, 2), Ignore, Parked, 0},
		{"5 certified by another", renamed, Reject, BadCertificate, 0},
		{"5 certificate too far ahead", early.frame(t, 0, 0), Ignore, EarlyIssue, 0},
		{"5 certificate just not too far ahead", latest.frame(t, 0, 0), Accept, Fresh, 1},
		{"6 spoilt", spoiled(c.frame(t, 5, 5)), Reject, Forged, 0},
		{"6 spoilt run", spoiled(c.frame(t, 5, 9)), Reject, Forged, 0},
		{"6 spoilt hello", spoiled(unknown.frame(t, 0, 0)), Reject, Forged, 0},
		{"6 spoilt, below the head", spoiled(c.frame(t, 2, 3)), Reject, Forged, 0},
		{"6 spoilt, beyond the window", spoiled(c.frame(t, 600, 600)), Reject, Forged, 0},
		{"7 expired", ended.frame(t, 0, 0), Ignore, Expired, 0},
		{"7 about to expire", ending.frame(t, 0, 0), Accept, Fresh, 1},
		{"8 next", c.frame(t, 5, 5), Accept, Fresh, 1},
		{"8 next, a run", c.frame(t, 5, 12), Accept, Fresh, 1},
		{"8 next, partly held", c.frame(t, 2, 6), Accept, Fresh, 1},
		{"8 hello", unknown.frame(t, 0, 2), Accept, Fresh, 1},
		{"8 gap", c.frame(t, 6, 6), Accept, Ahead, 1},
		{"8 end of the window", c.frame(t, 260, 260), Accept, Ahead, 1},
		{"8 beyond the window", c.frame(t, 261, 261), Ignore, TooFar, 1},
		{"8 another at a held sequence", branch.frame(t, 3, 3), Ignore, Forked, 1},
		{"8 another at the head", branch.frame(t, 3, 4), Ignore, Forked, 1},
		{"8 across the head", branch.frame(t, 3, 8), Ignore, Forked, 1},
		{"8 after another at the head", branch.frame(t, 5, 8), Ignore, Forked, 1},
		{"8 successor of the head, twice made", atHead.frame(t, 5, 5), Accept, Fresh, 1},
	} {
		t.Run(s.name, func(t *testing.T) {
			court := newCourt(t, Limits{})
			court.replica.hold(t, c, 4)
			got := court.expect(alice, s.frame, s.verdict, s.reason, s.deliver)
			for _, d := range got.Deliver {
				if d.From != alice || d.Frame.Chain() == (envelope.ChainID{}) {
					t.Errorf("delivered %v from %q", d.Frame.Chain(), d.From)
				}
			}
			for r := range reasons {
				if n := court.judge.Counters.ByReason[r].Load(); (n == 1) != (r == s.reason) {
					t.Errorf("%d counted as %v", n, r)
				}
			}
		})
	}
}

// recertified is a chain's hello behind a good certificate that is not its own.
func recertified(t testing.TB, c *chain) []byte {
	g := member
	g.notAfter++
	cert := g.certify(t, c.id)
	b := bytes.Clone(c.frame(t, 0, 0))
	copy(b[2:], cert.Bytes())
	return b
}

func TestJudgeNotServed(t *testing.T) {
	c := newChain(t, member, 0x44)
	if got := NewJudge(Limits{}).Judge(alice, c.topic, nil, c.frame(t, 0, 0), start); got.Verdict != Ignore || got.Reason != NotServed {
		t.Errorf("%+v", got)
	}
}

// Every verdict but Reject may change; a rejected frame is rejected anywhere,
// at any time, whatever is held.
func TestJudgeRejectIsForEver(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 300)
	frames := [][]byte{spoiled(c.frame(t, 5, 5)), c.frame(t, 5, 5)[:300], spoiled(c.frame(t, 0, 3)), recertified(t, c)}
	for _, f := range frames {
		for _, held := range []int{-1, 4, 5, 300} {
			for _, now := range []time.Time{{}, start, start.AddDate(9, 0, 0)} {
				court := newCourt(t, Limits{})
				court.now = now
				if held >= 0 {
					court.replica.hold(t, c, held)
				}
				got := court.ask(alice, f)
				if got.Verdict == Accept || len(got.Deliver) > 0 {
					t.Errorf("holding %d, at %v: %v", held, now, got)
				}
			}
		}
	}
}

// G4: a broken copy first, then the real one.
func TestJudgeBrokenCopyFirst(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 5)
	court := newCourt(t, Limits{})
	court.replica.hold(t, c, 4)
	court.expect(mal, spoiled(c.frame(t, 5, 5)), Reject, Forged, 0)
	court.expect(alice, c.frame(t, 5, 5), Accept, Fresh, 1)
}

// G5: the real hello behind a corrupted certificate first, at every byte.
func TestJudgeCorruptedCertificateFirst(t *testing.T) {
	c := newChain(t, member, 0x44)
	court := newCourt(t, Limits{})
	for i := range envelope.CertificateSize {
		b := bytes.Clone(c.frame(t, 0, 0))
		b[2+i] ^= 1
		if got := court.ask(mal, b); got.Verdict != Reject {
			t.Errorf("byte %d: %v, %v", i, got.Verdict, got.Reason)
		}
	}
	court.expect(alice, c.frame(t, 0, 0), Accept, Fresh, 1)
}

// G8: two different signatures on one content are two envelopes at one
// sequence. Here the second is made authentic by what follows it.
func TestJudgeTwoSignatures(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 2)
	twin := c.fork(1)
	e := twin.add(t, envelope.Entry, 256)
	raw := bytes.Clone(e.Bytes())
	raw[len(raw)-64] ^= 1
	other, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	twin.run[2], twin.prev = other, other.ID()
	twin.grow(t, 1)
	court := newCourt(t, Limits{})
	court.replica.hold(t, c, 2)
	got := court.expect(alice, twin.frame(t, 2, 3), Ignore, Forked, 1)
	court.apply(got)
	court.expect(alice, twin.frame(t, 3, 3), Ignore, Forked, 0) // known by now
	court.expect(alice, c.grow(t, 1).frame(t, 3, 3), Ignore, Forked, 0)
	if court.replica.count() != 2 {
		t.Errorf("%d envelopes, want the 2 below the fork", court.replica.count())
	}
}

// G10: hellos of weak chain keys, properly certified and "signed".
func TestJudgeWeakKeys(t *testing.T) {
	for _, k := range weakKeys {
		newCourt(t, Limits{}).expect(mal, weakHello(t, member, k), Reject, BadCertificate, 0)
	}
}

// weakKeys are points of small order: the identity, of order 2, 4 and 8, and
// the identity in its second encoding.
var weakKeys = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// weakHello is the hello of a chain with such a key, in which all but the key is
// right: its writer links the chain, and the signature, R the identity and S 0,
// fits every message under the identity point.
func weakHello(t *testing.T, by grant, key string) []byte {
	t.Helper()
	k, err := hex.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	id := envelope.ChainID(k)
	cert := by.certify(t, id)
	hdr := envelope.Header{Type: envelope.Hello, Topic: topicOf(by.issuer), Chain: id, Prev: cert.ID()}
	sig := append([]byte{1}, make([]byte, 63)...)
	raw, err := envelope.Build(hdr, [24]byte{}, make([]byte, 272), func([]byte) []byte { return sig })
	if err != nil {
		t.Fatal(err)
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := envelope.Frame{Cert: &cert, Run: []envelope.Envelope{e}}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// G25: a flood of forgeries under W's chain costs W nothing, and soon its
// sender is not listened to.
func TestJudgeFloodSparesWriter(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 1100)
	court := newCourt(t, Limits{Classes: [4]float64{2: 100}})
	court.replica.hold(t, c, 0)
	rejected := 0
	for i := range 5000 {
		b := spoiled(c.frame(t, 1, 1))
		binary.BigEndian.PutUint64(b[len(b)-16:], uint64(i)) // each another frame
		if court.ask(mal, b).Verdict == Reject {
			rejected++
		}
	}
	if rejected > 2*10_000/rejectCost {
		t.Errorf("%d forgeries were verified before the neighbour was muted", rejected)
	}
	for i := 1; i <= 1000; i++ { // W's whole burst
		if got := court.ask(alice, c.frame(t, i, i)); got.Verdict != Accept {
			t.Fatalf("sequence %d: %v", i, got.Reason)
		}
	}
	court.expect(alice, c.frame(t, 1001, 1001), Ignore, OverQuota, 0)
}

func TestJudgeQuotaClasses(t *testing.T) {
	for class, perSecond := range []int{1, 10, 100, 200} {
		g := member
		g.class = uint16(class)
		c := newChain(t, g, byte(0x60+class)).grow(t, 11*perSecond+1)
		court := newCourt(t, Limits{Classes: [4]float64{1, 10, 100, 200}})
		seq := 0
		send := func(n int) (accepted int) {
			for range n {
				if court.ask(alice, c.frame(t, seq, seq)).Verdict == Accept {
					accepted++
					seq++
				}
			}
			return accepted
		}
		if got := send(10*perSecond + 1); got != 10*perSecond {
			t.Errorf("class %d: burst of %d, want %d", class, got, 10*perSecond)
		}
		court.now = court.now.Add(time.Second)
		if got := send(perSecond + 1); got != perSecond {
			t.Errorf("class %d: %d a second, want %d", class, got, perSecond)
		}
	}
}

// The quota is the writer key's, over all its chains; what is offered again in
// other frames is not paid again.
func TestJudgeQuotaIsTheWriters(t *testing.T) {
	g := member
	g.class = 0 // ten at once
	a, b := newChain(t, g, 0x44).grow(t, 20), newChain(t, g, 0x45).grow(t, 20)
	other := g
	other.writer = 0x56
	o := newChain(t, other, 0x46).grow(t, 20)
	court := newCourt(t, Limits{})
	court.expect(alice, a.frame(t, 0, 6), Accept, Fresh, 1)
	court.expect(alice, a.frame(t, 1, 5), Ignore, Duplicate, 0)
	court.expect(alice, a.frame(t, 2, 6), Ignore, Duplicate, 0)
	court.expect(alice, a.frame(t, 4, 8), Accept, Fresh, 1) // two are new
	court.expect(alice, b.frame(t, 0, 1), Ignore, OverQuota, 0)
	court.expect(alice, b.frame(t, 0, 0), Accept, Fresh, 1)
	court.expect(alice, o.frame(t, 0, 9), Accept, Fresh, 1)
	court.expect(alice, o.frame(t, 10, 20), Ignore, OverQuota, 0)
}

// A writer key that begins chain after chain is heard of by gossip now and
// then only; its chains that are known go on, others' writers begin theirs.
func TestJudgeManyChains(t *testing.T) {
	g := member
	g.class = 3
	other := g
	other.writer = 0x56
	court := newCourt(t, Limits{})
	known := newChain(t, g, 0x44).grow(t, 3)
	court.apply(court.expect(alice, known.frame(t, 0, 0), Accept, Fresh, 1))
	one := func(w grant, n int) *chain {
		k := ed25519.NewKeyFromSeed(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(n)))
		c := &chain{key: k, id: envelope.ChainID(public(k)), topic: court.topic}
		c.cert = w.certify(t, c.id)
		c.prev = c.cert.ID()
		c.add(t, envelope.Hello, 256)
		return c
	}
	for n := range ChainsAtOnce - 1 {
		court.expect(alice, one(g, n).frame(t, 0, 0), Accept, Fresh, 1)
	}
	court.expect(alice, one(g, 1000).frame(t, 0, 0), Ignore, ManyChains, 0)
	court.expect(alice, known.frame(t, 1, 2), Accept, Fresh, 1)
	court.expect(alice, one(other, 1001).frame(t, 0, 0), Accept, Fresh, 1)
	if court.judge.conduct.score(alice, court.now) != 0 {
		t.Error("the neighbour is blamed")
	}
	court.now = court.now.Add(time.Hour / ChainsPerHour)
	court.expect(alice, one(g, 1002).frame(t, 0, 0), Accept, Fresh, 1)
	court.expect(alice, one(g, 1003).frame(t, 0, 0), Ignore, ManyChains, 0)
	held := one(g, 1004) // reconciliation brought it
	court.replica.hold(t, held.grow(t, 2), 0)
	court.expect(alice, held.frame(t, 1, 2), Accept, Fresh, 1)
}

func TestJudgeNeighbourBuckets(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 60)
	court := newCourt(t, Limits{Frames: 10, Bytes: 1 << 20})
	for i := range 20 {
		court.expect(alice, c.frame(t, i, i), Accept, Fresh, 1)
	}
	court.expect(alice, c.frame(t, 20, 20), Ignore, Throttled, 0)
	court.expect(mal, c.frame(t, 20, 20), Accept, Fresh, 1) // another's bucket
	court.now = court.now.Add(time.Second / 10)
	court.expect(alice, c.frame(t, 21, 21), Accept, Fresh, 1)
	court.expect(alice, c.frame(t, 22, 22), Ignore, Throttled, 0)

	// Bytes count per topic.
	court = newCourt(t, Limits{Bytes: 1000})
	court.expect(alice, c.frame(t, 0, 0), Accept, Fresh, 1)     // 677 bytes
	court.expect(alice, c.frame(t, 1, 2), Accept, Fresh, 1)     // 946
	court.expect(alice, c.frame(t, 3, 3), Ignore, Throttled, 0) // 474
	g := member
	g.issuer = 0x34
	elsewhere := newChain(t, g, 0x44)
	if got := court.judge.Judge(alice, elsewhere.topic, newReplica(elsewhere.topic), elsewhere.frame(t, 0, 0), court.now); got.Verdict != Accept {
		t.Errorf("another topic: %v", got.Reason)
	}
}

// Frames that come before the certificate of their chain wait for it.
func TestJudgeParking(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 9)
	court := newCourt(t, Limits{})
	good := court.expect(alice, c.frame(t, 4, 6), Ignore, Parked, 0)
	court.expect(mal, c.frame(t, 1, 3), Ignore, Parked, 0)
	again := court.expect("bob", c.frame(t, 4, 6), Ignore, Parked, 0)
	bad := court.expect(mal, spoiled(c.frame(t, 7, 7)), Ignore, Parked, 0)
	select {
	case v := <-good.Settled:
		t.Errorf("settled as %v", v)
	default:
	}
	court.now = court.now.Add(parkTime - 1)
	got := court.expect(alice, c.frame(t, 0, 0), Accept, Fresh, 3)
	var firsts []uint64
	for _, d := range got.Deliver {
		firsts = append(firsts, d.Frame.Run[0].Seq())
	}
	if !slices.Equal(firsts, []uint64{0, 1, 4}) || got.Deliver[1].From != mal || got.Deliver[2].From != alice {
		t.Errorf("delivered %v", firsts)
	}
	if a, b, c := <-good.Settled, <-again.Settled, <-bad.Settled; a != Accept || b != Ignore || c != Reject {
		t.Errorf("settled as %v, %v and %v", a, b, c)
	}
	court.apply(got)
	if court.replica.count() != 7 {
		t.Errorf("%d envelopes, want 7", court.replica.count())
	}
	court.expect(alice, c.frame(t, 7, 9), Accept, Fresh, 1)
	if p := &court.judge.parking; p.bytes != 0 || p.line.Len()+len(p.chains)+len(p.places) != 0 {
		t.Errorf("still parked: %+v", p)
	}
}

func TestJudgeParkingExpires(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 3)
	court := newCourt(t, Limits{})
	old := court.expect(alice, c.frame(t, 1, 1), Ignore, Parked, 0)
	court.now = court.now.Add(parkTime / 2)
	court.expect(alice, c.frame(t, 2, 2), Ignore, Parked, 0)
	court.now = court.now.Add(parkTime / 2)
	court.expect(alice, c.frame(t, 0, 0), Accept, Fresh, 2)
	if n := court.judge.Counters.ParkExpired.Load(); n != 1 {
		t.Errorf("%d expired, want 1", n)
	}
	if v, ok := <-old.Settled; ok || v != Ignore {
		t.Errorf("settled as %v", v)
	}
}

func TestJudgeParkingBounds(t *testing.T) {
	court := newCourt(t, Limits{})
	flood := newChain(t, member, 0x44).grow(t, 100)
	for i := 1; i <= 100; i++ {
		r := Parked
		if i > maxParked {
			r = Unparked
		}
		court.expect(mal, flood.frame(t, i, i), Ignore, r, 0)
	}
	court.expect(alice, flood.frame(t, 1, 1), Ignore, Parked, 0) // another's place

	big := newChain(t, member, 0x45)
	for range 6 {
		big.add(t, envelope.Entry, envelope.MaxPadded)
	}
	court = newCourt(t, Limits{})
	for i := 1; i <= 6; i++ {
		r := Parked
		if i > 4 { // 4 × 63,706 bytes
			r = Unparked
		}
		court.expect(mal, big.frame(t, i, i), Ignore, r, 0)
	}

	court = newCourt(t, Limits{})
	for i := range 200 {
		for j := 1; j <= 4; j++ {
			court.ask(peer.ID(fmt.Sprint(i)), big.frame(t, j, j))
		}
	}
	if b := court.judge.parking.bytes; b > maxParkedAll || b < maxParkedAll-envelope.MaxFrame {
		t.Errorf("%d bytes parked", b)
	}
	court.judge.Forget(court.topic)
	if p := &court.judge.parking; p.bytes != 0 || p.line.Len()+len(p.chains)+len(p.places) != 0 {
		t.Errorf("still parked after the topic was left")
	}
}

// What was accepted and has not reached the replica yet is known all the same.
func TestJudgeRemembers(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 600)
	branch := c.fork(4).grow(t, 3, 'b')
	court := newCourt(t, Limits{})
	court.expect(alice, c.frame(t, 0, 0), Accept, Fresh, 1)
	court.expect(alice, c.frame(t, 1, 5), Accept, Fresh, 1)
	court.expect(mal, c.frame(t, 4, 5), Ignore, Duplicate, 0)
	court.expect(mal, branch.frame(t, 5, 5), Ignore, Forked, 1)
	court.expect(mal, branch.frame(t, 6, 6), Ignore, Forked, 1)
	for i := 6; i < 600; i++ { // far more than a window ahead of the replica
		if got := court.ask(alice, c.frame(t, i, i)); got.Reason != Fresh {
			t.Fatalf("sequence %d: %v", i, got.Reason)
		}
	}
	court.judge.Forget(court.topic)
	court.expect(alice, c.frame(t, 600, 600), Ignore, Parked, 0)
}

// Frames of a chain are judged side by side; the later one may be done first.
func TestJudgeRemembersTheHighest(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 9)
	court := newCourt(t, Limits{})
	v := court.judge.view(c.topic, court.replica, c.id)
	court.judge.remember(v, &c.cert, c.run[7].Head())
	court.judge.remember(v, &c.cert, c.run[5].Head())
	court.expect(alice, c.frame(t, 6, 7), Ignore, Duplicate, 0)
	court.expect(alice, c.frame(t, 8, 8), Accept, Fresh, 1)
}

// G26: every tenth is lost; the others are passed on, within the window.
func TestJudgeGapIsPassedOn(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 400)
	court := newCourt(t, Limits{})
	court.replica.hold(t, c, 0)
	for i := 1; i <= 256; i++ {
		if i%10 == 0 {
			continue
		}
		if got := court.ask(alice, c.frame(t, i, i)); got.Verdict != Accept || len(got.Deliver) != 1 {
			t.Fatalf("sequence %d: %v", i, got.Reason)
		} else {
			court.apply(got)
		}
	}
	for i := 10; i <= 250; i += 10 { // reconciliation brings them
		if err := court.replica.take(envelope.Frame{Run: c.run[i : i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	if court.replica.count() != 257 {
		t.Errorf("%d envelopes, want 257", court.replica.count())
	}
	court.expect(alice, c.frame(t, 257, 257), Accept, Fresh, 1)
}

func TestCounters(t *testing.T) {
	court := newCourt(t, Limits{})
	court.ask(mal, nil)
	n, sum := 0, uint64(0)
	for name, v := range court.judge.Counters.All() {
		if n++; name == "" {
			t.Error("a counter without a name")
		}
		sum += v
	}
	if n != int(reasons)+10 || sum != 1 {
		t.Errorf("%d counters, sum %d", n, sum)
	}
	for range court.judge.Counters.All() {
		break
	}
}
