package gossip

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Two bare peers hear each other and not themselves.
func TestBare(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := NewBare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := NewBare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Connect(ctx, a.Addr()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to *Bare }{{a, b}, {b, a}} {
		for n := 0; ; n++ { // the first ones are lost: the mesh is not there yet
			sent := time.Now()
			if err := c.from.Publish(ctx, fmt.Append(nil, c.from.Addr(), n)); err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			got, at, err := c.to.Receive(short)
			cancel()
			if ctx.Err() != nil {
				t.Fatal("the peers never met in the topic")
			}
			if err != nil {
				continue
			}
			if !strings.HasPrefix(string(got), c.from.Addr()) || n == 0 && at.Before(sent) {
				t.Errorf("%q at %v, sent at %v", got, at, sent)
			}
			break
		}
	}
	for _, bad := range []string{"", "here", "/ip4/127.0.0.1/tcp/1"} {
		if err := a.Connect(ctx, bad); err == nil || !strings.Contains(err.Error(), "address") {
			t.Errorf("connect to %q: %v", bad, err)
		}
	}
}
