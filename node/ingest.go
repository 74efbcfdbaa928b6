package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// runIn is a run of envelopes from a peer, by gossip or by reconciliation:
// there is one way in and one set of rules.
type runIn struct {
	topic envelope.TopicID
	from  peer.ID
	cert  *envelope.Certificate
	run   []envelope.Envelope
	fork  *envelope.Fork // set: a proof in the place of a run

	// What was done ahead of run's turn, if it was.
	sum    *envelope.Sum
	ahead  []opened
	sealed *store.SealedRun

	begun int           // envelopes before run that were taken already
	reply chan ingested // buffered; nil: nobody waits
}

type ingested struct {
	accepted int // envelopes that were new
	err      error
}

func (m *runIn) handle(a *actor) {
	a.beginWith(m)
	g, met := a.gather(m)
	if met != nil {
		a.taken = append(a.taken, met)
	}
	g.handle(a)
}

// beginWith takes the first envelope of a run that begins a chain by itself: once
// the hello is read, the rest can be opened ahead of its turn.
func (a *actor) beginWith(m *runIn) {
	if m.fork != nil || !m.begins() || len(m.run) < 2*openShare || a.chains[m.run[0].Chain()] != nil {
		return
	}
	a.touchDown()
	first := *m
	first.run = m.run[:1:1]
	if _, err := a.ingest(&first); err != nil {
		return // the whole may be good still: a later signature covers the first
	}
	m.cert, m.run, m.begun = nil, m.run[1:], 1
}

// deliver hands a run in and waits until it is applied or refused.
func (a *actor) deliver(ctx context.Context, m *runIn) (int, error) {
	m.reply = make(chan ingested, 1)
	r, err := ask(ctx, a, m, m.reply)
	if err != nil {
		return 0, err
	}
	return r.accepted, r.err
}

// ingest accepts what the keyless rules accept, opens what our keys open, and
// commits both in one batch. What cannot be opened yet stays accepted: it is
// materialised when the control log or the clock allows.
func (a *actor) ingest(m *runIn) (added []envelope.Envelope, err error) {
	if a.broken != nil {
		a.miss(m.from)
		return nil, a.broken
	}
	e := a.epochs[m.topic]
	if e == nil {
		return nil, space.ErrSpaceNotFound
	}
	if m.fork != nil {
		return nil, a.prove(e, m)
	}
	adv, err := e.topic.CheckSummed(m.cert, m.run, m.sum)
	if errors.Is(err, envelope.ErrFork) {
		return nil, errors.Join(err, a.leaves(e, adv, m))
	}
	var gap envelope.ErrGap
	if errors.As(err, &gap) {
		a.sawAhead(m.run[len(m.run)-1])
	}
	if errors.As(err, &gap) || errors.Is(err, envelope.ErrUncertified) {
		a.out.reconcile(a.sid, m.from)
	}
	if err != nil {
		return nil, err
	}
	c := a.begin()
	c.advance(e, adv, m.sealed)
	a.materialise(c, a.chainOf(e, adv.Chain), adv.New, m.ahead)
	if err := c.commit(store.Remote); err != nil {
		a.fail(err)
		a.miss(m.from)
		return nil, err
	}
	a.settle(c)
	a.leftover(c)
	return adv.New, nil
}

// maxMissed bounds whom heal asks for what was refused meanwhile.
const maxMissed = 16

// miss notes that what a peer sent could not be kept. Gossip does not bring it
// again.
func (a *actor) miss(from peer.ID) {
	if !slices.Contains(a.missed, from) && len(a.missed) < maxMissed {
		a.missed = append(a.missed, from)
	}
}

// sawAhead notes that a chain is longer than what we hold of it.
func (a *actor) sawAhead(last envelope.Envelope) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ahead[last.Chain()] = max(a.ahead[last.Chain()], last.Seq()+1)
}

// lag is how many entries this node knows of and cannot show yet: missing
// from a chain, or accepted and waiting. mu is held.
func (a *actor) lag() (missing, waiting uint64) {
	for _, e := range a.epochs {
		for head := range e.topic.Chains() {
			if ahead := a.ahead[head.ID]; ahead > head.Length {
				missing += ahead - head.Length
			}
			if ch := a.chains[head.ID]; ch != nil && ch.next < head.Length {
				waiting += head.Length - ch.next
			}
		}
	}
	return missing, waiting
}

// settle looks again at what waited for the control log to move.
func (a *actor) settle(c *change) {
	if c.behind && a.checkDue.IsZero() {
		a.checkDue = time.Now().Add(jitter(compareAfter))
	}
	if c.ctl == nil {
		return
	}
	if c.finals {
		a.resolveForks()
	}
	a.rebuildOwed()
	a.retry()
	a.release()
	a.flushOutbox()
}

// chain is one writer chain as far as we read it.
type chain struct {
	id     envelope.ChainID
	cert   envelope.Certificate
	epoch  *epoch
	reader *seal.Reader
	position
	parked time.Time // the next entry is from the future: look again then
}

// position is how far a chain is materialised. It is stored with every batch
// that moves it, so that a restart goes on where the batch ended.
type position struct {
	next        uint64 // the first envelope of the next body
	reader      string // seal.Reader at next; "" before the hello
	author      space.DID
	c           identity.Commitment
	via         [32]byte // the child space that sent the author; zero for a member
	device      identity.DeviceID
	rev         space.TID // of the last entry
	attribution attribution
	void        bool // nothing of this chain counts any more
}

// attribution is how sure we are whose a chain is. The voucher alone decides
// whose it counts as; this only says what we can prove to ourselves.
type attribution uint8

const (
	unattributed attribution = iota // no hello read
	verified                        // by a tag that only the author and we can make
	vouched                         // by the issuer alone
	disputed                        // the device or the tag is wrong: the issuer may lie
)

// String is the name in the API; of an author's chains the worst counts.
func (a attribution) String() string {
	return [...]string{"", "verified", "vouched", "disputed"}[min(a, disputed)]
}

// positionRecord is position in the store. C and device stand in Reader. Where
// Author, C and Device are empty they are this node's own; where Reader is too,
// and Seq is not 0, it is the one that has read the chain up to Seq.
type positionRecord struct {
	_           struct{} `cbor:",toarray"`
	Reader      []byte
	Author      string
	C, Device   []byte
	Rev         uint64
	Attribution uint8
	Void        bool
}

func (a *actor) positionRow(ch *chain, p position) (store.AppliedRow, error) {
	r := positionRecord{
		Reader: []byte(p.reader), Author: string(p.author), C: p.c[:], Device: p.device[:],
		Rev: uint64(p.rev), Attribution: uint8(p.attribution), Void: p.void,
	}
	if p.author == a.self.did && p.c == a.self.c && p.device == a.self.device.ID() {
		r.Author, r.C, r.Device = "", []byte{}, []byte{}
		if p.reader == a.ownReader(p.next, [32]byte{}) {
			r.Reader = []byte{}
		}
	}
	b, err := space.Marshal(r)
	return store.AppliedRow{Topic: ch.epoch.id, Chain: ch.id, Seq: p.next, State: b}, err
}

// ownReader has read a chain of this device up to next; via is the child space
// that sent us when it began.
func (a *actor) ownReader(next uint64, via [32]byte) string {
	return string(seal.ReaderStateVia(a.self.c, a.self.device.ID(), via, next))
}

func (a *actor) readPosition(row store.AppliedRow) (position, error) {
	var r positionRecord
	if err := space.Unmarshal(row.State, &r); err != nil {
		return position{}, err
	}
	p := position{
		next: row.Seq, reader: string(r.Reader), author: space.DID(r.Author),
		rev: space.TID(r.Rev), attribution: attribution(r.Attribution), void: r.Void,
		via: seal.StateVia(r.Reader),
	}
	switch {
	case r.Author == "" && len(r.C)+len(r.Device) == 0:
		p.author, p.c, p.device = a.self.did, a.self.c, a.self.device.ID()
		if p.reader == "" && p.next > 0 && !p.void {
			p.reader = a.ownReader(p.next, [32]byte{})
		}
	case len(r.C) != 32 || len(r.Device) != 32:
		return position{}, space.ErrMalformed
	default:
		p.c, p.device = identity.Commitment(r.C), identity.DeviceID(r.Device)
	}
	return p, nil
}

// chainOf is the reading state of a chain, made at its first envelope.
func (a *actor) chainOf(e *epoch, head envelope.Chain) *chain {
	ch := a.chains[head.ID]
	if ch == nil {
		ch = &chain{id: head.ID, cert: head.Cert, epoch: e}
		a.mu.Lock()
		a.chains[head.ID] = ch
		a.mu.Unlock()
	}
	return ch
}

// rewind makes the chain's reader stand at p.
func (ch *chain) rewind(p position) (err error) {
	if p.reader == "" {
		ch.reader, err = seal.NewReader(ch.epoch.keys, ch.id, ch.cert)
	} else {
		ch.reader, err = seal.RestoreReader(ch.epoch.keys, ch.id, ch.cert, []byte(p.reader))
	}
	return err
}

// materialise opens the envelopes of one chain from its position on, in
// order, and stages what they do. Where something before envs waits, they wait
// too: retry reads them from the store. The last of envs may have been opened
// ahead.
func (a *actor) materialise(c *change, ch *chain, envs []envelope.Envelope, ahead []opened) {
	at := ch.position
	if c.after != nil {
		if next, ok := c.after.applied[ch]; ok {
			at = next
		}
	}
	was := at
	if ch.reader == nil && !at.void {
		if err := ch.rewind(at); err != nil {
			a.log.Error("read a chain", "chain", ch.id, "err", err)
			return
		}
	}
	for i, env := range envs {
		if at.void {
			at.next = env.Seq() + 1
			continue
		}
		if env.Seq() < ch.reader.Next() {
			continue // a part that the reader holds already
		}
		if ahead == nil && at.author != "" {
			ahead = openAhead(ch.reader.Openers(), envs[i:], nil)
		}
		var o opened
		if k := i - (len(envs) - len(ahead)); k >= 0 {
			o = ahead[k]
		}
		if env.Seq() != ch.reader.Next() || !a.step(c, ch, &at, env, o) {
			break
		}
	}
	if at != was {
		c.applied[ch] = at
	}
}

// step opens one envelope. It reports false where the chain has to wait.
func (a *actor) step(c *change, ch *chain, at *position, env envelope.Envelope, ahead opened) bool {
	if env.Type() == envelope.Entry && at.author != "" {
		switch a.weigh(c.control(), ch, at, env) {
		case countsNot:
			at.void, at.next = true, env.Seq()+1
			return true
		case mayCount:
			return false
		}
	}
	ch.reader.Guess(members(c.control()))
	body, done, err := ch.reader.Take(env, ahead.Opened)
	switch {
	case errors.Is(err, space.ErrNoKey) && ch.reader.Position() > env.Seq():
		// Another's chain, for a member that reads only itself: passed over.
		return a.keepPosition(ch, at)
	case errors.Is(err, space.ErrNoKey):
		return false // of a member whom the control log does not know yet
	case err != nil:
		a.log.Warn("chain ends here: an envelope does not open", "chain", ch.id, "seq", env.Seq(), "err", err)
		a.refuse()
		at.void, at.next = true, env.Seq()+1
		return true
	case !done:
		return true // next stays at the first part, so that a restart begins there
	}
	wait := false
	switch env.Type() {
	case envelope.Hello:
		wait = a.hello(c, ch, at)
	case envelope.Control:
		wait = a.controlEntry(c, at, body)
	case envelope.Entry:
		b, err := ahead.decoded(body)
		wait = a.entry(c, ch, at, env, b, err, ahead.rows)
	}
	if wait {
		if err := ch.rewind(*at); err != nil {
			a.log.Error("rewind a chain", "chain", ch.id, "err", err)
		}
		return false
	}
	return a.keepPosition(ch, at)
}

// keepPosition makes at stand where the chain's reader does.
func (a *actor) keepPosition(ch *chain, at *position) bool {
	state, err := ch.reader.MarshalBinary()
	if err != nil {
		a.log.Error("keep a chain's position", "chain", ch.id, "err", err)
		return false
	}
	at.next, at.reader = ch.reader.Position(), string(state)
	return true
}

// hello learns whose chain this is. The reader has checked the voucher, which
// alone decides. A member that the roster does not know is waited for: our
// control log may be behind.
func (a *actor) hello(c *change, ch *chain, at *position) (wait bool) {
	h, _ := ch.reader.Hello()
	m, known, void := authorOf(c.control(), ch.epoch.n, h)
	switch {
	case !known:
		return true
	case void:
		a.log.Warn("chain of an author that a child space sends, and whose identity log does not say who it is", "chain", ch.id)
		a.refuse()
		at.void = true
		return false
	}
	at.author, at.c, at.via, at.device = m.DID, m.C, h.Via, h.Device
	a.located(h)
	if m.C != a.self.c {
		if _, in := c.control().Member(m.C); in || h.Via != ([32]byte{}) {
			a.out.meet(a.sid, h.Addrs)
		}
		a.out.learn(m.C, m.ILHead, h.IdentityLog)
	}
	if at.attribution != unattributed {
		return false // it was looked at when it came; keys have changed since
	}
	at.attribution = a.attribute(h, m, ch)
	if at.attribution == disputed {
		a.log.Warn("the issuer vouches for a chain that is not that member's: the issuer may lie",
			"chain", ch.id, "member", fingerprint(m.C), "ourselves", m.C == a.self.c)
		a.stats.Disputed.Add(1)
	}
	return false
}

// attribute says how sure we are that the chain is m's: the device must be one
// of m's, and the tag for us one that only m and we can make. For a chain in
// our own name we are the one party that knows.
func (a *actor) attribute(h seal.Hello, m control.Member, ch *chain) attribution {
	who, known := a.out.identity(m.C)
	if _, live := who.Devices[h.Device]; known && !live && !who.Revoked(h.Device) {
		return disputed
	}
	if h.C == a.self.c && h.Device == a.self.device.ID() {
		// What we wrote ourselves is remembered and does not come this way. A
		// copy of an older disk has forgotten it and cannot tell.
		a.log.Warn("a chain in the name of this very device that it does not remember: a restored copy, or the issuer lies",
			"chain", ch.id)
		return vouched
	}
	me, ok := a.ctl.Member(a.self.c)
	if !ok || !known || h.PUKGen != who.PUK.Gen {
		return vouched
	}
	tag, tagged := h.Tag(me.Slot)
	if !tagged {
		return vouched
	}
	// The author may not have known our newest per-user key yet.
	puk, st := a.self.ownPUK(), a.self.ownState()
	for range tagGenerations {
		pair, ok := a.pairOf(m, puk)
		if !ok {
			return vouched
		}
		if seal.CheckTag(pair, a.sid, ch.epoch.n, ch.id, tag) {
			return verified
		}
		var err error
		if puk, err = puk.Previous(st); err != nil {
			return disputed
		}
	}
	return vouched
}

// tagGenerations is how many generations of our per-user key an author may be
// behind.
const tagGenerations = 8

// controlEntry takes a control entry from the chain of who sequenced it. The
// entry's own signatures say whether it counts. The chain does not wait for it: an
// entry that comes too early, or whose keys are not here yet, is kept.
func (a *actor) controlEntry(c *change, at *position, raw []byte) (wait bool) {
	err := a.stageControl(c, raw)
	switch {
	case err == nil:
	case isEarly(err):
		c.behind = true
		c.keepEarly(raw)
	case a.conflict(err):
	default:
		a.log.Warn("control entry refused", "err", err)
		a.refuse()
	}
	return false
}

// entry stages one batch of writes.
func (a *actor) entry(c *change, ch *chain, at *position, env envelope.Envelope, b space.Batch, err error, sealed []store.RecordRow) (wait bool) {
	if err == nil && (b.Rev < at.rev || b.Rev == at.rev && len(b.Ops) > 0) {
		err = fmt.Errorf("rev %s does not follow %s: %w", b.Rev, at.rev, space.ErrMalformed)
	}
	if err != nil {
		a.log.Warn("entry refused", "chain", ch.id, "seq", ch.reader.Position(), "err", err)
		a.refuse()
		return false
	}
	if due := time.UnixMicro(b.Rev.Micros()).Add(-maxAhead); time.Now().Before(due) {
		ch.parked = due
		return true
	}
	if at.c == a.self.c && at.device == a.self.device.ID() {
		a.self.twin.saw(ch.id, b.Rev)
	}
	c.applyWith(sealed, at.author, b, space.Stamp{Rev: b.Rev, Device: at.device, Entry: env.ID()})
	if b.Stmt != nil {
		a.witness(ch, at, env.Seq(), b.Stmt.View)
	}
	at.rev = b.Rev
	return false
}

// ingestControl applies control entries that came on a sync stream.
func (a *actor) ingestControl(entries [][]byte) error {
	if a.broken != nil {
		return a.broken
	}
	c := a.begin()
	var stopped error
	for _, raw := range entries {
		if stopped = a.stageControl(c, raw); stopped != nil {
			break
		}
	}
	if c.ctl != nil {
		if err := c.commit(store.Own); err != nil {
			a.fail(err)
			return err
		}
		a.settle(c)
	}
	if errors.Is(stopped, space.ErrNoKey) || a.conflict(stopped) {
		return nil // the keys are on their way, or the conflict is noted
	}
	return stopped
}

// backlogMax bounds what one look back reads; retry comes again for more.
const backlogMax = 8 << 20

func (a *actor) backlog(ch *chain, from, to uint64) []envelope.Envelope {
	envs, err := a.store.Run(ch.epoch.id, ch.id, from, to, backlogMax)
	if err != nil {
		a.log.Error("read back a chain", "chain", ch.id, "from", from, "err", err)
		return nil
	}
	return envs
}

// retry materialises what is accepted and not looked at.
func (a *actor) retry() {
	a.takeEarly()
	a.catchUpAll()
}

// catchUpAll takes all chains towards their last envelopes, in steps of bounded
// size, until none moves any more.
func (a *actor) catchUpAll() {
	for moved := true; moved && a.broken == nil; {
		moved = false
		for _, e := range a.epochs {
			for head := range e.topic.Chains() {
				for a.catchUp(a.chainOf(e, head), head.Head.Seq) {
					moved = true
				}
			}
		}
	}
}

// catchUp takes one step of a chain towards its last envelope; it reports
// whether it moved.
func (a *actor) catchUp(ch *chain, last uint64) bool {
	if ch.next > last || !ch.parked.IsZero() || a.broken != nil {
		return false
	}
	c := a.begin()
	if envs := a.backlog(ch, ch.next, last); len(envs) > 0 {
		a.materialise(c, ch, envs, nil)
	} else {
		a.passOver(c, ch)
	}
	if len(c.applied) == 0 {
		return false
	}
	if err := c.commit(store.Remote); err != nil {
		a.fail(err)
		return false
	}
	return true
}
