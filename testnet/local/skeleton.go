package local

import (
	"context"
	"errors"
	"io"
)

func Demo(ctx context.Context, o DemoOptions) (Report, error) {
	return Report{}, errors.New("demo: not yet")
}

func BenchPropagate(ctx context.Context, o BenchOptions) ([]Row, error) {
	return nil, errors.New("bench: not yet")
}

func GossipPeer(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	return errors.New("gossip peer: not yet")
}
