package conformance_test

import (
	"errors"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// A deleted space says so to those who were in it, takes nothing, and a new one
// at its address has another id and nobody of the old.
func TestX16DeletedSpaces(t *testing.T) {
	c, guest := start(t, false), start(t, false)
	did := meet(t, c, guest)
	ctx := t.Context()
	made := xrpc.NewSpace{Type: "com.example.notes", Key: "home", Policy: space.DefaultPolicy()}
	old, err := c.CreateSpace(ctx, made)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddMember(ctx, old.ID, did, space.LevelRead); err != nil {
		t.Fatal(err)
	}
	record, err := space.RecordFromJSON([]byte(`{"$type":"com.example.note"}`))
	if err != nil {
		t.Fatal(err)
	}
	write := []xrpc.Write{{Action: xrpc.ActionPut, Path: space.Path{Collection: "com.example.note", Key: "a"}, Value: record}}
	if _, err := c.Write(ctx, old.ID, write, xrpc.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	reader := &xrpc.Client{Base: c.Base, Token: token(t, c, did)}
	stranger := &xrpc.Client{Base: c.Base, Token: token(t, c, "did:plc:ewvi7nxzyoun6zhxrhs64oiz")}
	if _, err := reader.Record(ctx, old.ID, "", write[0].Path); err != nil {
		t.Fatalf("a member reads: %v", err)
	}
	if err := c.DeleteSpace(ctx, old.ID, "over"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(ctx, old.ID, write, xrpc.WriteOptions{}); !errors.Is(err, space.ErrSpaceDeleted) {
		t.Errorf("a write: %v", err)
	}
	if _, err := reader.Record(ctx, old.ID, "", write[0].Path); !errors.Is(err, space.ErrSpaceDeleted) {
		t.Errorf("who was a member: %v", err)
	}
	if _, err := stranger.Record(ctx, old.ID, "", write[0].Path); !errors.Is(err, space.ErrSpaceNotFound) {
		t.Errorf("a stranger: %v", err)
	}
	again, err := c.CreateSpace(ctx, made)
	if err != nil {
		t.Fatal(err)
	}
	members, err := c.Members(ctx, again.ID)
	if again.SpaceID == old.SpaceID || len(members) != 1 || err != nil {
		t.Errorf("the new space: id %x after %x, members %v, %v", again.SpaceID, old.SpaceID, members, err)
	}
	if _, err := reader.Record(ctx, old.ID, "", write[0].Path); !errors.Is(err, space.ErrSpaceNotFound) {
		t.Errorf("who was a member of the old one, in the new one: %v", err)
	}
}
