package control

import (
	"bytes"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// What Parse accepts is what its fields give back, byte for byte. The target
// is the framing: a fuzzer does not find signatures.
func FuzzParse(f *testing.F) {
	for _, e := range everyKind(f).entries {
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

// everyKind has an entry of each kind that can stand in its log.
func everyKind(tb testing.TB) *log {
	l := staffed(tb)
	l.add(KindCheckpoint, Checkpoint{Epoch: 1, Topic: [32]byte{1}, Heads: manyCuts(3)})
	l.add(KindMemberLevel, MemberLevel{Slot: 4, C: l.memberAt(4).C, Level: space.LevelRead})
	l.add(KindInviteRevoke, InviteRevoke{ID: testInvite("open").ID})
	l.add(KindMemberRemove, l.removal(4, func(r *Rotation) { r.Epoch.Cuts, r.Ended = manyCuts(4), []identity.Commitment{{1}} }))
	l.add(KindPolicy, l.s.Policy)
	l.add(KindPolicy, l.rotated(KindPolicy, PolicyChange{Policy: l.s.Policy}))
	l.add(KindEpoch, l.rotation())
	l.appoint(1, "keeper")
	return l
}

// What Open accepts has one encoding, and Apply judges it without a panic.
func FuzzOpen(f *testing.F) {
	l := everyKind(f)
	for _, e := range append(l.entries, l.build(KindDelete, Delete{Reason: "x"})) {
		f.Add(byte(e.Kind)-1, e.plaintext[bodyStart:])
	}
	own := ownDID(f)
	f.Add(byte(KindGenesis)-1, own.entries[0].plaintext[bodyStart:])
	f.Add(byte(KindTransfer)-1, must(encodeBody(KindTransfer, transferBody(own))))
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

func FuzzPage(f *testing.F) {
	l := settled(f)
	f.Add(must(EncodePage(l.epoch().Wraps)))
	f.Add(must(EncodePage(l.epoch().Wraps[2:3])))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePage(b)
		if err != nil {
			return
		}
		if again, err := EncodePage(p); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x, %v", b, again, err)
		}
		if len(p) == 0 || len(p) > PageSlots {
			t.Fatalf("%d wraps", len(p))
		}
	})
}

// The fuzzer signs what it finds, so that what stands behind the signature is
// reached.
func FuzzProposal(f *testing.F) {
	l := everyKind(f)
	key := l.keys.Proposer
	for _, e := range l.entries[2:] {
		if e.Kind != KindSequencer {
			f.Add(byte(e.Kind), e.plaintext)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, plain []byte) {
		p := Proposal{Kind: Kind(kind), SpaceID: l.s.SpaceID, Proposer: pub(key), Plain: plain}
		hash := p.hash()
		copy(p.Sig[:], space.Sign(key, space.LabelPropose, hash[:]))
		raw, err := space.Marshal(p)
		if err != nil {
			return
		}
		back, err := DecodeProposal(raw)
		if err != nil {
			return
		}
		if again, err := back.Encode(); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%x encodes as %x, %v", raw, again, err)
		}
		e, err := Commit(l.s, back, l.keys.Sequencer, l.keys.CK, l.now, fixed("commit"))
		if err != nil {
			return
		}
		read := must(Parse(e.Raw()))
		if err := read.Open(l.keys.CK); err != nil {
			t.Fatal(err)
		}
		if _, err := Apply(l.s, read); err != nil {
			t.Fatalf("committed what Apply refuses: %v", err)
		}
	})
}

// FuzzProposalBytes is the decoder against any bytes.
func FuzzProposalBytes(f *testing.F) {
	l := settled(f)
	f.Add(must(must(Propose(l.s, KindEpoch, l.rotation(), l.keys.Proposer, l.rand)).Encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodeProposal(b)
		if err != nil {
			return
		}
		if again, err := p.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x, %v", b, again, err)
		}
	})
}

func FuzzDescriptor(f *testing.F) {
	d := testDescriptor([32]byte{7}, testTime)
	f.Add(must(d.Encode()))
	d.Depth, d.Descendants, d.Keepers = 2, [][32]byte{{1}, {2}}, [][32]byte{{3}}
	f.Add(must(signedDescriptor(d).Encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := descriptorCodec.decode(b)
		if _, perr := ParseDescriptor(b); err != nil && perr == nil {
			t.Fatalf("parsed what does not decode: %v", err)
		}
		if err != nil {
			return
		}
		if again, err := d.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x, %v", b, again, err)
		}
	})
}

func FuzzLeave(f *testing.F) {
	o := must(otherOwner())
	good := SignLeave([32]byte{1}, Member{Slot: 3, C: o.state.C, ILHead: o.state.Head}, o.log, o.dev.Sig())
	f.Add(must(good.Encode()))
	short := good
	short.Log = short.Log[:1]
	f.Add(must(short.Encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLeave(b)
		if err != nil {
			return
		}
		if again, err := l.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x, %v", b, again, err)
		}
	})
}

func FuzzParseCaps(f *testing.F) {
	f.Add("admit,serve")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCaps(text)
		if err != nil {
			return
		}
		if back, err := ParseCaps(c.String()); err != nil || back != c || c&^CapAll != 0 {
			t.Fatalf("%q is %v is %v, %v", text, c, back, err)
		}
	})
}
