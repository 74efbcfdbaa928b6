package node

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// TestK10FormerKeeperForges: a keeper that was removed holds the issuer of the
// epoch that is over, and certifies chains in another member's name there. What
// they say counts nowhere, and the member loses nothing.
func TestK10FormerKeeperForges(t *testing.T) {
	a, k, id := pairOf(t)
	b := freshNode(t)
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(t.Context(), inv.Link); err != nil {
		t.Fatal(err)
	}
	forkPut(t, b, id, "true")
	if _, err := a.SetKeeper(t.Context(), id, k.self.did, xrpc.AllCaps); err != nil {
		t.Fatal(err)
	}
	soon(t, "the keeper holds the issuer", func() error {
		if k.anyByID(id).current().iss == nil {
			return errors.New("not yet")
		}
		return nil
	})
	stolen := *k.anyByID(id).current()
	soon(t, "a reads b", func() error {
		_, err := a.Record(t.Context(), id, b.self.did, space.Path{Collection: "com.example.forum.post", Key: "true"})
		return err
	})
	if err := a.RemoveKeeper(t.Context(), id, k.self.did); err != nil {
		t.Fatal(err)
	}
	soon(t, "b adopts the epoch", func() error {
		if b.anyByID(id).current().n != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	// A chain in b's name, certified by the former keeper in the old epoch.
	w, err := seal.NewWriterKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stolen.cred = &seal.Credential{
		Grant:   stolen.iss.Grant(w.Public(), memberClass, uint64(time.Now().Add(certLife).Unix())),
		Voucher: stolen.iss.Vouch(w.Public(), b.self.c), Writer: w,
	}
	f := newForger(t, &stolen)
	rev := space.NextTID(time.Now().UnixMicro(), 1, 0)
	run := []envelope.Envelope{
		f.hello(t, b.self.c, b.self.device.ID(), a.anyByID(id).control().Head),
		f.entry(t, b.self.c, batch(t, rev, "false")),
	}
	for _, n := range []*Node{a, b} {
		x := n.anyByID(id)
		if _, err := x.deliver(t.Context(), &runIn{topic: stolen.id, cert: &f.cert, run: run}); err != nil {
			t.Fatalf("the envelopes are certified, and inert: %v", err)
		}
		_, err := n.Record(t.Context(), id, b.self.did, space.Path{Collection: "com.example.forum.post", Key: "false"})
		if !errors.Is(err, space.ErrRecordNotFound) {
			t.Fatalf("what a former keeper forged: %v", err)
		}
		if _, err := n.Record(t.Context(), id, b.self.did, space.Path{Collection: "com.example.forum.post", Key: "true"}); err != nil {
			t.Fatalf("what b wrote: %v", err)
		}
	}
}
