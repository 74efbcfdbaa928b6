package seal

import (
	"crypto/ed25519"
	"fmt"
	"io"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// CredentialSize is the length of a marshalled Credential of a member, and
// ViaCredentialSize of one that a child space sends.
const (
	CredentialSize    = envelope.GrantSize + ed25519.SignatureSize + KeySize
	ViaCredentialSize = CredentialSize + 32
)

// Issuer is the key that certifies the writers of an epoch. It is random, held
// by the sequencer and the keepers alone, and its hash is the topic id.
type Issuer struct{ signer }

// NewIssuer draws the issuer of a new epoch.
func NewIssuer(rand io.Reader) (Issuer, error) {
	s, err := newSigner(rand)
	return Issuer{s}, err
}

// UnmarshalIssuer is the inverse of Marshal.
func UnmarshalIssuer(b []byte) (Issuer, error) {
	s, err := secretFrom(b)
	if err != nil {
		return Issuer{}, err
	}
	return Issuer{signerOf(s)}, nil
}

// Topic is the topic the issuer's writers write to.
func (i Issuer) Topic() envelope.TopicID { return envelope.TopicOf(i.Public()) }

// Grant certifies a writer key until notAfter, in Unix seconds: the issuer's part
// of a writer certificate. A class above envelope.MaxClass makes a grant that
// nobody accepts.
func (i Issuer) Grant(writer ed25519.PublicKey, class uint16, notAfter uint64) [envelope.GrantSize]byte {
	b := envelope.GrantBody(i.Public(), writer, class, notAfter)
	return [envelope.GrantSize]byte(append(b, space.Sign(i.key(), space.LabelWriterCert, b)...))
}

// Describe makes the topic's descriptor, for relays: fetch is the epoch's public
// fetch key, notAfter the Unix second up to which it can be leased.
func (i Issuer) Describe(fetch ed25519.PublicKey, maxEnvelope uint32, notAfter uint64, retentionDays uint32) [envelope.DescriptorSize]byte {
	b := envelope.DescriptorBody(i.Public(), fetch, maxEnvelope, notAfter, retentionDays)
	return [envelope.DescriptorSize]byte(append(b, space.Sign(i.key(), space.LabelDescriptor, b)...))
}

// Vouch says, to members only, whose the writer key is.
func (i Issuer) Vouch(writer ed25519.PublicKey, c identity.Commitment) [64]byte {
	return [64]byte(space.Sign(i.key(), space.LabelVouch, writer, c[:]))
}

// VouchVia says, to members only, whose the writer key is, and that this author
// is in no roster of the space but sent by the space child.
func (i Issuer) VouchVia(writer ed25519.PublicKey, c identity.Commitment, child [32]byte) [64]byte {
	return [64]byte(space.Sign(i.key(), space.LabelVouchVia, writer, c[:], child[:]))
}

// WriterKey is what the issuer certifies: one per device and epoch, kept sealed
// on disk. It signs chain keys and nothing else.
type WriterKey struct{ signer }

// NewWriterKey draws a writer key.
func NewWriterKey(rand io.Reader) (WriterKey, error) {
	s, err := newSigner(rand)
	return WriterKey{s}, err
}

// UnmarshalWriterKey is the inverse of Marshal.
func UnmarshalWriterKey(b []byte) (WriterKey, error) {
	s, err := secretFrom(b)
	if err != nil {
		return WriterKey{}, err
	}
	return WriterKey{signerOf(s)}, nil
}

func (w WriterKey) link(topic envelope.TopicID, chain envelope.ChainID) [64]byte {
	return [64]byte(space.Sign(w.key(), space.LabelChain, topic[:], chain[:]))
}

// Credential lets a device write in an epoch: a writer key, the issuer's grant
// for it and the issuer's voucher for whose it is.
type Credential struct {
	Grant   [envelope.GrantSize]byte
	Voucher [64]byte
	Writer  WriterKey
	Via     [32]byte // the child space that sent its holder; zero for a member
}

// Marshal is grant ‖ voucher ‖ writer seed, 235 bytes, for the key file; behind
// them the child space, if one sent the holder.
func (c Credential) Marshal() []byte {
	b := make([]byte, 0, ViaCredentialSize)
	b = append(b, c.Grant[:]...)
	b = append(b, c.Voucher[:]...)
	b = append(b, c.Writer.raw()...)
	if c.Via != ([32]byte{}) {
		b = append(b, c.Via[:]...)
	}
	return b
}

// UnmarshalCredential is the inverse of Marshal.
func UnmarshalCredential(b []byte) (Credential, error) {
	if len(b) != CredentialSize && len(b) != ViaCredentialSize {
		return Credential{}, fmt.Errorf("%w: credential is %d bytes", space.ErrMalformed, len(b))
	}
	rest := b[envelope.GrantSize:]
	w, err := UnmarshalWriterKey(rest[64 : 64+KeySize])
	if err != nil {
		return Credential{}, err
	}
	c := Credential{Grant: [envelope.GrantSize]byte(b), Voucher: [64]byte(rest), Writer: w}
	if len(b) == ViaCredentialSize {
		c.Via = [32]byte(b[CredentialSize:])
		if c.Via == ([32]byte{}) {
			return Credential{}, fmt.Errorf("%w: credential by way of no space", space.ErrNotCanonical)
		}
	}
	return c, nil
}

// certificate is the certificate of a chain, parsed and verified.
func (c Credential) certificate(topic envelope.TopicID, chain envelope.ChainID) (envelope.Certificate, error) {
	cert, err := envelope.NewCertificate(c.Grant, c.Writer.link(topic, chain))
	if err != nil {
		return envelope.Certificate{}, err
	}
	return cert, cert.Verify(topic, chain)
}

// Check verifies that the grant and the voucher fit the topic, the writer key
// and its holder. It does not look at the clock.
func (c Credential) Check(topic envelope.TopicID, holder identity.Commitment) error {
	// Any key that may be one serves as the chain here.
	cert, err := c.certificate(topic, envelope.ChainID(c.Writer.Public()))
	if err == nil {
		err = checkVoucher(cert, holder, c.Via, c.Voucher)
	}
	if err != nil {
		return fmt.Errorf("check credential: %w", err)
	}
	return nil
}

// NotAfter is when the grant ends, in Unix seconds; 0 if it cannot be read.
func (c Credential) NotAfter() uint64 {
	cert, err := envelope.NewCertificate(c.Grant, [64]byte{})
	if err != nil {
		return 0
	}
	return cert.NotAfter
}

func checkVoucher(cert envelope.Certificate, c identity.Commitment, via [32]byte, voucher [64]byte) error {
	ok := false
	if via == ([32]byte{}) {
		ok = space.Verify(cert.Issuer, space.LabelVouch, voucher[:], cert.Writer, c[:])
	} else {
		ok = space.Verify(cert.Issuer, space.LabelVouchVia, voucher[:], cert.Writer, c[:], via[:])
	}
	if !ok {
		return fmt.Errorf("%w: the issuer does not vouch for this author", space.ErrForged)
	}
	return nil
}
