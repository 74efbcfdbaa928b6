package reconcile

import (
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// A chain of which a side lacks many sealed segments is fetched segment by
// segment: it asks for their heads, the manifest, and then for as many at a
// time as the Board lets it. What is not sealed follows.
const (
	// minCold is how many segments of a chain have to be lacking.
	minCold = 4
	// MaxManifest is how many segments one pass may ask the heads of.
	MaxManifest = 1 << 16
	// maxHeads is how many heads one MANIFEST has.
	maxHeads = 4_000
)

// asked is a range that we asked for.
type asked struct {
	Range
	of    *cold // and of these, if it is a segment's
	piece *piece
	last  envelope.ID // of what came of it; zero: nothing yet
}

// lack is what we lack of a chain that is fetched by segments.
type lack struct {
	Range               // the whole of it
	heads []envelope.ID // of its segments, as far as the manifest has come
	cold  *cold         // nil: it is asked for as a whole
}

// sealed is how many sealed segments a range touches, from number first on.
func (s *Session) sealed(r Range) (first, n uint64) {
	first = r.From / s.segment
	if end := (r.To + 1) / s.segment; end > first {
		n = end - first
	}
	return first, n
}

// byPieces sets a range aside for fetching by segments, if it is worth it. A
// second pass does without: a writer may have signed the end of a segment badly,
// and then nobody can send it by itself.
func (s *Session) byPieces(r Range) bool {
	p := s.pass
	_, n := s.sealed(r)
	if n < s.minCold || s.res.Passes > 1 || n > MaxManifest-p.manifest || len(p.lacks) == MaxPage {
		return false
	}
	p.manifest += n
	p.lacks = append(p.lacks, &lack{Range: r})
	return true
}

// askManifest asks for the heads of all segments we lack.
func (s *Session) askManifest() {
	m := Segments{Ranges: make([]Range, len(s.pass.lacks))}
	for i, l := range s.pass.lacks {
		first, n := s.sealed(l.Range)
		m.Ranges[i] = Range{Chain: l.Chain, From: first, To: first + n - 1}
	}
	s.say(m)
}

func (s *Session) onSegments(m Segments) error {
	if err := s.expect(KindSegments, transfer); err != nil {
		return err
	}
	p := s.pass
	if p.wantsHeard || p.pieceMeal {
		return blame("segments", ErrOrder)
	}
	p.pieceMeal = true
	total := uint64(0)
	for i, r := range m.Ranges {
		own, ok := p.find(r.Chain)
		if !ok || i > 0 && compareChains(m.Ranges[i-1].Chain, r.Chain) >= 0 || r.From > r.To || r.To >= (own.Seq+1)/s.segment {
			return blame("segments", fmt.Errorf("%d to %d: %w", r.From, r.To, ErrWant))
		}
		if total += r.To - r.From + 1; total > MaxManifest {
			return blame("segments", fmt.Errorf("%d: %w", total, space.ErrTooLarge))
		}
	}
	s.out = append(s.out, tellHeads(m.Ranges))
	return nil
}

// tellHeads answers with the heads of segments.
func tellHeads(ranges []Range) feed {
	return func(s *Session) (Msg, bool, error) {
		if s.pass.servedSaid {
			return nil, false, nil
		}
		r := &ranges[0]
		m := Manifest{Chain: r.Chain, First: r.From, Heads: []byte{}}
		ids, known := s.cfg.Replica.(envelope.IDs)
		for ; known && r.From <= r.To && len(m.Heads) < maxHeads*len(envelope.ID{}); r.From++ {
			var id envelope.ID
			if id, known = ids.IDAt(r.Chain, (r.From+1)*s.segment-1); known {
				m.Heads = append(m.Heads, id[:]...)
			}
		}
		if !known || r.From > r.To {
			ranges = ranges[1:]
		}
		m.Last = len(ranges) == 0
		return m, !m.Last, nil
	}
}

func (s *Session) onManifest(m Manifest) error {
	if err := s.expect(KindManifest, transfer); err != nil {
		return err
	}
	p := s.pass
	for p.heads < len(p.lacks) && p.lacks[p.heads].Chain != m.Chain {
		p.heads++
	}
	if !p.manifestAsked || p.manifestHeard || p.heads == len(p.lacks) {
		return blame("manifest", ErrOrder)
	}
	l := p.lacks[p.heads]
	first, n := s.sealed(l.Range)
	have, more := uint64(len(l.heads)), uint64(len(m.Heads)/len(envelope.ID{}))
	if m.First != first+have || more > n-have {
		return blame("manifest", fmt.Errorf("%d heads from %d, asked for %d from %d: %w", more, m.First, n, first, ErrUnasked))
	}
	for h := m.Heads; len(h) > 0; h = h[len(envelope.ID{}):] {
		l.heads = append(l.heads, envelope.ID(h[:len(envelope.ID{})]))
	}
	if !m.Last {
		return nil
	}
	s.turn()
	p.manifestHeard = true
	for _, l := range p.lacks {
		if len(l.heads) > 0 {
			l.cold = s.board.attach(s, l.Chain, l.From, s.segment, l.heads)
		}
		if l.cold != nil {
			p.colds = append(p.colds, l.cold)
		}
	}
	s.fetch()
	return nil
}

// fetch asks for further segments, and when there are none for the rest.
func (s *Session) fetch() {
	p := s.pass
	want := Want{Ranges: []Range{}}
	for most := s.board.most(p.colds, p.pieces); p.claimed < most; {
		c, piece, r := s.board.claim(s, p.colds, p.claimed > 0)
		if c == nil {
			break
		}
		p.claimed++
		p.asked = append(p.asked, asked{Range: r, of: c, piece: piece})
		want.Ranges = append(want.Ranges, r)
	}
	if p.claimed == 0 {
		want.Last, p.wantsSaid = true, true
		for _, l := range p.lacks {
			r, ok := l.Range, true
			if l.cold != nil {
				r.From, ok = s.board.reach(l.cold)
				r.From = max(r.From, l.From)
			}
			if ok && r.From <= r.To {
				want.Ranges = append(want.Ranges, r)
				p.asked = append(p.asked, asked{Range: r})
			}
		}
	}
	if len(want.Ranges) > 0 || want.Last {
		s.say(want)
	}
}

// onPiece takes a run of a segment, the first of p.asked. It is checked here: a
// run that waits is handed on by whoever brings what it waits for.
func (s *Session) onPiece(a *asked, m Envelopes) error {
	first, last := m.Run[0], m.Run[len(m.Run)-1]
	before := a.last
	if before == (envelope.ID{}) {
		before = s.board.link(a.piece, first.Seq())
	}
	switch {
	case before != envelope.ID{} && before != first.Prev():
		return blame("run", fmt.Errorf("sequence %d does not follow the segment before: %w", first.Seq(), space.ErrForged))
	case last.Seq() == a.piece.to && last.ID() != a.piece.head:
		return blame("run", fmt.Errorf("sequence %d is not what the manifest names: %w", last.Seq(), space.ErrForged))
	}
	if err := envelope.VerifyRun(m.Run); err != nil {
		return blame("run", err)
	}
	a.last = last.ID()
	chain, of := first.Chain(), a.of
	fresh, err := s.board.take(s, of, a.piece, m, func(m Envelopes) error { return s.deliver(chain, m) })
	if err != nil {
		return err
	}
	if s.shared = s.shared || fresh; !fresh {
		s.res.Duplicate += len(m.Run)
	}
	if r := s.pass.refused; r != nil && *r == chain {
		s.board.end(of)
	}
	return nil
}

// rangeDone takes note that all of a range has come.
func (s *Session) rangeDone(a asked) {
	p := s.pass
	if a.piece != nil {
		p.claimed--
		p.pieces++
	}
	if p.manifestHeard && !p.wantsSaid {
		s.fetch()
	}
}

// giveUp ends fetching by segments: the other side serves no more in this pass.
func (s *Session) giveUp() {
	p := s.pass
	p.asked, p.claimed, p.wantsSaid, p.manifestHeard = nil, 0, true, true
	s.board.leave(s)
	s.say(Want{Ranges: []Range{}, Last: true})
}

// End takes the session off the Board it shares with others, and tells an Idler.
// Run and Live do it; whoever drives a Session by hand does it when it is over.
func (s *Session) End() {
	s.board.leave(s)
	if r, ok := s.cfg.Replica.(Idler); ok {
		r.Idle()
	}
}
