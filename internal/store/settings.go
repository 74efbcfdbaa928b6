package store

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
)

// Put stores a setting of the node: small things, sealed like all else.
func (s *Store) Put(table string, key, value []byte, c Class) error {
	w, err := s.node.rows()
	if err != nil {
		return fmt.Errorf("put %s: %w", table, err)
	}
	defer w.free()
	w.plain = append(appendText(w.plain[:0], key), value...)
	w.put(w.setting(table, key), w.plain)
	if err := s.write(c, w.batch); err != nil {
		return fmt.Errorf("put %s: %w", table, err)
	}
	return nil
}

// Read reads a setting; false if there is none.
func (s *Store) Read(table string, key []byte) ([]byte, bool, error) {
	b := s.node.blinder()
	defer s.node.done(b)
	plain, ok, err := s.get(s.node, b.setting(table, key))
	if err != nil || !ok {
		return nil, false, err
	}
	kv, err := decodeKV(plain)
	return kv.Value, err == nil, err
}

// Delete deletes a setting. That there is none is no error.
func (s *Store) Delete(table string, key []byte, c Class) error {
	b := s.node.blinder()
	defer s.node.done(b)
	w := newBatch()
	defer w.free()
	w.Delete(b.setting(table, key))
	if err := s.write(c, w); err != nil {
		return fmt.Errorf("delete %s: %w", table, err)
	}
	return nil
}

// List gives the settings of a table by ascending key. It holds the whole
// table in memory.
func (s *Store) List(table string) iter.Seq2[KV, error] {
	b := s.node.blinder()
	p := bytes.Clone(b.settings(table))
	s.node.done(b)
	return func(yield func(KV, error) bool) {
		var all []KV
		rows := list(s, s.node, p, func(_ *reader, r row) (KV, error) { return decodeKV(r.plain) })
		for kv, err := range rows {
			if err != nil {
				yield(KV{}, err)
				return
			}
			all = append(all, kv)
		}
		slices.SortFunc(all, func(a, b KV) int { return bytes.Compare(a.Key, b.Key) })
		for _, kv := range all {
			if !yield(kv, nil) {
				return
			}
		}
	}
}
