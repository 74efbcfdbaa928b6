package testnet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// Storm is what a net goes through while everybody writes.
type Storm struct {
	Seed   uint64
	Lasts  time.Duration
	Churn  float64       // share of the nodes that go down in a minute; every second one crashes
	Down   time.Duration // how long they are away, at most
	Flap   time.Duration // how long a partition stands, and the time between two, at most
	Writes float64       // a second, by any of those who run
	Rotate time.Duration // the authority opens an epoch so often, if it runs; 0: never
	Turned func()        // called when it has opened one; nil: nobody is told
}

// Ledger is what was acknowledged in a storm.
type Ledger struct {
	Last map[space.URI]space.CID // of each record the version acknowledged last

	Acked, Unsure     int // writes; of the unsure ones nobody knows what became
	Stops, Crashes    int
	Partitions, Turns int // Turns: epochs opened
}

func (l *Ledger) String() string {
	return fmt.Sprintf("%d writes acknowledged (%d records), %d refused, %d stops, %d crashes, %d partitions, %d epochs opened",
		l.Acked, len(l.Last), l.Unsure, l.Stops, l.Crashes, l.Partitions, l.Turns)
}

// storm is a Storm that goes on.
type storm struct {
	Storm
	w      *Net
	id     space.ID
	rand   *rand.Rand
	ledger *Ledger
	back   map[*Node]time.Time // who is down, and until when
}

// tick is how often the weather is looked at.
const tick = 100 * time.Millisecond

// Storm lets s pass over the net, and leaves it healed, with everybody back.
func (w *Net) Storm(id space.ID, s Storm) *Ledger {
	w.t.Helper()
	st := &storm{
		Storm: s, w: w, id: id, rand: rand.New(rand.NewPCG(s.Seed, 2)),
		ledger: &Ledger{Last: map[space.URI]space.CID{}}, back: map[*Node]time.Time{},
	}
	start := time.Now()
	flap, turn := start.Add(st.some(s.Flap)), start.Add(s.Rotate)
	cut := false
	for now := start; now.Sub(start) < s.Lasts; now = time.Now() {
		if st.happens(s.Writes * tick.Seconds()) {
			st.write()
		}
		if st.happens(s.Churn * float64(len(w.nodes)) * tick.Minutes()) {
			st.fell()
		}
		st.raise(now)
		if now.After(flap) {
			if cut = !cut; cut {
				st.cut()
			} else {
				w.Heal()
			}
			flap = now.Add(st.some(s.Flap))
		}
		if s.Rotate > 0 && now.After(turn) && w.nodes[0].Node != nil {
			st.rotate()
			turn = now.Add(s.Rotate)
		}
		time.Sleep(tick)
	}
	w.Heal()
	st.raise(time.Now().Add(s.Lasts))
	return st.ledger
}

func (s *storm) happens(p float64) bool { return s.rand.Float64() < p }

// some is a time from a tenth of limit to limit.
func (s *storm) some(limit time.Duration) time.Duration {
	return limit/10 + time.Duration(s.rand.Int64N(int64(limit-limit/10)+1))
}

// write lets one of those who run write a record, now and then one again that
// it wrote before.
func (s *storm) write() {
	i := s.rand.IntN(len(s.w.nodes))
	n := s.w.nodes[i]
	if n.Node == nil {
		return
	}
	k := s.ledger.Acked
	if s.rand.IntN(4) == 0 {
		k = s.rand.IntN(20)
	}
	ref, err := n.put(s.id, fmt.Sprintf("%d-%d", i, k), fmt.Sprintf("storm %d", s.ledger.Acked))
	if err != nil {
		s.ledger.Unsure++
		return
	}
	s.ledger.Acked++
	s.ledger.Last[ref.URI] = ref.CID
}

// fell takes a node down.
func (s *storm) fell() {
	n := s.w.nodes[s.rand.IntN(len(s.w.nodes))]
	if n.Node == nil {
		return
	}
	if s.rand.IntN(2) == 0 {
		s.ledger.Stops++
		n.Stop()
	} else {
		s.ledger.Crashes++
		n.Crash()
	}
	s.back[n] = time.Now().Add(s.some(s.Down))
}

// raise starts those whose time has come. What was acknowledged to them is
// there at once.
func (s *storm) raise(now time.Time) {
	for _, n := range s.w.nodes { // in their order: map order would change the trace
		if at, down := s.back[n]; !down || now.Before(at) {
			continue
		}
		delete(s.back, n)
		n.Start()
		if err := s.ledger.holds(n, s.id, n.owner()); err != nil {
			s.w.t.Errorf("after its start: node %s: %v", n.ip, err)
		}
	}
}

// cut parts the net: in halves, in three, one alone, or in halves with one
// that reaches both.
func (s *storm) cut() {
	s.ledger.Partitions++
	nodes := make([]*Node, len(s.w.nodes))
	for i, k := range s.rand.Perm(len(nodes)) {
		nodes[i] = s.w.nodes[k]
	}
	n := len(nodes)
	switch s.rand.IntN(4) {
	case 0:
		s.w.Partition(nodes[:n/2])
	case 1:
		s.w.Partition(nodes[:n/3], nodes[n/3:2*n/3])
	case 2:
		s.w.Partition(nodes[:1])
	default:
		s.w.Partition(nodes[:n/2])
		s.w.bridge(nodes[n-1])
	}
}

func (s *storm) rotate() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := s.w.nodes[0].Rotate(ctx, s.id); err == nil {
		if s.ledger.Turns++; s.Turned != nil {
			s.Turned()
		}
	}
}

// owner is who n is.
func (n *Node) owner() space.DID {
	st, err := n.Status(context.Background())
	if err != nil {
		n.net.t.Fatal(err)
	}
	return st.DID
}

// Held is nil when n shows what was acknowledged, all of it.
func (l *Ledger) Held(n *Node, id space.ID) error { return l.holds(n, id, "") }

// holds is Held of one author alone; "": of all.
func (l *Ledger) holds(n *Node, id space.ID, author space.DID) error {
	shown := map[space.URI]space.CID{}
	q := xrpc.RecordQuery{Repo: author, Limit: 1000, NoValues: true}
	for {
		recs, cursor, err := n.Records(context.Background(), id, q)
		if err != nil {
			return err
		}
		for _, r := range recs {
			shown[r.URI] = r.CID
		}
		if q.Cursor = cursor; cursor == "" {
			break
		}
	}
	for uri, cid := range l.Last {
		if (author == "" || uri.Author == author) && shown[uri] != cid {
			return fmt.Errorf("%s is %s, want %s: a write is lost", uri, shown[uri], cid)
		}
	}
	return nil
}
