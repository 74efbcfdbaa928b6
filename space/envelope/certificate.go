package envelope

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
)

// The layout of a writer certificate (docs/protocol.md, "Writer certificate"):
//
//	0   1   version
//	1   32  issuer's public key
//	33  32  writer's public key
//	65  2   quota class, 0 to 3
//	67  8   not after, Unix seconds
//	75  64  signature by the issuer over "sp/v1/wcert" 0x00 ‖ bytes 0 to 75
//	139 64  signature by the writer over "sp/v1/chain" 0x00 ‖ topic id ‖ chain id
//
// The first 139 bytes are the issuer's grant, made once per device and epoch;
// the rest is the link, made by the device for each of its chains.
const (
	// CertificateSize is the length of a certificate.
	CertificateSize = 203
	// GrantSize is the length of the issuer's part of it.
	GrantSize = 139
	// MaxClass is the highest quota class.
	MaxClass = 3

	offIssuer   = 1
	offWriter   = 33
	offClass    = 65
	offNotAfter = 67
	offGrantSig = 75
)

// Certificate vouches for one chain: the issuer certifies the writer key, the
// writer key links the chain. Both keys are views; they must not be changed.
type Certificate struct {
	Issuer, Writer ed25519.PublicKey
	Class          uint16
	NotAfter       uint64 // Unix seconds

	raw     [CertificateSize]byte
	vouched ChainID // by Vouch: Verify is known to find nothing for this chain
}

// GrantBody is what the issuer signs, under space.LabelWriterCert, to certify
// a writer key: the first 75 bytes of the certificate.
func GrantBody(issuer, writer ed25519.PublicKey, class uint16, notAfter uint64) []byte {
	b := make([]byte, 0, GrantSize)
	b = append(b, Version)
	b = append(b, issuer...)
	b = append(b, writer...)
	b = binary.BigEndian.AppendUint16(b, class)
	return binary.BigEndian.AppendUint64(b, notAfter)
}

// NewCertificate joins a grant and the writer's link of one chain. It checks
// the form alone, as ParseCertificate does.
func NewCertificate(grant [GrantSize]byte, link [SignatureSize]byte) (Certificate, error) {
	return ParseCertificate(append(grant[:], link[:]...))
}

// ParseCertificate checks the form of a certificate, not its signatures. It
// copies b.
func ParseCertificate(b []byte) (Certificate, error) {
	if len(b) != CertificateSize {
		return Certificate{}, fmt.Errorf("parse certificate: %w: %d bytes", space.ErrMalformed, len(b))
	}
	if b[0] != Version {
		return Certificate{}, fmt.Errorf("parse certificate: %w: version %d", space.ErrMalformed, b[0])
	}
	c := Certificate{
		Class:    binary.BigEndian.Uint16(b[offClass:]),
		NotAfter: binary.BigEndian.Uint64(b[offNotAfter:]),
		raw:      [CertificateSize]byte(b),
	}
	if c.Class > MaxClass {
		return Certificate{}, fmt.Errorf("parse certificate: %w: quota class %d", space.ErrMalformed, c.Class)
	}
	keys := append([]byte(nil), b[offIssuer:offClass]...)
	c.Issuer, c.Writer = keys[:32:32], keys[32:]
	return c, nil
}

// Verify refuses a certificate that does not vouch for this chain in this
// topic: of another issuer, badly signed, or with a key that is not to be
// trusted with a signature. It does not look at NotAfter.
func (c Certificate) Verify(topic TopicID, chain ChainID) error {
	if TopicOf(c.Issuer) != topic {
		return fmt.Errorf("verify certificate: %w: not by the topic's issuer", space.ErrForged)
	}
	if c.vouched != (ChainID{}) && c.vouched == chain {
		return nil
	}
	for _, k := range [][]byte{c.Issuer, c.Writer, chain[:]} {
		if err := space.CheckPublicKey(k); err != nil {
			return fmt.Errorf("verify certificate: %w", err)
		}
	}
	if !space.Verify(c.Issuer, space.LabelWriterCert, c.raw[offGrantSig:GrantSize], c.raw[:offGrantSig]) {
		return fmt.Errorf("verify certificate: %w: the issuer did not sign it", space.ErrForged)
	}
	if !space.Verify(c.Writer, space.LabelChain, c.raw[GrantSize:], topic[:], chain[:]) {
		return fmt.Errorf("verify certificate: %w: the writer did not link this chain", space.ErrForged)
	}
	return nil
}

// Vouch is Verify, and remembers: who is handed the certificate later need not
// look at two signatures again. It is for who owns the certificate, such as one
// that was just parsed.
func (c *Certificate) Vouch(topic TopicID, chain ChainID) error {
	if err := c.Verify(topic, chain); err != nil {
		return err
	}
	c.vouched = chain
	return nil
}

// Bytes is a copy of the whole certificate.
func (c Certificate) Bytes() []byte { return append([]byte(nil), c.raw[:]...) }

// Grant is the issuer's part.
func (c Certificate) Grant() [GrantSize]byte { return [GrantSize]byte(c.raw[:GrantSize]) }

// WriterKey is the writer's public key as a map key: what quotas belong to.
func (c Certificate) WriterKey() [32]byte { return [32]byte(c.raw[offWriter:offClass]) }

// ID is the SHA-256 of the certificate, which sequence 0 names as its prev.
func (c Certificate) ID() ID { return sha256.Sum256(c.raw[:]) }
