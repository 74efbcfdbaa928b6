package node

import (
	"testing"

	"github.com/kithnet/kith/sync/reconcile"
)

// anew has a space read again from its store, as after a failed disk.
type anew struct{ reply chan error }

func (m anew) handle(a *actor) { m.reply <- a.load() }

// TestReadAgainBesideRounds lets rounds with a peer end while a space is read
// again: what they ask of its chains is written under the lock.
func TestReadAgainBesideRounds(t *testing.T) {
	n := newPerson(t)
	id, err := newSpace(n.Node, "club")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := putAll(n.Node, id, "text", "one"); err != nil {
		t.Fatal(err)
	}
	a := n.anyByID(id)
	done := make(chan struct{})
	rounds := make(chan int)
	go func() {
		for i := 1; ; i++ {
			a.synced(n.host.ID(), a.current(), reconcile.Result{Equal: true})
			select {
			case <-done:
				rounds <- i
				return
			default:
			}
		}
	}()
	for range 50 {
		m := anew{make(chan error, 1)}
		err, sendErr := ask(t.Context(), a, m, m.reply)
		if err != nil || sendErr != nil {
			t.Fatal(err, sendErr)
		}
	}
	close(done)
	t.Logf("50 readings beside %d rounds", <-rounds)
}
