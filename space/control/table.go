package control

import (
	"cmp"

	"github.com/tidwall/btree"
)

// table is a sorted map that changes by making another one; both share the
// nodes that stayed the same. The zero table is empty.
//
// btree.Map marks the nodes it may write in place with an owner id. Its own
// Copy writes a new id into the map it copies, so two goroutines could not
// take copies of one state. with therefore copies the struct (which leaves the
// original alone), writes to the copy, and then has Copy give it an id that
// none of its nodes bear: from there on nobody can write to them.
type table[K cmp.Ordered, V any] struct{ m btree.Map[K, V] }

func (t table[K, V]) with(k K, v V) table[K, V] {
	t.m.Set(k, v)
	t.m.Copy()
	return t
}

func (t table[K, V]) without(k K) table[K, V] {
	t.m.Delete(k)
	t.m.Copy()
	return t
}

func (t *table[K, V]) get(k K) (V, bool) { return t.m.Get(k) }

func (t *table[K, V]) scan(f func(K, V) bool) { t.m.Scan(f) }
