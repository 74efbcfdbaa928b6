package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// ReplicateOptions say what BenchReplicate measures.
type ReplicateOptions struct {
	Kith     string // the binary; empty: the one that is running
	Entries  int    // records in the space
	Batch    int    // records of one entry
	Rounds   int    // empty nodes filled, one after the other; medians are told
	Progress func(string)
}

// BenchReplicate measures how an empty node is filled from a full one, two
// processes on one machine. A round begins when the newcomer says that it has
// joined, which is when its first session begins, and ends when it has handed
// out the sampled records, asked for one after the other from the beginning on,
// holds the same digest and has shown it to the full one, and has acknowledged a
// record of its own: that is synced to disk, and with it all that was stored
// before. The join comes apart.
//
// Beside it, in turns, runs a bare loop: a process streams as many sealed
// entries of the same records over a socket, this one opens, hashes and stores
// them and syncs at the end. wire-bytes is what the loopback interface carried,
// with whatever else ran on the machine; sync-bytes what the newcomer counted
// in its sync streams.
func BenchReplicate(ctx context.Context, o ReplicateOptions) (_ []Row, err error) {
	o.Batch, o.Rounds = orElse(o.Batch, 1), orElse(o.Rounds, 1)
	if o.Entries < o.Batch || o.Batch < 1 || o.Batch > space.MaxOps || o.Entries%o.Batch != 0 {
		return nil, fmt.Errorf("bench replicate: %d records in batches of %d", o.Entries, o.Batch)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	c, err := newCast(o.Kith, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.leave()) }()
	b := &replication{cast: c, ReplicateOptions: o}
	rows, err := b.run(ctx)
	if err == nil {
		err = c.stopAll()
	}
	if err != nil {
		return nil, c.explain(fmt.Errorf("bench replicate: %w", err))
	}
	return rows, nil
}

const (
	fillers       = 64 // clients that write at once
	sampled       = 32 // records that are asked for in the end
	replicatePoll = 2 * time.Millisecond
)

// replication is such a benchmark under way.
type replication struct {
	*cast
	ReplicateOptions
	full *node
	id   space.ID
	cids map[int]space.CID // of the sampled records
	want xrpc.SpaceStatus  // of the full node

	joined, filled, bare, restarts []time.Duration
	wire, synced                   []float64 // bytes a record
	rss                            []float64 // MiB at most
	cpu, fullCPU                   []float64 // seconds
}

func (b *replication) run(ctx context.Context) ([]Row, error) {
	before := time.Now()
	if err := b.fill(ctx); err != nil {
		return nil, fmt.Errorf("fill a node: %w", err)
	}
	wrote := time.Since(before)
	b.Progress(fmt.Sprintf("%d records written in %.1f s", b.Entries, wrote.Seconds()))
	for i := range b.Rounds {
		if err := b.round(ctx, "empty"+strconv.Itoa(i)); err != nil {
			return nil, err
		}
		took, err := bareReplication(ctx, b.kith, b.dir, b.Entries, b.Batch)
		if err != nil {
			return nil, fmt.Errorf("the bare loop: %w", err)
		}
		b.bare = append(b.bare, took)
		b.Progress(fmt.Sprintf("round %d: kith %.1f ms after %.1f to join; bare %.1f ms; %.0f MiB",
			i, ms(b.filled[i]), ms(b.joined[i]), ms(took), b.rss[i]))
	}
	return b.rows(wrote), nil
}

// fill starts a node and writes all records there.
func (b *replication) fill(ctx context.Context) error {
	nodes, err := b.enter(ctx, "full")
	if err != nil {
		return err
	}
	b.full = nodes[0]
	info, err := b.full.CreateSpace(ctx, xrpc.NewSpace{Type: forumType, Policy: space.DefaultPolicy()})
	if err != nil {
		return err
	}
	b.id, b.cids = info.ID, map[int]space.CID{}
	var next atomic.Int64
	var mu sync.Mutex // guards b.cids
	errs := make([]error, fillers)
	var wg sync.WaitGroup
	for w := range fillers {
		wg.Go(func() {
			for errs[w] == nil {
				first := int(next.Add(int64(b.Batch))) - b.Batch
				if first >= b.Entries {
					return
				}
				errs[w] = b.writeBatch(ctx, first, &mu)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return b.settled(ctx)
}

func (b *replication) writeBatch(ctx context.Context, first int, mu *sync.Mutex) error {
	writes := make([]xrpc.Write, b.Batch)
	for i := range writes {
		rec, err := sizedRecord(first + i)
		if err != nil {
			return err
		}
		writes[i] = xrpc.Write{Action: xrpc.ActionPut, Path: numberedPost(first + i), Value: rec}
		if n := first + i; n%max(1, b.Entries/sampled) == 0 || n == b.Entries-1 {
			mu.Lock()
			b.cids[n] = rec.CID()
			mu.Unlock()
		}
	}
	_, err := b.full.Write(ctx, b.id, writes, xrpc.WriteOptions{})
	return err
}

func numberedPost(n int) space.Path {
	return space.Path{Collection: forumPost, Key: space.RecordKey("r" + strconv.Itoa(n))}
}

// settled waits until the full node has stated its repo and writes no more.
func (b *replication) settled(ctx context.Context) error {
	for calm := 0; calm < 3; {
		st, err := b.status(ctx, b.full)
		if err != nil {
			return err
		}
		if calm++; st.Digest != b.want.Digest {
			calm = 0
		}
		b.want = st
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// status is what a node says of the space; zero if it does not have it yet.
func (b *replication) status(ctx context.Context, n *node) (xrpc.SpaceStatus, error) {
	st, err := n.Status(ctx)
	if err != nil {
		return xrpc.SpaceStatus{}, err
	}
	for _, s := range st.Spaces {
		if s.URI == b.id.String() {
			return s, nil
		}
	}
	return xrpc.SpaceStatus{}, nil
}

// round fills one empty node and starts it once again.
func (b *replication) round(ctx context.Context, name string) error {
	inv, err := b.full.Invite(ctx, b.id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	nodes, err := b.enter(ctx, name)
	if err != nil {
		return err
	}
	n := nodes[0]
	defer func() { n.kill() }()
	wire, start := loopbackBytes(), time.Now()
	cpu, fullCPU := cpuOf(n.cmd.Process.Pid), cpuOf(b.full.cmd.Process.Pid)
	if _, err := n.JoinWait(ctx, inv.Link, 15*time.Second); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	joined := time.Now()
	b.joined = append(b.joined, joined.Sub(start))
	if err := b.await(ctx, n); err != nil {
		return err
	}
	equal := time.Since(joined)
	rec, err := sizedRecord(0)
	if err != nil {
		return err
	}
	if _, err := n.PutRecord(ctx, b.id, space.Path{Collection: forumPost, Key: "own"}, rec, nil); err != nil {
		return fmt.Errorf("write a record of its own: %w", err)
	}
	b.filled = append(b.filled, time.Since(joined))
	wired := loopbackBytes() - wire
	st, err := n.Status(ctx)
	if err != nil {
		return err
	}
	b.Progress(fmt.Sprintf("equal after %.1f ms, synced after %.1f", ms(equal), ms(b.filled[len(b.filled)-1])))
	b.cpu = append(b.cpu, cpuOf(n.cmd.Process.Pid)-cpu)
	b.fullCPU = append(b.fullCPU, cpuOf(b.full.cmd.Process.Pid)-fullCPU)
	b.wire = append(b.wire, wired/float64(b.Entries))
	b.synced = append(b.synced, float64(st.Counters["syncBytes"])/float64(b.Entries))
	b.rss = append(b.rss, peakMiB(n.cmd.Process.Pid))
	if err := b.settled(ctx); err != nil { // the record came back
		return err
	}
	return b.restart(ctx, n)
}

// await asks for the sampled records, the one written last at the end, each until
// the newcomer hands out its version, and then until the newcomer holds what the
// full node does, and knows it: a status costs more.
func (b *replication) await(ctx context.Context, n *node) error {
	l, err := connect(ctx, n)
	if err != nil {
		return err
	}
	defer l.close()
	for _, i := range slices.Sorted(maps.Keys(b.cids)) {
		if err := b.sample(ctx, l, i); err != nil {
			return err
		}
	}
	for {
		st, err := b.status(ctx, n)
		if err != nil {
			return err
		}
		if st.Records == b.want.Records && len(st.InSyncWith) > 0 {
			full, err := b.status(ctx, b.full) // it has entered the newcomer in its log
			if err != nil || full.Digest == st.Digest {
				return err
			}
		}
		select {
		case <-time.After(replicatePoll):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d entries came: %w", st.Entries, b.want.Entries, ctx.Err())
		}
	}
}

// sample asks for a record until it is there.
func (b *replication) sample(ctx context.Context, l *line, i int) error {
	ask := l.question(space.URI{Space: b.id, Author: b.full.DID, Path: numberedPost(i)})
	for {
		body, err := l.ask(ctx, ask)
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if body != nil {
			got, err := versionOf(body)
			if err == nil && got != b.cids[i] {
				err = fmt.Errorf("it is %v, it was written as %v", got, b.cids[i])
			}
			if err != nil {
				return fmt.Errorf("record %d: %w", i, err)
			}
			return nil
		}
		select {
		case <-time.After(replicatePoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// restart measures how long the node takes to say that it is ready with all it
// holds, and ends it.
func (b *replication) restart(ctx context.Context, n *node) error {
	if err := n.stop(); err != nil {
		return fmt.Errorf("stop %s: %w", n.name, err)
	}
	start := time.Now()
	again, err := b.again(ctx, n)
	if err != nil {
		return fmt.Errorf("start %s again: %w", n.name, err)
	}
	st, err := b.status(ctx, again)
	if err != nil {
		return err
	}
	b.restarts = append(b.restarts, time.Since(start))
	if st.Records < b.want.Records {
		return fmt.Errorf("%s holds %d records after a restart, it held %d", n.name, st.Records, b.want.Records)
	}
	return again.stop()
}

func (b *replication) rows(wrote time.Duration) []Row {
	kith, bare := median(b.filled), median(b.bare)
	n := b.Rounds
	return []Row{
		{"kith-seconds", kith.Seconds(), "s", n},
		{"join-seconds", median(b.joined).Seconds(), "s", n},
		{"bare-seconds", bare.Seconds(), "s", n},
		{"ratio", ratio(bare, kith), "x", n},
		{"records-per-second", float64(b.Entries) / kith.Seconds(), "/s", n},
		{"wire-bytes", typical(b.wire), "B", n},
		{"sync-bytes", typical(b.synced), "B", n},
		{"cpu", typical(b.cpu), "s", n},
		{"full-cpu", typical(b.fullCPU), "s", n},
		{"rss", typical(b.rss), "MiB", n},
		{"full-rss", peakMiB(b.full.cmd.Process.Pid), "MiB", 1},
		{"restart-seconds", median(b.restarts).Seconds(), "s", n},
		{"fill-seconds", wrote.Seconds(), "s", 1},
	}
}

func median(d []time.Duration) time.Duration {
	p50, _ := quantiles(d)
	return p50
}

func typical(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
