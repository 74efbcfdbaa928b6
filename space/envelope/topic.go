package envelope

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"sort"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/sync/lthash"
)

// MaxChains is the most chains one topic may have.
const MaxChains = 100_000

// Chain is what a replica knows of one chain: its certificate and the end of
// its accepted prefix.
type Chain struct {
	ID     ChainID
	Cert   Certificate
	Head   Head
	Length uint64 // Head.Seq+1, or 0 if nothing of it stands
	// Forked: the chain's key vouches for two envelopes at sequence Fork, and
	// for no two at one below that are known here. The prefix ends below Fork,
	// and there in an envelope with a good signature of its own.
	Forked bool
	Fork   uint64
}

// IDs answers for the accepted envelopes of one topic; ok is false beyond the
// prefix. The store has them; a Topic keeps heads only.
type IDs interface {
	IDAt(chain ChainID, seq uint64) (id ID, ok bool)
}

// Held is what IDs has to be too for a chain to be cut back: it gives accepted
// envelopes of a chain from seq from on in order, to seq to at most and at
// least one; none if they are not here.
type Held interface {
	Envelopes(chain ChainID, from, to uint64) []Envelope
}

// Topic is the keyless replica of one topic: the heads of its chains and the
// set hash over the raw ids of all accepted envelopes. Runs go in by Check,
// which changes nothing but what waits for gaps, then into the caller's store,
// then by Commit. One goroutine owns a Topic.
type Topic struct {
	id      TopicID
	chains  map[ChainID]*Chain
	order   []ChainID // ascending
	count   uint64
	state   lthash.State
	pending pending
	ids     IDs
	final   func(ChainID) (Head, bool)
	sum     *Sum   // while CheckSummed runs
	commits uint64 // which Advance is current
}

// Advance is what a run or a proof makes of a Topic: the chain as it will be,
// the envelopes that enter its prefix in order, those that waited included, and
// count and set hash with them.
type Advance struct {
	Chain Chain
	New   []Envelope
	Count uint64
	State lthash.State
	// Cut: the chain ends earlier than before; what was behind Chain.Length
	// goes. New is empty.
	Cut bool
	// Fork is the proof to keep with the chain in the place of any other; where
	// Chain.Forked is not set, none is kept.
	Fork *Fork
	// Left are runs that waited and leave the chain: to be given to Check after
	// the commit.
	Left [][]Envelope

	base uint64 // the Topic's commits when it was made, plus one
}

// IsZero reports whether there is nothing to store and to commit.
func (a *Advance) IsZero() bool { return a.base == 0 }

// NewTopic is the empty replica of a topic.
func NewTopic(id TopicID) *Topic {
	return &Topic{id: id, chains: make(map[ChainID]*Chain)}
}

// RestoreTopic is the replica with these chains, count and set hash. What
// waited for gaps is not restored; sync brings it again. It refuses chains
// that do not add up.
func RestoreTopic(id TopicID, chains []Chain, count uint64, state lthash.State) (*Topic, error) {
	t := NewTopic(id)
	sum := uint64(0)
	for _, c := range chains {
		if c.Length != c.Head.Seq+1 && c.Length != 0 || t.chains[c.ID] != nil {
			return nil, fmt.Errorf("restore topic: %w: chain of length %d", space.ErrMalformed, c.Length)
		}
		t.chains[c.ID] = &c
		t.order = append(t.order, c.ID)
		sum += c.Length
	}
	if sum != count {
		return nil, fmt.Errorf("restore topic: %w: %d envelopes in chains, %d counted", space.ErrMalformed, sum, count)
	}
	slices.SortFunc(t.order, compareChains)
	t.count, t.state = count, state
	return t, nil
}

// SetIDs gives the Topic access to accepted ids, so that Check tells a fork
// below a head from a duplicate. Without it such a run is ErrDuplicate. A chain
// that forks is cut back only if ids is Held too.
func (t *Topic) SetIDs(ids IDs) { t.ids = ids }

// SetFinal tells which envelope of a chain is final. Up to it a chain is the
// branch that leads to it, whatever else was signed; another envelope in its
// place is ErrNotFinal.
func (t *Topic) SetFinal(final func(ChainID) (Head, bool)) { t.final = final }

// ID is the topic's id.
func (t *Topic) ID() TopicID { return t.id }

// Chain is what is known of a chain of which something stands.
func (t *Topic) Chain(id ChainID) (Chain, bool) {
	if c := t.chains[id]; c != nil && c.Length > 0 {
		return *c, true
	}
	return Chain{}, false
}

// Chains are all chains of which something stands, by ascending id. Nothing may
// be committed meanwhile.
func (t *Topic) Chains() iter.Seq[Chain] {
	return func(yield func(Chain) bool) {
		for _, id := range t.order {
			if c := t.chains[id]; c.Length > 0 && !yield(*c) {
				return
			}
		}
	}
}

// Forks are the chains that forked and where, by ascending id, those included
// of which nothing stands.
func (t *Topic) Forks() iter.Seq2[ChainID, uint64] {
	return func(yield func(ChainID, uint64) bool) {
		for _, id := range t.order {
			if c := t.chains[id]; c.Forked && !yield(id, c.Fork) {
				return
			}
		}
	}
}

// Fork is where a chain forked.
func (t *Topic) Fork(id ChainID) (seq uint64, ok bool) {
	if c := t.chains[id]; c != nil && c.Forked {
		return c.Fork, true
	}
	return 0, false
}

func compareChains(a, b ChainID) int { return bytes.Compare(a[:], b[:]) }

// Count is the number of accepted envelopes.
func (t *Topic) Count() uint64 { return t.count }

// State is a copy of the set hash over the accepted ids.
func (t *Topic) State() lthash.State { return t.state }

// Digest is the SHA-256 of the set hash: two replicas hold the same envelopes
// exactly when their digests and counts are equal.
func (t *Topic) Digest() [32]byte { return t.state.Sum() }

// Check judges a run, with its certificate if it begins the chain, and says
// what it would add; the part already held is dropped. An Advance that is not
// zero is to be stored and then committed before the next Check; only success
// and ErrFork come with one. Otherwise the error says why:
//
//   - ErrDuplicate: nothing in the run is new.
//   - ErrGap: it begins beyond the head; it may wait here for the rest.
//   - ErrUncertified: the chain is unknown and no certificate came with the
//     run; it may wait here for it.
//   - ErrFork: authentic, but nothing of it may enter. With an Advance it leaves
//     the chain at a sequence that is held, and the chain is cut back to below;
//     without, the chain forked before the run, or the run leaves a branch that
//     is final. ErrParted: it leaves the chain somewhere below.
//   - ErrNotFinal: it has another envelope in the place of a final one.
//   - ErrUnheld: it leaves the chain, and what would go is not here.
//   - space.ErrForged, space.ErrMalformed, space.ErrTooLarge: the run, or the
//     certificate, is wrong; whoever sent it is to blame.
func (t *Topic) Check(cert *Certificate, run []Envelope) (Advance, error) {
	return t.CheckSummed(cert, run, nil)
}

// CheckSummed is Check of a run whose Sum is known; nil: it is not.
func (t *Topic) CheckSummed(cert *Certificate, run []Envelope, sum *Sum) (Advance, error) {
	t.sum = sum
	defer func() { t.sum = nil }()
	if err := t.form(cert, run); err != nil {
		return Advance{}, fmt.Errorf("check run: %w", err)
	}
	var adv Advance
	var err error
	if c := t.chains[run[0].Chain()]; c != nil && c.Length > 0 {
		adv, err = t.continues(c, run)
	} else {
		adv, err = t.begins(c, cert, run)
	}
	if err != nil {
		return adv, fmt.Errorf("check run: %w", err)
	}
	return adv, nil
}

// CheckNext is CheckSummed of a run that simply goes on where its chain ends once
// prev is committed; nil: where it ends now. False: only Check can say, when the
// Topic is so far. It changes nothing.
func (t *Topic) CheckNext(prev *Advance, run []Envelope, sum *Sum) (Advance, bool) {
	if prev == nil && len(run) > 0 {
		if c := t.chains[run[0].Chain()]; c != nil && c.Length > 0 {
			prev = &Advance{Chain: *c, Count: t.count, State: t.state, base: t.commits}
		}
	} else if prev != nil && prev.base != t.commits+1 {
		return Advance{}, false
	}
	if prev == nil || prev.Cut || len(prev.Left) > 0 || prev.Chain.Forked || t.pending.chains[prev.Chain.ID] != nil {
		return Advance{}, false
	}
	c := prev.Chain
	if f, ok := t.finalOf(c.ID); ok && f.Seq >= c.Length {
		return Advance{}, false
	}
	if len(run) == 0 {
		return Advance{}, false
	}
	first := &run[0]
	if t.form(nil, run) != nil || first.Chain() != c.ID || first.Seq() != c.Length || first.Prev() != c.Head.ID || signed(run) != nil {
		return Advance{}, false
	}
	c.Head = run[len(run)-1].Head()
	c.Length = c.Head.Seq + 1
	adv := Advance{
		Chain: c, New: slices.Clip(run), Count: prev.Count + uint64(len(run)), State: prev.State, base: prev.base + 1,
	}
	adv.add(sum)
	return adv, true
}

// add adds the ids of what is new to the set hash.
func (a *Advance) add(sum *Sum) {
	if sum.of(a.New) {
		a.State.Merge(&sum.state)
		return
	}
	for i := range a.New {
		a.State.Add(a.New[i].id[:])
	}
}

// form refuses what no state of the topic could accept.
func (t *Topic) form(cert *Certificate, run []Envelope) error {
	if err := shape(run); err != nil {
		return err
	}
	if run[0].Topic() != t.id {
		return fmt.Errorf("%w: run of another topic", space.ErrMalformed)
	}
	if cert == nil {
		return nil
	}
	if run[0].Seq() != 0 {
		return fmt.Errorf("%w: certificate with sequence %d", space.ErrMalformed, run[0].Seq())
	}
	if run[0].Prev() != cert.ID() {
		return fmt.Errorf("%w: sequence 0 names another certificate", space.ErrForged)
	}
	return nil
}

// begins judges a run of a chain of which nothing stands; c is nil if it is not
// known at all.
func (t *Topic) begins(c *Chain, cert *Certificate, run []Envelope) (Advance, error) {
	id := run[0].Chain()
	if cert == nil {
		if err := signed(run); err != nil {
			return Advance{}, err
		}
		if run[0].Seq() > 0 && run[0].Seq() <= Window {
			t.pending.keep(id, nobody, run)
		}
		return Advance{}, ErrUncertified
	}
	if err := cert.Verify(t.id, id); err != nil {
		return Advance{}, err
	}
	if err := signed(run); err != nil {
		return Advance{}, err
	}
	if c == nil && len(t.chains) >= MaxChains {
		return Advance{}, ErrCrowded
	}
	next := Chain{ID: id, Cert: *cert}
	if c != nil {
		next.Forked, next.Fork = c.Forked, c.Fork
	}
	return t.advance(next, run)
}

// continues judges a run of a chain of which something stands.
func (t *Topic) continues(c *Chain, run []Envelope) (Advance, error) {
	first, last := run[0].Seq(), run[len(run)-1]
	if first > c.Head.Seq+1 {
		return Advance{}, t.gap(c, run)
	}
	if first == c.Head.Seq+1 {
		if run[0].Prev() != c.Head.ID {
			if err := signed(run); err != nil {
				return Advance{}, err
			}
			return Advance{}, ErrParted{At: c.Head.Seq}
		}
	} else {
		shared := min(last.Seq(), c.Head.Seq)
		id, ok := t.idAt(c, shared)
		if !ok {
			return Advance{}, ErrDuplicate
		}
		if at := shared - first; run[at].ID() != id {
			return t.fork(c, run[t.parts(c, run[:at+1]):])
		}
		if run = run[shared+1-first:]; len(run) == 0 {
			return Advance{}, ErrDuplicate
		}
	}
	if err := signed(run); err != nil {
		return Advance{}, err
	}
	return t.advance(*c, run)
}

// parts is the index of the first envelope of a run that differs from what is
// held; the last does.
func (t *Topic) parts(c *Chain, run []Envelope) int {
	return sort.Search(len(run)-1, func(i int) bool {
		id, ok := t.idAt(c, run[i].Seq())
		return ok && id != run[i].ID()
	})
}

func (t *Topic) idAt(c *Chain, seq uint64) (ID, bool) {
	switch {
	case seq == c.Head.Seq && c.Length > 0:
		return c.Head.ID, true
	case seq >= c.Length || t.ids == nil:
		return ID{}, false
	}
	return t.ids.IDAt(c.ID, seq)
}

// gap keeps an authentic run that begins beyond the head, within bounds.
func (t *Topic) gap(c *Chain, run []Envelope) error {
	if err := signed(run); err != nil {
		return err
	}
	if c.Forked && run[0].Seq() >= c.Fork {
		return ErrFork
	}
	gap := ErrGap{Have: c.Head.Seq + 1, Want: run[0].Seq()}
	if gap.Want <= c.Head.Seq+Window {
		gap.Kept = t.pending.keep(c.ID, c.Cert.WriterKey(), run)
	}
	return gap
}

// advance adds to c a checked run that continues it, and what waited for it. Of
// a chain that forked, only what stands below the fork and is covered there.
func (t *Topic) advance(c Chain, run []Envelope) (Advance, error) {
	run = slices.Clip(run)
	run, left := t.pending.extend(c.ID, run)
	if c.Forked {
		if run = below(run, c.Fork); len(run) == 0 {
			return Advance{}, ErrFork
		}
	}
	if f, ok := t.finalOf(c.ID); ok && f.Seq >= run[0].Seq() && f.Seq <= run[len(run)-1].Seq() &&
		run[f.Seq-run[0].Seq()].ID() != f.ID {
		t.pending.drop(c.ID)
		return Advance{}, ErrNotFinal
	}
	c.Head = run[len(run)-1].Head()
	c.Length = c.Head.Seq + 1
	adv := Advance{
		Chain: c, New: run, Left: left,
		Count: t.count + uint64(len(run)), State: t.state, base: t.commits + 1,
	}
	adv.add(t.sum)
	return adv, nil
}

// below is the beginning of a covered run that stands below a fork and ends in
// a good signature.
func below(run []Envelope, fork uint64) []Envelope {
	if first := run[0].Seq(); first >= fork {
		return nil
	} else if fork > run[len(run)-1].Seq() {
		return run
	} else {
		run = run[:fork-first]
	}
	return run[:Covered(run)]
}

// Commit makes an Advance so; the caller has made it durable. It panics if
// the Advance is not this Topic's latest state's: made by an error, before
// another Commit, or for nothing.
func (t *Topic) Commit(adv Advance) {
	if adv.base != t.commits+1 {
		panic("envelope: commit of a stale advance")
	}
	t.commits++
	c := t.chains[adv.Chain.ID]
	if c == nil {
		c = new(Chain)
		t.chains[adv.Chain.ID] = c
		i, _ := slices.BinarySearchFunc(t.order, adv.Chain.ID, compareChains)
		t.order = slices.Insert(t.order, i, adv.Chain.ID)
	}
	*c = adv.Chain
	t.count, t.state = adv.Count, adv.State
	if adv.Cut && !c.Forked {
		t.pending.drop(c.ID) // of a branch that is none
	}
	for _, run := range adv.Left {
		t.pending.take(c.ID, run)
	}
	t.pending.settle(c)
}
