package relay

import (
	"bytes"
	"slices"
	"testing"

	"github.com/kithnet/kith/space/envelope"
)

// parted are two branches of a chain that part behind seq at.
func parted(t *testing.T, w *world, at, more int) (a, b *chain) {
	t.Helper()
	a = w.chain(t, "x", "x").grow(t, at)
	b = &chain{key: a.key, w: w, id: a.id, cert: a.cert, run: slices.Clone(a.run)}
	return a.grow(t, more), b.grow(t, more)
}

// A relay that holds one branch of a chain is told of the other: it takes the
// proof, cuts the chain as members do, and hands the proof on. Without a proof
// it answers where its branch stands, so that one can be found.
func TestForkIsTraded(t *testing.T) {
	w := newWorld("one")
	r := startRelay(t, t.TempDir())
	m, hers := newMember(t), newReplica(w)
	m.lease(t, r, w)
	a, b := parted(t, w, 5, 4)
	fill(t, r, a, 0, 9)
	hers.hold(t, b)
	c := m.dial(t, r)
	none := ForkAsk{Chain: a.id[:], Proof: []byte{}, Probes: []uint64{}}

	ask := none
	ask.Probes = []uint64{5, 6, 40}
	v, err := c.Fork(w.topic, ask, w.prove)
	fifth, sixth := a.run[5].ID(), a.run[6].ID()
	if err != nil || v.Length != 10 || len(v.IDs) != 2 || !bytes.Equal(v.IDs[0], fifth[:]) || !bytes.Equal(v.IDs[1], sixth[:]) {
		t.Fatalf("%+v, %v", v, err)
	}
	ask.Probes, ask.Branch = []uint64{6}, true
	v, err = c.Fork(w.topic, ask, w.prove)
	if err != nil {
		t.Fatal(err)
	}
	branch, err := envelope.ParseRun(v.Branch)
	if err != nil || branch[0].ID() != sixth {
		t.Fatalf("branch of %d, %v", len(branch), err)
	}
	if _, err := hers.Deliver(nil, branch); err == nil { // she cuts her own, and has a proof
		t.Fatal("the other branch was taken")
	}
	proof, err := (&envelope.Fork{Cert: a.cert, A: low(a.run[6], b.run[6]), B: high(a.run[6], b.run[6])}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	bent := bytes.Clone(proof)
	bent[len(bent)-1] ^= 1
	ask = none
	ask.Proof = bent
	_, err = c.Fork(w.topic, ask, w.prove)
	is(t, "a proof that is forged", err, ErrRequest)
	if n, _ := r.topic(w.topic).summary(); n != 10 {
		t.Fatalf("%d envelopes after a forged proof", n)
	}
	ask.Proof = proof
	if v, err = c.Fork(w.topic, ask, w.prove); err != nil || v.Length != 6 || len(v.Proof) != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	if res, err := m.sync(t.Context(), w, hers, r.ID()); err != nil || !res.Equal {
		t.Errorf("after the proof: %+v, %v", res, err)
	}
	if v, err = c.Fork(w.topic, none, w.prove); err != nil || !bytes.Equal(v.Proof, proof) {
		t.Errorf("the relay's proof: %d bytes, %v", len(v.Proof), err)
	}
	for name, bad := range map[string]ForkAsk{
		"short chain":   {Chain: []byte{1}, Proof: []byte{}, Probes: []uint64{}},
		"many probes":   {Chain: a.id[:], Proof: []byte{}, Probes: make([]uint64, 34)},
		"branch of two": {Chain: a.id[:], Proof: []byte{}, Probes: []uint64{1, 2}, Branch: true},
		"no proof":      {Chain: a.id[:], Proof: []byte("x"), Probes: []uint64{}},
	} {
		_, err = c.Fork(w.topic, bad, w.prove)
		is(t, name, err, ErrRequest)
	}
}

func low(a, b envelope.Envelope) []envelope.Envelope {
	x, y := a.ID(), b.ID()
	if bytes.Compare(x[:], y[:]) < 0 {
		return []envelope.Envelope{a}
	}
	return []envelope.Envelope{b}
}

func high(a, b envelope.Envelope) []envelope.Envelope {
	if l := low(a, b); l[0].ID() == a.ID() {
		return []envelope.Envelope{b}
	}
	return []envelope.Envelope{a}
}
