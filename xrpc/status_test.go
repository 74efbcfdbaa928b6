package xrpc

import (
	"encoding/json"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The structures that are answered as they are have the fields that their
// lexicons say, also those that are left out while they are empty.
func TestStructuresAreTheLexicons(t *testing.T) {
	for where, v := range map[string]any{
		"dev.kith.node.status#main.output.schema": Status{}, "dev.kith.node.peers#peer": Peer{}, "dev.kith.space.defs#status": SpaceStatus{},
		"dev.kith.space.defs#syncPeer": SyncPeer{}, "dev.kith.space.defs#lag": Lag{}, "dev.kith.space.defs#round": Round{},
		"dev.kith.space.defs#mismatch": Mismatch{}, "dev.kith.space.defs#repoHead": RepoHead{}, "dev.kith.space.defs#relay": RelayStatus{},
		"dev.kith.space.defs#member": memberObject{}, "dev.kith.device.list#device": Device{}, "dev.kith.node.backup#main.output.schema": Backup{},
		"dev.kith.node.relay#main.output.schema": RelayRole{}, "dev.kith.node.relay#lease": RelayLease{},
		"dev.kith.server.getSession#main.output.schema": Session{}, "dev.kith.token.list#token": tokenObject{},
	} {
		nsid, path, _ := strings.Cut(where, "#")
		text, err := fs.ReadFile(Lexicons(), nsid+".json")
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		props, _ := at(doc, "defs."+path+".properties").(map[string]any)
		said := slices.Sorted(maps.Keys(props))
		var has []string
		for field := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			has = append(has, name)
		}
		slices.Sort(has)
		if !slices.Equal(said, has) {
			t.Errorf("%s says %v,\n%T has %v", where, said, v, has)
		}
	}
}
