package node_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// follow gives events of a space as they come.
func follow(t testing.TB, sub xrpc.Subscription, n int) (all []*xrpc.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for len(all) < n {
		more, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %d events: %v", len(all), err)
		}
		all = append(all, more...)
	}
	return all
}

// Records of this node and of others, and what becomes of the roster, come as
// events, in order; a reader goes on where it was, even after a restart.
func TestEvents(t *testing.T) {
	homeA := t.TempDir()
	a, b := start(t, homeA), start(t, t.TempDir())
	id := create(t, a, "club")
	sub, err := a.Subscribe(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	join(t, a, b, id)
	them := mustStatus(t, b).DID
	var joined bool
	for !joined {
		for _, e := range follow(t, sub, 1) {
			for _, m := range e.Members {
				joined = joined || m.DID == them && m.Level == space.LevelWrite
			}
		}
	}
	put(t, a, id, "mine", "1")
	own := follow(t, sub, 1)[0]
	if own.Author != mustStatus(t, a).DID || own.Op.Path.Key != "mine" || own.Op.Value == nil {
		t.Errorf("%+v", own)
	}
	put(t, b, id, "theirs", "2")
	other := follow(t, sub, 1)[0]
	if other.Author != them || other.Op.Path.Key != "theirs" || other.Seq != own.Seq+1 {
		t.Errorf("%+v", other)
	}
	remove(t, a, id, "mine")
	gone := follow(t, sub, 1)[0]
	if !gone.Op.CID.IsZero() || gone.Op.Prev != own.Op.CID || gone.Op.Value != nil {
		t.Errorf("%+v", gone)
	}
	again, err := a.Subscribe(t.Context(), id, &own.Seq)
	if err != nil {
		t.Fatal(err)
	}
	if both := follow(t, again, 2); both[0] != other || both[1] != gone {
		t.Errorf("resumed: %+v", both)
	}
	early, late := uint64(0), sub.Seq()+1
	if _, err := a.Subscribe(t.Context(), id, &early); !errors.Is(err, xrpc.ErrOutdatedCursor) {
		t.Errorf("an outdated cursor: %v", err)
	}
	if _, err := a.Subscribe(t.Context(), id, &late); !errors.Is(err, xrpc.ErrFutureCursor) {
		t.Errorf("a future cursor: %v", err)
	}
	last := sub.Seq()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = start(t, homeA)
	sub, err = a.Subscribe(t.Context(), id, &last)
	if err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	put(t, a, id, "later", "3")
	if e := follow(t, sub, 1)[0]; e.Op.Path.Key != "later" || e.Seq != last+1 {
		t.Errorf("after a restart: %+v", e)
	}
}

// Who does not read is told, and holds nothing up.
func TestConsumerTooSlow(t *testing.T) {
	n := start(t, t.TempDir())
	id := create(t, n, "club")
	slow, err := n.Subscribe(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, n, id, 5000, 100)
	if _, err := slow.Next(t.Context()); !errors.Is(err, xrpc.ErrConsumerTooSlow) {
		t.Errorf("%v", err)
	}
	quick, err := n.Subscribe(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, n, id, 400, 100)
	all := follow(t, quick, 400)
	for i, e := range all {
		if e.Seq != all[0].Seq+uint64(i) {
			t.Fatalf("event %d has number %d, the first %d", i, e.Seq, all[0].Seq)
		}
	}
}

// TestSubscribers: a thousand sockets all get what happens.
func TestSubscribers(t *testing.T) {
	count := 1000
	if testing.Short() {
		count = 50
	}
	n, api := serve(t)
	id := create(t, n, "club")
	var open, done sync.WaitGroup
	open.Add(count)
	failed := make(chan error, count)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range count {
		done.Go(func() {
			conn, err := subscribeTo(ctx, api, id)
			open.Done()
			if err != nil {
				failed <- err
				return
			}
			defer conn.CloseNow()
			for i := range 3 {
				_, b, err := conn.Read(ctx)
				if want := fmt.Sprintf(`"rkey":"k%d"`, i); err != nil || !strings.Contains(string(b), want) {
					failed <- fmt.Errorf("%s: %w, want %s", b, err, want)
					return
				}
			}
		})
	}
	open.Wait()
	for i := range 3 {
		put(t, n, id, fmt.Sprint("k", i), "for everybody")
	}
	done.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

// subscribeTo opens a socket and takes its first frame.
func subscribeTo(ctx context.Context, api *xrpc.Client, id space.ID) (*websocket.Conn, error) {
	url := "ws" + strings.TrimPrefix(api.Base, "http") + "/xrpc/dev.kith.space.subscribe?encoding=json&space=" + id.AT()
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: map[string][]string{"Authorization": {"Bearer " + api.Token}}})
	if err != nil {
		return nil, err
	}
	if _, _, err := conn.Read(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}

// TestEventsOfACatchUp: the values of events stay what they were, although the
// memory that many entries were opened into is used again for those after them.
func TestEventsOfACatchUp(t *testing.T) {
	a, b := start(t, t.TempDir()), start(t, t.TempDir())
	id := create(t, a, "club")
	join(t, a, b, id)
	one := put(t, a, id, "one", "1")
	eventually(t, "it comes", has(b, id, "one", one))
	sub, err := b.Subscribe(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]*node.Node{{a, b}, {b, a}} {
		if err := pair[0].Disconnect(t.Context(), mustStatus(t, pair[1]).PeerID); err != nil && !errors.Is(err, xrpc.ErrPeerNotFound) {
			t.Fatal(err)
		}
	}
	const missed = 400
	for i := range missed {
		put(t, a, id, fmt.Sprint("k", i), strings.Repeat(fmt.Sprint(i, " "), 120))
	}
	if _, err := b.Connect(t.Context(), mustStatus(t, a).Listen[0]); err != nil {
		t.Fatal(err)
	}
	for _, e := range follow(t, sub, missed) {
		if e.Op.Value.CID() != e.Op.CID {
			t.Fatalf("event %d, %s: the value is not that of the cid: %.60q", e.Seq, e.Op.Path, e.Op.Value)
		}
	}
}
