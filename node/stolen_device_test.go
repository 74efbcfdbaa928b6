package node_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// TestI2StolenDevice: a device that is revoked goes on as if it were not. What
// it says counts nowhere, and no key of a later epoch reaches
// it, by an invite neither.
func TestI2StolenDevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	laptop, bob := start(t, filepath.Join(dir, "laptop")), start(t, filepath.Join(dir, "bob"))
	id := create(t, bob, "club")
	join(t, bob, laptop, id)
	d := enrol(t, laptop, filepath.Join(dir, "phone"))
	phone := start(t, filepath.Join(dir, "phone"))
	ann := did(t, laptop)
	eventually(t, "the phone writes", sees(bob, id, ann, "honest", func() space.CID {
		eventually(t, "the phone is in", func() error { _, err := phone.Space(t.Context(), id); return err })
		return put(t, phone, id, "honest", "while it was ann's")
	}()))
	if err := phone.Close(); err != nil {
		t.Fatal(err)
	}
	// The thief keeps it off the network, so that it hears of nothing.
	thief := start(t, filepath.Join(dir, "phone"), func(c *node.Config) { c.Host = append(c.Host, alone()...) })
	put(t, thief, id, "stolen", "in ann's name")
	if _, err := laptop.RevokeDevice(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bob adopts the next epoch", atEpoch(bob, id, 2))
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	thief = start(t, filepath.Join(dir, "phone"))
	if _, err := thief.Connect(t.Context(), listen(t, bob)); err != nil {
		t.Fatal(err)
	}
	inv, err := bob.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // and bob goes on, with the thief connected
		key := fmt.Sprintf("secret-%d", i)
		eventually(t, "the laptop reads", sees(laptop, id, did(t, bob), key, put(t, bob, id, key, "not for the thief")))
		if _, err := thief.Record(t.Context(), id, did(t, bob), path(key)); err == nil {
			t.Fatal("the revoked device reads what was written after its revocation")
		}
	}
	for _, n := range []*node.Node{bob, laptop} {
		if _, err := n.Record(t.Context(), id, ann, path("stolen")); !errors.Is(err, space.ErrRecordNotFound) {
			t.Errorf("what the revoked device wrote: %v", err)
		}
		if _, err := n.Record(t.Context(), id, ann, path("honest")); err != nil {
			t.Errorf("what it wrote before: %v", err)
		}
	}
	// By an invite it does not come in again either: whatever is answered, no
	// later key reaches it.
	_, joinErr := thief.Join(t.Context(), inv.Link)
	held, err := node.Dump(thief)
	if err != nil {
		t.Fatal(err)
	}
	for n := range held.Spaces[id].Keys {
		if n > 1 {
			t.Errorf("the revoked device holds the keys of epoch %d; its join: %v", n, joinErr)
		}
	}
}
