package reconcile

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// Summary is what a replica says of itself.
type Summary struct {
	Topic  envelope.TopicID
	Ctl    space.Head // zero: no control log here
	Epoch  uint64
	Count  uint64
	Digest [32]byte
}

// Replica is the topic as we hold it: what passes the keyless rules, gapless
// and below any fork. It may grow between two calls.
type Replica interface {
	Summary() (Summary, error)
	// Chains is every chain, ascending by id. It is read to its end at once.
	Chains() iter.Seq2[envelope.Chain, error]
	// Run gives envelopes of the chain from seq from on: at least one, at most
	// to seq to, and no more than envelope.MaxRun and maxBytes together, the
	// first excepted. Fewer than asked is well. With from 0 the certificate
	// comes along. None and no error: they are no longer held.
	Run(chain envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error)
}

// Idler is a Replica that holds something to be asked by: it hears when it is
// not asked any more for a while, at the end of a round and of the session.
type Idler interface{ Idle() }

// Signer is a Replica of somebody who writes: it knows the chains of which it
// signed every envelope itself, which no badly signed one can end a run of.
type Signer interface {
	Signed(chain envelope.ChainID) bool
}

// Delivered is what became of a run.
type Delivered struct {
	Accepted  int // new here
	Duplicate int // held already
	Refused   int // not taken for a reason that is not the peer's: a fork, a quota
}

// Sink takes runs.
type Sink interface {
	// Deliver returns when the run is applied or refused. An error that wraps
	// space.ErrForged, ErrMalformed, ErrNotCanonical or ErrTooLarge blames the
	// peer and ends the session. envelope.ErrDuplicate counts the run as
	// duplicate, ErrFork and ErrGap as refused. Any other error is our own
	// failure and ends the session too.
	Deliver(cert *envelope.Certificate, run []envelope.Envelope) (Delivered, error)
}

// Pipe is a Sink that goes on to take runs while it still judges earlier ones.
type Pipe interface {
	Sink
	// Submit hands in a run. It waits if too much is under way.
	Submit(cert *envelope.Certificate, run []envelope.Envelope)
	// Outcomes says what became of runs handed in, each once and in their
	// order: of those that are judged by now, or, if all is set, of every one.
	Outcomes(all bool) []Outcome
}

// Outcome is what Sink.Deliver would have returned.
type Outcome struct {
	Delivered
	Err error
}

// ControlLog trades the space's control log as pages sealed for the members.
type ControlLog interface {
	// ControlSince gives pages of at most MaxControlPage bytes with what comes
	// after have, or as much of it as is meet. ErrControlFork if have is not
	// on our log.
	ControlSince(have space.Head) ([][]byte, error)
	// DeliverControl applies a page; errors as with Sink.Deliver.
	DeliverControl(page []byte) error
}

// Earlier is the epochs of the space before the topic's.
type Earlier interface {
	// Since is the first of them that is held with all that follow, but not one
	// before from, and a hash over (epoch, count, digest) of each from there
	// on. 0: none.
	Since(from uint64) (first uint64, digest [32]byte, err error)
}

// Config is what a session is made of.
type Config struct {
	Role Role
	// Topic is the topic of an Initiator. A Responder leaves it zero: Opening
	// names it.
	Topic envelope.TopicID
	// Opening is what ReadOpening returned to the Responder.
	Opening Challenge
	// Nonce is 32 fresh random bytes.
	Nonce [32]byte
	// LocalPeer and RemotePeer are the peer ids of the connection, as bytes.
	LocalPeer, RemotePeer []byte
	// Keys of the topic. A Responder that does not know the topic leaves it
	// and the next three nil: the opener is refused like one with a wrong key.
	Keys    Keys
	Replica Replica
	Sink    Sink
	// Control may be nil: no control log is kept here, pages are dropped.
	Control ControlLog
	// Earlier answers for the epochs before the topic's; nil: there are none.
	Earlier Earlier
	// Blind: a relay. It keeps no control log and says so, and states epoch 0,
	// which nobody compares.
	Blind bool
	// Memory is the topic's, shared by its sessions; nil: nothing is
	// remembered.
	Memory *Memory
	// Board is the topic's, shared by its sessions; nil: the session has its
	// own.
	Board *Board
	// MaxRun is how many bytes of envelopes one RUN has, one envelope excepted;
	// 0 means MaxRunBytes. A connection that ends after so many bytes carries
	// whole runs only if they are smaller.
	MaxRun int
	// MaxNamed is how many chains one pass names at most, 0 for all of them. A
	// connection that ends after so many bytes would else end before the first run:
	// what is not named is so in another pass, see window.
	MaxNamed int
	// MaxServe is how many bytes of envelopes one round sends at most; 0 means
	// DefaultMaxServe. The next round goes on where it stopped.
	MaxServe int64
}

// DefaultMaxServe is the share of one round when Config names none.
const DefaultMaxServe = 1 << 30

// challengeSize is the size of a CHALLENGE frame: head, array, version and two
// byte strings of 32.
const challengeSize = lengthSize + kindSize + 1 + 1 + 34 + 34

// maxPeerID is the size of the longest peer id that can be bound.
const maxPeerID = 255

func (c *Config) validate() error {
	var errs []error
	no := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Role != Initiator && c.Role != Responder {
		no("no role")
	}
	if c.Role == Responder && c.Opening.Version != Version {
		no("responder without an opening")
	}
	if c.Nonce == ([32]byte{}) {
		no("nonce is zero")
	}
	if n := min(len(c.LocalPeer), len(c.RemotePeer)); n == 0 || max(len(c.LocalPeer), len(c.RemotePeer)) > maxPeerID {
		no("peer ids of %d and %d bytes", len(c.LocalPeer), len(c.RemotePeer))
	}
	if bytes.Equal(c.LocalPeer, c.RemotePeer) {
		no("a peer does not sync with itself")
	}
	stranger := c.Role == Responder && c.Keys == nil
	if !stranger && (c.Keys == nil || c.Replica == nil || c.Sink == nil) {
		no("keys, replica and sink are needed")
	}
	if c.MaxNamed < 0 || c.MaxServe < 0 || c.MaxRun < 0 || c.MaxRun > MaxRunBytes {
		no("MaxNamed %d, MaxServe %d, MaxRun %d", c.MaxNamed, c.MaxServe, c.MaxRun)
	}
	return errors.Join(errs...)
}

// Result is what a round came to.
type Result struct {
	// Equal: one side stated Count and Digest, and the other that it has the
	// same. Nothing else makes it true.
	Equal  bool
	Led    bool // we began the round
	Past   Past // how the epochs before compare, as far as it was told
	Epoch  uint64
	Count  uint64   // of our last statement
	Digest [32]byte // of our last statement
	// PeerCount is how many envelopes the other side last stated to hold.
	PeerCount uint64
	// Stalled: not equal, and no envelope moved: another round will not help
	// by itself. One side hides something, or a writer forked.
	Stalled bool
	// Ctl and PeerCtl are the control heads after the CTL step, PeerCtl as the
	// peer stated it.
	Ctl, PeerCtl space.Head

	Received  int // envelopes that were new here
	Duplicate int // envelopes that came and were held already
	Refused   int // envelopes that came and were not taken, no one to blame
	Sent      int // envelopes sent
	Forked    int // chains whose branches differ, seen in the last pass
	// Forks are some of those chains, at most MaxForks: what the two sides know
	// of them has to be traded for their digests to become equal.
	Forks []envelope.ChainID
	Pages int // control pages taken

	PayloadBytes int64 // of envelopes, both ways
	MetaBytes    int64 // of all the rest but challenge and auth, both ways; counted by Run and Live
	AuthBytes    int64 // of challenge and auth, both ways: in the first round
	Passes       int   // of this round: 0 if equal at once
	RoundTrips   int   // how often we had to wait for an answer in this round
	Rounds       int   // on this stream, this one included
}

// phase is what we wait for.
type phase uint8

const (
	awaitChallenge phase = iota + 1
	awaitAuth
	idle         // between rounds
	awaitAnswer  // leader: to our BEACON
	awaitControl // follower: the leader's CTL, to ours
	awaitPages
	awaitBeacon // follower: again, after the control log
	awaitMode   // leader: how the follower goes on
	descent     // in the tree
	transfer
	awaitVerdict // leader: to our DIGEST
)

// Session is one side of a stream.
type Session struct {
	cfg        Config
	phase      phase
	started    bool
	err        error
	theirNonce [32]byte
	salt       [32]byte
	out        []feed // what we have to say, in order
	res        Result
	served     int64 // bytes of envelopes sent in this round

	mine, theirs Digest // as last stated
	eager        agreement
	logKnown     bool // control logs have been compared in this round
	crossed      bool // a BEACON of the other side's came while it answers ours
	spoke        bool // something was said since we last heard an answer
	control      incoming
	pass         *pass
	piped        []handed // to a Pipe, and not told of yet
	minTree      int      // chains below which nobody descends
	segment      uint64   // Segment, but for tests
	minCold      uint64   // minCold, but for tests
	board        *Board
	cut          bool // not all that differs was named in this round
	shared       bool // a run of a segment came, whoever handed it on
}

// feed produces messages one by one, so that a large answer exists only as far
// as it is being written. A nil message with more true is a pause in a loop.
type feed func(*Session) (m Msg, more bool, err error)

// New checks the configuration; all that is wrong is in the error.
func New(cfg Config) (*Session, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	if cfg.MaxServe == 0 {
		cfg.MaxServe = DefaultMaxServe
	}
	if cfg.MaxRun == 0 {
		cfg.MaxRun = MaxRunBytes
	}
	s := &Session{cfg: cfg, phase: awaitChallenge, minTree: minTree, segment: Segment, minCold: minCold, board: cfg.Board}
	if s.board == nil {
		s.board = NewBoard()
	}
	if cfg.Role == Responder {
		s.cfg.Topic, s.theirNonce, s.phase = cfg.Opening.Topic, cfg.Opening.Nonce, awaitAuth
		s.res.AuthBytes = challengeSize
		s.mix()
	}
	return s, nil
}

// Start is what to say before anything is heard. Called again between two
// rounds it begins the next one; a Responder has nothing to say then and waits
// for the Initiator.
func (s *Session) Start() ([]Msg, error) {
	s.begin()
	out, _, err := s.More()
	return out, err
}

func (s *Session) begin() {
	switch {
	case !s.started:
		s.started = true
		s.say(Challenge{Version: Version, Topic: s.cfg.Topic, Nonce: s.cfg.Nonce})
	case s.err == nil && s.phase == idle && s.res.Rounds > 0 && s.cfg.Role == Initiator:
		s.err = s.startRound(true)
	}
}

// Step takes a message that ReadFrame returned, and returns what to say to it:
// a first part of it, if it is long, and More the rest. Done is true when the
// round is over and all has been returned. After an error the session is dead.
func (s *Session) Step(m Msg) (out []Msg, done bool, err error) {
	if err := s.consume(m); err != nil {
		return nil, false, err
	}
	return s.More()
}

// Step and More return at most so many messages, and of envelopes so many bytes,
// one run excepted: what is prepared can be on its way while the rest is.
const (
	batch      = 8
	batchBytes = 256 << 10
)

// More returns what else there is to say now; nothing means that the other
// side has to speak first.
func (s *Session) More() (out []Msg, done bool, err error) {
	before := s.res.PayloadBytes
	for s.err == nil && len(s.out) > 0 && len(out) < batch && s.res.PayloadBytes-before < batchBytes {
		m, more, err := s.out[0](s)
		if !more {
			s.out[0] = nil
			s.out = s.out[1:]
		}
		if err != nil {
			s.err = err
			break
		}
		if m != nil {
			s.count(m)
			out = append(out, m)
		}
	}
	return out, s.over() && len(s.out) == 0, s.err
}

// over reports whether a round has ended and nothing more will be heard.
func (s *Session) over() bool { return s.err == nil && s.phase == idle && s.res.Rounds > 0 }

// Result is what is known so far; final when Step or More said done.
func (s *Session) Result() Result { return s.res }

// count notes what is said. Runs are no question: nothing answers them.
func (s *Session) count(m Msg) {
	switch m := m.(type) {
	case Envelopes:
		s.res.Sent += len(m.Run)
		s.res.PayloadBytes += int64(payload(m))
	case Served:
	default:
		s.spoke = true
	}
}

func (s *Session) say(m Msg) {
	s.out = append(s.out, func(*Session) (Msg, bool, error) { return m, false, nil })
}

// consume takes a message without asking what to say to it.
func (s *Session) consume(m Msg) error {
	if s.err == nil {
		s.err = s.dispatch(m)
	}
	return s.err
}

func (s *Session) dispatch(m Msg) error {
	var err error
	switch m := m.(type) {
	case Challenge:
		err = s.onChallenge(m)
	case Auth:
		err = s.onAuth(m)
	case Control:
		err = s.onControl(m)
	case ControlPage:
		err = s.onControlPage(m)
	case Digest:
		err = s.onDigest(m)
	case Frontier:
		err = s.onFrontier(m)
	case Want:
		err = s.onWant(m)
	case Envelopes:
		err = s.onRun(m)
	case Served:
		err = s.onServed()
	case Done:
		err = s.onDone(m)
	case Beacon:
		err = s.onBeacon(m)
	case Vector:
		err = s.onVector(m)
	case Tree:
		err = s.onTree(m)
	case Segments:
		err = s.onSegments(m)
	case Manifest:
		err = s.onManifest(m)
	default:
		err = fmt.Errorf("%w: %w: %T", ErrPeer, ErrOrder, m)
	}
	return err
}

// expect blames the peer for a message that does not belong to the phase.
func (s *Session) expect(k Kind, want ...phase) error {
	for _, p := range want {
		if s.started && s.phase == p {
			return nil
		}
	}
	return blame(k.String(), ErrOrder)
}

func (s *Session) onChallenge(m Challenge) error {
	if err := s.expect(KindChallenge, awaitChallenge); err != nil {
		return err
	}
	if m.Topic != s.cfg.Topic {
		return blame("challenge: another topic", ErrAuth)
	}
	s.theirNonce, s.phase = m.Nonce, awaitAuth
	s.mix()
	s.say(s.auth())
	return nil
}

func (s *Session) onAuth(m Auth) error {
	if err := s.expect(KindAuth, awaitAuth); err != nil {
		return err
	}
	if !s.verifyAuth(m) {
		return blame("auth", ErrAuth)
	}
	s.phase = idle
	if s.cfg.Role == Initiator {
		return nil
	}
	s.say(s.auth())
	return s.startRound(true)
}
