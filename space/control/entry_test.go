package control

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/kithnet/kith/space"
)

// encodeFraming is the layout written a second time, from the fields.
func encodeFraming(e *Entry, nonce, box, sigs []byte) []byte {
	b := []byte("SPC1")
	b = append(b, byte(e.Kind), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = append(b, e.SpaceID[:]...)
	b = append(b, e.Prev[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(e.TimeMs))
	b = append(b, e.Proposer[:]...)
	b = append(b, e.ProposalHash[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(box)))
	b = append(b, nonce...)
	b = append(b, box...)
	return append(b, sigs...)
}

func TestLayout(t *testing.T) {
	l := populated(t)
	for _, e := range l.entries {
		raw := e.Raw()
		n := len(raw)
		if got := encodeFraming(e, raw[172:196], raw[196:n-128], raw[n-128:]); !bytes.Equal(got, raw) {
			t.Fatalf("entry %d:\n%x\nfields give\n%x", e.Seq, raw, got)
		}
		if e.Hash() != sha256.Sum256(raw) {
			t.Fatal("hash is not that of the bytes")
		}
		sealed := e.Kind != KindGenesis && e.Seq != 1
		if sealed == bytes.Contains(raw, e.plaintext) || sealed == e.InClear() {
			t.Fatalf("entry %d (%v): sealed is %v", e.Seq, e.Kind, !sealed)
		}
		hashed := append(append([]byte{byte(e.Kind)}, e.SpaceID[:]...), e.plaintext...)
		if e.ProposalHash != sha256.Sum256(hashed) {
			t.Fatal("proposal hash")
		}
		base := e.BaseHead()
		if base != e.Prev {
			t.Fatal("base head is not prev")
		}
		key := ed25519.PublicKey(e.Proposer[:])
		if !ed25519.Verify(key, append([]byte("sp/v1/ctl/propose\x00"), e.ProposalHash[:]...), raw[n-128:n-64]) ||
			!ed25519.Verify(key, append([]byte("sp/v1/ctl/commit\x00"), raw[:n-64]...), raw[n-64:]) {
			t.Fatal("signatures are not over what the layout says")
		}
	}
}

func TestParseRefuses(t *testing.T) {
	l := populated(t)
	genesis, sealed := l.entries[0].Raw(), l.entries[2].Raw()
	at := func(off int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[off:], v); return b }
	}
	zero := make([]byte, 32)
	tests := []struct {
		name string
		raw  []byte
		edit func([]byte) []byte
		want error
	}{
		{"nothing", nil, func(b []byte) []byte { return b }, space.ErrMalformed},
		{"cut in the framing", sealed, func(b []byte) []byte { return b[:195] }, space.ErrMalformed},
		{"a byte short", sealed, func(b []byte) []byte { return b[:len(b)-1] }, space.ErrMalformed},
		{"a byte long", sealed, func(b []byte) []byte { return append(b, 0) }, space.ErrMalformed},
		{"too large", sealed, func(b []byte) []byte { return append(b, make([]byte, MaxEntry)...) }, space.ErrTooLarge},
		{"magic", sealed, at(3, '2'), space.ErrMalformed},
		{"kind 0", sealed, at(4, 0), space.ErrMalformed},
		{"kind 15", sealed, at(4, 15), space.ErrUnsupported},
		{"flag 1", sealed, at(5, 1), space.ErrMalformed},
		{"flag 2", sealed, at(6, 1), space.ErrMalformed},
		{"flag 3", sealed, at(7, 0x80), space.ErrMalformed},
		{"body length", sealed, at(171, 0), space.ErrMalformed},
		{"body length, high byte", sealed, at(168, 0xff), space.ErrMalformed},
		{"time", sealed, at(96, 0, 0x20), space.ErrMalformed},
		{"proposer of small order", sealed, at(104, append([]byte{1}, zero[:31]...)...), space.ErrMalformed},
		{"another proposer", sealed, func(b []byte) []byte { p := pub(fixedKey("x")); copy(b[104:], p[:]); return b }, space.ErrForged},
		{"proposal hash", sealed, func(b []byte) []byte { b[140] ^= 1; return b }, space.ErrForged},
		{"proposer's signature", sealed, func(b []byte) []byte { b[len(b)-128] ^= 1; return b }, space.ErrForged},
		{"genesis kind at seq 2", sealed, at(4, 1), space.ErrMalformed},
		{"seq 0", sealed, at(16, zero[:8]...), space.ErrMalformed},
		{"no space id", sealed, at(24, zero...), space.ErrMalformed},
		{"no prev", sealed, at(56, zero...), space.ErrMalformed},
		{"genesis with space id", genesis, at(24, 1), space.ErrMalformed},
		{"genesis with prev", genesis, at(56, 1), space.ErrMalformed},
		{"genesis of term 1", genesis, at(15, 1), space.ErrMalformed},
		{"genesis of epoch 1", genesis, at(95, 1), space.ErrMalformed},
		{"sequencer of term 0", sealed, at(4, byte(KindSequencer)), space.ErrMalformed},
		{"genesis at seq 1", genesis, at(23, 1), space.ErrMalformed},
		{"nonce in clear", genesis, at(180, 1), space.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := tt.edit(append([]byte(nil), tt.raw...))
			if e, err := Parse(raw); !errors.Is(err, tt.want) || e != nil {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Whoever holds the control key can seal a plaintext too short for what must
// stand in it.
func TestSealedBodyTooShort(t *testing.T) {
	l := founded(t)
	for n := bodyStart - 16; n < bodyStart; n++ {
		d := l.next(KindInvite)
		e := &Entry{raw: append(must(d.seal(make([]byte, n), pub(l.keys.Proposer), l.keys.CK, l.rand)), make([]byte, 128)...)}
		e.ProposalHash = proposalHash(d.kind, d.spaceID, make([]byte, n))
		e.sign(l.keys)
		if _, err := Parse(e.raw); !errors.Is(err, space.ErrMalformed) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// Every bit of an entry is under one of the two signatures.
func TestEveryByteIsSigned(t *testing.T) {
	l := founded(t)
	e := l.build(KindInvite, testInvite("new"))
	key := l.s.SequencerPub
	for i := range e.Raw() {
		raw := append([]byte(nil), e.Raw()...)
		raw[i] ^= 0x10
		x, err := parseFraming(raw)
		if err == nil && x.VerifyCommit(key) == nil {
			t.Fatalf("byte %d can be changed", i)
		}
	}
}

// The body is bound to the framing, so that a sequencer cannot lift it into
// another place of the log without the key.
func TestOpenRefuses(t *testing.T) {
	l := founded(t)
	raw := l.build(KindInvite, testInvite("new")).Raw()
	ck := l.keys.CK
	other := append([]byte{1}, ck[1:]...)
	tests := []struct {
		name string
		edit func(e *Entry)
		ck   []byte
		want error
	}{
		{"no key", func(*Entry) {}, nil, space.ErrNoKey},
		{"short key", func(*Entry) {}, ck[:31], space.ErrNoKey},
		{"another key", func(*Entry) {}, other, space.ErrForged},
		{"framing changed", func(e *Entry) { e.raw[offTime+7] ^= 1 }, ck, space.ErrForged},
		{"nonce changed", func(e *Entry) { e.raw[offNonce] ^= 1 }, ck, space.ErrForged},
		{"body changed", func(e *Entry) { e.raw[offBody] ^= 1 }, ck, space.ErrForged},
		{"another proposal", func(e *Entry) { e.ProposalHash[0] ^= 1 }, ck, space.ErrForged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := must(Parse(raw))
			tt.edit(e)
			if err := e.Open(tt.ck); !errors.Is(err, tt.want) || e.Opened() || e.Body() != nil {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
	e := must(Parse(raw))
	if err := e.Open(ck); err != nil {
		t.Fatal(err)
	}
	if v, ok := e.Body().(Invite); !ok || v != testInvite("new") {
		t.Fatalf("body is %#v", e.Body())
	}
	if err := e.Open(nil); err != nil {
		t.Fatalf("opened twice: %v", err)
	}
}

func TestParseKeepsACopy(t *testing.T) {
	raw := append([]byte(nil), founded(t).entries[1].Raw()...)
	e := must(Parse(raw))
	clear(raw)
	if bytes.Equal(e.Raw(), raw) || e.Open(nil) != nil {
		t.Fatal("the entry changed with the caller's bytes")
	}
}

func TestEpochInner(t *testing.T) {
	x := EpochInner{
		IssuerPub: pub(fixedKey("issuer")), FetchPub: pub(fixedKey("fetch")),
		Relays: []string{"/dns4/relay.example/udp/4001/quic-v1"}, CtlLink: []byte("link"),
	}
	b := must(x.Encode())
	y, err := DecodeEpochInner(b)
	if err != nil || !bytes.Equal(must(y.Encode()), b) || y.Relays[0] != x.Relays[0] || y.PrevLink != nil {
		t.Fatalf("round trip: %+v, %v", y, err)
	}
	for name, edit := range map[string]func(*EpochInner){
		"issuer":             func(x *EpochInner) { x.IssuerPub = [32]byte{} },
		"fetch key":          func(x *EpochInner) { x.FetchPub = [32]byte{1} },
		"too many relays":    func(x *EpochInner) { x.Relays = make([]string, maxRelays+1) },
		"relay is no addr":   func(x *EpochInner) { x.Relays = []string{"relay.example"} },
		"link too large":     func(x *EpochInner) { x.CtlLink = make([]byte, maxLink+1) },
		"key link too large": func(x *EpochInner) { x.PrevLink = make([]byte, maxLink+1) },
		"empty, not null":    func(x *EpochInner) { x.PrevLink = []byte{} },
	} {
		z := x
		edit(&z)
		if _, err := DecodeEpochInner(must(space.Marshal(z))); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if b, err := z.Encode(); err == nil && name != "empty, not null" {
			t.Errorf("%s: encoded as %x", name, b)
		}
	}
	if _, err := DecodeEpochInner(append(b, 0)); err == nil {
		t.Error("trailing byte accepted")
	}
}
