package envelope

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/kithnet/kith/space"
)

func TestCertificate(t *testing.T) {
	iss := newIssuer(0x33)
	id := ChainID(public(key(0x44)))
	good := iss.certify(t, key(0x55), id, 2, 1_800_000_000)
	if err := good.Verify(iss.topic, id); err != nil {
		t.Fatal(err)
	}
	raw := good.Bytes()
	if len(raw) != CertificateSize || good.Class != 2 || good.NotAfter != 1_800_000_000 {
		t.Fatalf("parsed %+v", good)
	}
	grant := good.Grant()
	if !bytes.Equal(grant[:], raw[:GrantSize]) || good.WriterKey() != [32]byte(good.Writer) {
		t.Error("grant or writer key differs")
	}
	// Whatever bit changes, it is another certificate and does not verify.
	for i := range raw {
		b := bytes.Clone(raw)
		b[i] ^= 1
		c, err := ParseCertificate(b)
		if err != nil {
			continue
		}
		if c.ID() == good.ID() {
			t.Errorf("byte %d is not in the id", i)
		}
		if c.Verify(iss.topic, id) == nil {
			t.Errorf("byte %d changed and it verifies", i)
		}
	}
}

func TestCertificateRefusals(t *testing.T) {
	iss := newIssuer(0x33)
	id := ChainID(public(key(0x44)))
	good := iss.certify(t, key(0x55), id, 2, 1_800_000_000)
	for _, c := range []struct {
		name  string
		cert  Certificate
		topic TopicID
		chain ChainID
		want  error
	}{
		{"well made", good, iss.topic, id, nil},
		{"another topic", good, newIssuer(0x34).topic, id, space.ErrForged},
		{"an issuer of one's own", newIssuer(0x34).certify(t, key(0x55), id, 2, 1), iss.topic, id, space.ErrForged},
		{"an issuer of one's own for this topic", issuer{key(0x34), iss.topic}.certify(t, key(0x55), id, 2, 1), iss.topic, id, space.ErrForged},
		{"another chain", good, iss.topic, ChainID(public(key(0x45))), space.ErrForged},
	} {
		if err := c.cert.Verify(c.topic, c.chain); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
	}{
		{"short", func(b []byte) []byte { return b[:len(b)-1] }},
		{"long", func(b []byte) []byte { return append(b, 0) }},
		{"empty", func(b []byte) []byte { return nil }},
		{"version 2", func(b []byte) []byte { b[0] = 2; return b }},
		{"class 4", func(b []byte) []byte { b[offClass+1] = 4; return b }},
		{"class 256", func(b []byte) []byte { b[offClass] = 1; return b }},
	} {
		if _, err := ParseCertificate(c.edit(good.Bytes())); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v, want malformed", c.name, err)
		}
	}
}

// Keys of small order and second encodings are refused, whoever signed for
// them: for the identity point one signature fits every message.
func TestCertificateWeakKeys(t *testing.T) {
	iss := newIssuer(0x33)
	for _, h := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000", // identity
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
		"0000000000000000000000000000000000000000000000000000000000000000", // order 4
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
		"0100000000000000000000000000000000000000000000000000000000000080", // identity, second encoding
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // identity, y = p+1
	} {
		k, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		if c := iss.certify(t, key(0x55), ChainID(k), 2, 1); c.Verify(iss.topic, ChainID(k)) == nil {
			t.Errorf("chain key %s was taken", h)
		}
	}
}
