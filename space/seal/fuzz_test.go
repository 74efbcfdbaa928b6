package seal

import (
	"bytes"
	"testing"

	"github.com/kithnet/kith/space/envelope"
)

// What these targets decode, sealed or not, comes from a member or a keeper that
// may lie. Whatever decodes must encode to the same bytes.

func FuzzHello(f *testing.F) {
	f.Add(must(testHello().Encode()))
	f.Add(must(Hello{}.Encode()))
	f.Add(must(Hello{Via: [32]byte{1}}.Encode()))
	f.Add([]byte{0x8a, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHello(b)
		if err != nil {
			return
		}
		again, err := h.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes and encodes to %x, %v", b, again, err)
		}
	})
}

func FuzzWelcome(f *testing.F) {
	in := newInvitation(40)
	in.w.keys = in.keys
	f.Add(must(in.w.encode()))
	f.Add(must(Welcome{IssuerPub: in.w.IssuerPub, keys: must(in.keys.Self(person(1)))}.encode()))
	f.Add(must(Welcome{IssuerPub: in.w.IssuerPub, keys: in.keys, Prior: []Prior{
		{Epoch: 1, Keys: in.keys}, {Epoch: 2, Control: in.keys.ctl},
	}}.encode()))
	f.Add([]byte{0x8a, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := decodeWelcome(b, person(1))
		if err != nil {
			return
		}
		again, err := w.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes and encodes to %x, %v", b, again, err)
		}
	})
}

func FuzzOpenWelcome(f *testing.F) {
	in := newInvitation(41)
	f.Add(must(in.seal()))
	in.w.keys = in.keys
	inside := must(in.w.encode()) // the one welcome this keeper ever signed
	f.Add(make([]byte, encSize+tagLen+64))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := OpenWelcome(in.puk, in.ctx, b)
		if err == nil && !bytes.Equal(must(w.encode()), inside) {
			t.Fatalf("%x opens to %+v", b, w)
		}
	})
}

func FuzzPart(f *testing.F) {
	f.Add(joinPart([]byte("hello world"), false))
	f.Add(joinPart(text(300), false))
	f.Add(joinPart(text(40), true))
	f.Add([]byte{0x80, 0, 0, 0})
	f.Fuzz(func(t *testing.T, plain []byte) {
		part, more, err := splitPart(plain)
		if err == nil && !bytes.Equal(joinPart(part, more), plain) {
			t.Fatalf("%x splits and joins to another", plain)
		}
	})
}

func FuzzReaderState(f *testing.F) {
	e := newEpoch(42)
	w, run := e.chain(person(1), text(1))
	r := e.reader(w)
	f.Add(must(r.MarshalBinary()))
	if _, err := drain(r, run); err != nil {
		f.Fatal(err)
	}
	f.Add(must(r.MarshalBinary()))
	f.Add(ReaderStateVia(person(1), testHello().Device, [32]byte{7}, 2))
	self := must(e.keys.Self(person(1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, keys := range []Keys{e.keys, self} {
			r, err := RestoreReader(keys, w.Chain(), w.Certificate(), b)
			if err != nil || b[1] == authorForeign && r.Position() == 0 {
				continue
			}
			if again := must(r.MarshalBinary()); !bytes.Equal(again, b) {
				t.Fatalf("%x restores and marshals to %x", b, again)
			}
		}
	})
}

// FuzzBodies writes what the input says: each byte a body, by type and size, and
// a restart of the reader where the lowest bit is set. What is read must be what
// was written.
func FuzzBodies(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte{0x21, 0x43, 0x65, 0xff})
	sizes := [...]int{1, 251, 252, 253, 5000, maxPart - 1, maxPart, maxPart + 1}
	f.Fuzz(func(t *testing.T, plan []byte) {
		e := newEpoch(43)
		w, run := e.chain(person(1))
		r := e.reader(w)
		if _, err := drain(r, run); err != nil {
			t.Fatal(err)
		}
		for _, b := range plan[:min(len(plan), 12)] {
			typ, body := envelope.Entry, text(sizes[b>>1&7])
			if b&16 != 0 {
				typ = envelope.Control
			}
			run = must(w.Seal(e.rand, typ, body))
			if b&1 != 0 {
				if _, err := drain(r, run[:len(run)-1]); err != nil {
					t.Fatal(err)
				}
				r = must(RestoreReader(e.keys, w.Chain(), w.Certificate(), must(r.MarshalBinary())))
			}
			got, err := drain(r, run)
			if err != nil || len(got) != 1 || !bytes.Equal(got[0], body) {
				t.Fatalf("body %x: %d bodies, %v", b, len(got), err)
			}
		}
	})
}

// FuzzForged gives a reader whatever parses as its next envelope.
func FuzzForged(f *testing.F) {
	e := newEpoch(44)
	w, run := e.chain(person(1), text(9))
	f.Add(run[1].Bytes())
	f.Add(run[0].Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		env, err := envelope.Parse(b)
		if err != nil {
			return
		}
		r := e.reader(w)
		if _, err := drain(r, run[:1]); err != nil {
			t.Fatal(err)
		}
		body, _, err := r.Open(env)
		if err == nil && !bytes.Equal(body, text(9)) {
			t.Fatalf("%x opens to %x", b, body)
		}
	})
}

func FuzzKeys(f *testing.F) {
	gk := must(NewGroupKey(random(45)))
	f.Add(gk.Marshal())
	f.Add(must(Full(gk).Self(person(1))).Marshal())
	sent := newEpoch(46).credential(person(1))
	sent.Via = [32]byte{7}
	f.Add(sent.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := UnmarshalKeys(b, person(1))
		if err == nil && !bytes.Equal(keys.Marshal(), b) {
			t.Fatalf("%x marshals to another", b)
		}
		cred, err := UnmarshalCredential(b)
		if err == nil && !bytes.Equal(cred.Marshal(), b) {
			t.Fatalf("%x marshals to another", b)
		}
		_, _ = OpenInner(gk.Control(), [32]byte{}, 1, b)
		_, _ = FollowControl(gk.Control(), [32]byte{}, 1, b)
		_, _ = FollowGroup(gk, [32]byte{}, 1, [32]byte{}, b)
		_, _ = Unwrap(puk(1, 1), WrapContext{}, [32]byte{}, b)
	})
}
