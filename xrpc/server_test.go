package xrpc

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

const apiToken = "the token of the test"

// both names the dialects of table tests.
var both = map[string]Dialect{"happyview": HappyView, "atproto": ATProto}

func newServer(f *fake) *Server {
	return &Server{
		Spaces: f, Records: f, Repos: f, Node: f, Links: f,
		Roster: f, Delegations: f, Invites: f, Approvals: f, Keys: f, Keepers: f, Admin: f, Transfers: f, Exits: f, Petnames: f, Devices: f, Backups: f, Relays: f,
		Access: f, Tokens: f, Settings: f, Snapshots: f, Blobs: f, Events: f,
		Owner: owner, Token: apiToken, Version: "v0",
	}
}

// ask sends one request to a method: in is a query string for GET and a body
// for POST.
func ask(s *Server, verb, nsid, in string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(verb, "http://localhost/xrpc/"+nsid, nil)
	if verb == get {
		r.URL.RawQuery = in
	} else {
		r = httptest.NewRequest(verb, "http://localhost/xrpc/"+nsid, strings.NewReader(in))
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+apiToken)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// decoded is an answer's body; it fails the test if it is no JSON object. An
// answer of bytes, which have tests of their own, decodes to nothing.
func decoded(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	if kind := w.Header().Get("Content-Type"); w.Code == 200 && kind != "" && kind != "application/json" {
		return nil
	}
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("status %d, body %q: %v", w.Code, w.Body, err)
	}
	return v
}

// at walks a decoded body: "a.0.b".
func at(v any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			var i int
			if _, err := fmt.Sscanf(key, "%d", &i); err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// spelled replaces $S by the space as the dialect spells it, and escapes it in
// queries.
func spelled(d Dialect, verb, in string) string {
	uri := d.spaceURI(home)
	if verb == get {
		uri = url.QueryEscape(uri)
	}
	return strings.ReplaceAll(in, "$S", uri)
}

// endpoint is a row of the endpoint tables: the statuses of both dialects and
// what the body has. In wants, "$S" is the space in the dialect, "*" anything
// but null, nil null or absent.
type endpoint struct {
	name, verb, nsid, in string
	happyview, atproto   int
	err                  string
	wants                map[string]any
}

func (e endpoint) run(t *testing.T, f *fake, d Dialect) {
	s := newServer(f)
	s.Dialect = d // what the request does not say
	status := e.happyview
	if d == ATProto {
		status = e.atproto
	}
	w := ask(s, e.verb, e.nsid, spelled(d, e.verb, e.in))
	body := decoded(t, w)
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	wantErr := e.err
	if status < 400 { // an error in the other dialect only
		wantErr = ""
	}
	if name, _ := body["error"].(string); name != wantErr {
		t.Fatalf("error %q, want %q: %s", name, wantErr, w.Body)
	}
	if wantErr != "" && (body["message"] == nil || body["message"] == "") {
		t.Errorf("no message: %s", w.Body)
	}
	for path, want := range e.wants {
		got := at(body, path)
		if text, ok := want.(string); ok {
			want = strings.ReplaceAll(text, "$S", d.spaceURI(home))
		}
		if want == "*" && got != nil {
			continue
		}
		if got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
}

// runTable gives every row a fresh fake with a few records of two authors.
func runTable(t *testing.T, rows []endpoint) {
	for _, e := range rows {
		for name, d := range both {
			t.Run(e.nsid+"/"+e.name+"/"+name, func(t *testing.T) { e.run(t, seeded(t), d) })
		}
	}
}

// seeded has records of the owner and of the other member.
func seeded(t testing.TB) *fake {
	f := newFake(t)
	f.put(owner, "com.example.note/a", `{"text":"mine a"}`)
	f.put(owner, "com.example.note/both", `{"text":"mine both"}`)
	f.put(other, "com.example.note/both", `{"text":"theirs both"}`)
	f.put(other, "com.example.note/theirs", `{"text":"theirs"}`)
	return f
}

var spaceEndpoints = []endpoint{
	{"bare", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.forum","skey":"main"}`, 201, 200, "",
		map[string]any{"spaceId": "*", "space.type": "com.example.forum", "space.skey": "main", "space.role": "write"}},
	{"draws the key", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.forum"}`, 201, 200, "",
		map[string]any{"uri": "*"}},
	{"happyview", post, "com.atproto.simplespace.createSpace",
		`{"type":"com.example.forum","skey":"main","displayName":"Forum","description":"d","mintPolicy":"member-list","appAccess":{"type":"open"},"managingAppDid":null,"config":{"colour":"red","membershipPublic":false}}`,
		201, 201, "", map[string]any{
			"uri": "ats://did:key:zQ3showner/com.example.forum/main", "space.display_name": "Forum", "space.displayName": "Forum",
			"space.mint_policy": "member-list", "space.config.colour": "red", "space.config.membership_public": false,
		}},
	{"atproto", post, "com.atproto.simplespace.createSpace",
		`{"type":"com.example.forum","skey":"main","policy":{"$type":"com.atproto.simplespace.defs#memberListPolicy"},"appAccess":{"$type":"com.atproto.simplespace.defs#open"}}`,
		200, 200, "", map[string]any{"uri": "at://did:key:zQ3showner/space/com.example.forum/main"}},
	{"twice", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","skey":"home"}`, 409, 400, "SpaceAlreadyExists",
		map[string]any{"message": "A space with this address already exists: create space"}},
	{"name taken", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","skey":"x","name":"home"}`, 409, 400, "NameTaken", nil},
	{"empty key", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","skey":""}`, 400, 400, "InvalidRequest",
		map[string]any{"message": "type and skey are required"}},
	{"no type", post, "com.atproto.simplespace.createSpace", `{"skey":"x"}`, 400, 400, "InvalidRequest", nil},
	{"bad type", post, "com.atproto.simplespace.createSpace", `{"type":"notes","skey":"x"}`, 400, 400, "InvalidRequest", nil},
	{"bad key", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","skey":"a/b"}`, 400, 400, "InvalidRequest", nil},
	{"public", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","mintPolicy":"public"}`, 201, 201, "", map[string]any{"space.mintPolicy": "public"}},
	{"unknown mint", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","mintPolicy":"pubic"}`, 400, 400, "UnsupportedPolicy", nil},
	{"unknown union", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","policy":{"$type":"x#y"}}`, 400, 400, "UnsupportedPolicy", nil},
	{"managing app", post, "com.atproto.simplespace.createSpace",
		`{"type":"com.example.notes","policy":{"$type":"com.atproto.simplespace.defs#managingAppPolicy","managingApp":"did:web:x.example#space"}}`, 200, 200, "",
		map[string]any{"space.managing_app_did": "did:web:x.example#space"}},
	{"managing app without a fragment", post, "com.atproto.simplespace.createSpace",
		`{"type":"com.example.notes","policy":{"$type":"com.atproto.simplespace.defs#managingAppPolicy","managingApp":"did:web:x.example"}}`, 400, 400, "UnsupportedPolicy", nil},
	{"managing app without its mint", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","managingAppDid":"did:web:x.example#space"}`, 400, 400, "UnsupportedPolicy", nil},
	{"null policy", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","policy":null}`, 400, 400, "UnsupportedPolicy", nil},
	{"untyped policy", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","policy":{}}`, 400, 400, "UnsupportedPolicy", nil},
	{"two policies", post, "com.atproto.simplespace.createSpace",
		`{"type":"com.example.notes","mintPolicy":"public","policy":{"$type":"com.atproto.simplespace.defs#memberListPolicy"}}`, 400, 400, "InvalidRequest", nil},
	{"allow list", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","appAccess":{"type":"allowList","allowed":["x"]}}`, 201, 201, "",
		map[string]any{"space.app_access.type": "allowList", "space.app_access.allowed.0": "x"}},
	{"unknown access", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","appAccess":{"type":"closed"}}`, 400, 400, "UnsupportedAppAccess", nil},
	{"unknown access union", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","appAccess":{"$type":"x#closed"}}`, 400, 400, "UnsupportedAppAccess", nil},
	{"null access", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","appAccess":null}`, 400, 400, "UnsupportedAppAccess", nil},
	{"static keys", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","keyPolicy":"static"}`, 400, 400, "UnsupportedPolicy", nil},
	{"own did", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","ownDid":true}`, 201, 200, "", map[string]any{"space.did": "did:plc:drawn"}},
	{"public members", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","membershipPublic":true}`, 201, 201, "",
		map[string]any{"space.config.membership_public": true, "space.config.records_public": false}},
	{"public records", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","config":{"records_public":true}}`, 400, 400, "UnsupportedPolicy", nil},
	{"collections", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","config":{"allowedCollections":["a.b.c"]}}`, 400, 400, "UnsupportedPolicy", nil},
	{"float in config", post, "com.atproto.simplespace.createSpace", `{"type":"com.example.notes","config":{"x":1.5}}`, 400, 400, "InvalidRequest", nil},

	{"found", get, "com.atproto.space.getSpace", "space=$S", 200, 200, "", map[string]any{
		"uri": "$S", "space.uri": "$S", "space.name": "home", "space.revision": "*", "space.authority_did": "did:key:zQ3showner",
		"policy.$type": "com.atproto.simplespace.defs#memberListPolicy", "appAccess.$type": "com.atproto.simplespace.defs#open",
		"appAccess.type": "open", "config.mintPolicy": "member-list", "config.managingApp": nil, "space.policy.mint": "member-list",
	}},
	{"found too", get, "com.atproto.simplespace.getSpace", "space=$S", 200, 200, "", map[string]any{"uri": "$S"}},
	{"unknown", get, "com.atproto.space.getSpace", "space=$Sx", 404, 400, "SpaceNotFound", map[string]any{"message": "Space not found"}},
	{"missing", get, "com.atproto.space.getSpace", "", 422, 400, "InvalidRequest", map[string]any{"message": "space: is required"}},
	{"twice", get, "com.atproto.space.getSpace", "space=$S&space=$S", 400, 400, "InvalidRequest", nil},
	{"record uri", get, "com.atproto.space.getSpace", "space=$S/did:key:z/com.example.note/a", 400, 400, "InvalidRequest", nil},
	{"fragment", get, "com.atproto.space.getSpace", "space=$S%23/x", 400, 400, "InvalidRequest", nil},
	{"other scheme", get, "com.atproto.space.getSpace", "space=https://x", 400, 400, "InvalidRequest",
		map[string]any{"message": `space: "https://x": an address begins with ats:// or at://`}},

	{"all", get, "com.atproto.space.listSpaces", "", 200, 200, "", map[string]any{"spaces.0.uri": "$S", "spaces.0.isOwner": true, "cursor": nil}},
	{"by type", get, "com.atproto.space.listSpaces", "type=com.example.other", 200, 200, "", map[string]any{"spaces.0": nil}},
	{"own did", get, "com.atproto.space.listSpaces", "did=did:key:zQ3showner", 200, 200, "", map[string]any{"spaces.0.uri": "$S"}},
	{"a stranger's", get, "com.atproto.space.listSpaces", "did=did:key:zQ3shstranger", 200, 200, "", map[string]any{"spaces.0": nil}},
	{"limit 0", get, "com.atproto.space.listSpaces", "limit=0", 400, 400, "InvalidRequest", nil},
	{"limit over", get, "com.atproto.space.listSpaces", "limit=101", 200, 400, "InvalidRequest", nil},
	{"bad cursor", get, "com.atproto.space.listSpaces", "cursor=-1", 400, 400, "InvalidCursor", nil},

	{"all", get, "com.atproto.simplespace.listMembers", "space=$S", 200, 200, "", map[string]any{
		"members.0.did": "did:key:zQ3shother", "members.0.access": "write", "members.1.did": "did:key:zQ3showner", "members.1.keeper": true, "cursor": nil,
	}},
	{"first page", get, "com.atproto.simplespace.listMembers", "space=$S&limit=1", 200, 200, "", map[string]any{"members.1": nil, "cursor": "*"}},
	{"second page", get, "com.atproto.simplespace.listMembers", "space=$S&limit=1&cursor=ZGlkOmtleTp6UTNzaG90aGVy", 200, 200, "", map[string]any{
		"members.0.did": "did:key:zQ3showner", "members.1": nil, "cursor": nil,
	}},
	{"cursor with loose bits", get, "com.atproto.simplespace.listMembers", "space=$S&cursor=ZGlkOnh", 400, 400, "InvalidCursor", nil},
	{"cursor of another kind", get, "com.atproto.simplespace.listMembers", "space=$S&cursor=eHg", 400, 400, "InvalidCursor", nil},
	{"unknown", get, "com.atproto.simplespace.listMembers", "space=$Sx", 404, 400, "SpaceNotFound", nil},

	{"default", post, "dev.happyview.space.createInvite", `{"space":"$S"}`, 201, 201, "", map[string]any{
		"inviteId": "00ff", "token": "kith:j#secret", "link": "kith:j#secret", "access": "read", "maxUses": nil, "expiresAt": nil,
	}},
	{"limited", post, "dev.happyview.space.createInvite", `{"space":"$S","access":"write","maxUses":5,"expiresAt":"2030-01-31T12:00:00+02:00"}`, 201, 201, "", map[string]any{
		"access": "write", "maxUses": 5.0, "expiresAt": "2030-01-31T10:00:00Z",
	}},
	{"no uses", post, "dev.happyview.space.createInvite", `{"space":"$S","maxUses":0}`, 400, 400, "InvalidRequest", nil},
	{"bad time", post, "dev.happyview.space.createInvite", `{"space":"$S","expiresAt":"never"}`, 400, 400, "InvalidRequest",
		map[string]any{"message": "expiresAt: want a time such as 2027-01-31T12:00:00Z"}},
	{"bad level", post, "dev.happyview.space.createInvite", `{"space":"$S","access":"admin"}`, 400, 400, "InvalidRequest", nil},

	{"granted", post, "dev.kith.space.join", `{"link":"kith:j#secret"}`, 200, 200, "", map[string]any{
		"uri": "$S", "role": "write", "epoch": 1.0, "asked": "12D3peer", "by": "did:key:zQ3showner",
	}},
	{"spent", post, "dev.kith.space.join", `{"link":"kith:j#spent"}`, 404, 400, "InvalidInvite", map[string]any{"message": "Invalid invite token"}},
	{"no link", post, "dev.kith.space.join", `{}`, 422, 400, "InvalidRequest", nil},
	{"long wait", post, "dev.kith.space.join", `{"link":"x","waitSeconds":601}`, 400, 400, "InvalidRequest", nil},

	{"shown", get, "dev.kith.node.status", "", 200, 200, "", map[string]any{"version": "v0", "did": "did:key:zQ3showner", "listen": "*", "peers": "*", "spaces.0.inSyncWith": "*"}},
	{"none", get, "dev.kith.node.peers", "", 200, 200, "", map[string]any{"peers": "*"}},
	{"dialled", post, "dev.kith.node.connect", `{"addr":"/ip4/127.0.0.1/tcp/1/p2p/12D3peer"}`, 200, 200, "", map[string]any{"peerId": "12D3peer", "direct": true}},
	{"bad", post, "dev.kith.node.connect", `{"addr":"nowhere"}`, 400, 400, "InvalidRequest", nil},
	{"closed", post, "dev.kith.node.disconnect", `{"peerId":"12D3peer"}`, 200, 200, "", map[string]any{"success": true}},
	{"a stranger", post, "dev.kith.node.disconnect", `{"peerId":"12D3nobody"}`, 404, 400, "PeerNotFound", nil},
	{"ok", get, "_health", "", 200, 200, "", map[string]any{"version": "v0"}},
}

func TestSpaceEndpoints(t *testing.T) { runTable(t, spaceEndpoints) }

// The link to a space, its records and its authors must not be told from one
// that does not exist.
func TestClosedSpacesAnswerAlike(t *testing.T) {
	answers := map[string]bool{}
	for _, err := range []error{
		space.ErrSpaceNotFound,
		fmt.Errorf("open %s: %w", home, space.ErrSpaceNotFound),
		fmt.Errorf("removed at epoch 4: %w", space.ErrSpaceNotFound),
	} {
		f := newFake(t)
		f.fail = err
		w := ask(newServer(f), get, "com.atproto.space.getSpace", "space="+home.String())
		answers[fmt.Sprint(w.Code, w.Body)] = true
	}
	if len(answers) != 1 {
		t.Errorf("answers differ: %v", answers)
	}
}

// allMethods are the rows under every name they have.
func allMethods() map[string]method {
	all := maps.Clone(methods)
	for name, nsid := range aliases {
		all[name] = methods[nsid]
	}
	return all
}

func built(nsid string) bool {
	m, _ := methodOf(nsid)
	return m.handle != nil
}

// Every alias stands for a method, and no name stands twice.
func TestAliasesName(t *testing.T) {
	for name, nsid := range aliases {
		if _, ok := methods[nsid]; !ok {
			t.Errorf("%s: no method %s", name, nsid)
		}
		if _, ok := methods[name]; ok {
			t.Errorf("%s is a method and an alias", name)
		}
	}
}

func TestMethodsOfTheTable(t *testing.T) {
	s := newServer(newFake(t))
	for nsid, m := range allMethods() {
		if _, err := space.ParseNSID(nsid); err != nil {
			t.Errorf("%s: %v", nsid, err)
		}
		wrong := map[string]string{get: post, post: get}[m.verb]
		w := ask(s, wrong, nsid, "")
		switch {
		case m.handle == nil && (w.Code != http.StatusNotImplemented || at(decoded(t, w), "error") != "MethodNotImplemented"):
			t.Errorf("%s: %d %s", nsid, w.Code, w.Body)
		case m.handle != nil && (w.Code != http.StatusMethodNotAllowed || !strings.HasPrefix(w.Header().Get("Allow"), m.verb)):
			t.Errorf("%s with %s: %d, Allow %q", nsid, wrong, w.Code, w.Header().Get("Allow"))
		}
	}
	for _, nsid := range []string{"com.atproto.space.nothing", "nothing", "", "com.atproto.space.getSpace/x", strings.Repeat("x", 9000)} {
		if w := ask(s, get, nsid, ""); w.Code != http.StatusNotFound || at(decoded(t, w), "error") != "XRPCNotSupported" {
			t.Errorf("%s: %d %s", clip(nsid), w.Code, w.Body)
		}
	}
}

// The older names answer as the newer ones do, in HappyView's dialect whatever
// the URI.
func TestAliases(t *testing.T) {
	const in = "space=at://did:key:zQ3showner/space/com.example.notes/home"
	w := ask(newServer(newFake(t)), get, "dev.happyview.space.getSpace", in)
	if uri := at(decoded(t, w), "uri"); uri != home.String() {
		t.Errorf("uri %v", uri)
	}
	body := `{"space":"` + home.AT() + `","collection":"com.example.note","record":{}}`
	if w := ask(newServer(newFake(t)), post, "dev.happyview.space.createRecord", body); w.Code != http.StatusCreated {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}
