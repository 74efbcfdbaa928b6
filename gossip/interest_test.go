package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

func message(data []byte) *pb.Message { return &pb.Message{Data: data} }

func subs(on bool, topics ...string) []*pb.RPC_SubOpts {
	var out []*pb.RPC_SubOpts
	for _, t := range topics {
		out = append(out, &pb.RPC_SubOpts{Subscribe: &on, Topicid: &t})
	}
	return out
}

func TestInterestBounds(t *testing.T) {
	var refused atomic.Uint64
	i := newInterest(&refused)
	i.join("own")
	if !i.CanSubscribe("own") || i.CanSubscribe("other") {
		t.Error("own topics")
	}
	many := make([]string, maxSubscriptions+1)
	for k := range many {
		many[k] = fmt.Sprint(k)
	}
	if _, err := i.FilterIncomingSubscriptions("a", subs(true, many...)); !errors.Is(err, pubsub.ErrTooManySubscriptions) || refused.Load() != 1 {
		t.Errorf("one too many: %v", err)
	}
	if pass, err := i.FilterIncomingSubscriptions("a", subs(true, "x", "own")); err != nil || len(pass) != 1 || i.total != 0 {
		t.Errorf("of a peer without a stream: %d passed, %d noted", len(pass), i.total)
	}
	for p := range 40 {
		id := peer.ID(fmt.Sprint(p))
		i.opened(id, &tap{})
		for range 3 { // more than one peer may have noted
			for k := range many {
				many[k] = fmt.Sprint(p, " ", k, " ", i.total)
			}
			if pass, err := i.FilterIncomingSubscriptions(id, subs(true, many[1:]...)); err != nil || len(pass) != 0 {
				t.Fatalf("%d passed, %v", len(pass), err)
			}
		}
		if n := len(i.peers[id].topics); n > maxNoted {
			t.Errorf("%d noted of one peer", n)
		}
	}
	if i.total != maxNotedAll {
		t.Errorf("%d noted in all, want %d", i.total, maxNotedAll)
	}
	for p := range 40 {
		i.closed(peer.ID(fmt.Sprint(p)), &tap{}) // a stream that was replaced
	}
	if i.total != maxNotedAll {
		t.Error("the end of an old stream forgot a new one's")
	}
	for p := range 40 {
		id := peer.ID(fmt.Sprint(p))
		i.closed(id, i.peers[id].stream)
	}
	if i.total != 0 || len(i.peers) != 0 {
		t.Errorf("%d noted of nobody", i.total)
	}
}

func TestInterestNotes(t *testing.T) {
	i := newInterest(new(atomic.Uint64))
	s := &tap{Stream: &stream{}}
	i.opened("a", s)
	filter := func(subs []*pb.RPC_SubOpts) int {
		pass, err := i.FilterIncomingSubscriptions("a", subs)
		if err != nil {
			t.Fatal(err)
		}
		return len(pass)
	}
	if filter(subs(true, "x", "y", "x")) != 0 || i.total != 2 {
		t.Errorf("%d noted", i.total)
	}
	if filter(subs(false, "y", "z")) != 2 || i.total != 1 {
		t.Errorf("%d noted after the end of one", i.total)
	}
	if late := i.join("x"); len(late) != 1 || i.total != 0 || len(s.waiting) == 0 {
		t.Errorf("%d late, %d noted", len(late), i.total)
	}
	if filter(subs(true, "x")) != 1 {
		t.Error("an own topic did not pass")
	}
	i.leave("x")
	if filter(subs(true, "x")) != 0 || i.total != 1 || i.CanSubscribe("x") || len(i.join("x")) != 1 {
		t.Error("a topic that was left is as any other")
	}
}

// stream is a stream whose Read ends at a deadline, like those of libp2p.
type stream struct {
	network.Stream
	chunks   [][]byte // what each Read finds; nil: nothing until the deadline
	deadline bool
	onRead   func()
}

type timeout struct{}

var _ net.Error = timeout{}

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }
func (timeout) Error() string   { return "deadline" }

func (s *stream) SetReadDeadline(t time.Time) error {
	s.deadline = !t.IsZero()
	return nil
}

func (s *stream) Read(p []byte) (int, error) {
	if s.onRead != nil {
		s.onRead()
	}
	if s.deadline {
		return 0, timeout{}
	}
	if len(s.chunks) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.chunks[0])
	if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
		s.chunks = s.chunks[1:]
	}
	return n, nil
}

// However the stream is cut into reads and whenever something is put in, all
// messages arrive whole and in order, and those put in between them.
func TestTap(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var wire []byte
		var sent [][]byte
		for range rapid.IntRange(0, 6).Draw(r, "messages") {
			m := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(r, "message")
			sent = append(sent, m)
			wire = append(binary.AppendUvarint(wire, uint64(len(m))), m...)
		}
		s := &stream{}
		for len(wire) > 0 {
			n := rapid.IntRange(1, len(wire)).Draw(r, "chunk")
			s.chunks = append(s.chunks, wire[:n])
			wire = wire[n:]
		}
		tap := &tap{Stream: s}
		put := 0
		s.onRead = func() {
			if put < 3 && rapid.IntRange(0, 3).Draw(r, "put") == 0 {
				put++
				tap.subscribe(fmt.Sprint("topic ", put))
			}
		}
		size := rapid.IntRange(1, 400).Draw(r, "buffer")
		var got []byte
		for {
			b := make([]byte, size)
			n, err := tap.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					r.Fatal(err)
				}
				break
			}
		}
		news := 0
		for len(got) > 0 {
			n, k := binary.Uvarint(got)
			if k <= 0 || uint64(len(got)-k) < n {
				r.Fatalf("a message is cut: %d of %d bytes", len(got)-k, n)
			}
			m := got[k : k+int(n)]
			got = got[k+int(n):]
			var rpc pb.RPC
			if len(sent) > 0 && bytes.Equal(m, sent[0]) {
				sent = sent[1:]
			} else if rpc.Unmarshal(m) == nil && rpc.Subscriptions[0].GetTopicid() == fmt.Sprint("topic ", news+1) {
				news++
			} else {
				r.Fatalf("strange message of %d bytes", n)
			}
		}
		if len(sent) > 0 || news != put {
			r.Fatalf("%d messages missing, %d of %d put in", len(sent), news, put)
		}
	})
}

// Errors that are not the tap's own doing reach pubsub.
func TestTapErrors(t *testing.T) {
	s := &stream{deadline: true}
	if _, err := (&tap{Stream: s}).Read(make([]byte, 9)); !errors.Is(err, timeout{}) {
		t.Error("another's deadline was swallowed")
	}
	s = &stream{}
	if _, err := (&tap{Stream: s}).Read(make([]byte, 9)); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want EOF", err)
	}
}
