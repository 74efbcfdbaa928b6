package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	subscribe    = "dev.kith.space.subscribe"
	createTicket = "dev.kith.server.createTicket"
	frameWait    = 20 * time.Second // for one frame
)

// dial opens a socket; nil and the answer if it is refused.
func (s *suite) dial(token string, h http.Header, kv ...string) (*websocket.Conn, reply) {
	q := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		q.Add(kv[i], kv[i+1])
	}
	if h = h.Clone(); h == nil {
		h = http.Header{}
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	ctx, cancel := context.WithTimeout(s.ctx, frameWait)
	defer cancel()
	base := "ws" + strings.TrimPrefix(strings.TrimSuffix(s.cfg.Base, "/"), "http")
	conn, resp, err := websocket.Dial(ctx, base+"/xrpc/"+subscribe+"?"+q.Encode(), &websocket.DialOptions{HTTPClient: s.cfg.HTTP, HTTPHeader: h})
	if err == nil {
		return conn, reply{}
	}
	if resp == nil {
		s.stop("%s: %v", subscribe, err)
	}
	return nil, reply{status: resp.StatusCode, header: resp.Header}
}

// frame is the next frame of a socket in text, or why there is none.
func (s *suite) frame(conn *websocket.Conn) (r reply) {
	if conn == nil {
		return reply{raw: []byte("no socket")}
	}
	ctx, cancel := context.WithTimeout(s.ctx, frameWait)
	defer cancel()
	_, text, err := conn.Read(ctx)
	if err != nil {
		return reply{status: int(websocket.CloseStatus(err)), raw: []byte(err.Error())}
	}
	r.raw = text
	if json.Unmarshal(text, &r.v) != nil {
		r.v = nil
	}
	return r
}

// shut ends sockets.
func shut(conns ...*websocket.Conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.CloseNow()
		}
	}
}

// sockets follow a space.
func (s *suite) sockets() {
	uri := s.newSpace(dialects[1])
	s.refused("subscribe: without a socket", s.get(s.cfg.Owner, subscribe, "space", uri), 426, "UpgradeRequired")
	for what, ask := range map[string]func() (*websocket.Conn, reply){
		"without a token": func() (*websocket.Conn, reply) { return s.dial("", nil, "space", uri) },
		"a wrong token":   func() (*websocket.Conn, reply) { return s.dial("wrong", nil, "space", uri) },
		"a wrong ticket":  func() (*websocket.Conn, reply) { return s.dial("", nil, "space", uri, "ticket", "wrong") },
	} {
		conn, r := ask()
		s.hold("subscribe: "+what, conn == nil && r.status == 401, r)
		shut(conn)
	}
	for what, bad := range map[string][]string{
		"no space": {"space", uri + "x"}, "a cursor that is no number": {"space", uri, "cursor", "-1"}, "an encoding that is none": {"space", uri, "encoding", "xml"},
	} {
		conn, r := s.dial(s.cfg.Owner, nil, bad...)
		s.hold("subscribe: refuses "+what, conn == nil && r.status == 400, r)
		shut(conn)
	}
	s.followed(uri)
	s.tickets(uri)
}

// followed compares what happens with what is told of it.
func (s *suite) followed(uri string) {
	conn, _ := s.dial(s.cfg.Owner, nil, "space", uri, "encoding", "json")
	defer shut(conn)
	start := s.frame(conn)
	s.hold("subscribe: says first where one stands", start.text("t") == "#start" && start.at("seq") != nil, start)
	made := s.post(s.cfg.Owner, createRecord, s.write(uri, "a", body{"n": 1}))
	s.post(s.cfg.Owner, putRecord, s.write(uri, "a", body{"n": 2}))
	s.post(s.cfg.Owner, deleteRecord, body{"space": uri, "repo": s.owner, "collection": collection, "rkey": "a"})
	var told []string
	frames := []reply{}
	last, _ := start.at("seq").(float64)
	rises := true
	for range 3 {
		f := s.frame(conn)
		seq, _ := f.at("seq").(float64)
		rises, last = rises && seq > last, seq
		frames = append(frames, f)
		told = append(told, fmt.Sprint(f.text("t"), " ", f.text("action"), " ", f.text("rkey"), " ", f.at("value.n")))
	}
	s.same("subscribe: tells what happens in its order", told, []string{"#record create a 1", "#record update a 2", "#record delete a <nil>"})
	s.hold("subscribe: numbers rise", rises, told)
	one := frames[0]
	s.same("subscribe: a record's frame names repo, collection, rev and cid",
		[]any{one.at("repo"), one.at("collection"), one.at("rev"), one.at("cid")}, []any{s.owner, collection, made.at("rev"), made.at("cid")})

	again, _ := s.dial(s.cfg.Owner, nil, "space", uri, "encoding", "json", "cursor", fmt.Sprint(one.at("seq")))
	defer shut(again)
	s.same("subscribe: goes on behind a cursor", []any{s.frame(again).at("seq"), s.frame(again).at("seq")}, []any{one.at("seq"), frames[1].at("seq")})
	early, _ := s.dial(s.cfg.Owner, nil, "space", uri, "encoding", "json", "cursor", "999999999")
	defer shut(early)
	ended := s.frame(early)
	s.hold("subscribe: a cursor from the future ends it", ended.text("t") == "#error" && ended.text("error") == "FutureCursor" && ended.text("message") != "", ended)
	s.same("subscribe: and closes it", s.frame(early).status, int(websocket.StatusPolicyViolation))

	binary, _ := s.dial(s.cfg.Owner, nil, "space", uri)
	defer shut(binary)
	front := s.frame(binary)
	s.hold("subscribe: two items of DAG-CBOR unless JSON is asked for", strings.HasPrefix(string(front.raw), "\xa2\x61t\x66#start\x62op\x01\xa1\x63seq"), fmt.Sprintf("%x", front.raw))
	s.post(s.cfg.Owner, "com.atproto.simplespace.updateSpace", body{"space": uri, "displayName": "Renamed"})
	moved := s.frame(conn)
	s.hold("subscribe: tells that roster or policy moved", moved.text("t") == "#space" && moved.at("deleted") == false, moved)
}

// tickets open sockets for pages that cannot send a token with one.
func (s *suite) tickets(uri string) {
	draws := func() string {
		return s.post(s.cfg.Owner, createTicket, body{"space": uri, "method": subscribe}).text("ticket")
	}
	made := s.post(s.cfg.Owner, createTicket, body{"space": uri, "method": subscribe})
	s.shaped("createTicket: shape", createTicket, made)
	elsewhere := http.Header{"Origin": {"https://elsewhere.example"}}
	conn, r := s.dial("", elsewhere, "space", uri, "encoding", "json", "ticket", made.text("ticket"))
	s.hold("createTicket: opens a socket for another origin", conn != nil && s.frame(conn).text("t") == "#start", r)
	again, r := s.dial("", nil, "space", uri, "ticket", made.text("ticket"))
	s.hold("createTicket: once", again == nil && r.status == 401, r)
	other, r := s.dial("", nil, "space", s.newSpace(dialects[1]), "ticket", draws())
	s.hold("createTicket: for one space", other == nil && r.status == 401, r)
	shut(conn, again, other)
	s.refused("createTicket: opens no other method", s.get("", listRecords, "space", uri, "ticket", draws()), 401, "AuthenticationRequired")
	for what, bad := range map[string]body{
		"no method": {"space": uri}, "no space": {"method": subscribe}, "a method that is no socket": {"space": uri, "method": listRecords},
	} {
		r := s.post(s.cfg.Owner, createTicket, bad)
		s.hold("createTicket: refuses "+what, r.status == 400 || r.status == 422, r)
	}
}
