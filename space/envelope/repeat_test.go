package envelope

import (
	"errors"
	"testing"

	"github.com/kithnet/kith/sync/lthash"
)

// wraps is how often an element must be added to a set hash of 16-bit lanes to
// vanish from it.
const wraps = 1 << 16

// TestS8ReplayedEnvelope: an envelope counts once, however often and in whatever
// run it comes; two chains that say the same are two sets of envelopes. The set
// hash alone would not see the difference.
func TestS8ReplayedEnvelope(t *testing.T) {
	iss := newIssuer(0x33)
	c, d := iss.chain(t, 0x55, 0x44).grow(t, 3), iss.chain(t, 0x56, 0x45).grow(t, 3)
	s := newShelf(c.top)
	for _, chain := range []*chain{c, d} {
		if err := s.take(&chain.cert, chain.run); err != nil {
			t.Fatal(err)
		}
	}
	var want lthash.State
	n := uint64(0)
	for _, chain := range []*chain{c, d} {
		for _, e := range chain.run {
			id := e.ID()
			want.Add(id[:])
			n++
		}
	}
	var naive lthash.State
	id := c.run[2].ID()
	for range wraps {
		naive.Add(id[:])
	}
	if naive != (lthash.State{}) {
		t.Fatal("the hash does not wrap: the test shows nothing")
	}
	for i := range wraps {
		from := i % len(c.run)
		cert := &c.cert
		if from > 0 {
			cert = nil
		}
		if _, err := s.Check(cert, c.run[from:]); !errors.Is(err, ErrDuplicate) {
			t.Fatalf("replay %d: %v", i, err)
		}
	}
	if got := s.State(); s.Count() != n || !got.Equal(&want) {
		t.Errorf("%d envelopes, want %d; the same state: %v", s.Count(), n, got.Equal(&want))
	}
}
