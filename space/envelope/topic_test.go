package envelope

import (
	"errors"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
)

// accept checks and commits a run that must enter, and returns what entered.
func accept(t testing.TB, topic *Topic, cert *Certificate, run []Envelope) []Envelope {
	t.Helper()
	adv, err := topic.Check(cert, run)
	if err != nil {
		t.Fatalf("run from %d to %d: %v", run[0].Seq(), run[len(run)-1].Seq(), err)
	}
	topic.Commit(adv)
	return adv.New
}

func refuse(t testing.TB, topic *Topic, cert *Certificate, run []Envelope, want error) {
	t.Helper()
	before, count := topic.Digest(), topic.Count()
	adv, err := topic.Check(cert, run)
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
	if !adv.IsZero() {
		t.Errorf("a refused run came with an advance of %d envelopes", len(adv.New))
	}
	if topic.Digest() != before || topic.Count() != count {
		t.Error("a refused run changed the digest")
	}
}

func refuseGap(t testing.TB, topic *Topic, run []Envelope, want ErrGap) {
	t.Helper()
	var gap ErrGap
	if _, err := topic.Check(nil, run); !errors.As(err, &gap) || gap != want {
		t.Errorf("%v (%+v), want %+v", err, gap, want)
	}
}

func TestTopicInOrder(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 9)
	topic := NewTopic(c.top)
	accept(t, topic, &c.cert, c.run[:3])
	if got := accept(t, topic, nil, c.run[1:6]); len(got) != 3 || got[0].Seq() != 3 {
		t.Errorf("%d entered, want the three that are new", len(got))
	}
	refuse(t, topic, nil, c.run[1:6], ErrDuplicate)
	refuse(t, topic, nil, c.run[1:3], ErrDuplicate)
	refuse(t, topic, &c.cert, c.run[:2], ErrDuplicate)
	accept(t, topic, &c.cert, c.run)
	got, ok := topic.Chain(c.id)
	if !ok || got.Length != 10 || got.Head != c.run[9].Head() || got.Forked || got.Cert.ID() != c.cert.ID() {
		t.Errorf("chain is %+v", got)
	}
	if topic.Count() != 10 || topic.Digest() != naive(idsOf(c.run)) {
		t.Error("count or digest is not that of the set")
	}
}

func TestTopicRefuses(t *testing.T) {
	iss := newIssuer(0x33)
	c := iss.chain(t, 0x55, 0x44).grow(t, 9)
	branch := c.fork(2).grow(t, 3, 'b')
	strange := newIssuer(0x34).chain(t, 0x55, 0x45).grow(t, 1)
	selfMade := newIssuer(0x34).certify(t, key(0x55), c.id, 2, 1)
	eph := c.build(t, Header{Type: Clear, Topic: c.top, Chain: c.id, Seq: 5}, 256, nil)

	topic := NewTopic(c.top)
	refuse(t, topic, nil, nil, space.ErrMalformed)
	refuse(t, topic, nil, c.run[:1], ErrUncertified)
	refuse(t, topic, &selfMade, c.run[:1], space.ErrForged)
	refuse(t, topic, &strange.cert, strange.run, space.ErrMalformed)
	refuse(t, topic, &c.cert, []Envelope{spoil(t, c.run[0])}, space.ErrForged)
	accept(t, topic, &c.cert, c.run[:5])
	refuse(t, topic, nil, []Envelope{eph}, space.ErrMalformed)
	refuse(t, topic, &c.cert, c.run[5:], space.ErrMalformed)
	refuse(t, topic, nil, []Envelope{spoil(t, c.run[5])}, space.ErrForged)
	refuse(t, topic, nil, []Envelope{c.run[5], spoil(t, c.run[6])}, space.ErrForged)
	refuse(t, topic, nil, []Envelope{c.run[5], c.run[7]}, space.ErrMalformed)
	refuse(t, topic, nil, []Envelope{spoil(t, c.run[9])}, space.ErrForged)
	refuse(t, topic, nil, []Envelope{c.run[3], c.run[4], branch.run[5]}, space.ErrForged)
	accept(t, topic, nil, c.run[5:])
}

func TestTopicGap(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 300)
	topic := NewTopic(c.top)
	accept(t, topic, &c.cert, c.run[:5])
	refuseGap(t, topic, c.run[8:10], ErrGap{Have: 5, Want: 8, Kept: true})
	refuseGap(t, topic, c.run[9:10], ErrGap{Have: 5, Want: 9, Kept: true})
	refuseGap(t, topic, c.run[10:14], ErrGap{Have: 5, Want: 10, Kept: true})
	refuseGap(t, topic, c.run[261:], ErrGap{Have: 5, Want: 261})
	refuseGap(t, topic, c.run[260:261], ErrGap{Have: 5, Want: 260, Kept: true})
	mine := append(slices.Clone(c.run[5:8]), Envelope{}) // the caller's own array
	if got := accept(t, topic, nil, mine[:3]); !mine[3].IsZero() || len(got) != 9 || got[8].Seq() != 13 {
		t.Errorf("%d entered, want 9", len(got))
	}
	if got := accept(t, topic, nil, c.run[14:260]); got[len(got)-1].Seq() != 260 {
		t.Errorf("ends at %d, want 260", got[len(got)-1].Seq())
	}
	if len(topic.pending.chains) != 0 || len(topic.pending.writers) != 0 {
		t.Errorf("still pending: %v", topic.pending.writers)
	}
}

// A committed prefix always ends in a good signature, even where runs that
// overlap waited: it can be passed on as it is.
func TestTopicEndsCovered(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 2)
	c.addSpoiled(t)
	c.addSpoiled(t)
	c.grow(t, 2)
	topic := NewTopic(c.top)
	accept(t, topic, &c.cert, c.run[:1])
	refuse(t, topic, nil, c.run[1:4], space.ErrForged)
	refuseGap(t, topic, c.run[3:7], ErrGap{Have: 1, Want: 3, Kept: true})
	accept(t, topic, nil, c.run[1:3])
	if got, _ := topic.Chain(c.id); got.Head.Seq != 6 {
		t.Errorf("head is %d, want 6", got.Head.Seq)
	}
}

func TestTopicHelloLast(t *testing.T) {
	iss := newIssuer(0x33)
	c := iss.chain(t, 0x55, 0x44).grow(t, 6)
	topic := NewTopic(c.top)
	refuse(t, topic, nil, c.run[4:], ErrUncertified)
	refuse(t, topic, nil, c.run[1:4], ErrUncertified)
	accept(t, topic, &c.cert, c.run[:1])
	if topic.Digest() != naive(idsOf(c.run)) {
		t.Error("what waited for the certificate did not enter")
	}

	// A flood of unknown chains displaces the oldest and no more.
	for i := range MaxUnknown {
		refuse(t, topic, nil, iss.chain(t, 0x55, byte(0x60+i)).grow(t, 1).run[1:], ErrUncertified)
	}
	if len(topic.pending.chains) != MaxUnknown || len(topic.pending.unknown) != MaxUnknown {
		t.Errorf("%d chains wait", len(topic.pending.chains))
	}
	far := iss.chain(t, 0x55, 0x46).grow(t, Window+1)
	refuse(t, topic, nil, far.run[Window+1:], ErrUncertified)
	if topic.pending.chains[far.id] != nil {
		t.Error("a run beyond the window waits")
	}
	late := iss.chain(t, 0x55, 0x45).grow(t, 1)
	refuse(t, topic, nil, late.run[1:], ErrUncertified)
	first := iss.chain(t, 0x55, 0x60).grow(t, 1)
	if got := accept(t, topic, &first.cert, first.run[:1]); len(got) != 1 {
		t.Error("the oldest was not displaced")
	}
	if got := accept(t, topic, &late.cert, late.run[:1]); len(got) != 2 {
		t.Error("the newest was displaced")
	}
}

func TestTopicPendingCaps(t *testing.T) {
	iss := newIssuer(0x33)
	topic := NewTopic(iss.topic)
	total := 0
	for i := range 20 {
		c := iss.chain(t, 0x55, byte(0x60+i))
		for range 30 {
			c.add(t, Entry, MaxPadded)
		}
		accept(t, topic, &c.cert, c.run[:1])
		var kept int
		for _, e := range c.run[2:] {
			var gap ErrGap
			if _, err := topic.Check(nil, []Envelope{e}); !errors.As(err, &gap) {
				t.Fatal(err)
			}
			if gap.Kept {
				kept += e.Len()
			}
		}
		if kept > MaxPendingChain {
			t.Errorf("%d bytes kept for one chain", kept)
		}
		total += kept
	}
	if total > MaxPendingWriter || total < MaxPendingWriter-MaxSize {
		t.Errorf("%d bytes kept for one writer", total)
	}
	if got := topic.pending.writers[[32]byte(public(key(0x55)))]; got != total {
		t.Errorf("%d bytes accounted, %d kept", got, total)
	}
}

func TestTopicStaged(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 4)
	topic := NewTopic(c.top)
	adv, err := topic.Check(&c.cert, c.run[:2])
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := topic.Chain(c.id); ok || topic.Count() != 0 || adv.Count != 2 {
		t.Error("Check alone made it so")
	}
	again, err := topic.Check(&c.cert, c.run[:3]) // the store failed: once more
	if err != nil {
		t.Fatal(err)
	}
	topic.Commit(again)
	if topic.Count() != 3 {
		t.Errorf("%d envelopes, want 3", topic.Count())
	}
	for _, stale := range []Advance{adv, again, {}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a stale advance was committed")
				}
			}()
			topic.Commit(stale)
		}()
	}
}

func TestTopicRestore(t *testing.T) {
	iss := newIssuer(0x33)
	a, b := iss.chain(t, 0x55, 0x44).grow(t, 4), iss.chain(t, 0x56, 0x45).grow(t, 2)
	topic := NewTopic(iss.topic)
	accept(t, topic, &a.cert, a.run[:3])
	accept(t, topic, &b.cert, b.run)
	chains := slices.Collect(topic.Chains())
	if len(chains) != 2 || slices.Compare(chains[0].ID[:], chains[1].ID[:]) >= 0 {
		t.Fatalf("chains are not ascending: %v", chains)
	}
	back, err := RestoreTopic(iss.topic, chains, topic.Count(), topic.State())
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest() != topic.Digest() || back.Count() != 6 || !slices.EqualFunc(slices.Collect(back.Chains()), chains,
		func(x, y Chain) bool { return x.ID == y.ID && x.Head == y.Head }) {
		t.Error("restored differently")
	}
	accept(t, back, nil, a.run[3:])
	if back.Digest() != naive(idsOf(a.run, b.run)) {
		t.Error("digest differs after going on")
	}
	for _, bad := range [][]Chain{chains[:1], append(slices.Clone(chains), chains[0]), {}, {{ID: a.id, Length: 6}}} {
		if _, err := RestoreTopic(iss.topic, bad, topic.Count(), topic.State()); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("restored from %d chains: %v", len(bad), err)
		}
	}
}

// TestCheckNext: runs checked before those they follow are committed make what
// they make one after the other; what is no plain continuation is left to Check.
func TestCheckNext(t *testing.T) {
	iss := newIssuer(0x33)
	c := iss.chain(t, 0x55, 0x44).grow(t, 12)
	other := iss.chain(t, 0x56, 0x45).grow(t, 4)
	topic := NewTopic(c.top)
	if _, ok := topic.CheckNext(nil, c.run[:2], nil); ok {
		t.Error("the begin of a chain was taken without its certificate")
	}
	accept(t, topic, &c.cert, c.run[:2])
	first, ok := topic.CheckNext(nil, c.run[2:5], SumRun(c.run[2:5], nil))
	if !ok || len(first.New) != 3 {
		t.Fatal("what goes on was not taken")
	}
	second, ok := topic.CheckNext(&first, c.run[5:9], nil)
	if !ok || topic.Count() != 2 {
		t.Fatal("what goes on behind an advance was not taken")
	}
	bad := slices.Clone(c.run[5:9])
	bad[3].raw = slices.Clone(bad[3].raw)
	bad[3].raw[len(bad[3].raw)-1] ^= 1
	bad[3].verified = false
	for what, run := range map[string][]Envelope{
		"nothing": nil, "a gap": c.run[6:9], "what is held": c.run[4:9], "a bad signature": bad, "another chain": other.run[:2],
		"another branch": c.fork(3).grow(t, 2, 1).run[5:],
		"a wrong number": {c.build(t, Header{Type: Entry, Topic: c.top, Chain: c.id, Seq: 6, Prev: c.run[4].ID()}, 256, nil)},
		"another chain that links here": {
			other.build(t, Header{Type: Entry, Topic: c.top, Chain: other.id, Seq: 5, Prev: c.run[4].ID()}, 256, nil),
		},
	} {
		if _, ok := topic.CheckNext(&first, run, nil); ok {
			t.Errorf("%s was taken", what)
		}
	}
	for what, change := range map[string]func(*Advance){
		"cuts": func(a *Advance) { a.Cut = true }, "leaves runs": func(a *Advance) { a.Left = [][]Envelope{other.run[:1]} },
		"marks a fork": func(a *Advance) { a.Chain.Forked = true },
	} {
		prev := first
		change(&prev)
		if _, ok := topic.CheckNext(&prev, c.run[5:9], nil); ok {
			t.Errorf("taken behind an advance that %s", what)
		}
	}
	if _, ok := topic.CheckNext(&second, c.run[9:11], nil); ok {
		t.Error("taken behind an advance that is not the next")
	}
	topic.Commit(first)
	topic.Commit(second)
	if topic.Count() != 9 || topic.Digest() != naive(idsOf(c.run[:9])) {
		t.Error("count or digest is not that of the set")
	}
	refuseGap(t, topic, c.run[11:], ErrGap{Have: 9, Want: 11, Kept: true})
	if _, ok := topic.CheckNext(nil, c.run[9:11], nil); ok {
		t.Error("taken beside what waits")
	}
	accept(t, topic, nil, c.run[9:11])
	next := c.grow(t, 1).run[13:]
	if _, ok := topic.CheckNext(nil, next, nil); !ok {
		t.Error("what goes on behind what waited was not taken")
	}
	topic.SetFinal(func(ChainID) (Head, bool) { return next[0].Head(), true })
	if _, ok := topic.CheckNext(nil, next, nil); ok {
		t.Error("taken where the log says what is final")
	}
}
