package node_test

import (
	"errors"
	"testing"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// TestK13StolenDisk: the image of a keeper's disk, without the passphrase,
// holds no text, no name and no key in clear, and nothing opens it.
func TestK13StolenDisk(t *testing.T) {
	home := t.TempDir()
	pass := []byte("three herons on a post")
	if _, _, err := node.Init(home, pass); err != nil {
		t.Fatal(err)
	}
	unlock := func(c *node.Config) { c.Passphrase = pass }
	a, b := start(t, home, unlock), start(t, t.TempDir())
	canaries := []string{"the heron eats a canary", "petrichor-rkey", "vermilion petname", "Sesquipedalian title", string(pass)}
	policy := space.DefaultPolicy()
	policy.DisplayName = canaries[3]
	info, err := a.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Name: canaries[2], Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	join(t, a, b, info.ID)
	put(t, a, info.ID, canaries[1], canaries[0])
	if _, err := a.Rotate(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b adopts the epoch", atEpoch(b, info.ID, 2))
	held, err := node.Dump(a)
	if err != nil {
		t.Fatal(err)
	}
	secret := func(k []byte) { canaries = append(canaries, string(k)) }
	sp := held.Spaces[info.ID]
	if len(sp.Keys) != 2 || len(sp.Issuers) != 2 {
		t.Fatalf("keys of %d epochs, %d issuers", len(sp.Keys), len(sp.Issuers))
	}
	for n := range sp.Keys {
		secret(sp.Keys[n])
		secret(sp.Issuers[n])
	}
	device := held.Device.Marshal()
	for _, k := range [][]byte{device[1:33], device[33:65], device[65:97], held.PUK.Marshal()[5:]} {
		secret(k)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	scanFiles(t, home, canaries)
	for _, wrong := range [][]byte{nil, []byte("three herons on a pole")} {
		if _, err := node.New(node.Config{Home: home, NoMDNS: true, Passphrase: wrong}); !errors.Is(err, keyfile.ErrLocked) {
			t.Errorf("with the passphrase %q: %v", wrong, err)
		}
	}
	again := start(t, home, unlock)
	if _, err := again.Space(t.Context(), info.ID); err != nil {
		t.Errorf("with the right one: %v", err)
	}
}
