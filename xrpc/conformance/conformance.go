// Package conformance asks a node's HTTP API what both contracts promise, from
// outside: the spaces methods of atproto and those of HappyView, each in its
// own spelling, and the manners of HTTP.
//
// It promises assertions with names that stay, each said to hold, not to hold
// or to have been left out, and why. It makes spaces of its own under drawn
// names, and deletes them; it switches the node's spaces off and on again.
//
// It refuses to guess: what it cannot ask, for want of a token, it lists as
// skipped. A Run is for one goroutine.
package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
	"github.com/kithnet/kith/xrpc/lexicon"
)

// Config says which node to ask, and as whom.
type Config struct {
	Base string // "http://127.0.0.1:2580"
	// Owner is the owner's own token. Reader is one with the scope read of
	// somebody whom the node knows, Stranger one of somebody who belongs
	// nowhere; "" leaves out what needs it.
	Owner, Reader, Stranger string
	HTTP                    *http.Client // nil: one that follows no redirect
	// Said gets each result as it comes; nil: nobody.
	Said func(Result)
}

// Result is one assertion.
type Result struct {
	Name    string
	Err     error  // why it does not hold
	Skipped string // why it was not asked
}

// Report is what all of them came to.
type Report struct {
	Results                 []Result
	Passed, Failed, Skipped int
}

// errStop ends a run: what comes next needs what just failed.
var errStop = errors.New("cannot go on")

// Run asks everything. Its error is that of a node that could not be asked;
// what does not hold is in the report.
func Run(ctx context.Context, cfg Config) (r Report, err error) {
	s := &suite{ctx: ctx, cfg: cfg, names: map[string]bool{}}
	if s.lex, err = lexicon.Read(xrpc.Lexicons()); err != nil {
		return r, err
	}
	if s.cfg.HTTP == nil {
		s.cfg.HTTP = &http.Client{
			Timeout:       time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	defer func() {
		r = s.report
		if p := recover(); p != nil {
			if stop, ok := p.(stopped); ok {
				err = stop.err
				return
			}
			panic(p)
		}
	}()
	s.run()
	return s.report, nil
}

// stopped carries errStop out of the depth of a run.
type stopped struct{ err error }

func (s *suite) stop(format string, args ...any) {
	panic(stopped{fmt.Errorf("%w: %s", errStop, fmt.Sprintf(format, args...))})
}

// suite is one run.
type suite struct {
	ctx    context.Context
	cfg    Config
	lex    *lexicon.Catalog
	report Report
	names  map[string]bool
	front  string // before every name
	owner  space.DID
	spaces []string // to be deleted
}

func (s *suite) run() {
	who := s.get(s.cfg.Owner, "dev.kith.server.getSession")
	if who.status != 200 || who.at("owner") != true {
		s.stop("%s/xrpc/dev.kith.server.getSession answers %s: is that the owner's token of a node?", s.cfg.Base, who)
	}
	s.owner = space.DID(who.text("did"))
	for _, d := range dialects {
		s.front = d.name + "/"
		s.spacesOf(d)
		s.recordsOf(d)
		s.batchesOf(d)
		s.listingsOf(d)
		s.historyOf(d)
		s.blobsOf(d)
		s.membersOf(d)
	}
	s.front = ""
	s.aliases()
	s.invites()
	s.config()
	s.sockets()
	s.manners()
	s.access()
	s.flag()
	s.clear()
}

// dialect is how one of the contracts spells and answers things.
type dialect struct {
	name                              string
	created, absent, conflict, shaped int // statuses
	uri                               func(did space.DID, nsid, key string) string
}

var dialects = []dialect{
	{"happyview", 201, 404, 409, 422, func(did space.DID, nsid, key string) string {
		return "ats://" + string(did) + "/" + nsid + "/" + key
	}},
	{"atproto", 200, 400, 400, 400, func(did space.DID, nsid, key string) string {
		return "at://" + string(did) + "/space/" + nsid + "/" + key
	}},
}

const (
	spaceType  = "com.example.conformance"
	collection = "com.example.conformance.note"
)

// body is the JSON of a request.
type body map[string]any

// with is a copy with more fields.
func (b body) with(key string, v any) body {
	out := body{}
	for k, old := range b {
		out[k] = old
	}
	out[key] = v
	return out
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	raw    []byte
	v      any
}

func (r reply) String() string {
	const shown = 300
	return fmt.Sprintf("%d %s", r.status, r.raw[:min(len(r.raw), shown)])
}

// at walks the body: "a.0.b".
func (r reply) at(path string) any { return walk(r.v, path) }

func walk(v any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			var i int
			if _, err := fmt.Sscanf(key, "%d", &i); err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func (r reply) text(path string) string {
	text, _ := r.at(path).(string)
	return text
}

func (r reply) list(path string) []any {
	list, _ := r.at(path).([]any)
	return list
}

// get asks a query: name, value, name, value.
func (s *suite) get(token, nsid string, kv ...string) reply {
	q := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		q.Add(kv[i], kv[i+1])
	}
	return s.send(token, http.MethodGet, "/xrpc/"+nsid+"?"+q.Encode(), nil, nil)
}

// post asks a procedure.
func (s *suite) post(token, nsid string, in any) reply {
	var text []byte
	if raw, ok := in.(string); ok {
		text = []byte(raw)
	} else {
		text, _ = json.Marshal(in) // of maps and texts it cannot fail
	}
	return s.send(token, http.MethodPost, "/xrpc/"+nsid, text, http.Header{"Content-Type": {"application/json"}})
}

// send asks anything. A node that does not answer at all ends the run.
func (s *suite) send(token, verb, path string, text []byte, h http.Header) reply {
	r, err := http.NewRequestWithContext(s.ctx, verb, strings.TrimSuffix(s.cfg.Base, "/")+path, bytes.NewReader(text))
	if err != nil {
		s.stop("%v", err)
	}
	for name, values := range h {
		r.Header[name] = values
	}
	if host := h.Get("Host"); host != "" {
		r.Host = host
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.cfg.HTTP.Do(r)
	if err != nil {
		s.stop("%s %s: %v", verb, path, err)
	}
	defer resp.Body.Close()
	const most = 64 << 20
	out := reply{status: resp.StatusCode, header: resp.Header}
	if out.raw, err = io.ReadAll(io.LimitReader(resp.Body, most)); err != nil {
		s.stop("%s %s: %v", verb, path, err)
	}
	if json.Unmarshal(out.raw, &out.v) != nil {
		out.v = nil
	}
	return out
}

// hold notes an assertion; evidence says what was seen where it does not hold.
func (s *suite) hold(name string, holds bool, evidence any) {
	var err error
	if !holds {
		err = fmt.Errorf("got %v", evidence)
	}
	s.note(Result{Name: s.front + name, Err: err})
}

func (s *suite) note(r Result) {
	if s.names[r.Name] {
		panic("conformance: two assertions are named " + r.Name)
	}
	s.names[r.Name] = true
	switch {
	case r.Skipped != "":
		s.report.Skipped++
	case r.Err != nil:
		s.report.Failed++
	default:
		s.report.Passed++
	}
	s.report.Results = append(s.report.Results, r)
	if s.cfg.Said != nil {
		s.cfg.Said(r)
	}
}

func (s *suite) skip(name, why string) { s.note(Result{Name: s.front + name, Skipped: why}) }

// same asserts that two values are the same JSON.
func (s *suite) same(name string, got, want any) {
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	s.hold(name, bytes.Equal(a, b), fmt.Sprintf("%s, want %s", a, b))
}

// answers asserts the status of a good answer.
func (s *suite) answers(name string, r reply, status int) { s.hold(name, r.status == status, r) }

// refused asserts the status, the name and a message of an error.
func (s *suite) refused(name string, r reply, status int, errName string) {
	s.hold(name, r.status == status && r.at("error") == errName && r.text("message") != "", r)
}

// shaped asserts that an answer is as the lexicon says.
func (s *suite) shaped(name, nsid string, r reply) {
	errs := s.lex.Output(nsid, r.v)
	s.hold(name, r.status == 200 && len(errs) == 0, fmt.Sprint(errs, " in ", r))
}

// draw is a name that nobody used before.
func draw() string {
	var b [6]byte
	rand.Read(b[:])
	return "c" + hex.EncodeToString(b[:])
}

// newSpace makes a space for a section, or ends the run.
func (s *suite) newSpace(d dialect) string {
	uri := d.uri(s.owner, spaceType, draw())
	key := uri[strings.LastIndex(uri, "/")+1:]
	r := s.post(s.cfg.Owner, "com.atproto.simplespace.createSpace", body{"type": spaceType, "skey": key})
	if r.status != 200 && r.status != 201 {
		s.stop("no space to ask about: %s", r)
	}
	s.spaces = append(s.spaces, uri)
	return uri
}

// clear deletes what the run has made.
func (s *suite) clear() {
	for _, uri := range s.spaces {
		s.post(s.cfg.Owner, "com.atproto.simplespace.deleteSpace", body{"space": uri, "reason": "a conformance run is over"})
	}
}
