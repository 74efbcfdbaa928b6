package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// cast is the nodes of a story, with the directory they live in.
type cast struct {
	kith string
	dir  string
	temp bool // dir is ours to remove

	mu     sync.Mutex
	nodes  []*node // in order of appearance; guarded by mu
	relays []*node // likewise
}

// newCast makes a place for homes and logs: dir, or a temporary one.
func newCast(kith, dir string) (*cast, error) {
	kith, err := executable(kith)
	if err != nil {
		return nil, err
	}
	c := &cast{kith: kith, dir: dir}
	if dir == "" {
		c.temp = true
		c.dir, err = os.MkdirTemp("", "kith-testnet-")
	} else {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("a place for the nodes: %w", err)
	}
	return c, nil
}

// enter starts nodes with new homes, all at once, in the order named.
func (c *cast) enter(ctx context.Context, names ...string) ([]*node, error) {
	for _, name := range names {
		if home := filepath.Join(c.dir, name); exists(home) {
			return nil, fmt.Errorf("%s exists already; name an empty directory", home)
		}
	}
	started := make([]*node, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { started[i], errs[i] = c.run(ctx, name, filepath.Join(c.dir, name)) })
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range started {
		if n != nil {
			c.nodes = append(c.nodes, n)
		}
	}
	return started, errors.Join(errs...)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func (c *cast) run(ctx context.Context, name, home string) (*node, error) {
	return runNode(ctx, c.kith, name, home, logOf(home))
}

// logOf is where the log of the node in home goes.
func logOf(home string) string { return home + ".log" }

// again starts a node that was killed, in the home it had.
func (c *cast) again(ctx context.Context, old *node) (*node, error) {
	n, err := c.run(ctx, old.name, old.home)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[slices.Index(c.nodes, old)] = n
	return n, nil
}

// all are the nodes now.
func (c *cast) all() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// explain adds to an error which nodes died.
func (c *cast) explain(err error) error {
	for _, n := range c.all() {
		if dead := n.died(); dead != nil {
			err = fmt.Errorf("%w; %w", dead, err)
		}
	}
	return err
}

// stopAll ends all nodes, politely first.
func (c *cast) stopAll() error {
	var wg sync.WaitGroup
	c.mu.Lock()
	nodes := slices.Concat(c.nodes, c.relays)
	c.mu.Unlock()
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		wg.Go(func() {
			if errs[i] = n.stop(); errs[i] != nil {
				errs[i] = fmt.Errorf("stop %s: %w", n.name, errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// leave kills what still runs and removes a temporary directory.
func (c *cast) leave() error {
	c.mu.Lock()
	nodes := slices.Concat(c.nodes, c.relays)
	c.mu.Unlock()
	for _, n := range nodes {
		n.kill()
	}
	if !c.temp {
		return nil
	}
	return os.RemoveAll(c.dir)
}
