package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// TestK1StaleGeneration: a keeper that has adopted the epoch after a revocation
// from somebody who cannot tell it more, and has not heard of the revocation
// itself, gives the revoked device nothing: the epoch is wrapped to a later
// per-user key than the device's log knows of.
func TestK1StaleGeneration(t *testing.T) {
	a, b, k := newPerson(t), newPerson(t), newPerson(t)
	id, err := newSpace(a.Node, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a.Node, b.Node, id)
	admitTo(t, a.Node, k.Node, id)
	b.meet(t, k)
	soon(t, "k becomes a keeper", func() error { // it fetches k's identity log
		_, err := a.SetKeeper(t.Context(), id, k.self.did, []xrpc.Cap{xrpc.CapAdmit})
		return err
	})
	e := &ensemble{home: map[string]string{}, disk: map[string]*storetest.Disk{}}
	device := e.enrol(t, a.Node, "p")
	p := &person{home: e.home["p"], disk: e.disk["p"]}
	p.back(t, a)
	soon(t, "the space comes to the phone", alike(a.Node, p.Node, id))
	for _, n := range []*person{b, k} {
		soon(t, "all know the phone", func() error {
			if st, _ := n.identity(a.self.c); !st.Can(device, 0) {
				return errors.New("not yet")
			}
			return alike(a.Node, n.Node, id)()
		})
	}
	halt(t, p.Node)
	halt(t, k.Node)
	if _, err := a.RevokeDevice(t.Context(), fmt.Sprintf("%x", device)); err != nil {
		t.Fatal(err)
	}
	soon(t, "b adopts the epoch", b.epochIs(t, id, 2))
	halt(t, a.Node)
	k.back(t, b)
	soon(t, "the keeper adopts the epoch", k.epochIs(t, id, 2))
	if st, _ := k.identity(a.self.c); st.Revoked(device) {
		t.Fatal("the keeper knows of the revocation: this tests nothing")
	}
	if s, err := k.byID(id); err != nil || !s.admits() {
		t.Fatalf("the keeper admits nobody: %v", err)
	}
	only := &walls{open: map[string]bool{}}
	only.let(k.Node)
	p.Node = boot(t, p.home, onDisk(p.disk), func(c *Config) { c.Host = []libp2p.Option{libp2p.ConnectionGater(only)} })
	p.meet(t, k)
	s := p.bySpace(k.spaceIDs()[0])
	_, _, err = p.askWelcome(t.Context(), parsePeers(fullAddrs(k.host))[0], asking{space: s.sid, invite: []byte{}, from: s})
	if !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("the revoked device is told %v", err)
	}
}
