package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// Keys and values are what their description says, made from the primitives.
func TestLayoutOfARow(t *testing.T) {
	id, dek := [32]byte{1}, [32]byte{2}
	idx := space.KDF(dek[:], space.LabelStoreIndex, nil, 32)
	enc := space.KDF(dek[:], space.LabelStoreDEK, nil, 32)
	mac := func(parts ...string) []byte {
		sum := space.MAC(idx, space.LabelStoreIndex, []byte(strings.Join(parts, "")))
		return sum[:]
	}
	author, path := testAuthor, testPath(7)
	want := append([]byte(nil), mac(string(id[:]))[:16]...)
	want = append(want, 'r')
	want = append(want, mac("r", string(author))[:12]...)
	want = append(want, mac("r", string(author), "\x00", string(path.Collection), "\x00", string(path.Key))[:16]...)

	w := must[*rows](t)(newVault(id, dek).rows())
	got := bytes.Clone(w.record(author, path))
	equal(t, "key", got, want)
	aead, err := chacha20poly1305.NewX(enc)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 3 {
		w.put(got, fmt.Append(nil, "plain ", i))
		value := lastValue(w)
		count, n := binary.Uvarint(value[16:])
		nonce := binary.BigEndian.AppendUint64(bytes.Clone(value[:16]), count)
		plain, err := aead.Open(nil, nonce, value[16+n:], got)
		if err != nil || string(plain) != fmt.Sprint("plain ", i) {
			t.Fatalf("%q, %v", plain, err)
		}
		if seen[string(nonce)] {
			t.Error("a nonce came twice")
		}
		seen[string(nonce)] = true
		opened, err := w.v.open(got, value)
		equal(t, "opened", []any{opened, err}, []any{plain, nil})
	}
}

// lastValue is what was put last.
func lastValue(w *rows) []byte {
	var last lastPut
	_ = w.batch.replay(&last)
	return bytes.Clone(last.value)
}

type lastPut struct{ value []byte }

func (l *lastPut) Put(_, value []byte) { l.value = value }
func (l *lastPut) Delete([]byte)       {}

// No two rows share a key, and none is a prefix of another's listing.
func TestKeysDiffer(t *testing.T) {
	b := newVault([32]byte{1}, [32]byte{2}).blinder()
	c, d := newChain(t, 1, 2), newChain(t, 1, 3)
	other := newChain(t, 4, 2)
	keys := map[string]string{}
	add := func(what string, key []byte) {
		if was, ok := keys[string(key)]; ok {
			t.Errorf("%s has the key of %s", what, was)
		}
		keys[string(key)] = what
	}
	for i, m := range []*chainMaker{c, d, other} {
		for _, tab := range []table{tableCert, tableHead, tableApplied} {
			add(fmt.Sprint("chain ", i, tab), b.chain(tab, m.topic, m.chain.ID))
		}
		for _, tab := range []table{tableSegment, tableIDs, tableThinned} {
			for seq := range uint64(2) {
				b.run(tab, m.topic, m.chain.ID)
				add(fmt.Sprint("run ", i, tab, seq), b.number(seq))
			}
		}
	}
	add("topic", b.topic(c.topic))
	add("other topic", b.topic(other.topic))
	for _, did := range []space.DID{"did:web:a", "did:web:b"} {
		for _, p := range []space.Path{{Collection: "a.b.c", Key: "d"}, {Collection: "a.b", Key: "c"}, {Collection: "a.b", Key: "d"}} {
			add(fmt.Sprint("record ", did, p), b.record(did, p))
		}
		add(fmt.Sprint("repo ", did), b.author(tableRepo, did, macSize))
	}
	for n := range uint64(2) {
		add(fmt.Sprint("control ", n), b.numbered(tableControl, n))
		add(fmt.Sprint("outbox ", n), b.numbered(tableOutbox, n))
	}
	for _, name := range []string{"", "a", "ab"} {
		add("meta "+name, b.name(name))
		for _, k := range []string{"", "b", "bb"} {
			add("setting "+name+"/"+k, b.setting(name, []byte(k)))
		}
	}
}

// A value opens at its own key alone, and only whole.
func TestValuesAreBound(t *testing.T) {
	v := newVault([32]byte{1}, [32]byte{2})
	w := must[*rows](t)(v.rows())
	key := bytes.Clone(w.name("a"))
	w.put(key, []byte("plain"))
	value := lastValue(w)
	if plain, err := v.open(key, value); err != nil || string(plain) != "plain" {
		t.Fatalf("%q, %v", plain, err)
	}
	if _, err := v.open(bytes.Clone(w.name("b")), value); !errors.Is(err, ErrDamaged) {
		t.Error("opens at another key", err)
	}
	for i := range value {
		bad := bytes.Clone(value)
		bad[i] ^= 1
		if _, err := v.open(key, bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("opens with byte %d flipped: %v", i, err)
		}
		if _, err := v.open(key, value[:i]); !errors.Is(err, ErrDamaged) {
			t.Errorf("opens when cut at %d: %v", i, err)
		}
	}
	if _, err := newVault([32]byte{1}, [32]byte{3}).open(key, value); !errors.Is(err, ErrDamaged) {
		t.Error("opens under another key", err)
	}
}

// A row that was moved by whoever can write to the disk is missed or refused.
func TestMovedRow(t *testing.T) {
	st := openMemory(t)
	sp := st.Space([32]byte{1}, [32]byte{2})
	commit(t, sp, Own, &Batch{Control: []ControlRow{{0, []byte("zero")}, {1, []byte("one")}}})
	b := sp.vault.blinder()
	zero := bytes.Clone(b.numbered(tableControl, 0))
	value := must[[]byte](t)(st.engine.db.Get(zero, nil))
	if err := st.engine.db.Put(b.numbered(tableControl, 1), value, nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	for row, err := range sp.Control() {
		if n++; n == 2 && !errors.Is(err, ErrDamaged) {
			t.Errorf("moved row reads %q, %v", row.Raw, err)
		}
	}
	audit, err := sp.Audit(t.Context(), false)
	if err != nil || audit.Unreadable != 1 || audit.ControlHave != 1 || audit.OK() {
		t.Errorf("audit: %+v, %v", audit, err)
	}
}

// Audit names what is missing, and Repair makes the rest add up.
func TestAudit(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, st *Store, sp *Space, ch *chainMaker)
		want  func(ch *chainMaker) Audit
	}{
		"segment lost": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				deleteRow(t, st, sp, func(b *blinder) []byte { b.run(tableSegment, ch.topic, ch.chain.ID); return b.number(10) })
			},
			func(ch *chainMaker) Audit { return gapAt(ch, 10, 30) },
		},
		"ids lost": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				deleteRow(t, st, sp, func(b *blinder) []byte { b.run(tableIDs, ch.topic, ch.chain.ID); return b.number(10) })
			},
			func(ch *chainMaker) Audit { return gapAt(ch, 10, 30) },
		},
		"certificate lost": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				deleteRow(t, st, sp, func(b *blinder) []byte { return b.chain(tableCert, ch.topic, ch.chain.ID) })
			},
			func(ch *chainMaker) Audit {
				return Audit{Gaps: []Gap{{ch.topic, ch.chain.ID, 30, 30}}, ControlHave: 1, ControlWant: 1}
			},
		},
		"topic lost": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				deleteRow(t, st, sp, func(b *blinder) []byte { return b.topic(ch.topic) })
			},
			func(ch *chainMaker) Audit {
				return Audit{Topics: []envelope.TopicID{ch.topic}, ControlHave: 1, ControlWant: 1}
			},
		},
		"set hash of others": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				commit(t, sp, Own, &Batch{Topic: &TopicRow{ID: ch.topic, Count: 60}})
			},
			func(ch *chainMaker) Audit {
				return Audit{Topics: []envelope.TopicID{ch.topic}, ControlHave: 1, ControlWant: 1}
			},
		},
		"old head is back": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				old := newChain(t, 1, 2)
				commit(t, sp, Own, &Batch{Run: old.next(10)})
			},
			func(ch *chainMaker) Audit { return gapAt(ch, 30, 10) },
		},
		"record lost": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				deleteRow(t, st, sp, func(b *blinder) []byte { return b.record(testAuthor, testPath(1)) })
			},
			func(ch *chainMaker) Audit {
				return Audit{Repos: []space.DID{testAuthor}, ControlHave: 1, ControlWant: 1}
			},
		},
		"ops lost": {
			func(t *testing.T, st *Store, sp *Space, ch *chainMaker) {
				deleteRow(t, st, sp, func(b *blinder) []byte { b.author(tableOps, testAuthor, macSize); return b.number(0) })
			},
			func(ch *chainMaker) Audit {
				return Audit{Repos: []space.DID{testAuthor}, ControlHave: 1, ControlWant: 1}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := openMemory(t)
			sp := st.Space([32]byte{1}, [32]byte{2})
			ch, sound, a := newChain(t, 1, 2), newChain(t, 1, 3), newAuthor(t, testAuthor)
			topic := TopicRow{ID: ch.topic}
			for range 3 {
				for _, m := range []*chainMaker{ch, sound} {
					b := &Batch{Run: m.next(10), Topic: &topic, Control: []ControlRow{{0, []byte("x")}}}
					fold(&topic, b.Run.Envs)
					a.write(b, 0, 3, "v")
					commit(t, sp, Own, b)
				}
			}
			c.spoil(t, st, sp, ch)
			found, err := sp.Audit(t.Context(), true)
			equal(t, "audit", []any{*found, err}, []any{c.want(ch), nil})
			if found.OK() {
				t.Error("OK in spite of that")
			}
			if name == "ids lost" {
				found, err := sp.Audit(t.Context(), false)
				equal(t, "index audit", []any{*found, err}, []any{c.want(ch), nil})
			}
			repaired(t, name, sp, 60)
			run, err := sp.Run(sound.topic, sound.chain.ID, 0, 100, 1<<20)
			equal(t, "sound chain", []any{len(run), err}, []any{30, nil})
		})
	}
}

func gapAt(ch *chainMaker, have, want uint64) Audit {
	return Audit{
		Gaps: []Gap{{ch.topic, ch.chain.ID, have, want}}, Topics: []envelope.TopicID{ch.topic},
		ControlHave: 1, ControlWant: 1,
	}
}

func deleteRow(t *testing.T, st *Store, sp *Space, key func(*blinder) []byte) {
	t.Helper()
	k := sp.key(key)
	if _, err := st.engine.db.Get(k, nil); err != nil {
		t.Fatal(err)
	}
	if err := st.engine.db.Delete(k, nil); err != nil {
		t.Fatal(err)
	}
}
