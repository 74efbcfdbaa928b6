package gossip

import (
	"math"
	"net/netip"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/kithnet/kith/space/envelope"
)

// deeds are what pubsub counts of a peer, in all topics.
type deeds struct {
	topics          []deed
	faults, penalty float64
	sameAddress     int
}

// deed is what it counts in one.
type deed struct{ inMesh, first, deficit, failures, invalid float64 }

// total is the score of gossipsub v1.1, by its specification.
func total(p *pubsub.PeerScoreParams, t *pubsub.TopicScoreParams, d deeds) float64 {
	sum := 0.0
	for _, in := range d.topics {
		if t == nil {
			continue
		}
		sum += t.TopicWeight * (min(in.inMesh, t.TimeInMeshCap)*t.TimeInMeshWeight +
			min(in.first, t.FirstMessageDeliveriesCap)*t.FirstMessageDeliveriesWeight +
			in.deficit*in.deficit*t.MeshMessageDeliveriesWeight +
			in.failures*t.MeshFailurePenaltyWeight + in.invalid*in.invalid*t.InvalidMessageDeliveriesWeight)
	}
	if p.TopicScoreCap > 0 {
		sum = min(sum, p.TopicScoreCap)
	}
	sum += p.AppSpecificWeight * price(d.faults)
	if over := float64(d.sameAddress - p.IPColocationFactorThreshold); over > 0 {
		sum += over * over * p.IPColocationFactorWeight
	}
	if over := d.penalty - p.BehaviourPenaltyThreshold; over > 0 {
		sum += over * over * p.BehaviourPenaltyWeight
	}
	return sum
}

func drawDeeds(r *rapid.T) (d deeds) {
	some := rapid.Float64Range(0, 1e6)
	for range rapid.IntRange(0, 20).Draw(r, "topics") {
		d.topics = append(d.topics, deed{
			inMesh: some.Draw(r, "in mesh"), first: some.Draw(r, "first"), deficit: some.Draw(r, "deficit"),
			failures: some.Draw(r, "failures"), invalid: some.Draw(r, "invalid"),
		})
	}
	d.faults = rapid.Float64Range(0, maxFaults).Draw(r, "faults")
	d.penalty = some.Draw(r, "penalty")
	d.sameAddress = rapid.IntRange(0, 1000).Draw(r, "same address")
	return d
}

// Whatever a peer did well in however many topics, and however gossip is
// configured: it has no positive total, so that nothing outweighs a topic that
// it drops; what it sends that is invalid lowers the total, and three such
// messages end the talk.
func TestScoreHasNoCredit(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := Config{MaxTopics: rapid.IntRange(1, 20_000).Draw(r, "topics"), D: rapid.IntRange(3, 12).Draw(r, "degree")}.withDefaults()
		params, limits := c.scoring(func(peer.ID) float64 { return 0 })
		if len(params.Topics) > 0 {
			r.Fatal("a topic has parameters of its own")
		}
		d := drawDeeds(r)
		before := total(params, nil, d)
		if before > 0 {
			r.Fatalf("%+v has %v", d, before)
		}
		if before >= limits.AcceptPXThreshold {
			r.Fatalf("peer exchange of %v", before)
		}
		d.faults = min(maxFaults, d.faults+1)
		if after := total(params, nil, d); after >= 0 || d.faults < maxFaults && after >= before {
			r.Fatalf("a fault took the total from %v to %v", before, after)
		}
		d.faults = max(d.faults, 3)
		if after := total(params, nil, d); after >= limits.GraylistThreshold {
			r.Fatalf("three faults cost %v", after)
		}
	})
}

// What an honest peer can do never costs it anything: it restarts in all
// topics, breaks a promise in each, and shares its address with a household.
func TestScoreSparesHonest(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := Config{MaxTopics: rapid.IntRange(1, 20_000).Draw(r, "topics")}.withDefaults()
		params, _ := c.scoring(func(peer.ID) float64 { return 0 })
		topics := float64(rapid.IntRange(0, c.MaxTopics).Draw(r, "shared topics"))
		d := drawDeeds(r)
		d.faults, d.penalty, d.sameAddress = 0, 2*topics, rapid.IntRange(0, addressPeers).Draw(r, "at one address")
		for i := range d.topics { // idle topics look like dropped ones
			d.topics[i].invalid = 0
		}
		if got := total(params, nil, d); got != 0 {
			r.Fatalf("%+v costs %v", d, got)
		}
	})
}

// Who accepts a frame passes it on: whatever another node holds, and whenever
// it judges, it does not blame the forwarder.
func TestHonestForwardersNeverFall(t *testing.T) {
	g := member
	g.class = 3
	c := newChain(t, g, 0x44).grow(t, 300)
	branch := c.fork(20).grow(t, 30, 'b')
	late := newChain(t, grant{0x33, 0x57, 3, uint64(start.Unix())}, 0x49).grow(t, 20)
	rapid.Check(t, func(r *rapid.T) {
		chain := rapid.SampledFrom([]*chain{c, branch, late}).Draw(r, "chain")
		from := rapid.IntRange(0, len(chain.run)-1).Draw(r, "from")
		to := min(len(chain.run)-1, from+rapid.IntRange(0, 12).Draw(r, "more"))
		frame := chain.frame(t, from, to)
		if rapid.Bool().Draw(r, "flip") {
			frame[rapid.IntRange(0, len(frame)-1).Draw(r, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(r, "bit")
		}
		judge := func(who string) (*court, Ruling) {
			k := newCourt(t, Limits{})
			k.now = start.Add(time.Duration(rapid.IntRange(-9, 9).Draw(r, who+" days")) * 24 * time.Hour)
			if held := rapid.IntRange(-1, len(chain.run)-1).Draw(r, who+" holds"); held >= 0 {
				k.replica.hold(t, chain, held)
			}
			return k, k.ask(alice, frame)
		}
		_, here := judge("here")
		there, ruling := judge("there")
		if here.Verdict == Accept && ruling.Verdict == Reject {
			r.Fatalf("accepted as %v, then blamed as %v", here.Reason, ruling.Reason)
		}
		if here.Verdict == Accept && there.judge.conduct.score(alice, there.now) != 0 {
			r.Fatal("the forwarder's score fell")
		}
	})
}

// Faults are forgotten by halves; until then coming back does not help.
func TestConduct(t *testing.T) {
	var told []peer.ID
	c := newConduct(func(p peer.ID) { told = append(told, p) })
	if c.score(mal, start) != 0 || c.shunned(mal, start) {
		t.Error("a stranger is not at zero")
	}
	for range 3 {
		c.blame(mal, 1, start)
	}
	if !c.shunned(mal, start) || c.shunned(alice, start) || len(told) != 1 {
		t.Errorf("shunned %v and %v, told of %v", c.shunned(mal, start), c.shunned(alice, start), told)
	}
	if at := start.Add(faultHalf); math.Abs(c.score(mal, at)-price(1.5)) > 1e-9 || c.shunned(mal, at) {
		t.Errorf("%v after the half of it", c.score(mal, at))
	}
	for range 1000 {
		c.blame(mal, 1, start)
	}
	if at := start.Add(scoreRetain - time.Minute); !c.shunned(mal, at) {
		t.Error("a flooder is forgotten too early")
	}
	if at := start.Add(scoreRetain + 5*time.Minute); c.shunned(mal, at) {
		t.Error("a flooder is never forgotten")
	}
	if at := start.Add(24 * time.Hour); c.score(mal, at) != 0 {
		t.Errorf("%v after a day", c.score(mal, at))
	}
	if got := c.score(mal, start.Add(-time.Hour)); got != price(maxFaults) {
		t.Errorf("%v by a clock that went back", got)
	}
	for range streamsAtOnce {
		if !c.opens(alice, start) {
			t.Fatal("a stream is refused")
		}
	}
	if c.opens(alice, start) || !c.opens(alice, start.Add(time.Second)) {
		t.Error("streams are not counted")
	}
}

// The library takes the parameters, and by its own sum a peer that serves some
// topics well and drops one has no credit either; one that lies has less.
func TestScoreOfLibrary(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hosts []host.Host) {
		var mu sync.Mutex
		scores := map[peer.ID]float64{}
		inspect := pubsub.WithPeerScoreInspect(func(s map[peer.ID]float64) {
			mu.Lock()
			defer mu.Unlock()
			scores = s
		}, time.Second)
		victim := newNode(t, hosts[0], Config{options: []pubsub.Option{inspect}})
		var served []*chain
		for i := range byte(4) {
			g := live
			g.issuer = 0x70 + i
			served = append(served, newChain(t, g, 0x70+i).grow(t, 20))
		}
		dropped := newChain(t, live, 0x44).grow(t, 20)
		dropper, liar := newRaw(t, hosts[1]), newRaw(t, hosts[2])
		for _, c := range append(served, dropped) {
			r := newReplica(c.topic)
			if _, err := victim.mesh.Join(c.topic, r, func(_ peer.ID, f envelope.Frame) { _ = r.take(f) }, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, raw := range []*raw{dropper, liar} {
			raw.open(t, hosts[0])
			for _, c := range append(served, dropped) {
				raw.join(t, c.topic)
			}
		}
		settle()
		for i := range 20 {
			for _, c := range served {
				dropper.publish(t, c.topic, c.frame(t, i, i))
			}
			<-time.After(3 * time.Second)
		}
		liar.publish(t, dropped.topic, spoiled(dropped.frame(t, 0, 0)))
		settle()
		mu.Lock()
		defer mu.Unlock()
		if got, ok := scores[hosts[1].ID()]; !ok || got != 0 {
			t.Errorf("who dropped a topic has %v (%v)", got, ok)
		}
		if got := scores[hosts[2].ID()]; got >= 0 || got < price(1) {
			t.Errorf("who lied once has %v", got)
		}
		if got := victim.mesh.Counters().ByReason[Fresh].Load(); got != 80 {
			t.Errorf("%d frames served of 80", got)
		}
	})
}

// What a peer did elsewhere takes it out of the mesh and does not silence it.
func TestBlame(t *testing.T) {
	bubble(t, 2, func(t *testing.T, hosts []host.Host) {
		c := newChain(t, live, 0x44).grow(t, 9)
		a, b := newNode(t, hosts[0], Config{}).join(t, c.topic), newNode(t, hosts[1], Config{}).join(t, c.topic)
		connect(t, hosts[0], hosts[1])
		settle()
		for range 50 {
			a.mesh.Blame(hosts[1].ID())
		}
		if a.mesh.Shunned(hosts[1].ID()) || a.mesh.score(hosts[1].ID()) > gossipThreshold {
			t.Errorf("shunned %v at %v", a.mesh.Shunned(hosts[1].ID()), a.mesh.score(hosts[1].ID()))
		}
		a.mesh.Blame(hosts[0].ID())
		if a.mesh.score(hosts[0].ID()) != 0 {
			t.Error("blamed itself")
		}
		b.publish(t, c.frame(t, 0, 9))
		settle()
		if a.replica.count() != 10 {
			t.Errorf("%d of 10 arrived", a.replica.count())
		}
	})
}

func TestNetworks(t *testing.T) {
	for _, p := range []string{"127.0.0.0/8", "::1/128", "10.1.0.0/16"} {
		pre := netip.MustParsePrefix(p)
		if got := networks([]netip.Prefix{pre})[0]; got.String() != pre.String() {
			t.Errorf("%v, want %v", got, pre)
		}
	}
}
