package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// A token works until it expires or is revoked, over restarts; what is kept of
// it does not hold its text.
func TestTokensLast(t *testing.T) {
	dir := t.TempDir()
	keys, err := keyfile.Create(dir, keyfile.Unlock{})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		n := &Node{}
		reopen := func() {
			if n.desk, err = openDesk(keys, map[string]string{"feature.x": "env"}); err != nil {
				t.Fatal(err)
			}
		}
		reopen()
		ctx := context.Background()
		scope := xrpc.Scope{Level: space.LevelRead}
		short, made, err := n.CreateToken(ctx, xrpc.Token{DID: "did:plc:a", Scope: scope, ExpiresMs: time.Now().Add(time.Hour).UnixMilli()})
		if err != nil || made.ID == "" {
			t.Fatal(made, err)
		}
		long, keep, err := n.CreateToken(ctx, xrpc.Token{DID: "did:plc:b", Scope: scope, Note: "for ever"})
		if err != nil || short == long {
			t.Fatal(err)
		}
		if _, _, err := n.CreateToken(ctx, xrpc.Token{DID: "did:plc:a", Scope: scope, ExpiresMs: 1}); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("one that has expired: %v", err)
		}
		reopen()
		if got, err := n.Caller(ctx, long); err != nil || got != keep {
			t.Errorf("after a restart: %+v %v, want %+v", got, err, keep)
		}
		time.Sleep(time.Hour) // of the bubble
		if _, err := n.Caller(ctx, short); !errors.Is(err, xrpc.ErrTokenNotFound) {
			t.Errorf("expired: %v", err)
		}
		if all, _ := n.Tokens(ctx); len(all) != 1 || all[0].ID != keep.ID {
			t.Errorf("list: %v", all)
		}
		if err := n.RevokeToken(ctx, keep.ID); err != nil {
			t.Error(err)
		}
		reopen()
		if _, err := n.Caller(ctx, long); !errors.Is(err, xrpc.ErrTokenNotFound) {
			t.Errorf("revoked: %v", err)
		}
		if b, _ := keys.Read(tokensName); len(b) > 1 {
			t.Errorf("something of them is left: %q", b)
		}
	})
}

// What the API set goes before the environment, and a deletion gives way.
func TestSettingsLast(t *testing.T) {
	keys, err := keyfile.Create(t.TempDir(), keyfile.Unlock{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	n := &Node{}
	env := map[string]string{xrpc.SettingSpaces: "false"}
	value := func() string {
		if n.desk, err = openDesk(keys, env); err != nil {
			t.Fatal(err)
		}
		v, _ := n.Setting(xrpc.SettingSpaces)
		return v.Source + " " + v.Value
	}
	if got := value(); got != "env false" {
		t.Error(got)
	}
	if err := n.DeleteSetting(ctx, xrpc.SettingSpaces); !errors.Is(err, xrpc.ErrSettingNotFound) {
		t.Errorf("delete what the environment sets: %v", err)
	}
	if err := n.SetSetting(ctx, xrpc.SettingSpaces, "true"); err != nil {
		t.Fatal(err)
	}
	if got := value(); got != "database true" {
		t.Error(got)
	}
	if err := n.DeleteSetting(ctx, xrpc.SettingSpaces); err != nil {
		t.Fatal(err)
	}
	if got := value(); got != "env false" {
		t.Error(got)
	}
}
