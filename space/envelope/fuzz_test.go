package envelope

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

func FuzzParse(f *testing.F) {
	v := vectorEnvelope(f)
	f.Add(v.Bytes())
	c := newIssuer(0x33).chain(f, 0x55, 0x44)
	f.Add(c.run[0].Bytes())
	f.Add(c.add(f, Control, 1024).Bytes())
	f.Add(v.Bytes()[:200])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		h := Header{Type: e.Type(), Topic: e.Topic(), Chain: e.Chain(), Seq: e.Seq(), Prev: e.Prev()}
		sig := b[len(b)-SignatureSize:]
		again, err := Build(h, e.Nonce(), e.Ciphertext(), func([]byte) []byte { return sig })
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("built again: %v", err)
		}
		if len(b) > MaxSize || e.ID() != sha256.Sum256(b) || e.Len() != len(b) {
			t.Fatal("size or id")
		}
		e.VerifySignature()
	})
}

func FuzzParseCertificate(f *testing.F) {
	iss := newIssuer(0x33)
	id := ChainID(public(key(0x44)))
	f.Add(iss.certify(f, key(0x55), id, 2, 1).Bytes())
	f.Add(make([]byte, CertificateSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCertificate(b)
		if err != nil {
			return
		}
		body := GrantBody(c.Issuer, c.Writer, c.Class, c.NotAfter)
		again := append(body, b[len(body):]...)
		if !bytes.Equal(again, b) || !bytes.Equal(c.Bytes(), b) {
			t.Fatal("written differently")
		}
		if c.Verify(iss.topic, id) == nil && !bytes.Equal(c.Issuer, public(iss.key)) {
			t.Fatal("verifies under another issuer")
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	iss := newIssuer(0x33)
	c := iss.chain(f, 0x55, 0x44).grow(f, 3)
	cert := c.cert.Bytes()
	f.Add(join(cert, c.run...))
	f.Add(join(cert, c.run[0]))
	f.Add(join(nil, c.run[1:]...))
	f.Add(join(nil, c.run[2], c.run[1]))
	f.Add(join(nil, c.build(f, Header{Type: Clear, Topic: c.top, Chain: c.id}, 256, nil)))
	fork := newFork(c.cert, c.run[2:3], c.fork(1).grow(f, 1, 'b').run[2:])
	proof, err := Frame{Fork: &fork}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(proof)
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := ParseFrame(b)
		if err != nil {
			return
		}
		again, err := fr.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("written again: %v", err)
		}
		// What a frame may carry and what a topic may accept agree: whatever
		// enters is a prefix of the one chain the issuer certified.
		topic := NewTopic(iss.topic)
		if fr.Fork != nil {
			if fr.Verify(); fr.Run != nil || fr.Cert != nil {
				t.Fatal("a proof with a run")
			}
			return
		}
		adv, err := topic.Check(fr.Cert, fr.Run)
		if err != nil {
			return
		}
		topic.Commit(adv)
		if topic.Count() != uint64(len(fr.Run)) || fr.Run[0].Seq() != 0 || !fr.Last().VerifySignature() {
			t.Fatalf("%d of %d envelopes entered", topic.Count(), len(fr.Run))
		}
	})
}
