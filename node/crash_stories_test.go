package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	spacectl "github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

// TestK14AdmissionCrash lets the node that orders the log, and the newcomer's,
// die at every step of an admission: between the entry and the welcome as well
// as between the keys and the log. The newcomer asks again; one roster entry,
// one use of the invite.
func TestK14AdmissionCrash(t *testing.T) {
	var link string
	e := rehearse(t, []string{"a", "b", "c"}, func(n map[string]*Node, e *ensemble) {
		clubOf(t, e, n["a"], n["b"])
		inv, err := n["a"].Invite(t.Context(), e.id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
		if err != nil {
			t.Fatal(err)
		}
		link = inv.Link
		soon(t, "b knows", alike(n["a"], n["b"], e.id))
	})
	l, err := spacectl.ParseLink(link)
	if err != nil {
		t.Fatal(err)
	}
	// One attempt at the authority, wherever it is.
	join := func(s *stage) error {
		c := s.nodes["c"]
		if c.bySpace(l.SpaceID) != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
		defer cancel()
		keeper := parsePeers(fullAddrs(s.nodes["a"].host))[0]
		lid := l.InviteID()
		joined, w, err := c.askWelcome(ctx, keeper, asking{space: l.SpaceID, invite: lid[:], link: &l, head: &l.Head})
		if err == nil {
			_, err = c.settleIn(joined, w, keeper, "")
		}
		return err
	}
	y := story{
		cast: e, victims: []string{"a", "c"},
		act: func(s *stage) {
			s.write("a", "before")
			s.write("b", "meanwhile")
			if err := join(s); err != nil && !s.crash.died() {
				s.t.Fatal(err)
			}
			s.write("a", "after")
			s.write("c", "first")
		},
		again: func(s *stage) { soon(s.t, "c joins", func() error { return join(s) }) },
		end: func(s *stage) {
			for _, name := range []string{"a", "b", "c"} {
				s.must(name, "finally")
			}
			s.agree("a", "b", "c")
			s.roster(1, "a", "b", "c")
			inv, ok := s.actor("a").control().Invite(l.InviteID())
			if !ok || inv.Uses != 1 {
				s.t.Errorf("the invite was used %d times", inv.Uses)
			}
		},
	}
	y.everyStep(t)
}

// clubOf has a make a space and take b in.
func clubOf(t *testing.T, e *ensemble, a *Node, more ...*Node) {
	t.Helper()
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	e.id = id
	for _, n := range more {
		admitTo(t, a, n, id)
	}
	for _, n := range append(more, a) {
		if _, err := putAll(n, id, "long ago", "old"); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range more {
		soon(t, "all hold the same", alike(a, n, id))
	}
}

// TestK14RemovalCrash lets the node that removes somebody, and one that adopts
// the removal, die at every step of it.
func TestK14RemovalCrash(t *testing.T) {
	e := rehearse(t, []string{"a", "b", "c"}, func(n map[string]*Node, e *ensemble) { clubOf(t, e, n["a"], n["b"], n["c"]) })
	y := story{
		cast: e, victims: []string{"a", "b"},
		act: func(s *stage) {
			s.write("a", "before")
			s.write("b", "meanwhile")
			if err := s.nodes["a"].RemoveMember(s.t.Context(), s.id, s.nodes["c"].self.did); err != nil && !s.crash.died() {
				s.t.Fatal(err)
			}
			s.over("b adopts the epoch", s.adopted("b", 2))
			s.write("a", "after")
			s.write("b", "later")
		},
		again: func(s *stage) {
			soon(s.t, "the removal", func() error { // a repaired store waits for a word of the others
				err := s.nodes["a"].RemoveMember(s.t.Context(), s.id, s.nodes["c"].self.did)
				if errors.Is(err, space.ErrMemberNotFound) {
					err = nil
				}
				return err
			})
		},
		end: func(s *stage) {
			soon(s.t, "b adopts the epoch", s.adopted("b", 2))
			s.must("a", "secret")
			s.must("b", "secret")
			s.agree("a", "b")
			s.roster(2, "a", "b")
			s.shutOut("c", 2, "secret")
		},
	}
	y.everyStep(t)
}

// adopted is content when a node has the keys of an epoch and nothing to
// complain about.
func (s *stage) adopted(name string, epoch uint64) func() error {
	return func() error {
		a := s.actor(name)
		if st := a.status(); st.Epoch != epoch || st.LastError != "" || a.lacks() {
			return fmt.Errorf("epoch %d, want %d; %s", st.Epoch, epoch, st.LastError)
		}
		return nil
	}
}

// TestK14RotationCrash lets the node that opens an epoch, and one that adopts
// it, die at every step: between the wraps and the log as well.
func TestK14RotationCrash(t *testing.T) {
	e := rehearse(t, []string{"a", "b", "c"}, func(n map[string]*Node, e *ensemble) { clubOf(t, e, n["a"], n["b"], n["c"]) })
	y := story{
		cast: e, victims: []string{"a", "b"},
		act: func(s *stage) {
			s.write("a", "before")
			s.write("b", "meanwhile")
			if _, err := s.nodes["a"].Rotate(s.t.Context(), s.id); err != nil && !s.crash.died() {
				s.t.Fatal(err)
			}
			s.over("b adopts the epoch", s.adopted("b", 2))
			s.write("a", "after")
			s.write("b", "later")
		},
		again: func(s *stage) {
			soon(s.t, "the rotation", func() (err error) {
				if s.actor("a").control().Epoch == 1 {
					_, err = s.nodes["a"].Rotate(s.t.Context(), s.id)
				}
				return err
			})
		},
		end: func(s *stage) {
			for _, name := range []string{"b", "c"} {
				soon(s.t, name+" adopts the epoch", s.adopted(name, 2))
			}
			for _, name := range []string{"a", "b", "c"} {
				s.must(name, "finally")
			}
			s.agree("a", "b", "c")
			s.roster(2, "a", "b", "c")
		},
	}
	y.everyStep(t)
}

// TestK14RevocationCrash lets a person's node that revokes another device of
// hers, and a keeper's that adopts the epoch that follows, die at every step.
func TestK14RevocationCrash(t *testing.T) {
	var phone identity.DeviceID
	e := rehearse(t, []string{"a", "b"}, func(n map[string]*Node, e *ensemble) {
		clubOf(t, e, n["a"], n["b"])
		phone = e.enrol(t, n["a"], "p")
		n["p"] = boot(t, e.home["p"], onDisk(e.disk["p"]))
		if _, err := n["p"].Connect(t.Context(), fullAddrs(n["a"].host)[0]); err != nil {
			t.Fatal(err)
		}
		soon(t, "the space comes to the phone", alike(n["a"], n["p"], e.id))
		// b may admit: who is shut out asks it for keys as well.
		if _, err := n["a"].SetKeeper(t.Context(), e.id, n["b"].self.did, []xrpc.Cap{xrpc.CapAdmit}); err != nil {
			t.Fatal(err)
		}
		soon(t, "b knows the phone", func() error {
			if st, _ := n["b"].identity(n["a"].self.c); !st.Can(phone, 0) {
				return errors.New("not yet")
			}
			return nil
		})
	})
	y := story{
		cast: e, victims: []string{"a", "b"},
		act: func(s *stage) {
			s.write("a", "before")
			s.write("b", "meanwhile")
			if _, err := s.nodes["a"].RevokeDevice(s.t.Context(), fmt.Sprintf("%x", phone)); err != nil && !s.crash.died() {
				s.t.Fatal(err)
			}
			s.over("b adopts the epoch", s.adopted("b", 2))
			s.write("a", "after")
			s.write("b", "later")
		},
		again: func(s *stage) {
			soon(s.t, "the revocation", func() error {
				_, err := s.nodes["a"].RevokeDevice(s.t.Context(), fmt.Sprintf("%x", phone))
				return err
			})
		},
		end: func(s *stage) {
			for _, name := range []string{"a", "b"} {
				soon(s.t, name+" adopts the epoch", s.adopted(name, 2))
				soon(s.t, name+" knows the new per-user key", func() error {
					if st, _ := s.nodes[name].identity(s.nodes["a"].self.c); !st.Revoked(phone) {
						return errors.New("not yet")
					}
					return nil
				})
			}
			s.must("a", "secret")
			s.must("b", "secret")
			s.agree("a", "b")
			s.roster(2, "a", "b")
			s.shutOut("p", 2, "secret")
			if puk := s.nodes["a"].self.ownPUK(); !puk.Public().Equal(s.nodes["a"].self.ownState().PUK) {
				s.t.Error("the per-user key is not the one that the log names")
			}
		},
	}
	y.everyStep(t)
}

// enrol makes a new home of the ensemble a device of n's owner.
func (e *ensemble) enrol(t *testing.T, n *Node, name string) identity.DeviceID {
	t.Helper()
	e.home[name], e.disk[name] = filepath.Join(t.TempDir(), name), storetest.NewDisk()
	shown, done := make(chan Offer, 1), make(chan error, 1)
	go func() {
		_, err := Machine{Home: e.home[name], Name: name, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true}.
			Enrol(t.Context(), func(o Offer) error { shown <- o; return nil })
		done <- err
	}()
	var offer Offer
	select {
	case offer = <-shown:
	case err := <-done:
		t.Fatal(err)
	}
	if _, err := n.ApproveDevice(t.Context(), offer.Code, offer.Addrs[0]); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for d := range n.self.ownState().Devices {
		if d != n.self.device.ID() {
			return d
		}
	}
	t.Fatal("no second device")
	return identity.DeviceID{}
}
