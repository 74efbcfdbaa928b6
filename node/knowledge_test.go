package node_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet"
	"github.com/kithnet/kith/xrpc"
)

var full = flag.Bool("full", false, "run 20 times as many histories of membership, and the long crash tests")

// saga is a random history of one space on a simulated network.
type saga struct {
	t    *testing.T
	w    *testnet.Net
	id   space.ID
	rand *rand.Rand

	policy space.Policy
	dids   []space.DID
	second device // nobody's: the history has none
	born   bool   // there is a child
	boss   int    // the child's authority
	child  space.ID
	text   map[string]bool // what was written
	did    []string        // what happened, for who has to find out why

	opened, entries, may, sure int // questions that the oracle was asked

	mu   sync.Mutex // guards what follows
	wire bytes.Buffer
}

// asked counts a question.
func (s *saga) asked(can, may, must bool) {
	s.entries++
	if can {
		s.opened++
	}
	if may {
		s.may++
	}
	if must {
		s.sure++
	}
}

// Write keeps what goes over the streams.
func (s *saga) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wire.Write(b)
}

// device is the second device of somebody.
type device struct {
	owner    int // 0: nobody; the story's authority stays with one
	from, to int // the steps in which it comes and is revoked
	id       string
	alone    bool // partitioned before it was revoked
	revoked  bool
}

const (
	sagaNodes = 6             // at the beginning
	outsider  = sagaNodes - 1 // is in nothing
	phone     = sagaNodes     // the second device, once it is there
)

func newSaga(t *testing.T, seed uint64) *saga {
	s := &saga{t: t, rand: rand.New(rand.NewPCG(seed, 1)), text: map[string]bool{}}
	s.w = testnet.New(t, sagaNodes, testnet.Link{Latency: 10 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.02}, seed)
	for _, n := range s.w.Nodes() {
		s.tap(n)
		s.dids = append(s.dids, did(t, n.Node))
	}
	policy := space.DefaultPolicy()
	if seed%2 == 1 {
		policy.History = space.HistoryFromJoin
	}
	info, err := s.w.Node(0).CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Name: "forum", Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	s.id, s.policy = info.ID, policy
	// Every second history has a device, every second a child, by turns with
	// the policy; some have both.
	if seed%4 == 0 || seed%4 == 3 {
		s.second = device{owner: 1 + s.rand.IntN(sagaNodes-2), from: 3 + s.rand.IntN(10), to: 18 + s.rand.IntN(16)}
	}
	if seed%4 == 1 || seed%4 == 2 || seed%8 == 7 {
		s.bear()
	}
	return s
}

func (s *saga) tap(n *testnet.Node) { node.Tap(n.Node, s) }

// soon bounds what may wait for somebody who is not there.
func (s *saga) soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.t.Context(), 10*time.Second)
}

// level is what the authority's roster says of a node.
func (s *saga) level(i int) (space.Level, bool) {
	return s.levelIn(s.w.Node(0), s.id, i)
}

// levelIn is what a node's roster of a space says of another one.
func (s *saga) levelIn(by *testnet.Node, id space.ID, i int) (space.Level, bool) {
	ms, err := by.Members(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range ms {
		if m.DID == s.dids[i] {
			return m.Level, m.Keeper
		}
	}
	return space.LevelNone, false
}

// step lets something happen. What cannot be done now is not done: the log
// tells afterwards.
func (s *saga) step() {
	a := s.w.Node(0)
	i := 1 + s.rand.IntN(sagaNodes-2)
	if s.born && s.rand.IntN(3) == 0 {
		s.stepChild(i)
		return
	}
	n := s.w.Node(i)
	level, keeper := s.level(i)
	if i == s.second.owner && level != space.LevelNone {
		return // stays in, or the revocation of its device would change nothing
	}
	pick := space.LevelReadSelf + space.Level(s.rand.IntN(3))
	ctx, cancel := s.soon()
	defer cancel()
	var what string
	var err error
	switch k := s.rand.IntN(12); {
	case k < 2 || level == space.LevelNone && k < 7:
		if level != space.LevelNone {
			return
		}
		what = fmt.Sprintf("add %d at %v", i, pick)
		var inv xrpc.Invite
		if inv, err = a.Invite(ctx, s.id, xrpc.InviteOptions{Level: pick, MaxUses: 1}); err == nil {
			_, err = n.Join(ctx, inv.Link)
		}
	case level == space.LevelNone:
		return
	case k < 4:
		what = fmt.Sprintf("remove %d", i)
		err = a.RemoveMember(ctx, s.id, s.dids[i])
	case k < 6:
		what = fmt.Sprintf("level of %d: %v", i, pick)
		_, err = a.SetLevel(ctx, s.id, s.dids[i], pick)
	case k < 7:
		what = "rotate"
		_, err = a.Rotate(ctx, s.id)
	case k < 8 && keeper:
		what = fmt.Sprintf("no keeper %d", i)
		err = a.RemoveKeeper(ctx, s.id, s.dids[i])
	case k < 8:
		what = fmt.Sprintf("keeper %d", i)
		_, err = a.SetKeeper(ctx, s.id, s.dids[i], []xrpc.Cap{xrpc.CapAdmit})
	case k < 9:
		what = fmt.Sprintf("restart %d", i)
		n.Restart()
		s.tap(n)
	case k < 10:
		what = "partition"
		nodes := s.w.Nodes()
		cut := 1 + s.rand.IntN(len(nodes)-1)
		s.w.Partition(nodes[:cut], nodes[cut:])
	default:
		what = "heal"
		s.w.Heal()
	}
	s.did = append(s.did, fmt.Sprintf("%s: %v", what, err))
}

// write lets everybody write who believes to be able to.
func (s *saga) write() {
	for i, n := range s.w.Nodes() {
		for _, id := range s.spaces() {
			text := fmt.Sprintf("canary-%d-%d", i, len(s.text))
			if s.rand.IntN(2) == 0 && n.Put(id, fmt.Sprintf("%d-%d", i, len(s.text)), text) == nil {
				s.text[text] = true
			}
		}
	}
	time.Sleep(time.Duration(s.rand.IntN(3000)) * time.Millisecond)
}

// settle heals the network and waits until the logs have said what happened,
// who is in has the same epoch, and who reads everything has the same entries
// of it.
func (s *saga) settle(all *hoard) {
	s.w.Heal()
	s.until("the logs tell", func() error {
		all.take(s)
		err := all.overdue(s)
		if err != nil {
			time.Sleep(5 * time.Second)
		}
		return err
	})
	for _, id := range s.spaces() {
		s.until("settled", func() error { return s.settled(id) })
	}
	for i, n := range s.w.Nodes() {
		if s.lives(i) != space.LevelWrite {
			continue
		}
		if err := n.Put(s.id, fmt.Sprintf("last-%d", i), fmt.Sprintf("canary-last-%d", i)); err != nil {
			s.t.Fatalf("node %d writes: %v\n%s", i, err, strings.Join(s.did, "\n"))
		}
		for j, other := range s.w.Nodes() {
			if s.lives(j) >= space.LevelRead {
				s.until(fmt.Sprintf("%d reads %d", j, i), func() error { return other.Has(s.id, fmt.Sprintf("last-%d", i)) })
			}
		}
	}
}

// lives is what the roster gives a node whose device was not revoked.
func (s *saga) lives(i int) space.Level {
	if i == phone && s.second.revoked {
		return space.LevelNone
	}
	level, _ := s.level(i)
	return level
}

// settled is nil when who is in the roster of a space has its epoch. Who is
// sent besides may stand higher.
func (s *saga) settled(id space.ID) error {
	by := s.w.Node(0)
	if id == s.child {
		by = s.w.Node(s.boss)
	}
	first, err := spaceOf(by.Node, id)
	if err != nil {
		return err
	}
	for i, n := range s.w.Nodes() {
		level, _ := s.levelIn(by, id, i)
		if level == space.LevelNone || i == phone && s.second.revoked {
			continue
		}
		st, err := spaceOf(n.Node, id)
		if err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
		if role, err := space.ParseLevel(st.Role); err != nil || st.Epoch != first.Epoch || role < level || role > level && (!s.born || id == s.child) {
			return fmt.Errorf("node %d: epoch %d, want %d; role %s, want %v; %s", i, st.Epoch, first.Epoch, st.Role, level, st.LastError)
		}
	}
	return nil
}

// records is what a node shows of the space.
func (s *saga) records(n *testnet.Node) (string, error) {
	recs, _, err := n.Records(s.t.Context(), s.id, xrpc.RecordQuery{Limit: 1000, NoValues: true})
	var out strings.Builder
	for _, r := range recs {
		fmt.Fprintln(&out, r.URI, r.CID)
	}
	return out.String(), err
}

// agree waits until everybody who reads everything shows the same records:
// those of the removed and of the lowered as far as the log says, and no
// further. In a space without history not everybody reads everything.
func (s *saga) agree(history string) {
	if history != space.HistoryFull {
		return
	}
	for i, n := range s.w.Nodes() {
		if s.lives(i) < space.LevelRead {
			continue
		}
		s.until(fmt.Sprintf("node %d shows what the authority shows", i), func() error {
			want, err := s.records(s.w.Node(0))
			if err != nil {
				return err
			}
			have, err := s.records(n)
			if err == nil && have != want {
				err = fmt.Errorf("%d lines of records, the authority has %d; %q", strings.Count(have, "\n"), strings.Count(want, "\n"), differ(have, want))
			}
			return err
		})
	}
}

// differ names the lines that only one of two texts has.
func differ(have, want string) (out []string) {
	for sign, pair := range map[string][2]string{"more: ": {have, want}, "fewer: ": {want, have}} {
		for line := range strings.Lines(pair[0]) {
			if !strings.Contains(pair[1], line) {
				out = append(out, sign+strings.TrimSpace(line))
			}
		}
	}
	return out
}

func (s *saga) until(what string, check func() error) {
	s.t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(start) > 4*time.Minute {
			s.t.Fatalf("%s: %v\n%s", what, err, strings.Join(s.did, "\n"))
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// TestKnowledge lets random histories of membership run on real nodes, with
// partitions and restarts, and then gives everybody all that any node was ever
// sent and all keys that were ever in its home: it opens no more than the
// control log allows it, and who is in to the end opens all of that.
func TestKnowledge(t *testing.T) {
	histories := 20
	switch {
	case *full:
		histories *= 20
	case testing.Short():
		histories = 2
	}
	for seed := range uint64(histories) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			testnet.Bubble(t, func(t *testing.T) {
				s := newSaga(t, seed)
				all := newHoard(s)
				for k := range 40 {
					s.stepDevice(k)
					s.step()
					s.write()
					all.take(s)
				}
				s.settle(all)
				s.agree(s.policy.History)
				all.take(s)
				for _, fault := range all.judge(s) {
					t.Error(fault)
				}
				t.Logf("%d epochs, %d control entries, %d envelopes; %d of %d entries open, %d may, %d must",
					len(all.story.group), len(all.story.control), len(all.story.envs), s.opened, s.entries, s.may, s.sure)
				if t.Failed() {
					t.Log(strings.Join(s.did, "\n"))
				}
				// Whoever comes by a key is seen to have it.
				all.story.keys[outsider].named["keys stolen"] = all.story.group[uint64(len(all.story.group))]
				if !all.caught(s, outsider) {
					t.Error("the oracle does not see a stolen key")
				}
			})
		})
	}
}
