package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

const (
	crashWriters = 4  // so that requests are open when the kill comes
	crashAfter   = 40 // acknowledged writes
	meanwhile    = 5  // writes of each other node while it is down
)

// crash kills the last node with SIGKILL in the middle of writing. Each
// request either was answered or was not, and we know which.
func (d *demo) crash(ctx context.Context) (string, error) {
	nodes := d.all()
	victim := nodes[len(nodes)-1]
	var acked, open atomic.Int64
	enough := make(chan struct{})
	errs := make([]error, crashWriters)
	var wg sync.WaitGroup
	for w := range crashWriters {
		wg.Go(func() {
			for i := w; ; i += crashWriters {
				switch err := d.crashWrite(ctx, victim, i); {
				case err == nil:
					if acked.Add(1) == crashAfter {
						close(enough)
					}
				case victim.died() == nil && !victim.gone():
					errs[w] = err
					return
				default:
					open.Add(1)
					return
				}
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
	}
	victim.kill()
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return "", err
	}
	for _, n := range nodes[:len(nodes)-1] {
		for i := range meanwhile {
			path, rec, err := note("meanwhile", i, "written while somebody was away, number")
			if err == nil {
				_, err = n.PutRecord(ctx, d.id, path, rec, nil)
			}
			if err != nil {
				return "", fmt.Errorf("%s writes while %s is down: %w", n.name, victim.name, err)
			}
			d.acked(n, path, rec.CID())
		}
	}
	return fmt.Sprintf("SIGKILL to %s after %d acknowledged writes, %d requests open; the others wrote %d meanwhile",
		victim.name, acked.Load(), open.Load(), meanwhile*(len(nodes)-1)), nil
}

func (d *demo) crashWrite(ctx context.Context, n *node, i int) error {
	path, rec, err := note("crash", i, "written on the edge, number")
	if err != nil {
		return err
	}
	uri := space.URI{Space: d.id, Author: n.DID, Path: path}
	d.mu.Lock()
	d.maybe[uri] = true
	d.mu.Unlock()
	if _, err := n.PutRecord(ctx, d.id, path, rec, nil); err != nil {
		return err
	}
	d.acked(n, path, rec.CID())
	return nil
}

// gone reports whether the end of the process was asked for or has come.
func (p *process) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return true
	default:
		return p.wanted
	}
}

// restart brings the killed node back on the same home. Nobody tells it an
// address, and its own has changed: it has to find the others from what it
// kept.
func (d *demo) restart(ctx context.Context) (string, error) {
	nodes := d.all()
	start := time.Now()
	back, err := d.again(ctx, nodes[len(nodes)-1])
	if err != nil {
		return "", err
	}
	readyAfter := time.Since(start)
	if err := d.compare(ctx, back, back.DID); err != nil {
		return "", fmt.Errorf("right after the restart: %w", err)
	}
	nodes = d.all()
	if err := d.allRead(ctx, nodes); err != nil {
		return "", err
	}
	evenAfter := time.Since(start)
	path, rec, err := note("back", 0, "and here I am again, number")
	if err != nil {
		return "", err
	}
	if _, err := reach(ctx, back, nodes[0], d.id, path, rec); err != nil {
		return "", fmt.Errorf("a write after the restart: %w", err)
	}
	d.acked(back, path, rec.CID())
	if err := d.noFork(ctx, nodes); err != nil {
		return "", err
	}
	return fmt.Sprintf("ready after %d ms with every acknowledged write, level with the others after %d ms, no address told, no fork",
		readyAfter.Milliseconds(), evenAfter.Milliseconds()), nil
}

// noFork asks every node whether it ever saw two versions of one chain's
// history, or refused what a member wrote.
func (d *demo) noFork(ctx context.Context, nodes []*node) error {
	for _, n := range nodes {
		st, s, err := n.status(ctx, d.id)
		if err != nil {
			return err
		}
		if s.LastError != "" {
			return fmt.Errorf("%s: %s", n.name, s.LastError)
		}
		for name, v := range st.Counters {
			low := strings.ToLower(name)
			if strings.HasPrefix(low, "sessions") {
				continue // one whose peer stops in the middle counts as refused
			}
			if v > 0 && (strings.Contains(low, "fork") || strings.Contains(low, "disputed") || strings.Contains(low, "refused")) {
				return fmt.Errorf("%s counts %s = %d", n.name, name, v)
			}
		}
	}
	return nil
}

// status is what a node says of itself and of one space.
func (n *node) status(ctx context.Context, id space.ID) (xrpc.Status, xrpc.SpaceStatus, error) {
	st, err := n.Status(ctx)
	if err != nil {
		return st, xrpc.SpaceStatus{}, fmt.Errorf("%s: status: %w", n.name, err)
	}
	for _, s := range st.Spaces {
		if s.URI == id.String() || s.URI == id.AT() {
			return st, s, nil
		}
	}
	return st, xrpc.SpaceStatus{}, fmt.Errorf("%s: its status does not list %s", n.name, id)
}

func (d *demo) latecomer(ctx context.Context) (string, error) {
	start := time.Now()
	late, err := d.enter(ctx, "dora")
	if err != nil {
		return "", err
	}
	took, err := d.joinAll(ctx, late)
	if err != nil {
		return "", err
	}
	if err := d.allRead(ctx, late); err != nil {
		return "", err
	}
	whole := time.Since(start)
	if err := until(ctx, func() error { return d.rosterOf(ctx, d.all(), 4) }); err != nil {
		return "", err
	}
	path, rec, err := note("hello", 0, "hello from the newcomer, number")
	if err != nil {
		return "", err
	}
	nodes := d.all()
	if _, err := reach(ctx, late[0], nodes[1], d.id, path, rec); err != nil {
		return "", err
	}
	d.acked(late[0], path, rec.CID())
	return fmt.Sprintf("%s, the whole history of %d records %d ms after its process began", took[0], len(d.want)-1, whole.Milliseconds()), nil
}

// inSync is the end: the same count and digest everywhere, and every node says
// itself with whom it is in sync.
func (d *demo) inSync(ctx context.Context) (string, error) {
	nodes := d.whole()
	if err := d.allRead(ctx, nodes); err != nil {
		return "", err
	}
	var tale string
	err := until(ctx, func() error {
		var err error
		tale, err = d.level(ctx, nodes)
		return err
	})
	if err != nil {
		return "", err
	}
	return tale, d.noFork(ctx, nodes)
}

// level holds when all nodes show one state and each names a peer that has it.
func (d *demo) level(ctx context.Context, nodes []*node) (string, error) {
	var first xrpc.SpaceStatus
	pairs := 0
	for i, n := range nodes {
		_, s, err := n.status(ctx, d.id)
		if err != nil {
			return "", err
		}
		if i == 0 {
			first = s
		}
		switch {
		case s.Records != first.Records || s.Entries != first.Entries || s.Digest != first.Digest:
			return "", fmt.Errorf("%s has %d records, %d entries, digest %.16s; %s has %d, %d, %.16s",
				nodes[0].name, first.Records, first.Entries, first.Digest, n.name, s.Records, s.Entries, s.Digest)
		case s.Behind != 0:
			return "", fmt.Errorf("%s says it is %d behind", n.name, s.Behind)
		case len(s.InSyncWith) == 0:
			return "", fmt.Errorf("%s has the others' digest, but does not say that it is in sync with anybody", n.name)
		}
		pairs += len(s.InSyncWith)
	}
	return fmt.Sprintf("%d nodes: %d records, %d entries, digest %.16s…; %d times \"in sync with\"",
		len(nodes), first.Records, first.Entries, first.Digest, pairs), nil
}
