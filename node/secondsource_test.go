package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space/identity"
)

// TestC11UnverifiedHead: who gets a log from one keeper, and knows no entry that
// must be in it, is told that it may be old, also after a restart and whatever
// that keeper goes on to say, until another node shows the same head.
func TestC11UnverifiedHead(t *testing.T) {
	a, b := boot(t, newHome(t), onDisk(nil)), boot(t, newHome(t), onDisk(nil))
	home, disk := newHome(t), storetest.NewDisk()
	c := boot(t, home, onDisk(disk))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	admitTo(t, a, c, id)
	if statusOf(t, b, id).UnverifiedHead {
		t.Fatal("a link names an entry of the log, and its head is marked")
	}
	sid := actorOf(t, b, id).sid
	halt(t, c)
	if err := b.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	keeper := peer.AddrInfo{ID: a.host.ID(), Addrs: a.host.Addrs()}
	if err := b.rejoin(t.Context(), keeper, identity.AccountSpace{Space: sid}); err != nil {
		t.Fatal(err)
	}
	marked := func(want bool) error {
		x, err := b.byID(id)
		if err != nil {
			return err
		}
		if got := x.status().UnverifiedHead; got != want || x.info().UnverifiedHead != want {
			return fmt.Errorf("marked %v, want %v", got, want)
		}
		return nil
	}
	if err := marked(true); err != nil {
		t.Fatal(err)
	}
	x := actorOf(t, b, id)
	soon(t, "a round with the same keeper", func() error {
		_, err := b.lead(t.Context(), x, x.current(), a.host.ID(), false)
		return err
	})
	if err := errors.Join(marked(true), inside(t, x, func() error { return x.load() }), marked(true)); err != nil {
		t.Fatal("the same keeper again, and read again:", err)
	}
	c = boot(t, home, onDisk(disk))
	if err := dial(t.Context(), b.host, peer.AddrInfo{ID: c.host.ID(), Addrs: c.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	b.reconcile(sid, c.host.ID())
	soon(t, "a second source ends it", func() error { return marked(false) })
	soon(t, "for good", func() error {
		if _, kept, err := x.store.Meta(unverifiedMeta); err != nil || kept {
			return fmt.Errorf("still kept: %v, %v", kept, err)
		}
		return nil
	})
}
