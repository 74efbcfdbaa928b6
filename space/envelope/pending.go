package envelope

import (
	"cmp"
	"slices"
)

// Caps of what waits for a gap to close. A run over a cap is not kept: sync
// brings it again.
const (
	// Window is how far beyond a chain's head a run may begin and be kept.
	Window = 256
	// MaxPendingChain is the most bytes kept for one chain.
	MaxPendingChain = 1 << 20
	// MaxPendingWriter is the most bytes kept for one writer key; all chains
	// that are not certified yet count as one writer's.
	MaxPendingWriter = 8 << 20
	// MaxUnknown is how many chains that are not certified may have runs kept;
	// one more displaces the oldest.
	MaxUnknown = 64
)

// nobody stands for the writer of all chains that are not certified yet.
var nobody [32]byte

// pending holds covered runs that begin beyond their chain's prefix. Every
// piece ends in an envelope whose signature was checked, and only whole pieces
// are taken from it, so whatever enters a prefix ends in a good signature.
type pending struct {
	chains  map[ChainID]*waiting
	writers map[[32]byte]int // bytes kept
	unknown []ChainID        // kept for nobody, oldest first
}

type waiting struct {
	writer [32]byte
	bytes  int
	pieces []piece // by first sequence
}

type piece struct {
	run   []Envelope
	bytes int
}

func (p piece) first() uint64 { return p.run[0].Seq() }
func (p piece) last() uint64  { return p.run[len(p.run)-1].Seq() }

// holds reports whether q's envelopes are all among p's.
func (p piece) holds(q piece) bool {
	if q.first() < p.first() || q.last() > p.last() {
		return false
	}
	return p.run[q.last()-p.first()].id == q.run[len(q.run)-1].id
}

// keep stores a covered run that begins at or below head+Window, and reports
// whether it, or all of it, is now kept.
func (p *pending) keep(chain ChainID, writer [32]byte, run []Envelope) bool {
	next := piece{run: run, bytes: runBytes(run)}
	w := p.chains[chain]
	if w != nil && slices.ContainsFunc(w.pieces, func(q piece) bool { return q.holds(next) }) {
		return true
	}
	if (w != nil && w.bytes+next.bytes > MaxPendingChain) || next.bytes > MaxPendingChain ||
		p.writers[writer]+next.bytes > MaxPendingWriter {
		return false
	}
	if w == nil {
		w = p.open(chain, writer)
	}
	w.pieces = slices.DeleteFunc(w.pieces, func(q piece) bool {
		if !next.holds(q) {
			return false
		}
		p.charge(w, -q.bytes)
		return true
	})
	at, _ := slices.BinarySearchFunc(w.pieces, next.first(), func(q piece, first uint64) int {
		return cmp.Compare(q.first(), first)
	})
	next.run = compact(run, next.bytes)
	w.pieces = slices.Insert(w.pieces, at, next)
	p.charge(w, next.bytes)
	return true
}

// compact copies a run of so many bytes, so that what waits does not hold on
// to the larger buffers it came in.
func compact(run []Envelope, bytes int) []Envelope {
	b := make([]byte, 0, bytes)
	out := make([]Envelope, len(run))
	for i := range run {
		at := len(b)
		b = append(b, run[i].raw...)
		out[i] = Envelope{raw: b[at:len(b):len(b)], id: run[i].id}
	}
	return out
}

func (p *pending) open(chain ChainID, writer [32]byte) *waiting {
	if p.chains == nil {
		p.chains = make(map[ChainID]*waiting)
		p.writers = make(map[[32]byte]int)
	}
	if writer == nobody {
		if len(p.unknown) == MaxUnknown {
			p.drop(p.unknown[0])
		}
		p.unknown = append(p.unknown, chain)
	}
	w := &waiting{writer: writer}
	p.chains[chain] = w
	return w
}

func (p *pending) charge(w *waiting, bytes int) {
	w.bytes += bytes
	if p.writers[w.writer] += bytes; p.writers[w.writer] == 0 {
		delete(p.writers, w.writer)
	}
}

// drop forgets what is kept for a chain.
func (p *pending) drop(chain ChainID) {
	w := p.chains[chain]
	if w == nil {
		return
	}
	p.charge(w, -w.bytes)
	delete(p.chains, chain)
	if w.writer == nobody {
		p.unknown = slices.DeleteFunc(p.unknown, func(c ChainID) bool { return c == chain })
	}
}

// take removes a piece that was handed out.
func (p *pending) take(chain ChainID, run []Envelope) {
	w := p.chains[chain]
	if w == nil {
		return
	}
	w.pieces = slices.DeleteFunc(w.pieces, func(q piece) bool {
		if &q.run[0] != &run[0] {
			return false
		}
		p.charge(w, -q.bytes)
		return true
	})
	if len(w.pieces) == 0 {
		p.drop(chain)
	}
}

// settle is told how a certified chain now stands: what lies below its end or
// beyond a fork goes, what lies between counts as its writer's.
func (p *pending) settle(c *Chain) {
	w := p.chains[c.ID]
	if w == nil {
		return
	}
	pieces := w.pieces
	p.drop(c.ID)
	for _, q := range pieces {
		if q.last() >= c.Length && (!c.Forked || q.first() < c.Fork) {
			p.keep(c.ID, c.Cert.WriterKey(), q.run)
		}
	}
}

// extend appends to a run the pieces that continue it and returns it, and the
// pieces that would have to and do not.
func (p *pending) extend(chain ChainID, run []Envelope) (_ []Envelope, left [][]Envelope) {
	w := p.chains[chain]
	if w == nil {
		return run, nil
	}
	for _, q := range w.pieces {
		head := run[len(run)-1].Head()
		if q.first() > head.Seq+1 {
			break
		}
		if !q.follows(head, run) {
			left = append(left, q.run)
		} else if q.last() > head.Seq {
			run = append(run, q.run[head.Seq+1-q.first():]...)
		}
	}
	return run, left
}

// follows reports whether p agrees with the chain that ends at head, of which
// run is the newest part. A piece that was kept reaches beyond what was the
// head then, so where it ends below head its last envelope's place is in run.
func (p piece) follows(head Head, run []Envelope) bool {
	switch {
	case p.first() == head.Seq+1:
		return p.run[0].Prev() == head.ID
	case p.last() >= head.Seq:
		return p.run[head.Seq-p.first()].id == head.ID
	}
	at := p.last() - run[0].Seq()
	return at < uint64(len(run)) && run[at].id == p.run[len(p.run)-1].id
}
