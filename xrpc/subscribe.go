package xrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/kithnet/kith/space"
)

// Where a subscription ends.
var (
	// ErrConsumerTooSlow: events went by that the subscriber did not take.
	ErrConsumerTooSlow = errors.New("consumer too slow")
	// ErrOutdatedCursor: the node does not know any more what came next.
	ErrOutdatedCursor = errors.New("outdated cursor")
	// ErrFutureCursor: the node has not got so far.
	ErrFutureCursor = errors.New("future cursor")
)

// Events says what happens in spaces.
type Events interface {
	// Subscribe follows a space behind event number after, or, if that is nil,
	// from now on. It fails with ErrOutdatedCursor and ErrFutureCursor.
	Subscribe(ctx context.Context, id space.ID, after *uint64) (Subscription, error)
}

// errUpgrade: a socket was asked for without opening one.
var errUpgrade = errors.New("upgrade required")

func hasEvents(s *Server) bool { return s.Events != nil }

// Subscription is one reader's place in the events of a space.
type Subscription interface {
	// Seq is the number of the last event that the reader has.
	Seq() uint64
	// Next waits for events: those that are there, at least one. They are shared
	// between readers. A reader that fell behind gets ErrConsumerTooSlow.
	Next(ctx context.Context) ([]*Event, error)
}

// Event is something that happened in a space. Numbers ascend, with gaps.
type Event struct {
	Seq    uint64
	TimeMs int64 // unix milliseconds

	Author space.DID // of a record's version; "": the roster or the policy moved
	Op     RepoOp

	Epoch   uint64
	Deleted bool
	Members []MemberChange

	text, binary encoding
}

// MemberChange says what somebody is now: LevelNone when they are out.
type MemberChange struct {
	DID   space.DID   `json:"did"`
	Level space.Level `json:"level"`
}

// encoding is made once, by the first reader who needs it.
type encoding struct {
	once sync.Once
	b    []byte
	err  error
}

// frame is an event on the wire: text, or two items of DRISL.
func (e *Event) frame(text bool) ([]byte, error) {
	enc := &e.binary
	if text {
		enc = &e.text
	}
	enc.once.Do(func() { enc.b, enc.err = encodeFrame(e.name(), e.body(), text) })
	return enc.b, enc.err
}

func (e *Event) name() string {
	if e.Author == "" {
		return "#space"
	}
	return "#record"
}

type recordEvent struct {
	Seq        uint64          `json:"seq"`
	Time       string          `json:"time"`
	Repo       space.DID       `json:"repo"`
	Rev        string          `json:"rev"`
	Idx        int             `json:"idx"`
	Action     string          `json:"action"`
	Collection space.NSID      `json:"collection"`
	Key        space.RecordKey `json:"rkey"`
	CID        *space.CID      `json:"cid"`
	Prev       *space.CID      `json:"prev"`
	Value      frameValue      `json:"value,omitempty"`
}

type spaceEvent struct {
	Seq     uint64         `json:"seq"`
	Time    string         `json:"time"`
	Epoch   uint64         `json:"epoch"`
	Deleted bool           `json:"deleted"`
	Members []MemberChange `json:"members"`
}

func (e *Event) body() any {
	at := timeText(e.TimeMs * 1000)
	if e.Author == "" {
		return spaceEvent{e.Seq, at, e.Epoch, e.Deleted, append([]MemberChange{}, e.Members...)}
	}
	op := &e.Op
	out := recordEvent{
		Seq: e.Seq, Time: at, Repo: e.Author, Rev: op.Rev.String(), Idx: op.Idx, Action: op.action(),
		Collection: op.Path.Collection, Key: op.Path.Key, Value: frameValue(op.Value),
	}
	if !op.CID.IsZero() {
		out.CID = &op.CID
	}
	if !op.Prev.IsZero() {
		out.Prev = &op.Prev
	}
	return out
}

// encodeFrame is {"t": name, ...body} as text, or the DRISL of {"op": 1, "t":
// name} and of the body, one after the other.
func encodeFrame(name string, body any, text bool) ([]byte, error) {
	if text {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("frame: %w", err)
		}
		return append([]byte(`{"t":`+strconv.Quote(name)+`,`), b[1:]...), nil
	}
	front, err := space.Marshal(frameHead{1, name})
	if name == errorFrame {
		front, err = space.Marshal(frameHead{Op: -1})
	}
	if err != nil {
		return nil, fmt.Errorf("frame: %w", err)
	}
	back, err := space.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("frame: %w", err)
	}
	return append(front, back...), nil
}

// frameHead is the first item of a binary frame; Op -1 is an error.
type frameHead struct {
	Op int    `json:"op"`
	T  string `json:"t,omitempty"`
}

// frameValue is a record within a frame.
type frameValue space.Record

func (v frameValue) MarshalJSON() ([]byte, error) { return space.Record(v).MarshalJSON() }
func (v frameValue) MarshalCBOR() ([]byte, error) { return v, nil }

const (
	errorFrame = "#error"
	startFrame = "#start"
	// textProtocol asks for text frames where a browser cannot add a parameter.
	textProtocol = "kith.json"

	socketPing  = 30 * time.Second // a peer that answers none is gone
	socketWrite = 30 * time.Second // for one message
)

// subscribe follows a space over a WebSocket. The first frame is #start with
// the number after which events follow.
func subscribe(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	var after *uint64
	if s, ok, err := c.query.text("cursor"); err != nil {
		return nil, err
	} else if ok {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return nil, ErrCursor
		}
		after = &n
	}
	encoding, _, err := c.query.text("encoding")
	if err != nil || encoding != "" && encoding != "json" && encoding != "cbor" {
		return nil, faultf(errRequest, "encoding: is json or cbor")
	}
	if !websocketAsked(c.r) {
		return nil, faultf(errUpgrade, "%s: open a WebSocket", c.nsid)
	}
	var sub Subscription
	if after != nil && c.level < space.LevelRead {
		err = ErrOutdatedCursor // it never got a number of the node's
	} else {
		sub, err = c.s.Events.Subscribe(c.ctx(), id, after)
	}
	ends := errors.Is(err, ErrOutdatedCursor) || errors.Is(err, ErrFutureCursor)
	if err != nil && !ends {
		return nil, err
	}
	return raw(func(w http.ResponseWriter, r *http.Request) error {
		// The token or ticket says who asks, never a cookie: any origin may.
		conn, err2 := websocket.Accept(w, r, &websocket.AcceptOptions{
			Subprotocols: []string{textProtocol}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
		})
		if err2 != nil {
			return nil // it has answered
		}
		defer conn.CloseNow()
		s := socket{c: c, conn: conn, text: encoding == "json" || encoding == "" && conn.Subprotocol() == textProtocol}
		s.run(id, sub, err)
		return nil
	}), nil
}

func websocketAsked(r *http.Request) bool {
	return r.Method == http.MethodGet && headerHas(r.Header, "Connection", "upgrade") && headerHas(r.Header, "Upgrade", "websocket")
}

// socket is one open WebSocket.
type socket struct {
	c    *call
	conn *websocket.Conn
	text bool
	own  ownView
}

// run sends what happens until either side ends it, and then says why.
func (s *socket) run(id space.ID, sub Subscription, err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.c.ctx()))
	defer cancel()
	ctx = s.conn.CloseRead(ctx) // nothing is expected from the other side
	go func() {
		select {
		case <-s.c.s.stopping:
			s.conn.Close(websocket.StatusGoingAway, "the node stops")
			cancel()
		case <-ctx.Done():
		}
	}()
	if err == nil {
		go s.ping(ctx, cancel)
		err = s.follow(ctx, id, sub)
	}
	if ctx.Err() != nil {
		return
	}
	row := rowOf(err)
	if s.send(ctx, errorFrame, errorBody{Error: row.name, Message: row.sentence(err)}) == nil {
		s.conn.Close(websocket.StatusPolicyViolation, row.name)
	}
}

func (s *socket) ping(ctx context.Context, cancel context.CancelFunc) {
	tick := time.NewTicker(socketPing)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wait, done := context.WithTimeout(ctx, socketPing)
		err := s.conn.Ping(wait)
		done()
		if err != nil {
			cancel()
			return
		}
	}
}

func (s *socket) follow(ctx context.Context, id space.ID, sub Subscription) error {
	start := sub.Seq()
	if s.c.level < space.LevelRead {
		info, err := s.c.s.Spaces.Space(ctx, id)
		if err != nil {
			return err
		}
		start, s.own.epoch = 0, info.Epoch
	}
	if err := s.send(ctx, startFrame, map[string]uint64{"seq": start}); err != nil {
		return err
	}
	for {
		events, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Author == "" {
				// The roster moved: who is out hears no more.
				if err := s.c.recheck(id); err != nil {
					return err
				}
			}
			if s.c.level < space.LevelRead {
				if e = s.own.of(e, s.c.caller.DID); e == nil {
					continue
				}
			}
			b, err := e.frame(s.text)
			if err != nil {
				return err
			}
			if err := s.write(ctx, b); err != nil {
				return err
			}
		}
	}
}

// ownView is what somebody sees of a space's events who reads only what is
// theirs: numbers that count nothing else, and of the roster their own row.
type ownView struct {
	seq, epoch uint64
}

// of is an event as they see it; nil: not at all.
func (v *ownView) of(e *Event, who space.DID) *Event {
	seen := &Event{TimeMs: e.TimeMs, Author: e.Author, Op: e.Op, Epoch: e.Epoch, Deleted: e.Deleted}
	if e.Author == "" {
		seen.Members = slices.DeleteFunc(slices.Clone(e.Members), func(m MemberChange) bool { return m.DID != who })
		if len(seen.Members) == 0 && !e.Deleted && e.Epoch == v.epoch {
			return nil
		}
		v.epoch = e.Epoch
	} else if e.Author != who {
		return nil
	}
	v.seq++
	seen.Seq = v.seq
	return seen
}

func (s *socket) send(ctx context.Context, name string, body any) error {
	b, err := encodeFrame(name, body, s.text)
	if err != nil {
		return err
	}
	return s.write(ctx, b)
}

func (s *socket) write(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, socketWrite)
	defer cancel()
	kind := websocket.MessageBinary
	if s.text {
		kind = websocket.MessageText
	}
	return s.conn.Write(ctx, kind, b)
}

// recheck judges the caller anew.
func (c *call) recheck(id space.ID) (err error) {
	if c.caller.full {
		_, err = c.s.Spaces.Space(c.ctx(), id)
		return err
	}
	c.level, err = c.levelIn(id, nil)
	return err
}

// headerHas reports whether a comma-separated header has a word.
func headerHas(h http.Header, name, word string) bool {
	return slices.ContainsFunc(h.Values(name), func(v string) bool {
		return slices.ContainsFunc(strings.Split(v, ","), func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), word) })
	})
}
