package xrpc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/kithnet/kith/space"
)

// A page of ops is written without encoding/json: there may be a thousand of
// them, and nearly all of their text needs no quoting. opObject says the same
// for reading.
//
// It is written in pieces. While one is sent, those behind it are made, several
// at a time, and values become JSON as they are read: no page is in memory as a
// whole, however large its records are.

// opsPiece is how many ops a piece has.
const opsPiece = 32

// opsPage writes a page of ops as JSON.
type opsPage struct {
	*Oplog
	did, space []byte // as they stand in each op
	failed     atomic.Bool
}

func newOpsPage(uri string, did space.DID, page *Oplog) *opsPage {
	return &opsPage{
		Oplog: page,
		did:   []byte(`","did":"` + string(did) + `","author_did":"` + string(did)),
		space: []byte(`","space_id":` + strconv.Quote(uri) + `,"collection":"`),
	}
}

// piece is a part of the page's text. The buffer goes back to buffers.
type piece struct {
	text *bytes.Buffer
	err  error
}

// send answers with the page and what stands behind its ops.
func (p *opsPage) send(w http.ResponseWriter, tail opsTail) error {
	end, err := tail.text()
	if err != nil {
		return notSent{err}
	}
	order := make(chan chan piece, 2*runtime.GOMAXPROCS(0))
	go p.pieces(order)
	sent := false
	for next := range order {
		part := <-next
		if err == nil {
			err = part.err
		}
		if err == nil {
			if !sent {
				w.Header().Set("Content-Type", "application/json")
			}
			sent = true
			_, err = w.Write(part.text.Bytes())
		}
		p.failed.Store(err != nil)
		release(part.text)
	}
	switch {
	case err == nil:
		_, err = w.Write(end)
		return err
	case !sent:
		return notSent{err}
	}
	return err
}

// pieces makes them, as many at a time as order holds, at least one in all.
func (p *opsPage) pieces(order chan<- chan piece) {
	defer close(order)
	for from := 0; (from == 0 || from < len(p.Ops)) && !p.failed.Load(); from += opsPiece {
		next := make(chan piece, 1)
		order <- next
		go func() { next <- p.piece(from, min(from+opsPiece, len(p.Ops))) }()
	}
}

// piece writes the ops from one to another; the page begins with the first.
func (p *opsPage) piece(from, to int) piece {
	buf := buffers.Get().(*bytes.Buffer)
	w := opWriter{opsPage: p, b: buf.AvailableBuffer(), next: from}
	if from == 0 {
		w.b = append(w.b, `{"ops":[`...)
	}
	var err, bad error
	if p.Values != nil {
		err = p.Values(from, to, func(i int, value space.Record) {
			w.upTo(i)
			w.begin()
			w.b = append(w.b, `,"value":`...)
			var failed error
			if w.b, failed = value.AppendJSON(w.b); failed != nil {
				bad = failed
			}
			w.b = append(w.b, '}')
		})
	}
	w.upTo(to)
	*buf = *bytes.NewBuffer(w.b)
	return piece{buf, cmp.Or(err, bad)}
}

// opWriter writes the ops of one piece.
type opWriter struct {
	*opsPage
	b     []byte
	next  int // op
	rev   space.TID
	revs  []byte // rev as text
	times []byte // both times of an op of rev
}

// upTo writes the ops before op number n, without values.
func (w *opWriter) upTo(n int) {
	for w.next < n {
		w.begin()
		w.b = append(w.b, '}')
	}
}

// begin writes the next op as opObject has it, up to its value. DIDs, NSIDs,
// record keys and URIs are of characters that stand for themselves in JSON.
func (w *opWriter) begin() {
	op := &w.Ops[w.next]
	if op.Rev != w.rev || w.revs == nil {
		at := strconv.Quote(timeText(op.Rev.Micros()))
		w.rev, w.revs = op.Rev, []byte(op.Rev.String())
		w.times = []byte(`,"created_at":` + at + `,"createdAt":` + at)
	}
	b := w.b
	if w.next > 0 {
		b = append(b, ',')
	}
	w.next++
	b = append(append(append(b, `{"rev":"`...), w.revs...), `","idx":`...)
	b = strconv.AppendInt(b, int64(op.Idx), 10)
	b = append(append(append(b, `,"id":"`...), w.revs...), '/')
	b = strconv.AppendInt(b, int64(op.Idx), 10)
	b = append(append(b, `","action":"`...), op.action()...)
	b = append(append(b, w.did...), w.space...)
	b = append(b, op.Path.Collection...)
	b = append(append(b, `","rkey":"`...), op.Path.Key...)
	b = appendCIDOrNull(append(b, `","cid":`...), op.CID)
	b = appendCIDOrNull(append(b, `,"prev":`...), op.Prev)
	w.b = append(b, w.times...)
}

func appendCIDOrNull(b []byte, c space.CID) []byte {
	if c.IsZero() {
		return append(b, "null"...)
	}
	b, _ = c.AppendText(append(b, '"')) // never fails
	return append(b, '"')
}

// text is what follows the last op, up to the end of the page.
func (t opsTail) text() ([]byte, error) {
	end, err := json.Marshal(t)
	if err != nil {
		return nil, faultf(errInternal, "ops: %v", err)
	}
	if end[0] = ','; len(end) == len("{}") {
		end = end[1:]
	}
	return append(append([]byte("]"), end...), '\n'), nil
}
