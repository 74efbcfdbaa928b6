package envelope

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// shelf is a Topic with the envelopes that it accepted, as a node has it.
type shelf struct {
	*Topic
	envs   map[ChainID][]Envelope
	proofs map[ChainID]Fork
	page   int
}

func newShelf(id TopicID) *shelf {
	s := &shelf{Topic: NewTopic(id), envs: map[ChainID][]Envelope{}, proofs: map[ChainID]Fork{}, page: 3}
	s.SetIDs(s)
	return s
}

func (s *shelf) IDAt(c ChainID, seq uint64) (ID, bool) {
	if seq < uint64(len(s.envs[c])) {
		return s.envs[c][seq].ID(), true
	}
	return ID{}, false
}

func (s *shelf) Envelopes(c ChainID, from, to uint64) []Envelope {
	if envs := s.envs[c]; from < uint64(len(envs)) {
		return envs[from:min(to+1, uint64(len(envs)), from+uint64(s.page))]
	}
	return nil
}

// keep makes an advance durable and committed, and takes what it left over.
func (s *shelf) keep(adv Advance) error {
	if adv.IsZero() {
		return nil
	}
	id := adv.Chain.ID
	if adv.Cut {
		s.envs[id] = slices.Clone(s.envs[id][:adv.Chain.Length])
	}
	s.envs[id] = append(s.envs[id], adv.New...)
	if adv.Fork != nil {
		s.proofs[id] = *adv.Fork
	} else if !adv.Chain.Forked {
		delete(s.proofs, id)
	}
	s.Commit(adv)
	for _, run := range adv.Left {
		// The first of them may cut the chain to before the next.
		var gap ErrGap
		err := s.take(nil, run)
		if err != nil && !errors.Is(err, ErrFork) && !errors.Is(err, ErrDuplicate) && !errors.As(err, &gap) {
			return err
		}
	}
	return nil
}

func (s *shelf) take(cert *Certificate, run []Envelope) error {
	adv, err := s.Check(cert, run)
	return errors.Join(err, s.keep(adv))
}

// check holds a shelf against what it says of itself.
func (s *shelf) check(t rapid.TB) {
	want := make(map[ID]bool)
	for _, envs := range s.envs {
		for id := range idsOf(envs) {
			want[id] = true
		}
	}
	if s.Count() != uint64(len(want)) || s.Digest() != naive(want) {
		t.Fatalf("%d envelopes counted, %d kept, or another digest", s.Count(), len(want))
	}
	for id, c := range s.chains {
		if c.Length != uint64(len(s.envs[id])) || c.Length > 0 && c.Head != s.envs[id][c.Length-1].Head() {
			t.Fatalf("chain of %d, %d kept", c.Length, len(s.envs[id]))
		}
		proof, ok := s.proofs[id]
		if ok != c.Forked || ok && (proof.Seq() != c.Fork || proof.Verify(s.id) != nil || c.Length > c.Fork) {
			t.Fatalf("fork at %d of a chain of %d, proof: %v", c.Fork, c.Length, ok)
		}
	}
}

// standing fails unless a chain has so many envelopes and forked there, if it
// is not to be unforked.
func (s *shelf) standing(t *testing.T, id ChainID, length, fork int) {
	t.Helper()
	s.check(t)
	if n := len(s.envs[id]); n != length {
		t.Fatalf("%d envelopes stand, want %d", n, length)
	}
	at, forked := s.Fork(id)
	if forked != (fork >= 0) || forked && at != uint64(fork) {
		t.Fatalf("forked %v at %d, want %d", forked, at, fork)
	}
}

func TestTopicFork(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 9)
	branch := c.fork(2).grow(t, 6, 'b')
	for _, f := range []struct {
		name string
		run  []Envelope
	}{
		{"at the head", branch.run[3:6]},
		{"across the head", branch.run[2:8]},
		{"below the head", branch.run[3:5]},
		{"from the beginning", branch.run[1:]},
	} {
		t.Run(f.name, func(t *testing.T) {
			s := newShelf(c.top)
			if err := s.take(&c.cert, c.run[:6]); err != nil {
				t.Fatal(err)
			}
			spoilt := slices.Clone(f.run)
			spoilt[len(spoilt)-1] = spoil(t, spoilt[len(spoilt)-1])
			if err := s.take(nil, spoilt); !errors.Is(err, space.ErrForged) {
				t.Fatal(err)
			}
			s.standing(t, c.id, 6, -1)
			if err := s.take(nil, f.run); !errors.Is(err, ErrFork) {
				t.Fatal(err)
			}
			s.standing(t, c.id, 3, 3)
			for _, run := range [][]Envelope{c.run[3:], c.run[6:], branch.run[3:], c.run[8:]} {
				if err := s.take(nil, run); !errors.Is(err, ErrFork) {
					t.Errorf("a run from %d: %v", run[0].Seq(), err)
				}
			}
			if err := s.take(nil, c.run[1:3]); !errors.Is(err, ErrDuplicate) {
				t.Error(err)
			}
			s.standing(t, c.id, 3, 3)
		})
	}
}

// A run behind the head of which the branch is not known proves nothing yet.
func TestTopicParted(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 9)
	branch := c.fork(2).grow(t, 6, 'b')
	s := newShelf(c.top)
	if err := s.take(&c.cert, c.run[:6]); err != nil {
		t.Fatal(err)
	}
	var parted ErrParted
	if err := s.take(nil, branch.run[6:]); !errors.As(err, &parted) || parted.At != 5 || !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	s.standing(t, c.id, 6, -1)
	// One envelope of it in the place of one of ours proves a fork there, and
	// what comes of it later one below.
	for i := 5; i > 3; i-- {
		if err := s.take(nil, branch.run[i:i+1]); !errors.Is(err, ErrFork) {
			t.Fatal(err)
		}
		s.standing(t, c.id, i, i)
		if f := s.proofs[c.id]; func() bool { _, same := f.Parent(); return same }() {
			t.Error("branches that parted below have one parent")
		}
	}
	if err := s.take(nil, branch.run[3:4]); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	s.standing(t, c.id, 3, 3)
}

// Two signatures on one content are two envelopes, hence a fork, also where
// only what follows makes one of them authentic.
func TestTopicTwoSignatures(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 2)
	twin := c.fork(1)
	twin.addSpoiled(t)
	if c.run[2].Bytes()[0] != twin.run[2].Bytes()[0] || c.run[2].ID() == twin.run[2].ID() {
		t.Fatal("not two signatures on one content")
	}
	s := newShelf(c.top)
	if err := s.take(&c.cert, c.run); err != nil {
		t.Fatal(err)
	}
	if err := s.take(nil, twin.run[2:]); !errors.Is(err, space.ErrForged) {
		t.Fatal("bytes that nothing covers prove a fork:", err)
	}
	twin.grow(t, 1)
	if err := s.take(nil, twin.run[2:]); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	s.standing(t, c.id, 2, 2)
}

// What stands only by a signature beyond the fork does not: nobody could pass
// it on without the branch.
func TestTopicForkUncovered(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 2)
	c.addSpoiled(t)
	c.addSpoiled(t)
	branch := c.fork(4)
	c.grow(t, 2)
	branch.grow(t, 2, 'b')
	for _, order := range [][]*chain{{c, branch}, {branch, c}} {
		s := newShelf(c.top)
		if err := s.take(&c.cert, order[0].run); err != nil {
			t.Fatal(err)
		}
		if err := s.take(nil, order[1].run); !errors.Is(err, ErrFork) {
			t.Fatal(err)
		}
		s.standing(t, c.id, 3, 5)
		if err := s.take(nil, c.run[3:]); !errors.Is(err, ErrFork) {
			t.Fatal(err)
		}
		s.standing(t, c.id, 3, 5)
	}
}

// A run that waited and links elsewhere is left over when the gap closes.
func TestTopicForkPending(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 5)
	branch := c.fork(1).grow(t, 6, 'b')
	s := newShelf(c.top)
	if err := s.take(&c.cert, c.run[:2]); err != nil {
		t.Fatal(err)
	}
	refuseGap(t, s.Topic, branch.run[4:], ErrGap{Have: 2, Want: 4, Kept: true})
	refuseGap(t, s.Topic, c.run[4:5], ErrGap{Have: 2, Want: 4, Kept: true})
	if got := len(s.pending.chains[c.id].pieces); got != 2 {
		t.Errorf("%d of two branches wait", got)
	}
	if err := s.take(nil, c.run[2:]); err != nil {
		t.Fatal(err)
	}
	s.standing(t, c.id, 4, 4)
	if len(s.pending.chains) != 0 {
		t.Error("runs of a forked chain still wait")
	}
}

func proofOf(t testing.TB, c *chain, a, b []Envelope) Fork {
	t.Helper()
	f := newFork(c.cert, a, b)
	raw, err := f.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = ParseFork(raw); err != nil {
		t.Fatal(err)
	}
	if again, err := f.AppendBinary(nil); err != nil || !bytes.Equal(again, raw) || f.Len() != len(raw) {
		t.Fatal("written differently", err)
	}
	return f
}

func TestProve(t *testing.T) {
	iss := newIssuer(0x33)
	c := iss.chain(t, 0x55, 0x44).grow(t, 9)
	branch := c.fork(4)
	branch.addSpoiled(t)
	branch.grow(t, 2, 'b')
	f := proofOf(t, c, c.run[5:], branch.run[5:])
	if f.Seq() != 5 || f.Chain() != c.id || len(f.A)+len(f.B) != 3 {
		t.Fatalf("proof at %d of %d and %d", f.Seq(), len(f.A), len(f.B))
	}
	for name, before := range map[string]int{"first": 0, "below": 3, "at": 5, "beyond": 8} {
		s := newShelf(c.top)
		if before > 0 {
			if err := s.take(&c.cert, c.run[:before]); err != nil {
				t.Fatal(err)
			}
		}
		adv, err := s.Prove(f)
		if err != nil {
			t.Fatal(name, err)
		}
		if err := s.keep(adv); err != nil {
			t.Fatal(err)
		}
		s.standing(t, c.id, min(before, 5), 5)
		if _, err := s.Prove(f); !errors.Is(err, ErrDuplicate) {
			t.Error(name, err)
		}
		if err := s.take(&c.cert, c.run); before < 5 && err != nil || before >= 5 && !errors.Is(err, ErrFork) {
			t.Error(name, err)
		}
		s.standing(t, c.id, 5, 5)
	}
	s := newShelf(c.top)
	for _, at := range []struct {
		fork, lowest int
		err          error
	}{{7, 7, nil}, {5, 5, nil}, {6, 5, ErrDuplicate}} {
		lower := c.fork(uint64(at.fork-1)).grow(t, 1, 'd')
		adv, err := s.Prove(proofOf(t, c, c.run[at.fork:], lower.run[at.fork:]))
		if !errors.Is(err, at.err) {
			t.Fatal(at.fork, err)
		}
		if err := s.keep(adv); err != nil {
			t.Fatal(err)
		}
		s.standing(t, c.id, 0, at.lowest)
	}
	s = newShelf(c.top)
	other := iss.chain(t, 0x55, 0x45).grow(t, 9)
	self := newIssuer(0x34).certify(t, key(0x55), c.id, 2, 1)
	for name, bad := range map[string]Fork{
		"unsigned":     newFork(c.cert, c.run[5:6], branch.run[5:6]),
		"self-made":    newFork(self, c.run[5:], branch.run[5:]),
		"another cert": newFork(other.cert, c.run[5:], branch.run[5:]),
	} {
		if adv, err := s.Prove(bad); !errors.Is(err, space.ErrForged) || !adv.IsZero() {
			t.Error(name, err)
		}
	}
	for name, bad := range map[string]Fork{
		"one envelope": {Cert: c.cert, A: c.run[5:6], B: c.run[5:6]},
		"two places":   newFork(c.cert, c.run[4:5], c.run[5:6]),
		"two chains":   newFork(c.cert, c.run[5:6], other.run[5:6]),
	} {
		if _, err := bad.AppendBinary(nil); !errors.Is(err, space.ErrMalformed) {
			t.Error(name, err)
		}
	}
}

func newFinal(id TopicID, of func(ChainID) (Head, bool)) *shelf {
	s := newShelf(id)
	s.SetFinal(of)
	return s
}

// Up to what is final a chain is the branch that leads there.
func TestTopicFinal(t *testing.T) {
	c := newIssuer(0x33).chain(t, 0x55, 0x44).grow(t, 9)
	branch := c.fork(2).grow(t, 9, 'b')
	final := c.run[6].Head()
	of := func(ChainID) (Head, bool) { return final, true }
	f := proofOf(t, c, c.run[3:], branch.run[3:])

	s := newShelf(c.top)
	s.SetFinal(of)
	if err := s.take(&c.cert, c.run); err != nil {
		t.Fatal(err)
	}
	if err := s.take(nil, branch.run[3:6]); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	if _, err := s.Prove(f); !errors.Is(err, ErrDuplicate) {
		t.Fatal(err)
	}
	at := c.fork(5).grow(t, 3, 'd') // differs in the final envelope itself
	if err := s.take(nil, at.run[6:7]); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	if _, err := s.Prove(proofOf(t, c, c.run[6:], at.run[6:])); !errors.Is(err, ErrDuplicate) {
		t.Fatal(err)
	}
	s.standing(t, c.id, 10, -1) // nothing is erased
	if _, err := newFinal(c.top, of).Prove(f); !errors.Is(err, ErrDuplicate) {
		t.Fatal("a proof below what is final marks a chain of which nothing is here:", err)
	}

	// Who holds the other branch comes back to the final one.
	s = newShelf(c.top)
	s.SetFinal(of)
	if err := s.take(&c.cert, branch.run[:6]); err != nil {
		t.Fatal(err)
	}
	if err := s.take(nil, branch.run[6:]); !errors.Is(err, ErrNotFinal) || !errors.Is(err, space.ErrForged) {
		t.Fatal(err)
	}
	if err := s.take(nil, c.run[2:6]); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	s.standing(t, c.id, 3, -1)
	if err := s.take(nil, c.run[3:]); err != nil {
		t.Fatal(err)
	}
	s.standing(t, c.id, 10, -1)

	// A fork above is one.
	above := c.fork(7).grow(t, 2, 'c')
	if err := s.take(nil, above.run[8:]); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	s.standing(t, c.id, 8, 8)

	// A mark falls, and a branch is cut, once the log says what is final.
	s = newShelf(c.top)
	s.SetFinal(func(ChainID) (Head, bool) { return final, s.final != nil && len(s.proofs) > 0 })
	if err := s.take(&c.cert, c.run[:9]); err != nil {
		t.Fatal(err)
	}
	if err := s.take(nil, branch.run[3:6]); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	s.standing(t, c.id, 3, 3)
	adv, err := s.Resolve(c.id)
	if err != nil || adv.IsZero() {
		t.Fatal(err)
	}
	if err := s.keep(adv); err != nil {
		t.Fatal(err)
	}
	s.SetFinal(of)
	if err := s.take(nil, c.run[3:]); err != nil {
		t.Fatal(err)
	}
	s.standing(t, c.id, 10, -1)
	s.SetFinal(func(ChainID) (Head, bool) { return branch.run[6].Head(), true })
	if adv, err = s.Resolve(c.id); err != nil || !adv.Cut {
		t.Fatal(err)
	}
	if err := s.keep(adv); err != nil {
		t.Fatal(err)
	}
	s.standing(t, c.id, 6, -1)
	s.SetFinal(of)
	if adv, err = s.Resolve(c.id); err != nil || !adv.IsZero() {
		t.Error("a chain that stays was touched", err)
	}
}

// Two branches of one chain, and the proof, in whatever order, cuts and
// repeats they come: one set, one count, one digest.
func TestForkNaive(t *testing.T) {
	iss := newIssuer(0x33)
	rapid.Check(t, func(r *rapid.T) {
		c := iss.chain(t, 0x55, byte(0x60))
		shared := rapid.IntRange(0, 12).Draw(r, "shared")
		for i := range shared {
			if i > 0 && rapid.IntRange(0, 3).Draw(r, "spoiled") == 0 {
				c.addSpoiled(t)
			} else {
				c.grow(t, 1)
			}
		}
		a, b := c.fork(c.seq-1), c.fork(c.seq-1)
		a.grow(t, rapid.IntRange(1, 9).Draw(r, "one branch"), 'a')
		b.grow(t, rapid.IntRange(1, 9).Draw(r, "the other"), 'b')
		at := uint64(len(c.run))
		stands := Covered(c.run)

		all := append(cut(r, a), cut(r, b)...)
		if rapid.Bool().Draw(r, "a third branch") {
			all = append(all, cut(r, c.fork(at-1).grow(t, 3, 'c'))...)
		}
		for _, d := range all {
			if rapid.Bool().Draw(r, "repeat") {
				all = append(all, d)
			}
		}
		all = append(all, forge(r, t, all)...)
		proof := newFork(c.cert, a.run[at:], b.run[at:])
		proofs := rapid.IntRange(0, 2).Draw(r, "proofs")
		order := make([]int, len(all)+proofs)
		for i := range order {
			order[i] = i
		}
		order = rapid.Permutation(order).Draw(r, "order")
		s := newShelf(iss.topic)
		s.page = rapid.IntRange(1, 5).Draw(r, "page")
		deliver := func(i int) {
			if i >= len(all) {
				adv, err := s.Prove(proof)
				if err != nil && !errors.Is(err, ErrDuplicate) {
					r.Fatal(err)
				}
				if err := s.keep(adv); err != nil {
					r.Fatal(err)
				}
				return
			}
			adv, err := s.Check(all[i].cert, all[i].run)
			if all[i].forged && !adv.IsZero() {
				r.Fatalf("a forged run of %d changed something: %v", len(all[i].run), err)
			}
			if err := s.keep(adv); err != nil {
				r.Fatal(err)
			}
		}
		for _, i := range order {
			deliver(i)
			s.check(r)
		}
		// Gossip may drop and sync comes again, from the beginning on: what
		// left the chain behind its head shows where when it comes in order.
		for i := range all {
			deliver(i)
		}
		s.check(r)
		if n := len(s.envs[c.id]); n != stands {
			r.Fatalf("%d envelopes stand, want %d", n, stands)
		}
		if fork, ok := s.Fork(c.id); !ok || fork != at || s.Digest() != naive(idsOf(c.run[:stands])) {
			r.Fatalf("forked %v at %d, want %d", ok, fork, at)
		}
	})
}

func FuzzParseFork(f *testing.F) {
	iss := newIssuer(0x33)
	c := iss.chain(f, 0x55, 0x44).grow(f, 3)
	branch := c.fork(1)
	branch.addSpoiled(f)
	branch.grow(f, 1, 'b')
	proof := newFork(c.cert, c.run[2:], branch.run[2:])
	raw, err := proof.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:CertificateSize+4])
	f.Add(raw[:len(raw)-300])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseFork(b)
		if err != nil {
			return
		}
		again, err := p.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatal("written differently", err)
		}
		if p.Verify(iss.topic) != nil {
			return
		}
		if p.A[0].ID() == p.B[0].ID() || p.Cert.Verify(iss.topic, p.Chain()) != nil {
			t.Fatal("proves nothing")
		}
		adv, err := NewTopic(iss.topic).Prove(p)
		if err != nil || adv.Chain.Fork != p.Seq() || adv.Count != 0 {
			t.Fatal("a good proof is refused", err)
		}
	})
}
