package gossip

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
)

// maxHandover is the most bytes that wait for a topic's receiver.
const maxHandover = 8 << 20

// handover is the queue between the judge and the receiver of one topic. Its
// goroutine runs only while something waits, so an idle topic costs none.
type handover struct {
	deliver  func(peer.ID, envelope.Frame)
	joined   func(peer.ID)
	limit    int
	counters *Counters

	// mu guards what follows.
	mu      sync.Mutex
	items   []handed
	frames  int
	bytes   int
	running bool
	closed  bool
}

// handed is a delivery, or news of a peer.
type handed struct {
	Delivery
	news bool
	size int
}

func (h *handover) frame(d Delivery) {
	size := 0
	for _, e := range d.Frame.Run {
		size += e.Len()
	}
	if d.Frame.Fork != nil {
		size = d.Frame.Fork.Len()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.frames >= h.limit || h.bytes+size > maxHandover {
		h.counters.Dropped.Add(1)
		return
	}
	h.frames++
	h.bytes += size
	h.push(handed{Delivery: d, size: size})
}

// peer announces a peer, once if it is announced again before it is handed over.
func (h *handover) peer(p peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.items {
		if it.news && it.From == p {
			return
		}
	}
	h.push(handed{Delivery: Delivery{From: p}, news: true})
}

// push needs the lock.
func (h *handover) push(it handed) {
	if h.closed {
		return
	}
	h.items = append(h.items, it)
	if !h.running {
		h.running = true
		go h.run()
	}
}

func (h *handover) run() {
	for {
		h.mu.Lock()
		if len(h.items) == 0 {
			h.running = false
			h.items = nil
			h.mu.Unlock()
			return
		}
		it := h.items[0]
		h.items[0] = handed{}
		h.items = h.items[1:]
		if !it.news {
			h.frames--
			h.bytes -= it.size
		}
		h.mu.Unlock()
		if it.news {
			h.joined(it.From)
			continue
		}
		h.counters.Delivered.Add(1)
		h.deliver(it.From, it.Frame)
	}
}

// close drops what waits. A callback that runs meanwhile goes on to its end.
func (h *handover) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.items = nil
	h.frames, h.bytes = 0, 0
}
