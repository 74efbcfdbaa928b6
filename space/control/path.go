package control

import (
	"fmt"

	"github.com/kithnet/kith/space"
)

// ErrDepth: a path of delegations longer than MaxDelegationDepth.
var ErrDepth = fmt.Errorf("more than %d spaces within each other: %w", MaxDelegationDepth, space.ErrDelegationDepth)

// MaxResolve bounds the spaces that one Resolve visits.
const MaxResolve = 4096

// Edge says that the space Child is a member at Level.
type Edge struct {
	Child [32]byte
	Level space.Level
}

// Node is what Resolve asks of one space: the level that the person has in it
// directly, LevelNone if it has none, and the spaces it delegates to.
type Node struct {
	Level space.Level
	Edges []Edge
}

// PathLevel is the level at the end of a path of delegations: the lowest on
// it. The empty path leaves everything.
func PathLevel(edges ...space.Level) space.Level {
	l := space.LevelWrite
	for _, e := range edges {
		l = min(l, e)
	}
	return l
}

// Resolve gives a person's level in the space root: the highest over all paths
// of delegations of the lowest level on each, whatever the order of the edges.
// look answers for one space; its error ends the search. A path that would
// still improve something after MaxDelegationDepth steps is ErrDepth: nothing
// is cut off in silence. Paths that come back to a space improve nothing.
func Resolve(root [32]byte, look func(space [32]byte) (Node, error)) (space.Level, error) {
	best := map[[32]byte]space.Level{}  // what some path to a space leaves of a level
	layer := map[[32]byte]space.Level{} // what paths of the present length improved
	layer[root] = space.LevelWrite
	nodes := map[[32]byte]Node{}
	level := space.LevelNone
	for depth := 0; len(layer) > 0; depth++ {
		if depth > MaxDelegationDepth {
			return space.LevelNone, ErrDepth
		}
		for id, l := range layer {
			best[id] = l
		}
		next := map[[32]byte]space.Level{}
		for id, l := range layer {
			n, ok := nodes[id]
			if !ok {
				if len(nodes) == MaxResolve {
					return space.LevelNone, fmt.Errorf("resolve: %w: more than %d spaces", space.ErrTooLarge, MaxResolve)
				}
				var err error
				if n, err = look(id); err != nil {
					return space.LevelNone, fmt.Errorf("resolve %x: %w", id[:4], err)
				}
				nodes[id] = n
			}
			level = max(level, PathLevel(l, n.Level))
			for _, e := range n.Edges {
				if through := PathLevel(l, e.Level); through > max(best[e.Child], next[e.Child]) {
					next[e.Child] = through
				}
			}
		}
		layer = next
	}
	return level, nil
}
