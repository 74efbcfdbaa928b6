package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// A control log that is longer than a welcome comes in several: somebody joins
// such a space all the same, and reads what was written before.
func TestJoinLongLog(t *testing.T) {
	a, b := boot(t, newHome(t), onDisk(nil)), boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := putAll(a, id, "before", "first"); err != nil {
		t.Fatal(err)
	}
	for i, size := 0, 0; size <= 2*seal.MaxWelcome; i++ {
		config, err := space.RecordFromJSON(fmt.Appendf(nil, `{"note":"%d %s"}`, i, strings.Repeat("x", space.MaxConfig-100)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.UpdateSpace(t.Context(), id, xrpc.PolicyPatch{Config: &config}); err != nil {
			t.Fatal(err)
		}
		size += len(config)
	}
	admitTo(t, a, b, id)
	soon(t, "both hold the same", alike(a, b, id))
	sp, err := b.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	if n, want := len(sp.control().Policy.Config), space.MaxConfig-100; n < want {
		t.Errorf("a config of %d bytes, not %d", n, want)
	}
}

// A link that was made before its holder was removed lets it in again,
// although its own log has gone beyond where the link was made.
func TestJoinAgainByAnOlderLink(t *testing.T) {
	a, b := boot(t, newHome(t), onDisk(nil)), boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	sp, err := b.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelRead, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.RemoveMember(t.Context(), id, b.self.did); err != nil {
		t.Fatal(err)
	}
	soon(t, "b hears that it is out", func() error {
		if sp.place() != gone {
			return errors.New("not yet")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := b.Join(ctx, inv.Link); err != nil {
		t.Fatal(err)
	}
	soon(t, "both hold the same", alike(a, b, id))
}
