package gossip

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// tapped is a host whose inbound pubsub streams are taps.
type tapped struct {
	host.Host
	interest *interest
}

func (h tapped) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(id, h.tap(f))
}

func (h tapped) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, f network.StreamHandler) {
	h.Host.SetStreamHandlerMatch(id, match, h.tap(f))
}

// tap relies on pubsub's handler to return when the stream has ended.
func (h tapped) tap(f network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		t := &tap{Stream: s}
		p := s.Conn().RemotePeer()
		h.interest.opened(p, t)
		defer h.interest.closed(p, t)
		f(t)
	}
}

// past is a read deadline that makes a waiting Read return at once.
var past = time.Unix(1, 0)

// tap is an inbound pubsub stream into which messages can be put, between
// those that its peer sends. pubsub sets no deadlines on these streams, so the
// read deadline is free to wake the reader.
type tap struct {
	network.Stream

	// Of the reading goroutine alone.
	at  boundary
	out []byte // put in, and not read yet

	// mu guards what follows.
	mu      sync.Mutex
	waiting []byte
	woken   bool // the deadline is set
}

// subscribe puts in the announcement that the peer is in a topic.
func (t *tap) subscribe(topic string) {
	yes := true
	rpc := pb.RPC{Subscriptions: []*pb.RPC_SubOpts{{Subscribe: &yes, Topicid: &topic}}}
	b, err := rpc.Marshal()
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(binary.AppendUvarint(t.waiting, uint64(len(b))), b...)
	t.woken = t.SetReadDeadline(past) == nil
}

// Read reads what the peer sends, and between its messages what was put in.
func (t *tap) Read(p []byte) (int, error) {
	for {
		if len(t.out) == 0 && t.at == (boundary{}) {
			t.out = t.take()
		}
		if len(t.out) > 0 {
			n := copy(p, t.out)
			t.out = t.out[n:]
			return n, nil
		}
		n, err := t.Stream.Read(p)
		t.at.advance(p[:n])
		if err == nil || !t.wokenBy(err) {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (t *tap) take() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.waiting
	t.waiting = nil
	return b
}

// wokenBy reports whether an error is only the deadline, and takes that away.
func (t *tap) wokenBy(err error) bool {
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.woken {
		return false
	}
	t.woken = false
	return t.SetReadDeadline(time.Time{}) == nil
}

// boundary follows messages, each behind its length as a varint. It is zero
// between two of them.
type boundary struct {
	left   uint64 // bytes of the message still to come
	length uint64 // what is read of its length so far
	shift  uint
}

func (b *boundary) advance(p []byte) {
	for len(p) > 0 {
		if b.left > 0 {
			n := min(b.left, uint64(len(p)))
			b.left -= n
			p = p[n:]
			continue
		}
		b.length |= uint64(p[0]&0x7f) << b.shift
		if p[0]&0x80 != 0 {
			b.shift += 7
		} else {
			*b = boundary{left: b.length}
		}
		p = p[1:]
	}
}
