package reconcile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// pass is one exchange of frontiers and runs.
type pass struct {
	own []ownChain // our frontier as we state it

	// What the peer stated. at is where in own its next chain may stand.
	at            int
	heard         int
	lastHeard     envelope.ChainID
	frontierHeard bool

	// What we asked for, in the order it must come; asked[0] is under way.
	asked   []asked
	refused *envelope.ChainID // the rest of this chain is of no use to us

	// What the peer asked for.
	wanted     int
	lastWanted envelope.ChainID
	wantsHeard bool

	servedSaid, servedHeard bool

	// By segments: what we lack of each such chain; how many heads are asked for;
	// the chain whose heads come; those on the board; segments asked for and
	// those that came.
	lacks    []*lack
	manifest uint64
	heads    int
	colds    []*cold
	claimed  int
	pieces   int

	manifestAsked, manifestHeard, wantsSaid bool

	pieceMeal bool // the other side asks by segments

	owes     bool // the other side lacks something we have
	received int  // envelopes

	tree *tree // the descent that comes first; nil later

	// After a descent: the nodes that differ and their level, and who speaks
	// second, naming only what the other side did not cover.
	within  []uint32
	level   int
	second  bool
	covered []bool // by place in own
}

// over reports whether both sides have sent all they owe.
func (p *pass) over() bool { return p.servedHeard && p.servedSaid && p.wantsHeard }

// find is a chain of our frontier.
func (p *pass) find(c envelope.ChainID) (ownChain, bool) {
	i, ok := slices.BinarySearchFunc(p.own, c, func(h ownChain, c envelope.ChainID) int { return compareChains(h.Chain, c) })
	if !ok {
		return ownChain{}, false
	}
	return p.own[i], true
}

// ownChain is a chain of our frontier.
type ownChain struct {
	Chain  envelope.ChainID
	Seq    uint64
	ID     envelope.ID
	forked bool // and takes nothing more
}

// startFrontier begins a pass in which both name every chain.
func (s *Session) startFrontier(own []ownChain) {
	s.pass, s.phase = &pass{own: own}, transfer
	s.sayFrontier(own)
}

// sayFrontier names chains, page by page.
func (s *Session) sayFrontier(own []ownChain) {
	from, to := s.window(len(own), s.cfg.MaxNamed)
	own = own[from:to]
	s.out = append(s.out, func(s *Session) (Msg, bool, error) {
		n := min(len(own), MaxPage)
		m := Frontier{Chains: make([]ChainHead, n), Last: n == len(own)}
		for i, c := range own[:n] {
			m.Chains[i] = ChainHead{Chain: c.Chain, Seq: c.Seq, Tag: s.headTag(c.ID)}
		}
		own = own[n:]
		return m, !m.Last, nil
	})
}

// window is which most of n things this pass is about, all if most is 0. Each
// pass of each stream draws another, so that nothing that can not become equal
// hides the rest for ever; what has become equal the tree leaves out.
func (s *Session) window(n, most int) (from, to int) {
	if most == 0 || n <= most {
		return 0, n
	}
	s.cut = true
	drawn := s.tag(tagWindow, []byte{byte(s.res.Rounds), byte(s.res.Passes)})
	at := int(binary.BigEndian.Uint64(drawn[:]) % uint64(n+most-1)) // the end of it, less one
	return max(0, at+1-most), min(n, at+1)
}

// frontier is a snapshot of our chains.
func (s *Session) frontier() ([]ownChain, error) {
	var own []ownChain
	for c, err := range s.cfg.Replica.Chains() {
		if err != nil {
			return nil, err
		}
		if n := len(own); n > 0 && compareChains(own[n-1].Chain, c.ID) >= 0 {
			return nil, errors.New("not strictly ascending")
		}
		if len(own) == MaxChains {
			return nil, fmt.Errorf("more than %d: %w", MaxChains, space.ErrTooLarge)
		}
		own = append(own, ownChain{c.ID, c.Head.Seq, c.Head.ID, closed(c)})
	}
	return own, nil
}

func compareChains(a, b envelope.ChainID) int { return bytes.Compare(a[:], b[:]) }

func (s *Session) onFrontier(m Frontier) error {
	if err := s.expect(KindFrontier, transfer, awaitMode); err != nil {
		return err
	}
	if s.phase == awaitMode {
		own, err := s.frontier()
		if err != nil {
			return fmt.Errorf("chains: %w", err)
		}
		s.startFrontier(own)
	}
	p := s.pass
	if p.frontierHeard {
		return blame("frontier", ErrOrder)
	}
	want := Want{Ranges: []Range{}, Last: m.Last}
	for _, h := range m.Chains {
		if p.heard > 0 && compareChains(p.lastHeard, h.Chain) >= 0 {
			return blame("frontier", fmt.Errorf("not strictly ascending: %w", ErrFrontier))
		}
		if p.heard++; p.heard > MaxChains {
			return blame("frontier", fmt.Errorf("more than %d chains: %w", MaxChains, ErrFrontier))
		}
		p.lastHeard = h.Chain
		if !p.inside(h.Chain) {
			return blame("frontier", fmt.Errorf("a chain elsewhere in the tree: %w", ErrFrontier))
		}
		if r, ok := s.lacking(h); ok && !s.byPieces(r) {
			want.Ranges = append(want.Ranges, r)
			p.asked = append(p.asked, asked{Range: r})
		}
	}
	if p.heard <= len(m.Chains) {
		s.turn()
	}
	p.frontierHeard = m.Last
	if m.Last && p.second {
		s.sayFrontier(p.uncovered())
	}
	p.manifestAsked = m.Last && len(p.lacks) > 0
	want.Last = m.Last && !p.manifestAsked
	p.wantsSaid = want.Last
	if len(want.Ranges) > 0 || want.Last {
		s.say(want)
	}
	if p.manifestAsked {
		s.askManifest()
	}
	return nil
}

// inside reports whether a chain belongs to this pass.
func (p *pass) inside(c envelope.ChainID) bool {
	if p.level == 0 {
		return true
	}
	_, ok := slices.BinarySearch(p.within, nodeOf(c, p.level))
	return ok
}

// uncovered is what we have beyond what the other side named.
func (p *pass) uncovered() []ownChain {
	var out []ownChain
	for i, c := range p.own {
		if !p.covered[i] {
			out = append(out, c)
		}
	}
	return out
}

// lacking compares a chain of the peer with ours.
func (s *Session) lacking(h ChainHead) (Range, bool) {
	p := s.pass
	for p.at < len(p.own) && compareChains(p.own[p.at].Chain, h.Chain) < 0 {
		p.at++
	}
	if p.at == len(p.own) || p.own[p.at].Chain != h.Chain {
		return Range{Chain: h.Chain, From: 0, To: h.Seq}, true
	}
	own := p.own[p.at]
	if p.second {
		p.covered[p.at] = h.Seq >= own.Seq
	}
	if own.forked || own.Seq == h.Seq && s.headTag(own.ID) != h.Tag {
		s.noteFork(own.Chain)
		return Range{}, false
	}
	return Range{Chain: h.Chain, From: own.Seq + 1, To: h.Seq}, own.Seq < h.Seq
}

func (s *Session) onWant(m Want) error {
	if err := s.expect(KindWant, transfer); err != nil {
		return err
	}
	p := s.pass
	if p.wantsHeard {
		return blame("want", ErrOrder)
	}
	if p.pieceMeal && len(s.out) > maxOwed {
		return blame("want", fmt.Errorf("too many at a time: %w", ErrWant))
	}
	for _, r := range m.Ranges {
		if p.wanted > 0 && !p.pieceMeal && compareChains(p.lastWanted, r.Chain) >= 0 {
			return blame("want", fmt.Errorf("not strictly ascending: %w", ErrWant))
		}
		p.wanted++
		p.lastWanted = r.Chain
		if own, ok := p.find(r.Chain); !ok || r.From > r.To || r.To > own.Seq {
			return blame("want", fmt.Errorf("%d to %d: %w", r.From, r.To, ErrWant))
		}
	}
	if len(m.Ranges) > 0 {
		p.owes = true
		s.out = append(s.out, serve(m.Ranges))
	}
	if !m.Last {
		return nil
	}
	p.wantsHeard = true
	if p.owes {
		s.out = append(s.out, (*Session).sayServed)
		return nil
	}
	p.servedSaid = true
	s.say(Served{})
	return s.settle()
}

// maxOwed is how many answers may be owed to who asks by segments.
const maxOwed = 256

// serve answers ranges, one RUN at a time, in their order. Who asks by segments
// waits for each range: what is not served ends the serving.
func serve(ranges []Range) feed {
	return func(s *Session) (Msg, bool, error) {
		if len(ranges) == 0 || s.pass.servedSaid {
			return nil, false, nil
		}
		if s.served >= s.cfg.MaxServe {
			return s.serveNoMore()
		}
		r := &ranges[0]
		m, err := s.run(*r)
		if err != nil {
			return nil, false, fmt.Errorf("serve: %w", err)
		}
		if len(m.Run) == 0 && s.pass.pieceMeal {
			return s.serveNoMore()
		}
		if len(m.Run) == 0 {
			ranges = ranges[1:]
			return nil, true, nil
		}
		if last := m.Run[len(m.Run)-1].Seq(); last == r.To {
			ranges = ranges[1:]
		} else {
			r.From = last + 1
		}
		s.served += int64(payload(m))
		return m, len(ranges) > 0, nil
	}
}

// run is the next RUN of a range, cut where a good signature covers it: a
// writer may have signed an envelope badly and the next one well. Nothing, if
// the range is no longer held.
func (s *Session) run(r Range) (Envelopes, error) {
	cert, run, err := s.cfg.Replica.Run(r.Chain, r.From, r.To, s.cfg.MaxRun)
	if err != nil || len(run) == 0 {
		return Envelopes{}, err
	}
	first, last := run[0].Seq(), run[len(run)-1].Seq()
	m := Envelopes{Run: run}
	if own, ok := s.cfg.Replica.(Signer); !ok || !own.Signed(r.Chain) {
		m.Run = run[:envelope.Covered(run)]
	}
	if r.From == 0 {
		m.Cert = cert
	}
	if first != r.From || last > r.To || last-first != uint64(len(run))-1 || r.From == 0 && cert == nil ||
		len(run) > envelope.MaxRun || payload(m) > MaxRunBytes {
		return Envelopes{}, fmt.Errorf("asked for %d to %d, got %d of %d to %d", r.From, r.To, len(run), first, last)
	}
	return m, nil
}

func (s *Session) onRun(m Envelopes) error {
	if err := s.expect(KindRun, transfer); err != nil {
		return err
	}
	p := s.pass
	first, last, chain := m.Run[0].Seq(), m.Run[len(m.Run)-1].Seq(), m.Run[0].Chain()
	for len(p.asked) > 0 && p.asked[0].Chain != chain { // cut short: the peer has no more of it
		p.asked = p.asked[1:]
	}
	if p.servedHeard || len(p.asked) == 0 || m.Run[0].Topic() != s.cfg.Topic {
		return blame("run", ErrUnasked)
	}
	a := &p.asked[0]
	if first != a.From || last > a.To {
		return blame("run", fmt.Errorf("%d to %d, asked for %d to %d: %w", first, last, a.From, a.To, ErrUnasked))
	}
	a.From = last + 1
	if p.received == 0 {
		s.turn()
	}
	p.received += len(m.Run)
	s.res.PayloadBytes += int64(payload(m))
	var err error
	if a.piece == nil {
		err = s.deliver(chain, m)
	} else {
		err = s.onPiece(a, m)
	}
	if err == nil && last == a.To {
		done := *a
		p.asked = p.asked[1:]
		s.rangeDone(done)
	}
	return err
}

// handed is a run that a Pipe has.
type handed struct {
	chain envelope.ChainID
	n     int
}

// deliver hands a run to our replica. After a run that was not taken the rest
// of its chain could only be a gap: it is not handed on.
func (s *Session) deliver(chain envelope.ChainID, m Envelopes) error {
	n := len(m.Run)
	if r := s.pass.refused; r != nil && *r == chain {
		s.res.Refused += n
		return nil
	}
	pipe, ok := s.cfg.Sink.(Pipe)
	if !ok {
		d, err := s.cfg.Sink.Deliver(m.Cert, m.Run)
		return s.delivered(handed{chain, n}, d, err)
	}
	s.piped = append(s.piped, handed{chain, n})
	pipe.Submit(m.Cert, m.Run)
	return s.hear(pipe.Outcomes(false))
}

// hear takes note of what a Pipe says.
func (s *Session) hear(outcomes []Outcome) error {
	for _, o := range outcomes {
		if len(s.piped) == 0 {
			return errors.New("deliver: outcome of a run that was not handed in")
		}
		h := s.piped[0]
		s.piped = s.piped[1:]
		if err := s.delivered(h, o.Delivered, o.Err); err != nil {
			return err
		}
	}
	return nil
}

// drain waits until everything that came is judged.
func (s *Session) drain() error {
	if len(s.piped) == 0 {
		return nil
	}
	return s.hear(s.cfg.Sink.(Pipe).Outcomes(true))
}

// delivered takes note of what became of a run.
func (s *Session) delivered(h handed, d Delivered, err error) error {
	var gap envelope.ErrGap
	switch {
	case errors.Is(err, envelope.ErrDuplicate):
		d, err = Delivered{Duplicate: h.n}, nil
	case errors.Is(err, envelope.ErrFork):
		d, err = Delivered{Refused: h.n}, nil
		s.noteFork(h.chain)
	case errors.As(err, &gap), errors.Is(err, envelope.ErrCrowded):
		d, err = Delivered{Refused: h.n}, nil
	case byPeer(err):
		return blame("run", err)
	}
	if err != nil {
		return fmt.Errorf("deliver: %w", err)
	}
	s.res.Received += d.Accepted
	s.res.Duplicate += d.Duplicate
	s.res.Refused += d.Refused
	if d.Refused > 0 && s.pass != nil {
		s.pass.refused = &h.chain
	}
	return nil
}

// MaxForks is how many forked chains a Result names.
const MaxForks = 64

// noteFork notes a chain whose branches differ.
func (s *Session) noteFork(chain envelope.ChainID) {
	s.res.Forked++
	if len(s.res.Forks) < MaxForks && !slices.Contains(s.res.Forks, chain) {
		s.res.Forks = append(s.res.Forks, chain)
	}
}

func (s *Session) sayServed() (Msg, bool, error) {
	if s.pass.servedSaid {
		return nil, false, s.settle()
	}
	s.pass.servedSaid = true
	return Served{}, false, s.settle()
}

// serveNoMore ends serving in this pass.
func (s *Session) serveNoMore() (Msg, bool, error) {
	if !s.pass.pieceMeal {
		return nil, false, nil
	}
	s.pass.servedSaid = true
	return Served{}, false, nil
}

func (s *Session) onServed() error {
	if err := s.expect(KindServed, transfer); err != nil {
		return err
	}
	if s.pass.servedHeard || !s.pass.frontierHeard {
		return blame("served", ErrOrder)
	}
	if s.pass.received == 0 {
		s.turn()
	}
	s.pass.servedHeard = true
	if s.pass.manifestAsked && !s.pass.wantsSaid {
		s.giveUp()
	}
	return s.settle()
}
