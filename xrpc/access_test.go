package xrpc

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kithnet/kith/space"
)

const (
	readerDID space.DID = "did:key:zQ3shreader"
	selfDID   space.DID = "did:key:zQ3shselfreader"
)

// crowded has, beside the owner and the writer other, a reader and one who
// reads only what is theirs, both with records from before.
func crowded(t testing.TB) *fake {
	f := seeded(t)
	s := f.spaces[home]
	s.members = append(s.members, Member{DID: readerDID, Level: space.LevelRead}, Member{DID: selfDID, Level: space.LevelReadSelf})
	f.put(selfDID, "com.example.note/own", `{"text":"drop box"}`)
	f.put(selfDID, "com.example.note/both", `{"text":"drop box both"}`)
	return f
}

// askWith is ask with another token.
func askWith(s *Server, token, verb, nsid, in string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(verb, "http://localhost/xrpc/"+nsid, nil)
	if verb == get {
		r.URL.RawQuery = in
	} else {
		r = httptest.NewRequest(verb, "http://localhost/xrpc/"+nsid, strings.NewReader(in))
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// input is one that every method which names a space takes.
func input(verb, space string) string {
	if verb == get {
		return "space=" + space + "&collection=com.example.note&rkey=a&cid=bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
	}
	return `{"space":"` + space + `","collection":"com.example.note","rkey":"a","record":{},"writes":[],"did":"did:key:zQ3shnewcomer",
		"level":"read","caps":["serve"],"request":"cc01","inviteId":"aa01"}`
}

// inSpaces are the methods that are about one space and judge by its roster.
func inSpaces() []string {
	var all []string
	for nsid, m := range allMethods() {
		if m.handle != nil && slices.Contains([]access{forAuthority, forWriter, forReader, forMember}, m.who) {
			all = append(all, nsid)
		}
	}
	slices.Sort(all)
	return all
}

// Who is no member cannot tell a space that is here from one that is not: not
// by status, body or headers, nor by how often the node was asked.
func TestX1StrangersLearnNothing(t *testing.T) {
	f := crowded(t)
	gone := space.ID{Authority: owner, Type: home.Type, Key: "gone"}
	f.spaces[gone] = &fakeSpace{info: SpaceInfo{ID: gone, Authority: owner}, deleted: true, members: f.spaces[home].members, repos: map[space.DID]*fakeRepo{}}
	others := []space.ID{home, gone}
	for _, err := range []error{space.ErrDelegationDepth, space.ErrTooLarge} { // of what its members hold
		id := space.ID{Authority: owner, Type: home.Type, Key: space.RecordKey(fmt.Sprint("endless", len(others)))}
		f.spaces[id] = &fakeSpace{info: SpaceInfo{ID: id, Authority: owner}, endless: err, repos: map[space.DID]*fakeRepo{}}
		others = append(others, id)
	}
	s := newServer(f)
	text := f.issue(stranger, "read")
	for _, nsid := range inSpaces() {
		verb := allMethods()[nsid].verb
		for _, d := range both {
			s.Dialect = d
			ask := func(id space.ID) string {
				before := f.asks
				w := askWith(s, text, verb, nsid, input(verb, d.spaceURI(id)))
				for _, counted := range []string{"RateLimit-Remaining", "RateLimit-Reset"} {
					w.Header().Del(counted)
				}
				return fmt.Sprint(w.Code, w.Body, w.Header(), " asked ", f.asks-before)
			}
			none := space.ID{Authority: owner, Type: home.Type, Key: "nope"}
			want := ask(none)
			if !strings.Contains(want, "SpaceNotFound") {
				t.Errorf("%s: %s", nsid, want)
			}
			for _, id := range others {
				if got := ask(id); got != want {
					t.Errorf("%s of %s:\n%s\nof none:\n%s", nsid, id.Key, got, want)
				}
			}
		}
	}
	w := askWith(s, text, get, "com.atproto.space.listSpaces", "")
	if at(decoded(t, w), "spaces.0") != nil {
		t.Errorf("a stranger's list: %s", w.Body)
	}
}

// slowNode is a node that needs time to find out that somebody has no place in a
// space, and none to find no space.
type slowNode struct {
	*fake
	takes time.Duration
}

func (n slowNode) Level(ctx context.Context, id space.ID, who space.DID) (space.Level, error) {
	level, err := n.fake.Level(ctx, id, who)
	if err == nil {
		time.Sleep(n.takes)
	}
	return level, err
}

// Nor by how long the answer takes: by the clock of the bubble, to the nanosecond.
func TestX1Timing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := crowded(t)
		s := newServer(f)
		s.Access = slowNode{f, time.Millisecond}
		text := f.issue(stranger, "read")
		for _, nsid := range inSpaces() {
			verb := allMethods()[nsid].verb
			took := func(id space.ID) time.Duration {
				at := time.Now()
				if w := askWith(s, text, verb, nsid, input(verb, id.AT())); !strings.Contains(w.Body.String(), "SpaceNotFound") {
					t.Errorf("%s: %d %s", nsid, w.Code, w.Body)
				}
				return time.Since(at)
			}
			here, none := took(home), took(space.ID{Authority: owner, Type: home.Type, Key: "nope"})
			if here != none {
				t.Errorf("%s: refused after %v where the space is here, after %v where it is not", nsid, here, none)
			}
		}
	})
}

// Off, nothing of a space is looked at, under any name.
func TestX2FeatureOff(t *testing.T) {
	f := crowded(t)
	s := newServer(f)
	f.settings = map[string]string{SettingSpaces: "off"}
	before, asked := f.text(), f.asks
	for nsid := range allMethods() {
		if !ofSpaces(nsid) {
			continue
		}
		for _, verb := range []string{get, post, "PUT"} {
			for _, text := range []string{apiToken, "wrong"} {
				w := askWith(s, text, verb, nsid, "{")
				if w.Code != 404 || at(decoded(t, w), "error") != "FeatureDisabled" || w.Header().Get("WWW-Authenticate") != "" {
					t.Errorf("%s %s: %d %s", verb, nsid, w.Code, w.Body)
				}
			}
		}
	}
	if f.text() != before || f.asks != asked {
		t.Errorf("something happened: asked %d times", f.asks-asked)
	}
	for _, nsid := range []string{"dev.kith.node.status", "_health"} {
		if w := ask(s, get, nsid, ""); w.Code != 200 {
			t.Errorf("%s: %d", nsid, w.Code)
		}
	}
}

// Who reads only what is theirs gets that and nothing else, and no counts.
func TestX4ReadSelf(t *testing.T) {
	s := newServer(crowded(t))
	f := s.Spaces.(*fake)
	text := f.issue(selfDID, "write")
	in := "space=" + home.String() + "&collection=com.example.note"
	for _, c := range []struct {
		nsid, in string
		status   int
		wants    map[string]any
	}{
		{"com.atproto.space.getRecord", in + "&rkey=a&repo=" + string(owner), 403, nil},
		{"com.atproto.space.getRecord", in + "&rkey=none&repo=" + string(owner), 403, nil},
		{"com.atproto.space.getRecord", in + "&rkey=a", 404, nil},
		{"com.atproto.space.getRecord", in + "&rkey=own", 200, map[string]any{"value.text": "drop box"}},
		{"com.atproto.space.getRecord", in + "&rkey=both", 200, map[string]any{"value.text": "drop box both"}},
		{"com.atproto.space.listRecords", in + "&repo=" + string(owner), 403, nil},
		{"com.atproto.space.listRecords", in, 200, map[string]any{"records.0.did": string(selfDID), "records.2": nil}},
		{"com.atproto.space.listRecords", in + "&repo=" + string(selfDID), 200, map[string]any{"records.0.did": string(selfDID), "records.2": nil}},
		{"com.atproto.space.listRepoOps", in + "&did=" + string(other), 403, nil},
		{"com.atproto.space.listRepoOps", in, 200, map[string]any{"ops.0.did": string(selfDID)}},
		{"com.atproto.space.getRepoState", in + "&did=" + string(owner), 403, nil},
		{"com.atproto.space.getRepoState", in + "&did=did:key:zQ3shnobody", 403, nil},
		{"com.atproto.space.getRepoState", in, 200, map[string]any{"did": string(selfDID), "count": 2.0}},
		{"com.atproto.space.listRepos", in, 403, nil},
		{"com.atproto.simplespace.listMembers", in, 403, nil},
		{"com.atproto.simplespace.getSpace", in, 200, map[string]any{"space.role": "read_self", "space.revision": nil, "space.name": nil}},
		{"com.atproto.space.listSpaces", "", 200, map[string]any{"spaces.0.uri": home.String(), "spaces.0.space.revision": nil}},
	} {
		w := askWith(s, text, get, c.nsid, c.in)
		body := decoded(t, w)
		if w.Code != c.status {
			t.Errorf("%s?%s: %d %s", c.nsid, c.in, w.Code, w.Body)
		}
		for path, want := range c.wants {
			if at(body, path) != want {
				t.Errorf("%s?%s: %s is %v, want %v", c.nsid, c.in, path, at(body, path), want)
			}
		}
		if w.Code != 200 && strings.Contains(w.Body.String(), "zQ3sho") {
			t.Errorf("%s tells of others: %s", c.nsid, w.Body)
		}
	}
}

// A refusal of another's repo is the same whether it exists or not.
func TestX4RefusalsAreAlike(t *testing.T) {
	s := newServer(crowded(t))
	text := s.Spaces.(*fake).issue(selfDID, "read")
	for _, nsid := range []string{"com.atproto.space.getRecord", "com.atproto.space.listRecords", "com.atproto.space.listRepoOps", "com.atproto.space.getRepoState"} {
		answers := map[string]bool{}
		for _, repo := range []space.DID{owner, other, "did:key:zQ3shnobody"} {
			w := askWith(s, text, get, nsid, input(get, home.String())+"&repo="+string(repo))
			answers[fmt.Sprint(w.Code, w.Body)] = true
		}
		if len(answers) != 1 {
			t.Errorf("%s: %v", nsid, answers)
		}
	}
}

// Nobody writes into a repo that is not theirs, or without the right to write.
func TestX5OwnRepoOnly(t *testing.T) {
	for _, c := range []struct {
		who         space.DID
		scope, repo string
		status      int
	}{
		{owner, "write", "", 201},
		{owner, "write", string(owner), 201},
		{owner, "write", string(other), 403},
		{owner, "read", "", 403},
		{owner, "read_self", "", 403},
		{owner, "node", "", 404},
		{other, "write", string(owner), 403},
		{other, "write", string(other), 403}, // its keys are not here
		{other, "write", "", 403},
		{readerDID, "write", "", 403},
		{selfDID, "write", "", 403},
		{stranger, "write", "", 404},
	} {
		for _, nsid := range []string{"com.atproto.space.createRecord", "com.atproto.space.putRecord", "com.atproto.space.deleteRecord", "com.atproto.space.applyWrites"} {
			f := crowded(t)
			s := newServer(f)
			before := len(f.spaces[home].repos[owner].ops)
			repo := ""
			if c.repo != "" {
				repo = `"repo":"` + c.repo + `",`
			}
			want := c.status
			if want == 201 && (strings.HasSuffix(nsid, "deleteRecord") || strings.HasSuffix(nsid, "applyWrites")) {
				want = 200
			}
			body := `{` + repo + strings.TrimPrefix(input(post, home.String()), "{")
			if strings.HasSuffix(nsid, "createRecord") {
				body = strings.Replace(body, `"rkey":"a",`, "", 1)
			}
			w := askWith(s, f.issue(c.who, c.scope), post, nsid, body)
			if w.Code != want {
				t.Errorf("%s by %s (%s) into %q: %d %s, want %d", nsid, c.who, c.scope, c.repo, w.Code, w.Body, want)
			}
			if want >= 400 && len(f.spaces[home].repos[owner].ops) != before {
				t.Errorf("%s by %s: written", nsid, c.who)
			}
		}
	}
}

// A member who is not the authority governs nothing; the owner's token without
// manage neither.
func TestX11OnlyTheAuthorityGoverns(t *testing.T) {
	for _, nsid := range inSpaces() {
		m := allMethods()[nsid]
		if m.who != forAuthority {
			continue
		}
		for _, c := range []struct {
			who   space.DID
			scope string
			err   string
		}{
			{other, "write", "NotSpaceOwner"}, {readerDID, "read", "NotSpaceOwner"}, {selfDID, "read_self", "NotSpaceOwner"}, {owner, "write", "Forbidden"},
		} {
			f := crowded(t)
			before := f.text()
			w := askWith(newServer(f), f.issue(c.who, c.scope), m.verb, nsid, input(m.verb, home.String()))
			if w.Code != 403 || at(decoded(t, w), "error") != c.err {
				t.Errorf("%s by %s: %d %s, want %s", nsid, c.who, w.Code, w.Body, c.err)
			}
			if f.text() != before {
				t.Errorf("%s by %s: something changed", nsid, c.who)
			}
		}
	}
}

// What is the owner's own, no other token does; node and manage do what they
// say.
func TestScopes(t *testing.T) {
	for nsid, m := range allMethods() {
		if m.handle == nil {
			continue
		}
		for _, c := range []struct {
			who     space.DID
			scope   string
			allowed []access
		}{
			{owner, "node", []access{forNode, forCaller}},
			{owner, "write", []access{forUploader, forWriter, forReader, forMember, forCaller}},
			{owner, "manage", []access{forFounder, forUploader, forAuthority, forWriter, forReader, forMember, forCaller}},
			{owner, "read", []access{forReader, forMember, forCaller}},
			{other, "read", []access{forReader, forMember, forCaller}},
		} {
			f := crowded(t)
			w := askWith(newServer(f), f.issue(c.who, c.scope), m.verb, nsid, input(m.verb, home.String()))
			name, _ := decoded(t, w)["error"].(string)
			refused := slices.Contains([]string{"Forbidden", "NotSpaceOwner", "SpaceNotFound"}, name)
			if refused == slices.Contains(c.allowed, m.who) {
				t.Errorf("%s (%s) by %s with %s: %d %s", nsid, accessNames[m.who], c.who, c.scope, w.Code, w.Body)
			}
		}
	}
}

func TestTokens(t *testing.T) {
	f := crowded(t)
	s := newServer(f)
	made := decoded(t, ask(s, post, "dev.kith.token.create", `{"did":"did:key:zQ3shreader","scope":"read","note":"for the reader","expiresAt":"2100-01-01T00:00:00Z"}`))
	text, _ := made["token"].(string)
	for path, want := range map[string]any{"info.did": string(readerDID), "info.scope": "read", "info.expiresAt": "2100-01-01T00:00:00Z"} {
		if at(made, path) != want {
			t.Errorf("%s is %v", path, at(made, path))
		}
	}
	if w := ask(s, get, "dev.kith.token.list", ""); strings.Contains(w.Body.String(), text) || at(decoded(t, w), "tokens.0.note") != "for the reader" {
		t.Errorf("list: %s", w.Body)
	}
	who := decoded(t, askWith(s, text, get, "dev.kith.server.getSession", ""))
	if who["did"] != string(readerDID) || who["owner"] != false || who["scope"] != "read" {
		t.Errorf("session: %v", who)
	}
	id := at(made, "info.id").(string)
	if w := askWith(s, text, post, "dev.kith.token.revoke", `{"id":"`+id+`"}`); w.Code != 403 {
		t.Errorf("revoked by itself: %d", w.Code)
	}
	if w := ask(s, post, "dev.kith.token.revoke", `{"id":"`+id+`"}`); w.Code != 200 {
		t.Errorf("revoke: %d %s", w.Code, w.Body)
	}
	if w := askWith(s, text, get, "dev.kith.server.getSession", ""); w.Code != 401 {
		t.Errorf("a revoked token: %d", w.Code)
	}
	for in, err := range map[string]string{
		`{"id":"` + id + `"}`: "TokenNotFound", `{"id":"X"}`: "InvalidRequest", `{}`: "InvalidRequest",
	} {
		if w := ask(s, post, "dev.kith.token.revoke", in); at(decoded(t, w), "error") != err {
			t.Errorf("%s: %s", in, w.Body)
		}
	}
	for _, in := range []string{
		`{}`, `{"scope":""}`, `{"scope":"all"}`, `{"scope":"read","did":"x"}`, `{"scope":"manage","did":"did:key:zQ3shreader"}`,
		`{"scope":"node","did":"did:key:zQ3shreader"}`, `{"scope":"read","expiresAt":"2001-01-01T00:00:00Z"}`, `{"scope":"read","expiresAt":"soon"}`,
		`{"scope":"read","note":"` + strings.Repeat("x", maxNote+1) + `"}`,
	} {
		if w := ask(s, post, "dev.kith.token.create", in); at(decoded(t, w), "error") != "InvalidRequest" {
			t.Errorf("%s: %d %s", in, w.Code, w.Body)
		}
	}
}

func TestScopeText(t *testing.T) {
	for in, want := range map[string]string{
		"read": "read", "read_self read": "read", " write ": "write", "manage": "manage", "manage read": "manage", "node": "node",
		"node manage": "manage node", "read node": "read node",
	} {
		s, err := ParseScope(in)
		again, err2 := ParseScope(s.String())
		if err != nil || err2 != nil || s.String() != want || again != s {
			t.Errorf("%q: %q %v %v", in, s, err, err2)
		}
	}
	for _, in := range []string{"", " ", "owner", "none", "read,write"} {
		if s, err := ParseScope(in); err == nil {
			t.Errorf("%q: %v", in, s)
		}
	}
}

// askPath asks for a path outside /xrpc/ with the owner's token.
func askPath(s *Server, verb, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(verb, "http://localhost/", strings.NewReader(body))
	r.URL.Path = path
	r.Header.Set("Authorization", "Bearer "+apiToken)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}
