package gossip

import (
	"cmp"
	"container/list"
	"slices"
	"time"

	"github.com/kithnet/kith/space/envelope"
)

// Bounds of what waits for the certificate of its chain.
const (
	parkTime      = 30 * time.Second
	maxParked     = 64        // frames for a neighbour in a topic
	maxParkedSize = 256 << 10 // bytes for a neighbour in a topic
	maxParkedAll  = 16 << 20  // bytes in all
)

// parking holds frames of chains that are not certified yet. The zero value is
// empty.
type parking struct {
	line   list.List // of *parked, oldest first
	chains map[chainKey][]*list.Element
	places map[place]parkedAt
	bytes  int
}

type parked struct {
	Delivery
	at    time.Time
	size  int
	place place
	chain chainKey

	settled chan Verdict // takes one without a reader
}

type parkedAt struct{ frames, bytes int }

// add is nil if no more fits.
func (p *parking) add(at place, f envelope.Frame, size int, now time.Time) <-chan Verdict {
	used := p.places[at]
	if used.frames == maxParked || used.bytes+size > maxParkedSize || p.bytes+size > maxParkedAll {
		return nil
	}
	if p.chains == nil {
		p.chains = make(map[chainKey][]*list.Element)
		p.places = make(map[place]parkedAt)
	}
	k := chainKey{at.topic, f.Chain()}
	settled := make(chan Verdict, 1)
	e := p.line.PushBack(&parked{Delivery{at.from, f}, now, size, at, k, settled})
	p.chains[k] = append(p.chains[k], e)
	p.places[at] = parkedAt{used.frames + 1, used.bytes + size}
	p.bytes += size
	return settled
}

func (p *parking) remove(e *list.Element) *parked {
	it := p.line.Remove(e).(*parked)
	used := p.places[it.place]
	if used = (parkedAt{used.frames - 1, used.bytes - it.size}); used.frames == 0 {
		delete(p.places, it.place)
	} else {
		p.places[it.place] = used
	}
	p.bytes -= it.size
	of := slices.DeleteFunc(p.chains[it.chain], func(o *list.Element) bool { return o == e })
	if len(of) == 0 {
		delete(p.chains, it.chain)
	} else {
		p.chains[it.chain] = of
	}
	return it
}

// take removes the frames of a chain and returns them by first sequence.
func (p *parking) take(k chainKey) []*parked {
	var out []*parked
	for _, e := range slices.Clone(p.chains[k]) {
		out = append(out, p.remove(e))
	}
	slices.SortStableFunc(out, func(a, b *parked) int { return cmp.Compare(a.Frame.Run[0].Seq(), b.Frame.Run[0].Seq()) })
	return out
}

// expire removes what has waited too long and returns how much it was.
func (p *parking) expire(now time.Time) (n uint64) {
	for e := p.line.Front(); e != nil && now.Sub(e.Value.(*parked).at) >= parkTime; e = p.line.Front() {
		close(p.remove(e).settled)
		n++
	}
	return n
}

func (p *parking) forget(topic envelope.TopicID) {
	for k := range p.chains {
		if k.topic == topic {
			for _, it := range p.take(k) {
				close(it.settled)
			}
		}
	}
}

func (j *Judge) park(at place, f envelope.Frame, size int, now time.Time) <-chan Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.parking.add(at, f, size, now)
}

// sweep needs the lock.
func (j *Judge) sweep(now time.Time) {
	if n := j.parking.expire(now); n > 0 {
		j.Counters.ParkExpired.Add(n)
	}
}

// release judges the frames that waited for a chain which is now certified,
// and hands over what is authentic.
func (j *Judge) release(topic envelope.TopicID, replica Replica, chain envelope.ChainID, now time.Time) []Delivery {
	j.mu.Lock()
	j.sweep(now)
	waited := j.parking.take(chainKey{topic, chain})
	j.mu.Unlock()
	var out []Delivery
	for _, it := range waited {
		var ruling Ruling
		if v := j.view(topic, replica, chain); !v.holds(it.Frame.Last()) {
			ruling = j.authentic(v, it.Delivery, now)
		}
		if ruling.Verdict == Reject {
			j.blame(it.From, now)
		}
		it.settled <- ruling.Verdict
		close(it.settled)
		j.Counters.ParkReleased.Add(1)
		out = append(out, ruling.Deliver...)
	}
	return out
}
