package node

import (
	"crypto/rand"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// TestTakeList: another device's newer list is taken; what only this device
// had stays, and asks for a list that has both. An older one changes nothing.
func TestTakeList(t *testing.T) {
	home := t.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		t.Fatal(err)
	}
	keys, err := keyfile.Open(filepath.Join(home, keysDir), keyfile.Unlock{})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := openSelf(keys)
	if err != nil {
		t.Fatal(err)
	}
	a, err := openAccount(keys, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := a.sealed(); ok {
		t.Error("a list before anything was")
	}
	list := func(version uint64, ids ...byte) ([]byte, identity.List) {
		acct := identity.Account{DIDKey: (&Node{persona: persona{}, self: s}).didKeyBytes(), Devices: []identity.AccountDevice{}, Spaces: []identity.AccountSpace{}}
		for _, id := range ids {
			acct.Spaces = append(acct.Spaces, identity.AccountSpace{Space: [32]byte{id}, Addrs: []string{}})
		}
		raw, err := s.state.SealList(rand.Reader, s.device, s.puk, version, acct)
		if err != nil {
			t.Fatal(err)
		}
		l, err := identity.ParseList(raw)
		if err != nil {
			t.Fatal(err)
		}
		return raw, l
	}
	take := func(version uint64, stale bool, want int, ids ...byte) {
		t.Helper()
		raw, l := list(version, ids...)
		if err := a.take(raw, l); err != nil || a.stale != stale || len(a.plain.Spaces) != want {
			t.Errorf("list %d: %d spaces, want %d, stale %t, %v", version, len(a.plain.Spaces), want, a.stale, err)
		}
	}
	take(5, false, 1, 1)
	take(4, false, 1, 1, 2, 3)
	take(6, false, 2, 1, 2)
	take(7, true, 3, 3)
	// It is there again after a start, as it was sealed.
	again, err := openAccount(keys, s)
	if err != nil || len(again.plain.Spaces) != 1 || again.list.Version != 7 {
		t.Errorf("%d spaces of version %d, %v", len(again.plain.Spaces), again.list.Version, err)
	}
}

// TestSealFitting: addresses are left out of a list until it fits, and no more
// of them than that.
func TestSealFitting(t *testing.T) {
	for _, c := range []struct{ fits, want, tries int }{{8, 8, 1}, {7, 1, 2}, {0, 0, 3}, {-1, 0, 3}} {
		a := identity.Account{Spaces: []identity.AccountSpace{
			{Addrs: slices.Repeat([]string{"x"}, identity.MaxListAddrs)}, {Addrs: []string{}},
		}}
		tries := 0
		_, err := sealFitting(&a, func(x identity.Account) ([]byte, error) {
			if tries++; len(x.Spaces[0].Addrs) > c.fits {
				return nil, space.ErrTooLarge
			}
			return nil, nil
		})
		if (err == nil) != (c.fits >= 0) || len(a.Spaces[0].Addrs) != c.want || tries != c.tries {
			t.Errorf("%d fit: %d addresses after %d tries, %v", c.fits, len(a.Spaces[0].Addrs), tries, err)
		}
	}
}
