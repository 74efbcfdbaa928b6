package xrpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
)

// dial is a client of a server on the fake, and one that has the fake itself
// behind the same methods.
func dial(t testing.TB, f *fake) *Client {
	base, _ := listen(t, newServer(f))
	return &Client{Base: base + "/", Token: apiToken}
}

// same compares an answer over HTTP with the node's own.
func same[T any](t *testing.T, what string, got, want T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("%s: %v", what, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s over HTTP:\n%+v\nthe node's:\n%+v", what, got, want)
	}
}

// What the client says is what the node said, field by field.
func TestClientSaysWhatTheNodeSays(t *testing.T) {
	f := batched(t)
	f.put(other, "com.example.note/k1", `{"$type":"com.example.note","deep":{"list":[1,null,true,"\u0000é😀<&>"],"bytes":{"$bytes":"AAEC"}}}`)
	f.put(owner, "com.example.note/k1", `{"n":6}`)
	c, ctx := dial(t, f), t.Context()

	cs, err1 := c.Space(ctx, home)
	fs, err2 := f.Space(ctx, home)
	same(t, "space", cs, fs, err1, err2)
	call, err1 := c.Spaces(ctx)
	fall, err2 := f.Spaces(ctx)
	same(t, "spaces", call, fall, err1, err2)

	cm, err1 := c.Members(ctx, home)
	fm, err2 := f.Members(ctx, home)
	slices.SortFunc(fm, func(a, b Member) int { return strings.Compare(string(a.DID), string(b.DID)) })
	same(t, "members", cm, fm, err1, err2)

	for _, author := range []space.DID{owner, other, ""} {
		p := space.Path{Collection: notes, Key: "k1"}
		cr, err1 := c.Record(ctx, home, author, p)
		if author == "" { // the caller's own, who is the owner
			author = owner
		}
		fr, err2 := f.Record(ctx, home, author, p)
		same(t, "record", cr, fr, err1, err2)
	}
	for _, q := range []RecordQuery{
		{Limit: 50}, {Limit: 1000}, {Limit: 2}, {Limit: 3, Reverse: true}, {Limit: 5, NoValues: true}, {Limit: 5, Repo: other},
		{Limit: 5, Collection: "com.example.none"},
	} {
		for range 10 {
			cr, ccur, err1 := c.Records(ctx, home, q)
			fr, fcur, err2 := f.Records(ctx, home, q)
			same(t, fmt.Sprintf("records %+v", q), cr, fr, err1, err2)
			same(t, fmt.Sprintf("cursor %+v", q), ccur, fcur)
			if q.Cursor = fcur; fcur == "" {
				break
			}
		}
	}
	for _, author := range []space.DID{owner, other} {
		cr, err1 := c.RepoState(ctx, home, author)
		fr, err2 := f.RepoState(ctx, home, author)
		fr.Commit.IKM, fr.Commit.Sig, fr.Commit.MAC = cr.Commit.IKM, cr.Commit.Sig, cr.Commit.MAC // signed anew each time
		same(t, "repo state", cr, fr, err1, err2)
		if err := cr.Commit.Verify(must(f.key.PublicKey())(t), home, author); err != nil {
			t.Errorf("the commit over HTTP: %v", err)
		}
	}
	for _, q := range []OpsQuery{{Limit: 100}, {Limit: 2}, {Limit: 100, Since: f.spaces[home].repos[owner].ops[0].Rev}, {Limit: 100, NoValues: true}} {
		for range 10 {
			cp, err1 := c.RepoOps(ctx, home, owner, q)
			fp, err2 := f.RepoOps(ctx, home, owner, q)
			if fp.State != nil && cp.State != nil {
				fp.State.State = nil // not part of the page
				fp.State.Commit = cp.State.Commit
			}
			same(t, fmt.Sprintf("ops %+v", q), cp, fp, err1, err2)
			if q.Cursor = fp.Cursor; fp.Cursor == "" {
				break
			}
		}
	}
	cp, err1 := c.Repos(ctx, home)
	fp, err2 := f.Repos(ctx, home)
	slices.SortFunc(fp, func(a, b RepoInfo) int { return strings.Compare(string(a.DID), string(b.DID)) })
	same(t, "repos", cp, fp, err1, err2)

	cpeer, err1 := c.Connect(ctx, "/ip4/127.0.0.1/tcp/1/p2p/12D3peer")
	same(t, "connect", cpeer, f.peers[0], err1)
	cpeers, err1 := c.Peers(ctx)
	same(t, "peers", cpeers, f.peers, err1)
	cst, err1 := c.Status(ctx)
	fst, err2 := f.Status(ctx)
	same(t, "status", cst, filled(fst), err1, err2)
	v, err1 := c.Health(ctx)
	same(t, "health", v, "v0", err1)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// The client hands over what it was given.
func TestClientAsksWhatItWasAsked(t *testing.T) {
	f := newFake(t)
	c, ctx := dial(t, f), t.Context()
	p := space.DefaultPolicy()
	p.DisplayName, p.Description = "Notes & more", "d"
	p.Config = must(space.RecordFromJSON([]byte(`{"colour":"red"}`)))(t)
	n := NewSpace{Type: "com.example.forum", Key: "main", Name: "forum", Policy: p}
	got, err := c.CreateSpace(ctx, n)
	id := space.ID{Authority: owner, Type: n.Type, Key: n.Key}
	same(t, "new space", got, f.spaces[id].info, err)
	same(t, "policy", got.Policy, p)
	if got, err := c.CreateSpace(ctx, NewSpace{Type: n.Type}); err != nil || got.ID.Key == "" || got.Policy.Mint != space.MintMemberList {
		t.Errorf("space with a drawn key: %+v, %v", got, err)
	}
	p.Mint = space.MintPublic
	p.Config = must(space.RecordFromJSON([]byte(`{"colour":"red","recordsPublic":true,"membershipPublic":true}`)))(t)
	got, err = c.CreateSpace(ctx, NewSpace{Type: n.Type, Policy: p, OwnDID: true})
	same(t, "public policy", got.Policy, p, err)
	same(t, "own DID", got.ID.Authority, space.DID("did:plc:drawn"))
	p.Attribution = space.AttributionSig
	if _, err := c.CreateSpace(ctx, NewSpace{Type: n.Type, Policy: p}); err == nil || !strings.Contains(err.Error(), "UnsupportedPolicy") {
		t.Errorf("signed: %v", err)
	}

	o := InviteOptions{Level: space.LevelReadSelf, MaxUses: 3, ExpiresMs: 1_900_000_000_123}
	inv, err := c.Invite(ctx, home, o)
	same(t, "invite", inv, Invite{ID: "00ff", Link: "kith:j#secret", Level: o.Level, MaxUses: o.MaxUses, ExpiresMs: o.ExpiresMs}, err)
	same(t, "options", f.asked, o)
	inv, err = c.Invite(ctx, home, InviteOptions{Level: space.LevelWrite})
	same(t, "open invite", inv, Invite{ID: "00ff", Link: "kith:j#secret", Level: space.LevelWrite}, err)

	j, err := c.Join(ctx, "kith:j#secret")
	same(t, "joined", j, Joined{home, space.LevelWrite, 1, "12D3peer", string(owner), "home"}, err)
	if _, err := c.JoinWait(ctx, "kith:j#spent", time.Second); !errors.Is(err, space.ErrInvite) {
		t.Errorf("spent invite: %v", err)
	}
	f.joins = func(ctx context.Context, _ string) (Joined, error) {
		deadline, _ := ctx.Deadline()
		if left := time.Until(deadline); left < 90*time.Second || left > 100*time.Second {
			t.Errorf("the node waits %v", left)
		}
		return Joined{}, ErrStillWaiting
	}
	patient, cancel := context.WithTimeout(ctx, 100*time.Second)
	defer cancel()
	if _, err := c.Join(patient, "x"); !errors.Is(err, ErrStillWaiting) {
		t.Errorf("join: %v", err)
	}
}

func TestClientWrites(t *testing.T) {
	f := newFake(t)
	c, ctx := dial(t, f), t.Context()
	path := func(key string) space.Path { return space.Path{Collection: notes, Key: space.RecordKey(key)} }
	one := must(space.RecordFromJSON([]byte(`{"n":1}`)))(t)
	two := must(space.RecordFromJSON([]byte(`{"n":2}`)))(t)

	w, err := c.CreateRecord(ctx, home, path("a"), one)
	same(t, "created", w.Records, []RecordRef{{space.URI{Space: home, Author: owner, Path: path("a")}, one.CID()}}, err)
	if w.Rev != f.spaces[home].info.Rev {
		t.Errorf("rev %v", w.Rev)
	}
	if _, err := c.CreateRecord(ctx, home, path("a"), one); !errors.Is(err, space.ErrRecordExists) {
		t.Errorf("create again: %v", err)
	}
	if w, err := c.CreateRecord(ctx, home, path(""), one); err != nil || w.Records[0].URI.Path.Key == "" {
		t.Errorf("drawn key: %v, %v", w, err)
	}
	stale := two.CID()
	if _, err := c.PutRecord(ctx, home, path("a"), two, &stale); !errors.Is(err, space.ErrSwap) {
		t.Errorf("stale put: %v", err)
	}
	fresh := one.CID()
	if w, err = c.PutRecord(ctx, home, path("a"), two, &fresh); err != nil || w.Records[0].CID != two.CID() {
		t.Errorf("put: %v, %v", w, err)
	}
	if w, err = c.DeleteRecord(ctx, home, path("a"), nil); err != nil || w.Rev == 0 {
		t.Errorf("delete: %v, %v", w, err)
	}
	if _, err = c.DeleteRecord(ctx, home, path("a"), nil); !errors.Is(err, space.ErrRecordNotFound) {
		t.Errorf("delete again: %v", err)
	}

	head := f.spaces[home].info.Rev.String()
	w, err = c.Write(ctx, home, []Write{
		{Action: ActionCreate, Path: path("b"), Value: one},
		{Action: ActionUpdate, Path: path("b"), Value: two},
		{Action: ActionPut, Path: path("c"), Value: one},
		{Action: ActionDelete, Path: path("absent"), IfExists: true},
		{Action: ActionDelete, Path: path("b"), Swap: &stale},
	}, WriteOptions{SwapCommit: &head})
	uri := func(key string) space.URI { return space.URI{Space: home, Author: owner, Path: path(key)} }
	same(t, "batch", w.Records, []RecordRef{{uri("b"), one.CID()}, {uri("b"), two.CID()}, {uri("c"), one.CID()}, {uri("absent"), space.CID{}}, {uri("b"), space.CID{}}}, err)
	for _, c2 := range []struct {
		w    Write
		want error
	}{
		{Write{Action: ActionCreate, Path: path("c"), Value: one}, space.ErrRecordExists},
		{Write{Action: ActionUpdate, Path: path("x"), Value: one}, space.ErrRecordNotFound},
		{Write{Action: ActionDelete, Path: path("x")}, space.ErrRecordNotFound},
		{Write{Action: ActionDelete, Path: path("x"), IfExists: true, Swap: &stale}, space.ErrRecordNotFound},
		{Write{Action: ActionPut, Path: path("c"), Value: one, Swap: &stale}, space.ErrSwap},
	} {
		if _, err := c.Write(ctx, home, []Write{c2.w}, WriteOptions{}); !errors.Is(err, c2.want) {
			t.Errorf("%v of %s: %v, want %v", c2.w.Action, c2.w.Path, err, c2.want)
		}
	}
	if _, err := c.Write(ctx, home, nil, WriteOptions{SwapCommit: &head}); !errors.Is(err, space.ErrSwap) {
		t.Errorf("stale batch: %v", err)
	}
	if w, err := c.Write(ctx, home, nil, WriteOptions{}); err != nil || w.Rev != 0 {
		t.Errorf("empty batch: %v, %v", w, err)
	}
}

func TestClientPagesThroughSpaces(t *testing.T) {
	f := newFake(t)
	for i := range 150 {
		if _, err := f.CreateSpace(t.Context(), NewSpace{Type: "com.example.forum", Key: space.RecordKey(fmt.Sprint("k", i)), Policy: space.DefaultPolicy()}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := dial(t, f).Spaces(t.Context())
	seen := map[space.ID]bool{}
	for _, i := range all {
		seen[i.ID] = true
	}
	if err != nil || len(all) != 151 || len(seen) != 151 {
		t.Errorf("%d spaces, %d different, %v", len(all), len(seen), err)
	}
}

func TestFillBytes(t *testing.T) {
	for text, ok := range map[string]bool{
		`"-_8A"`: true, `{"$bytes":"+/8A"}`: true, `"AAA="`: false, `"AA"`: false, `"AAAAAA"`: false, `"!!!!"`: false,
		`null`: false, `1`: false, `{}`: false, ``: false,
	} {
		var b [3]byte
		if err := fillBytes(b[:], []byte(text)); (err == nil) != ok || ok && b != [3]byte{0xfb, 0xff, 0} {
			t.Errorf("%s: %x, %v", text, b, err)
		}
	}
}

func TestClientErrors(t *testing.T) {
	f := newFake(t)
	c, ctx := dial(t, f), t.Context()
	nowhere := home
	nowhere.Key = "nowhere"
	if _, err := c.Space(ctx, nowhere); !errors.Is(err, space.ErrSpaceNotFound) {
		t.Errorf("unknown space: %v", err)
	}
	if _, err := c.RepoState(ctx, home, stranger); !errors.Is(err, space.ErrRepoNotFound) {
		t.Errorf("unwritten repo: %v", err)
	}
	f.put(other, "com.example.note/x", `{}`)
	f.put(stranger, "com.example.note/x", `{}`)
	_, err := c.Record(ctx, home, "", space.Path{Collection: notes, Key: "x"})
	if a, ok := errors.AsType[ErrAmbiguous](err); !ok || len(a.Authors) != 2 || !errors.Is(err, ErrAmbiguous{}) {
		t.Errorf("ambiguous record: %v", err)
	}
	stranger := &Client{Base: c.Base, Token: "no"}
	if _, err := stranger.Status(ctx); err == nil || err.(*Error).Status != 401 {
		t.Errorf("wrong token: %v", err)
	}
	f.fail = space.ErrUnavailable
	if _, err := c.Status(ctx); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("unavailable: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Status(cancelled); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := (&Client{Base: "::"}).Status(ctx); err == nil {
		t.Error("bad base was accepted")
	}
}

func TestClientUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := &Client{Base: "http://" + l.Addr().String()}
	if _, err := c.Health(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

// A client does not follow a redirect with its token, nor trust an answer.
func TestClientDistrustsTheServer(t *testing.T) {
	followed := false
	var answer http.HandlerFunc
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			followed = true
		}
		answer(w, r)
	}))
	defer hs.Close()
	c, ctx := &Client{Base: hs.URL, Token: apiToken}, t.Context()
	answer = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }
	if _, err := c.Status(ctx); err == nil || followed {
		t.Errorf("redirect: %v, followed %v", err, followed)
	}
	for _, body := range []string{``, `[]`, `{}`, `{"space":{}}`, `{"space":{"uri":"ats://x"}}`,
		`{"space":{"uri":"` + home.String() + `","spaceId":"zz"}}`, `{"results":[]}`, `{"uri":"x","cid":"y"}`} {
		answer = func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) }
		if _, err := c.Space(ctx, home); err == nil {
			t.Errorf("space from %s", body)
		}
		if _, err := c.Record(ctx, home, "", space.Path{Collection: notes, Key: "a"}); err == nil {
			t.Errorf("record from %s", body)
		}
		if _, err := c.Write(ctx, home, []Write{{Action: ActionDelete, Path: space.Path{Collection: notes, Key: "a"}}}, WriteOptions{}); err == nil {
			t.Errorf("write from %s", body)
		}
	}
	answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"did":"did:key:z","rev":"3jzfcijpj2z2a","hash":"AA","commit":{"rev":"3jzfcijpj2z2a","hash":"AA"}}`))
	}
	if _, err := c.RepoState(ctx, home, owner); err == nil {
		t.Error("repo state with a short hash")
	}
}
