package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/kithnet/kith/space"
)

// sighting is how long one record took, counted from just before the request
// that put it.
type sighting struct {
	acked time.Duration // until the writer had its answer
	seen  time.Duration // until the reader's own node had it to give
	polls int           // how often the reader asked, the last time included
}

// propagate puts a record at one node and asks the other for it, as fast as
// it answers, until it hands out this very version. The reader asks as soon as
// the put is on its way: a record that is there before the writer knows is not
// overlooked.
func propagate(ctx context.Context, from, to *line, id space.ID, path space.Path, rec space.Record) (sighting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var s sighting
	put, err := from.put(id, path, rec)
	if err != nil {
		return s, err
	}
	ask := to.question(space.URI{Space: id, Author: from.did, Path: path})
	start := time.Now()
	if err := from.send(ctx, put); err != nil {
		return s, fmt.Errorf("%s writes: %w", from.name, err)
	}
	wrote := make(chan error, 1)
	go func() {
		body, err := from.receive()
		s.acked = time.Since(start)
		if err == nil {
			err = acknowledged(body, rec)
		}
		if err != nil {
			cancel() // or the reader waits for ever
		}
		wrote <- err
	}()
	seenErr := s.watch(ctx, to, ask, rec, start)
	if err := <-wrote; err != nil {
		return s, fmt.Errorf("%s writes: %w", from.name, err)
	}
	return s, seenErr
}

// watch asks until the answer is rec. The record came between the last look of
// the node that missed it and the first that found it: seen is the middle.
func (s *sighting) watch(ctx context.Context, to *line, ask []byte, rec space.Record, start time.Time) error {
	var missed time.Duration // when the node looked last
	for {
		s.polls++
		asked := time.Since(start)
		body, err := to.ask(ctx, ask)
		at := (asked + time.Since(start)) / 2 // when it looked, give or take half a poll
		if err != nil {
			return fmt.Errorf("%s reads: %w", to.name, err)
		}
		got, err := versionOf(body)
		if err != nil {
			return fmt.Errorf("%s reads: %w", to.name, err)
		}
		if got == rec.CID() {
			s.seen = (missed + at) / 2
			if s.polls == 1 {
				s.seen = at
			}
			return nil
		}
		missed = at
	}
}

// acknowledged is nil if the answer to a put says that it is this record.
func acknowledged(body []byte, rec space.Record) error {
	var got struct {
		CID space.CID `json:"cid"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		return fmt.Errorf("the answer to the put: %w", err)
	}
	if got.CID != rec.CID() {
		return fmt.Errorf("the node says the record is %v, it is %v", got.CID, rec.CID())
	}
	return nil
}

// versionOf is the cid in an answer to getRecord, once the value is what it
// names; none of no body.
func versionOf(body []byte) (space.CID, error) {
	if body == nil {
		return space.CID{}, nil
	}
	var got struct {
		CID   space.CID       `json:"cid"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		return space.CID{}, fmt.Errorf("the answer: %w", err)
	}
	rec, err := space.RecordFromJSON(got.Value)
	if err != nil {
		return space.CID{}, fmt.Errorf("the answer: %w", err)
	}
	if rec.CID() != got.CID {
		return space.CID{}, fmt.Errorf("the value is not what its cid %v names", got.CID)
	}
	return got.CID, nil
}

// line is one kept connection to a node's API, used by one goroutine at a
// time for sending and one for receiving: what a client library does around a
// request would be most of what is measured.
type line struct {
	name  string
	did   space.DID
	host  string
	token string
	conn  net.Conn
	in    *bufio.Reader
}

// connect opens a line to a node.
func connect(ctx context.Context, n *node) (*line, error) {
	base, err := url.Parse(n.Base)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.name, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", base.Host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.name, err)
	}
	return &line{n.name, n.DID, base.Host, n.Token, conn, bufio.NewReader(conn)}, nil
}

func (l *line) close() { l.conn.Close() }

// question is a getRecord, as bytes to be sent.
func (l *line) question(u space.URI) []byte {
	v := url.Values{
		"space": {u.Space.String()}, "repo": {string(u.Author)},
		"collection": {string(u.Path.Collection)}, "rkey": {string(u.Path.Key)},
	}
	return fmt.Appendf(nil, "GET /xrpc/com.atproto.space.getRecord?%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n",
		v.Encode(), l.host, l.token)
}

// put is a putRecord, as bytes to be sent.
func (l *line) put(id space.ID, path space.Path, rec space.Record) ([]byte, error) {
	value, err := rec.JSON()
	if err != nil {
		return nil, err
	}
	body := fmt.Appendf(nil, `{"space":%q,"collection":%q,"rkey":%q,"record":%s}`, id.String(), path.Collection, path.Key, value)
	return fmt.Appendf(nil, "POST /xrpc/com.atproto.space.putRecord HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", l.host, l.token, len(body), body), nil
}

// ask sends a question and answers the body, nil where there is no record.
func (l *line) ask(ctx context.Context, question []byte) ([]byte, error) {
	if err := l.send(ctx, question); err != nil {
		return nil, err
	}
	return l.receive()
}

func (l *line) send(ctx context.Context, request []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := l.conn.SetDeadline(deadline); err != nil {
		return err
	}
	_, err := l.conn.Write(request)
	return err
}

func (l *line) receive() ([]byte, error) {
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.Close:
		return nil, errors.New("the node closes the connection")
	case resp.StatusCode == http.StatusNotFound:
		return nil, nil
	case resp.StatusCode >= 300:
		return nil, fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return body, nil
}

// reach is propagate with connections of its own.
func reach(ctx context.Context, from, to *node, id space.ID, path space.Path, rec space.Record) (sighting, error) {
	w, err := connect(ctx, from)
	if err != nil {
		return sighting{}, err
	}
	defer w.close()
	r, err := connect(ctx, to)
	if err != nil {
		return sighting{}, err
	}
	defer r.close()
	return propagate(ctx, w, r, id, path, rec)
}
