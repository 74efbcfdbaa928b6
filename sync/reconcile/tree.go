package reconcile

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// The tree over chain ids: each level takes four bits of the id. A node's tag
// is a salted hash of the chains below it with their heads, zero if there are
// none. The sides answer each other level by level, with tags of the children
// of those nodes alone that differ.
const (
	fan      = 16
	minDepth = 2
	maxDepth = 4
	minTree  = 256 // fewer chains are named outright

	nodeChains = 4 // below a node of the last level
)

// depthFor leaves about nodeChains chains below a node.
func depthFor(chains int) int {
	depth := minDepth
	for n := fan * fan * nodeChains; n < chains && depth < maxDepth; n *= fan {
		depth++
	}
	return depth
}

// nodeOf is the node of a level that a chain is below.
func nodeOf(c envelope.ChainID, level int) uint32 {
	return uint32(binary.BigEndian.Uint16(c[:])) >> (4 * (maxDepth - level))
}

// tree is a descent under way.
type tree struct {
	depth  int
	own    []ownChain
	levels [][]Tag // by level and node

	level int      // of asked
	asked []uint32 // nodes whose tags we sent and that await an answer
	at    int      // how many of them have been answered for

	nodes []uint32 // of those answered for: the ones that differ
	diff  []byte   // a bit for each child of nodes: it differs
	deep  []uint32 // the children that differ
}

func (s *Session) newTree(own []ownChain, depth int) *tree {
	t := &tree{depth: depth, own: own, levels: make([][]Tag, depth+1)}
	t.levels[depth] = make([]Tag, 1<<(4*depth))
	h := sha256.New()
	for len(own) > 0 {
		node := nodeOf(own[0].Chain, depth)
		h.Reset()
		h.Write(s.salt[:])
		h.Write([]byte{tagLeaves})
		for len(own) > 0 && nodeOf(own[0].Chain, depth) == node {
			var seq [8]byte
			binary.BigEndian.PutUint64(seq[:], own[0].Seq)
			h.Write(own[0].Chain[:])
			h.Write(seq[:])
			h.Write(own[0].ID[:])
			own = own[1:]
		}
		t.levels[depth][node] = Tag(h.Sum(nil))
	}
	for k := depth - 1; k > 0; k-- {
		t.levels[k] = make([]Tag, 1<<(4*k))
		for i := range t.levels[k] {
			t.levels[k][i] = s.nodeTag(t.levels[k+1][i*fan : (i+1)*fan])
		}
	}
	return t
}

// nodeTag is the tag of the node with these children.
func (s *Session) nodeTag(children []Tag) Tag {
	var b [fan * len(Tag{})]byte
	some := false
	for i, c := range children {
		copy(b[i*len(c):], c[:])
		some = some || c != Tag{}
	}
	if !some {
		return Tag{}
	}
	return s.tag(tagNode, b[:])
}

// startTree is the follower's first word: the second level.
func (s *Session) startTree(own []ownChain) {
	t := s.newTree(own, depthFor(len(own)))
	s.pass, s.phase = &pass{tree: t}, descent
	all := make([]byte, fan/8)
	t.deep = make([]uint32, fan)
	for i := range t.deep {
		all[i/8] |= 1 << (i % 8)
		t.deep[i] = uint32(i)
	}
	t.level = 0
	s.sayTree(all)
}

// sayTree answers with a mask over what the other side told of, and with the
// tags of the children of t.deep, which are the nodes that the mask marks.
func (s *Session) sayTree(mask []byte) {
	t := s.pass.tree
	s.narrow(mask)
	level := t.level + 1 // of t.deep
	leaves := level == t.depth || len(t.deep) == 0
	deep := t.deep
	t.asked, t.at, t.level = nil, 0, level+1
	if !leaves {
		for _, n := range deep {
			for i := range uint32(fan) {
				t.asked = append(t.asked, n*fan+i)
			}
		}
	}
	tags := t.levels[min(level+1, t.depth)]
	depth := uint64(t.depth)
	t.nodes, t.diff, t.deep = nil, nil, nil
	s.out = append(s.out, func(*Session) (Msg, bool, error) {
		n := min(len(mask), MaxTreePage/8)
		m := Tree{Depth: depth, Mask: mask[:n:n], Tags: []byte{}, Last: n == len(mask)}
		for range ones(m.Mask) {
			if !leaves {
				for i := range uint32(fan) {
					c := tags[deep[0]*fan+i]
					m.Tags = append(m.Tags, c[:]...)
				}
			}
			deep = deep[1:]
		}
		mask = mask[n:]
		return m, !m.Last, nil
	})
	if leaves {
		nodes := slices.Clone(deep)
		s.pass = &pass{own: below(t.own, nodes, level), within: nodes, level: level}
		s.phase = transfer
		s.sayFrontier(s.pass.own)
	}
}

// narrow leaves in mask, and in the nodes it marks, as many as a pass may be about.
func (s *Session) narrow(mask []byte) {
	t := s.pass.tree
	from, to := s.window(len(t.deep), s.cfg.MaxNamed/nodeChains)
	for i, marked := 0, 0; i < 8*len(mask); i++ {
		if !bit(mask, i) {
			continue
		}
		if marked < from || marked >= to {
			mask[i/8] &^= 1 << (i % 8)
		}
		marked++
	}
	t.deep = t.deep[from:to]
}

func ones(mask []byte) int {
	n := 0
	for i := range 8 * len(mask) {
		if bit(mask, i) {
			n++
		}
	}
	return n
}

func bit(mask []byte, i int) bool { return mask[i/8]&(1<<(i%8)) != 0 }

// below are the chains below nodes of a level, both ascending.
func below(own []ownChain, nodes []uint32, level int) []ownChain {
	var out []ownChain
	for _, c := range own {
		if _, ok := slices.BinarySearch(nodes, nodeOf(c.Chain, level)); ok {
			out = append(out, c)
		}
	}
	return out
}

func (s *Session) onTree(m Tree) error {
	if err := s.expect(KindTree, awaitMode, descent); err != nil {
		return err
	}
	if s.phase == awaitMode {
		own, err := s.frontier()
		if err != nil {
			return fmt.Errorf("chains: %w", err)
		}
		t := s.newTree(own, int(m.Depth))
		s.pass, s.phase = &pass{tree: t}, descent
		t.level = 1
		for i := range uint32(fan) {
			t.asked = append(t.asked, i)
		}
	}
	t := s.pass.tree
	if err := t.take(m); err != nil {
		return blame("tree", err)
	}
	if !m.Last {
		return nil
	}
	s.turn()
	if t.level < t.depth && len(t.nodes) > 0 {
		s.sayTree(t.diff)
		return nil
	}
	s.pass = &pass{own: below(t.own, t.nodes, t.level), within: t.nodes, level: t.level, second: true}
	s.pass.covered = make([]bool, len(s.pass.own))
	s.phase = transfer
	return nil
}

// take reads one page of an answer.
func (t *tree) take(m Tree) error {
	left := len(t.asked) - t.at
	switch n := 8 * len(m.Mask); {
	case int(m.Depth) != t.depth,
		m.Last && (n < left || n >= left+8),
		!m.Last && (n != MaxTreePage || n >= left):
		return fmt.Errorf("mask of %d bits for %d nodes of depth %d: %w", n, left, m.Depth, space.ErrMalformed)
	}
	tags := m.Tags
	for i := range 8 * len(m.Mask) {
		if !bit(m.Mask, i) {
			continue
		}
		if i >= left {
			return fmt.Errorf("mask beyond its nodes: %w", space.ErrMalformed)
		}
		node := t.asked[t.at+i]
		t.nodes = append(t.nodes, node)
		if t.level == t.depth {
			continue
		}
		if len(tags) == 0 {
			return fmt.Errorf("no tags above the last level: %w", space.ErrMalformed)
		}
		var d [fan / 8]byte
		for k := range uint32(fan) {
			if child := node*fan + k; Tag(tags[:len(Tag{})]) != t.levels[t.level+1][child] {
				d[k/8] |= 1 << (k % 8)
				t.deep = append(t.deep, child)
			}
			tags = tags[len(Tag{}):]
		}
		t.diff = append(t.diff, d[:]...)
	}
	if len(tags) > 0 {
		return fmt.Errorf("tags below the last level: %w", space.ErrMalformed)
	}
	t.at += min(left, 8*len(m.Mask))
	return nil
}
