package envelope

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

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
	Length uint64 // always Head.Seq+1
	// Forked: the writer has signed two successors of one envelope. The
	// branch that came first stays, and nothing is added to it.
	Forked bool
}

// IDs answers for the accepted envelopes of one topic; ok is false beyond the
// prefix. The store has them; a Topic keeps heads only.
type IDs interface {
	IDAt(chain ChainID, seq uint64) (id ID, ok bool)
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
	commits uint64 // which Advance is current
}

// Advance is what a run adds to a Topic: the chain as it will be, the
// envelopes that enter its prefix in order, those that waited included, and
// count and set hash with them.
type Advance struct {
	Chain Chain
	New   []Envelope
	Count uint64
	State lthash.State

	base uint64 // the Topic's commits when it was made, plus one
}

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
		if c.Length != c.Head.Seq+1 || t.chains[c.ID] != nil {
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
// below a head from a duplicate. Without it such a run is ErrDuplicate.
func (t *Topic) SetIDs(ids IDs) { t.ids = ids }

// ID is the topic's id.
func (t *Topic) ID() TopicID { return t.id }

// Chain is what is known of a chain.
func (t *Topic) Chain(id ChainID) (Chain, bool) {
	if c := t.chains[id]; c != nil {
		return *c, true
	}
	return Chain{}, false
}

// Chains are all chains by ascending id. Nothing may be committed meanwhile.
func (t *Topic) Chains() iter.Seq[Chain] {
	return func(yield func(Chain) bool) {
		for _, id := range t.order {
			if !yield(*t.chains[id]) {
				return
			}
		}
	}
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
// what it would add; the part already held is dropped. On success, and with
// ErrFork, the Advance is to be stored and then committed before the next
// Check. Otherwise it is zero, and the error says why:
//
//   - ErrDuplicate: nothing in the run is new.
//   - ErrGap: it begins beyond the head; it may wait here for the rest.
//   - ErrUncertified: the chain is unknown and no certificate came with the
//     run; it may wait here for it.
//   - ErrFork: authentic, but it leaves the chain below its head, or the chain
//     has forked before. The Advance adds nothing and marks the chain.
//   - space.ErrForged, space.ErrMalformed, space.ErrTooLarge: the run, or the
//     certificate, is wrong; whoever sent it is to blame.
func (t *Topic) Check(cert *Certificate, run []Envelope) (Advance, error) {
	if err := t.form(cert, run); err != nil {
		return Advance{}, fmt.Errorf("check run: %w", err)
	}
	var adv Advance
	var err error
	if c := t.chains[run[0].Chain()]; c != nil {
		adv, err = t.continues(c, run)
	} else {
		adv, err = t.begins(cert, run)
	}
	if err != nil {
		return adv, fmt.Errorf("check run: %w", err)
	}
	return adv, nil
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

// begins judges a run of a chain not known yet.
func (t *Topic) begins(cert *Certificate, run []Envelope) (Advance, error) {
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
	if len(t.chains) >= MaxChains {
		return Advance{}, ErrCrowded
	}
	return t.advance(Chain{ID: id, Cert: *cert}, run), nil
}

// continues judges a run of a known chain.
func (t *Topic) continues(c *Chain, run []Envelope) (Advance, error) {
	first, last := run[0].Seq(), run[len(run)-1]
	if last.Seq() < c.Head.Seq {
		if id, ok := t.idAt(c.ID, last.Seq()); !ok || id == last.ID() {
			return Advance{}, ErrDuplicate
		}
		return t.fork(c, run)
	}
	if first > c.Head.Seq+1 {
		if c.Forked {
			return t.fork(c, run)
		}
		return Advance{}, t.gap(c, run)
	}
	if first == c.Head.Seq+1 {
		if run[0].Prev() != c.Head.ID {
			return t.fork(c, run)
		}
	} else {
		if run[c.Head.Seq-first].ID() != c.Head.ID {
			return t.fork(c, run)
		}
		if run = run[c.Head.Seq+1-first:]; len(run) == 0 {
			return Advance{}, ErrDuplicate
		}
	}
	if c.Forked {
		return t.fork(c, run)
	}
	if err := signed(run); err != nil {
		return Advance{}, err
	}
	return t.advance(*c, run), nil
}

func (t *Topic) idAt(chain ChainID, seq uint64) (ID, bool) {
	if t.ids == nil {
		return ID{}, false
	}
	return t.ids.IDAt(chain, seq)
}

// gap keeps an authentic run that begins beyond the head, within bounds.
func (t *Topic) gap(c *Chain, run []Envelope) error {
	if err := signed(run); err != nil {
		return err
	}
	gap := ErrGap{Have: c.Head.Seq + 1, Want: run[0].Seq()}
	if gap.Want <= c.Head.Seq+Window {
		gap.Kept = t.pending.keep(c.ID, c.Cert.WriterKey(), run)
	}
	return gap
}

// fork marks the chain if the run that leaves it is authentic.
func (t *Topic) fork(c *Chain, run []Envelope) (Advance, error) {
	if err := signed(run); err != nil {
		return Advance{}, err
	}
	adv := Advance{Chain: *c, Count: t.count, State: t.state, base: t.commits + 1}
	adv.Chain.Forked = true
	return adv, ErrFork
}

// advance adds to c a checked run that continues it, and what waited for it.
func (t *Topic) advance(c Chain, run []Envelope) Advance {
	run = slices.Clip(run)
	run, c.Head, c.Forked = t.pending.extend(c.ID, run[len(run)-1].Head(), run)
	c.Length = c.Head.Seq + 1
	adv := Advance{Chain: c, New: run, Count: t.count + uint64(len(run)), State: t.state, base: t.commits + 1}
	for i := range run {
		adv.State.Add(run[i].id[:])
	}
	return adv
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
	if c.Forked {
		t.pending.drop(c.ID)
	} else {
		t.pending.settle(c.ID, c.Cert.WriterKey(), c.Head.Seq)
	}
}
