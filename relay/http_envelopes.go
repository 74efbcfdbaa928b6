package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

const (
	maxPage    = 4 << 20          // bytes of getEnvelopes
	page       = 1 << 20          // of them if nobody says
	writeTime  = 10 * time.Second // how long a reader may keep a message waiting
	pingTime   = 30 * time.Second
	maxReaders = 1024 // subscriptions of a relay
)

// putEnvelopes takes frames, each behind its length, and answers when they are
// on disk. What was taken before a frame that is wrong stays taken: sending it
// again is no harm.
func (v *visit) putEnvelopes(t *topic) error {
	b, err := v.body(maxPut)
	if err != nil {
		return err
	}
	if !t.leased(v.r.cfg.Now()) {
		return ErrNoLease
	}
	var sum reconcile.Delivered
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return fmt.Errorf("body: a frame is cut off: %w", ErrRequest)
		}
		n := 4 + int(binary.BigEndian.Uint32(b))
		got, err := v.putFrame(t, b[4:n:n])
		if err != nil {
			return err
		}
		sum.Accepted += got.Accepted
		sum.Duplicate += got.Duplicate
		sum.Refused += got.Refused
		b = b[n:]
	}
	if sum.Accepted == 0 && sum.Refused > 0 && t.spent() {
		return ErrQuota
	}
	c, err := t.receipt(v.ctx)
	if err != nil {
		return err
	}
	v.answer(http.StatusOK, map[string]any{
		"accepted": sum.Accepted, "duplicate": sum.Duplicate, "refused": sum.Refused,
		"receipt": text.EncodeToString(c.Bytes()),
	})
	return nil
}

// putFrame takes one frame by the rules that gossip has: its own signature, the
// rate of its writer, then its place.
func (v *visit) putFrame(t *topic, raw []byte) (reconcile.Delivered, error) {
	f, err := envelope.ParseFrame(raw)
	if err == nil && f.Topic() != t.id {
		err = fmt.Errorf("frame of another topic: %w", space.ErrMalformed)
	}
	if err == nil && f.Fork == nil && f.Last().Type().Ephemeral() {
		err = fmt.Errorf("ephemeral envelopes are not kept: %w", space.ErrMalformed)
	}
	if err != nil {
		return reconcile.Delivered{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if !f.Verify() {
		return reconcile.Delivered{}, fmt.Errorf("bad signature: %w", ErrRequest)
	}
	n := max(1, len(f.Run))
	refused := reconcile.Delivered{Refused: n}
	if cert := t.certificate(f); cert == nil || !v.r.doors.write(cert, v.r.cfg.Limits.Class(cert.Class), n, v.r.cfg.Now()) ||
		!t.pace(cert, n) {
		t.usage.Refused.Add(uint64(n))
		return refused, nil
	}
	got, err := t.deliver(v.ctx, delivery{cert: f.Cert, run: f.Run, fork: f.Fork})
	var gap envelope.ErrGap
	switch {
	case errors.Is(err, envelope.ErrDuplicate):
		return reconcile.Delivered{Duplicate: n}, nil
	case errors.As(err, &gap), errors.Is(err, envelope.ErrUncertified), errors.Is(err, envelope.ErrFork),
		errors.Is(err, envelope.ErrCrowded), errors.Is(err, envelope.ErrUnheld):
		return refused, nil
	case errors.Is(err, space.ErrForged), errors.Is(err, space.ErrMalformed), errors.Is(err, space.ErrTooLarge):
		return got, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return got, err
}

// certificate is that of a frame's chain: its own, or the one that is known.
func (t *topic) certificate(f envelope.Frame) *envelope.Certificate {
	switch {
	case f.Cert != nil:
		return f.Cert
	case f.Fork != nil:
		return &f.Fork.Cert
	}
	if c, ok := t.Chain(f.Chain()); ok {
		return &c.Cert
	}
	return nil
}

// spent reports whether the lease has no room.
func (t *topic) spent() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	q, _ := t.ledger.live(t.relay.cfg.Now())
	return t.held()+envelope.MaxSize > q.Bytes
}

// A cursor is mark 8 ‖ u64 number of the next arrival. The mark is this topic's
// on this disk: a relay that lost its disk numbers anew.
func (t *topic) cursor(n uint64) string {
	return text.EncodeToString(binary.BigEndian.AppendUint64(t.mark[:len(t.mark):len(t.mark)], n))
}

// place reads a cursor; "" is the beginning, or the end.
func (t *topic) place(cursor string, end bool) (uint64, error) {
	t.mu.Lock()
	next := t.next
	t.mu.Unlock()
	if cursor == "" {
		if end {
			return next, nil
		}
		return 0, nil
	}
	b, err := text.DecodeString(cursor)
	if err != nil || len(b) != 16 {
		return 0, ErrCursor
	}
	n := binary.BigEndian.Uint64(b[8:])
	if t.cursor(n) != cursor || n > next {
		return 0, ErrOutdated
	}
	return n, nil
}

// piece is one frame of what arrived: the number of its arrival, and from where
// to go on behind it.
type piece struct {
	seq, next uint64
	frame     []byte
}

// pieces gives what arrived from a number on: about limit bytes, and one
// arrival at least. It says from where to go on.
func (t *topic) pieces(from uint64, limit int) (out []piece, next uint64, err error) {
	next = from
	size := 0
	for row, err := range t.store.OutboxFrom(from) {
		if err != nil {
			return nil, from, diskError(err)
		}
		if size >= limit {
			break
		}
		next = row.Seq + 1
		a, err := parseArrival(row.Frame)
		if err != nil || a.object {
			continue
		}
		frames := t.framesOf(a)
		for i, f := range frames {
			p := piece{row.Seq, row.Seq, f} // what is cut short comes again
			if i == len(frames)-1 {
				p.next = row.Seq + 1
			}
			out, size = append(out, p), size+len(f)
		}
	}
	return out, next, nil
}

// framesOf are those of one arrival. Of a chain that was cut back it may have
// less, or nothing.
func (t *topic) framesOf(a arrival) [][]byte {
	c, ok := t.Chain(envelope.ChainID(a.id))
	if !ok {
		return nil
	}
	run, err := t.store.Run(t.id, c.ID, a.from, min(a.from+uint64(a.count)-1, c.Head.Seq), backlog)
	if err != nil || len(run) == 0 {
		return nil
	}
	return framesOf(&c.Cert, run)
}

// getEnvelopes answers frames from a cursor on.
func (v *visit) getEnvelopes(t *topic) error {
	q := v.req.URL.Query()
	at, err := t.place(q.Get("cursor"), false)
	if err != nil {
		return err
	}
	limit := page
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 {
			return fmt.Errorf("limit: want a number of bytes: %w", ErrRequest)
		}
	}
	limit = min(limit, maxPage)
	pieces, next, err := t.pieces(at, limit)
	if err != nil {
		return err
	}
	var out []byte
	for _, p := range pieces {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p.frame)))
		out = append(out, p.frame...)
	}
	v.w.Header().Set(cursorKey, t.cursor(next))
	v.bytes(out)
	return nil
}

// A message of a subscription is two DRISL items: this, and its body.
type streamHead struct {
	Op int    `cbor:"op"`
	T  string `cbor:"t,omitempty"`
}

type streamFrame struct {
	Seq    uint64 `cbor:"seq"`
	Frame  []byte `cbor:"frame"`
	Cursor string `cbor:"cursor"` // to go on behind it
}

type streamError struct {
	Error   string `cbor:"error"`
	Message string `cbor:"message"`
}

// subscribe streams frames from a cursor on, or from now.
func (v *visit) subscribe(t *topic) error {
	at, placed := t.place(v.req.URL.Query().Get("cursor"), true)
	if !v.r.doors.reader(1) {
		return ErrBusy
	}
	defer v.r.doors.reader(-1)
	// Any page may read what it has a ticket for: no cookie is looked at.
	ws, err := websocket.Accept(v.w, v.req, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return nil // it has answered
	}
	defer ws.CloseNow()
	ctx, cancel := context.WithCancel(ws.CloseRead(v.ctx))
	defer cancel()
	defer context.AfterFunc(v.r.ctx, cancel)()
	if err := placed; err == nil {
		err = v.stream(ctx, ws, t, at)
		if err == nil {
			ws.Close(websocket.StatusGoingAway, "")
			return nil
		}
		placed = err
	}
	row := rowOf(placed)
	_ = send(v.ctx, ws, streamHead{Op: -1}, streamError{row.name, row.sentence(placed)}) // it ends either way
	ws.Close(websocket.StatusPolicyViolation, row.name)
	return nil
}

// stream sends what arrives until the reader or the relay goes.
func (v *visit) stream(ctx context.Context, ws *websocket.Conn, t *topic, at uint64) error {
	ping := time.NewTicker(pingTime)
	defer ping.Stop()
	for {
		t.mu.Lock()
		news, gone := t.news, t.gone
		t.mu.Unlock()
		if gone {
			return ErrNoLease
		}
		pieces, next, err := t.pieces(at, page)
		if err != nil {
			return err
		}
		for _, p := range pieces {
			err := send(ctx, ws, streamHead{1, "#frame"}, streamFrame{p.seq, p.frame, t.cursor(p.next)})
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return ErrSlow
			}
		}
		if at = next; len(pieces) > 0 {
			continue
		}
		select {
		case <-news:
		case <-ping.C:
			if ws.Ping(ctx) != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func send(ctx context.Context, ws *websocket.Conn, head streamHead, body any) error {
	b, err := space.Marshal(head)
	if err != nil {
		return err
	}
	second, err := space.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	return ws.Write(ctx, websocket.MessageBinary, append(b, second...))
}
