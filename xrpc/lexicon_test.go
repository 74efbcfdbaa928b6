package xrpc

import (
	"encoding/json"
	"flag"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/xrpc/lexicon"
)

var update = flag.Bool("update", false, "rewrite the files that are generated")

func readLexicons(t *testing.T, files fs.FS) *lexicon.Catalog {
	t.Helper()
	c, err := lexicon.Read(files)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	aWrite  = `"space":"$S","repo":"did:key:zQ3showner","collection":"com.example.note"`
	newType = `"type":"com.example.forum","skey":"x"`
)

// asked has good requests for every method that is built.
var asked = map[string][]string{
	"com.atproto.simplespace.createSpace":  {`{` + newType + `,"policy":{"$type":"com.atproto.simplespace.defs#memberListPolicy"},"appAccess":{"$type":"com.atproto.simplespace.defs#open"}}`},
	"com.atproto.simplespace.getSpace":     {"space=$S"},
	"com.atproto.simplespace.listMembers":  {"space=$S", "space=$S&limit=1"},
	"com.atproto.simplespace.addMember":    {`{"space":"$S","did":"did:key:zQ3shnewcomer"}`, `{"space":"$S","did":"did:key:zQ3shother"}`},
	"com.atproto.simplespace.removeMember": {`{"space":"$S","did":"did:key:zQ3shother"}`},
	"com.atproto.simplespace.updateSpace":  {`{"space":"$S","policy":{"$type":"com.atproto.simplespace.defs#publicPolicy"}}`, `{"space":"$S"}`},
	"com.atproto.simplespace.deleteSpace":  {`{"space":"$S"}`},
	"com.atproto.simplespace.getConfig":    {"space=$S"},
	"com.atproto.simplespace.updateConfig": {`{"space":"$S","mintPolicy":"public"}`, `{"space":"$S"}`},
	"com.atproto.space.createRecord":       {`{` + aWrite + `,"record":{}}`},
	"com.atproto.space.putRecord":          {`{` + aWrite + `,"rkey":"a","record":{}}`},
	"com.atproto.space.deleteRecord":       {`{` + aWrite + `,"rkey":"a"}`},
	"com.atproto.space.applyWrites": {`{"space":"$S","repo":"did:key:zQ3showner","writes":[
		{"$type":"com.atproto.space.applyWrites#create","collection":"com.example.note","value":{}},
		{"$type":"com.atproto.space.applyWrites#update","collection":"com.example.note","rkey":"a","value":{}},
		{"$type":"com.atproto.space.applyWrites#delete","collection":"com.example.note","rkey":"a"}]}`},
	"com.atproto.space.getRecord":       {"space=$S&repo=did:key:zQ3showner&collection=com.example.note&rkey=a"},
	"com.atproto.space.listRecords":     {"space=$S&repo=did:key:zQ3showner", "space=$S&repo=did:key:zQ3showner&limit=1"},
	"com.atproto.space.getLatestCommit": {"space=$S&repo=did:key:zQ3showner"},
	"com.atproto.space.listRepoOps":     {"space=$S&repo=did:key:zQ3showner", "space=$S&repo=did:key:zQ3showner&limit=1"},
	"com.atproto.space.getRepoState":    {"space=$S&repo=did:key:zQ3showner", "space=$S&repo=did:key:zQ3shnobody"},
	"com.atproto.space.listRepos":       {"space=$S", "space=$S&limit=1"},
	"com.atproto.space.listBlobs":       {"space=$S&repo=did:key:zQ3showner"},
	"com.atproto.space.listSpaces":      {"", "limit=1"},

	"dev.happyview.space.createInvite": {`{"space":"$S"}`, `{"space":"$S","maxUses":2,"expiresAt":"2100-01-01T00:00:00Z"}`},
	"dev.happyview.space.acceptInvite": {`{"token":"kith:j#secret"}`},
	"dev.happyview.space.revokeInvite": {`{"space":"$S","inviteId":"aa01"}`},
	"dev.happyview.space.listInvites":  {"space=$S", "space=$S&limit=1"},

	"dev.kith.space.join":             {`{"link":"kith:j#secret"}`, `{"link":"kith:j#secret","waitSeconds":0}`},
	"dev.kith.space.leave":            {`{"space":"$S"}`},
	"dev.kith.space.forget":           {`{"space":"$S"}`},
	"dev.kith.space.setPetname":       {`{"space":"$S","name":"home"}`, `{"space":"$S"}`},
	"dev.kith.space.rotate":           {`{"space":"$S"}`, `{"space":"$S","relays":["/ip4/192.0.2.1/tcp/1/p2p/x"]}`},
	"dev.kith.space.status":           {"space=$S"},
	"dev.kith.space.setLevel":         {`{"space":"$S","did":"did:key:zQ3shother","level":"read"}`},
	"dev.kith.space.setKeeper":        {`{"space":"$S","did":"did:key:zQ3shother","caps":["admit"]}`},
	"dev.kith.space.removeKeeper":     {`{"space":"$S","did":"did:key:zQ3shother"}`},
	"dev.kith.space.appointSequencer": {`{"space":"$S","did":"did:key:zQ3showner"}`},
	"dev.kith.space.listRequests":     {"space=$S", "space=$S&limit=1"},
	"dev.kith.space.approveRequest":   {`{"space":"$S","request":"cc01"}`},
	"dev.kith.space.denyRequest":      {`{"space":"$S","request":"cc01"}`},
	"dev.kith.space.transfer":         {`{"space":"$S","did":"did:key:zQ3shother"}`},
	"dev.kith.space.acceptTransfer":   {`{"space":"$S"}`},
	"dev.kith.device.list":            {""},
	"dev.kith.device.approve":         {`{"code":"kith:d#code"}`},
	"dev.kith.device.revoke":          {`{"id":"bb02"}`},
	"dev.kith.node.status":            {""},
	"dev.kith.node.peers":             {""},
	"dev.kith.node.connect":           {`{"addr":"/ip4/127.0.0.1/tcp/1/p2p/12D3peer"}`},
	"dev.kith.node.disconnect":        {`{"peerId":"12D3peer"}`},
	"dev.kith.node.relay":             {""},
	"dev.kith.space.leaseRelay":       {`{"space":"$S","relay":"12D3relay","code":"sesame"}`},
	"dev.kith.node.backup":            {`{"file":"/tmp/x"}`},
	"dev.kith.server.getSession":      {""},
	"dev.kith.server.createTicket":    {`{"space":"$S","method":"dev.kith.space.subscribe"}`},
	"dev.kith.token.create":           {`{"scope":"read"}`, `{"scope":"read","did":"did:key:zQ3shother","note":"x","expiresAt":"2100-01-01T00:00:00Z"}`},
	"dev.kith.token.list":             {""},
	"dev.kith.token.revoke":           {`{"id":"0001"}`},
}

// elsewhere are built methods whose answers are no JSON, or need more than a
// fake; their own tests hold them to their lexicons.
var elsewhere = map[string]bool{
	"dev.kith.space.subscribe":  true,                                      // frames: TestSubscribe
	"com.atproto.space.getRepo": true,                                      // a CAR
	"com.atproto.space.getBlob": true, "com.atproto.repo.uploadBlob": true, // bytes: TestGetBlob, TestUploadBlob
}

// drift is what an answer has that its lexicon does not say, or the other way
// round.
func drift(t *testing.T, l *lexicon.Catalog, nsid, in string, d Dialect, strict bool) []string {
	t.Helper()
	f := crowded(t)
	f.devices = append(f.devices, Device{ID: "bb02", Caps: []string{}})
	f.spaces[home].accepted = true
	f.spaces[home].members[1].Keeper = true
	if strings.HasSuffix(nsid, ".leave") {
		f.spaces[home].info.Authority = other
	}
	if strings.Contains(nsid, "transfer") {
		f.spaces[home].info.ID.Authority = "did:plc:drawn"
	}
	f.issue(other, "read")
	s := newServer(f)
	s.Dialect = d
	m := methods[nsid]
	in = strings.ReplaceAll(in, "$S", d.spaceURI(home))
	var wrong []error
	if m.verb == get {
		q, err := url.ParseQuery(in)
		if err != nil {
			t.Fatal(err)
		}
		wrong = l.Params(nsid, q)
		in = q.Encode()
	} else {
		var v any
		if err := json.Unmarshal([]byte(in), &v); err != nil {
			t.Fatal(err)
		}
		wrong = l.Input(nsid, v)
	}
	w := ask(s, m.verb, nsid, in)
	if w.Code >= 300 {
		t.Errorf("%s %s: %d %s", nsid, in, w.Code, w.Body)
		return nil
	}
	body := any(decoded(t, w))
	var out []string
	for _, err := range append(wrong, l.Output(nsid, body)...) {
		out = append(out, err.Error())
	}
	if strict {
		for _, field := range l.Unknown(nsid, body) {
			out = append(out, field+": the lexicon does not say it")
		}
	}
	return out
}

// Every com.atproto method that is built takes and answers what the reference
// says. What we answer beside it is ours to add.
func TestReferenceShapes(t *testing.T) {
	l := readLexicons(t, os.DirFS("testdata/lexicons"))
	for nsid, m := range methods {
		if m.handle == nil || l.Kind(nsid) == "" || elsewhere[nsid] {
			continue
		}
		if asked[nsid] == nil {
			t.Errorf("%s has a lexicon and no request in asked", nsid)
		}
		for _, in := range asked[nsid] {
			for _, wrong := range drift(t, l, nsid, in, ATProto, false) {
				t.Errorf("%s %s: %s", nsid, in, wrong)
			}
		}
	}
}

// Every method that is built has a lexicon of the right kind, and one of our
// own says all that is answered, in either dialect.
func TestOwnLexicons(t *testing.T) {
	l := readLexicons(t, Lexicons())
	reference := readLexicons(t, os.DirFS("testdata/lexicons"))
	kinds := map[string]string{get: "query", post: "procedure"}
	for nsid, m := range methods {
		if m.handle == nil && !m.byRelay {
			if l.Kind(nsid) != "" && reference.Kind(nsid) == "" {
				t.Errorf("%s has a lexicon and is not built", nsid)
			}
			continue
		}
		want := kinds[m.verb]
		if m.socket || m.byRelay && strings.Contains(nsid, "subscribe") {
			want = "subscription"
		}
		if l.Kind(nsid) != want {
			t.Errorf("lexicons/%s.json: kind %q, want %q", nsid, l.Kind(nsid), want)
			continue
		}
		if elsewhere[nsid] || m.byRelay { // of a relay: TestLexicons of package relay
			continue
		}
		if asked[nsid] == nil {
			t.Errorf("%s: no request in asked", nsid)
		}
		for _, in := range asked[nsid] {
			for _, d := range both {
				if d == HappyView && reference.Kind(nsid) != "" || d == ATProto && nsid == "com.atproto.space.getRepoState" {
					continue // the lexicon is the other dialect's
				}
				for _, wrong := range drift(t, l, nsid, in, d, reference.Kind(nsid) == "") {
					t.Errorf("%s %s: %s", nsid, in, wrong)
				}
			}
		}
	}
	for _, nsid := range l.NSIDs() {
		if _, ok := methods[nsid]; !ok && l.Kind(nsid) != "" {
			t.Errorf("lexicons/%s.json: no such method", nsid)
		}
	}
}

// The errors a lexicon names are names we use.
func TestLexiconErrors(t *testing.T) {
	ours := map[string]bool{"RepoTakendown": true, "RepoSuspended": true, "RepoDeactivated": true} // of accounts, which a node has not
	for _, r := range rows {
		ours[r.name] = true
	}
	for _, files := range []fs.FS{os.DirFS("testdata/lexicons"), Lexicons()} {
		l := readLexicons(t, files)
		for _, nsid := range l.NSIDs() {
			for _, name := range l.Errors(nsid) {
				if m, _ := methodOf(nsid); m.handle != nil && !ours[name] {
					t.Errorf("%s: %s is not in the table", nsid, name)
				}
			}
		}
	}
}

// The lexicons of com.atproto are the reference's with two formats left open:
// clients of the npm packages do not know space-ref, and both spellings of a
// space are good here. They are rewritten with -update.
func TestLexiconsOfTheReference(t *testing.T) {
	files, err := filepath.Glob("testdata/lexicons/*.json")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d lexicons: %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		loosen(doc)
		want, err := json.MarshalIndent(doc, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		own := filepath.Join("lexicons", filepath.Base(name))
		if *update {
			if err := os.WriteFile(own, append(want, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if have, err := os.ReadFile(own); err != nil || string(have) != string(want)+"\n" {
			t.Errorf("%s is not what %s makes of it (go test -update): %v", own, name, err)
		}
	}
}

func loosen(v any) {
	switch x := v.(type) {
	case map[string]any:
		if x["format"] == "space-ref" || x["format"] == "at-uri" {
			x["format"] = "uri"
		}
		for _, sub := range x {
			loosen(sub)
		}
	case []any:
		for _, sub := range x {
			loosen(sub)
		}
	}
}

func TestServedLexicons(t *testing.T) {
	s := newServer(newFake(t))
	s.Token = ""
	list := decoded(t, askPath(s, "GET", "/lexicons/", ""))
	if names, _ := list["lexicons"].([]any); !slices.Contains(names, any("dev.kith.space.join")) || len(names) < 60 {
		t.Errorf("list: %v", list)
	}
	doc := decoded(t, askPath(s, "GET", "/lexicons/com.atproto.space.getRecord", ""))
	if doc["id"] != "com.atproto.space.getRecord" {
		t.Errorf("document: %v", doc)
	}
	for _, path := range []string{"/lexicons/nothing", "/lexicons/../server.go", "/lexicons/..", "/lexicons/a/b"} {
		if w := askPath(s, "GET", path, ""); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
