package xrpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc/lexicon"
)

// The caps of a request.
const (
	MaxBody   = 2 << 20
	MaxHeader = 64 << 10
)

// Timeouts of a connection. A join extends those of its own request.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 60 * time.Second
	answerTimeout = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 5 * time.Second
)

// Server answers the HTTP API. It acts as the node's owner for whoever holds
// the token.
type Server struct {
	Spaces  Spaces
	Records Records
	Repos   Repos
	Node    Node
	Links   Links

	Roster      Roster
	Delegations Delegations
	Invites     Invites
	Approvals   Approvals
	Keys        Keys
	Keepers     Keepers
	Admin       Admin
	Transfers   Transfers
	Exits       Exits
	Petnames    Petnames
	Devices     Devices
	Backups     Backups
	Relays      Relays
	Snapshots   Snapshots
	Blobs       Blobs
	Events      Events

	// Relay answers dev.kith.relay.*, by credentials of its own; nil: this node
	// is no relay.
	Relay http.Handler

	Access Access // nil: nobody but the owner belongs anywhere
	Tokens Tokens // nil: there is the owner's token alone

	Settings Settings // nil: every setting is as it stands below

	// Lexicons are those that records are held to; nil: none.
	Lexicons *lexicon.Catalog

	Owner   space.DID // writes go to this repo only
	Token   string    // "" refuses every call but the health check
	Origins []string  // "https://node.example": Host headers to answer beside loopback names
	Dialect Dialect   // where the request does not say
	Version string    // of the health check

	TokenRate  Rate // of each token but the owner's own; zero: 3,000 in 5 minutes
	NobodyRate Rate // of each address without a token; zero: 600 in a minute

	// Healthy says why the node cannot serve; nil means it can.
	Healthy func(context.Context) error

	Log *slog.Logger // nil discards

	rates rates

	snapshots atomic.Int32 // being read out
	tickets   tickets
	stopping  chan struct{} // closed when open sockets are to end; nil: never
}

// Serve answers on l until ctx ends, then lets the requests under way finish
// for a moment. It returns nil when it was stopped by ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := s.httpServer()
	s.stopping = make(chan struct{})
	hs.RegisterOnShutdown(func() { close(s.stopping) })
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := hs.Shutdown(stop); err != nil {
		hs.Close()
	}
	<-failed
	return nil
}

// httpServer gives no connection more time or header than it needs.
func (s *Server) httpServer() *http.Server {
	hs := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    MaxHeader,
		ErrorLog:          slog.NewLogLogger(s.log().Handler(), slog.LevelDebug),
	}
	new(crowd).watch(hs)
	return hs
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// ServeHTTP checks in this order: Host, CORS, path, feature flag, method, who
// calls, query or body, and whether the caller may; then it asks the handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, standard: s.dialect()}
	c.d = c.standard
	defer c.recover()
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if !s.knowsHost(r.Host) {
		c.fail(faultf(errHost, "host: %q is not a name of this node; add it to the configured origins", clip(r.Host)))
		return
	}
	cors(h)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err := c.dispatch(r.URL.Path); err != nil {
		c.fail(err)
	}
}

// dispatch finds out by the path what is asked for.
func (c *call) dispatch(path string) error {
	if nsid, ok := strings.CutPrefix(path, "/xrpc/"); ok {
		return c.serve(nsid)
	}
	if rest, ok := strings.CutPrefix(path, "/admin/"); ok {
		return c.admin(rest)
	}
	if nsid, ok := strings.CutPrefix(path, "/lexicons/"); ok {
		return c.lexicon(nsid)
	}
	if path == "/" {
		return c.page()
	}
	if path == "/config" {
		return c.config()
	}
	return faultf(errNSID, "nothing is served at this path; methods are at /xrpc/NSID")
}

// verbs refuses every verb but these.
func (c *call) verbs(allowed ...string) error {
	if slices.Contains(allowed, c.r.Method) {
		return nil
	}
	c.w.Header().Set("Allow", strings.Join(allowed, ", "))
	return faultf(errVerb, "use %s", strings.Join(allowed, " or "))
}

// serve carries a method out, or says why not. Nothing was answered then.
func (c *call) serve(nsid string) error {
	c.nsid = nsid
	c.d = dialectOf(nsid, "", c.standard)
	if nsid == "_health" {
		return c.health()
	}
	if c.s.Relay != nil && strings.HasPrefix(nsid, "dev.kith.relay.") {
		c.s.Relay.ServeHTTP(c.w, c.r)
		return nil
	}
	if ofSpaces(nsid) && !c.s.spacesOn() {
		return errFeature
	}
	m, err := c.route()
	if err != nil {
		return err
	}
	c.caller, err = c.s.identify(c.r)
	if err == errAuth && m.socket {
		c.caller, err = c.redeem()
	}
	if limited := c.rate(err != nil); limited != nil {
		return limited
	}
	if err == errAuth && m.open != nil {
		err = c.public(m.open)
	}
	if err != nil {
		return err
	}
	return c.run(m)
}

// route finds the method.
func (c *call) route() (method, error) {
	m, known := methodOf(c.nsid)
	switch {
	case !known:
		return m, faultf(errNSID, "%s: this node does not know the method", clip(c.nsid))
	case m.handle == nil, m.needs != nil && !m.needs(c.s):
		return m, faultf(errNotBuilt, "%s: this node does not serve the method yet", c.nsid)
	}
	if m.verb == get {
		return m, c.verbs(get, http.MethodHead)
	}
	return m, c.verbs(m.verb)
}

// run reads the input, judges the caller, calls the handler and answers.
func (c *call) run(m method) error {
	var err error
	if m.verb == post && !m.body {
		var buf *bytes.Buffer
		if buf, err = c.takeBody(); err == nil {
			defer release(buf)
		}
	} else {
		err = c.readQuery()
	}
	if err != nil {
		return err
	}
	if err := c.admit(m); err != nil {
		return err
	}
	out, err := m.handle(c)
	if err != nil {
		return err
	}
	status := http.StatusOK
	switch b := out.(type) {
	case raw:
		err := b(c.w, c.r)
		if none, ok := err.(notSent); ok {
			return none.error
		}
		if err != nil {
			c.s.log().Debug("answer broke off", "method", c.nsid, "err", err)
			panic(http.ErrAbortHandler)
		}
		return nil
	case made:
		out = b.body
		if c.d == HappyView {
			status = http.StatusCreated
		}
	}
	c.answer(status, out)
	return nil
}

// fail answers an error as its row says. What the row table does not know is
// the node's own failure: it is logged, and the caller gets an id.
func (c *call) fail(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if c.r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // nobody is listening
		}
		err = faultf(space.ErrUnavailable, "the node could not finish this in time; try again")
	}
	row := rowOf(err)
	body := errorBody{Error: row.name, Message: row.sentence(err), Authors: authorsOf(err)}
	status := row.status[c.d]
	switch status {
	case http.StatusUnauthorized:
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="kith"`)
	case http.StatusInternalServerError:
		body.CorrelationID = correlationID()
		body.Message = "internal error; the node's log has it under " + body.CorrelationID
		c.s.log().Error("request failed", "method", c.nsid, "id", body.CorrelationID, "err", err)
	case http.StatusServiceUnavailable:
		c.w.Header().Set("Retry-After", "1")
	}
	c.answer(status, body)
}

func (c *call) recover() {
	switch v := recover(); v {
	case nil:
	case http.ErrAbortHandler:
		panic(v)
	default:
		c.s.log().Error("request panicked", "method", c.nsid, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		c.fail(errInternal)
	}
}

// extend moves the deadlines of this request's connection so that an answer
// after patience still goes out. A writer without deadlines needs none.
func (c *call) extend(patience time.Duration) {
	rc := http.NewResponseController(c.w)
	until := time.Now().Add(patience + answerTimeout)
	_ = rc.SetReadDeadline(until)
	_ = rc.SetWriteDeadline(until)
}

func correlationID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// answer writes a JSON body. An answer that cannot be encoded is a failure of
// the node's own; nothing was sent of it.
func (c *call) answer(status int, body any) {
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		c.s.log().Error("answer not encoded", "method", c.nsid, "err", err)
		buf.Reset()
		buf.WriteString(`{"error":"InternalServerError","message":"internal error"}` + "\n")
		status = http.StatusInternalServerError
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(buf.Len()))
	c.w.WriteHeader(status)
	c.w.Write(buf.Bytes())
}

// buffers hold bodies on their way in and out.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// release keeps a buffer unless one large body has blown it up.
func release(b *bytes.Buffer) {
	const keep = 256 << 10
	if b.Cap() <= keep {
		b.Reset()
		buffers.Put(b)
	}
}
