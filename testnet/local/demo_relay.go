package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// relay shows two members who are never online together share through a relay:
// all go but one, who writes and goes; then another comes alone and reads.
func (d *demo) relay(ctx context.Context) (string, error) {
	rae, err := d.carry(ctx, "rae")
	if err != nil {
		return "", err
	}
	nodes := d.all()
	writer, reader := nodes[0], nodes[1]
	epoch, err := writer.SetRelays(ctx, d.id, rae.Relay[:1])
	if err != nil {
		return "", fmt.Errorf("name the relay in the log: %w", err)
	}
	if err := until(ctx, func() error { return d.signedFor(ctx, reader) }); err != nil {
		return "", err
	}
	if err := stopThem(nodes[1:]); err != nil {
		return "", err
	}
	path, rec, err := note("relay", 0, "for somebody who sleeps, number")
	if err != nil {
		return "", err
	}
	d.canary("for somebody who sleeps")
	if _, err := writer.Write(ctx, d.id, []xrpc.Write{{Action: xrpc.ActionPut, Path: path, Value: rec}}, xrpc.WriteOptions{}); err != nil {
		return "", fmt.Errorf("%s writes: %w", writer.name, err)
	}
	d.acked(writer, path, rec.CID())
	if err := until(ctx, func() error { return d.signedFor(ctx, writer) }); err != nil {
		return "", err
	}
	if err := writer.stop(); err != nil {
		return "", err
	}
	alone, err := d.again(ctx, reader)
	if err != nil {
		return "", err
	}
	start := time.Now()
	err = until(ctx, func() error {
		_, err := alone.Record(ctx, d.id, writer.DID, path)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%s reads alone: %w", alone.name, err)
	}
	read := time.Since(start)
	if _, err := d.again(ctx, writer); err != nil {
		return "", err
	}
	for _, n := range nodes[2:] {
		if _, err := d.again(ctx, n); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("epoch %d names %s; all went but %s, who wrote and went; %s came alone and read it after %d ms",
		epoch, rae.name, writer.name, reader.name, read.Milliseconds()), nil
}

// signedFor is nil once the relay signed for all that a node holds.
func (d *demo) signedFor(ctx context.Context, n *node) error {
	st, err := n.Status(ctx)
	if err != nil {
		return err
	}
	for _, s := range st.Spaces {
		id, err := space.ParseID(s.URI)
		if err != nil || id != d.id {
			continue
		}
		for _, r := range s.Relays {
			if !r.HoldsAll {
				return fmt.Errorf("the relay has not signed for all %d entries of %s: %s", s.Entries, n.name, r.LastError)
			}
			return nil
		}
	}
	return fmt.Errorf("%s names no relay yet", n.name)
}

// carry starts a relay.
func (c *cast) carry(ctx context.Context, name string) (*node, error) {
	home := filepath.Join(c.dir, name)
	n, err := runNode(ctx, c.kith, name, home, logOf(home), "--relay", "--relay-listen", "/ip4/127.0.0.1/udp/0/quic-v1")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.relays = append(c.relays, n)
	return n, nil
}

// stopThem stops nodes at the same time.
func stopThem(nodes []*node) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
