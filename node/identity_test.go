package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
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
	t.Parallel()
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
	here, there := create(t, laptop, "made on the laptop"), create(t, phone, "made on the phone")
	if _, err := phone.Connect(t.Context(), listen(t, laptop)); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node.Node{"laptop": laptop, "phone": phone} {
		eventually(t, name+" knows all four", devicesOf(n, 4))
	}
	for name, n := range map[string]*node.Node{"laptop": laptop, "phone": phone} {
		for _, id := range []space.ID{here, there} {
			eventually(t, name+" has both spaces", func() error { _, err := n.Space(context.Background(), id); return err })
		}
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
	t.Parallel()
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

// TestIdentityStream: whoever knows C is answered, whoever speaks is believed
// what verifies, and a node keeps nothing of people it has nothing to do with.
func TestIdentityStream(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, bob := start(t, filepath.Join(dir, "a")), start(t, filepath.Join(dir, "bob"))
	id := create(t, bob, "club")
	join(t, bob, a, id)
	addr := listen(t, bob)
	st, err := identity.Verify(node.OwnLog(a))
	if err != nil {
		t.Fatal(err)
	}
	say := func(c identity.Commitment, log [][]byte, list []byte) ([][]byte, []byte) {
		t.Helper()
		l, b, err := node.AskIdentity(t.Context(), addr, c, log, list)
		if err != nil {
			t.Fatal(err)
		}
		return l, b
	}
	var list []byte
	eventually(t, "bob keeps a's list", func() error {
		var log [][]byte
		if log, list = say(st.C, nil, nil); len(log) != 4 || len(list) == 0 {
			return fmt.Errorf("%d entries, a list of %d bytes", len(log), len(list))
		}
		return nil
	})
	if bytes.Contains(list, []byte(id.Type)) {
		t.Error("the list shows what is in it")
	}

	// A stranger with a log of its own leaves nothing.
	seed, err := identity.NewSeed(strings.NewReader(strings.Repeat("s", 32)))
	if err != nil {
		t.Fatal(err)
	}
	eve, err := identity.New(rand.Reader, seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	evil, err := eve.State.SealList(rand.Reader, eve.Device, eve.PUK, 1<<60, identity.Account{DIDKey: eve.DIDKey.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	if log, got := say(eve.State.C, eve.Log, evil); len(log) != 0 || len(got) != 0 {
		t.Errorf("a stranger's log of %d entries and a list of %d bytes were kept", len(log), len(got))
	}
	// Nor does what is not a's take the place of what is.
	forged := slices.Clone(evil)
	i := bytes.Index(forged, eve.State.C[:])
	copy(forged[i:], st.C[:])
	for name, try := range map[string][]byte{"another's": evil, "another's in a's name": forged, "cut": list[:len(list)-1], "noise": []byte("noise")} {
		if _, got := say(st.C, eve.Log, try); !bytes.Equal(got, list) {
			t.Errorf("%s list took the place", name)
		}
	}
	if log, _ := say(st.C, eve.Log, nil); len(log) != 4 || !bytes.Equal(log[3], node.OwnLog(a)[3]) {
		t.Error("another's log took the place")
	}
	// A new device's list does, and an old one does not come back.
	enrol(t, a, filepath.Join(dir, "b"))
	eventually(t, "bob keeps the newer list", func() error {
		if _, got := say(st.C, nil, nil); bytes.Equal(got, list) {
			return errors.New("the old one")
		}
		return nil
	})
	_, newer := say(st.C, nil, nil)
	if _, got := say(st.C, nil, list); !bytes.Equal(got, newer) {
		t.Error("an old list came back")
	}
	// With the last space that is shared, the list goes.
	if err := bob.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	node.CountLists(bob)
	if _, got := say(st.C, nil, nil); len(got) != 0 {
		t.Error("the list of somebody who is nothing to bob is still there")
	}
	// There is room for so many lists and no more.
	node.FillLists(bob)
	join(t, bob, a, create(t, bob, "another"))
	if _, got := say(st.C, nil, newer); len(got) != 0 {
		t.Error("a list beyond the room for lists was kept")
	}
	node.CountLists(bob)
	if _, got := say(st.C, nil, newer); len(got) == 0 {
		t.Error("no list was kept where there is room")
	}
}

// A machine whose connection broke after it was taken in asks again, and is
// not taken in twice.
func TestEnrolAgain(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	dev, err := identity.NewDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	st, err := identity.Verify(node.OwnLog(n))
	if err != nil {
		t.Fatal(err)
	}
	req, err := dev.Request(st.C, identity.CapsAll)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := node.EnrolDevice(n, req); err != nil || len(node.OwnLog(n)) != 6 {
			t.Fatalf("%d entries, %v", len(node.OwnLog(n)), err)
		}
	}
	less, err := dev.Request(st.C, identity.CapWrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.EnrolDevice(n, less[:len(less)-1]); err == nil {
		t.Error("half a request was taken")
	}
}

// TestForgetOnOneDevice: what one device forgets does not come back to it, and
// stays with the other.
func TestForgetOnOneDevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	laptop := start(t, filepath.Join(dir, "laptop"))
	id := create(t, laptop, "ours")
	cid := put(t, laptop, id, "a", "text")
	enrol(t, laptop, filepath.Join(dir, "phone"))
	phone := start(t, filepath.Join(dir, "phone"))
	eventually(t, "the space comes", sees(phone, id, did(t, laptop), "a", cid))
	if err := phone.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n := node.Missing(phone); n != 0 {
		t.Errorf("%d spaces would come back", n)
	}
	if err := phone.Close(); err != nil {
		t.Fatal(err)
	}
	phone = start(t, filepath.Join(dir, "phone"))
	if n := node.Missing(phone); n != 0 {
		t.Errorf("%d spaces would come back after a start", n)
	}
	if err := sees(laptop, id, did(t, laptop), "a", cid)(); err != nil {
		t.Errorf("the laptop: %v", err)
	}
	// The person is in it still: asked for again, it comes.
	inv, err := laptop.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := phone.Join(t.Context(), inv.Link); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", sees(phone, id, did(t, laptop), "a", cid))
}
