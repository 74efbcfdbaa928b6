package local

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/kithnet/kith/gossip"
)

// report is a line of the child: first {"ready":true}, then one for every
// message, with the number in its first eight bytes and the wall clock's
// nanoseconds when it came.
type report struct {
	Ready bool   `json:"ready,omitempty"`
	N     uint64 `json:"n"`
	At    int64  `json:"at,omitempty"`
}

// baseline is this process's end of the bare gossipsub, and the child at the
// other.
type baseline struct {
	peer    *gossip.Bare
	child   *process
	stdin   io.Closer // closing it ends the child
	reports chan report
	n       uint64
}

// newBaseline starts both ends and connects them.
func newBaseline(ctx context.Context, kith, dir string) (*baseline, error) {
	peer, err := gossip.NewBare(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	in, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, peer.Close())
	}
	child, out, err := spawn("the bare peer", filepath.Join(dir, "bare.log"), kith, []string{"bench", "gossip-peer", peer.Addr()}, in)
	in.Close()
	if err != nil {
		return nil, errors.Join(err, w.Close(), peer.Close())
	}
	b := &baseline{peer: peer, child: child, stdin: w, reports: make(chan report, 1024)}
	go b.listen(out)
	r, err := b.next(ctx)
	if err == nil && !r.Ready {
		err = errors.New("its first line does not say so")
	}
	if err != nil {
		b.close()
		return nil, fmt.Errorf("the bare peer is not ready: %w", err)
	}
	return b, nil
}

// listen passes on the child's lines until it ends.
func (b *baseline) listen(out io.Reader) {
	defer close(b.reports)
	for sc := bufio.NewScanner(out); sc.Scan(); {
		var r report
		if json.Unmarshal(sc.Bytes(), &r) == nil {
			b.reports <- r
		}
	}
}

func (b *baseline) next(ctx context.Context) (report, error) {
	select {
	case r, ok := <-b.reports:
		if !ok {
			<-b.child.done
			return r, errors.Join(errors.New("the child is silent"), b.child.died())
		}
		return r, nil
	case <-ctx.Done():
		return report{}, ctx.Err()
	}
}

// publish sends the next message and answers when that began.
func (b *baseline) publish(ctx context.Context) (time.Time, error) {
	b.n++
	data := make([]byte, recordSize)
	rand.Read(data)
	binary.BigEndian.PutUint64(data, b.n)
	at := time.Now()
	return at, b.peer.Publish(ctx, data)
}

// meet publishes until the child hears it: the mesh has formed.
func (b *baseline) meet(ctx context.Context) error {
	for {
		if _, err := b.publish(ctx); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_, err := b.next(short)
		cancel()
		if err == nil || ctx.Err() != nil || short.Err() == nil {
			return err
		}
	}
}

// round is one message from publish to receipt.
func (b *baseline) round(ctx context.Context) (time.Duration, error) {
	at, err := b.publish(ctx)
	if err != nil {
		return 0, err
	}
	for {
		r, err := b.next(ctx)
		if err != nil {
			return 0, fmt.Errorf("message %d: %w", b.n, err)
		}
		if r.N == b.n { // else it is a late one of meet
			return time.Duration(r.At - at.UnixNano()), nil
		}
	}
}

func (b *baseline) close() {
	b.child.expect()
	b.stdin.Close()
	select {
	case <-b.child.done:
	case <-time.After(stopTime):
		b.child.kill()
	}
	b.peer.Close()
}

// GossipPeer is the child's side of the baseline: args is the address of the
// peer to connect to. It answers each message with a line on out, and ends
// when in does.
func GossipPeer(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("gossip-peer: want one argument, the multiaddr of the peer to listen to")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, in)
		cancel()
	}()
	b, err := gossip.NewBare(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Connect(ctx, args[0]); err != nil {
		return fmt.Errorf("gossip-peer: %w", err)
	}
	enc := json.NewEncoder(out)
	if err := enc.Encode(report{Ready: true}); err != nil {
		return err
	}
	for {
		data, at, err := b.Receive(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("gossip-peer: %w", err)
		}
		if len(data) < 8 {
			continue
		}
		if err := enc.Encode(report{N: binary.BigEndian.Uint64(data), At: at.UnixNano()}); err != nil {
			return err
		}
	}
}
