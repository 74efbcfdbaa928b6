package identity

import (
	"bytes"
	"testing"

	"github.com/kithnet/kith/space"
)

// FuzzEntry: an entry that parses is written again as the same bytes, and one
// that applies says what the state it leaves says.
func FuzzEntry(f *testing.F) {
	log := alice().Log
	for _, raw := range log {
		f.Add(raw)
		f.Add(raw[:len(raw)-1])
	}
	f.Add([]byte{})
	f.Add([]byte{0x89})
	states := make([]State, len(log)+1)
	for i, raw := range log {
		s, err := states[i].Apply(raw)
		if err != nil {
			f.Fatal(err)
		}
		states[i+1] = s
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseEntry(raw)
		if err == nil {
			if again, err := space.Marshal(e); err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("%x became %x, %v", raw, again, err)
			}
		}
		for _, s := range states {
			next, aerr := s.Apply(raw)
			if aerr == nil && (err != nil || next.Seq != e.Seq || next.C != e.C || next.IsZero()) {
				t.Fatalf("%x applies but does not parse: %v", raw, err)
			}
		}
		body(t, raw, new(genesisBody))
		body(t, raw, new(bindBody))
		body(t, raw, new(deviceBody))
		body(t, raw, new(pukBody))
	})
}

// body is the same oracle for the bodies, which the fuzzer cannot sign.
func body(t *testing.T, raw []byte, v any) {
	if err := space.Unmarshal(raw, v); err != nil {
		return
	}
	if again, err := space.Marshal(v); err != nil || !bytes.Equal(again, raw) {
		t.Fatalf("%T: %x became %x, %v", v, raw, again, err)
	}
}

// FuzzApply: bodies a signer may choose freely never panic and never leave a
// state that a rotation cannot wrap to.
func FuzzApply(f *testing.F) {
	seed, s := testSeed(0x11), alice().State
	for _, raw := range alice().Log {
		e, err := parseEntry(raw)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(e.Kind), e.Body)
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		if len(body) > MaxEntry-300 {
			return
		}
		next, err := s.Apply(forge(t, s, seed.signing(), Kind(kind), body, nil))
		if err != nil {
			return
		}
		if next.PUK.Gen != s.PUK.Gen {
			return // a rotation whose secret is unknown
		}
		if _, _, _, err := next.RotatePUK(testRand(1), seed, alice().PUK, now); err != nil {
			t.Fatalf("no rotation after %d %x: %v", kind, body, err)
		}
	})
}

// FuzzList: what parses is written again as the same bytes, and opens only as
// what was sealed.
func FuzzList(f *testing.F) {
	raw, err := alice().State.SealList(testRand(30), alice().Device, alice().PUK, 1, testAccount())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:len(raw)-1])
	f.Add([]byte{0x87})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseList(b)
		if err != nil {
			return
		}
		if again, err := space.Marshal(&l); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
		if l.Check(alice().State) == nil && !bytes.Equal(b, raw) {
			t.Fatalf("%x is taken for alice's", b)
		}
	})
}

// FuzzCode: what parses is a code that reads the same again, and no error
// holds what was typed.
func FuzzCode(f *testing.F) {
	c, err := NewCode(testRand(33))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.String())
	f.Add("0000-0000-0000-0000-0000")
	f.Add("o0il")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			return
		}
		again, err := ParseCode(c.String())
		if err != nil || *again.secret() != *c.secret() {
			t.Fatalf("%q became %q, %v", text, c, err)
		}
	})
}
