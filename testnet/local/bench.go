package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

const (
	benchSamples = 200
	benchPace    = 50 * time.Millisecond
	benchBlock   = 20 // samples of one side before the other's turn
	benchWarmup  = 20 // of each side, not counted
	benchTime    = 20 * time.Second
	recordSize   = 256 // bytes of a record, and of a bare message
)

// BenchPropagate measures how long a record takes from just before the HTTP
// request that puts it at one node until the other node answers a getRecord
// with the right version, opened and verified. The reader asks in a tight loop
// on a kept connection. A look is taken to happen midway between question and
// answer, and the record to come midway between the last look that missed it
// and the first that found it: off by half a poll (row kith-poll) at most.
//
// Beside it, in turns of 20 and at the same pace, runs a gossipsub with
// nothing on it: this process publishes 256 bytes, a process of its own
// receives them and tells when. Those figures are differences of the wall
// clock as two processes of one machine read it: they hold as far as nobody
// sets that clock in between.
func BenchPropagate(ctx context.Context, o BenchOptions) (_ []Row, err error) {
	o.N, o.Pace = orElse(o.N, benchSamples), orElse(o.Pace, benchPace)
	if o.N < 1 || o.Pace < 0 {
		return nil, fmt.Errorf("bench: %d samples, one each %v", o.N, o.Pace)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	c, err := newCast(o.Kith, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.leave()) }()
	b := &bench{cast: c, o: o}
	rows, err := b.run(ctx)
	if err == nil {
		err = c.stopAll()
	}
	if err != nil {
		return nil, c.explain(fmt.Errorf("bench propagate: %w", err))
	}
	return rows, nil
}

func orElse[T comparable](v, standard T) T {
	var zero T
	if v == zero {
		return standard
	}
	return v
}

// bench is a benchmark under way.
type bench struct {
	*cast
	o        BenchOptions
	id       space.ID
	from, to *node
	writer   *line
	reader   *line
	bare     *baseline

	seen, acked, poll, bareSeen []time.Duration
}

func (b *bench) run(ctx context.Context) ([]Row, error) {
	b.o.Progress("starting two nodes with a space, and two peers with nothing but gossipsub")
	if err := b.setUp(ctx); err != nil {
		return nil, err
	}
	var err error
	if b.bare, err = newBaseline(ctx, b.kith, b.dir); err != nil {
		return nil, err
	}
	defer b.bare.close()
	if b.writer, err = connect(ctx, b.from); err != nil {
		return nil, err
	}
	defer b.writer.close()
	if b.reader, err = connect(ctx, b.to); err != nil {
		return nil, err
	}
	defer b.reader.close()
	if err := b.warmUp(ctx); err != nil {
		return nil, err
	}
	for done := 0; done < b.o.N; done += benchBlock {
		n := min(benchBlock, b.o.N-done)
		if err := b.paced(ctx, n, func(i int) error { return b.kithRound(ctx, done+i) }); err != nil {
			return nil, err
		}
		if err := b.paced(ctx, n, func(int) error { return b.bareRound(ctx) }); err != nil {
			return nil, err
		}
		kith, _ := quantiles(b.seen)
		bare, _ := quantiles(b.bareSeen)
		b.o.Progress(fmt.Sprintf("%d of %d: kith p50 %.3f ms, bare gossipsub p50 %.3f ms", done+n, b.o.N, ms(kith), ms(bare)))
	}
	return b.rows(), nil
}

// setUp starts two nodes and shares a space between them.
func (b *bench) setUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, benchTime)
	defer cancel()
	nodes, err := b.enter(ctx, "writer", "reader")
	if err != nil {
		return err
	}
	b.from, b.to = nodes[0], nodes[1]
	info, err := b.from.CreateSpace(ctx, xrpc.NewSpace{Type: forumType, Policy: space.DefaultPolicy()})
	if err != nil {
		return fmt.Errorf("create a space: %w", err)
	}
	b.id = info.ID
	inv, err := b.from.Invite(ctx, b.id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	if _, err := b.to.JoinWait(ctx, inv.Link, 15*time.Second); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}

// warmUp fills caches and lets both meshes form; nothing of it is counted.
func (b *bench) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, benchTime)
	defer cancel()
	if err := b.paced(ctx, benchWarmup, func(i int) error { return b.kithRound(ctx, -1-i) }); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	if err := b.bare.meet(ctx); err != nil {
		return fmt.Errorf("warm up the bare gossipsub: %w", err)
	}
	if err := b.paced(ctx, benchWarmup, func(int) error { return b.bareRound(ctx) }); err != nil {
		return fmt.Errorf("warm up the bare gossipsub: %w", err)
	}
	b.seen, b.acked, b.poll, b.bareSeen = nil, nil, nil, nil
	return nil
}

// paced runs n rounds, one each Pace from start to start; a round that takes
// longer delays the next.
func (b *bench) paced(ctx context.Context, n int, round func(int) error) error {
	next := time.Now()
	for i := range n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(next)):
		}
		next = time.Now().Add(b.o.Pace)
		if err := round(i); err != nil {
			return err
		}
	}
	return nil
}

// kithRound measures one record.
func (b *bench) kithRound(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, benchTime)
	defer cancel()
	rec, err := sizedRecord(i)
	if err != nil {
		return err
	}
	path := space.Path{Collection: forumPost, Key: space.RecordKey("r" + strconv.Itoa(i))}
	s, err := propagate(ctx, b.writer, b.reader, b.id, path, rec)
	if err != nil {
		return err
	}
	b.seen = append(b.seen, s.seen)
	b.acked = append(b.acked, s.acked)
	b.poll = append(b.poll, s.seen/time.Duration(s.polls))
	return nil
}

// sizedRecord is a record of recordSize bytes that nothing compresses.
func sizedRecord(i int) (space.Record, error) {
	text := rand.Text()
	for {
		rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":%q,"n":%d,"text":%q}`, forumPost, i, text))
		if err != nil || len(rec) >= recordSize {
			return rec, err
		}
		text += rand.Text()[:min(26, recordSize-len(rec))]
	}
}

func (b *bench) bareRound(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, benchTime)
	defer cancel()
	took, err := b.bare.round(ctx)
	if err != nil {
		return fmt.Errorf("bare gossipsub: %w", err)
	}
	b.bareSeen = append(b.bareSeen, took)
	return nil
}

func (b *bench) rows() []Row {
	k50, k99 := quantiles(b.seen)
	b50, b99 := quantiles(b.bareSeen)
	a50, a99 := quantiles(b.acked)
	p50, _ := quantiles(b.poll)
	slices.Sort(b.seen)
	n := len(b.seen)
	return []Row{
		{"kith-p50", ms(k50), "ms", n},
		{"kith-p99", ms(k99), "ms", n},
		{"bare-p50", ms(b50), "ms", len(b.bareSeen)},
		{"bare-p99", ms(b99), "ms", len(b.bareSeen)},
		{"ratio-p50", ratio(k50, b50), "x", n},
		{"ratio-p99", ratio(k99, b99), "x", n},
		{"kith-max", ms(percentile(b.seen, 100)), "ms", n},
		{"kith-put-p50", ms(a50), "ms", n},
		{"kith-put-p99", ms(a99), "ms", n},
		{"kith-poll", ms(p50), "ms", n},
	}
}
