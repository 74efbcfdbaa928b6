package node_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/oracle"
)

// hoard is everything that was sent, and what each node ever held.
type hoard struct {
	story *trove
	child *trove // nil: the story has none
	logs  map[identity.Commitment][][]byte
	held  []*node.Holdings // the newest of each node
}

// trove is what there is of one space.
type trove struct {
	id      space.ID
	by      int // whose log counts
	sid     [32]byte
	control map[[32]byte][]byte
	log     [][]byte // that node's, in order
	envs    map[envelope.ID]envelope.Envelope
	epochOf map[envelope.TopicID]uint64
	group   map[uint64][]byte // what that node knows
	keys    []hoarded         // all keys that each node ever held
}

// hoarded are the keys of a node in a space, by what they are called, and the
// last epoch that it knows the log of.
type hoarded struct {
	named map[string][]byte
	last  uint64
}

func newTrove(id space.ID, by int) *trove {
	return &trove{
		id: id, by: by, control: map[[32]byte][]byte{}, envs: map[envelope.ID]envelope.Envelope{},
		epochOf: map[envelope.TopicID]uint64{}, group: map[uint64][]byte{},
	}
}

func newHoard(s *saga) *hoard {
	h := &hoard{story: newTrove(s.id, 0), logs: map[identity.Commitment][][]byte{}}
	if s.born {
		h.child = newTrove(s.child, s.boss)
	}
	return h
}

func (h *hoard) troves() []*trove {
	if h.child == nil {
		return []*trove{h.story}
	}
	return []*trove{h.story, h.child}
}

// take reads all homes.
func (h *hoard) take(s *saga) {
	for i, n := range s.w.Nodes() {
		d, err := node.Dump(n.Node)
		if err != nil {
			s.t.Fatal(err)
		}
		if i == len(h.held) {
			h.held = append(h.held, nil)
			for _, t := range h.troves() {
				t.keys = append(t.keys, hoarded{named: map[string][]byte{}})
			}
		}
		h.held[i] = d
		if len(d.Log) > len(h.logs[d.C]) {
			h.logs[d.C] = d.Log
		}
		for _, t := range h.troves() {
			if sp := d.Spaces[t.id]; sp != nil {
				t.take(i, sp)
			}
		}
	}
}

func (t *trove) take(i int, sp *node.HeldSpace) {
	t.sid = sp.SpaceID
	for _, raw := range sp.Control {
		t.control[sha256.Sum256(raw)] = raw
	}
	if i == t.by {
		t.log = sp.Control
		for n, k := range sp.Keys {
			t.group[n] = k
		}
	}
	for topic, n := range sp.Topics {
		t.epochOf[topic] = n
	}
	for _, run := range sp.Envelopes {
		for _, env := range run {
			t.envs[env.ID()] = env
		}
	}
	for kind, keys := range map[string]map[uint64][]byte{"keys": sp.Keys, "issuer": sp.Issuers, "closed": sp.Closed} {
		for n, k := range keys {
			t.keys[i].named[fmt.Sprintf("%s %d %x", kind, n, k[:4])] = k
			if kind != "issuer" {
				t.keys[i].last = max(t.keys[i].last, n)
			}
		}
	}
}

// page is what a control log says after one of its entries, and the rotation
// that the entry carries, if any.
type page struct {
	st     *control.State
	rot    *control.Rotation
	gens   map[identity.Commitment]uint32 // the generation of the per-user key that each member was last told under
	timeMs int64
}

// pages reads the log of a space.
func (h *hoard) pages(s *saga, t *trove) (out []page) {
	var st *control.State
	gens := map[identity.Commitment]uint32{}
	for _, raw := range t.log {
		before := st
		e, err := control.Parse(raw)
		if err == nil {
			var ck []byte
			if st != nil && !e.InClear() {
				ck = space.KDF(t.group[st.Epoch], space.LabelCtl, nil, 32)
			}
			err = e.Open(ck)
		}
		if err == nil {
			st, err = control.Apply(st, e)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		next := map[identity.Commitment]uint32{}
		for m := range st.Members() {
			next[m.C] = gens[m.C]
			if before != nil {
				if _, in := before.Member(m.C); in {
					continue
				}
			}
			next[m.C] = h.genAt(m.C, m.ILHead)
		}
		rot := oracle.Rotation(e)
		if rot != nil {
			for _, w := range rot.Epoch.Wraps {
				if _, in := next[w.C]; in {
					next[w.C] = w.PUKGen
				}
			}
		}
		gens = next
		out = append(out, page{st, rot, next, e.TimeMs})
	}
	return out
}

// genAt is the generation of somebody's per-user key at a head of the identity log.
func (h *hoard) genAt(c identity.Commitment, head [32]byte) uint32 {
	for n := range h.logs[c] {
		if st, err := identity.Verify(h.logs[c][:n+1]); err == nil && st.Head == head {
			return st.PUK.Gen
		}
	}
	return 0
}

// ended is the generation of the per-user key that the revocation of a node's
// device made: what is told under it or a later one is not told to the device.
// It is 0 where the device was not revoked.
func (h *hoard) ended(i int) uint32 {
	d := h.held[i]
	for n := range h.logs[d.C] {
		if st, err := identity.Verify(h.logs[d.C][:n+1]); err == nil && st.Revoked(d.Device.ID()) {
			return st.PUK.Gen
		}
	}
	return 0
}

// overdue tells what the logs still have to say of what happened: that a device
// was revoked, that a child moved.
func (h *hoard) overdue(s *saga) error {
	last := map[*trove]page{}
	for _, t := range h.troves() {
		if len(t.log) == 0 {
			return fmt.Errorf("no log of %s", t.id)
		}
		pages := h.pages(s, t)
		last[t] = pages[len(pages)-1]
		for i, d := range h.held {
			if gen, in := last[t].gens[d.C]; in && gen < h.ended(i) {
				return fmt.Errorf("%s: epoch %d is wrapped to generation %d of a per-user key; with %d a device was revoked", t.id, last[t].st.Epoch, gen, h.ended(i))
			}
		}
	}
	if h.child == nil {
		return nil
	}
	d, in := last[h.story].st.Delegation(h.child.sid)
	if now := last[h.child].st.Epoch; in && d.Descriptor.Epoch != now {
		return fmt.Errorf("the parent knows epoch %d of the child, which is at %d", d.Descriptor.Epoch, now)
	}
	return nil
}

// rights is what the control logs give a node, by epoch: what it may read, what
// it must be able to read while its person is in, and what it can read for
// sure, whoever is in: what was wrapped to it in entries that it can open.
type rights struct{ all, own, due, sure []bool }

func newRights(epochs int) *rights {
	return &rights{make([]bool, epochs+2), make([]bool, epochs+2), make([]bool, epochs+2), make([]bool, epochs+2)}
}

// allowed works out from the control logs who may read what of a space. Of the
// child it must be known already, if the space has one.
func (h *hoard) allowed(s *saga, t *trove, child []*rights) ([]*rights, *control.State) {
	pages := h.pages(s, t)
	st := pages[len(pages)-1].st
	var out []*rights
	for i := range h.held {
		out = append(out, h.allow(i, t, pages, newRights(len(t.group))))
	}
	if child != nil {
		h.send(s, pages, child, out)
	}
	for i, r := range out {
		h.chain(i, t, pages, child, r)
		if st.Policy.History == space.HistoryFull {
			for n := len(t.group); n > 0; n-- {
				for _, known := range [][]bool{r.all, r.own, r.due, r.sure} {
					known[n] = known[n] || known[n+1]
				}
			}
		}
	}
	return out, st
}

// allow is what the roster gives a node.
func (h *hoard) allow(i int, t *trove, pages []page, r *rights) *rights {
	c, ended := h.held[i].C, h.ended(i)
	for k, p := range pages {
		m, in := p.st.Member(c)
		if !in || ended > 0 && p.gens[c] >= ended {
			continue
		}
		now := p.st.Epoch
		for n := m.Epoch; n <= now; n++ { // since its stay began
			r.all[n] = r.all[n] || m.Level >= space.LevelRead
		}
		r.own[now] = r.own[now] || m.Level == space.LevelReadSelf
		came := k == 0 || pages[k-1].st.Epoch != now
		if !came {
			_, was := pages[k-1].st.Member(c)
			came = !was
		}
		r.due[now] = r.due[now] || came && m.Level >= space.LevelRead
	}
	return r
}

// send adds what the child gives: an epoch is open to those who were told of an
// epoch of the child that the parent's log knew, or that followed while the
// parent's epoch was in force.
func (h *hoard) send(s *saga, pages []page, child, out []*rights) {
	below := h.pages(s, h.child)
	for k, p := range pages {
		d, in := p.st.Delegation(h.child.sid)
		if !in {
			continue
		}
		last := d.Descriptor.Epoch
		for _, q := range below {
			if k+1 == len(pages) || q.timeMs <= pages[k+1].timeMs {
				last = max(last, q.st.Epoch)
			}
		}
		for i, r := range out {
			for e := d.Descriptor.Epoch; e <= last; e++ {
				r.all[p.st.Epoch] = r.all[p.st.Epoch] || child[i].all[e]
				r.own[p.st.Epoch] = r.own[p.st.Epoch] || child[i].own[e]
			}
		}
	}
}

// chain follows the rotations from the last epoch whose keys were in a node's
// home: each is sealed under the keys of the epoch before.
func (h *hoard) chain(i int, t *trove, pages []page, child []*rights, r *rights) {
	c, ended, know := h.held[i].C, h.ended(i), t.keys[i].last
	for _, p := range pages {
		n := p.st.Epoch
		if p.rot == nil || n > know+1 || know == 0 {
			continue
		}
		m, in := p.st.Member(c)
		if in && (ended == 0 || p.gens[c] < ended) {
			know = max(know, n)
			r.sure[n] = r.sure[n] || m.Level >= space.LevelRead
		}
		if child == nil {
			continue
		}
		if d, in := p.st.Delegation(h.child.sid); in && child[i].sure[d.Descriptor.Epoch] {
			know, r.sure[n] = max(know, n), true
		}
	}
}

// judge lets everybody try everything, and tells what should not be.
func (h *hoard) judge(s *saga) (faults []string) {
	q := h.inquiry(s)
	for i := range h.held {
		faults = append(faults, q.of(s, i)...)
	}
	if len(h.held[outsider].Spaces) > 0 {
		faults = append(faults, "there was no outsider")
	}
	if err := h.overdue(s); err != nil {
		faults = append(faults, err.Error())
	}
	return append(faults, h.judgeWire(s)...)
}

// caught reports whether a node opens what it should not.
func (h *hoard) caught(s *saga, i int) bool { return len(h.inquiry(s).of(s, i)) > 0 }

// inquiry is what the logs say, before anybody is asked.
type inquiry struct {
	*hoard
	kems   oracle.KEMs
	author map[envelope.ID]identity.Commitment
	may    map[*trove][]*rights
	st     map[*trove]*control.State
}

func (h *hoard) inquiry(s *saga) inquiry {
	q := inquiry{h, oracle.KEMs{}, map[envelope.ID]identity.Commitment{}, map[*trove][]*rights{}, map[*trove]*control.State{}}
	var below []*rights
	for _, t := range slices.Backward(h.troves()) {
		q.may[t], q.st[t] = h.allowed(s, t, below)
		below = q.may[t]
		h.authors(t, q.author)
	}
	return q
}

// of lets one node try everything.
func (q inquiry) of(s *saga, i int) (faults []string) {
	a := q.attacker(i, q.kems)
	for _, t := range q.troves() {
		faults = append(faults, q.ask(s, i, a, t, q.st[t], q.may[t][i], q.author)...)
	}
	return faults
}

// people is everybody, once.
func (h *hoard) people() (cs []identity.Commitment) {
	for _, d := range h.held {
		if !slices.Contains(cs, d.C) {
			cs = append(cs, d.C)
		}
	}
	return cs
}

// attacker is a node with all that it ever held, and everything that was sent.
func (h *hoard) attacker(i int, kems oracle.KEMs) *oracle.Attacker {
	a := oracle.New(h.people(), kems)
	for _, log := range h.logs {
		a.See(oracle.IdentityLog(log)...)
	}
	d := h.held[i]
	device := d.Device.Marshal()
	for _, k := range [][]byte{device[1:33], device[65:97]} {
		a.Hold(k, oracle.AsOther)
	}
	a.Hold(device[33:65], oracle.AsKEM)
	a.Hold(d.PUK.Marshal()[5:], oracle.AsPUK)
	for _, t := range h.troves() {
		for hash, raw := range t.control {
			a.See(oracle.Entry(fmt.Sprintf("entry %x", hash), raw, t.sid, nil)...)
		}
		for id, env := range t.envs {
			a.See(oracle.Enveloped(fmt.Sprintf("envelope %x", id), env))
		}
		for name, k := range t.keys[i].named {
			if strings.HasPrefix(name, "keys") {
				oracle.Keys(a, nil, k)
			} else {
				a.Hold(k, map[bool]oracle.Role{true: oracle.AsControl, false: oracle.AsOther}[strings.HasPrefix(name, "closed")])
			}
		}
	}
	return a
}

// ask holds what a node opens of a space against what it may and what it must.
func (h *hoard) ask(s *saga, i int, a *oracle.Attacker, t *trove, st *control.State, r *rights, author map[envelope.ID]identity.Commitment) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("node %d, %s: ", i, t.id)+fmt.Sprintf(format, args...))
	}
	c := h.held[i].C
	m, in := st.Member(c)
	stays := in && m.Level >= space.LevelRead && h.ended(i) == 0
	for id, env := range t.envs {
		if env.Type() != envelope.Entry {
			continue
		}
		n := t.epochOf[env.Topic()]
		may := r.all[n] || r.own[n] && author[id] == c
		can := a.Open(fmt.Sprintf("envelope %x", id))
		must := stays && r.due[n] || r.sure[n]
		s.asked(can, may, must)
		if can && !may || must && !can {
			fault("opens an entry of epoch %d: %v; it may: %v", n, can, may)
		}
	}
	known := a.Secrets()
	for n, gk := range t.group {
		if slices.Contains(known, [32]byte(gk)) && !r.all[n] {
			fault("knows the group key of epoch %d", n)
		}
	}
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
	look := func(i int, name string, k []byte) {
		if bytes.Contains(wire, k[:32]) {
			faults = append(faults, fmt.Sprintf("the %s of node %d stood in a stream", name, i))
		}
	}
	for i, d := range h.held {
		device := d.Device.Marshal()
		for at := 1; at < 97; at += 32 {
			look(i, "device's secret", device[at:at+32])
		}
		look(i, "per-user key", d.PUK.Marshal()[5:])
		look(i, "key of the DID", d.DIDKey)
		for _, t := range h.troves() {
			for name, k := range t.keys[i].named {
				look(i, name, k)
			}
		}
	}
	if bytes.Contains(wire, []byte("canary-")) {
		faults = append(faults, "a text stood in a stream")
	}
	return faults
}

// authors finds whose each entry is, with all keys there are.
func (h *hoard) authors(t *trove, out map[envelope.ID]identity.Commitment) {
	cs := h.people()
	of := map[[32]byte]identity.Commitment{}
	a := oracle.New(cs, oracle.KEMs{})
	for _, gk := range t.group {
		a.Hold(gk, oracle.AsGroup)
		for _, c := range cs {
			of[[32]byte(space.KDF(gk, space.LabelAuthor, c[:], 32))] = c
		}
	}
	for id, env := range t.envs {
		if env.Type() != envelope.Entry {
			continue
		}
		it := oracle.Enveloped("", env)
		it.Opened = func(_ *oracle.Attacker, key, _ []byte) { out[id] = of[[32]byte(key)] }
		a.See(it)
	}
}
