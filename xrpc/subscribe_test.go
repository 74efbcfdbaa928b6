package xrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kithnet/kith/space"
)

// channel is the events of a fake: what is sent in comes out.
type channel struct {
	mu     sync.Mutex
	events []*Event
	moved  chan struct{}
	lost   bool
}

func (f *fake) Subscribe(_ context.Context, id space.ID, after *uint64) (Subscription, error) {
	if _, err := f.space(id); err != nil {
		return nil, err
	}
	switch {
	case after != nil && *after < 10:
		return nil, ErrOutdatedCursor
	case after != nil && *after > 1000:
		return nil, ErrFutureCursor
	}
	if f.feed == nil {
		f.feed = &channel{moved: make(chan struct{}, 100)}
	}
	return f.feed, nil
}

func (c *channel) Seq() uint64 { return 10 }

func (c *channel) Next(ctx context.Context) ([]*Event, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.moved:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost {
		return nil, ErrConsumerTooSlow
	}
	e := c.events[0]
	c.events = c.events[1:]
	return []*Event{e}, nil
}

func (c *channel) push(e *Event) {
	c.mu.Lock()
	c.events = append(c.events, e)
	c.mu.Unlock()
	c.moved <- struct{}{}
}

// openSocket opens a socket of a server.
func openSocket(t *testing.T, base, query string, o *websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+"/xrpc/dev.kith.space.subscribe?"+query, o)
	if err == nil {
		t.Cleanup(func() { conn.CloseNow() })
	}
	return conn, resp, err
}

func withToken(token string) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}}
}

// readFrame gives the next frame as text.
func readFrame(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	kind, b, err := conn.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if kind == websocket.MessageText {
		return string(b)
	}
	return fmt.Sprintf("%x", b)
}

func someEvent(t *testing.T, seq uint64, author space.DID) *Event {
	value, err := space.RecordFromJSON([]byte(`{"$type":"com.example.note","n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	return &Event{Seq: seq, TimeMs: 1_800_000_000_000, Author: author, Op: RepoOp{
		Rev: 1 << 60, Idx: 2, Path: space.Path{Collection: notes, Key: "a"}, CID: value.CID(), Value: value,
	}}
}

func TestSubscribe(t *testing.T) {
	f := newFake(t)
	s := newServer(f)
	srv := httptest.NewServer(s)
	defer srv.Close()
	text, _, err := openSocket(t, srv.URL, "space="+home.AT()+"&encoding=json", withToken(apiToken))
	if err != nil {
		t.Fatal(err)
	}
	if have := readFrame(t, text); have != `{"t":"#start","seq":10}` {
		t.Errorf("first frame: %s", have)
	}
	f.feed.push(someEvent(t, 11, owner))
	var got map[string]any
	if err := json.Unmarshal([]byte(readFrame(t, text)), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"t": "#record", "seq": 11.0, "repo": string(owner), "action": "create", "collection": "com.example.note", "rkey": "a",
		"idx": 2.0, "prev": nil, "value.n": 1.0, "time": "2027-01-15T08:00:00Z",
	} {
		if at(got, name) != want {
			t.Errorf("%s is %v, want %v", name, at(got, name), want)
		}
	}
	f.feed.push(&Event{Seq: 12, Epoch: 3, Members: []MemberChange{{other, space.LevelRead}}})
	if have := readFrame(t, text); !strings.Contains(have, `"t":"#space","seq":12`) || !strings.Contains(have, `"members":[{"did":"did:key:zQ3shother","level":"read"}]`) {
		t.Errorf("%s", have)
	}
	// A binary frame is two items.
	e := someEvent(t, 13, owner)
	b, err := e.frame(false)
	if err != nil {
		t.Fatal(err)
	}
	head := len("\xa2\x61t\x67#record\x62op\x01")
	if string(b[:head]) != "\xa2\x61t\x67#record\x62op\x01" {
		t.Errorf("head %x", b[:head])
	}
	if err := space.CheckDRISL(b[head:], 20); err != nil {
		t.Errorf("body: %v", err)
	}
	// A reader that fell behind is told, and the socket ends.
	f.feed.mu.Lock()
	f.feed.lost = true
	f.feed.mu.Unlock()
	f.feed.moved <- struct{}{}
	if have := readFrame(t, text); !strings.Contains(have, `"t":"#error","error":"ConsumerTooSlow"`) {
		t.Errorf("%s", have)
	}
	if _, _, err := text.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("%v", err)
	}
}

func TestSubscribeRefuses(t *testing.T) {
	f := crowded(t)
	s := newServer(f)
	srv := httptest.NewServer(s)
	defer srv.Close()
	for name, c := range map[string]struct {
		query string
		o     *websocket.DialOptions
		code  int
	}{
		"nobody":       {"space=" + home.AT(), nil, 401},
		"a bad token":  {"space=" + home.AT(), withToken("x"), 401},
		"no space":     {"space=at://did:plc:x/space/com.example.notes/none", withToken(apiToken), 400},
		"a bad cursor": {"space=" + home.AT() + "&cursor=-1", withToken(apiToken), 400},
		"an encoding":  {"space=" + home.AT() + "&encoding=xml", withToken(apiToken), 400},
		"a stranger":   {"space=" + home.AT(), withToken(f.issue("did:key:zQ3shstranger", "read")), 400},
	} {
		_, resp, err := openSocket(t, srv.URL, c.query, c.o)
		if err == nil || resp == nil || resp.StatusCode != c.code {
			t.Errorf("%s: %v, %v, want %d", name, resp, err, c.code)
		}
	}
	if w := ask(s, get, "dev.kith.space.subscribe", "space="+home.AT()); w.Code != 426 {
		t.Errorf("without a socket: %d %s", w.Code, w.Body)
	}
	for cursor, want := range map[string]string{"3": "OutdatedCursor", "5000": "FutureCursor"} {
		conn, _, err := openSocket(t, srv.URL, "space="+home.AT()+"&encoding=json&cursor="+cursor, withToken(apiToken))
		if err != nil {
			t.Fatal(err)
		}
		if have := readFrame(t, conn); !strings.Contains(have, want) {
			t.Errorf("cursor %s: %s", cursor, have)
		}
	}
}

// A ticket opens one socket, of one method and space, once, for half a minute.
func TestTickets(t *testing.T) {
	f := newFake(t)
	s := newServer(f)
	srv := httptest.NewServer(s)
	defer srv.Close()
	draw := func() string {
		w := ask(s, post, "dev.kith.server.createTicket", `{"space":"`+home.String()+`","method":"dev.kith.space.subscribe"}`)
		var out ticketAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Ticket == "" {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		return out.Ticket
	}
	origin := &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}}, Subprotocols: []string{"kith.json"}}
	one := draw()
	conn, _, err := openSocket(t, srv.URL, "space="+home.AT()+"&ticket="+one, origin)
	if err != nil {
		t.Fatal(err)
	}
	if have := readFrame(t, conn); !strings.HasPrefix(have, `{"t":"#start"`) {
		t.Errorf("%s", have)
	}
	refused := func(what, query string) {
		t.Helper()
		if _, resp, err := openSocket(t, srv.URL, query, nil); err == nil || resp == nil || resp.StatusCode != 401 {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("used", "space="+home.AT()+"&ticket="+one)
	refused("drawn by nobody", "space="+home.AT()+"&ticket=abc")
	two := draw()
	refused("for another space", "space=at://did:plc:x/space/com.example.notes/none&ticket="+two)
	refused("used up by that", "space="+home.AT()+"&ticket="+two)
	three := draw()
	if w := ask(&Server{Spaces: f, Owner: owner, Token: "other"}, get, "com.atproto.space.listSpaces", "ticket="+three); w.Code != 401 {
		t.Errorf("for a method that is no socket: %d", w.Code)
	}
	if _, ok := s.tickets.take(three, time.Now().Add(ticketLife)); ok {
		t.Error("a ticket lives too long")
	}
	for _, in := range []string{`{"space":"` + home.String() + `"}`, `{"space":"` + home.String() + `","method":"com.atproto.space.getRecord"}`, `{"method":"dev.kith.space.subscribe"}`} {
		if w := ask(s, post, "dev.kith.server.createTicket", in); w.Code < 400 || w.Code >= 500 {
			t.Errorf("%s: %d %s", in, w.Code, w.Body)
		}
	}
	now := time.Now()
	for range maxTickets {
		if _, err := s.tickets.issue(ticket{expires: now.Add(ticketLife)}, now); err != nil {
			break
		}
	}
	if _, err := s.tickets.issue(ticket{}, now); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("one ticket too many: %v", err)
	}
	if _, err := s.tickets.issue(ticket{}, now.Add(time.Hour)); err != nil {
		t.Errorf("after they ran out: %v", err)
	}
}

// Who reads only what is theirs hears only of that, and who is removed hears no
// more.
func TestSubscribeLevels(t *testing.T) {
	f := crowded(t)
	srv := httptest.NewServer(newServer(f))
	defer srv.Close()
	conn, _, err := openSocket(t, srv.URL, "space="+home.AT()+"&encoding=json", withToken(f.issue(other, "read_self")))
	if err != nil {
		t.Fatal(err)
	}
	if have := readFrame(t, conn); have != `{"t":"#start","seq":0}` {
		t.Errorf("first frame: %s", have)
	}
	// Numbers count nothing but what is theirs, and the roster is not shown.
	epoch := f.spaces[home].info.Epoch
	f.feed.push(someEvent(t, 11, owner))
	f.feed.push(&Event{Seq: 12, Epoch: epoch, Members: []MemberChange{{owner, space.LevelWrite}}})
	f.feed.push(someEvent(t, 13, other))
	f.feed.push(&Event{Seq: 14, Epoch: epoch, Members: []MemberChange{{owner, space.LevelWrite}, {other, space.LevelReadSelf}}})
	f.feed.push(&Event{Seq: 15, Epoch: epoch + 1, Members: []MemberChange{{owner, space.LevelWrite}}})
	for i, want := range []string{`"t":"#record","seq":1,`, `"members":[{"did":"` + string(other) + `","level":"read_self"}]`, `"members":[]`} {
		if have := readFrame(t, conn); !strings.Contains(have, want) || !strings.Contains(have, fmt.Sprint(`"seq":`, i+1)) || strings.Contains(have, string(owner)) {
			t.Errorf("frame %d: %s", i, have)
		}
	}
	resumed, _, err := openSocket(t, srv.URL, "space="+home.AT()+"&encoding=json&cursor=11", withToken(f.issue(other, "read_self")))
	if err != nil {
		t.Fatal(err)
	}
	if have := readFrame(t, resumed); !strings.Contains(have, `"error":"OutdatedCursor"`) {
		t.Errorf("resumed: %s", have)
	}
	f.spaces[home].members = nil
	f.feed.push(&Event{Seq: 16})
	if have := readFrame(t, conn); !strings.Contains(have, `"error":"SpaceNotFound"`) {
		t.Errorf("%s", have)
	}
}
