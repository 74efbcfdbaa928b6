package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/oracle"
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
	text   map[string]bool // what was written
	did    []string        // what happened, for who has to find out why

	mu   sync.Mutex // guards what follows
	wire bytes.Buffer
}

// Write keeps what goes over the streams.
func (s *saga) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wire.Write(b)
}

const sagaNodes = 6 // the last one stays outside

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
	return s
}

func (s *saga) tap(n *testnet.Node) { node.Tap(n.Node, s) }

// soon bounds what may wait for somebody who is not there.
func (s *saga) soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.t.Context(), 10*time.Second)
}

// level is what the authority's roster says of a node.
func (s *saga) level(i int) (space.Level, bool) {
	ms, err := s.w.Node(0).Members(s.t.Context(), s.id)
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
	n := s.w.Node(i)
	level, keeper := s.level(i)
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
		text := fmt.Sprintf("canary-%d-%d", i, len(s.text))
		if s.rand.IntN(2) == 0 && n.Put(s.id, fmt.Sprintf("%d-%d", i, len(s.text)), text) == nil {
			s.text[text] = true
		}
	}
	time.Sleep(time.Duration(s.rand.IntN(3000)) * time.Millisecond)
}

// settle heals the network and waits until who is in has the same epoch, and
// who reads everything has the same entries of it.
func (s *saga) settle() {
	s.w.Heal()
	settled := func() error {
		var first xrpc.SpaceStatus
		for i, n := range s.w.Nodes() {
			level, _ := s.level(i)
			if level == space.LevelNone {
				continue
			}
			st, err := spaceOf(n.Node, s.id)
			switch {
			case err != nil:
				return fmt.Errorf("node %d: %w", i, err)
			case i == 0:
				first = st
			case st.Epoch != first.Epoch || st.Role != level.String():
				return fmt.Errorf("node %d: epoch %d, want %d; role %s, want %v; %s", i, st.Epoch, first.Epoch, st.Role, level, st.LastError)
			}
		}
		return nil
	}
	s.until("settled", settled)
	for i, n := range s.w.Nodes() {
		if level, _ := s.level(i); level != space.LevelWrite {
			continue
		}
		if err := n.Put(s.id, fmt.Sprintf("last-%d", i), fmt.Sprintf("canary-last-%d", i)); err != nil {
			s.t.Fatalf("node %d writes: %v\n%s", i, err, strings.Join(s.did, "\n"))
		}
		for j, other := range s.w.Nodes() {
			if level, _ := s.level(j); level >= space.LevelRead {
				s.until(fmt.Sprintf("%d reads %d", j, i), func() error { return other.Has(s.id, fmt.Sprintf("last-%d", i)) })
			}
		}
	}
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
		if level, _ := s.level(i); level < space.LevelRead {
			continue
		}
		s.until(fmt.Sprintf("node %d shows what the authority shows", i), func() error {
			want, err := s.records(s.w.Node(0))
			if err != nil {
				return err
			}
			have, err := s.records(n)
			if err == nil && have != want {
				err = fmt.Errorf("%d lines of records, the authority has %d", strings.Count(have, "\n"), strings.Count(want, "\n"))
			}
			return err
		})
	}
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
				for range 40 {
					s.step()
					s.write()
					all.take(s)
				}
				s.settle()
				s.agree(s.policy.History)
				all.take(s)
				for _, fault := range all.judge(s) {
					t.Error(fault)
				}
				if t.Failed() {
					t.Log(strings.Join(s.did, "\n"))
				}
				// Whoever comes by a key is seen to have it.
				all.keys[sagaNodes-1]["keys stolen"] = all.group[uint64(len(all.group))]
				if len(all.judge(s)) == 0 {
					t.Error("the oracle does not see a stolen key")
				}
			})
		})
	}
}

// hoard is everything that was sent, and what each node ever held.
type hoard struct {
	sid     [32]byte
	control map[[32]byte][]byte
	log     [][]byte // the authority's, in order
	envs    map[envelope.ID]envelope.Envelope
	epochOf map[envelope.TopicID]uint64
	logs    map[identity.Commitment][][]byte
	held    []*node.Holdings    // the newest of each node
	keys    []map[string][]byte // and all keys it ever held
	group   map[uint64][]byte   // what the authority knows
}

func newHoard(s *saga) *hoard {
	h := &hoard{
		control: map[[32]byte][]byte{}, envs: map[envelope.ID]envelope.Envelope{}, epochOf: map[envelope.TopicID]uint64{},
		logs: map[identity.Commitment][][]byte{}, held: make([]*node.Holdings, sagaNodes), group: map[uint64][]byte{},
	}
	for range sagaNodes {
		h.keys = append(h.keys, map[string][]byte{})
	}
	return h
}

// take reads all homes.
func (h *hoard) take(s *saga) {
	for i, n := range s.w.Nodes() {
		d, err := node.Dump(n.Node)
		if err != nil {
			s.t.Fatal(err)
		}
		h.held[i], h.logs[d.C] = d, d.Log
		sp := d.Spaces[s.id]
		if sp == nil {
			continue
		}
		h.sid = sp.SpaceID
		for _, raw := range sp.Control {
			h.control[sha256.Sum256(raw)] = raw
		}
		if i == 0 {
			h.log = sp.Control
			for n, k := range sp.Keys {
				h.group[n] = k
			}
		}
		for topic, n := range sp.Topics {
			h.epochOf[topic] = n
		}
		for _, run := range sp.Envelopes {
			for _, env := range run {
				h.envs[env.ID()] = env
			}
		}
		for kind, keys := range map[string]map[uint64][]byte{"keys": sp.Keys, "issuer": sp.Issuers, "closed": sp.Closed} {
			for n, k := range keys {
				h.keys[i][fmt.Sprintf("%s %d %x", kind, n, k[:4])] = k
			}
		}
	}
}

// rights is what the control log gives a person, by epoch: what it may read,
// and what it must be able to read while it is in.
type rights struct{ all, own, due []bool }

// allowed works out from the control log who may read what.
func (h *hoard) allowed(s *saga) (map[identity.Commitment]*rights, *control.State) {
	out := map[identity.Commitment]*rights{}
	epochs := len(h.group)
	for _, d := range h.held {
		out[d.C] = &rights{make([]bool, epochs+2), make([]bool, epochs+2), make([]bool, epochs+2)}
	}
	var st, before *control.State
	for _, raw := range h.log {
		before = st
		e, err := control.Parse(raw)
		if err == nil {
			var ck []byte
			if st != nil && !e.InClear() {
				ck = space.KDF(h.group[st.Epoch], space.LabelCtl, nil, 32)
			}
			err = e.Open(ck)
		}
		if err == nil {
			st, err = control.Apply(st, e)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		for m := range st.Members() {
			r := out[m.C]
			for n := m.Epoch; n <= st.Epoch; n++ { // since its stay began
				r.all[n] = r.all[n] || m.Level >= space.LevelRead
			}
			r.own[st.Epoch] = r.own[st.Epoch] || m.Level == space.LevelReadSelf
			came := before == nil || before.Epoch != st.Epoch
			if !came {
				_, in := before.Member(m.C)
				came = !in
			}
			r.due[st.Epoch] = r.due[st.Epoch] || came && m.Level >= space.LevelRead
		}
	}
	if st.Policy.History == space.HistoryFull {
		for _, r := range out {
			for n := epochs; n > 0; n-- {
				r.all[n] = r.all[n] || r.all[n+1]
				r.own[n] = r.own[n] || r.own[n+1]
				r.due[n] = r.due[n] || r.due[n+1]
			}
		}
	}
	return out, st
}

// judge lets everybody try everything, and tells what should not be.
func (h *hoard) judge(s *saga) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	rights, st := h.allowed(s)
	var cs []identity.Commitment
	for _, d := range h.held {
		cs = append(cs, d.C)
	}
	author := h.authors(cs)
	kems := oracle.KEMs{}
	opened, entries := 0, 0
	for i, d := range h.held {
		a := oracle.New(cs, kems)
		for _, log := range h.logs {
			a.See(oracle.IdentityLog(log)...)
		}
		for hash, raw := range h.control {
			a.See(oracle.Entry(fmt.Sprintf("entry %x", hash), raw, h.sid, nil)...)
		}
		for id, env := range h.envs {
			a.See(oracle.Enveloped(fmt.Sprintf("envelope %x", id), env))
		}
		device := d.Device.Marshal()
		for _, k := range [][]byte{device[1:33], device[65:97]} {
			a.Hold(k, oracle.AsOther)
		}
		a.Hold(device[33:65], oracle.AsKEM)
		a.Hold(d.PUK.Marshal()[5:], oracle.AsPUK)
		for name, k := range h.keys[i] {
			if strings.HasPrefix(name, "keys") {
				oracle.Keys(a, nil, k)
			} else {
				a.Hold(k, map[bool]oracle.Role{true: oracle.AsControl, false: oracle.AsOther}[strings.HasPrefix(name, "closed")])
			}
		}
		m, in := st.Member(d.C)
		for id, env := range h.envs {
			if env.Type() != envelope.Entry {
				continue
			}
			n := h.epochOf[env.Topic()]
			may := rights[d.C].all[n] || rights[d.C].own[n] && author[id] == d.C
			can := a.Open(fmt.Sprintf("envelope %x", id))
			must := in && m.Level >= space.LevelRead && rights[d.C].due[n]
			entries++
			if can {
				opened++
			}
			if can && !may || must && !can {
				fault("node %d opens an entry of epoch %d: %v; it may: %v", i, n, can, may)
			}
		}
		known := a.Secrets()
		for n, gk := range h.group {
			if slices.Contains(known, [32]byte(gk)) && !rights[d.C].all[n] {
				fault("node %d knows the group key of epoch %d", i, n)
			}
		}
	}
	if len(h.held[sagaNodes-1].Spaces) > 0 {
		fault("there was no outsider")
	}
	for _, f := range h.judgeWire(s) {
		fault("%s", f)
	}
	s.t.Logf("%d epochs, %d control entries, %d envelopes; %d of %d entries open", len(h.group), len(h.control), len(h.envs), opened, entries)
	return faults
}

// judgeWire: no key and no text ever went over a stream as it is.
func (h *hoard) judgeWire(s *saga) (faults []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wire := s.wire.Bytes()
	if len(wire) == 0 {
		faults = append(faults, "the tap saw nothing")
	}
	for i := range h.keys {
		for name, k := range h.keys[i] {
			if bytes.Contains(wire, k[:32]) {
				faults = append(faults, fmt.Sprintf("the %s of node %d stood in a stream", name, i))
			}
		}
	}
	if bytes.Contains(wire, []byte("canary-")) {
		faults = append(faults, "a text stood in a stream")
	}
	return faults
}

// authors finds whose each entry is, with all keys there are.
func (h *hoard) authors(cs []identity.Commitment) map[envelope.ID]identity.Commitment {
	out := map[envelope.ID]identity.Commitment{}
	of := map[[32]byte]identity.Commitment{}
	a := oracle.New(cs, oracle.KEMs{})
	for _, gk := range h.group {
		a.Hold(gk, oracle.AsGroup)
		for _, c := range cs {
			of[[32]byte(space.KDF(gk, space.LabelAuthor, c[:], 32))] = c
		}
	}
	for id, env := range h.envs {
		if env.Type() != envelope.Entry {
			continue
		}
		it := oracle.Enveloped("", env)
		it.Opened = func(_ *oracle.Attacker, key, _ []byte) { out[id] = of[[32]byte(key)] }
		a.See(it)
	}
	return out
}
