package node

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/sync/lthash"
	"github.com/kithnet/kith/sync/reconcile"
)

var _ lthash.Spread = inParallel

// inParallel runs f(0) to f(n-1) on all processors and returns when all have.
func inParallel(n int, f func(i int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers < 2 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// depth is how much of a catch-up is under way at once.
type depth struct {
	group  int // bytes of runs of one chain that are taken as one: checked by the last signature, stored in one batch
	ahead  int // groups that are prepared while one is stored
	flight int // runs of a stream on their way to their space
}

// A space begins gently to take in what it missed: mostly that is little, and
// needs half the memory so. After gentleBytes it goes as deep as it takes to keep
// all processors busy.
var (
	gentleDepth = depth{group: 96 << 10, ahead: 1, flight: 6}
	fullDepth   = depth{group: 256 << 10, ahead: 2, flight: 16}
)

const gentleBytes = 8 << 20

func (a *actor) depth() depth {
	if a.caughtUp.Load() < gentleBytes {
		return gentleDepth
	}
	return fullDepth
}

// largeRun is how many bytes are worth to be opened ahead, however few entries
// they are.
const largeRun = 32 << 10

// runGroup is runs of one chain that follow each other, on their way into the
// space. What can be computed without it is, while the group before is stored.
type runGroup struct {
	runs []*runIn
	all  *runIn // as one, a copy; nil if it is only one and nothing is done ahead
	size int
	done chan struct{} // closed when the whole is prepared
}

// gather takes from the inbox the runs that go on where m ends, which was the
// last one taken. met is another message that it met on the way, to be handled
// next; nil: none.
func (a *actor) gather(m *runIn) (g *runGroup, met message) {
	g = &runGroup{runs: []*runIn{m}, size: runBytes(m.run)}
	n, most := len(m.run), a.depth().group
	for m.fork == nil && n > 0 && g.size < most && met == nil {
		next, ok := a.inbox.take()
		if !ok {
			break
		}
		r, ok := next.(*runIn)
		if !ok || !r.follows(g.runs[len(g.runs)-1]) || n+len(r.run) > envelope.MaxRun {
			met = next
			break
		}
		g.runs = append(g.runs, r)
		g.size, n = g.size+runBytes(r.run), n+len(r.run)
	}
	if len(g.runs) > 1 {
		all := *m
		all.run = make([]envelope.Envelope, 0, n)
		for _, m := range g.runs {
			all.run = append(all.run, m.run...)
		}
		g.all = &all
	}
	a.caughtUp.Add(int64(g.size))
	return g, met
}

// lookAhead prepares the groups that come next. What was taken for it waits:
// groups, and behind them at most one message of another kind.
func (a *actor) lookAhead() {
	for i := range a.depth().ahead {
		var m message
		switch n := len(a.taken); {
		case i < n-1:
			continue
		case i == n-1:
			if m = a.taken[i]; groupOf(m) != nil {
				continue
			}
			a.taken = a.taken[:i]
		default:
			var ok bool
			if m, ok = a.inbox.take(); !ok {
				return
			}
		}
		r, ok := m.(*runIn)
		if !ok || r.begins() {
			a.taken = append(a.taken, m)
			return
		}
		g, met := a.gather(r)
		a.prepare(g)
		if a.taken = append(a.taken, g); met != nil {
			a.taken = append(a.taken, met)
		}
	}
}

func groupOf(m message) *runGroup {
	g, _ := m.(*runGroup)
	return g
}

// begins reports whether the run is the beginning of a chain.
func (m *runIn) begins() bool { return len(m.run) > 0 && m.run[0].Seq() == 0 }

// whole is the group as one run.
func (g *runGroup) whole() *runIn {
	if g.all != nil {
		return g.all
	}
	return g.runs[0]
}

// prepare hashes the group, opens its entries and seals what they will make,
// beside what the actor does.
func (a *actor) prepare(g *runGroup) {
	g.done = make(chan struct{})
	m := g.whole()
	if len(m.run) < 2*openShare && g.size < largeRun || m.fork != nil {
		close(g.done)
		return
	}
	if g.all == nil { // whoever handed it in still looks at it
		all := *m
		all.run = slices.Clone(m.run)
		m, g.all = &all, &all
	}
	var openers func() *seal.Opener
	s := &sealer{store: a.store}
	if ch := a.chains[m.run[0].Chain()]; ch != nil && ch.reader != nil && ch.epoch.id == m.topic {
		openers, s.author, s.device = ch.reader.Openers(), ch.author, ch.device
	}
	go func() {
		defer close(g.done)
		m.sum = envelope.SumRun(m.run, inParallel) // notes in the run what is verified
		var wg sync.WaitGroup
		wg.Go(func() { m.sealed, _ = a.store.SealRun(m.run) }) // nil: sealed in its turn
		m.ahead = openAhead(openers, m.run, s)
		wg.Wait()
	}()
}

// sealer seals the rows of records that entries of an author's chain make, if
// nothing stands in their way.
type sealer struct {
	store  *store.Space
	author space.DID
	device identity.DeviceID
}

// seal gives the opened entries of a part of a run their rows.
func (s *sealer) seal(part []opened, envs []envelope.Envelope) {
	n := 0
	for i := range part {
		n += len(part[i].batch.Ops)
	}
	if s == nil || s.author == "" || n == 0 {
		return
	}
	rows := rowsOf[store.RecordRow](&recordRows, n)
	for i := range part {
		b := &part[i].batch
		stamp := space.Stamp{Rev: b.Rev, Device: s.device, Entry: envs[i].ID()}
		for j := range b.Ops {
			op := &b.Ops[j]
			rows = append(rows, recordRow(s.author, op.Path, op.Sum, stamp, op.Value))
		}
	}
	if s.store.SealRecords(rows) != nil {
		return // sealed in their turn
	}
	part[0].share = rows
	for i := range part {
		n := len(part[i].batch.Ops)
		part[i].rows, rows = rows[:n:n], rows[n:]
	}
}

// Memory of what is committed, to be used again: a member that catches up would
// else take as much as it gets several times over.
var (
	openedEntries sync.Pool // *[]opened
	plaintexts    sync.Pool // *[]byte
	allPuts       = sync.Pool{New: func() any { return new(space.Puts) }}
	recordRows    sync.Pool // *[]store.RecordRow
	opRows        sync.Pool // *[]store.OpRow
)

// rowsOf gives empty rows with room for n.
func rowsOf[R any](pool *sync.Pool, n int) []R {
	if rows, ok := pool.Get().(*[]R); ok {
		return slices.Grow(*rows, n)
	}
	return make([]R, 0, n)
}

// reuse takes back rows that nobody looks at any more.
func reuse[R any](pool *sync.Pool, rows []R) {
	if cap(rows) == 0 {
		return
	}
	clear(rows)
	rows = rows[:0]
	pool.Put(&rows)
}

// free gives back the memory of what was done ahead and is committed. Nobody may
// look at the values of its records any more.
func (m *runIn) free() {
	for i := range m.ahead {
		reuse(&recordRows, m.ahead[i].share)
		reuse(&plaintexts, m.ahead[i].room[:cap(m.ahead[i].room)])
		if puts := m.ahead[i].puts; puts != nil {
			*puts = space.Puts{}
			allPuts.Put(puts)
		}
	}
	reuse(&openedEntries, m.ahead)
	m.ahead = nil
}

func (g *runGroup) handle(a *actor) {
	if g.done == nil {
		a.prepare(g)
	}
	a.lookAhead()
	<-g.done
	if !a.takeOff(g) {
		a.touchDown()
		a.ingestGroup(g)
	}
}

// follows reports whether m goes on where p ends.
func (m *runIn) follows(p *runIn) bool {
	last := p.run[len(p.run)-1]
	return m.fork == nil && m.cert == nil && m.topic == p.topic && m.from == p.from && len(m.run) > 0 &&
		m.run[0].Chain() == last.Chain() && m.run[0].Seq() == last.Seq()+1 && m.run[0].Prev() == last.ID()
}

func runBytes(run []envelope.Envelope) (n int) {
	for i := range run {
		n += run[i].Len()
	}
	return n
}

// ingestGroup takes the runs as one; or each by itself, if that does not do:
// the first may be good.
func (a *actor) ingestGroup(g *runGroup) {
	if g.all != nil {
		if added, err := a.ingest(g.all); err == nil {
			for _, m := range g.runs {
				m.answer(added, nil)
			}
			return
		}
	}
	for _, m := range g.runs {
		added, err := a.ingest(m)
		m.answer(added, err)
	}
}

// answer tells how many envelopes of the run were new.
func (m *runIn) answer(added []envelope.Envelope, err error) {
	if m.reply == nil {
		return
	}
	got := ingested{err: err}
	if err == nil {
		got.accepted = m.begun
	}
	if len(added) > 0 {
		for i := range m.run {
			if m.run[i].Seq() >= added[0].Seq() {
				got.accepted++
			}
		}
	}
	m.reply <- got
}

// opened is an entry that was opened and decoded before its turn.
type opened struct {
	seal.Opened
	whole bool // batch and err are of it
	batch space.Batch
	err   error
	rows  []store.RecordRow // of the batch's ops, sealed

	// Of the first of a part, for all of it.
	share []store.RecordRow
	puts  *space.Puts
	room  []byte // the plaintext is in it
}

const openShare = 16 // entries that are worth a goroutine

// openAhead opens the entries of a chain at once, and seals the rows they make
// unless s is nil; nil if it is not worth it.
func openAhead(openers func() *seal.Opener, envs []envelope.Envelope, s *sealer) []opened {
	parts := min(len(envs)/openShare, 4*runtime.GOMAXPROCS(0))
	if runBytes(envs) > largeRun {
		parts = min(len(envs), 4*runtime.GOMAXPROCS(0)) // few and large
	}
	if parts < 2 || openers == nil {
		return nil
	}
	out := rowsOf[opened](&openedEntries, len(envs))[:len(envs)]
	inParallel(parts, func(p int) {
		from, to := p*len(envs)/parts, (p+1)*len(envs)/parts
		part, run := out[from:to], envs[from:to]
		o, puts, room := openers(), allPuts.Get().(*space.Puts), rowsOf[byte](&plaintexts, runBytes(run))
		o.Use(room)
		for i := range run {
			if run[i].Type() == envelope.Entry {
				part[i] = open(o, run[i], puts)
			}
		}
		part[0].puts, part[0].room = puts, room
		s.seal(part, run)
	})
	return out
}

func open(opener *seal.Opener, e envelope.Envelope, puts *space.Puts) opened {
	o := opened{Opened: opener.Open(e)}
	body, whole := o.Whole()
	if !whole {
		return o
	}
	o.whole = true
	if o.batch, o.err = space.DecodeBatch(body); o.err == nil {
		o.batch.Sum()
		puts.Take(&o.batch)
	}
	return o
}

// decoded is the batch of a body: this entry's, or of parts that it completes.
func (o *opened) decoded(body []byte) (space.Batch, error) {
	if whole, ok := o.Whole(); ok && o.whole && len(whole) == len(body) && &whole[0] == &body[0] {
		return o.batch, o.err
	}
	return space.DecodeBatch(body)
}

var _ reconcile.Pipe = (*replica)(nil)

// Submit hands a run to the space.
func (r *replica) Submit(cert *envelope.Certificate, run []envelope.Envelope) {
	if len(r.flight) >= r.a.depth().flight {
		r.land()
	}
	m := &runIn{topic: r.e.id, from: r.with, cert: cert, run: run, reply: make(chan ingested, 1)}
	if err := r.a.send(r.ctx, m); err != nil {
		m.reply <- ingested{err: err}
	}
	r.flight = append(r.flight, m)
}

// Outcomes says what became of runs.
func (r *replica) Outcomes(all bool) []reconcile.Outcome {
	for len(r.flight) > 0 && (all || len(r.flight[0].reply) > 0) {
		r.land()
	}
	out := r.landed
	r.landed = nil
	return out
}

// land waits for the answer to the first run under way.
func (r *replica) land() {
	m := r.flight[0]
	r.flight = slices.Delete(r.flight, 0, 1)
	var got ingested
	select {
	case got = <-m.reply:
	case <-r.a.ended:
		got.err = space.ErrUnavailable
	case <-r.ctx.Done():
		got.err = r.ctx.Err()
	}
	r.landed = append(r.landed, reconcile.Outcome{
		Delivered: reconcile.Delivered{Accepted: got.accepted, Duplicate: max(0, len(m.run)-got.accepted)}, Err: got.err,
	})
}
