package control

import (
	"bytes"
	"testing"

	"github.com/kithnet/kith/space"
)

// What Parse accepts is what its fields give back, byte for byte. The target
// is the framing: a fuzzer does not find signatures.
func FuzzParse(f *testing.F) {
	for _, e := range populated(f).entries {
		f.Add(e.Raw())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseFraming(raw)
		if _, perr := Parse(raw); err != nil && perr == nil {
			t.Fatalf("Parse takes what the framing refuses: %v", err)
		}
		if err != nil {
			return
		}
		n := len(raw)
		if got := encodeFraming(e, raw[offNonce:offBody], raw[offBody:n-128], raw[n-128:]); !bytes.Equal(got, raw) {
			t.Fatalf("fields give\n%x\nfor\n%x", got, raw)
		}
		if !bytes.Equal(e.Raw(), raw) || len(e.box())+offBody+128 != n {
			t.Fatal("entry is not its bytes")
		}
	})
}

// What Open accepts has one encoding, and Apply judges it without a panic.
func FuzzOpen(f *testing.F) {
	l := populated(f)
	later := l.build(KindEpoch, l.rotation())
	for _, e := range append(l.entries, later, l.build(KindPolicy, space.DefaultPolicy())) {
		f.Add(byte(e.Kind), e.plaintext[bodyStart:])
	}
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		k := Kind(kind%byte(KindTransfer) + 1)
		if len(body) > MaxBody/2 {
			return
		}
		d, s := l.next(k), l.s
		switch k {
		case KindGenesis:
			d, s = draft{kind: k}, nil
		case KindSequencer:
			d = l.nextTerm()
		}
		e, err := Parse(forgeRaw(d, body, l.keys))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Open(l.keys.CK); err != nil {
			if e.Body() != nil {
				t.Fatal("a body in spite of an error")
			}
			return
		}
		if e.Body() != nil {
			if again, err := encodeBody(k, e.Body()); err != nil || !bytes.Equal(again, body) {
				t.Fatalf("%v: %x encodes as %x, %v", k, body, again, err)
			}
		}
		next, err := Apply(s, e)
		if (next == nil) == (err == nil) {
			t.Fatalf("state %v with error %v", next, err)
		}
		if err == nil && next.Head != e.Head() {
			t.Fatal("head is not the entry")
		}
	})
}

func FuzzEpochInner(f *testing.F) {
	x := EpochInner{IssuerPub: pub(fixedKey("issuer")), FetchPub: pub(fixedKey("fetch"))}
	f.Add(must(x.Encode()))
	x.Relays, x.CtlLink, x.PrevLink = []string{"/ip4/192.0.2.1/tcp/4001"}, []byte{1}, []byte{2}
	f.Add(must(x.Encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeEpochInner(b)
		if err != nil {
			return
		}
		if again, err := x.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x, %v", b, again, err)
		}
	})
}

// A link that parses says itself again, whatever quotes it came in.
func FuzzLink(f *testing.F) {
	for _, l := range testLinks() {
		f.Add(l.String())
		f.Add("“" + l.HTTPS("kith.example") + "” ")
	}
	f.Add("kith:j#")
	f.Add("https://kith.example/j/00112233445566778899aabbccddeeff#AQ")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLink(text)
		if err != nil {
			return
		}
		again, err := ParseLink(l.String())
		if err != nil || !sameLink(again, l) {
			t.Fatalf("%q says %q: %v", text, l.String(), err)
		}
		frag := l.String()[len(linkScheme):]
		if !bytes.Contains([]byte(text), []byte(frag)) {
			t.Fatalf("%q was read as %q: a second spelling", text, frag)
		}
		if again, err := ParseLink(l.HTTPS("h")); err != nil || !sameLink(again, l) {
			t.Fatalf("as https: %v", err)
		}
	})
}
