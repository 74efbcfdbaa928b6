//go:build unix

package node

import (
	"errors"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// TestTendAgain: a space is tended each time that it lacks something, and by
// nobody in between.
func TestTendAgain(t *testing.T) {
	home := t.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		t.Fatal(err)
	}
	n := hotNode(t, home, 0)
	info, err := n.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Name: "tended", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	a := n.anyByID(info.ID)
	for range 3 {
		a.mu.Lock()
		e := *a.now
		e.cred = nil
		a.now, a.epochs[e.id] = &e, &e
		a.mu.Unlock()
		if !a.lacks() {
			t.Fatal("a writer without a certificate lacks nothing")
		}
		n.need(a)
		soon(t, "a new certificate", func() error {
			if a.lacks() || a.tended.Load() {
				return errors.New("not yet")
			}
			return nil
		})
	}
	if n.need(a); a.tended.Load() {
		t.Error("a space that lacks nothing is tended")
	}
}
