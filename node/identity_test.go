package node_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space/identity"
)

func devicesOf(n *node.Node, live int) func() error {
	return func() error {
		all, err := n.Devices(context.Background())
		if err != nil {
			return err
		}
		got := 0
		for _, d := range all {
			if !d.Revoked {
				got++
			}
		}
		if got != live {
			return fmt.Errorf("%d live devices of %d, want %d", got, len(all), live)
		}
		return nil
	}
}

// TestDevicesApart: two devices that do not see each other both take one in.
// Their logs part; when they meet again, one branch wins everywhere and what
// the other said is said again.
func TestDevicesApart(t *testing.T) {
	dir := t.TempDir()
	home := func(name string) string { return filepath.Join(dir, name) }
	laptop := start(t, home("laptop"))
	enrol(t, laptop, home("phone"))
	if err := laptop.Close(); err != nil {
		t.Fatal(err)
	}
	phone := start(t, home("phone"))
	enrol(t, phone, home("tablet"))
	if err := phone.Close(); err != nil {
		t.Fatal(err)
	}
	laptop = start(t, home("laptop"))
	enrol(t, laptop, home("watch"))
	phone = start(t, home("phone"))
	if err := devicesOf(phone, 3)(); err != nil {
		t.Fatal(err)
	}
	if _, err := phone.Connect(t.Context(), listen(t, laptop)); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node.Node{"laptop": laptop, "phone": phone} {
		eventually(t, name+" knows all four", devicesOf(n, 4))
	}
	eventually(t, "one log", func() error {
		a, b := node.OwnLog(laptop), node.OwnLog(phone)
		if len(a) != len(b) || string(a[len(a)-1]) != string(b[len(b)-1]) {
			return fmt.Errorf("%d and %d entries", len(a), len(b))
		}
		return nil
	})
	st, err := identity.Verify(node.OwnLog(laptop))
	if err != nil || len(st.Devices) != 4 {
		t.Fatalf("%d devices, %v", len(st.Devices), err)
	}
	// Devices that came in on either branch take part: each opens the newest
	// key.
	for _, name := range []string{"tablet", "watch"} {
		n := start(t, home(name))
		if _, err := n.Connect(t.Context(), listen(t, laptop)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the "+name+" follows", devicesOf(n, 4))
		eventually(t, "the "+name+" has the key", func() error {
			if !node.HasNewestKey(n) {
				return errors.New("an old per-user key")
			}
			return nil
		})
	}
}

// TestRevokedBeforeTold: the node dies between writing the revocation down and
// telling anybody. When it is back the space gets its new epoch.
func TestRevokedBeforeTold(t *testing.T) {
	dir := t.TempDir()
	laptop, bob := start(t, filepath.Join(dir, "laptop")), start(t, filepath.Join(dir, "bob"))
	id := create(t, bob, "club")
	join(t, bob, laptop, id)
	d := enrol(t, laptop, filepath.Join(dir, "phone"))
	phone := start(t, filepath.Join(dir, "phone"))
	eventually(t, "the phone is in", func() error { _, err := phone.Space(context.Background(), id); return err })
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := laptop.RevokeDevice(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	if err := laptop.Close(); err != nil {
		t.Fatal(err)
	}
	bob, laptop = start(t, filepath.Join(dir, "bob")), start(t, filepath.Join(dir, "laptop"))
	if err := devicesOf(laptop, 1)(); err != nil {
		t.Error(err)
	}
	if _, err := laptop.Connect(t.Context(), listen(t, bob)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next epoch", atEpoch(bob, id, 2))
	secret := put(t, bob, id, "secret", "not for the phone")
	eventually(t, "the laptop reads", sees(laptop, id, did(t, bob), "secret", secret))
	if _, err := phone.Record(t.Context(), id, did(t, bob), path("secret")); err == nil {
		t.Error("the phone reads what was written after it was revoked")
	}
}
