package xrpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
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

	Roster      Roster
	Delegations Delegations
	Invites     Invites
	Approvals   Approvals
	Keys        Keys
	Keepers     Keepers
	Admin       Admin
	Transfers   Transfers
	Exits       Exits
	Devices     Devices
	Backups     Backups

	Owner   space.DID // writes go to this repo only
	Token   string    // "" refuses every call but the health check
	Origins []string  // "https://node.example": Host headers to answer beside loopback names
	Dialect Dialect   // where the request does not say
	Version string    // of the health check

	// Healthy says why the node cannot serve; nil means it can.
	Healthy func(context.Context) error

	Log *slog.Logger // nil discards
}

// Serve answers on l until ctx ends, then lets the requests under way finish
// for a moment. It returns nil when it was stopped by ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := s.httpServer()
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
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    MaxHeader,
		ErrorLog:          slog.NewLogLogger(s.log().Handler(), slog.LevelDebug),
	}
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// ServeHTTP checks in this order: Host, path, CORS, verb, token, query or
// body, and asks the handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, d: s.Dialect}
	defer c.recover()
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if !s.knowsHost(r.Host) {
		c.fail(faultf(errHost, "host: %q is not a name of this node; add it to the configured origins", clip(r.Host)))
		return
	}
	nsid, ok := strings.CutPrefix(r.URL.Path, "/xrpc/")
	if !ok {
		c.fail(faultf(errNSID, "nothing is served at this path; methods are at /xrpc/NSID"))
		return
	}
	c.nsid = nsid
	c.d = dialectOf(nsid, "", s.Dialect)
	cors(h)
	if nsid == "_health" {
		c.health()
		return
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	m, err := c.route()
	if err != nil {
		c.fail(err)
		return
	}
	if err := s.authorize(r.Header); err != nil && !(err == errAuth && c.public()) {
		h.Set("WWW-Authenticate", `Bearer realm="kith"`)
		c.fail(err)
		return
	}
	c.run(m)
}

// cors lets any page ask, but not with credentials of the browser's: without
// the token a page learns nothing but that a node is here.
func cors(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
	h.Set("Access-Control-Allow-Headers", "authorization, content-type, dpop, x-client-key")
	h.Set("Access-Control-Expose-Headers",
		"DPoP-Nonce, WWW-Authenticate, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy, Retry-After")
	h.Set("Access-Control-Max-Age", "86400")
}

// route finds the method.
func (c *call) route() (method, error) {
	m, known := methods[c.nsid]
	switch {
	case !known:
		return m, faultf(errNSID, "%s: this node does not know the method", clip(c.nsid))
	case m.handle == nil:
		return m, faultf(errNotBuilt, "%s: this node does not serve the method yet", c.nsid)
	case c.r.Method == m.verb, c.r.Method == http.MethodHead && m.verb == get:
		return m, nil
	}
	allow := m.verb
	if allow == get {
		allow = "GET, HEAD"
	}
	c.w.Header().Set("Allow", allow)
	return m, faultf(errVerb, "%s: use %s", c.nsid, m.verb)
}

// run reads the input, calls the handler and answers.
func (c *call) run(m method) {
	var body *bytes.Buffer
	var err error
	if m.verb == post {
		body = buffers.Get().(*bytes.Buffer)
		defer release(body)
		err = c.readBody(body)
	} else {
		err = c.readQuery()
	}
	var out any
	if err == nil {
		out, err = m.handle(c)
	}
	if err != nil {
		c.fail(err)
		return
	}
	status := http.StatusOK
	if b, ok := out.(made); ok {
		out = b.body
		if c.d == HappyView {
			status = http.StatusCreated
		}
	}
	c.answer(status, out)
}

func (c *call) readQuery() error {
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return faultf(errRequest, "query: %v", err)
	}
	c.query = params{v}
	c.in = c.query
	if name := v["space"]; len(name) > 0 {
		c.d = dialectOf(c.nsid, name[0], c.s.Dialect)
	}
	return nil
}

// readBody reads and splits the JSON body. The members point into buf.
func (c *call) readBody(buf *bytes.Buffer) error {
	if err := checkMedia(c.r.Header); err != nil {
		return err
	}
	if c.r.ContentLength > MaxBody {
		return faultf(space.ErrTooLarge, "body: at most %d bytes", MaxBody)
	}
	if n := c.r.ContentLength; n > 0 {
		buf.Grow(int(n) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(c.r.Body, MaxBody+1))
	if err != nil {
		return faultf(errRequest, "body: ended early")
	}
	if n > MaxBody {
		return faultf(space.ErrTooLarge, "body: at most %d bytes", MaxBody)
	}
	if c.body, err = parseObject(buf.Bytes()); err != nil {
		return err
	}
	c.in = c.body
	name, _, err := c.body.text("space")
	c.d = dialectOf(c.nsid, name, c.s.Dialect)
	return err
}

// checkMedia wants application/json, in UTF-8 if it says so, not compressed.
func checkMedia(h http.Header) error {
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return faultf(errMedia, "content-encoding: send the body as it is")
	}
	ct := h.Get("Content-Type")
	if ct == "application/json" {
		return nil
	}
	media, opts, err := mime.ParseMediaType(ct)
	if err != nil || media != "application/json" {
		return faultf(errMedia, "content-type: must be application/json")
	}
	if cs := opts["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
		return faultf(errMedia, "content-type: the charset must be utf-8")
	}
	return nil
}

// authorize checks the bearer token in constant time.
func (s *Server) authorize(h http.Header) error {
	auth := h.Values("Authorization")
	if len(auth) == 0 {
		return errAuth
	}
	if len(auth) > 1 {
		return faultf(errToken, "authorization: give one")
	}
	scheme, token, _ := strings.Cut(auth[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return faultf(errToken, "invalid Authorization scheme: send Bearer and the token of the node's api.token file")
	}
	have, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(strings.TrimSpace(s.Token)))
	if subtle.ConstantTimeCompare(have[:], want[:]) != 1 || strings.TrimSpace(s.Token) == "" {
		return faultf(errToken, "authorization: not the token of this node; it is in the node's api.token file")
	}
	return nil
}

// knowsHost is the guard against DNS rebinding: loopback names and the
// configured origins, on any port unless the origin names one.
func (s *Server) knowsHost(hostport string) bool {
	return isLoopback(hostport) || s.isOrigin(hostport)
}

func isLoopback(hostport string) bool {
	name := hostname(hostport)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.Unmap().IsLoopback() && a.Zone() == ""
}

// isOrigin reports whether a Host header names a configured origin.
func (s *Server) isOrigin(hostport string) bool {
	name := hostname(hostport)
	return slices.ContainsFunc(s.Origins, func(origin string) bool {
		_, rest, ok := strings.Cut(origin, "://")
		if !ok {
			rest = origin
		}
		rest = strings.TrimSuffix(rest, "/")
		return rest != "" && (strings.EqualFold(rest, hostport) || strings.EqualFold(rest, name))
	})
}

// hostname takes the port and the brackets off.
func hostname(hostport string) string {
	if h, port, err := net.SplitHostPort(hostport); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return ""
		}
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
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
