package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// secretForms are the ways 32 bytes may show in a text.
func secretForms(b []byte) []string {
	dec := make([]string, 6)
	for i := range dec {
		dec[i] = strconv.Itoa(int(b[i]))
	}
	h := hex.EncodeToString(b[:8])
	return []string{
		string(b[:8]), h, strings.ToUpper(h), base64.StdEncoding.EncodeToString(b)[:10],
		strings.Join(dec, " "), strings.Join(dec, ", "), strings.Join(dec, ","),
		fmt.Sprintf("%#v", b)[8:40],
	}
}

// nest hides a key in an unexported field, where fmt does not ask its methods.
type nest struct {
	inner any
	Outer any
}

func TestKeysAreOpaque(t *testing.T) {
	r := random(20)
	gk := must(NewGroupKey(r))
	issuer, wk := must(NewIssuer(r)), must(NewWriterKey(r))
	self := must(Full(gk).Self(person(1)))
	e := newEpoch(21)
	w, run := e.chain(person(1))
	reader := e.reader(w)
	if _, err := drain(reader, run); err != nil {
		t.Fatal(err)
	}
	pair := must(PairKey([32]byte{1}, puk(1, 1), person(1), puk(1, 2).Public(), person(2)))
	ak, ck := gk.Author(person(1)), gk.Control()
	must(w.Seal(e.rand, envelope.Entry, text(9)))
	entryKey := w.entry.out[:]
	for _, v := range []struct {
		key     any
		zero    func() // use of the zero value
		secrets [][]byte
	}{
		{gk, func() { GroupKey{}.KID() }, [][]byte{gk.Marshal()}},
		{ak, func() { AuthorKey{}.Marshal() }, [][]byte{ak.Marshal()}},
		{ck, func() { ControlKey{}.Bytes() }, [][]byte{ck.Bytes()}},
		{issuer, func() { Issuer{}.Topic() }, [][]byte{issuer.Marshal()}},
		{wk, func() { WriterKey{}.Public() }, [][]byte{wk.Marshal()}},
		{pair, func() { PairTag(Pair{}, [32]byte{}, 1, envelope.ChainID{}) }, [][]byte{pair.raw()}},
		{self, func() { Keys{}.Fetch() }, [][]byte{self.self.raw(), self.ctl.raw(), self.fetch.raw()}},
		{Full(gk), func() { Keys{}.Marshal() }, [][]byte{gk.raw()}},
		{e.credential(person(1)), func() { Credential{}.Marshal() }, nil},
		{Welcome{keys: Full(gk)}, nil, [][]byte{gk.raw(), ck.raw()}},
		{w, nil, [][]byte{w.chain.raw(), w.chain.key(), w.hello.raw(), entryKey}},
		{reader, nil, [][]byte{e.keys.group.raw(), e.keys.ctl.raw(), reader.entry.at(9)}},
	} {
		typ := reflect.TypeOf(v.key)
		t.Run(strings.ReplaceAll(typ.String(), "*", ""), func(t *testing.T) {
			if typ.Kind() != reflect.Pointer && typ.Comparable() {
				t.Error("comparable")
			}
			if _, ok := v.key.(fmt.Stringer); ok {
				t.Error("has a String method")
			}
			if c, ok := v.key.(Credential); ok {
				v.secrets = [][]byte{c.Writer.raw()}
			}
			out := shown(v.key)
			for _, s := range v.secrets {
				for _, form := range secretForms(s) {
					if strings.Contains(out, form) {
						i := strings.Index(out, form)
						t.Errorf("shows %q in %.150q", form, out[max(0, i-100):])
					}
				}
			}
			if v.zero != nil {
				mustPanic(t, v.zero)
			}
		})
	}
}

// shown is everything that an unwary line of code prints or stores of v.
func shown(v any) string {
	var b strings.Builder
	for _, x := range []any{v, &v, nest{v, v}, &nest{v, v}, []any{v}, map[string]any{"k": v}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%s", "%q", "%d"} {
			fmt.Fprintf(&b, verb+"\n", x)
		}
	}
	js, _ := json.Marshal(v)
	b.Write(js)
	js, _ = json.Marshal(nest{v, v})
	b.Write(js)
	cb, _ := cbor.Marshal(v)
	b.Write(cb)
	dr, _ := space.Marshal(v)
	b.Write(dr)
	_ = gob.NewEncoder(&b).Encode(v)
	slog.New(slog.NewTextHandler(&b, nil)).Info("key", "key", v, "nest", nest{v, v})
	slog.New(slog.NewJSONHandler(&b, nil)).Info("key", "key", v, "nest", nest{v, v})
	return b.String()
}

func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("zero value did not panic")
		}
	}()
	f()
}

func TestLogValue(t *testing.T) {
	gk := must(UnmarshalGroupKey(fill(0x22, 32)))
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("m", "a", gk, "b", Full(gk), "c", GroupKey{}, "d", gk.Control())
	line := b.String()
	fp := gk.LogValue().String()
	if !strings.HasPrefix(fp, "key:") || len(fp) != 12 {
		t.Errorf("fingerprint %q", fp)
	}
	if strings.Count(line, fp) != 2 || !strings.Contains(line, "c=key:none") || strings.Count(line, "key:") != 4 {
		t.Errorf("logged %s", line)
	}
	for _, s := range []string{fmt.Sprint(gk), fmt.Sprintf("%x", gk), fmt.Sprintf("%+v", Full(gk)), fmt.Sprintf("%s", must(NewWriterKey(random(1))))} {
		if !strings.HasPrefix(s, "key:") || len(s) != 12 {
			t.Errorf("prints %q", s)
		}
	}
	for _, f := range []func() error{
		func() error { _, err := json.Marshal(gk); return err },
		func() error { _, err := json.Marshal(Full(gk)); return err },
		func() error { _, err := gk.MarshalText(); return err },
		func() error { return gob.NewEncoder(io.Discard).Encode(gk) },
		func() error { return gob.NewEncoder(io.Discard).Encode(Full(gk)) },
	} {
		if err := f(); !errors.Is(err, errOpaque) {
			t.Errorf("marshals: %v", err)
		}
	}
}

func TestKeyRoundTrips(t *testing.T) {
	r := random(22)
	gk := must(NewGroupKey(r))
	if !must(UnmarshalGroupKey(gk.Marshal())).Equal(gk) || gk.Equal(must(NewGroupKey(r))) {
		t.Error("group key")
	}
	ak := gk.Author(person(1))
	if !must(UnmarshalAuthorKey(ak.Marshal())).Equal(ak) || ak.Equal(gk.Author(person(2))) {
		t.Error("author key")
	}
	if ck := gk.Control(); !must(UnmarshalControlKey(ck.Bytes())).Equal(ck) {
		t.Error("control key")
	}
	issuer := must(NewIssuer(r))
	if must(UnmarshalIssuer(issuer.Marshal())).Topic() != issuer.Topic() {
		t.Error("issuer")
	}
	for n, c := range map[int]Keys{32: Full(gk), 96: must(Full(gk).Self(person(1)))} {
		b := c.Marshal()
		again, err := UnmarshalKeys(b, person(1))
		if err != nil || len(b) != n || !bytes.Equal(again.Marshal(), b) {
			t.Errorf("keys of %d bytes: %v", n, err)
		}
		if !again.Control().Equal(c.Control()) || !again.Fetch().Equal(c.Fetch()) || !again.Fetch().Equal(gk.Fetch()) {
			t.Errorf("keys of %d bytes differ", n)
		}
		if _, err := again.Author(person(1)); err != nil {
			t.Error(err)
		}
		if _, err := again.Author(person(2)); (err == nil) != (n == 32) {
			t.Errorf("another's key of %d bytes: %v", n, err)
		}
		if _, err := again.Group(); (err == nil) != (n == 32) {
			t.Errorf("group key of %d bytes: %v", n, err)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 32), fill(1, 31), fill(1, 33), fill(1, 64), make([]byte, 96)} {
		if _, err := UnmarshalKeys(b, person(1)); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("keys of %x: %v", b, err)
		}
		if _, err := UnmarshalGroupKey(b); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("group key of %x: %v", b, err)
		}
	}
	if _, err := NewGroupKey(broken{}); err == nil {
		t.Error("a key without randomness")
	}
	if _, err := NewIssuer(broken{}); err == nil {
		t.Error("an issuer without randomness")
	}
}

// TestKeyTree checks every branch against the derivation as written.
func TestKeyTree(t *testing.T) {
	raw := fill(0x22, 32)
	gk := must(UnmarshalGroupKey(raw))
	c := person(3)
	for name, v := range map[string]struct {
		got   []byte
		label space.Label
		ctx   []byte
	}{
		"control": {gk.Control().Bytes(), space.LabelCtl, nil},
		"author":  {gk.Author(c).Marshal(), space.LabelAuthor, c[:]},
		"fetch":   {gk.Fetch().Seed(), space.LabelFetch, nil},
		"hello":   {gk.helloKey().raw(), space.LabelHelloKey, nil},
	} {
		if want := space.KDF(raw, v.label, v.ctx, 32); !bytes.Equal(v.got, want) {
			t.Errorf("%s = %x, want %x", name, v.got, want)
		}
	}
	if kid := gk.KID(); gk.CheckKID(kid) != nil {
		t.Error("own kid refused")
	}
	if err := gk.CheckKID([32]byte{1}); !errors.Is(err, space.ErrForged) {
		t.Errorf("kid: %v", err)
	}
}

func TestClear(t *testing.T) {
	gk := must(NewGroupKey(random(23)))
	other, held := gk, gk.at()
	gk.Clear()
	GroupKey{}.Clear()
	Issuer{}.Clear()
	if !other.IsZero() || held.k != [32]byte{} {
		t.Error("the key is still there")
	}
	mustPanic(t, func() { other.KID() })
	i := must(NewIssuer(random(24)))
	i.Clear()
	mustPanic(t, func() { i.Public() })
}

func TestPairKey(t *testing.T) {
	sp := [32]byte{1}
	alice, bob := puk(1, 1), puk(2, 2)
	a, b := person(9), person(4)
	chain := envelope.ChainID{5}
	tag := func(p Pair) [16]byte { return PairTag(p, sp, 7, chain) }
	ab := must(PairKey(sp, alice, a, bob.Public(), b))
	ba := must(PairKey(sp, bob, b, alice.Public(), a))
	if tag(ab) != tag(ba) || !CheckTag(ba, sp, 7, chain, tag(ab)) {
		t.Error("the two sides differ")
	}

	// As written: KDF(Extract(salt=space, dh), "hello/pair", lower ‖ higher).
	dh := must(alice.DH().ECDH(bob.DH().PublicKey()))
	extract := hmac.New(sha256.New, sp[:])
	extract.Write(dh)
	ctx := append(binary.BigEndian.AppendUint32(b[:], 2), binary.BigEndian.AppendUint32(a[:], 1)...)
	want := space.MAC(space.KDF(extract.Sum(nil), space.LabelHelloPair, ctx, 32), space.LabelHello,
		sp[:], binary.BigEndian.AppendUint64(nil, 7), chain[:])
	if got := tag(ab); !bytes.Equal(got[:], want[:16]) {
		t.Errorf("tag = %x, want %x", got, want[:16])
	}

	for name, other := range map[string][16]byte{
		"space":      tag(must(PairKey([32]byte{2}, alice, a, bob.Public(), b))),
		"generation": tag(must(PairKey(sp, alice, a, puk(3, 2).Public(), b))),
		"person":     tag(must(PairKey(sp, alice, a, bob.Public(), person(5)))),
		"key":        tag(must(PairKey(sp, alice, a, puk(2, 3).Public(), b))),
		"place":      PairTag(ab, [32]byte{3}, 7, chain),
		"epoch":      PairTag(ab, sp, 8, chain),
		"chain":      PairTag(ab, sp, 7, envelope.ChainID{6}),
	} {
		if other == tag(ab) || CheckTag(ab, sp, 7, chain, other) {
			t.Errorf("%s is not bound", name)
		}
	}
	if _, err := PairKey(sp, alice, a, alice.Public(), a); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("with itself: %v", err)
	}
	weak := bob.Public()
	weak.DH = make([]byte, 32)
	if _, err := PairKey(sp, alice, a, weak, b); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("low order key: %v", err)
	}
}
