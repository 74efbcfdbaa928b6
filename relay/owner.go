package relay

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/reconcile"
)

const (
	// inboxSize is how much waits for an owner before who hands it in has to.
	inboxSize = 1024
	// stepSize is how much an owner takes at once.
	stepSize = 512
)

// owner changes the topics that fall to it. It is one goroutine.
type owner struct {
	inbox chan work
	batch []work
}

// work is something to do to a topic: to take what came, or to call do.
type work struct {
	t    *topic
	what delivery
	do   func()
}

// delivery is a run, or the proof of a fork, on its way into a topic.
type delivery struct {
	from  peer.ID // "": nobody to ask
	cert  *envelope.Certificate
	run   []envelope.Envelope
	fork  *envelope.Fork
	reply chan<- taken // buffered; nil: nobody waits
}

// taken is what became of a delivery.
type taken struct {
	reconcile.Delivered
	err error
}

// run serves the inbox until ctx ends.
func (o *owner) run(ctx context.Context) {
	for {
		select {
		case w := <-o.inbox:
			o.batch = o.gather(append(o.batch[:0], w))
			o.step()
		case <-ctx.Done():
			return
		}
	}
}

// gather takes what else waits.
func (o *owner) gather(batch []work) []work {
	for len(batch) < stepSize {
		select {
		case w := <-o.inbox:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// step does what was gathered. Single frames that continue each other, which is
// how a busy chain arrives, are taken as the one run they are: one row on disk
// in the place of hundreds. Work that somebody waits for keeps its place behind
// all that came before it.
func (o *owner) step() {
	var open []*work // runs that may still grow, each of another chain
	flush := func() {
		for _, w := range open {
			w.t.settle(w.what)
		}
		open = open[:0]
	}
	at := make(map[envelope.ChainID]*work)
	for i := range o.batch {
		w := &o.batch[i]
		if w.do != nil || w.what.reply != nil || w.what.fork != nil {
			flush()
			clear(at)
			if w.do != nil {
				w.do()
			} else {
				w.t.settle(w.what)
			}
			continue
		}
		chain := w.what.run[0].Chain()
		if before := at[chain]; before != nil && before.t == w.t && before.what.joins(&w.what) {
			continue
		}
		at[chain] = w
		open = append(open, w)
	}
	flush()
	clear(o.batch)
}

// joins appends the run of next if it continues this one and both fit.
func (d *delivery) joins(next *delivery) bool {
	last := d.run[len(d.run)-1]
	first := next.run[0]
	if next.cert != nil || first.Seq() != last.Seq()+1 || first.Prev() != last.ID() ||
		len(d.run)+len(next.run) > envelope.MaxRun/2 {
		return false
	}
	d.run = append(d.run[:len(d.run):cap(d.run)], next.run...)
	return true
}

// hand gives work to the owner of a topic. False: ctx or the relay ended.
func (t *topic) hand(ctx context.Context, w work) bool {
	w.t = t
	select {
	case t.owner.inbox <- w:
		return true
	case <-ctx.Done():
	case <-t.relay.ctx.Done():
	}
	return false
}

// deliver hands in a run and waits until it is taken or refused.
func (t *topic) deliver(ctx context.Context, d delivery) (reconcile.Delivered, error) {
	reply := make(chan taken, 1)
	d.reply = reply
	if !t.hand(ctx, work{what: d}) {
		return reconcile.Delivered{}, context.Canceled
	}
	select {
	case r := <-reply:
		return r.Delivered, r.err
	case <-t.relay.ctx.Done():
		return reconcile.Delivered{}, context.Canceled
	}
}

// call has the owner run f and waits.
func (t *topic) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if !t.hand(ctx, work{do: func() { defer close(done); f() }}) {
		return context.Canceled
	}
	select {
	case <-done:
		return nil
	case <-t.relay.ctx.Done():
		return context.Canceled
	}
}
