package reconcile

import (
	"cmp"
	"fmt"

	"github.com/kithnet/kith/space/envelope"
)

// changes is what a side has that differs from a base.
type changes struct {
	known []Change
	fresh []FreshChain
}

// agreement is a base and what we said has changed since.
type agreement struct {
	base *base
	mine changes
}

// changes compares our chains with a base. Not ok: there are more than limit,
// or we have lost a chain since.
func (s *Session) changes(b *base, limit int) (ch changes, ok bool, err error) {
	ch = changes{known: []Change{}, fresh: []FreshChain{}}
	at := 0
	for c, err := range s.cfg.Replica.Chains() {
		if err != nil {
			return ch, false, fmt.Errorf("chains: %w", err)
		}
		switch {
		case at < len(b.chains) && b.chains[at] == c.ID:
			if c.Head.Seq != b.seqs[at] || closed(c) {
				ch.known = append(ch.known, Change{
					Index: uint64(at), Seq: c.Head.Seq, Tag: s.headTag(c.Head.ID), Forked: closed(c),
				})
			}
			at++
		case at < len(b.chains) && compareChains(b.chains[at], c.ID) < 0:
			return ch, false, nil
		default:
			ch.fresh = append(ch.fresh, FreshChain{
				Chain: c.ID, Seq: c.Head.Seq, Tag: s.headTag(c.Head.ID), Forked: closed(c),
			})
		}
		if len(ch.known)+len(ch.fresh) > limit {
			return ch, false, nil
		}
	}
	return ch, at == len(b.chains), nil
}

// closed reports whether a chain takes nothing more: it has forked and stands
// right below.
func closed(c envelope.Chain) bool { return c.Forked && c.Head.Seq+1 >= c.Fork }

// tip is the end of a chain as one side has it.
type tip struct {
	held, stated, forked bool // stated: tag is known
	seq                  uint64
	tag                  Tag
}

// lacks is what x lacks of a chain that y has.
func (x tip) lacks(y tip, c envelope.ChainID) (Range, bool) {
	switch {
	case !y.held || x.forked:
		return Range{}, false
	case !x.held:
		return Range{Chain: c, To: y.seq}, true
	}
	return Range{Chain: c, From: x.seq + 1, To: y.seq}, x.seq < y.seq
}

// differ is what two sides lack of each other, in the order in which it is
// sent, and which chains have forked. Both sides compute it from the same
// statements.
type differ struct {
	lackX, lackY []Range
	forked       []envelope.ChainID
}

func (d *differ) compare(c envelope.ChainID, x, y tip) {
	if r, ok := x.lacks(y, c); ok {
		d.lackX = append(d.lackX, r)
	}
	if r, ok := y.lacks(x, c); ok {
		d.lackY = append(d.lackY, r)
	}
	if x.forked || y.forked || x.stated && y.stated && x.seq == y.seq && x.tag != y.tag {
		d.forked = append(d.forked, c)
	}
}

// diff compares what two sides have, by what each says differs from the base.
func (b *base) diff(x, y changes) differ {
	var d differ
	for len(x.known)+len(y.known) > 0 {
		order := compareFirst(x.known, y.known, func(p, q Change) int { return cmp.Compare(p.Index, q.Index) })
		var i uint64
		if order <= 0 {
			i = x.known[0].Index
		} else {
			i = y.known[0].Index
		}
		tx, ty := tip{held: true, seq: b.seqs[i]}, tip{held: true, seq: b.seqs[i]}
		if order <= 0 {
			tx, x.known = x.known[0].tip(), x.known[1:]
		}
		if order >= 0 {
			ty, y.known = y.known[0].tip(), y.known[1:]
		}
		d.compare(b.chains[i], tx, ty)
	}
	for len(x.fresh)+len(y.fresh) > 0 {
		order := compareFirst(x.fresh, y.fresh, func(p, q FreshChain) int { return compareChains(p.Chain, q.Chain) })
		var tx, ty tip
		var c envelope.ChainID
		if order <= 0 {
			c, tx, x.fresh = x.fresh[0].Chain, x.fresh[0].tip(), x.fresh[1:]
		}
		if order >= 0 {
			c, ty, y.fresh = y.fresh[0].Chain, y.fresh[0].tip(), y.fresh[1:]
		}
		d.compare(c, tx, ty)
	}
	return d
}

// compareFirst says whose first element comes first; nothing comes last.
func compareFirst[T any](x, y []T, order func(T, T) int) int {
	switch {
	case len(x) == 0:
		return 1
	case len(y) == 0:
		return -1
	}
	return order(x[0], y[0])
}

func (c Change) tip() tip {
	return tip{held: true, stated: true, forked: c.Forked, seq: c.Seq, tag: c.Tag}
}

func (c FreshChain) tip() tip {
	return tip{held: true, stated: true, forked: c.Forked, seq: c.Seq, tag: c.Tag}
}

// startVector begins a pass in which nothing is asked for: both sides know
// what both have. Who owes nothing says nothing.
func (s *Session) startVector(b *base, mine, theirs changes) error {
	if n := len(theirs.known); n > 0 && theirs.known[n-1].Index >= uint64(len(b.chains)) {
		return blame("changes", fmt.Errorf("no chain %d in the base: %w", theirs.known[n-1].Index, ErrFrontier))
	}
	for _, f := range theirs.fresh {
		if b.has(f.Chain) {
			return blame("changes", fmt.Errorf("a chain of the base: %w", ErrFrontier))
		}
	}
	d := b.diff(mine, theirs)
	for _, c := range d.forked {
		s.noteFork(c)
	}
	s.pass = &pass{
		asked: askedFor(d.lackX), owes: len(d.lackY) > 0, frontierHeard: true, wantsHeard: true,
		servedHeard: len(d.lackX) == 0, servedSaid: len(d.lackY) == 0,
	}
	s.phase = transfer
	if len(d.lackY) > 0 {
		s.out = append(s.out, serve(d.lackY), (*Session).sayServed)
	}
	return s.settle()
}

func askedFor(ranges []Range) []asked {
	var out []asked
	for _, r := range ranges {
		out = append(out, asked{Range: r})
	}
	return out
}

// vector states our set by what has changed since a base.
func (s *Session) vector(b *base, ch changes) Vector {
	m := Vector{Past: s.res.Past, Count: s.mine.Count, Digest: s.mine.Digest[:], Changes: ch.known, Fresh: ch.fresh}
	if s.mine.Digest == b.digest && s.mine.Count == b.count && len(ch.known)+len(ch.fresh) == 0 {
		m.Count, m.Digest = 0, []byte{}
	}
	return m
}

func (s *Session) onVector(m Vector) error {
	if err := s.expect(KindVector, awaitAnswer); err != nil {
		return err
	}
	if s.eager.base == nil {
		return blame("vector: no base was named", ErrOrder)
	}
	s.answered()
	b := s.eager.base
	s.theirs = Digest{Epoch: s.res.Epoch, Count: m.Count, Digest: b.digest}
	if len(m.Digest) == 0 {
		s.theirs.Count = b.count
	} else {
		s.theirs.Digest = [32]byte(m.Digest)
	}
	if s.theirs == s.mine {
		return blame("vector", ErrVerdict)
	}
	s.res.Past = m.Past
	s.nextPass()
	return s.startVector(b, s.eager.mine, changes{m.Changes, m.Fresh})
}
