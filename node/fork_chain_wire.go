package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

// forkProtocol is how two nodes that hold different branches of a chain find
// where they part, and hand each other the proof:
//
//	asker   -> topic 32 ‖ box(forkAsk)
//	holder  -> box(forkAnswer), or nothing if it has no such topic
//
// One question to a stream. The boxes are those of a control page: who holds
// the epoch's keys alone can ask, and can read the answer.
const forkProtocol protocol.ID = "/kith/fork/1"

const (
	// maxForkMsg bounds a message: a proof, or one branch of it.
	maxForkMsg = envelope.MaxFork + 64<<10
	// maxProbes is how many ids are asked for at once, and maxSteps how often: a
	// place among 2^32 is found.
	maxProbes    = 32
	maxSteps     = 8
	forkDeadline = 20 * time.Second
	// forksAtOnce bounds how many chains are traded at once, in all.
	forksAtOnce = 8
)

// forkAsk asks for ids of a chain at Probes, ascending, and with Branch for the
// envelopes from the one probe on to the next good signature. Proof is what the
// asker has, or empty.
type forkAsk struct {
	_      struct{} `cbor:",toarray"`
	Chain  []byte
	Proof  []byte
	Probes []uint64
	Branch bool
}

// forkAnswer says how long the chain is here, the ids at the probes below that,
// the branch, and the proof if there is one.
type forkAnswer struct {
	_      struct{} `cbor:",toarray"`
	Length uint64
	IDs    [][]byte
	Branch []byte
	Proof  []byte
}

// trades are the chains that are traded with peers now.
type trades struct {
	mu    sync.Mutex // guards what follows
	under map[forkKey]bool
}

type forkKey struct {
	chain envelope.ChainID
	with  peer.ID
}

// settleFork trades what is known of a chain with a peer, once at a time.
func (n *Node) settleFork(a *actor, topic envelope.TopicID, chain envelope.ChainID, with peer.ID) {
	e := a.epochs[topic]
	if e == nil || with == "" || n.cfg.NoReconcile {
		return
	}
	n.tradeFork(a, e, chain, with)
}

func (n *Node) tradeFork(a *actor, e *epoch, chain envelope.ChainID, with peer.ID) {
	key := forkKey{chain, with}
	n.forks.mu.Lock()
	defer n.forks.mu.Unlock()
	if n.forks.under[key] || len(n.forks.under) >= forksAtOnce || n.ctx.Err() != nil {
		return // the next session sees it again
	}
	if n.forks.under == nil {
		n.forks.under = map[forkKey]bool{}
	}
	n.forks.under[key] = true
	n.spawn(func() {
		ctx, cancel := context.WithTimeout(n.ctx, forkDeadline)
		defer cancel()
		before := a.stands(e, chain)
		err := n.findFork(ctx, a, e, chain, with)
		n.forks.mu.Lock()
		delete(n.forks.under, key)
		n.forks.mu.Unlock()
		if err != nil {
			n.log.Debug("trade a forked chain", "chain", chain, "peer", with, "err", err)
		}
		if a.stands(e, chain) != before {
			n.reconcile(a.sid, with)
		}
	})
}

// tradeForks trades the chains of which a session saw two branches.
func (n *Node) tradeForks(a *actor, e *epoch, res reconcile.Result, with peer.ID) {
	for _, chain := range res.Forks {
		n.tradeFork(a, e, chain, with)
	}
}

// chainsAsked is how many chains a relay is asked about that refuses something
// and does not say what.
const chainsAsked = 256

// askForks asks a relay for its proofs. Of two members the one that is shown the
// branch that has to go trades it; a relay asks nobody, so who shows it one asks.
func (n *Node) askForks(a *actor, e *epoch, relay peer.ID) {
	key := forkKey{with: relay} // of no chain
	n.forks.mu.Lock()
	defer n.forks.mu.Unlock()
	if n.forks.under[key] || len(n.forks.under) >= forksAtOnce || n.ctx.Err() != nil {
		return
	}
	if n.forks.under == nil {
		n.forks.under = map[forkKey]bool{}
	}
	n.forks.under[key] = true
	n.spawn(func() {
		ctx, cancel := context.WithTimeout(n.ctx, forkDeadline)
		defer cancel()
		moved := false
		for _, chain := range a.someChains(e, chainsAsked) {
			before := a.stands(e, chain)
			if err := n.findFork(ctx, a, e, chain, relay); err != nil {
				n.log.Debug("ask a relay about a chain", "chain", chain, "relay", relay, "err", err)
				break
			}
			moved = moved || a.stands(e, chain) != before
		}
		n.forks.mu.Lock()
		delete(n.forks.under, key)
		n.forks.mu.Unlock()
		if moved {
			n.reconcile(a.sid, relay)
		}
	})
}

// someChains are at most so many chains of an epoch, drawn anew each time.
func (a *actor) someChains(e *epoch, most int) []envelope.ChainID {
	var all []envelope.ChainID
	a.mu.RLock()
	for c := range e.topic.Chains() {
		all = append(all, c.ID)
	}
	a.mu.RUnlock()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(len(all), most)]
}

// findFork tells a peer what proof we have, hears of its own, and otherwise
// looks for the first envelope of the chain that differs, gets the peer's, and
// shows it the proof.
func (n *Node) findFork(ctx context.Context, a *actor, e *epoch, chain envelope.ChainID, with peer.ID) error {
	ours, err := a.proofBytes(e, chain)
	if err != nil {
		return err
	}
	answer, err := n.askFork(ctx, e, forkAsk{Chain: chain[:], Proof: ours, Probes: []uint64{}}, with)
	if err != nil {
		return err
	}
	if len(answer.Proof) > 0 {
		if err := a.takeProof(ctx, e, answer.Proof, with); err != nil && !errors.Is(err, envelope.ErrDuplicate) {
			return err
		}
	}
	at, ok, err := n.whereParts(ctx, a, e, chain, answer.Length, with)
	if err != nil || !ok {
		return err
	}
	if err := n.takeBranch(ctx, a, e, chain, at, with); err != nil {
		return err
	}
	if ours, err = a.proofBytes(e, chain); err != nil || len(ours) == 0 {
		return err
	}
	_, err = n.askFork(ctx, e, forkAsk{Chain: chain[:], Proof: ours, Probes: []uint64{}}, with)
	return err
}

// takeBranch gets the peer's branch from where it leaves ours, and hands it in.
func (n *Node) takeBranch(ctx context.Context, a *actor, e *epoch, chain envelope.ChainID, at uint64, with peer.ID) error {
	ask := forkAsk{Chain: chain[:], Proof: []byte{}, Probes: []uint64{at}, Branch: true}
	answer, err := n.askFork(ctx, e, ask, with)
	if err != nil {
		return err
	}
	run, err := envelope.ParseRun(answer.Branch)
	if err != nil {
		return err
	}
	if run[0].Chain() != chain || run[0].Seq() != at {
		return fmt.Errorf("branch of another place: %w", space.ErrMalformed)
	}
	_, err = a.deliver(ctx, &runIn{topic: e.id, from: with, run: run})
	if errors.Is(err, envelope.ErrFork) {
		return nil
	}
	return err
}

// whereParts is the first sequence at which the peer's chain differs from ours.
func (n *Node) whereParts(ctx context.Context, a *actor, e *epoch, chain envelope.ChainID, theirs uint64, with peer.ID) (uint64, bool, error) {
	head, ok := a.chainHead(e, chain)
	if !ok || theirs == 0 {
		return 0, false, nil
	}
	lo, hi := uint64(0), min(head.Length, theirs) // the first that differs lies in [lo, hi]; hi: none
	end := hi
	for range maxSteps {
		if lo == hi {
			break
		}
		probes := spread(lo, hi)
		answer, err := n.askFork(ctx, e, forkAsk{Chain: chain[:], Proof: []byte{}, Probes: probes}, with)
		if err != nil {
			return 0, false, err
		}
		if len(answer.IDs) != len(probes) {
			return 0, false, nil // the chain changed meanwhile
		}
		for i, seq := range probes {
			id, ok := ids{a.store, e.id}.IDAt(chain, seq)
			if !ok {
				return 0, false, nil
			}
			if string(answer.IDs[i]) != string(id[:]) {
				hi = seq
				break
			}
			lo = seq + 1
		}
	}
	return hi, lo == hi && hi < end, nil
}

// spread is up to maxProbes places from lo on below hi, the last included.
func spread(lo, hi uint64) (at []uint64) {
	step := (hi-lo-1)/maxProbes + 1
	for seq := hi - 1; ; seq -= step {
		at = append(at, seq)
		if seq-lo < step {
			break
		}
	}
	for i, j := 0, len(at)-1; i < j; i, j = i+1, j-1 {
		at[i], at[j] = at[j], at[i]
	}
	return at
}

func (n *Node) askFork(ctx context.Context, e *epoch, ask forkAsk, with peer.ID) (forkAnswer, error) {
	var v forkAnswer
	if a, _ := n.byTopic(e.id); a != nil {
		if _, ok := n.relays.serving(a.sid, with); ok {
			return n.askRelayFork(ctx, e, ask, with)
		}
	}
	s, err := n.host.NewStream(overCircuit(ctx, "fork"), with, forkProtocol)
	if err != nil {
		return v, fmt.Errorf("fork: %w", err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(forkDeadline)); err != nil {
		return v, err
	}
	b, err := sealMsg(e, ask)
	if err == nil {
		err = writeFrame(s, append(e.id[:], b...))
	}
	if err == nil {
		b, err = readFrame(s, maxForkMsg)
	}
	if err == nil && len(b) == 0 {
		err = space.ErrUnavailable
	}
	if err == nil {
		err = openMsg(e, b, &v)
	}
	if err != nil {
		s.Reset()
		return v, fmt.Errorf("fork: %w", err)
	}
	return v, nil
}

// askRelayFork asks a relay, which has no key to open a box with: in clear.
func (n *Node) askRelayFork(ctx context.Context, e *epoch, ask forkAsk, with peer.ID) (forkAnswer, error) {
	s, err := n.host.NewStream(overCircuit(ctx, "fork"), with, relay.Protocol)
	if err != nil {
		return forkAnswer{}, fmt.Errorf("fork: %w", err)
	}
	defer s.Close()
	var v relay.ForkAnswer
	err = s.SetDeadline(time.Now().Add(forkDeadline))
	if err == nil {
		var c *relay.Client
		if c, err = relay.NewClient(s, n.host.ID(), with); err == nil {
			v, err = c.Fork(e.id, relay.ForkAsk{Chain: ask.Chain, Proof: ask.Proof, Probes: ask.Probes, Branch: ask.Branch}, e.proveToRelay)
		}
	}
	if err != nil {
		s.Reset()
		return forkAnswer{}, err
	}
	return forkAnswer{Length: v.Length, IDs: v.IDs, Branch: v.Branch, Proof: v.Proof}, nil
}

// serveFork answers one question.
func (n *Node) serveFork(s network.Stream) {
	defer s.Close()
	ctx, cancel := context.WithTimeout(n.ctx, forkDeadline)
	defer cancel()
	err := s.SetDeadline(time.Now().Add(forkDeadline))
	if err == nil {
		err = n.giveFork(ctx, s)
	}
	if err != nil {
		s.Reset()
		n.log.Debug("question about a fork refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

func (n *Node) giveFork(ctx context.Context, s network.Stream) error {
	b, err := readFrame(s, maxForkMsg)
	if err != nil {
		return err
	}
	if len(b) < 32 {
		return space.ErrMalformed
	}
	a, e := n.byTopic(envelope.TopicID(b[:32]))
	var ask forkAsk
	if a != nil {
		err = openMsg(e, b[32:], &ask)
	}
	if a == nil || err != nil {
		return errors.Join(err, writeFrame(s, nil))
	}
	v, err := a.answerFork(ctx, e, ask, s.Conn().RemotePeer())
	if err != nil {
		return err
	}
	if b, err = sealMsg(e, v); err != nil {
		return err
	}
	return writeFrame(s, b)
}

func (a *actor) answerFork(ctx context.Context, e *epoch, ask forkAsk, from peer.ID) (v forkAnswer, err error) {
	if len(ask.Chain) != 32 || len(ask.Probes) > maxProbes+1 || ask.Branch && len(ask.Probes) != 1 {
		return v, space.ErrMalformed
	}
	chain := envelope.ChainID(ask.Chain)
	if len(ask.Proof) > 0 {
		if err := a.takeProof(ctx, e, ask.Proof, from); err != nil && !errors.Is(err, envelope.ErrDuplicate) {
			return v, err
		}
	}
	head, _ := a.chainHead(e, chain)
	v = forkAnswer{Length: head.Length, IDs: [][]byte{}, Branch: []byte{}, Proof: []byte{}}
	known := ids{a.store, e.id}
	for _, seq := range ask.Probes {
		id, ok := known.IDAt(chain, seq)
		if !ok || seq >= head.Length {
			break
		}
		v.IDs = append(v.IDs, id[:])
	}
	if ask.Branch && len(v.IDs) == 1 {
		for _, env := range known.Envelopes(chain, ask.Probes[0], head.Head.Seq) {
			if v.Branch = append(v.Branch, env.Bytes()...); env.VerifySignature() {
				break
			}
		}
		return v, nil
	}
	proof, err := a.proofBytes(e, chain)
	if err == nil && len(proof) > 0 && string(proof) != string(ask.Proof) {
		v.Proof = proof
	}
	return v, err
}

// takeProof hands a proof to the actor and waits.
func (a *actor) takeProof(ctx context.Context, e *epoch, raw []byte, from peer.ID) error {
	f, err := envelope.ParseFork(raw)
	if err != nil {
		return err
	}
	_, err = a.deliver(ctx, &runIn{topic: e.id, from: from, fork: &f})
	return err
}

// chainHead is a chain as it stands, for other goroutines.
func (a *actor) chainHead(e *epoch, chain envelope.ChainID) (envelope.Chain, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if e := a.epochs[e.id]; e != nil {
		return e.topic.Chain(chain)
	}
	return envelope.Chain{}, false
}

// stands is how far a chain stands and where it forked, which is never at the
// last place.
func (a *actor) stands(e *epoch, chain envelope.ChainID) [2]uint64 {
	head, _ := a.chainHead(e, chain)
	a.mu.RLock()
	defer a.mu.RUnlock()
	if e := a.epochs[e.id]; e != nil {
		if at, ok := e.topic.Fork(chain); ok {
			return [2]uint64{head.Length, at}
		}
	}
	return [2]uint64{head.Length, math.MaxUint64}
}

// proofBytes is the proof that a chain forked, empty if it did not.
func (a *actor) proofBytes(e *epoch, chain envelope.ChainID) ([]byte, error) {
	b, _, err := a.store.Fork(e.id, chain)
	if b == nil {
		b = []byte{}
	}
	return b, err
}
