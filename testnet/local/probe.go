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
	seen  time.Duration // until the reader got it from its own node
	polls int           // how often the reader asked, the last time included
}

// propagate puts a record at one node and asks the other for it, as fast as
// it answers, until it hands out this very version. The reader starts asking
// together with the writer: a record that is there before the writer knows is
// not overlooked.
func propagate(ctx context.Context, from *node, to *poller, id space.ID, path space.Path, rec space.Record) (sighting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var s sighting
	ask := to.question(space.URI{Space: id, Author: from.DID, Path: path})
	start := time.Now()
	wrote := make(chan error, 1)
	go func() {
		w, err := from.PutRecord(ctx, id, path, rec, nil)
		s.acked = time.Since(start)
		if err == nil && w.Records[0].CID != rec.CID() {
			err = fmt.Errorf("put %s: the node says it is %v, it is %v", path, w.Records[0].CID, rec.CID())
		}
		if err != nil {
			cancel() // or the reader waits for ever
		}
		wrote <- err
	}()
	seenErr := func() error {
		for {
			s.polls++
			body, err := to.ask(ctx, ask)
			at := time.Since(start)
			if err != nil {
				return fmt.Errorf("%s reads %s: %w", to.name, path, err)
			}
			if got, err := versionOf(body); err != nil {
				return fmt.Errorf("%s reads %s: %w", to.name, path, err)
			} else if got == rec.CID() {
				s.seen = at
				return nil
			}
		}
	}()
	if err := <-wrote; err != nil {
		return s, fmt.Errorf("%s writes: %w", from.name, err)
	}
	return s, seenErr
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

// poller asks a node for one record again and again, on one connection and
// from one goroutine: what a client library does around a request would be
// most of what is measured.
type poller struct {
	name  string
	host  string
	token string
	conn  net.Conn
	in    *bufio.Reader
}

// poll connects a poller to a node.
func poll(ctx context.Context, n *node) (*poller, error) {
	base, err := url.Parse(n.Base)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.name, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", base.Host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.name, err)
	}
	return &poller{n.name, base.Host, n.Token, conn, bufio.NewReader(conn)}, nil
}

func (p *poller) close() { p.conn.Close() }

// question is a getRecord, as bytes to be sent.
func (p *poller) question(u space.URI) []byte {
	v := url.Values{
		"space": {u.Space.String()}, "repo": {string(u.Author)},
		"collection": {string(u.Path.Collection)}, "rkey": {string(u.Path.Key)},
	}
	return fmt.Appendf(nil, "GET /xrpc/com.atproto.space.getRecord?%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n",
		v.Encode(), p.host, p.token)
}

// ask sends a question and answers the body, nil where there is no record.
func (p *poller) ask(ctx context.Context, question []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := p.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := p.conn.Write(question); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(p.in, nil)
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
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return body, nil
}

// reach is propagate with a connection of its own.
func reach(ctx context.Context, from, to *node, id space.ID, path space.Path, rec space.Record) (sighting, error) {
	p, err := poll(ctx, to)
	if err != nil {
		return sighting{}, err
	}
	defer p.close()
	return propagate(ctx, from, p, id, path, rec)
}
