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
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"
)

// streamRate is how many bytes a second are read from one neighbour, and twice
// that at once. Who sends more is read more slowly.
const streamRate = 64 << 20

// errShunned ends a stream of a peer that is not listened to.
var errShunned = errors.New("peer is shunned for its faults")

// tapped is a host whose inbound pubsub streams are taps.
type tapped struct {
	host.Host
	interest *interest
	conduct  *conduct
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
		p, now := s.Conn().RemotePeer(), time.Now()
		if h.conduct.shunned(p, now) || !h.conduct.opens(p, now) {
			s.Reset()
			return
		}
		t := &tap{Stream: s, watch: &watch{peer: p, conduct: h.conduct, pace: rate.NewLimiter(streamRate, 2*streamRate)}}
		h.interest.opened(p, t)
		defer h.interest.closed(p, t)
		f(t)
	}
}

// watch keeps an eye on what a peer sends.
type watch struct {
	peer    peer.ID
	conduct *conduct
	pace    *rate.Limiter
}

// read is told of bytes that were read, and of the longest message that they
// announce. It waits if they came too fast.
func (w *watch) read(n int, longest uint64) {
	now := time.Now()
	if longest > maxMessage { // pubsub will refuse it
		w.conduct.blame(w.peer, 1, now)
	}
	if d := w.pace.ReserveN(now, n).DelayFrom(now); d > 0 {
		<-time.After(d)
	}
}

// past is a read deadline that makes a waiting Read return at once.
var past = time.Unix(1, 0)

// tap is an inbound pubsub stream into which messages can be put, between
// those that its peer sends. pubsub sets no deadlines on these streams, so the
// read deadline is free to wake the reader.
type tap struct {
	network.Stream
	watch *watch // nil in tests

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
			if t.watch != nil && t.watch.conduct.shunned(t.watch.peer, time.Now()) {
				return 0, errShunned // pubsub resets the stream
			}
			t.out = t.take()
		}
		if len(t.out) > 0 {
			n := copy(p, t.out)
			t.out = t.out[n:]
			return n, nil
		}
		n, err := t.Stream.Read(p)
		longest := t.at.advance(p[:n])
		if t.watch != nil {
			t.watch.read(n, longest)
		}
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

// advance returns the longest length that it met.
func (b *boundary) advance(p []byte) (longest uint64) {
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
			longest = max(longest, b.length)
			*b = boundary{left: b.length}
		}
		p = p[1:]
	}
	return longest
}
