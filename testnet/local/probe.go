package local

import (
	"context"
	"errors"
	"fmt"
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
func propagate(ctx context.Context, from, to *node, id space.ID, path space.Path, rec space.Record) (sighting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var s sighting
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
	seenErr := to.sees(ctx, id, from.DID, path, rec.CID(), &s.polls)
	s.seen = time.Since(start)
	if err := <-wrote; err != nil {
		return s, fmt.Errorf("%s writes: %w", from.name, err)
	}
	return s, seenErr
}

// sees asks until the record is there in the version wanted.
func (n *node) sees(ctx context.Context, id space.ID, author space.DID, path space.Path, want space.CID, polls *int) error {
	for {
		*polls++
		got, err := n.Record(ctx, id, author, path)
		switch {
		case err == nil && got.CID == want:
			if got.Value.CID() != want {
				return fmt.Errorf("%s reads %s: the value is not what its cid %v names", n.name, path, want)
			}
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s never saw %s", n.name, path)
		case err == nil, errors.Is(err, space.ErrRecordNotFound), errors.Is(err, space.ErrRepoNotFound):
		default:
			return fmt.Errorf("%s reads %s: %w", n.name, path, err)
		}
	}
}
