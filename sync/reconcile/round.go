package reconcile

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// maxPasses is how often a round exchanges what differs before it gives its
// verdict: once, and once more for what was written meanwhile.
const maxPasses = 2

// What a salted tag is of.
const (
	tagHead   = 'h'
	tagLog    = 'l'
	tagPast   = 'p'
	tagLeaves = 'n'
	tagNode   = 't'
	tagWindow = 'w'
)

// mix makes the salt of the stream's tags of what both sides drew.
func (s *Session) mix() {
	opener, answer := s.cfg.Nonce, s.theirNonce
	if s.cfg.Role == Responder {
		opener, answer = answer, opener
	}
	h := sha256.New()
	for _, b := range [][32]byte{s.cfg.Topic, opener, answer} {
		h.Write(b[:])
	}
	h.Sum(s.salt[:0])
}

// tag cuts a salted hash to eight bytes. Who did not draw the salt cannot look
// for two things with one tag.
func (s *Session) tag(of byte, b []byte) Tag {
	var buf [33 + 16*len(Tag{})]byte
	m := append(buf[:0], s.salt[:]...)
	m = append(append(m, of), b...)
	sum := sha256.Sum256(m)
	return Tag(sum[:])
}

func (s *Session) headTag(id envelope.ID) Tag { return s.tag(tagHead, id[:]) }

// noLog is the tag of who keeps no control log: nobody asks it for one.
var noLog Tag

func (s *Session) logTag(h space.Head) Tag {
	if s.cfg.Blind {
		return noLog
	}
	b := binary.BigEndian.AppendUint64(nil, h.Term)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	return s.tag(tagLog, append(b, h.Hash[:]...))
}

// Lead begins a round, whichever end of the stream we are. Between two rounds
// alone; if the other side does so at the same time, the opener of the stream
// leads. More has what to say.
func (s *Session) Lead() error {
	if s.err == nil && (s.phase != idle || s.res.Rounds == 0) {
		return fmt.Errorf("lead: %w", ErrOrder)
	}
	if s.err == nil {
		s.err = s.startRound(true)
	}
	return s.err
}

// startRound begins a round. Who leads states its set.
func (s *Session) startRound(leads bool) error {
	sum, err := s.summary()
	if err != nil {
		return err
	}
	auth := s.res.AuthBytes
	if s.res.Rounds > 0 {
		auth = 0
	}
	s.res = Result{Rounds: s.res.Rounds + 1, Ctl: sum.Ctl, Epoch: sum.Epoch, AuthBytes: auth, Led: leads}
	s.pass, s.control, s.served, s.shared, s.cut = nil, incoming{}, 0, false, false
	s.mine, s.theirs, s.eager = Digest{}, Digest{}, agreement{}
	s.logKnown, s.crossed, s.spoke = false, false, false
	if leads {
		return s.beacon()
	}
	return nil
}

// state notes what our set is now: verdicts compare what was said, never what
// is.
func (s *Session) state() error {
	if err := s.drain(); err != nil {
		return err
	}
	sum, err := s.summary()
	if err != nil {
		return err
	}
	s.mine = Digest{Epoch: sum.Epoch, Count: sum.Count, Digest: sum.Digest}
	s.res.Epoch, s.res.Count, s.res.Digest = sum.Epoch, sum.Count, sum.Digest
	return nil
}

// beacon states everything that may have to be compared.
func (s *Session) beacon() error {
	if err := s.state(); err != nil {
		return err
	}
	m := Beacon{
		Log: s.logTag(s.res.Ctl), Count: s.mine.Count, Digest: s.mine.Digest,
		Base: []byte{}, Changes: []Change{}, Fresh: []FreshChain{},
	}
	if s.cfg.Earlier != nil {
		first, sum, err := s.cfg.Earlier.Since(0)
		if err != nil {
			return fmt.Errorf("earlier epochs: %w", err)
		}
		if first > 0 {
			m.From, m.Past = first, s.tag(tagPast, sum[:])
		}
	}
	if b := s.cfg.Memory.with(s.cfg.RemotePeer); b != nil {
		ch, ok, err := s.changes(b, MaxEager)
		if err != nil {
			return err
		}
		if ok {
			t := b.tag()
			s.eager = agreement{b, ch}
			m.Base, m.Changes, m.Fresh = t[:], ch.known, ch.fresh
		}
	}
	s.phase = awaitAnswer
	s.say(m)
	return nil
}

func (s *Session) onBeacon(m Beacon) error {
	if err := s.expect(KindBeacon, idle, awaitAnswer, awaitBeacon); err != nil {
		return err
	}
	switch s.phase {
	case idle:
		if err := s.startRound(false); err != nil {
			return err
		}
	case awaitAnswer: // both began at once
		if s.crossed || s.logKnown || s.res.Rounds == 1 {
			return blame("beacon", ErrOrder)
		}
		if s.cfg.Role == Initiator {
			s.crossed = true
			return nil
		}
		meta := s.res.MetaBytes
		s.res.Rounds--
		if err := s.startRound(false); err != nil {
			return err
		}
		s.res.MetaBytes = meta
	}
	s.theirs = Digest{Epoch: s.res.Epoch, Count: m.Count, Digest: m.Digest}
	if own := s.logTag(s.res.Ctl); m.Log == own && own != noLog {
		s.res.PeerCtl = s.res.Ctl
	} else if !s.logKnown && m.Log != noLog && own != noLog {
		s.phase = awaitControl
		s.sayControl()
		return nil
	}
	return s.answer(m)
}

// answer says whether our set is the one that was stated, or how to go on.
func (s *Session) answer(m Beacon) error {
	if err := s.state(); err != nil {
		return err
	}
	if err := s.comparePast(m); err != nil {
		return err
	}
	if s.mine == s.theirs {
		s.say(Done{Past: s.res.Past})
		return s.finish(true)
	}
	s.nextPass()
	if len(m.Base) > 0 {
		if b := s.cfg.Memory.find(Tag(m.Base)); b != nil {
			ch, ok, err := s.changes(b, MaxChanges)
			if err != nil {
				return err
			}
			if ok {
				s.say(s.vector(b, ch))
				return s.startVector(b, ch, changes{m.Changes, m.Fresh})
			}
		}
	}
	return s.object(true)
}

// object states our set, which is another one, and begins a pass.
func (s *Session) object(descend bool) error {
	s.say(s.mine)
	own, err := s.frontier()
	if err != nil {
		return fmt.Errorf("chains: %w", err)
	}
	if descend && len(own) >= s.minTree && s.theirs.Count > 0 {
		s.startTree(own)
		return nil
	}
	s.startFrontier(own)
	return nil
}

// comparePast compares the epochs before this one as far as both hold them.
func (s *Session) comparePast(m Beacon) error {
	s.res.Past = PastNone
	if s.cfg.Earlier == nil || m.From == 0 {
		return nil
	}
	first, sum, err := s.cfg.Earlier.Since(m.From)
	switch {
	case err != nil:
		return fmt.Errorf("earlier epochs: %w", err)
	case first == 0:
	case first > m.From:
		s.res.Past = PastUnknown // the other side holds more
	case s.tag(tagPast, sum[:]) == m.Past:
		s.res.Past = PastEqual
	default:
		s.res.Past = PastDiffers
	}
	return nil
}

func (s *Session) onDone(m Done) error {
	if err := s.expect(KindDone, awaitAnswer, awaitVerdict, transfer); err != nil {
		return err
	}
	if s.phase == transfer { // the leader saw that what it got makes it our equal
		if p := s.pass; s.res.Led || !p.over() || p.received > 0 {
			return blame("done", ErrOrder)
		}
		return s.finish(true)
	}
	if !s.res.Led {
		return blame("done", ErrOrder)
	}
	s.res.Past = m.Past
	s.answered()
	return s.finish(true)
}

func (s *Session) onDigest(m Digest) error {
	if err := s.expect(KindDigest, awaitAnswer, awaitVerdict, transfer); err != nil {
		return err
	}
	if m.Epoch == 0 || s.res.Epoch == 0 { // a relay knows of no epochs
		m.Epoch = s.res.Epoch
	}
	if m.Epoch != s.res.Epoch {
		return blame("digest", fmt.Errorf("epoch %d, ours is %d: %w", m.Epoch, s.res.Epoch, space.ErrMalformed))
	}
	s.answered()
	s.theirs = m
	if s.phase == transfer {
		return s.verdict()
	}
	if m == s.mine {
		return blame("digest", ErrVerdict) // that is what DONE says
	}
	if s.phase == awaitVerdict && s.res.Passes == maxPasses {
		return s.finish(false)
	}
	s.nextPass()
	s.phase = awaitMode
	return nil
}

// verdict answers the leader's statement at the end of a pass.
func (s *Session) verdict() error {
	if s.res.Led || !s.pass.over() {
		return blame("digest", ErrOrder)
	}
	if err := s.state(); err != nil {
		return err
	}
	switch {
	case s.mine == s.theirs:
		s.say(Done{Past: s.res.Past})
		return s.finish(true)
	case s.res.Passes == maxPasses:
		s.say(s.mine)
		return s.finish(false)
	}
	s.nextPass()
	return s.object(false)
}

func (s *Session) nextPass() {
	s.res.Passes++
	s.res.Forked, s.res.Forks = 0, nil
	s.pass = nil
	s.board.leave(s)
}

// settle goes on once both sides have served: the leader states its set, or
// that it is now the one that the other side stated. A round ends where
// something was heard, never where something is written: who reads must know.
func (s *Session) settle() error {
	if !s.res.Led || !s.pass.over() {
		return nil
	}
	if err := s.state(); err != nil {
		return err
	}
	if !s.pass.owes && s.mine == s.theirs {
		s.say(Done{Past: s.res.Past})
		return s.finish(true)
	}
	s.phase = awaitVerdict
	s.say(s.mine)
	return nil
}

// finish ends a round.
func (s *Session) finish(equal bool) error {
	s.res.Equal, s.res.PeerCount = equal, s.theirs.Count
	s.res.Stalled = !equal && s.res.Received == 0 && s.res.Sent == 0 && !s.shared && !s.cut
	s.End()
	s.pass, s.eager, s.phase = nil, agreement{}, idle
	if !equal || s.cfg.Memory == nil {
		return nil
	}
	return s.remember()
}

// remember keeps the heads of a moment at which both were equal, if that
// moment is still.
func (s *Session) remember() error {
	if s.cfg.Memory.agree(s.cfg.RemotePeer, s.mine.Digest) {
		return nil
	}
	b := &base{count: s.mine.Count, digest: s.mine.Digest}
	for c, err := range s.cfg.Replica.Chains() {
		if err != nil {
			return fmt.Errorf("chains: %w", err)
		}
		b.chains, b.seqs = append(b.chains, c.ID), append(b.seqs, c.Head.Seq)
	}
	sum, err := s.summary()
	if err != nil {
		return err
	}
	if sum.Count == s.mine.Count && sum.Digest == s.mine.Digest {
		s.cfg.Memory.keep(s.cfg.RemotePeer, b)
	}
	return nil
}

// answered takes note that the follower went on: without asking for the
// control log, if ours is its own.
func (s *Session) answered() {
	s.turn()
	if s.phase == awaitAnswer && !s.logKnown {
		s.res.PeerCtl = s.res.Ctl
	}
}

// turn counts a round trip: we spoke, and this is heard in answer.
func (s *Session) turn() {
	if s.spoke {
		s.res.RoundTrips++
		s.spoke = false
	}
}

func (s *Session) summary() (Summary, error) {
	sum, err := s.cfg.Replica.Summary()
	if err != nil {
		return Summary{}, fmt.Errorf("summary: %w", err)
	}
	if sum.Topic != s.cfg.Topic {
		return Summary{}, errors.New("summary: replica of another topic")
	}
	if s.cfg.Control == nil {
		sum.Ctl = space.Head{}
	}
	return sum, nil
}
