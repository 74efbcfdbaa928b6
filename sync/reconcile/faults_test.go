package reconcile

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// TestOwnFailures are not blamed on the peer.
func TestOwnFailures(t *testing.T) {
	w := newWorld("own")
	one := w.newChain("one", 6, 100)
	broken := errors.New("disk on fire")
	cases := []struct {
		name string
		err  error
		want func(Result, error) bool
	}{
		{"io", broken, func(_ Result, err error) bool { return errors.Is(err, broken) && !errors.Is(err, ErrPeer) }},
		{"forged", space.ErrForged, func(_ Result, err error) bool { return errors.Is(err, ErrPeer) }},
		{"uncertified", envelope.ErrUncertified, func(_ Result, err error) bool { return err != nil && !errors.Is(err, ErrPeer) }},
		{"duplicate", fmt.Errorf("x: %w", envelope.ErrDuplicate), func(r Result, err error) bool { return err == nil && r.Duplicate == 12 }},
		{"gap", envelope.ErrGap{Have: 1, Want: 3}, func(r Result, err error) bool { return err == nil && r.Refused == 12 }},
		{"fork", envelope.ErrFork, func(r Result, err error) bool { return err == nil && r.Refused == 12 }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, b := w.newMemory(), w.newMemory().with(one, 6)
			a.fail = c.err
			x := newWire(t, a.session(t, w, Initiator), b.session(t, w, Responder))
			x.start()
			x.run()
			if r := x.side[0].Result(); !c.want(r, x.errs[0]) {
				t.Errorf("%+v, %v", r, x.errs[0])
			}
		})
	}
}

// broken is a replica that answers what it must not.
type broken struct {
	*memory
	summary func(Summary) (Summary, error)
	chains  func([]envelope.Chain) ([]envelope.Chain, error)
	run     func(*envelope.Certificate, []envelope.Envelope) (*envelope.Certificate, []envelope.Envelope, error)
}

func (b broken) Summary() (Summary, error) {
	s, err := b.memory.Summary()
	if b.summary != nil {
		return b.summary(s)
	}
	return s, err
}

func (b broken) Chains() iter.Seq2[envelope.Chain, error] {
	return func(yield func(envelope.Chain, error) bool) {
		chains, err := slices.Collect(b.topic.Chains()), error(nil)
		if b.chains != nil {
			chains, err = b.chains(chains)
		}
		for _, c := range chains {
			if !yield(c, nil) {
				return
			}
		}
		if err != nil {
			yield(envelope.Chain{}, err)
		}
	}
}

func (b broken) Run(id envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error) {
	cert, run, err := b.memory.Run(id, from, to, maxBytes)
	if b.run != nil {
		return b.run(cert, run)
	}
	return cert, run, err
}

// TestBrokenReplica: our own replica's mistakes do not reach the peer and are
// not blamed on it.
func TestBrokenReplica(t *testing.T) {
	w := newWorld("broken")
	one, two, big := w.newChain("one", 4, 100), w.newChain("two", 4, 100), w.newChain("big", 3, envelope.MaxPadded)
	disk := errors.New("disk on fire")
	type certificate = *envelope.Certificate
	type envelopes = []envelope.Envelope
	run := func(f func(certificate, envelopes) (certificate, envelopes, error)) broken { return broken{run: f} }
	cases := []struct {
		name string
		b    broken
		want string
	}{
		{"summary fails", broken{summary: func(s Summary) (Summary, error) { return s, disk }}, "disk on fire"},
		{"summary of another topic", broken{summary: func(s Summary) (Summary, error) { s.Topic[0] ^= 1; return s, nil }}, "another topic"},
		{"chains fail", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) { return c, disk }}, "disk on fire"},
		{"chains unsorted", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) {
			slices.Reverse(c)
			return c, nil
		}}, "ascending"},
		{"chains doubled", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) { return append(c, c[len(c)-1]), nil }}, "ascending"},
		{"chains too many", broken{chains: func([]envelope.Chain) ([]envelope.Chain, error) {
			out := make([]envelope.Chain, MaxChains+1)
			for i, h := range manyChains(len(out), 0, true).Chains {
				out[i].ID = h.Chain
			}
			return out, nil
		}}, "too large"},
		{"run fails", run(func(certificate, envelopes) (certificate, envelopes, error) { return nil, nil, disk }), "disk on fire"},
		{"run without certificate", run(func(_ certificate, r envelopes) (certificate, envelopes, error) { return nil, r, nil }), "asked for"},
		{"run from elsewhere", run(func(c certificate, r envelopes) (certificate, envelopes, error) { return c, r[1:], nil }), "asked for"},
		{"run with a hole", run(func(c certificate, r envelopes) (certificate, envelopes, error) {
			return c, append(slices.Clone(r[:1]), r[2]), nil
		}), "asked for"},
		{"run beyond", broken{chains: func(c []envelope.Chain) ([]envelope.Chain, error) {
			c[0].Head.Seq = 1
			return c, nil
		}, run: func(certificate, envelopes) (certificate, envelopes, error) {
			first := one
			if compareChains(two.id, one.id) < 0 {
				first = two
			}
			return &first.cert, first.envs, nil
		}}, "asked for"},
		{"run too long", run(func(certificate, envelopes) (certificate, envelopes, error) { return &big.cert, big.envs, nil }), "asked for"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := w.newMemory()
			c.b.memory = w.newMemory().with(one, 4).with(two, 4)
			cfg := c.b.config(w, Responder)
			cfg.Replica = c.b
			sb, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			x := newWire(t, a.session(t, w, Initiator), sb)
			x.start()
			x.run()
			if err := x.errs[1]; err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrPeer) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if x.errs[0] != nil {
				t.Errorf("the peer saw it: %v", x.errs[0])
			}
		})
	}

	// A chain that went away, or has no good signature to cut at, is left out.
	for name, f := range map[string]func(certificate, envelopes) (certificate, envelopes, error){
		"gone": func(certificate, envelopes) (certificate, envelopes, error) { return nil, nil, nil },
		"uncovered": func(c certificate, r envelopes) (certificate, envelopes, error) {
			return c, envelopes{flip(r[0], -1)}, nil
		},
	} {
		a, b := w.newMemory(), run(f)
		b.memory = w.newMemory().with(one, 4)
		cfg := b.config(w, Responder)
		cfg.Replica = b
		sb, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		x := newWire(t, a.session(t, w, Initiator), sb)
		if ra, rb := x.round(); ra.Equal || rb.Equal || !ra.Stalled {
			t.Errorf("%s: %+v, %+v", name, ra, rb)
		}
	}
}

// refuser takes no run and counts them.
type refuser struct{ calls int }

func (r *refuser) Deliver(_ *envelope.Certificate, run []envelope.Envelope) (Delivered, error) {
	r.calls++
	return Delivered{Refused: len(run)}, nil
}

// TestRefused: the rest of a chain of which a run was refused is not handed on.
func TestRefused(t *testing.T) {
	w := newWorld("refused")
	one, two := w.newChain("one", 6, 100), w.newChain("two", 6, 100)
	a, b := w.newMemory(), w.newMemory().with(one, 6).with(two, 6)
	b.maxRun = 2
	var sink refuser
	cfg := a.config(w, Initiator)
	cfg.Sink = &sink
	sa, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x := newWire(t, sa, b.session(t, w, Responder))
	if ra, _ := x.round(); ra.Equal || ra.Refused != 2*12 || sink.calls != 2*2 {
		t.Errorf("%+v, %d calls", ra, sink.calls)
	}
}
