package reconcile

import (
	"testing"

	"github.com/kithnet/kith/space/envelope"
)

// signer says of all chains that it signed them, or of none.
type signer struct {
	*memory
	own bool
}

func (s signer) Signed(envelope.ChainID) bool { return s.own }

// TestSignerIsNotChecked: a run is cut where a good signature covers it, but
// for one of a chain that the replica wrote itself.
func TestSignerIsNotChecked(t *testing.T) {
	w := newWorld("signer")
	c := w.newChain("a", 8, 100, 3)
	m := w.newMemory().with(c, 8)
	m.maxRun = 4
	for _, x := range []struct {
		replica Replica
		want    int
	}{{m, 3}, {signer{m, false}, 3}, {signer{m, true}, 4}} {
		s := &Session{cfg: Config{Replica: x.replica, MaxRun: MaxRunBytes}}
		got, err := s.run(Range{Chain: c.id, From: 0, To: 7})
		if err != nil || len(got.Run) != x.want {
			t.Errorf("%T: a run of %d, %v; want %d", x.replica, len(got.Run), err, x.want)
		}
	}
}
