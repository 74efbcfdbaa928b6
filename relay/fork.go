package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// maxProbes is how many ids one question about a fork may ask for.
const maxProbes = 33

// ForkAsk asks about a chain of which two peers hold different branches, as
// /kith/fork/1 does among members: for its ids at Probes, ascending, and with
// Branch for the envelopes from the one probe on to the next good signature.
// Proof is what the asker has, or empty.
type ForkAsk struct {
	_      struct{} `cbor:",toarray"`
	Chain  []byte
	Proof  []byte
	Probes []uint64
	Branch bool
}

// ForkAnswer says how long the chain is at the relay, the ids at the probes
// below that, the branch, and the relay's proof if it has another.
type ForkAnswer struct {
	_      struct{} `cbor:",toarray"`
	Length uint64
	IDs    [][]byte
	Branch []byte
	Proof  []byte
}

// Fork trades what both sides know of a chain that forked.
func (c *Client) Fork(topic envelope.TopicID, ask ForkAsk, prove Prove) (ForkAnswer, error) {
	var v ForkAnswer
	b, err := space.Marshal(ask)
	if err == nil {
		b, err = c.ask(kindFork, topic, append(topic[:], b...), prove)
	}
	if err == nil {
		err = space.Unmarshal(b, &v)
	}
	if err != nil {
		return ForkAnswer{}, fmt.Errorf("fork: %w", err)
	}
	return v, nil
}

// answerFork takes the asker's proof, and answers what it asks.
func (t *topic) answerFork(ctx context.Context, body []byte) ([]byte, error) {
	var ask ForkAsk
	if err := space.Unmarshal(body, &ask); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if len(ask.Chain) != 32 || len(ask.Probes) > maxProbes || ask.Branch && len(ask.Probes) != 1 {
		return nil, fmt.Errorf("question about a fork: %w", ErrRequest)
	}
	if len(ask.Proof) > 0 {
		if err := t.takeProof(ctx, ask.Proof); err != nil {
			return nil, err
		}
	}
	chain := envelope.ChainID(ask.Chain)
	head, _ := t.Chain(chain)
	v := ForkAnswer{Length: head.Length, IDs: [][]byte{}, Branch: []byte{}, Proof: []byte{}}
	for _, seq := range ask.Probes {
		id, ok := t.IDAt(chain, seq)
		if !ok || seq >= head.Length {
			break
		}
		v.IDs = append(v.IDs, id[:])
	}
	if ask.Branch && len(v.IDs) == 1 {
		for _, e := range (ids{t}).Envelopes(chain, ask.Probes[0], head.Head.Seq) {
			if v.Branch = append(v.Branch, e.Bytes()...); e.VerifySignature() {
				break
			}
		}
		return space.Marshal(v)
	}
	proof, ok, err := t.store.Fork(t.id, chain)
	if err != nil {
		return nil, diskError(err)
	}
	if ok && string(proof) != string(ask.Proof) {
		v.Proof = proof
	}
	return space.Marshal(v)
}

// takeProof judges and keeps the proof that a chain forked.
func (t *topic) takeProof(ctx context.Context, raw []byte) error {
	f, err := envelope.ParseFork(raw)
	if err == nil {
		_, err = t.deliver(ctx, delivery{fork: &f})
	}
	switch {
	case err == nil, errors.Is(err, envelope.ErrDuplicate):
		return nil
	case errors.Is(err, space.ErrForged), errors.Is(err, space.ErrMalformed), errors.Is(err, space.ErrTooLarge):
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return err
}
