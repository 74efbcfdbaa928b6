package xrpc

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"

	"github.com/kithnet/kith/space"
)

// A page of ops is written without encoding/json: there may be a thousand of
// them, and nearly all of their text needs no quoting. opObject says the same
// for reading.

// opWriter writes the ops of one page as JSON.
type opWriter struct {
	did   space.DID
	space string // the space's URI, quoted
	rev   space.TID
	revs  string // rev as text
	times string // its time, quoted
}

// append writes one op as opObject has it. DIDs, NSIDs, record keys and URIs
// are of characters that stand for themselves in JSON.
func (w *opWriter) append(b []byte, op *RepoOp) ([]byte, error) {
	if op.Rev != w.rev || w.revs == "" {
		w.rev, w.revs, w.times = op.Rev, op.Rev.String(), strconv.Quote(timeText(op.Rev.Micros()))
	}
	field := func(name, text string) {
		b = append(append(append(b, name...), text...), '"')
	}
	b = append(append(append(b, `{"rev":"`...), w.revs...), `","idx":`...)
	b = strconv.AppendInt(b, int64(op.Idx), 10)
	b = append(append(append(b, `,"id":"`...), w.revs...), '/')
	b = strconv.AppendInt(b, int64(op.Idx), 10)
	field(`","action":"`, op.action())
	field(`,"did":"`, string(w.did))
	field(`,"author_did":"`, string(w.did))
	b = append(append(b, `,"space_id":`...), w.space...)
	field(`,"collection":"`, string(op.Path.Collection))
	field(`,"rkey":"`, string(op.Path.Key))
	b = appendCIDOrNull(append(b, `,"cid":`...), op.CID)
	b = appendCIDOrNull(append(b, `,"prev":`...), op.Prev)
	b = append(append(append(append(b, `,"created_at":`...), w.times...), `,"createdAt":`...), w.times...)
	if op.Value != nil {
		value, err := op.Value.JSON()
		if err != nil {
			return nil, faultf(errInternal, "op %s/%d: %v", w.revs, op.Idx, err)
		}
		b = append(append(b, `,"value":`...), value...)
	}
	return append(b, '}'), nil
}

func appendCIDOrNull(b []byte, c space.CID) []byte {
	if c.IsZero() {
		return append(b, "null"...)
	}
	return append(append(append(b, '"'), c.String()...), '"')
}

// encodeOps writes all ops, separated by commas, in as many pieces as there are
// processors for them.
func encodeOps(id string, did space.DID, ops []RepoOp) ([][]byte, error) {
	const least = 64 // ops worth a goroutine
	n := max(1, min(runtime.GOMAXPROCS(0), len(ops)/least))
	pieces, errs := make([][]byte, n), make([]error, n)
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() {
			w := opWriter{did: did, space: strconv.Quote(id)}
			from, to := k*len(ops)/n, (k+1)*len(ops)/n
			b := make([]byte, 0, 1024*(to-from))
			for i := from; i < to; i++ {
				if i > 0 {
					b = append(b, ',')
				}
				if b, errs[k] = w.append(b, &ops[i]); errs[k] != nil {
					return
				}
			}
			pieces[k] = b
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return pieces, nil
}

// sendPieces answers with pieces of one JSON text.
func sendPieces(pieces ...[]byte) raw {
	return func(w http.ResponseWriter, r *http.Request) error {
		size := 0
		for _, p := range pieces {
			size += len(p)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(size))
		if r.Method == http.MethodHead {
			return nil
		}
		for _, p := range pieces {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		return nil
	}
}
