package envelope

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/space"
)

// DescriptorSize is the length of a topic descriptor:
//
//	0   1   version
//	1   32  issuer's public key
//	33  32  public fetch key
//	65  4   largest envelope, bytes
//	69  8   not after, Unix seconds
//	77  4   retention wished for, days
//	81  64  signature by the issuer over "sp/v1/desc" 0x00 ‖ bytes 0 to 81
const DescriptorSize = 145

const (
	offFetch      = 33
	offLargest    = 65
	offDescEnd    = 69
	offRetention  = 77
	offDescSig    = 81
	smallestLimit = 512
)

// Descriptor is what a relay has to know of a topic: who certifies its
// writers, and by which key its readers prove themselves. It is public.
type Descriptor struct {
	Issuer, Fetch ed25519.PublicKey
	MaxEnvelope   uint32 // bytes, 512 to MaxSize
	NotAfter      uint64 // Unix seconds
	RetentionDays uint32

	raw [DescriptorSize]byte
}

// DescriptorBody is what the issuer signs, under space.LabelDescriptor: the
// first 81 bytes of the descriptor.
func DescriptorBody(issuer, fetch ed25519.PublicKey, maxEnvelope uint32, notAfter uint64, retentionDays uint32) []byte {
	b := make([]byte, 0, DescriptorSize)
	b = append(b, Version)
	b = append(b, issuer...)
	b = append(b, fetch...)
	b = binary.BigEndian.AppendUint32(b, maxEnvelope)
	b = binary.BigEndian.AppendUint64(b, notAfter)
	return binary.BigEndian.AppendUint32(b, retentionDays)
}

// ParseDescriptor checks the form, the keys and the signature of a descriptor,
// not its end. It copies b. Errors match space.ErrMalformed or space.ErrForged.
func ParseDescriptor(b []byte) (Descriptor, error) {
	if len(b) != DescriptorSize || b[0] != Version {
		return Descriptor{}, fmt.Errorf("parse descriptor: %w: %d bytes", space.ErrMalformed, len(b))
	}
	d := Descriptor{
		MaxEnvelope:   binary.BigEndian.Uint32(b[offLargest:]),
		NotAfter:      binary.BigEndian.Uint64(b[offDescEnd:]),
		RetentionDays: binary.BigEndian.Uint32(b[offRetention:]),
		raw:           [DescriptorSize]byte(b),
	}
	if d.MaxEnvelope < smallestLimit || d.MaxEnvelope > MaxSize {
		return Descriptor{}, fmt.Errorf("parse descriptor: %w: envelopes of %d bytes", space.ErrMalformed, d.MaxEnvelope)
	}
	keys := append([]byte(nil), b[offIssuer:offLargest]...)
	d.Issuer, d.Fetch = keys[:32:32], keys[32:]
	for _, k := range []ed25519.PublicKey{d.Issuer, d.Fetch} {
		if err := space.CheckPublicKey(k); err != nil {
			return Descriptor{}, fmt.Errorf("parse descriptor: %w", err)
		}
	}
	if !space.Verify(d.Issuer, space.LabelDescriptor, b[offDescSig:], b[:offDescSig]) {
		return Descriptor{}, fmt.Errorf("parse descriptor: %w: the issuer did not sign it", space.ErrForged)
	}
	return d, nil
}

// Topic is the topic it describes.
func (d Descriptor) Topic() TopicID { return TopicOf(d.Issuer) }

// Bytes is a copy of the whole descriptor.
func (d Descriptor) Bytes() []byte { return append([]byte(nil), d.raw[:]...) }
