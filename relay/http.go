package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/kithnet/kith/space/envelope"
)

// Prefix is what the names of the relay's HTTP methods begin with.
const Prefix = "dev.kith.relay."

const (
	maxPut    = 1 << 20 // body of putEnvelopes
	cursorKey = "Kith-Cursor"
)

// api answers the HTTP API of a relay (docs/protocol.md, "Relays", HTTP).
type api struct{ r *Relay }

// Handler answers /xrpc/dev.kith.relay.* for thin clients that hold keys, and
// /xrpc/_health. Nothing that it takes or gives can be plaintext: bodies are
// frames, descriptors and objects, checked as such.
func (r *Relay) Handler() http.Handler { return api{r} }

// visit is one request being answered.
type visit struct {
	r   *Relay
	w   http.ResponseWriter
	req *http.Request
	ctx context.Context
	who string // the address that asks
}

// method is how one request is answered. Those that are not public get the
// topic of their ticket.
type method struct {
	verb   string
	public func(*visit) error
	of     func(*visit, *topic) error
}

var methods = map[string]method{
	"describe":           {verb: http.MethodGet, public: (*visit).describe},
	"lease":              {verb: http.MethodPost, public: (*visit).lease},
	"putEnvelopes":       {verb: http.MethodPost, of: (*visit).putEnvelopes},
	"getEnvelopes":       {verb: http.MethodGet, of: (*visit).getEnvelopes},
	"subscribeEnvelopes": {verb: http.MethodGet, of: (*visit).subscribe},
	"digest":             {verb: http.MethodGet, of: (*visit).digest},
	"putShard":           {verb: http.MethodPost, of: (*visit).putShard},
	"getShard":           {verb: http.MethodGet, of: (*visit).getShard},
}

// ServeHTTP checks path, CORS, verb, the rate of the caller and the ticket, in
// this order.
func (a api) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	v := &visit{r: a.r, w: w, req: req, ctx: req.Context(), who: addressOf(req)}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
	h.Set("Access-Control-Allow-Headers", "authorization, content-type")
	h.Set("Access-Control-Expose-Headers", "Kith-Cursor, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy, Retry-After")
	h.Set("Access-Control-Max-Age", "86400")
	if req.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err := v.serve(); err != nil {
		v.fail(err)
	}
}

func (v *visit) serve() error {
	nsid, ok := strings.CutPrefix(v.req.URL.Path, "/xrpc/")
	if ok && nsid == "_health" {
		return v.health()
	}
	name, ours := strings.CutPrefix(nsid, Prefix)
	m, known := methods[name]
	if !ok || !ours || !known {
		return fmt.Errorf("nothing is served at this path; methods are at /xrpc/%s*: %w", Prefix, errNSID)
	}
	if v.req.Method != m.verb && !(m.verb == http.MethodGet && v.req.Method == http.MethodHead) {
		v.w.Header().Set("Allow", m.verb)
		return fmt.Errorf("use %s: %w", m.verb, errVerb)
	}
	if !v.pace() {
		return ErrBusy
	}
	if m.public != nil {
		return m.public(v)
	}
	t, err := v.member()
	if err != nil {
		return err
	}
	return m.of(v, t)
}

// Kinds of faults that only HTTP has.
var (
	errNSID  = errors.New("unknown method")
	errVerb  = errors.New("wrong verb")
	errMedia = errors.New("wrong content type")
)

var httpRows = []row{
	{errNSID, 0, "XRPCNotSupported", http.StatusNotFound},
	{errVerb, 0, "MethodNotAllowed", http.StatusMethodNotAllowed},
	{errMedia, 0, "UnsupportedMediaType", http.StatusUnsupportedMediaType},
}

// fail answers an error as its row says.
func (v *visit) fail(err error) {
	if v.ctx.Err() != nil {
		panic(http.ErrAbortHandler) // nobody is listening
	}
	row := rowOf(err)
	for _, own := range httpRows {
		if errors.Is(err, own.err) {
			row = own
		}
	}
	switch row.http {
	case http.StatusInternalServerError:
		v.r.cfg.Log.Error("request failed", "method", v.req.URL.Path, "err", err)
	case http.StatusTooManyRequests:
		v.w.Header().Set("Retry-After", "1")
	}
	v.answer(row.http, map[string]string{"error": row.name, "message": row.sentence(err)})
}

func (v *visit) answer(status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"InternalServerError","message":"internal error"}`)
	}
	v.w.Header().Set("Content-Type", "application/json")
	v.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	v.w.WriteHeader(status)
	v.w.Write(b)
}

// bytes answers sealed bytes.
func (v *visit) bytes(b []byte) {
	v.w.Header().Set("Content-Type", "application/octet-stream")
	v.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	v.w.Write(b)
}

// body reads a body of sealed bytes.
func (v *visit) body(most int) ([]byte, error) {
	if ct := v.req.Header.Get("Content-Type"); ct != "application/octet-stream" {
		return nil, fmt.Errorf("content-type: must be application/octet-stream: %w", errMedia)
	}
	b, err := io.ReadAll(io.LimitReader(v.req.Body, int64(most)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("body: ended early: %w", ErrRequest)
	case len(b) > most:
		return nil, fmt.Errorf("body: at most %d bytes: %w", most, ErrTooLarge)
	}
	return b, nil
}

// addressOf is the address that requests are counted for.
func addressOf(req *http.Request) string {
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if ip := net.ParseIP(host); err == nil && ip != nil {
		return block(ip)
	}
	return "nowhere"
}

// pace takes one request from the caller's bucket and says so in headers.
func (v *visit) pace() bool {
	ok, left := v.r.doors.paced("http "+v.who, v.r.cfg.Now())
	h := v.w.Header()
	h.Set("RateLimit-Limit", strconv.Itoa(requestBurst))
	h.Set("RateLimit-Remaining", strconv.Itoa(left))
	h.Set("RateLimit-Reset", strconv.Itoa((requestBurst-left+requestRate-1)/requestRate))
	h.Set("RateLimit-Policy", fmt.Sprintf("%d;w=%d", requestBurst, requestBurst/requestRate))
	return ok
}

// ticket is what the request brought.
func (v *visit) ticket() (ticket, error) {
	if s := v.req.URL.Query().Get("ticket"); s != "" && v.req.Header.Get("Upgrade") != "" {
		return parseTicket(s)
	}
	s, ok := strings.CutPrefix(v.req.Header.Get("Authorization"), "Fetch ")
	if !ok {
		v.w.Header().Set("WWW-Authenticate", "Fetch")
		return ticket{}, fmt.Errorf("authorization: send Fetch and a ticket: %w", ErrNoLease)
	}
	return parseTicket(s)
}

// member is the topic of the ticket. A query that names another is refused.
func (v *visit) member() (*topic, error) {
	k, err := v.ticket()
	if err != nil {
		return nil, err
	}
	fetch := nobody
	t := v.r.topic(k.topic())
	if t != nil {
		fetch = t.described().Fetch
	}
	if !k.good(fetch, v.r.Key(), v.r.cfg.Now()) || t == nil {
		return nil, ErrNoLease
	}
	if q := v.req.URL.Query().Get("topic"); q != "" && q != text.EncodeToString(t.id[:]) {
		return nil, fmt.Errorf("topic: not the ticket's: %w", ErrRequest)
	}
	return t, nil
}

func (v *visit) health() error {
	if err := v.r.Healthy(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	v.answer(http.StatusOK, map[string]string{"version": v.r.cfg.Version})
	return nil
}

func (v *visit) describe() error {
	t := v.r.Terms()
	v.answer(http.StatusOK, map[string]any{
		"version": t.Version, "relayKey": text.EncodeToString(v.r.Key()), "peerId": v.r.ID().String(), "addresses": t.Addrs,
		"open": t.Open, "lease": map[string]uint64{"bytes": t.Bytes, "rate": t.Rate, "days": t.Days, "retentionDays": t.RetentionDays},
		"maxEnvelope": t.MaxEnvelope, "maxObject": t.MaxObject, "program": v.r.cfg.Version,
	})
	return nil
}

func (v *visit) lease() error {
	b, err := v.body(envelope.DescriptorSize + 1 + 255)
	if err != nil {
		return err
	}
	const least = envelope.DescriptorSize + 1
	if len(b) < least || len(b) != least+int(b[envelope.DescriptorSize]) {
		return fmt.Errorf("body of %d bytes: %w", len(b), ErrRequest)
	}
	d, err := envelope.ParseDescriptor(b[:envelope.DescriptorSize])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	k, err := v.ticket()
	if err != nil {
		return err
	}
	if k.topic() != d.Topic() || !k.good(d.Fetch, v.r.Key(), v.r.cfg.Now()) {
		return ErrNoLease
	}
	l, err := v.r.lease(v.ctx, d, string(b[least:]), v.who)
	if err != nil {
		return err
	}
	v.answer(http.StatusOK, map[string]any{
		"token": text.EncodeToString(l.Token), "expiresAt": l.Expires, "bytes": l.Bytes, "used": l.Used, "rate": l.Rate,
		"retentionDays": l.RetentionDays, "addresses": l.Addrs,
	})
	return nil
}

func (v *visit) digest(t *topic) error {
	c, err := t.receipt(v.ctx)
	if err != nil {
		return err
	}
	v.answer(http.StatusOK, map[string]any{
		"count": c.Count, "digest": text.EncodeToString(c.Digest[:]), "receipt": text.EncodeToString(c.Bytes()),
	})
	return nil
}

func (v *visit) putShard(t *topic) error {
	class, err := strconv.ParseUint(v.req.URL.Query().Get("class"), 10, 8)
	if err != nil || Class(class) > Shard {
		return fmt.Errorf("class: want 0, a page, or 1, a shard: %w", ErrRequest)
	}
	b, err := v.body(MaxObject)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return fmt.Errorf("body: empty: %w", ErrRequest)
	}
	hash, err := t.take1(v.ctx, Class(class), b)
	if err != nil {
		return err
	}
	v.answer(http.StatusOK, map[string]string{"hash": text.EncodeToString(hash)})
	return nil
}

func (v *visit) getShard(t *topic) error {
	hash, err := text.DecodeString(v.req.URL.Query().Get("hash"))
	if err != nil || len(hash) != 32 {
		return fmt.Errorf("hash: want 32 bytes as base64url: %w", ErrRequest)
	}
	data, ok, err := t.store.Object([32]byte(hash))
	if err != nil {
		return diskError(err)
	}
	if !ok {
		return ErrNoObject
	}
	v.bytes(data)
	return nil
}
